"""Tests of handlers/sse.py: what every event stream has in common, whichever route opens it."""

from __future__ import annotations

import pytest

from handlers.sse import listed, response_head
from hub.connection import Connection, Start
from hub.formats import sse_format
from hub.principal import ANONYMOUS
from hub.subscriptions import Subscription
from tests.handlers.asking import resume_token
from tests.handlers.assembly import USER, Assembly
from tests.handlers.clients import get
from tests.handlers.conftest import Assemble, StoppableMongoDB
from tests.hub.fakes import ManualClock, RecordingSink


def test_a_head_never_takes_a_line_end() -> None:
    """The head is written by hand, so it is its writer's duty that no value adds a line."""
    assert response_head(200, {"A": "b"}) == b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n"
    with pytest.raises(AssertionError):
        response_head(200, {"A": "b\r\nC: d"})


def test_a_list_in_a_query_has_no_empty_parts() -> None:
    """Commas at its ends, or two in a row, mean nothing."""
    assert listed(None) == listed("") == listed(",") == []
    assert listed(",a,,b,") == ["a", "b"]


async def test_a_resume_token_is_good_for_its_own_channel_only(here: Assembly) -> None:
    """What another channel does not show would come over it otherwise."""
    format = sse_format(chunked=True, heartbeat="h", retry_ms=1)
    principal = here.services.authenticator.of_token(USER)
    connection = Connection("c1", principal, format, RecordingSink(format, ManualClock()), here.hub)
    connection.terms = connection.terms._replace(channel="orders")
    here.hub.open(connection, frozenset({Subscription()}), Start(here.hub.head))
    token = here.hub.seal(connection)
    here.hub.close(connection, 1000, "over")
    for path in (f"/v1/stream?resume={token}", f"/v1/stream?resume={token}&token={USER}"):
        assert (await get(here.port, path)).error() == (400, "invalid_request", "resume")
    assert (await get(here.port, f"/v1/events?resume={token}")).status == 405
    assert await resume_token(here.port, USER)


async def test_what_was_given_to_nobody_is_no_credential(here: Assembly) -> None:
    """An anonymous connection's resume token opens nothing that needs somebody (S3)."""
    format = sse_format(chunked=True, heartbeat="h", retry_ms=1)
    connection = Connection("c1", ANONYMOUS, format, RecordingSink(format, ManualClock()), here.hub)
    here.hub.open(connection, frozenset({Subscription()}), None)
    token = here.hub.seal(connection)
    here.hub.close(connection, 1000, "over")
    assert (await get(here.port, f"/v1/stream?resume={token}")).error() == (401, "unauthenticated", None)


async def test_while_mongodb_is_away_a_browser_is_told_to_come_back(
    assemble: Assemble, stoppable_mongodb: StoppableMongoDB, expected_logs: list[str]
) -> None:
    """In its own language: at any status but 200 its EventSource would give up for good. Others get 503 (S6, T9)."""
    expected_logs.append("tail interrupted")
    here = await assemble(stoppable_mongodb.uri)
    await stoppable_mongodb.hang()
    for path in ("/api/stream/alerts", "/v1/stream?from=2026-01-31T12:00:00Z"):
        response = await get(here.port, path, token=USER, headers={"Accept": "text/event-stream"})
        assert (response.status, response.headers["retry-after"]) == (200, "2")
        assert b'"code":1013' in response.body
    assert (await get(here.port, "/api/stream/alerts", token=USER)).error() == (503, "unavailable", None)
