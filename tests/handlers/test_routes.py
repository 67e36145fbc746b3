"""Tests of handlers/routes.py: the one table of what can be called."""

from __future__ import annotations

from channels.declaration import Channel
from channels.families import Catalogue
from handlers.routes import FIXED, ROUTES, routes, template


def test_only_these_handlers_are_open() -> None:
    """Without a credential there are the two probes, prices, metrics, and the WebSocket that takes one in its first message."""
    assert {pattern for pattern, handler in ROUTES if handler.OPEN} == {
        "/healthz",
        "/readyz",
        "/ws",
        "/api/stream/prices",
        "/api/stream/metrics",
    }


def test_each_path_has_one_handler() -> None:
    """No path is in the table twice."""
    paths = [path for path, _ in ROUTES]
    assert len(set(paths)) == len(paths)


def test_a_pattern_is_written_as_people_do() -> None:
    """What stands for a part of the path is named."""
    assert template(r"/v1/sessions/(?P<id>[^/]+)") == "/v1/sessions/<id>"


def test_each_channel_with_a_path_of_its_own_has_a_route() -> None:
    """But for those that are served elsewhere."""
    channels = [Channel("a", "."), Channel("b", ".", path="/b"), Channel("c", ".", path="/c", own_handler=True)]
    made = routes(Catalogue(channels))
    assert made[:-1] == FIXED
    assert made[-1][0] == "/b"
