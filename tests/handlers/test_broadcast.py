"""Tests of handlers/broadcast.py: a test event for everybody (part 7)."""

from __future__ import annotations

import pytest

from channels.families import EVENT_TYPES
from tests.handlers.asking import ADMIN, AGENT, PUBLISHER, ask
from tests.handlers.assembly import USER, Assembly, token
from tests.handlers.clients import EventStream, request

TEST = "/api/stream/test"


async def test_a_test_reaches_everybody(here: Assembly) -> None:
    """With its id, on whatever shows it; without a body it has a message and the time, with one that is its payload."""
    async with EventStream(here.port, "?replay=0", path="/api/stream/alerts", token=USER) as mine:
        await mine.next_of("live")
        async with EventStream(here.port, token=token("u2")) as other:
            await other.welcome()
            plain = await ask(here.port, "POST", TEST, token=ADMIN, X_Correlation_ID="c-1")
            own = await ask(here.port, "POST", TEST, {"message": "hello", "n": 1.50}, token=ADMIN)
            assert (plain.status, plain.headers["x-correlation-id"], own.status) == (202, "c-1", 202)
            for stream in (mine, other):
                first, second = await stream.next(), await stream.next()
                assert (first.type, first.id) == ("test", plain.json()["id"])
                assert first.json()["message"] == EVENT_TYPES["test"].sample["message"]
                assert (second.id, second.json()) == (own.json()["id"], {"message": "hello", "n": 1.5})


@pytest.mark.parametrize("who", [USER, PUBLISHER, AGENT])
async def test_only_an_admin_may_test(here: Assembly, who: str) -> None:
    """It reaches everybody (S5)."""
    assert (await ask(here.port, "POST", TEST, token=who)).error() == (403, "forbidden", None)


async def test_a_body_that_is_not_json_is_refused(here: Assembly) -> None:
    """Before anything is published."""
    for body in (b"{", b"\xff", b"[" * 100_000):
        response = await request(here.port, "POST", TEST, token=ADMIN, body=body)
        assert response.error() == (400, "invalid_request", None)
