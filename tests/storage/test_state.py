"""Tests of storage/state.py: everything beside the log is opened and closed together, and is the same for all processes."""

from __future__ import annotations

import asyncio

import pytest

from storage.errors import Unavailable
from storage.state import RESUME_KEY_BYTES, State
from tests.storage.faults import Clock, FaultyDatabase, Held, indexes, not_sent


@pytest.fixture
def state(database: FaultyDatabase, present: Clock) -> State:
    return State(database, clock=present)


async def test_opening_makes_what_each_part_needs(state: State, database: FaultyDatabase) -> None:
    """Every collection has the index by which MongoDB lets go of what is over."""
    await state.open()
    for collection in ("sessions", "tickets", "revocations", "ownership", "snapshots"):
        assert any("expireAfterSeconds" in index for index in (await indexes(database, collection)).values())
    await state.close()


async def test_every_process_seals_with_the_same_key(state: State, other_database: FaultyDatabase, present: Clock) -> None:
    """So that what one has sealed opens on the other; opening again changes nothing."""
    other = State(other_database, clock=present)
    key, others = await asyncio.gather(state.open(), other.open())
    assert key == others == await state.open()
    assert len(key) == RESUME_KEY_BYTES
    await state.close()
    await other.close()


async def test_what_one_process_keeps_the_other_finds(state: State, other_database: FaultyDatabase, present: Clock) -> None:
    """Sessions, tickets and owners are in no process's memory alone (L11)."""
    other = State(other_database, clock=present)
    await state.open()
    await other.open()
    session = await state.sessions.create({"sub": "u1"}, 60)
    code, _ = await state.tickets.issue({"sub": "u1"}, 60)
    await state.ownership.set_owners("stream/1", ["user:u1"])
    found = await other.sessions.find(session.secret)
    assert found is not None
    assert found.id == session.id
    assert await other.tickets.redeem(code) == {"sub": "u1"}
    other.ownership.noticed()
    assert (await other.ownership.owners_of(["stream/1"]))["stream/1"].owners == ("user:u1",)
    await state.close()
    await other.close()


async def test_opening_while_mongodb_is_away_can_be_done_again(state: State, database: FaultyDatabase) -> None:
    """Whatever was made before it failed is no hindrance."""
    database.inject("createIndexes", not_sent)
    with pytest.raises(Unavailable):
        await state.open()
    assert len(await state.open()) == RESUME_KEY_BYTES
    await state.close()


async def test_closing_refuses_whoever_waits_and_may_be_done_twice(state: State, database: FaultyDatabase) -> None:
    """Nobody waits for an answer that does not come, and no task stays behind."""
    await state.open()
    secret = (await state.sessions.create({"sub": "u1"}, 60)).secret
    held = Held()
    database.inject("find", held)
    waiting = asyncio.create_task(state.sessions.find(secret))
    await held.reached.wait()
    await state.close()
    with pytest.raises(Unavailable):
        await waiting
    await state.close()
