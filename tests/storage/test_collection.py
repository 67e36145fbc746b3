"""Ordinary collections: writes that stay, reads to the end, times."""

from __future__ import annotations

import asyncio
import math
from datetime import datetime

import pytest

from storage.collection import BATCH_DOCUMENTS, LATEST_SECONDS, Collection, date_of, expiry, seconds_of
from storage.errors import CommandFailed, Unavailable
from storage.mongo import Document
from tests.storage.faults import FaultyDatabase, Run, cursor_killed, indexes, not_sent, stored

DURABLE = {"w": "majority", "j": True}


@pytest.fixture
def things(database: FaultyDatabase) -> Collection:
    return Collection(database, "things")


async def fill(things: Collection, documents: list[Document]) -> None:
    """Insert many at once."""
    await things._database.command({"insert": things.name, "documents": documents})


# --- times ---


@pytest.mark.parametrize(
    ("seconds", "date"),
    [
        (0, datetime(1970, 1, 1)),
        (1_700_000_000.1234, datetime(2023, 11, 14, 22, 13, 20, 123_000)),
        (-1, datetime(1970, 1, 1)),
        (math.inf, datetime(9999, 12, 31, 23, 59, 59)),
    ],
)
def test_seconds_become_a_date(seconds: float, date: datetime) -> None:
    """In whole milliseconds, and within what a date can hold."""
    assert date_of(seconds) == date


@pytest.mark.parametrize("seconds", [0, 0.001, 1_700_000_000.123, LATEST_SECONDS])
def test_a_date_becomes_the_seconds_it_was(seconds: float) -> None:
    """Milliseconds come back exactly."""
    assert seconds_of(date_of(seconds)) == seconds


def test_what_is_no_number_is_no_time() -> None:
    """NaN would compare with nothing: it could be over never."""
    with pytest.raises(ValueError, match="not NaN"):
        date_of(math.nan)


async def test_a_date_is_the_same_after_it_was_in_mongodb(things: Collection) -> None:
    """Nothing is rounded on the way."""
    await things.insert({"_id": "a", "at": date_of(1_700_000_000.123)})
    (found,) = await things.find({})
    assert seconds_of(found["at"]) == 1_700_000_000.123


# --- indexes ---


async def test_indexes_are_made_once(things: Collection, database: FaultyDatabase) -> None:
    """Asking again, also by many at once, changes nothing."""
    wanted = [expiry("over", 60), {"key": {"name": 1}, "name": "name"}]
    await asyncio.gather(*(things.ensure_indexes(wanted) for _ in range(4)))
    made = await indexes(database, "things")
    assert set(made) == {"over", "name"}
    assert made["over"]["expireAfterSeconds"] == 60


# --- writing ---


async def test_a_second_document_with_the_same_id_is_refused(things: Collection) -> None:
    """The first one stays as it is."""
    await things.insert({"_id": "a", "value": 1})
    with pytest.raises(CommandFailed, match="duplicate key"):
        await things.insert({"_id": "a", "value": 2})
    assert await things.find({}) == [{"_id": "a", "value": 1}]


async def test_an_upsert_makes_or_changes(things: Collection) -> None:
    """It returns the document as it is now, or as it was before."""
    assert await things.upsert("a", {"$inc": {"value": 1}}) == {"_id": "a", "value": 1}
    assert await things.upsert("a", {"$inc": {"value": 1}}, before=True) == {"_id": "a", "value": 1}
    assert await things.upsert("b", {"$inc": {"value": 1}}, before=True) is None
    assert await things.upsert("a", {"$inc": {"value": 1}}) == {"_id": "a", "value": 3}


async def test_an_upsert_that_another_one_overtakes_is_done_again(things: Collection, database: FaultyDatabase) -> None:
    """Two that make the same document at once: one of them may be refused, and finds it there."""

    async def overtaken(run: Run, command: Document) -> Document:
        await run({"insert": "things", "documents": [{"_id": "a", "value": 7}]})
        raise CommandFailed("duplicate key", 11000)

    database.inject("findAndModify", overtaken)
    assert await things.upsert("a", {"$inc": {"value": 1}}) == {"_id": "a", "value": 8}


async def test_an_upsert_that_mongodb_refuses_fails(things: Collection, database: FaultyDatabase) -> None:
    """It is asked once."""
    with pytest.raises(CommandFailed):
        await things.upsert("a", {"$nonsense": 1})
    assert database.count("findAndModify", "things") == 1


async def test_taking_returns_the_document_once(things: Collection) -> None:
    """Afterwards it is gone."""
    await things.insert({"_id": "a", "value": 1})
    assert await things.take("a") == {"_id": "a", "value": 1}
    assert await things.take("a") is None


async def test_an_id_is_never_taken_for_a_query(things: Collection) -> None:
    """Operators that come in the place of an id match nothing."""
    await things.insert({"_id": "a"})
    assert await things.take({"$ne": ""}) is None  # type: ignore[arg-type]
    assert await things.find({}) == [{"_id": "a"}]


async def test_every_write_is_durable(things: Collection, database: FaultyDatabase) -> None:
    """Journaled, and by a majority where there are several nodes."""
    await things.ensure_indexes([expiry("over")])
    await things.insert({"_id": "a"})
    await things.upsert("a", {"$set": {"value": 1}})
    await things.take("a")
    assert [command["writeConcern"] for command in database.commands] == [DURABLE] * 4


# --- reading ---


async def test_it_finds_in_the_order_that_is_asked_for(things: Collection) -> None:
    """All, or the first few."""
    await fill(things, [{"_id": number, "other": -number} for number in range(5)])
    assert [document["_id"] for document in await things.find({}, sort={"other": 1})] == [4, 3, 2, 1, 0]
    assert [document["_id"] for document in await things.find({"_id": {"$gt": 1}}, sort={"_id": 1}, limit=2)] == [2, 3]


async def test_it_reads_to_the_end_whatever_the_size(things: Collection) -> None:
    """More than 16 MiB, and more documents than a batch has, are several replies."""
    large = "x" * (6 << 20)
    for number in range(4):
        await things.insert({"_id": number, "large": large})
    assert [document["_id"] for document in await things.find({}, sort={"_id": 1})] == [0, 1, 2, 3]
    small = Collection(things._database, "small")
    await fill(small, [{"_id": number} for number in range(2 * BATCH_DOCUMENTS + 1)])
    assert [len(batch) async for batch in small.batches({})] == [BATCH_DOCUMENTS, BATCH_DOCUMENTS, 1]


async def test_every_read_is_of_what_cannot_roll_back(things: Collection, database: FaultyDatabase) -> None:
    """With read concern majority."""
    await things.find({})
    await things.join("names", ["a"], 1)
    assert [command["readConcern"] for command in database.commands] == [{"level": "majority"}] * 2


async def test_a_cursor_that_is_gone_is_worth_another_try(things: Collection, database: FaultyDatabase) -> None:
    """MongoDB drops them when it changes its primary."""
    await fill(things, [{"_id": number} for number in range(BATCH_DOCUMENTS + 1)])
    database.inject("getMore", cursor_killed)
    with pytest.raises(Unavailable, match="dropped the cursor"):
        await things.find({})
    assert len(await things.find({})) == BATCH_DOCUMENTS + 1


async def test_a_query_that_mongodb_refuses_fails(things: Collection) -> None:
    """As itself: trying again would not help."""
    with pytest.raises(CommandFailed):
        await things.find({"$nonsense": 1})


async def test_a_break_between_two_batches_is_unavailable(things: Collection, database: FaultyDatabase) -> None:
    """Nobody gets half of the answer for the whole."""
    await fill(things, [{"_id": number} for number in range(BATCH_DOCUMENTS + 1)])
    database.inject("getMore", not_sent)
    with pytest.raises(Unavailable):
        await things.find({})


# --- joining ---


async def test_a_join_finds_for_each_value_the_first_few(things: Collection) -> None:
    """By index; a document that holds several of the values is found for each."""
    await things.ensure_indexes([{"key": {"names": 1}, "name": "names"}])
    await fill(things, [{"_id": number, "names": ["all", "odd" if number % 2 else "even"]} for number in range(6)])
    joined = await things.join("names", ["odd", "all", "none"], 3)
    assert {value: [document["_id"] for document in found] for value, found in joined.items()} == {
        "odd": [1, 3, 5],
        "all": [0, 1, 2],
        "none": [],
    }


async def test_a_join_may_find_more_than_one_reply_holds(things: Collection) -> None:
    """Neither a batch nor 16 MiB are a limit."""
    for number in range(4):
        await things.insert({"_id": number, "names": ["a"], "large": "x" * (6 << 20)})
    joined = await things.join("names", ["a"], 4)
    assert len(joined["a"]) == 4


async def test_a_value_is_never_taken_for_an_expression(things: Collection) -> None:
    """A name that looks like a field of the pipeline is a name."""
    await things.insert({"_id": "a", "names": ["$value"]})
    assert [document["_id"] for document in (await things.join("names", ["$value"], 1))["$value"]] == ["a"]


async def test_what_was_written_is_read(things: Collection, database: FaultyDatabase) -> None:
    """An acknowledged write is in the very next read."""
    for number in range(20):
        await things.insert({"_id": number})
        assert len(await things.find({})) == number + 1
    assert len(await stored(database, "things")) == 20
