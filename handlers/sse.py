"""What opening a stream over Server-Sent Events takes (WHATWG HTML, section 9.2): from a request to a connection of the hub."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable, Collection
from http.client import responses
from typing import NamedTuple

from tornado.iostream import IOStream

from handlers.base import Handler, translate
from handlers.belongings import Belongings
from handlers.codings import accepts_gzip
from handlers.opening import Opening
from handlers.sockets import SocketSink
from hub.connection import Connection, Start
from hub.errors import TRY_LATER, BadRequest, NotReady, TooMany
from hub.formats import HEARTBEAT, RETRY_MS, SSE_UNCHUNKED, SseFormat, sse_format
from hub.principal import Principal
from hub.subscriptions import Subscription
from hub.terms import PLAIN, Terms
from storage.errors import Unavailable

MAX_BEHIND_BYTES = 1 << 20  # more than Tornado reads ahead
# What every stream understands: where it begins, and who asks.
COMMON_PARAMETERS = ("from", "lastEventId", "token", "ticket", "resume")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Admission(NamedTuple):
    """With what a stream is opened.

    Args:
        principal: Who asks.
        subscriptions: What is selected.
        belongings: Which resources it hears of; looked up last of all.
        start: Where it begins; None: now.
        granted: Audiences that it names, and may hear by its role alone.
        terms: How it is served.
        client_id: Its name; None: one that says nothing.
        first: Returns what is sent right after `welcome`, as of the moment in which it is asked.
    """

    principal: Principal
    subscriptions: frozenset[Subscription]
    belongings: Belongings
    start: Start | None
    granted: frozenset[str] = frozenset()
    terms: Terms = PLAIN
    client_id: str | None = None
    first: Callable[[SseFormat], bytes] | None = None


class SseOpening(Opening):
    """The base of handlers that open an event stream and let go of the request: the socket goes to a sink, and nothing of Tornado stays."""

    HEARTBEAT = HEARTBEAT  # the text of its comments
    RETRY_MS = RETRY_MS  # what a browser waits before it comes back

    async def prepare(self) -> None:  # type: ignore[override]  # Tornado awaits either
        """Open the stream now: once this returns, Tornado would wait for a body, and watch whether the client leaves, only to be told that
        the socket is no longer its own. After `get` there is nothing left to be called."""
        super().prepare()
        if self.request.method == "GET" and not self._finished:
            try:
                await self.get(**self.path_kwargs)
            except (NotReady, Unavailable) as error:
                told = translate(error)
                assert isinstance(told, NotReady)
                self.turn_away(told)
            assert self._finished, "answered, or detached"

    async def get(self, **path: str) -> None:
        """Answer with a stream."""
        raise NotImplementedError

    def arguments(self) -> dict[str, str]:
        """Return the parameters of the query; one that is repeated is one list."""
        return {name: ",".join(self.get_query_arguments(name)) for name in self.request.query_arguments}

    def require_known(self, names: Collection[str], known: Collection[str], more: str = "") -> None:
        """Refuse parameters that nobody understands: a misspelt one would otherwise select everything.

        Raises:
            BadRequest: If there is one.
        """
        unknown = [name for name in names if name not in known]
        if unknown:
            raise BadRequest(f"unknown parameter; known are {', '.join(known)}{more}", field=unknown[0][:80])

    def admit(self, admission: Admission) -> Connection | None:
        """Open a stream if there is room, without an `await`: who may connect now, does. None: it was turned away, or the client has left.

        Raises:
            Unauthenticated: If its credential was revoked meanwhile.
            TooMany: If its organisation has as many connections as it may have, and the client is no event stream of a browser.
            NotReady: If the server has, or is stopping, or what comes first cannot be made.
        """
        services, principal = self.services, admission.principal
        chunked = self.request.version == "HTTP/1.1"
        compressed = chunked and services.gzip and accepts_gzip(self.request.headers.get("Accept-Encoding", ""))
        format = sse_format(chunked=chunked, heartbeat=self.HEARTBEAT, retry_ms=self.RETRY_MS, compressed=compressed)
        try:
            services.require_room(principal, self.address, self.correlation_id)
            first = admission.first(format) if admission.first else b""
        except TooMany as error:
            self.turn_away(error)
            return None
        services.rates.subscribed(principal, correlationId=self.correlation_id)
        taken = take_socket(self)
        if taken is None:
            return None
        sink = SocketSink(services.poller, taken[0])
        client_id = admission.client_id or services.make_id()
        connection = Connection(client_id, principal, format, sink, services.hub, self.correlation_id)
        connection.owned, connection.owns_all = admission.belongings
        connection.granted, connection.terms = admission.granted, admission.terms
        sink.owner = connection
        services.hub.open(connection, admission.subscriptions, admission.start, self._head(chunked, compressed), first)
        return connection

    def _head(self, chunked: bool, compressed: bool) -> bytes:
        """Return the head of the answer. It is written here because the stream is no longer Tornado's."""
        headers = {
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-cache",
            "Connection": "keep-alive" if chunked else "close",
            "X-Accel-Buffering": "no",  # nginx passes events on at once
            "X-Correlation-ID": self.correlation_id,
            **self.page.headers(),
        }
        if self.services.gzip:
            headers["Vary"] = ", ".join(filter(None, (headers.get("Vary"), "Accept-Encoding")))
        if compressed:
            headers["Content-Encoding"] = "gzip"
        if chunked:
            headers["Transfer-Encoding"] = "chunked"
        return response_head(200, headers)

    def turn_away(self, error: TooMany | NotReady) -> None:
        """Shed load with an answer that EventSource survives: at any status but 200 it gives up for good."""
        if "text/event-stream" not in self.request.headers.get("Accept", ""):
            raise error
        seconds = error.retry_after or 0
        # There may be room at any moment, but what comes too often has to wait.
        wait_ms = seconds * 1000 if isinstance(error, TooMany) else 0
        self.set_header("Content-Type", "text/event-stream")
        self.set_header("Cache-Control", "no-cache")
        self.set_header("Retry-After", str(seconds))
        self.finish(SSE_UNCHUNKED.closing(TRY_LATER, str(error), wait_ms + self.services.jitter_ms()))


def listed(text: str | None) -> list[str]:
    """Return the parts of a list as it stands in a query."""
    return [part for part in text.split(",") if part] if text else []


def response_head(status: int, headers: dict[str, str]) -> bytes:
    """Return a status line and headers (RFC 9112 sections 4 and 5), refusing values that could add lines."""
    assert not any(_CONTROL.search(value) for value in headers.values())
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} {responses[status]}\r\n{lines}\r\n".encode("latin-1")


def take_socket(handler: Handler, *, want_data: bool = False) -> tuple[socket.socket, bytes] | None:
    """Take the socket of a request from Tornado, which forgets both, and, if wanted, what the client sent behind its request.

    Plain or TLS, whose handshake is over by now. None: the client has left meanwhile.
    """
    stream = handler.detach()
    handler.ui = None  # type: ignore[assignment]  # a cycle that Tornado breaks at the end of a request, which never comes here
    assert isinstance(stream, IOStream)
    if stream.closed():
        return None
    behind = _read_behind(stream) if want_data else b""
    if stream.closed():
        return None
    taken = stream.socket
    stream.io_loop.remove_handler(stream.fileno())
    stream.socket = None  # type: ignore[assignment]  # the stream must not close it any more
    return taken, behind


def _read_behind(stream: IOStream) -> bytes:
    """Return what is there by now; this may find that the client has left, and closes the stream then."""
    # Done at once with what is there; with nothing there it stays undone, and is forgotten here.
    reading = asyncio.ensure_future(stream.read_bytes(MAX_BEHIND_BYTES, partial=True))
    if stream.closed():
        reading.exception()
        return b""
    return reading.result() if reading.done() else b""
