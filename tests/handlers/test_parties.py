"""Tests of handlers/parties.py: nobody is given so many streams by others that he is cut off from what he hears."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from handlers.belongings import Belonging
from handlers.parties import MOST_OF_A_USER, Parties
from hub.errors import Conflict
from hub.ownership import MAX_OWNED, OwnershipChanges
from storage.ownership import Ownership
from tests.storage.faults import FaultyDatabase


class Desk:
    """Who knows whether there is room, for two resources of each user, and what is owned."""

    def __init__(self, database: FaultyDatabase) -> None:
        self.ownership = Ownership(database, clock=time.time)
        self.belonging = Belonging(self.ownership, OwnershipChanges())
        self.parties = Parties(self.belonging, most=2)

    async def make(self, name: str, *users: str) -> None:
        """Make a stream of these users."""
        async with self.parties.room(users):
            await self.ownership.set_owners(f"stream/{name}", [f"user:{user}" for user in users])


@pytest.fixture
async def desk(mongodb_uri: str, database_name: str) -> AsyncIterator[Desk]:
    database = FaultyDatabase(mongodb_uri, database_name)
    desk = Desk(database)
    await desk.ownership.open()
    yield desk
    await desk.ownership.close()
    database.close()


async def test_each_party_may_have_so_many(desk: Desk) -> None:
    """One more is refused, whoever of the two has them; others are not concerned."""
    await desk.make("1", "eve", "ann")
    await desk.make("2", "eve", "bob")
    for users in (("eve", "cyd"), ("cyd", "eve")):
        with pytest.raises(Conflict):
            await desk.make("3", *users)
    await desk.make("3", "bob", "cyd")


async def test_those_on_their_way_count(desk: Desk) -> None:
    """So that nobody gets past the limit by asking many times at once."""
    outcomes = await asyncio.gather(*(desk.make(str(number), f"eve{number}", "ann") for number in range(20)), return_exceptions=True)
    assert sum(outcome is None for outcome in outcomes) <= 2
    assert all(outcome is None or isinstance(outcome, Conflict) for outcome in outcomes)


async def test_a_refused_one_takes_no_room(desk: Desk) -> None:
    """Nor does one that failed."""
    for _ in range(5):
        with pytest.raises(ZeroDivisionError):
            async with desk.parties.room(("eve", "ann")):
                raise ZeroDivisionError
    await desk.make("1", "eve", "ann")


async def test_whoever_owns_too_much_to_count_has_no_room(desk: Desk) -> None:
    """What publishers gave counts, too."""
    for number in range(MAX_OWNED + 1):
        await desk.ownership.set_owners(f"a/{number}", ["user:ann"])
    with pytest.raises(Conflict):
        await desk.make("1", "eve", "ann")


def test_there_is_room_beside_it() -> None:
    """For what publishers give a user, and its organisation and entity."""
    assert 2 * MOST_OF_A_USER <= MAX_OWNED
