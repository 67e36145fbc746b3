"""`/ws`: the WebSocket handshake (RFC 6455, section 4.2). What is said afterwards is in conversation.py."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Any

from handlers.base import Handler
from handlers.conversation import Conversation
from handlers.sockets import SocketSink
from handlers.stream import response_head, take_socket
from hub.errors import BadRequest, Forbidden, NotReady, TailcastError
from hub.principal import Principal

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
VERSION = "13"
PROTOCOL = "tailcast"
BEARER = "bearer"


class UpgradeRequired(TailcastError):
    """Not a WebSocket handshake, or one of another version (RFC 6455 section 4.4)."""

    code, status = "upgrade_required", 426


class WebSocket(Handler):
    """Answers the handshake and lets go of the request."""

    OPEN = True  # a credential may come in the first message

    def prepare(self) -> None:
        """Refuse pages of foreign origins. Here, since browsers send no preflight before a handshake."""
        super().prepare()
        origin = self.request.headers.get("Origin") or self.request.headers.get("Sec-WebSocket-Origin")
        if origin is not None and not self.origin_allowed(origin):
            raise Forbidden("pages of this origin may not connect: see the setting allowed_origins")

    def get(self) -> None:
        """Switch protocols, with a credential or without one yet."""
        key = self._key()
        offered = [part.strip() for part in self.request.headers.get("Sec-WebSocket-Protocol", "").split(",") if part.strip()]
        principal = self._asking(offered)
        if not self.services.has_room():
            raise NotReady("the server takes no more connections", retry_after=5)
        taken = take_socket(self)
        if taken is None:
            return
        sink = SocketSink(self.services.poller, taken[0], want_data=True)
        conversation = Conversation(self.services, sink, self.correlation_id)
        conversation.begin(principal, self._head(key, offered))
        if taken[1]:
            sink.owner.on_data(taken[1])

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

    def _asking(self, offered: list[str]) -> Principal | None:
        """Return who is asking by header, query or subprotocol; None: the first message will tell."""
        token = self.token() or token_of(offered)
        return self.services.verifier.principal(token) if token else None

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
