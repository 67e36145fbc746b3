"""Following: every entry once and in order, and what is gone is told, whatever happens to the cursor and to MongoDB."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from storage import cursor
from storage import follower as module
from storage.appender import Appender
from storage.entries import Entry
from storage.errors import Unavailable
from storage.follower import EVICTED, MISSING, Follower
from storage.log import Log
from storage.mongo import Document
from storage.positions import RECREATED, Position
from tests.storage.faults import (
    Clock,
    FaultyDatabase,
    Held,
    Run,
    cursor_killed,
    cursors_of,
    documents,
    event,
    not_sent,
    own_mongodb,
    running,
    step_down,
)
from tests.waiting import PATIENCE_SECONDS, wait_until

INTERRUPTED = "tail interrupted"
NOT_SEEN = "were not seen"


class Recorder:
    """A receiver that writes down everything it is told, an entry as its number."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.batches: list[list[Entry]] = []
        self.rest = 0.0

    def start(self, head: Position) -> None:
        self.told.append(("start", head.seq))

    def receive(self, entries: list[Entry]) -> float:
        self.batches.append(entries)
        self.told += [entry.seq for entry in entries]
        return self.rest

    def lose(self, first: Entry, reason: str) -> None:
        self.told.append(("lose", first.seq, reason))

    def restart(self, reason: str) -> None:
        self.told.append(("restart", reason))

    async def until(self, seq: int) -> list[Any]:
        """Wait until entry `seq` is the last thing told, and return all."""
        await wait_until(lambda: self.told and self.told[-1] == seq, f"entry {seq} is received")
        return self.told


@asynccontextmanager
async def following(log: Log) -> AsyncIterator[tuple[Follower, Recorder]]:
    """A follower that runs, and has read all there is."""
    recorder = Recorder()
    follower = Follower(log, recorder)
    async with running(follower.run()):
        await wait_until(lambda: follower.lag() < 100, "it is at the head of the log")
        yield follower, recorder


@pytest.fixture
def interrupted(expected_logs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """An interruption is logged, and it goes on at once."""
    expected_logs.append(INTERRUPTED)
    monkeypatch.setattr(module, "BACKOFF_SECONDS", (0.0,))


@pytest.fixture
async def small_log(database: FaultyDatabase, clock: Clock) -> Log:
    """A log of three entries."""
    log = Log(database, clock=clock, size_bytes=1 << 20, max_documents=3)
    await log.open()
    return log


def batches_of(monkeypatch: pytest.MonkeyPatch, entries: int) -> None:
    """Let batches be so small."""
    monkeypatch.setattr(module, "BATCH_ENTRIES", entries)
    monkeypatch.setattr(cursor, "BATCH_ENTRIES", entries)


async def insert(log: Log, first: int, count: int = 1) -> None:
    await log.insert(list(documents(first, [0] * count)))


def database_of(log: Log) -> FaultyDatabase:
    assert isinstance(log.database, FaultyDatabase)
    return log.database


def after(log: Log, first: int, count: int = 1) -> Callable[[Run, Document], Any]:
    """Return a fault that is none: so many entries are appended before the command is carried out."""

    async def fault(run: Run, command: Document) -> Document:
        await insert(log, first, count)
        return await run(command)

    return fault


# --- all is well ---


async def test_it_begins_at_the_head_of_the_log(log: Log) -> None:
    """What was appended before is not passed on, what comes after is."""
    await insert(log, 2, 3)
    async with following(log) as (_, recorder):
        await insert(log, 5)
        assert await recorder.until(5) == [("start", 4), 5]


async def test_entries_come_in_order_each_once_in_batches(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when more are there than one reply is asked for."""
    batches_of(monkeypatch, 10)
    async with following(log) as (_, recorder):
        for first in range(2, 502, 50):
            await insert(log, first, 50)
        assert await recorder.until(501) == [("start", 1), *range(2, 502)]
    assert {len(batch) for batch in recorder.batches} >= {10}
    assert max(len(batch) for batch in recorder.batches) == 10


async def test_an_entry_has_what_was_appended(log: Log) -> None:
    """Its id is the one on the receipt."""
    appender = Appender(log, seconds=PATIENCE_SECONDS)
    async with following(log) as (_, recorder), running(appender.run()):
        (receipt,) = await appender.append([event('{"a": 1}')])
        await recorder.until(2)
    ((entry,),) = recorder.batches
    assert (entry.id, entry.topic, entry.data) == (receipt.id, "topic", '{"a": 1}')


async def test_what_was_appended_before_the_cursor_was_open_is_passed_on(log: Log) -> None:
    """Between reading by index and opening the cursor, and between the cursor's batches."""
    database_of(log).inject("find", after(log, 2), having="tailable")
    database_of(log).inject("getMore", after(log, 3, 2))
    async with following(log) as (_, recorder):
        assert await recorder.until(4) == [("start", 1), 2, 3, 4]


async def test_a_log_in_which_nothing_was_ever_published_is_followed(database: FaultyDatabase, clock: Clock) -> None:
    """Also one that somebody else made, without the first entry that keeps a tailing cursor alive."""
    await database.command({"create": "log", "capped": True, "size": 1 << 20})
    log = Log(database, clock=clock, size_bytes=1 << 20)
    async with following(log) as (_, recorder):
        await insert(log, 2)
        assert await recorder.until(2) == [("start", 1), 2]


async def test_an_entry_arrives_at_once_in_an_idle_log(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """MongoDB is waiting for it then: it does not sleep until the waiting time, here longer than any test, is over."""
    monkeypatch.setattr(cursor, "AWAIT_SECONDS", 2 * PATIENCE_SECONDS)
    appender = Appender(log, seconds=PATIENCE_SECONDS)
    async with following(log) as (_, recorder), running(appender.run()):
        for seq in range(2, 7):
            await wait_until(lambda: "getMore" in database_of(log).commands[-1], "it waits for the next entry")
            await appender.append([event()])
            await recorder.until(seq)


@pytest.mark.parametrize("seconds", [0.003, 9.0])
async def test_the_receiver_may_let_entries_gather(log: Log, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """What is appended while the tail rests, which is never for long, comes as one batch, and nothing is lost by it."""
    monkeypatch.setattr(module, "MOST_REST_SECONDS", 0.005)
    async with following(log) as (_, recorder):
        recorder.rest = seconds
        for seq in range(2, 12):
            await insert(log, seq)
        assert await recorder.until(11) == [("start", 1), *range(2, 12)]


async def test_two_processes_follow_the_same_log(log: Log, clock: Clock) -> None:
    """Each passes on everything."""
    other = Log(log.database, clock=clock, size_bytes=1 << 20)
    async with following(log) as (_, one), following(other) as (_, two):
        await insert(log, 2, 5)
        assert await one.until(6) == await two.until(6)


# --- how far behind it is ---


async def test_before_the_first_contact_it_lags_infinitely(log: Log) -> None:
    """Nobody has been sure then of having read everything."""
    assert Follower(log, Recorder()).lag() == float("inf")


async def test_while_nothing_can_be_read_it_lags_by_the_time_since_then(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every proof of being at the head, also an empty one, sets it back to nothing."""
    monkeypatch.setattr(cursor, "AWAIT_SECONDS", 0.01)
    async with following(log) as (follower, _):
        held = Held()
        database_of(log).inject("getMore", held)
        await held.reached.wait()
        proved = follower.at_head_since
        assert proved is not None
        loop = asyncio.get_running_loop()
        await wait_until(lambda: loop.time() - proved > 0.05, "some time has passed")
        assert 0.05 < follower.lag() < 10
        held.let_go.set()
        await wait_until(lambda: follower.at_head_since != proved, "it is at the head again")
        assert follower.lag() < loop.time() - proved


async def test_a_full_batch_proves_nothing(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be more behind it."""
    batches_of(monkeypatch, 2)
    async with following(log) as (follower, recorder):
        held = Held()
        database_of(log).inject("getMore", after(log, 2, 4))
        await wait_until(database_of(log).injected, "they are appended")
        database_of(log).inject("getMore", held)
        proved = follower.at_head_since
        await held.reached.wait()
        assert recorder.told == [("start", 1), 2, 3]
        assert follower.at_head_since == proved
        held.let_go.set()
        await recorder.until(5)


# --- the cursor is lost ---


@pytest.mark.usefixtures("interrupted")
async def test_a_killed_cursor_costs_nothing(log: Log) -> None:
    """Without a loss and without a repetition, again and again."""
    async with following(log) as (_, recorder):
        for seq in range(2, 8, 2):
            database_of(log).inject("getMore", cursor_killed)
            await insert(log, seq)
            await wait_until(database_of(log).injected, "the cursor is killed")
            await insert(log, seq + 1)
            await recorder.until(seq + 1)
    assert recorder.told == [("start", 1), *range(2, 8)]


@pytest.mark.usefixtures("interrupted")
async def test_entries_behind_a_killed_cursor_are_read_by_index(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """In pages, as many as it takes."""
    batches_of(monkeypatch, 7)

    async def killed_after_many(run: Run, command: Document) -> Document:
        await insert(log, 2, 50)
        return await cursor_killed(run, command)

    database_of(log).inject("getMore", killed_after_many)
    async with following(log) as (_, recorder):
        assert await recorder.until(51) == [("start", 1), *range(2, 52)]


@pytest.mark.usefixtures("interrupted")
async def test_a_cursor_that_ends_without_an_error_is_replaced(log: Log) -> None:
    """Its last batch counts."""

    async def ended(run: Run, command: Document) -> Document:
        await insert(log, 2)
        reply = await run(command)
        await run({"killCursors": "log", "cursors": [command["getMore"]]})
        return {**reply, "cursor": {**reply["cursor"], "id": 0}}

    database_of(log).inject("getMore", ended)
    async with following(log) as (_, recorder):
        await recorder.until(2)
        await insert(log, 3)
        assert await recorder.until(3) == [("start", 1), 2, 3]


@pytest.mark.usefixtures("interrupted")
async def test_an_error_that_is_not_the_cursors_end_does_not_end_it(log: Log) -> None:
    """Whatever MongoDB refuses, it is tried again."""

    async def refused(run: Run, command: Document) -> Document:
        return await run({**command, "batchSize": -1})

    database_of(log).inject("getMore", refused)
    async with following(log) as (_, recorder):
        await wait_until(database_of(log).injected, "it was refused")
        await insert(log, 2)
        assert await recorder.until(2) == [("start", 1), 2]


@pytest.mark.usefixtures("interrupted")
@pytest.mark.parametrize("command", ["listCollections", "find", "getMore"])
async def test_a_lost_connection_costs_nothing(log: Log, command: str) -> None:
    """Wherever it is lost, also while it is opened again."""
    async with following(log) as (_, recorder):
        database_of(log).inject("getMore", cursor_killed)
        database_of(log).inject(command, not_sent)
        await insert(log, 2)
        await wait_until(database_of(log).injected, "both faults have happened")
        await insert(log, 3)
        assert await recorder.until(3) == [("start", 1), 2, 3]


class Pauses(tuple[float, ...]):
    """The pauses between attempts, of which none is made, and those that were asked for."""

    asked: list[float]

    def __getitem__(self, index: Any) -> Any:
        self.asked.append(super().__getitem__(index))
        return 0.0


async def test_attempts_without_success_come_less_and_less_often(
    log: Log, expected_logs: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The first interruption is a warning, those that follow it are not; once it has gone well, also in a log where nothing happens,
    it is as at first.
    """
    expected_logs.append(INTERRUPTED)
    pauses = Pauses(module.BACKOFF_SECONDS)
    pauses.asked = []
    monkeypatch.setattr(module, "BACKOFF_SECONDS", pauses)
    monkeypatch.setattr(cursor, "AWAIT_SECONDS", 0.01)
    async with following(log) as (follower, recorder):
        for warnings in (1, 2):
            for _ in range(7):
                database_of(log).inject("listCollections", not_sent)
            database_of(log).inject("getMore", not_sent)
            await wait_until(database_of(log).injected, "all attempts have failed")
            await wait_until(lambda: follower._attempts == 0, "a cursor lives")
            assert pauses.asked == [0.0, 0.05, 0.1, 0.25, 0.5, 1.0, 1.0, 1.0] * warnings
            assert len([record for record in caplog.records if record.levelname == "WARNING"]) == warnings
        await insert(log, 2)
        assert await recorder.until(2) == [("start", 1), 2]


@pytest.mark.usefixtures("interrupted")
async def test_a_cursor_that_is_given_up_is_gone_from_mongodb(log: Log, expected_logs: list[str]) -> None:
    """Because of a hole, and at the end; nobody waits for it longer than a moment."""
    expected_logs.append(NOT_SEEN)

    async def cursors(expected: int) -> None:
        async def held() -> bool:
            return await cursors_of(log) == expected

        await wait_until(held, f"MongoDB holds {expected} cursors")

    async with following(log) as (_, recorder):
        held = Held()
        database_of(log).inject("killCursors", held)
        await insert(log, 3)
        await held.reached.wait()
        await recorder.until(3)
        await cursors(2)
        held.let_go.set()
        await cursors(1)
    await cursors(0)


async def test_a_mongodb_that_does_not_answer_delays_no_end(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cursor is left to it then."""
    monkeypatch.setattr(module, "CLOSE_SECONDS", 0.01)
    held = Held()
    async with following(log):
        await wait_until(lambda: "getMore" in database_of(log).commands[-1], "the cursor is open")
        database_of(log).inject("killCursors", held)
    assert held.reached.is_set()


# --- an older copy of the log is put back ---

OLDER = "an older copy of MongoDB's files was put back"


def put_back(log: Log, count: int, *later: Document) -> Callable[[Run, Document], Any]:
    """Return a fault: the log has so many entries of before, and then others, and the cursor is gone as after a restart."""

    async def fault(run: Run, command: Document) -> Document:
        for seq in range(count + 1, 10):
            await run({"delete": log.name, "deletes": [{"q": {"_id": seq}, "limit": 1}]})
        if later:
            await log.insert(list(later))
        return await cursor_killed(run, command)

    return fault


@pytest.mark.usefixtures("interrupted")
@pytest.mark.parametrize(
    "later",
    [[], [*documents(3, [9])], [*documents(3, [9, 9])], [*documents(3, [9, 9, 9])], [{**one, "append": 7} for one in documents(3, [5, 5])]],
    ids=["shorter", "still shorter", "as long", "longer", "as long, at the same time"],
)
async def test_a_log_with_another_end_is_followed_anew(log: Log, expected_logs: list[str], later: list[Document]) -> None:
    """Nothing of it that took the numbers of what was received before is passed over."""
    expected_logs.append(OLDER)
    async with following(log) as (_, recorder):
        await log.insert(list(documents(2, [5, 5, 5])))
        await recorder.until(4)
        database_of(log).inject("getMore", put_back(log, 2, *later))
        last = 2 + len(later)
        await wait_until(lambda: ("restart", RECREATED) in recorder.told, "it begins again")
        assert await recorder.until(last) == [("start", 1), 2, 3, 4, ("restart", RECREATED), *range(1, last + 1)]
        await insert(log, last + 1)
        await recorder.until(last + 1)


@pytest.mark.usefixtures("interrupted")
async def test_following_anew_may_be_interrupted_too(log: Log, expected_logs: list[str]) -> None:
    """Before anything of it is received, it begins at the beginning again; the receiver is told once."""
    expected_logs.append(OLDER)

    async def carried_out(run: Run, command: Document) -> Document:
        return await run(command)

    async with following(log) as (_, recorder):
        await log.insert(list(documents(2, [5])))
        await recorder.until(2)
        database_of(log).inject("getMore", put_back(log, 1, *documents(2, [9])))
        for fault in (carried_out, carried_out, not_sent):  # it looks twice whether its last entry is there, then it reads
            database_of(log).inject("find", fault, having="readConcern")
        await wait_until(database_of(log).injected, "reading is interrupted")
        await insert(log, 3)
        assert await recorder.until(3) == [("start", 1), 2, ("restart", RECREATED), 1, 2, 3]


@pytest.mark.usefixtures("interrupted")
async def test_a_log_that_changes_just_before_the_cursor_is_open_is_noticed(log: Log, expected_logs: list[str]) -> None:
    """Its first entry must be the last one received."""
    expected_logs.append(OLDER)
    await log.insert(list(documents(2, [5, 5])))

    async def replaced(run: Run, command: Document) -> Document:
        await run({"delete": log.name, "deletes": [{"q": {"_id": 3}, "limit": 1}]})
        await log.insert(list(documents(3, [9])))
        return await run(command)

    database_of(log).inject("find", replaced, having="tailable")
    async with following(log) as (_, recorder):
        assert await recorder.until(3) == [("start", 3), ("restart", RECREATED), 1, 2, 3]


@pytest.mark.usefixtures("interrupted")
async def test_a_majority_that_is_behind_for_a_moment_is_no_older_copy(log: Log) -> None:
    """A new primary may not know yet what was confirmed before it: it is asked again once it has confirmed a write of its own."""

    async def behind(run: Run, command: Document) -> Document:
        return await run({**command, "filter": {"_id": {"$lt": 1, "$gt": 0}}})

    async with following(log) as (_, recorder):
        await insert(log, 2)
        await recorder.until(2)
        database_of(log).inject("getMore", cursor_killed)
        database_of(log).inject("find", behind, having="readConcern")
        database_of(log).inject("find", behind, having="readConcern")
        await wait_until(database_of(log).injected, "it has looked twice")
        await insert(log, 3)
        assert await recorder.until(3) == [("start", 1), 2, 3]


# --- entries are lost ---


@pytest.mark.usefixtures("interrupted")
async def test_a_log_that_overruns_the_follower_is_told(small_log: Log, expected_logs: list[str]) -> None:
    """What was evicted before it was read is lost; what is still there follows."""
    expected_logs.append(NOT_SEEN)
    database_of(small_log).inject("getMore", after(small_log, 2, 20))
    async with following(small_log) as (_, recorder):
        assert await recorder.until(21) == [("start", 1), ("lose", 19, EVICTED), 19, 20, 21]
        await insert(small_log, 22)
        assert (await recorder.until(22))[-1] == 22


@pytest.mark.usefixtures("interrupted")
async def test_an_overrun_before_the_cursor_is_open_is_told(small_log: Log, expected_logs: list[str]) -> None:
    """The cursor does not begin with the last entry received, which has left the log."""
    expected_logs.append(NOT_SEEN)
    database_of(small_log).inject("find", after(small_log, 2, 5), having="tailable")
    async with following(small_log) as (_, recorder):
        assert await recorder.until(6) == [("start", 1), ("lose", 4, EVICTED), 4, 5, 6]


@pytest.mark.usefixtures("interrupted")
async def test_an_overrun_by_exactly_the_entries_received_is_no_loss(small_log: Log) -> None:
    """The oldest one that is left is the next one."""
    database_of(small_log).inject("find", after(small_log, 2, 3), having="tailable")
    async with following(small_log) as (_, recorder):
        assert await recorder.until(4) == [("start", 1), 2, 3, 4]


@pytest.mark.usefixtures("interrupted")
async def test_a_hole_without_an_explanation_is_told(log: Log, expected_logs: list[str]) -> None:
    """Somebody has inserted numbers beyond the next one by hand; never is one passed over silently."""
    expected_logs.append(NOT_SEEN)
    async with following(log) as (_, recorder):
        await insert(log, 2)
        await recorder.until(2)
        await insert(log, 10, 2)
        assert await recorder.until(11) == [("start", 1), 2, ("lose", 10, MISSING), 10, 11]


@pytest.mark.parametrize("by_index", [False, True])
async def test_what_somebody_put_there_by_hand_is_passed_over(log: Log, expected_logs: list[str], by_index: bool) -> None:
    """It has a number, and so is no hole; nobody is in its audience. Whether the cursor reads it, or it is read by index."""
    expected_logs += ["has not the fields of an entry", INTERRUPTED]
    async with following(log) as (_, recorder):
        if by_index:
            database_of(log).inject("getMore", cursor_killed)
            await wait_until(database_of(log).injected, "the cursor is killed")
        by_hand = [{"_id": 2}, {"_id": 3.0, "topic": "t", "audience": "public"}, {"_id": "x"}, {"_id": 3.5}]
        await log.database.command({"insert": "log", "documents": by_hand})
        await insert(log, 4)
        assert await recorder.until(4) == [("start", 1), 2, 3, 4]
    assert [entry.audience for batch in recorder.batches for entry in batch] == [(), (), ("public",)]
    assert log.malformed == 2


@pytest.mark.usefixtures("interrupted")
async def test_several_holes_in_one_page_are_told_one_by_one(log: Log, expected_logs: list[str]) -> None:
    """Each with the entry that follows it."""
    expected_logs.append(NOT_SEEN)

    async def holes(run: Run, command: Document) -> Document:
        for first in (2, 5, 9):
            await insert(log, first, 2)
        return await run(command)

    database_of(log).inject("getMore", holes)
    async with following(log) as (_, recorder):
        told = [("start", 1), 2, 3, ("lose", 5, MISSING), 5, 6, ("lose", 9, MISSING), 9, 10]
        assert await recorder.until(10) == told


@pytest.mark.usefixtures("interrupted")
async def test_a_log_that_is_dropped_is_followed_anew(log: Log) -> None:
    """The receiver learns that it is another log, and gets that one from its beginning."""
    async with following(log) as (_, recorder):
        await insert(log, 2, 3)
        await recorder.until(4)
        old = log.uuid
        await log.database.command({"drop": "log"})
        await wait_until(lambda: log.uuid != old, "there is another log")
        await insert(log, 2)
        assert await recorder.until(2) == [("start", 1), 2, 3, 4, ("restart", RECREATED), 1, 2]
    assert recorder.batches[-1][-1].id == log.codec.encode(2, 0)


@pytest.mark.usefixtures("interrupted")
async def test_a_log_that_is_replaced_just_before_the_cursor_is_open_is_noticed(log: Log, clock: Clock) -> None:
    """Though the new one has an entry with the number of the last one received."""

    async def replaced(run: Run, command: Document) -> Document:
        await log.database.command({"drop": "log"})
        other = Log(log.database, clock=clock, size_bytes=1 << 20)
        await other.open()
        await insert(other, 2)
        return await run(command)

    database_of(log).inject("find", replaced, having="tailable")
    async with following(log) as (_, recorder):
        assert await recorder.until(2) == [("start", 1), ("restart", RECREATED), 1, 2]


# --- what may be passed on ---


class DoubtingLog(Log):
    """A log that does not confirm an entry of this number so many times, as after a failover that has undone it."""

    doubted = 0
    times = 0

    async def confirm(self, document: Document, operation_time: Any) -> bool:
        confirmed = await super().confirm(document, operation_time)
        if document["_id"] == self.doubted and self.times:
            self.times -= 1
            return False
        return confirmed


@pytest.mark.usefixtures("interrupted")
async def test_what_is_not_confirmed_is_not_passed_on(database: FaultyDatabase, clock: Clock) -> None:
    """The cursor is given up, and what is in the log to stay is read by index."""
    log = DoubtingLog(database, clock=clock, size_bytes=1 << 20)
    log.doubted, log.times = 3, 1
    await log.open()
    database.inject("find", after(log, 2, 2), having="tailable")
    held = Held()
    recorder = Recorder()
    async with running(Follower(log, recorder).run()):
        await wait_until(database.injected, "the cursor has read it")
        database.inject("find", held)
        await held.reached.wait()
        assert recorder.told == [("start", 1)]
        held.let_go.set()
        assert await recorder.until(3) == [("start", 1), 2, 3]
    assert log.times == 0


async def test_nothing_is_passed_on_before_the_confirmation_has_come(log: Log) -> None:
    """The reading that confirms asks for what is committed, and for the time of the reading that found it."""
    async with following(log) as (_, recorder):
        held = Held()
        database_of(log).inject("find", held, having="readConcern")
        await insert(log, 2)
        await held.reached.wait()
        concern = next(command["readConcern"] for command in reversed(database_of(log).commands) if "readConcern" in command)
        assert concern["level"] == "majority"
        assert "afterClusterTime" in concern
        assert recorder.told == [("start", 1)]
        held.let_go.set()
        await recorder.until(2)


# --- MongoDB goes away ---


async def published(appender: Appender, data: str) -> None:
    """Append until it is acknowledged."""
    while True:
        try:
            await appender.append([event(data, data)])
            return
        except Unavailable:
            continue


@pytest.mark.parametrize("fault", ["kill", "failover"])
async def test_a_mongodb_that_restarts_costs_nothing(tmp_path: Path, expected_logs: list[str], fault: str) -> None:
    """Killed, or voted out and in again, in the middle of a stream: what is followed is what is in the log, each once and in order."""
    expected_logs += [INTERRUPTED, "append in doubt", "append settled", "embedded mongod ended unexpectedly"]
    async with own_mongodb(tmp_path) as mongodb:
        database = FaultyDatabase(mongodb.uri, "test")
        log = Log(database, clock=time.time, size_bytes=64 << 20)
        appender = Appender(log, seconds=PATIENCE_SECONDS)
        async with following(log) as (_, recorder), running(appender.run()):
            for number in range(200):
                await published(appender, str(number))
                if number == 100 and fault == "kill":
                    assert mongodb.pid is not None
                    os.kill(mongodb.pid, signal.SIGKILL)
                elif number == 100:
                    await step_down(database)
            head = (await log.head()).seq
            assert await recorder.until(head) == [("start", 1), *range(2, head + 1)]
        received = [entry.data for batch in recorder.batches for entry in batch]
        database.close()
    assert received == [str(number) for number in range(200)]


async def test_a_follower_may_run_before_mongodb_does(tmp_path: Path, expected_logs: list[str]) -> None:
    """It begins when MongoDB comes."""
    expected_logs.append(INTERRUPTED)
    async with own_mongodb(tmp_path) as mongodb:
        uri = mongodb.uri
    database = FaultyDatabase(uri, "test", answer_seconds=0.05)
    log = Log(database, clock=time.time)
    recorder = Recorder()
    follower = Follower(log, recorder)
    async with running(follower.run()):
        await wait_until(lambda: len(database.commands) > 1, "it has tried more than once")
        assert follower.lag() == float("inf")
        assert recorder.told == []
        patient = Log(FaultyDatabase(uri, "test"), clock=time.time)
        async with own_mongodb(tmp_path):
            database.close()
            log.database = log.collection.database = patient.database
            await wait_until(lambda: recorder.told, "it has begun")
            assert recorder.told == [("start", 1)]
            patient.database.close()
