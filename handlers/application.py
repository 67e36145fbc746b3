"""The HTTP server: all routes, and what Tornado holds connections to before a handler knows of them."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

from tornado.http1connection import HTTP1ServerConnection
from tornado.httpserver import HTTPServer
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerRequest,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.ioloop import IOLoop
from tornado.iostream import IOStream, SSLIOStream
from tornado.web import Application

from handlers.base import DISCARDED_BYTES, Unknown
from handlers.routes import ROUTES
from handlers.services import Services

IDLE_SECONDS = 75  # a keep-alive connection without a request, or a request that does not arrive
SWEEPS = 16  # in that time: how exactly it is kept
HANDSHAKE_SECONDS = 10  # for a client to agree on TLS
MAX_HEADERS_BYTES = 64 << 10  # beyond this the connection is cut; the handlers refuse less than that with an answer
RESERVED_FILES = 256  # descriptors that are not connections: MongoDB, the log, the listening sockets


class _Deadlines:
    """Closes connections whose next request, or the body of it, does not arrive in time. One timer for all of them: Tornado itself makes
    one for every head and one for every body, a great part of the work of a request.

    Args:
        seconds: How long each part may take.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._waiting: dict[HTTP1ServerConnection, float] = {}  # until when, in the loop's time; the first one ends first
        self._sweep: asyncio.TimerHandle | None = None  # runs while somebody waits

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def sweeping(self) -> bool:
        """Whether it will look at them again."""
        return self._sweep is not None

    def begin(self, connection: HTTP1ServerConnection) -> None:
        """Expect something of a connection from now on; what was expected of it before has arrived."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._seconds
        self._waiting.pop(connection, None)
        self._waiting[connection] = deadline
        if self._sweep is None:
            self._sweep = loop.call_at(deadline, self._close_overdue)

    def end(self, connection: HTTP1ServerConnection) -> None:
        """Expect nothing of it any more."""
        self._waiting.pop(connection, None)

    def close_longest(self) -> None:
        """Close the connection of which something is expected for longest, if there is any."""
        connection = next(iter(self._waiting), None)
        if connection is not None:
            self.end(connection)
            connection.stream.close()

    def _close_overdue(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in [one for one, deadline in self._waiting.items() if deadline <= now]:
            self.end(connection)
            connection.stream.close()
        self._sweep = loop.call_at(now + self._seconds / SWEEPS, self._close_overdue) if self._waiting else None


class _Timed(HTTPMessageDelegate):
    """A request whose headers, and then its body, must arrive in time; how long it is answered is not limited here."""

    def __init__(self, deadlines: _Deadlines, connection: HTTP1ServerConnection, inner: HTTPMessageDelegate) -> None:
        self._deadlines = deadlines
        self._connection = connection
        self._inner = inner
        deadlines.begin(connection)

    def headers_received(self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders) -> Awaitable[None] | None:
        """The body may take as long again."""
        self._deadlines.begin(self._connection)
        return self._inner.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        """Pass on a piece of the body."""
        return self._inner.data_received(chunk)

    def finish(self) -> None:
        """All of it is here."""
        self._deadlines.end(self._connection)
        self._inner.finish()

    def on_connection_close(self) -> None:
        """It will not arrive."""
        self._inner.on_connection_close()


class _Application(Application):
    """Tornado's application, which finds a handler by its whole path before it tries all routes in turn."""

    def find_handler(self, request: HTTPServerRequest, **options: Any) -> Any:
        """Return what serves a request."""
        handler = _BY_PATH.get(request.path)
        return super().find_handler(request, **options) if handler is None else self.get_handler_delegate(request, handler)


_BY_PATH = dict(ROUTES)  # those with a pattern for a path are never found here: no path is spelled like that


class _Server(HTTPServer):
    """Tornado's server, with deadlines of its own. It keeps some descriptors free: without any it could not even refuse, and would try
    again without a pause."""

    def initialize(self, *arguments: Any, **options: Any) -> None:
        """Make it; Tornado calls this instead of `__init__`."""
        super().initialize(*arguments, **options)
        self.conn_params.header_timeout = None  # the only way to have none
        self.deadlines = _Deadlines(IDLE_SECONDS)
        self.streams: Callable[[], int] = lambda: 0  # how many connections were taken from it, and are open

    def _handle_connection(self, connection: socket.socket, address: Any) -> None:
        """Make a stream of a connection; one that was cut before it was accepted cannot become TLS."""
        if self.ssl_options is not None and _is_cut(connection):
            connection.close()
            return
        with contextlib.suppress(ssl.SSLError, ConnectionError):  # cut just now
            super()._handle_connection(connection, address)

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        """Make room for a connection, or close it where there is none; the kernel gives out the lowest number that is free.

        Room is made by whoever has kept its request back for longest: one address can open as many connections as it likes without saying
        anything, and must not keep out those who have something to say.
        """
        _, allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
        if len(self._connections) + self.streams() >= allowed - RESERVED_FILES:
            self.deadlines.close_longest()
        if stream.socket.fileno() >= allowed - RESERVED_FILES // 2:
            stream.close()
            return
        if isinstance(stream, SSLIOStream):
            _expect_handshake(stream)
        super().handle_stream(stream, address)

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        """Take the next request of a connection, of which nothing is here yet."""
        assert isinstance(server_conn, HTTP1ServerConnection)
        return _Timed(self.deadlines, server_conn, super().start_request(server_conn, request_conn))

    def on_close(self, server_conn: object) -> None:
        """Forget a connection."""
        assert isinstance(server_conn, HTTP1ServerConnection)
        self.deadlines.end(server_conn)
        super().on_close(server_conn)


def _is_cut(connection: socket.socket) -> bool:
    """Tell whether a connection was reset: there is no other side any more."""
    try:
        connection.getpeername()
    except OSError:
        return True
    return False


def _expect_handshake(stream: SSLIOStream) -> None:
    """Close a stream whose TLS handshake is not over in time; Tornado itself would wait as long as for a request."""
    stream.set_nodelay(True)  # the handshake ends with two small messages of ours; the second must not wait until the first is acknowledged
    loop = IOLoop.current()
    deadline = loop.call_later(HANDSHAKE_SECONDS, stream.close)
    stream.wait_for_handshake().add_done_callback(lambda _: loop.remove_timeout(deadline))


def http_server(services: Services, tls: ssl.SSLContext | None = None) -> _Server:
    """Return a server of all routes, which is not listening yet.

    Args:
        services: The server's parts.
        tls: What connections are encrypted with; None: not at all. Its `ssl_options` may be replaced later, for new connections.
    """
    application = _Application(list(ROUTES), services=services, default_handler_class=Unknown, log_function=lambda handler: None)
    made = _Server(
        application,
        ssl_options=tls,
        max_header_size=MAX_HEADERS_BYTES,
        max_body_size=1 << 40,  # handlers know their own limits, and answer with 413 where Tornado would cut the connection
        max_buffer_size=services.limits.max_body_bytes + DISCARDED_BYTES,
    )
    made.streams = lambda: len(services.hub.connections) + len(services.waiting)
    return made
