"""The capped collection: how it is made by many, identified, sized and read."""

from __future__ import annotations

import asyncio
from bisect import bisect_left

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.errors import CommandFailed, Unavailable, UnknownPosition
from storage.log import Log
from storage.mongo import Database, Document
from storage.positions import Position
from tests.loop_thread import LoopThread
from tests.storage.faults import Clock, FaultyDatabase, Held, Run, answer_lost, contents, documents, not_sent


async def options(log: Log) -> Document:
    """Return how the collection was made."""
    information = await log._information()
    assert information is not None
    found: Document = information["options"]
    return found


async def numbers(log: Log) -> list[int]:
    return [entry.seq for entry in await log.read(0, 100_000)]


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
    databases = [Database(mongodb_uri, database_name) for _ in range(4)]
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
    assert await log._information() is None


@pytest.mark.parametrize("command", ["listCollections", "create", "createIndexes", "insert", "find"])
async def test_opening_again_completes_what_was_interrupted(database: FaultyDatabase, clock: Clock, command: str) -> None:
    """Wherever the answer was lost, there is one first entry and one identity in the end."""
    log = Log(database, clock=clock, size_bytes=1 << 20)
    database.inject(command, answer_lost)
    with pytest.raises(Unavailable):
        await log.open()
    await log.open()
    assert await numbers(log) == [1]


async def test_what_is_not_open_yet_has_no_ids_and_takes_no_entries(database: Database, clock: Clock) -> None:
    """An insert would make an ordinary collection of the log's name."""
    log = Log(database, clock=clock)
    with pytest.raises(Unavailable, match="not open yet"):
        _ = log.codec
    with pytest.raises(Unavailable, match="not open yet"):
        await log.insert(list(documents(1, [0])))
    assert await log._information() is None


# --- its identity ---


async def test_opening_again_finds_the_same_log(log: Log, clock: Clock) -> None:
    """In this process and in the next one ids stay what they were."""
    id = log.codec.encode(1, 5)
    assert await log.open() is False
    other = Log(log.database, clock=clock, size_bytes=1 << 20)
    assert await other.open() is False
    assert other.codec.decode(id) == (1, 5)


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
    assert await log._information() is None
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


# --- reading it ---


async def test_entries_are_read_oldest_first_from_after_a_number(log: Log) -> None:
    """As many as asked for."""
    await log.insert(list(documents(2, [5, 5, 6, 7])))
    assert [(entry.seq, entry.ms) for entry in await log.read(2, 2)] == [(3, 5), (4, 6)]
    assert [entry.seq for entry in await log.read(4, 10)] == [5]
    assert await log.read(5, 10) == []
    assert await log.head() == (5, 7)
    assert await log.head(durable=False) == (5, 7)
    assert await log.oldest() == (1, 1_000_000)


async def test_a_read_larger_than_a_reply_returns_what_fits(log: Log, clock: Clock) -> None:
    """MongoDB answers with 16 MiB at the most; the entries are consecutive."""
    large = Log(log.database, clock=clock, size_bytes=64 << 20)
    await large.open()
    for seq in range(2, 22):
        await large.insert(list(documents(seq, [0], "x" * (1 << 20))))
    seqs = [entry.seq for entry in await large.read(1, 100)]
    assert seqs == list(range(2, 2 + len(seqs)))
    assert 10 <= len(seqs) < 20


async def test_what_was_evicted_is_not_there(log: Log, clock: Clock) -> None:
    """The first number returned tells."""
    small = Log(log.database, clock=clock, size_bytes=1 << 20, max_documents=3)
    await small.open()
    await small.insert(list(documents(2, [0] * 10)))
    assert [entry.seq for entry in await small.read(2, 10)] == [9, 10, 11]


async def test_a_query_may_choose_fields_and_order(log: Log) -> None:
    """Without a limit it returns all that match."""
    await log.insert(list(documents(2, [5, 6, 7])))
    found = await log.find({"_id": {"$gt": 1}}, newest_first=True, fields=("ms",))
    assert found == [{"_id": 4, "ms": 7}, {"_id": 3, "ms": 6}, {"_id": 2, "ms": 5}]


async def test_a_query_that_is_refused_is_an_error(log: Log) -> None:
    """It is a defect, and trying again does not help."""
    with pytest.raises(CommandFailed):
        await log.find({"$no": 1})


async def test_a_query_on_a_log_that_just_went_is_unavailable(log: Log) -> None:
    """Some commands say that the collection is not there: it will be again."""
    assert isinstance(log.database, FaultyDatabase)

    async def no_namespace(run: Run, command: Document) -> Document:
        return await run({"validate": "nothing of this name"})

    log.database.inject("find", no_namespace)
    with pytest.raises(Unavailable, match="dropped"):
        await log.find({})


async def test_only_what_is_confirmed_is_read(log: Log) -> None:
    """Every query but the appender's own asks for read concern majority."""
    assert isinstance(log.database, FaultyDatabase)
    log.database.commands.clear()
    await log.read(0, 1)
    await log.head()
    await log.oldest()
    await log.before_time(0)
    assert {command["readConcern"]["level"] for command in log.database.commands} == {"majority"}


def test_a_place_is_found_by_time(mongodb_uri: str, database_name: str) -> None:
    """Everything after it was appended then or later, as a scan of the log finds it: with equal times, before all and after all, in a
    log that has lost its oldest entries.
    """
    clock = Clock(0.0)
    count = 0

    async def connect() -> Database:
        return Database(mongodb_uri, database_name)

    async def compare(times: list[int], max_documents: int) -> None:
        nonlocal count
        count += 1
        log = Log(database, clock=clock, name=f"log{count}", size_bytes=1 << 20, max_documents=max_documents)
        await log.open()
        if times:
            await log.insert(list(documents(2, times)))
        entries = await log.read(0, 1000)
        kept = [entry.ms for entry in entries]
        for ms in {-1, 0, 10**6, *times, *(time + 1 for time in times)}:
            assert await log.before_time(ms) == entries[0].seq - 1 + bisect_left(kept, ms), ms

    @settings(max_examples=25, deadline=None)
    @given(st.lists(st.integers(0, 6), max_size=12).map(sorted), st.sampled_from([0, 4]))
    def compare_all(times: list[int], max_documents: int) -> None:
        thread.run(compare(times, max_documents), seconds=30)

    with LoopThread("log under test") as thread:
        database = thread.run(connect(), seconds=10)
        compare_all()
        database.close()


# --- what is confirmed ---


async def test_the_barrier_comes_back_when_all_before_it_is_durable(log: Log) -> None:
    """It touches no entry; when MongoDB cannot confirm it, the log cannot be appended to."""
    assert isinstance(log.database, FaultyDatabase)
    await log.barrier()
    await log.barrier()
    assert await contents(log) == []
    log.database.inject("update", not_sent)
    with pytest.raises(Unavailable):
        await log.barrier()


async def local_read(log: Log, seq: int) -> tuple[Document, object]:
    """Return an entry as a tailing cursor sees it, and how far MongoDB was then."""
    reply = await log.database.command({"find": log.name, "filter": {"_id": seq}})
    return reply["cursor"]["firstBatch"][0], reply["operationTime"]


async def test_an_entry_that_is_in_the_log_to_stay_is_confirmed(log: Log) -> None:
    """Also without an operation time, as from a MongoDB without replicas."""
    await log.insert(list(documents(2, [0])))
    document, operation_time = await local_read(log, 2)
    assert await log.confirm(document, operation_time)
    assert await log.confirm(document, None)


async def test_what_this_process_inserted_is_confirmed_by_its_answer(log: Log) -> None:
    """MongoDB is not asked again for what it has just acknowledged; an insert without an answer yet is awaited."""
    assert isinstance(log.database, FaultyDatabase)
    held = Held()
    log.database.inject("insert", held)
    inserting = asyncio.create_task(log.insert([{**one, "append": 7} for one in documents(2, [0, 0])]), name="insert")
    await held.reached.wait()
    confirming = asyncio.create_task(log.confirm({"_id": 2, "append": 7}, None), name="confirm")
    await asyncio.sleep(0)  # it waits by now
    assert not confirming.done()
    held.let_go.set()
    await inserting
    asked = len(log.database.commands)
    assert await confirming
    assert await log.confirm({"_id": 3, "append": 7}, None)
    assert len(log.database.commands) == asked


async def test_an_insert_without_an_answer_confirms_nothing(log: Log) -> None:
    """Then MongoDB is asked, as for what other processes inserted."""
    assert isinstance(log.database, FaultyDatabase)
    log.database.inject("insert", not_sent)
    with pytest.raises(Unavailable):
        await log.insert([{**one, "append": 7} for one in documents(2, [0])])
    document, operation_time = await local_read(log, 1)
    assert not await log.confirm({**document, "_id": 2, "append": 7}, operation_time)


async def test_an_entry_that_was_evicted_meanwhile_is_confirmed(log: Log, clock: Clock) -> None:
    """It was there, and everything after it is."""
    small = Log(log.database, clock=clock, size_bytes=1 << 20, max_documents=2)
    await small.open()
    document, operation_time = await local_read(small, 1)
    await small.insert(list(documents(2, [0] * 5)))
    assert await small.confirm(document, operation_time)


async def test_an_entry_that_was_rolled_back_is_not_confirmed(log: Log) -> None:
    """Whether its number was taken by another one, or is not there again yet."""
    await log.insert(list(documents(2, [0, 0])))
    document, operation_time = await local_read(log, 3)
    assert not await log.confirm({**document, "append": 77}, operation_time)
    assert not await log.confirm({**document, "_id": 4}, operation_time)


async def test_an_entry_that_is_not_committed_yet_is_looked_for_again(log: Log) -> None:
    """A tailing cursor may see it a moment before the time that its reply gives."""
    await log.insert(list(documents(2, [0])))
    document, operation_time = await local_read(log, 2)

    async def not_yet(run: Run, command: Document) -> Document:
        return await run({**command, "filter": {"_id": 77}})

    assert isinstance(log.database, FaultyDatabase)
    log.database.inject("find", not_yet)
    assert await log.confirm(document, operation_time)
    assert log.database.injected()
