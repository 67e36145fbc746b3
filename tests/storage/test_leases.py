"""Leases: one holder at a time, and another one soon after it is gone."""

from __future__ import annotations

import asyncio

import pytest

from storage.errors import Unavailable
from storage.leases import LEASES, Lease
from tests.storage.faults import FaultyDatabase, answer_lost, not_sent, stored

LONG = 600.0  # seconds: longer than any test stands still


@pytest.fixture
def mine(database: FaultyDatabase) -> Lease:
    return Lease(database, "work", holder="$me", seconds=LONG)


@pytest.fixture
def others(other_database: FaultyDatabase) -> Lease:
    return Lease(other_database, "work", holder="other", seconds=LONG)


async def test_one_process_has_it_until_it_gives_it_back(mine: Lease, others: Lease) -> None:
    """Who has it can renew it, and nobody else gets it; giving back twice, or what one has not, changes nothing."""
    assert await mine.take()
    assert await mine.take()
    assert not await others.take()
    await others.release()
    assert not await others.take()
    await mine.release()
    await mine.release()
    assert await others.take()
    assert not await mine.take()


async def test_of_many_who_take_it_at_once_one_gets_it(database: FaultyDatabase, other_database: FaultyDatabase) -> None:
    """In whatever processes they are, also when there has never been such a lease."""
    several = [Lease(one, "work", holder=f"h{number}", seconds=LONG) for number in range(4) for one in (database, other_database)]
    taken = await asyncio.gather(*(lease.take() for lease in several[::2]))
    assert taken.count(True) == 1


async def test_it_is_over_by_itself(mine: Lease, others: Lease, database: FaultyDatabase) -> None:
    """A process that is gone keeps nobody out, and if it comes back it finds that it has lost the lease."""
    assert await mine.take()
    over = {"q": {"_id": "work"}, "u": [{"$set": {"until": "$$NOW"}}]}
    await database.command({"update": LEASES, "updates": [over]})
    assert await others.take()
    assert not await mine.take()


async def test_it_holds_as_long_as_it_says(mine: Lease, database: FaultyDatabase) -> None:
    """Counted by MongoDB's clock from when it was taken; renewing counts anew."""
    await mine.take()
    (first,) = await stored(database, LEASES)
    await mine.take()
    (second,) = await stored(database, LEASES)
    now = (await database.command({"hello": 1}))["localTime"]
    assert first["until"] <= second["until"]
    assert 0 < (second["until"] - now).total_seconds() <= mine.seconds


async def test_leases_of_other_names_have_nothing_to_do_with_it(mine: Lease, other_database: FaultyDatabase) -> None:
    """Each work has its own holder."""
    assert await mine.take()
    assert await Lease(other_database, "other work", holder="other", seconds=LONG).take()


async def test_a_lost_answer_is_no_lease(mine: Lease, database: FaultyDatabase) -> None:
    """It may be taken nevertheless, by this process, which finds out by asking again."""
    for fault in (not_sent, answer_lost):
        database.inject("findAndModify", fault)
        with pytest.raises(Unavailable):
            await mine.take()
    assert await mine.take()
