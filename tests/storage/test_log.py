"""The log: how it is read, whatever is in it, and what of it is there to stay."""

from __future__ import annotations

import asyncio
from bisect import bisect_left

import pytest
from bson.decimal128 import Decimal128
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.errors import CommandFailed, Unavailable
from storage.log import Log
from storage.mongo import Database, Document
from tests.loop_thread import LoopThread
from tests.storage.faults import Clock, FaultyDatabase, Held, Run, contents, documents, not_sent, numbers
from tests.waiting import PATIENCE_SECONDS

# --- opening it ---


async def test_what_is_not_open_yet_has_no_ids_and_takes_no_entries(database: Database, clock: Clock) -> None:
    """An insert would make an ordinary collection of the log's name."""
    log = Log(database, clock=clock)
    with pytest.raises(Unavailable, match="not open yet"):
        _ = log.codec
    with pytest.raises(Unavailable, match="not open yet"):
        await log.insert(list(documents(1, [0])))
    assert await log.collection.information() is None


async def test_opening_again_finds_the_same_log(log: Log, clock: Clock) -> None:
    """In this process and in the next one ids stay what they were."""
    id = log.codec.encode(1, 5)
    assert await log.open() is False
    other = Log(log.database, clock=clock, size_bytes=1 << 20)
    assert await other.open() is False
    assert other.codec.decode(id) == (1, 5)


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


async def test_entries_of_some_types_are_selected(log: Log) -> None:
    """Between two numbers, without those of one source, oldest first, and as many as asked for."""
    fields = [{"type": "a"}, {"type": "b", "source": "own"}, {"type": "b"}, {"type": "c"}, {"type": "a", "source": "x"}, {"type": "b"}]
    await log.insert([document | more for document, more in zip(documents(2, [5] * 6), fields, strict=True)])
    assert [entry.seq for entry in await log.select({"a", "b"}, "own", 1, 6, 10)] == [2, 4, 6]
    assert [entry.seq for entry in await log.select({"a", "b"}, "own", 2, 7, 2)] == [4, 6]
    assert await log.select({"b"}, "own", 4, 6, 10) == []


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
        return Database(mongodb_uri, database_name, answer_seconds=PATIENCE_SECONDS)

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
            place = await log.before_time(ms)
            index = bisect_left(kept, ms)
            assert place.seq == entries[0].seq - 1 + index, ms
            assert place.ms == (kept[index - 1] if index else min(ms, kept[0]))  # so that an id made of it names the entry there

    @settings(max_examples=25, deadline=None)
    @given(st.lists(st.integers(0, 6), max_size=12).map(sorted), st.sampled_from([0, 4]))
    def compare_all(times: list[int], max_documents: int) -> None:
        thread.run(compare(times, max_documents), seconds=PATIENCE_SECONDS)

    with LoopThread("log under test") as thread:
        database = thread.run(connect(), seconds=PATIENCE_SECONDS)
        compare_all()
        database.close()


# --- what somebody put there by hand ---

NO_ENTRY = "has not the fields of an entry"


async def put(log: Log, *documents: Document) -> None:
    assert (await log.database.command({"insert": log.name, "documents": list(documents)}))["n"] == len(documents)


async def test_a_document_that_is_no_entry_is_one_that_nobody_receives(
    log: Log, expected_logs: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """It has its number, so there is no hole; it is an error that is counted and reported once, however often it is read."""
    expected_logs += [NO_ENTRY]
    await put(log, {"_id": 2}, {"_id": 3.0, "topic": 5, "ms": 7}, *documents(4, [8]))
    for _ in range(2):
        entries = await log.read(0, 10)
        assert [(entry.seq, entry.ms, entry.audience) for entry in entries] == [
            (1, 1_000_000, ()),
            (2, 0, ()),
            (3, 7, ()),
            (4, 8, ("public",)),
        ]
        assert [type(entry.seq) for entry in entries] == [int] * 4
    assert log.malformed == 2
    assert len([record for record in caplog.records if NO_ENTRY in record.message]) == 2


async def test_what_has_no_number_is_not_in_the_log(log: Log) -> None:
    """Neither for those who read it nor for those who look where it begins and ends."""
    await put(log, *documents(2, [5]), {"_id": "x"}, {}, {"_id": 1.5}, {"_id": Decimal128("7")}, {"_id": float("inf")}, {"_id": -3})
    assert await numbers(log) == [1, 2]
    assert await log.head() == (2, 5)
    assert await log.oldest() == (1, 1_000_000)


async def test_a_document_without_a_time_does_not_disturb_looking_for_one(log: Log, expected_logs: list[str]) -> None:
    """The next entry that has one decides."""
    await put(log, *documents(2, [1_000_005]), {"_id": 3}, {"_id": 4, "ms": "soon"}, *documents(5, [1_000_009]))
    places = [(0, 1_000_000), (1, 1_000_000), (2, 1_000_005), (5, 1_000_009)]
    assert [await log.before_time(ms) for ms in (1_000_000, 1_000_005, 1_000_009, 1_000_010)] == places


async def test_a_document_without_a_token_can_be_confirmed(log: Log) -> None:
    """Somebody must not stop the tail by putting it there."""
    await put(log, {"_id": 2})
    document, operation_time = await local_read(log, 2)
    assert await log.confirm(document, operation_time)
    assert await log.confirm(document, None)


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


async def test_an_insert_of_which_nothing_went_in_confirms_nothing(log: Log) -> None:
    """Another entry had the number: the answer says nothing of that one."""
    await log.insert(list(documents(2, [0])))
    reply = await log.insert([{**one, "append": 7} for one in documents(2, [0])])
    assert (reply["n"], reply["writeErrors"][0]["code"]) == (0, 11000)
    document, operation_time = await local_read(log, 2)
    assert not await log.confirm({**document, "append": 7}, operation_time)


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
