"""The HTTP server: all routes, and what Tornado holds connections to before a handler knows of them."""

from __future__ import annotations

import resource
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream
from tornado.web import Application

from handlers.base import DISCARDED_BYTES, Unknown
from handlers.routes import ROUTES
from handlers.services import Services

IDLE_SECONDS = 75  # a keep-alive connection without a request, or a request that does not arrive
MAX_HEADERS_BYTES = 64 << 10  # beyond this the connection is cut; the handlers refuse less than that with an answer
RESERVED_FILES = 256  # descriptors that are not connections: MongoDB, the log, the listening sockets


class _Server(HTTPServer):
    """Tornado's server, which keeps some descriptors free: without any it could not even refuse, and would try again without a pause."""

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        """Close a connection for which there is no room; the kernel gives out the lowest number that is free."""
        _, allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
        if stream.socket.fileno() >= allowed - RESERVED_FILES // 2:
            stream.close()
        else:
            super().handle_stream(stream, address)


def http_server(services: Services) -> HTTPServer:
    """Return a server of all routes, which is not listening yet."""
    application = Application(list(ROUTES), services=services, default_handler_class=Unknown, log_function=lambda handler: None)
    return _Server(
        application,
        idle_connection_timeout=IDLE_SECONDS,
        body_timeout=IDLE_SECONDS,
        max_header_size=MAX_HEADERS_BYTES,
        max_body_size=1 << 40,  # handlers know their own limits, and answer with 413 where Tornado would cut the connection
        max_buffer_size=services.limits.max_body_bytes + DISCARDED_BYTES,
    )
