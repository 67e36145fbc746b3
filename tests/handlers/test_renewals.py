"""Tests of handlers/renewals.py: a stream goes on with a fresh credential, whichever process has it and whichever is asked."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

import pytest

from tests.handlers.asking import ask, caught_up, heard, lasts, published
from tests.handlers.assembly import Assembly, token
from tests.handlers.clients import EventStream, websocket
from tests.handlers.conftest import Assemble

OTHERS = [token("u2"), token("u1", org="o2"), token("u1", org="o1", entity="e1"), token("u1")]


def mine(seconds: float, **claims: Any) -> str:
    """Return a token of the one whose stream it is."""
    return token("u1", org="o1", seconds=seconds, **claims)


async def renew(here: Assembly, client_id: str, credential: str) -> None:
    """Ask for a renewal, which is always answered alike."""
    response = await ask(here.port, "POST", "/v1/renewals", {"clientId": client_id}, token=credential)
    assert response.status == 202, response
    assert response.json().keys() == {"clientId", "expiresAt"}
    assert response.json()["clientId"] == client_id


@pytest.mark.parametrize("asked", ["the same process", "the other process"])
async def test_a_stream_is_renewed_without_a_break(assemble: Assemble, asked: str) -> None:
    """`expiring`, then `renewed` in the stream, and it lives past its first expiry, with the new rights (S3)."""
    has, other = await assemble(), await assemble()
    async with EventStream(has.port, token=mine(60, audiences=["user:u8"])) as stream:
        welcome = (await stream.welcome()).json()
        await has.pass_seconds(35)
        assert (await stream.next_of("expiring")).json() == {"expiresAt": welcome["expiresAt"]}
        await renew(has if asked == "the same process" else other, welcome["clientId"], mine(600, audiences=["user:u9"]))
        renewed = (await stream.next_of("renewed")).json()
        assert datetime.fromisoformat(renewed["expiresAt"]) > datetime.fromisoformat(welcome["expiresAt"])
        assert renewed["resumeToken"] != welcome["resumeToken"]
        await has.pass_seconds(60)
        await published(other, "user:u8", "user:u9", "org:o1")
        assert await heard(stream, "org:o1") == ["user:u9", "org:o1"]
        await has.pass_seconds(550)
        assert (await stream.next_of("closing")).json()["code"] == 4402


async def test_a_websocket_can_be_renewed_beside_it_too(assemble: Assemble) -> None:
    """Whatever the transport: a page may have one place where it renews."""
    has, other = await assemble(), await assemble()
    async with websocket(has.port, mine(60)) as opened:
        (connection,) = has.hub.connections
        await renew(other, connection.client_id, mine(600, exp=None))
        assert (await opened.next("renewed"))["expiresAt"] is None


@pytest.mark.parametrize("asked", ["the same process", "the other process"])
@pytest.mark.parametrize("credential", OTHERS)
async def test_anothers_credential_does_nothing(assemble: Assemble, credential: str, asked: str, expected_logs: list[str]) -> None:
    """The answer is the same, and the stream ends when its own credential does (S3)."""
    expected_logs.append("not renewed")
    has, other = await assemble(), await assemble()
    async with EventStream(has.port, token=mine(60)) as stream:
        client_id = (await stream.welcome()).json()["clientId"]
        (connection,) = has.hub.connections
        principal = connection.principal
        await renew(has if asked == "the same process" else other, client_id, credential)
        await caught_up(has)
        assert connection.principal is principal
        await has.pass_seconds(61)
        assert (await stream.next()).type == "closing"


async def test_nobody_learns_whether_there_is_such_a_connection(here: Assembly) -> None:
    """One that is over, or never was, is answered like one that is."""
    response = await ask(here.port, "POST", "/v1/renewals", {"clientId": "nobody"}, token=token(exp=None))
    assert (response.status, response.json()) == (202, {"clientId": "nobody", "expiresAt": None})
    since = time.time()
    response = await ask(here.port, "POST", "/v1/renewals", {"clientId": "nobody"}, token=token(seconds=300))
    assert lasts(response.json()["expiresAt"], 300, since)


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({}, "clientId"),
        ({"clientId": 5}, "clientId"),
        ({"clientId": ""}, "clientId"),
        ({"clientId": "x" * 513}, "clientId"),
        ({"clientId": "x", "y": 1}, "y"),
        ([], None),
    ],
)
async def test_a_connection_must_be_named(here: Assembly, value: Any, field: str | None) -> None:
    """By an id of a length that ids have."""
    response = await ask(here.port, "POST", "/v1/renewals", value, token=mine(60))
    assert response.error() == (400, "invalid_request", field)


async def test_a_channels_stream_of_a_user_with_a_long_name_is_renewed(here: Assembly) -> None:
    """Its client id holds the name (D1, S3)."""
    user = "u" * 255
    async with EventStream(here.port, "?replay=0", path="/api/stream/ai-decisions", token=token(user, seconds=60)) as stream:
        await renew(here, (await stream.welcome()).json()["clientId"], token(user, seconds=600))
        await stream.next_of("renewed")
