"""Tests of handlers/belongings.py: what is kept and what has changed meanwhile make one answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from handlers.belongings import Belonging, Belongings
from hub.errors import BadRequest, Forbidden
from hub.ownership import MAX_OWNED, OwnershipChanges
from hub.principal import PUBLIC, Principal
from storage.owned import Owned
from storage.ownership import Ownership
from tests.storage.faults import FaultyDatabase, Held

ME = Principal("u1", "o1", "e1", audiences=frozenset({PUBLIC, "user:u1", "org:o1", "entity:e1", "resource:granted/1"}))


class Desk:
    """What answers, with what it asks."""

    def __init__(self, database: FaultyDatabase) -> None:
        self.database = database
        self.ownership = Ownership(database, clock=time.time)
        self.changes = OwnershipChanges()
        self.belonging = Belonging(self.ownership, self.changes)

    async def give(self, resource: str, *owners: str) -> Owned:
        """Let a resource belong to these, and return what the log will tell."""
        return await self.ownership.set_owners(resource, owners)


@pytest.fixture
async def desk(mongodb_uri: str, database_name: str) -> AsyncIterator[Desk]:
    database = FaultyDatabase(mongodb_uri, database_name)
    desk = Desk(database)
    await desk.ownership.open()
    yield desk
    await desk.ownership.close()
    database.close()


async def test_whoever_names_nothing_hears_of_all_it_owns(desk: Desk) -> None:
    """By each of its names, and of what it comes to own later."""
    for resource, owner in (("a/1", "user:u1"), ("a/2", "org:o1"), ("a/3", "entity:e1"), ("a/4", "user:u2")):
        await desk.give(resource, owner)
    assert await desk.belonging.of(ME, []) == Belongings(frozenset({"resource:a/1", "resource:a/2", "resource:a/3"}), all=True)


async def test_whoever_names_resources_hears_of_these(desk: Desk) -> None:
    """What its credential grants needs no owner."""
    await desk.give("a/1", "user:u1")
    await desk.give("a/2", "user:u1")
    assert await desk.belonging.of(ME, ["resource:a/1", "resource:granted/1"]) == Belongings(frozenset({"resource:a/1"}), all=False)
    count = len(desk.database.commands)
    assert await desk.belonging.of(ME, ["resource:granted/1"]) == Belongings(all=False)
    assert len(desk.database.commands) == count


@pytest.mark.parametrize("named", ["resource:a/2", "resource:a/3", "resource:a/4"])
async def test_anothers_nobodys_and_an_unknown_one_are_refused_alike(desk: Desk, named: str) -> None:
    """The same words, whatever else is named beside it (S4)."""
    await desk.give("a/1", "user:u1")
    await desk.give("a/2", "user:u2")
    await desk.give("a/3")
    for every in ([named], ["resource:a/1", named]):
        with pytest.raises(Forbidden, match="not every one of these resources is yours") as caught:
            await desk.belonging.of(ME, every)
        assert caught.value.field == "resources"


async def test_too_many_must_be_named(desk: Desk) -> None:
    """Up to the limit all are heard of; one more, and nobody knows which."""
    documents = [{"_id": f"a/{number}", "owners": ["user:u1"], "version": 1} for number in range(MAX_OWNED)]
    await desk.database.command({"insert": "ownership", "documents": documents})
    desk.ownership.noticed()
    assert len((await desk.belonging.of(ME, [])).audiences) == MAX_OWNED
    await desk.give("b/1", "org:o1")
    assert await desk.belonging.everything(ME) is None
    with pytest.raises(BadRequest) as caught:
        await desk.belonging.of(ME, [])
    assert caught.value.field == "resources"
    every = frozenset({"resource:b/1", *(f"resource:a/{number}" for number in range(MAX_OWNED)), "resource:a/x"})
    assert await desk.belonging.among(ME, every) == every - {"resource:a/x"}


@pytest.mark.parametrize("named", [[], ["resource:a/1"]])
async def test_what_changes_while_mongodb_answers_counts(desk: Desk, named: list[str]) -> None:
    """What the log tells meanwhile is newer than the answer: what was taken away is not in it, what was given is."""
    mine = await desk.give("a/1", "user:u1")
    held = Held()
    desk.database.inject("find", held)
    asked = asyncio.create_task(
        desk.belonging.among(ME, frozenset({"resource:a/1", "resource:a/2"})) if named else desk.belonging.everything(ME)
    )
    await held.reached.wait()
    desk.changes.note(mine._replace(owners=("user:u2",), version=mine.version + 1))
    desk.changes.note(Owned("a/2", ("user:u1",), 1))
    held.let_go.set()
    assert await asked == frozenset({"resource:a/2"})


@pytest.mark.parametrize("named", [[], ["resource:a/1"]])
async def test_after_a_hole_it_asks_again(desk: Desk, named: list[str]) -> None:
    """An answer to a question from before the hole may be too old, and nobody knows what is missing."""
    await desk.give("a/1", "user:u1")
    held = Held()
    desk.database.inject("find", held)
    asked = asyncio.create_task(desk.belonging.of(ME, named))
    await held.reached.wait()
    desk.changes.lose()
    held.let_go.set()
    assert (await asked).audiences == {"resource:a/1"}
    assert desk.database.count("find", "ownership") == 3, "one as it was opened, and two questions"


async def test_where_there_are_no_resources_nobody_asks(desk: Desk) -> None:
    """Until the log tells of one, which another process may have made."""
    assert desk.belonging.nothing_to_own()
    count = len(desk.database.commands)
    assert await desk.belonging.of(ME, []) == Belongings()
    assert len(desk.database.commands) == count
    desk.changes.note(Owned("a/1", ("user:u1",), 1))
    assert not desk.belonging.nothing_to_own()
    assert not desk.belonging.nothing_to_own()


async def test_anothers_and_an_unknown_resource_take_the_same_way(desk: Desk) -> None:
    """One question to MongoDB of the same form, and the same words: the clock tells a guesser no more than the answer does (S4)."""
    await desk.give("stream/taken", "user:u2")
    asked: list[list[str]] = []
    refusals = set()
    for id in ("taken", "unknown"):
        before = len(desk.database.commands)
        with pytest.raises(Forbidden) as refused:
            await desk.belonging.of(ME, [f"resource:stream/{id}"])
        refusals.add((str(refused.value), refused.value.field))
        asked.append([str(command).replace(id, "<id>") for command in desk.database.commands[before:]])
    assert len(refusals) == 1
    assert asked[0] == asked[1]
    assert len(asked[0]) == 1
