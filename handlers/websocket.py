"""`/ws`: the WebSocket handshake (RFC 6455, section 4.2). What is said afterwards is in conversation.py."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Any

from handlers.authentication import RESUME, TOKEN, Credential
from handlers.belongings import NOTHING
from handlers.conversation import Conversation, Entry
from handlers.opening import Opening
from handlers.origins import Page
from handlers.sockets import SocketSink
from handlers.sse import response_head, take_socket
from hub.errors import BadRequest, Forbidden, TailcastError

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
VERSION = "13"
PROTOCOL = "tailcast"
BEARER = "bearer"


class UpgradeRequired(TailcastError):
    """Not a WebSocket handshake, or one of another version (RFC 6455 section 4.4)."""

    code, status = "upgrade_required", 426


class WebSocket(Opening):
    """Answers the handshake and lets go of the request."""

    OPEN = True  # a credential may come in the first message
    COOKIES_NEED_ORIGIN = True  # every browser sends it with a handshake

    @property
    def page(self) -> Page:
        """The page that the handshake comes from; drafts of the protocol had a header of their own for it."""
        headers = self.request.headers
        return super().page._replace(origin=headers.get("Origin") or headers.get("Sec-WebSocket-Origin"))

    def prepare(self) -> None:
        """Refuse pages of foreign origins. Here, since browsers send no preflight before a handshake."""
        super().prepare()
        if self.page.is_foreign():
            raise Forbidden("pages of this origin may not connect: see the setting allowed_origins")

    async def get(self) -> None:
        """Switch protocols, with a credential or without one yet."""
        key = self._key()
        entry = await self._entry() if self.credential() is not None else None
        # Nothing is awaited from here on: who may connect now, does.
        self.services.require_room(entry.principal if entry else None, self.address, self.correlation_id)
        taken = take_socket(self, want_data=True)
        if taken is None:
            return
        sink = SocketSink(self.services.poller, taken[0], want_data=True)
        Conversation(self.services, sink, self.address, self.correlation_id).begin(entry, self._head(key, self._offered()))
        if taken[1]:
            sink.owner.on_data(taken[1])

    async def _entry(self) -> Entry:
        """Return who comes, and what a resume token brings."""
        principal = await self.principal()
        resumption = self.resumption()
        if resumption is None:
            return Entry(principal)
        self.require_same(principal, resumption)
        start = await self.start((resumption.position, RESUME))
        belongings = await self.belongings(principal, resumption.subscriptions) if resumption.subscriptions else NOTHING
        return Entry(principal, resumption.subscriptions, start, belongings)

    def credential(self) -> Credential | None:
        """Return the credential of the handshake: also one among the subprotocols that are offered, which is all a page can add."""
        token = self.bearer() or self.get_query_argument("token", None) or token_of(self._offered())
        return Credential(TOKEN, token) if token else super().credential()

    def _offered(self) -> list[str]:
        return [part.strip() for part in self.request.headers.get("Sec-WebSocket-Protocol", "").split(",") if part.strip()]

    def write_error(self, status_code: int, **options: Any) -> None:
        """Say with a 426 what to upgrade to (RFC 9110 section 15.5.22, RFC 6455 section 4.4). Headers set earlier are cleared by now."""
        if "exc_info" in options and isinstance(options["exc_info"][1], UpgradeRequired):
            self.set_header("Upgrade", "websocket")
            self.set_header("Connection", "Upgrade")
            self.set_header("Sec-WebSocket-Version", VERSION)
        super().write_error(status_code, **options)

    def _key(self) -> str:
        if self.request.version == "HTTP/1.0":  # RFC 6455 section 4.1, and a proxy that was not told to speak HTTP/1.1
            raise BadRequest("expected a WebSocket handshake over HTTP/1.1, not HTTP/1.0")
        headers = self.request.headers
        tokens = {token.strip().lower() for token in headers.get("Connection", "").split(",")}
        if headers.get("Upgrade", "").lower() != "websocket" or "upgrade" not in tokens:
            raise UpgradeRequired("this is a WebSocket: open it with a WebSocket client")
        if headers.get("Sec-WebSocket-Version") != VERSION:
            raise UpgradeRequired(f"expected Sec-WebSocket-Version: {VERSION}")
        key = headers.get("Sec-WebSocket-Key", "")
        try:
            valid = len(base64.b64decode(key, validate=True)) == 16
        except (binascii.Error, ValueError):
            valid = False
        if not valid:
            raise BadRequest("expected a Sec-WebSocket-Key of 16 bytes in base64")
        return key

    def _head(self, key: str, offered: list[str]) -> bytes:
        accept = base64.b64encode(hashlib.sha1(key.encode() + GUID).digest()).decode()
        headers = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Accept": accept,
            "X-Correlation-ID": self.correlation_id,
        }
        chosen = choose_protocol(offered)
        if chosen is not None:
            headers["Sec-WebSocket-Protocol"] = chosen
        return response_head(101, headers)


def token_of(offered: list[str]) -> str | None:
    """Return the token among the subprotocols offered: `bearer.<token>`, the one after `bearer`, or one that looks like a JWT."""
    for index, name in enumerate(offered):
        if name.startswith(f"{BEARER}."):
            return name[len(BEARER) + 1 :]
        if name == BEARER and index + 1 < len(offered):
            return offered[index + 1]
    return next((name for name in offered if _is_token(name)), None)


def choose_protocol(offered: list[str]) -> str | None:
    """Return the one subprotocol to agree on: browsers fail a handshake that agrees on none of those they offered.

    It is one that holds no token, if there is one.
    """
    for name in (PROTOCOL, BEARER):
        if name in offered:
            return name
    return next((name for name in offered if not _is_token(name)), offered[0] if offered else None)


def _is_token(name: str) -> bool:
    return name.startswith(f"{BEARER}.") or (name.startswith("eyJ") and name.count(".") == 2)
