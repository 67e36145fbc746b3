"""The log's collection: how it is made by many, identified and sized."""

from __future__ import annotations

import asyncio

import pytest

from storage.errors import CommandFailed, Unavailable, UnknownPosition
from storage.log import Log
from storage.mongo import Database, Document
from storage.positions import Position
from tests.storage.faults import Clock, FaultyDatabase, Run, answer_lost, documents, numbers
from tests.waiting import PATIENCE_SECONDS


async def options(log: Log) -> Document:
    """Return how the collection was made."""
    information = await log.collection.information()
    assert information is not None
    found: Document = information["options"]
    return found


# --- making it ---


async def test_a_new_log_has_a_first_entry_that_nobody_receives(log: Log) -> None:
    """A tailable cursor on an empty collection would be dead at once; the entry has no audience."""
    (entry,) = await log.read(0, 10)
    assert (entry.seq, entry.ms, entry.type, entry.audience) == (1, 1_000_000, "log:created", ())
    assert await log.head() == await log.oldest() == (1, 1_000_000)


async def test_it_is_capped_and_as_large_as_asked_for(database: FaultyDatabase, clock: Clock) -> None:
    """The size in bytes is rounded up as MongoDB does it."""
    log = Log(database, clock=clock, size_bytes=100_001, max_documents=7)
    assert await log.open() is False
    assert await options(log) == {"capped": True, "size": 100_096, "max": 7}


async def test_two_processes_make_one_log_at_once(mongodb_uri: str, database_name: str, clock: Clock) -> None:
    """One collection, one first entry, one epoch and one key: an id of the one is an id of the other."""
    databases = [Database(mongodb_uri, database_name, answer_seconds=PATIENCE_SECONDS) for _ in range(4)]
    logs = [Log(database, clock=clock, size_bytes=1 << 20) for database in databases]
    await asyncio.gather(*(log.open() for log in logs))
    assert [await numbers(log) for log in logs] == [[1]] * 4
    id = logs[0].codec.encode(12, 34)
    assert [log.codec.decode(id) for log in logs] == [Position(12, 34)] * 4
    for database in databases:
        database.close()


async def test_another_process_may_make_it_between_looking_and_making(database: FaultyDatabase, clock: Clock) -> None:
    """It is then opened like any log, and brought to the size that is asked for."""

    async def overtaken(run: Run, command: Document) -> Document:
        await run({**command, "size": 4096})
        return await run(command)

    database.inject("create", overtaken)
    log = Log(database, clock=clock, size_bytes=1 << 20)
    await log.open()
    assert (await options(log))["size"] == 1 << 20


async def test_a_collection_that_cannot_be_made_is_an_error(database: Database, clock: Clock) -> None:
    """MongoDB's own words say what is wrong."""
    with pytest.raises(CommandFailed):
        await Log(database, clock=clock, name="bad$name").open()


async def test_one_that_was_dropped_while_being_made_is_unavailable(database: FaultyDatabase, clock: Clock) -> None:
    """Opening it again makes it."""

    async def dropped(run: Run, command: Document) -> Document:
        await run(command)
        return await run({"drop": "log"})

    database.inject("create", dropped)
    log = Log(database, clock=clock)
    with pytest.raises(Unavailable, match="dropped while it was being made"):
        await log.open()
    await log.open()
    assert await numbers(log) == [1]


async def test_a_collection_that_is_not_capped_is_refused(database: Database, clock: Clock) -> None:
    """The message names it and says what to do; nothing in it is touched."""
    await database.command({"insert": "log", "documents": [{"_id": "mine"}]})
    with pytest.raises(CommandFailed, match="collection 'log' is not capped: drop or rename it, or give another database"):
        await Log(database, clock=clock).open()
    assert (await database.command({"find": "log"}))["cursor"]["firstBatch"] == [{"_id": "mine"}]


@pytest.mark.parametrize("version", [[5, 0, 31, 0], [4, 4, 29, 0]])
async def test_a_mongodb_that_is_too_old_is_refused(database: FaultyDatabase, clock: Clock, version: list[int]) -> None:
    """The message says what is needed and what is there; nothing is made."""

    async def old(run: Run, command: Document) -> Document:
        return {**await run(command), "versionArray": version, "version": ".".join(map(str, version[:3]))}

    log = Log(database, clock=clock)
    database.inject("buildInfo", old)
    with pytest.raises(CommandFailed, match=rf"6\.0.*{version[0]}\.{version[1]}"):
        await log.open()
    assert await log.collection.information() is None


@pytest.mark.parametrize("command", ["listCollections", "create", "createIndexes", "insert", "find"])
async def test_opening_again_completes_what_was_interrupted(database: FaultyDatabase, clock: Clock, command: str) -> None:
    """Wherever the answer was lost, there is one first entry and one identity in the end."""
    log = Log(database, clock=clock, size_bytes=1 << 20)
    database.inject(command, answer_lost)
    with pytest.raises(Unavailable):
        await log.open()
    await log.open()
    assert await numbers(log) == [1]


# --- its identity ---


async def test_a_log_that_was_dropped_and_made_again_is_another_one(log: Log) -> None:
    """It has a new epoch and key: an id of the old one is recognised."""
    id = log.codec.encode(1, 5)
    await log.database.command({"drop": "log"})
    assert await log.open() is True
    with pytest.raises(UnknownPosition) as caught:
        log.codec.decode(id)
    assert caught.value.reason == "log recreated"


async def test_entries_for_a_log_that_was_dropped_go_nowhere(log: Log, clock: Clock) -> None:
    """Neither into a collection made by the way, which would not be capped, nor into the next log, where they would leave a hole."""
    await log.database.command({"drop": "log"})
    with pytest.raises(Unavailable, match="dropped"):
        await log.insert(list(documents(2, [0, 0])))
    assert await log.collection.information() is None
    other = Log(log.database, clock=clock)
    await other.open()
    with pytest.raises(Unavailable, match="dropped"):
        await log.insert(list(documents(2, [0, 0])))
    assert await numbers(other) == [1]


async def test_reading_a_log_that_was_dropped_finds_nothing(log: Log) -> None:
    """It is an empty log until it is opened again."""
    await log.database.command({"drop": "log"})
    assert await log.head() == await log.oldest() == (0, 0)
    assert await log.read(0, 10) == []


async def test_an_epoch_that_is_not_confirmed_is_unavailable(database: FaultyDatabase, clock: Clock) -> None:
    """No id is issued by a codec that may not last."""

    async def lost(run: Run, command: Document) -> Document:
        reply = await run(command)
        await run({"delete": "log_epochs", "deletes": [{"q": {}, "limit": 0}]})
        return reply

    log = Log(database, clock=clock)
    await log.open()
    database.inject("insert", lost)
    other = Log(database, clock=clock)
    with pytest.raises(Unavailable, match="epoch"):
        await other.open()


async def test_an_epoch_that_cannot_be_kept_is_an_error(database: FaultyDatabase, clock: Clock) -> None:
    """Somebody has made the collection of epochs with rules of his own."""
    await database.command({"create": "log_epochs", "validator": {"mine": True}})
    with pytest.raises(CommandFailed, match="validation"):
        await Log(database, clock=clock).open()


# --- its size ---


async def test_growing_keeps_all_entries(log: Log, clock: Clock) -> None:
    """In bytes and in documents."""
    await log.insert(list(documents(2, [0] * 20)))
    grown = Log(log.database, clock=clock, size_bytes=4 << 20, max_documents=1000)
    await grown.open()
    assert await options(grown) == {"capped": True, "size": 4 << 20, "max": 1000}
    assert await numbers(grown) == list(range(1, 22))


@pytest.mark.parametrize(("size_bytes", "max_documents"), [(4096, 0), (1 << 20, 5), (4096, 1000)])
async def test_shrinking_keeps_the_newest_entries(log: Log, clock: Clock, size_bytes: int, max_documents: int) -> None:
    """What is beyond the new size leaves with the next entry at the latest."""
    await log.insert(list(documents(2, [0] * 200)))
    shrunk = Log(log.database, clock=clock, size_bytes=size_bytes, max_documents=max_documents)
    await shrunk.open()
    await shrunk.insert(list(documents(202, [0])))
    left = await numbers(shrunk)
    assert left == list(range(left[0], 203))
    assert len(left) == 5 if max_documents == 5 else 20 < len(left) < 50
    assert await shrunk.oldest() == (left[0], 0)


async def test_a_log_of_the_right_size_is_left_alone(log: Log) -> None:
    """Changing a collection locks it, so opening it after every break must not."""
    assert isinstance(log.database, FaultyDatabase)
    await log.open()
    assert log.database.count("collMod", "log") == 0


async def test_a_limit_in_documents_can_be_taken_away(database: FaultyDatabase, clock: Clock) -> None:
    """Once: then the log is of the right size."""
    await Log(database, clock=clock, max_documents=2).open()
    log = Log(database, clock=clock)
    await log.open()
    await log.insert(list(documents(2, [0] * 5)))
    assert len(await numbers(log)) == 6
    await log.open()
    assert database.count("collMod", "log") == 1
