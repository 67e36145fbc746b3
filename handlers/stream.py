"""`GET /v1/stream`: Server-Sent Events (WHATWG HTML, section 9.2). From a request to a connection of the hub."""

from __future__ import annotations

import asyncio
import re
import socket
from functools import lru_cache
from http.client import responses

from tornado.iostream import IOStream

from handlers.authentication import RESUME
from handlers.base import Handler
from handlers.opening import Opening
from handlers.resumption import Resumption
from handlers.sockets import SocketSink
from hub.connection import Connection
from hub.errors import TRY_LATER, BadRequest, NotReady, TooMany
from hub.formats import SSE, SSE_UNCHUNKED, SseFormat
from hub.subscriptions import EVERYTHING, Subscription, is_bound, make_subscription

MAX_TOPICS = 100
MAX_BEHIND_BYTES = 1 << 20  # more than Tornado reads ahead
SELECTING = ("topics", "types", "sources", "resources")
PARAMETERS = (*SELECTING, "from", "lastEventId", "token", "ticket", "resume")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Stream(Opening):
    """Opens a connection, and lets go of the request: the socket goes to a sink, and nothing of Tornado stays."""

    async def prepare(self) -> None:  # type: ignore[override]  # Tornado awaits either
        """Open the stream now: once this returns, Tornado would wait for a body, and watch whether the client leaves, only to be told that
        the socket is no longer its own. After `get` there is nothing left to be called."""
        super().prepare()
        if self.request.method == "GET" and not self._finished:
            await self.get()
            assert self._finished, "answered, or detached"

    async def get(self) -> None:
        """Answer with a stream that ends when the client, the credential or the server does."""
        hub = self.services.hub
        principal = await self.principal()
        resumption = self.resumption()
        self.require_same(principal, resumption)
        subscriptions = self._subscriptions(resumption)
        start = await self.start((resumption.position, RESUME) if resumption else (None, RESUME))
        belongings = await self.belongings(principal, subscriptions)
        # Nothing is awaited from here on: who may connect now, does.
        try:
            self.services.require_room(principal, self.address, self.correlation_id)
        except (TooMany, NotReady) as error:
            self.turn_away(error)
            return
        self.services.rates.subscribed(principal, correlationId=self.correlation_id)
        format = SSE if self.request.version == "HTTP/1.1" else SSE_UNCHUNKED
        taken = take_socket(self)
        if taken is None:
            return
        sink = SocketSink(self.services.poller, taken[0])
        connection = Connection(self.services.make_id(), principal, format, sink, hub, self.correlation_id)
        connection.owned, connection.owns_all = belongings
        sink.owner = connection
        hub.open(connection, subscriptions, start, self._head(format))

    def _subscriptions(self, resumption: Resumption | None) -> frozenset[Subscription]:
        """Return what the query selects: each of its topics with all of its filters."""
        arguments = {name: ",".join(self.get_query_arguments(name)) for name in self.request.query_arguments}
        bounds = {name: value for name, value in arguments.items() if is_bound(name)}
        unknown = [name for name in arguments if name not in PARAMETERS and name not in bounds]
        if unknown:
            raise BadRequest(
                f"unknown parameter; known are {', '.join(PARAMETERS)}, min<Field> and max<Field>",
                field=unknown[0][:80],
            )
        self.refuse_mixed(resumption, [*bounds, *(name for name in SELECTING if name in arguments)])
        if resumption is not None:
            return resumption.subscriptions
        return _selected(*(arguments.get(name) for name in SELECTING), tuple(bounds.items()))

    def _head(self, format: SseFormat) -> bytes:
        """Return the head of the answer. It is written here because the stream is no longer Tornado's."""
        chunked = format is SSE
        headers = {
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-cache",
            "Connection": "keep-alive" if chunked else "close",
            "X-Accel-Buffering": "no",  # nginx passes events on at once
            "X-Correlation-ID": self.correlation_id,
            **self.page.headers(),
        }
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


@lru_cache(maxsize=256)  # most clients of a page ask for the same
def _selected(
    topics: str | None, types: str | None, sources: str | None, resources: str | None, bounds: tuple[tuple[str, str], ...]
) -> frozenset[Subscription]:
    """Return each of some topics with all of these filters; the arguments are lists as they stand in a query, in the order of SELECTING."""
    patterns = _listed(topics) or [EVERYTHING]
    if len(patterns) > MAX_TOPICS:
        raise BadRequest(f"at most {MAX_TOPICS} topics, not {len(patterns)}", field="topics")
    filters = _listed(types), _listed(sources), dict(bounds), _listed(resources)
    return frozenset(make_subscription(pattern, *filters, topic_field="topics", prefix="") for pattern in patterns)


def _listed(text: str | None) -> list[str]:
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
