"""All routes, in one table: documentation and tests are checked against it."""

from __future__ import annotations

from handlers.base import Handler
from handlers.health import Alive, Ready
from handlers.publish import Publish
from handlers.stream import Stream
from handlers.websocket import WebSocket

ROUTES: list[tuple[str, type[Handler]]] = [
    (r"/v1/events", Publish),
    (r"/v1/stream", Stream),
    (r"/ws", WebSocket),
    (r"/healthz", Alive),
    (r"/readyz", Ready),
]
