"""The roll: what one process tells, every other one hears, once it is told completely; and who is gone does not count."""

from __future__ import annotations

import asyncio

import pytest

from storage.collection import seconds_of
from storage.errors import CommandFailed, Unavailable
from storage.mongo import Document
from storage.roll import DEAD_SECONDS, WRITES, RollStore, Told
from tests.storage.faults import Fault, FaultyDatabase, Held, answer_lost, indexes, not_sent, plan, stored


async def begun(database: FaultyDatabase, process: str) -> RollStore:
    """Return the roll as a process sees it that has just begun."""
    store = RollStore(database, process=process)
    await store.open()
    await store.begin()
    return store


@pytest.fixture
async def a(database: FaultyDatabase) -> RollStore:
    return await begun(database, "a")


@pytest.fixture
async def b(other_database: FaultyDatabase) -> RollStore:
    return await begun(other_database, "b")


async def heard(store: RollStore) -> list[Told]:
    """Let a process look and hear."""
    await store.look()
    return sorted(await store.hear())


async def fall_silent(database: FaultyDatabase, process: str, seconds: float = 3600) -> None:
    """Let a process look as if it was seen so much longer ago."""
    earlier = [{"$set": {"seen": {"$subtract": ["$seen", round(seconds * 1000)]}}}]
    await database.command({"update": "servers", "updates": [{"q": {"_id": process}, "u": earlier}]})


async def test_each_sees_the_others_and_not_itself(a: RollStore, b: RollStore) -> None:
    """By their names in this life."""
    assert (a.server, b.server) == ("a/1", "b/1")
    assert await a.look() == {"b/1": 0}
    assert set(await b.look()) == {"a/1"}


async def test_others_know_as_of_when_everything_is_told(a: RollStore, b: RollStore) -> None:
    """Whether anything has changed or not."""
    await a.tell({"user:u1": [1]}, 1000)
    assert await b.look() == {"a/1": 1000}
    await a.tell({}, 2000)
    assert await b.look() == {"a/1": 2000}
    await a.begin()
    assert await b.look() == {"a/2": 0}


async def test_others_know_what_there_is_in_all(a: RollStore, b: RollStore) -> None:
    """As it was told last; nothing of one that has just begun, or has left."""
    await a.tell({}, 1000, {"connections": 5})
    await b.look()
    assert b.totals == [{"connections": 5}]
    await a.begin()
    await a.tell({}, 2000)
    await b.look()
    assert b.totals == [{}]
    await a.leave()
    await b.look()
    assert b.totals == []
    await b.begin()
    assert b.totals == []


async def test_what_is_told_is_heard_once(a: RollStore, b: RollStore) -> None:
    """Only what has changed, and the end of a count as well."""
    await a.tell({"user:u1": [1, 2], "org:o1": [7]}, 0)
    assert await heard(b) == [Told("a/1", "org:o1", (7,)), Told("a/1", "user:u1", (1, 2))]
    assert await heard(b) == []
    await a.tell({"user:u1": []}, 0)
    assert await heard(b) == [Told("a/1", "user:u1", ())]
    await a.tell({"user:u1": [3]}, 0)
    assert await heard(b) == [Told("a/1", "user:u1", (3,))]


async def test_who_comes_later_hears_everything(a: RollStore, other_database: FaultyDatabase) -> None:
    """The newest state of each count, in however many commands it was written."""
    names = [f"user:{number}" for number in range(WRITES + 1)]
    await a.tell({name: [1] for name in names}, 0)
    await a.tell({names[0]: [1, 2]}, 0)
    late = await begun(other_database, "late")
    told = {one.name: one.numbers for one in await heard(late)}
    assert told == {**dict.fromkeys(names, (1,)), names[0]: (1, 2)}


async def test_what_others_have_can_be_asked_for(a: RollStore, b: RollStore, database: FaultyDatabase) -> None:
    """Of servers that live only, and not of oneself."""
    await a.tell({"user:u1": [1], "user:u2": [2]}, 0)
    await b.tell({"user:u1": [3]}, 0)
    await b.look()
    assert await b.ask(["user:u1", "user:unknown"]) == [Told("a/1", "user:u1", (1,))]
    assert await b.ask([]) == []
    assert "IXSCAN" in await plan(database, {"find": "roll", "filter": {"name": {"$in": ["user:u1"]}}})


async def test_names_are_taken_as_they_are(a: RollStore, b: RollStore) -> None:
    """Whatever characters are in them, however long they are."""
    names = ["user:$u", "user:a.b/c", "user:é", "user:" + "x" * 5000]
    await a.tell({name: [1] for name in names}, 0)
    assert {one.name for one in await heard(b)} == set(names)


async def test_a_count_that_is_being_written_is_not_missed(a: RollStore, b: RollStore, database: FaultyDatabase) -> None:
    """Who looks in the middle hears the rest later: what is told counts as heard only when it was told completely."""
    held = Held()
    await a.tell({"user:u0": [1]}, 0)
    database.inject("findAndModify", held)
    telling = asyncio.create_task(a.tell({"user:u1": [1]}, 0))
    await held.reached.wait()
    assert Told("a/1", "user:u0", (1,)) in await heard(b)
    held.let_go.set()
    await telling
    assert await heard(b) == [Told("a/1", "user:u1", (1,))]


async def test_nothing_new_costs_no_question(a: RollStore, b: RollStore, other_database: FaultyDatabase) -> None:
    """One look and one sign of life a second are all there is while nothing changes."""
    await a.tell({"user:u1": [1]}, 0)
    await heard(b)
    other_database.commands.clear()
    assert await heard(b) == []
    await b.tell({}, 0)
    assert [next(iter(command.items())) for command in other_database.commands] == [("find", "servers"), ("findAndModify", "servers")]


@pytest.mark.parametrize("fault", [not_sent, answer_lost])
async def test_in_doubt_everything_is_told_anew(a: RollStore, b: RollStore, database: FaultyDatabase, fault: Fault) -> None:
    """A new life takes the place of the old one in a single step, so that nothing counts twice."""
    await a.tell({"user:u1": [1]}, 0)
    assert await heard(b) == [Told("a/1", "user:u1", (1,))]
    database.inject("update", fault)
    with pytest.raises(Unavailable):
        await a.tell({"user:u2": [2]}, 0)
    await a.begin()
    assert set(await b.look()) == {"a/2"}
    assert await b.ask(["user:u1", "user:u2"]) == []
    await a.tell({"user:u1": [1]}, 0)
    assert await heard(b) == [Told("a/2", "user:u1", (1,))]
    assert [one["_id"] for one in await stored(database, "roll")] == ["a/2/user:u1"]


async def test_a_process_that_is_not_seen_any_more_is_removed(a: RollStore, b: RollStore, database: FaultyDatabase) -> None:
    """With all it told."""
    await a.tell({"user:u1": [1]}, 0)
    await b.tell({"user:u1": [2]}, 0)
    await fall_silent(database, "a", DEAD_SECONDS - 5)
    assert set(await b.look()) == {"a/1"}
    await fall_silent(database, "a", DEAD_SECONDS)
    assert await b.look() == {}
    assert await b.hear() == []
    assert [one["_id"] for one in await stored(database, "roll")] == ["b/1/user:u1"]
    assert [one["_id"] for one in await stored(database, "servers")] == ["b"]


async def test_a_process_that_was_taken_for_dead_hears_of_it(a: RollStore, b: RollStore, database: FaultyDatabase) -> None:
    """It was only held up: it begins again, and is heard again."""
    await fall_silent(database, "a")
    await b.look()
    for step in (a.look, lambda: a.tell({"user:u1": [1]}, 0)):
        with pytest.raises(Unavailable, match="took this one for dead"):
            await step()
    await a.begin()
    await a.tell({"user:u1": [1]}, 0)
    assert await heard(b) == [Told("a/2", "user:u1", (1,))]


async def test_a_process_that_lives_after_all_is_not_removed(
    a: RollStore, b: RollStore, database: FaultyDatabase, other_database: FaultyDatabase
) -> None:
    """Its sign of life comes between the other one's look and the removal."""
    await a.tell({"user:u1": [1]}, 0)
    await fall_silent(database, "a")
    held = Held()
    other_database.inject("update", held)
    looking = asyncio.create_task(b.look())
    await held.reached.wait()
    await a.tell({}, 0)
    held.let_go.set()
    await looking
    assert await heard(b) == [Told("a/1", "user:u1", (1,))]


async def test_a_removal_that_breaks_off_is_done_by_the_next(
    a: RollStore, b: RollStore, database: FaultyDatabase, other_database: FaultyDatabase
) -> None:
    """Nothing is left behind, and the process that it is about cannot go on meanwhile."""
    await a.tell({"user:u1": [1]}, 0)
    await fall_silent(database, "a")
    other_database.inject("delete", not_sent)
    with pytest.raises(Unavailable):
        await b.look()
    with pytest.raises(Unavailable, match="took this one for dead"):
        await a.tell({}, 0)
    await fall_silent(database, "a")
    assert await b.look() == {}
    assert await stored(database, "roll") == []


async def test_who_stood_still_takes_nobody_for_dead(a: RollStore, b: RollStore, database: FaultyDatabase) -> None:
    """Times are compared with the last sign of life that this process itself gave."""
    await fall_silent(database, "a")
    assert await a.look() == {"b/1": 0}


async def test_what_is_gone_is_kept_only_for_a_while(a: RollStore, database: FaultyDatabase) -> None:
    """MongoDB deletes counts of nothing, and no others; the last changes are found by index."""
    await a.tell({"user:u1": [1], "user:u2": []}, 0)
    assert [one["name"] for one in await stored(database, "roll") if "gone" in one] == ["user:u2"]
    await a.tell({"user:u1": [], "user:u2": [2]}, 0)
    assert [one["name"] for one in await stored(database, "roll") if "gone" in one] == ["user:u1"]
    assert (await indexes(database, "roll"))["gone"]["expireAfterSeconds"] == 60
    news: Document = {"$or": [{"process": "a", "life": 1, "version": {"$gt": 1}}, {"process": "b", "life": 1, "version": {"$gt": 0}}]}
    assert "COLLSCAN" not in await plan(database, {"find": "roll", "filter": news})


async def test_who_leaves_leaves_nothing(a: RollStore, b: RollStore, database: FaultyDatabase) -> None:
    """The others hear of it at their next look."""
    await a.tell({"user:u1": [1]}, 0)
    await a.leave()
    assert await b.look() == {}
    assert await stored(database, "roll") == []
    assert [one["_id"] for one in await stored(database, "servers")] == ["b"]


async def test_a_refused_count_is_an_error(a: RollStore, database: FaultyDatabase) -> None:
    """What MongoDB refuses is not told, and must not look as if it was."""
    await database.command({"collMod": "roll", "validator": {"name": {"$ne": "user:u1"}}})
    with pytest.raises(CommandFailed):
        await a.tell({"user:u1": [1]}, 0)


async def test_time_is_mongodbs(a: RollStore, database: FaultyDatabase) -> None:
    """Openings can be told by a clock that all servers share."""
    await database.command({"insert": "anything", "documents": [{"_id": 1}]})
    stamp = {"findAndModify": "anything", "query": {}, "update": {"$currentDate": {"now": True}}, "new": True}
    before = await a.time()
    stamped = (await database.command(stamp))["value"]["now"]
    assert before <= seconds_of(stamped) <= await a.time()
