"""Tests of handlers/routes.py: the one table of what can be called."""

from __future__ import annotations

from handlers.health import Alive, Ready
from handlers.routes import ROUTES
from handlers.websocket import WebSocket


def test_only_these_handlers_are_open() -> None:
    """Without a credential there are the two probes, and the WebSocket that takes one in its first message."""
    assert {handler for _, handler in ROUTES if handler.OPEN} == {Alive, Ready, WebSocket}


def test_each_path_has_one_handler() -> None:
    """No path is in the table twice."""
    paths = [path for path, _ in ROUTES]
    assert len(set(paths)) == len(paths)
