"""Tickets: good once, for seconds, in whatever process."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from storage.errors import Unavailable
from storage.tickets import Tickets
from tests.storage.faults import Clock, FaultyDatabase, answer_lost, indexes, not_sent, stored

CLAIMS = {"sub": "u1", "roles": ["agent"], "exp": 1 << 40}


@pytest.fixture
async def tickets(database: FaultyDatabase, present: Clock) -> Tickets:
    tickets = Tickets(database, clock=present)
    await tickets.open()
    database.commands.clear()
    return tickets


async def test_a_ticket_gives_its_claims_once(tickets: Tickets, present: Clock) -> None:
    """The second time it is unknown."""
    code, expires_at = await tickets.issue(CLAIMS, 30)
    assert expires_at == present.now + 30
    assert await tickets.redeem(code) == CLAIMS
    assert await tickets.redeem(code) is None


async def test_of_many_that_race_exactly_one_gets_the_claims(tickets: Tickets, other_database: FaultyDatabase, present: Clock) -> None:
    """In one process or in several."""
    others = Tickets(other_database, clock=present)
    for _ in range(10):
        code, _expires_at = await tickets.issue(CLAIMS, 30)
        redeemed = await asyncio.gather(*(one.redeem(code) for one in (tickets, others) * 4))
        assert [claims for claims in redeemed if claims is not None] == [CLAIMS]


async def test_only_its_hash_is_kept(tickets: Tickets, database: FaultyDatabase) -> None:
    """What lies in MongoDB is no ticket."""
    code, _ = await tickets.issue(CLAIMS, 30)
    (document,) = await stored(database, "tickets")
    assert document["_id"] == hashlib.sha256(code.encode()).hexdigest()
    assert code not in str(document)
    assert await tickets.redeem(document["_id"]) is None
    assert await tickets.redeem(document["_id"][:43]) is None


async def test_a_ticket_that_is_over_gives_nothing(tickets: Tickets, present: Clock) -> None:
    """To the millisecond, and it is not kept either."""
    early, _ = await tickets.issue(CLAIMS, 30)
    late, expires_at = await tickets.issue(CLAIMS, 30)
    present.now = expires_at - 0.001
    assert await tickets.redeem(early) == CLAIMS
    present.now = expires_at
    assert await tickets.redeem(late) is None


@pytest.mark.parametrize("code", ["", "x" * 42, "é" * 43, "x" * 43])
async def test_what_nobody_was_given_is_unknown(tickets: Tickets, code: str) -> None:
    """Whether it looks like a code or not."""
    assert await tickets.redeem(code) is None


async def test_what_cannot_be_a_code_is_not_asked_for(tickets: Tickets, database: FaultyDatabase) -> None:
    """Garbage costs MongoDB nothing."""
    await tickets.redeem("garbage")
    assert database.commands == []


async def test_a_ticket_whose_use_is_not_confirmed_is_nobodys(tickets: Tickets, database: FaultyDatabase) -> None:
    """When the answer is lost it may be used up, and nobody gets the claims; when nothing was sent it still holds."""
    code, _ = await tickets.issue(CLAIMS, 30)
    database.inject("findAndModify", not_sent)
    with pytest.raises(Unavailable):
        await tickets.redeem(code)
    database.inject("findAndModify", answer_lost)
    with pytest.raises(Unavailable):
        await tickets.redeem(code)
    assert await tickets.redeem(code) is None


async def test_a_ticket_has_a_life(tickets: Tickets, database: FaultyDatabase) -> None:
    """One without, or with claims that cannot be kept, is not issued."""
    with pytest.raises(ValueError, match="seconds above 0"):
        await tickets.issue(CLAIMS, 0)
    with pytest.raises(ValueError, match="as JSON can hold them"):
        await tickets.issue({"sub": object()}, 30)
    assert database.commands == []


async def test_mongodb_deletes_what_nobody_used(tickets: Tickets, database: FaultyDatabase) -> None:
    """By an index on its end; opening again changes nothing."""
    await tickets.open()
    assert (await indexes(database, "tickets"))["expires"]["expireAfterSeconds"] == 0
