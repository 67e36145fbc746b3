"""Tests of handlers/tickets.py: a credential becomes a code for a URL, good once and for seconds."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.handlers.asking import ADMIN, AGENT, PUBLISHER, ask, lasts, session, ticket
from tests.handlers.assembly import Assembly, token
from tests.handlers.clients import EventStream, RawWebSocket, get
from tests.handlers.conftest import Assemble


async def expires_at(here: Assembly, mine: str) -> str:
    """Return when a ticket for a token says that it ends."""
    response = await ask(here.port, "POST", "/v1/tickets", token=mine)
    assert response.status == 201
    assert response.headers["cache-control"] == "no-store"
    assert response.json().keys() == {"ticket", "expiresAt"}
    return str(response.json()["expiresAt"])


@pytest.mark.parametrize(("life", "most"), [(7200, 300), (120, 120)])
async def test_a_ticket_lasts_for_its_time_and_no_longer_than_the_credential(assemble: Assemble, life: float, most: float) -> None:
    """`ticket_seconds`, or what is left of the credential (S1)."""
    here = await assemble(ticket_seconds=300.0)
    since = time.time()
    assert lasts(await expires_at(here, token(seconds=life)), most, since)


async def test_a_credential_without_an_end_gives_a_ticket_with_one(here: Assembly) -> None:
    """The stream it opens has none, as that of the credential itself would."""
    since = time.time()
    assert lasts(await expires_at(here, token(exp=None)), here.settings.ticket_seconds, since)
    async with EventStream(here.port, f"?ticket={await ticket(here.port, token(exp=None))}") as stream:
        assert (await stream.welcome()).json()["expiresAt"] is None


async def test_a_credential_that_lives_by_leeway_only_gives_none(assemble: Assemble) -> None:
    """Clocks may differ, but nothing is handed out for a time that is over."""
    here = await assemble(jwt_leeway_seconds=60.0)
    response = await ask(here.port, "POST", "/v1/tickets", token=token(seconds=-5))
    assert response.error() == (401, "token_expired", None)


async def test_a_ticket_opens_once(assemble: Assemble) -> None:
    """Of many that race on two processes, SSE and WebSocket, one gets in (S1)."""
    one, other = await assemble(), await assemble()
    code = await ticket(one.port, token())

    async def stream(here: Assembly) -> int:
        async with EventStream(here.port, f"?ticket={code}") as opened:
            return opened.head.status

    async def websocket(here: Assembly) -> int:
        async with RawWebSocket(here.port, f"?ticket={code}") as opened:
            return opened.head.status

    answers = await asyncio.gather(*(open(here) for open in (stream, websocket) for here in (one, other) for _ in range(4)))
    assert sorted(status in (200, 101) for status in answers) == [False] * 15 + [True]
    assert set(answers) - {200, 101} == {401}
    assert (await get(one.port, f"/v1/stream?ticket={code}")).error() == (401, "unauthenticated", None)


async def test_a_ticket_has_exactly_the_rights_of_its_credential(here: Assembly) -> None:
    """Also those of a session, and none that an agent has not (S5)."""
    opened = await session(here.port, "u1", org="o1", roles=["user"], audiences=["resource:stream/1"])
    response = await ask(here.port, "POST", "/v1/tickets", Cookie=opened.cookie, Sec_Fetch_Site="same-origin")
    async with EventStream(here.port, f"?ticket={response.json()['ticket']}") as stream:
        await stream.welcome()
        (connection,) = here.hub.connections
        principal = connection.principal
        assert principal.audiences == {"public", "user:u1", "org:o1", "resource:stream/1"}
        assert (principal.roles, principal.session_id) == (frozenset({"user"}), opened.id)
    for mine in (AGENT, ADMIN, PUBLISHER):
        code = await ticket(here.port, mine)
        assert (await ask(here.port, "POST", f"/v1/events?ticket={code}", [])).status == 401
