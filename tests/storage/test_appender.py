"""Appending: order and density with any number of writers, each event once, and what its sender is told, whatever happens to MongoDB."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Sized
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from pathlib import Path

import pytest

from storage import appender as module
from storage import requests
from storage.appender import Appender
from storage.entries import NewEvent, Receipt
from storage.errors import CommandFailed, Overloaded, Unavailable
from storage.log import Log
from storage.mongo import Database, Document
from tests.freezing import freeze, frozen, thaw
from tests.storage.faults import (
    FENCE,
    Clock,
    FaultyDatabase,
    Held,
    Late,
    Run,
    answer_lost,
    carried_out_in_part,
    contents,
    documents,
    event,
    not_sent,
    own_mongodb,
    running,
)
from tests.waiting import PATIENCE_SECONDS, wait_until

DOUBT = "append in doubt"
SETTLED = "append settled"


@pytest.fixture
async def appender(log: Log) -> AsyncIterator[Appender]:
    """One that runs for as long as the test."""
    appender = Appender(log, seconds=PATIENCE_SECONDS)
    async with running(appender.run()):
        yield appender


@pytest.fixture
def doubt(expected_logs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Append in doubt: it is logged, and settled at once."""
    expected_logs += [DOUBT, SETTLED]
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.01)


@asynccontextmanager
async def another(log: Log, clock: Clock, uri: str, **options: float) -> AsyncIterator[Appender]:
    """The appender of another server process on the same log."""
    database = Database(uri, log.database.name, answer_seconds=PATIENCE_SECONDS)
    other = Log(database, clock=clock, size_bytes=1 << 20)
    await other.open()
    appender = Appender(other, seconds=PATIENCE_SECONDS)
    async with running(appender.run()):
        yield appender
    database.close()


def events(*names: str) -> list[NewEvent]:
    """Return events that have their publisher's id as their data too."""
    return [event(name, name) for name in names]


def places(log: Log, receipts: list[Receipt]) -> list[int]:
    return [log.codec.decode(receipt.id).seq for receipt in receipts]


def started(appender: Appender, *requests: list[NewEvent]) -> list[asyncio.Task[list[Receipt]]]:
    return [asyncio.create_task(appender.append(request)) for request in requests]


async def outcome(task: asyncio.Task[list[Receipt]]) -> Exception | list[Receipt]:
    (result,) = await asyncio.gather(task, return_exceptions=True)
    assert isinstance(result, Exception | list)
    return result


def database_of(log: Log) -> FaultyDatabase:
    assert isinstance(log.database, FaultyDatabase)
    return log.database


# --- order ---


async def test_receipts_come_in_the_order_of_the_events(log: Log, appender: Appender) -> None:
    """Each id leads to its own entry, and the numbers follow those before without a hole."""
    receipts = await appender.append([event("a"), event("b"), event("c")])
    assert places(log, receipts) == [2, 3, 4]
    assert not any(receipt.duplicate for receipt in receipts)
    assert await contents(log) == [(2, "a"), (3, "b"), (4, "c")]
    assert [entry.id for entry in await log.read(1, 10)] == [receipt.id for receipt in receipts]
    assert appender.appended == 3


async def test_natural_order_is_number_order_with_eight_writers_at_once(log: Log, clock: Clock, mongodb_uri: str) -> None:
    """4,000 events of eight processes: no number is missing or out of order, each event is there once and where its receipt says."""
    expected: dict[int, str] = {}

    async def publish(appender: Appender, writer: int, task: int) -> None:
        for turn in range(25):
            request = [event(f"{writer}-{task}-{turn}-{index}") for index in range(5)]
            receipts = await appender.append(request)
            expected.update(zip(places(log, receipts), (new.data for new in request), strict=True))

    async with AsyncExitStack() as stack:
        appenders = [await stack.enter_async_context(another(log, clock, mongodb_uri)) for _ in range(8)]
        await asyncio.gather(*(publish(appender, writer, task) for writer, appender in enumerate(appenders) for task in range(4)))
    assert await contents(log) == sorted(expected.items())
    assert sorted(expected) == list(range(2, 4002))


async def test_times_never_fall_along_the_log(log: Log, clock: Clock, appender: Appender, mongodb_uri: str) -> None:
    """When the clock goes back, and when another process has one that is slow, an entry has the time of the one before."""
    clock.now = 2000.0
    await appender.append([event()])
    clock.now = 1500.0
    await appender.append([event()])
    async with another(log, Clock(5.0), mongodb_uri) as slow:
        await slow.append([event()])
    clock.now = 3000.0
    await appender.append([event()])
    assert [entry.ms for entry in await log.read(1, 10)] == [2_000_000, 2_000_000, 2_000_000, 3_000_000]


# --- groups ---


async def test_what_waits_together_is_inserted_together(log: Log) -> None:
    """Fifty publishes take one insert, which is journaled once."""
    appender = Appender(log, seconds=PATIENCE_SECONDS)
    tasks = started(appender, *([event(str(number))] for number in range(50)))
    await asyncio.sleep(0)  # every publish is waiting now
    before = database_of(log).count("insert", "log")
    async with running(appender.run()):
        receipts = [(await task)[0] for task in tasks]
    assert database_of(log).count("insert", "log") == before + 1
    assert places(log, receipts) == list(range(2, 52))


@pytest.mark.parametrize(("limit", "value"), [("GROUP_EVENTS", 4), ("GROUP_BYTES", 1300)])
async def test_a_group_is_bounded(log: Log, monkeypatch: pytest.MonkeyPatch, limit: str, value: int) -> None:
    """In events and in bytes; a publish is never split, so one that is larger goes alone."""
    monkeypatch.setattr(requests, limit, value)
    appender = Appender(log, seconds=PATIENCE_SECONDS)
    tasks = started(appender, [event()] * 2, [event()] * 2, [event()] * 5, [event()])
    await asyncio.sleep(0)  # every publish is waiting now
    database_of(log).commands.clear()
    async with running(appender.run()):
        await asyncio.gather(*tasks)
    inserts = [command for command in database_of(log).commands if "insert" in command]
    assert [len(command["documents"]) for command in inserts] == [4, 5, 1]


async def test_the_head_is_read_once_while_nobody_else_writes(log: Log, appender: Appender) -> None:
    """The appender knows the number that it gave last."""
    await appender.append([event()])
    database_of(log).commands.clear()
    await appender.append([event()])
    assert [next(iter(command)) for command in database_of(log).commands] == ["insert"]


# --- publishers that repeat themselves ---


async def test_a_publish_that_is_repeated_gets_the_first_ones_id(log: Log, appender: Appender) -> None:
    """It says so, and the event is in the log once."""
    (first,) = await appender.append(events("a"))
    await appender.append(events("b"))
    (again,) = await appender.append(events("a"))
    assert (again.id, again.duplicate, first.duplicate) == (first.id, True, False)
    assert await contents(log) == [(2, "a"), (3, "b")]


async def test_one_publish_may_name_an_event_twice(log: Log, appender: Appender) -> None:
    """The second one is the duplicate."""
    receipts = await appender.append([*events("a", "b"), event("other", "a"), event("c")])
    assert places(log, receipts) == [2, 3, 2, 4]
    assert [receipt.duplicate for receipt in receipts] == [False, False, True, False]
    assert await contents(log) == [(2, "a"), (3, "b"), (4, "c")]


async def test_two_publishes_in_one_group_may_name_the_same_event(log: Log) -> None:
    """The first of them wins."""
    appender = Appender(log, seconds=PATIENCE_SECONDS)
    first, second = started(appender, events("a", "b"), events("b", "c"))
    await asyncio.sleep(0)  # both are waiting now
    async with running(appender.run()):
        assert places(log, await first) == [2, 3]
        assert places(log, await second) == [3, 4]
    assert [receipt.duplicate for receipt in second.result()] == [True, False]


async def test_duplicates_in_a_large_batch_leave_no_hole(log: Log, appender: Appender) -> None:
    """All of them are found at once, not one by one."""
    await appender.append(events(*(str(number) for number in range(0, 900, 3))))
    database_of(log).commands.clear()
    receipts = await appender.append(events(*(str(number) for number in range(900))))
    assert [number for number, receipt in enumerate(receipts) if receipt.duplicate] == list(range(0, 900, 3))
    assert database_of(log).count("insert", "log") == 2
    entries = dict(await contents(log))
    assert sorted(entries) == list(range(2, 902))
    assert [entries[place] for place in places(log, receipts)] == [str(number) for number in range(900)]


async def test_two_processes_may_append_the_same_events_at_once(log: Log, clock: Clock, mongodb_uri: str) -> None:
    """Whoever comes first, both have the same receipts, and each event is in the log once."""
    names = [str(number) for number in range(200)]

    async def publish(appender: Appender) -> list[Receipt]:
        return [receipt for at in range(0, 200, 10) for receipt in await appender.append(events(*names[at : at + 10]))]

    async with another(log, clock, mongodb_uri) as one, another(log, clock, mongodb_uri) as other:
        mine, theirs = await asyncio.gather(publish(one), publish(other))
    assert [receipt.id for receipt in mine] == [receipt.id for receipt in theirs]
    assert all(one.duplicate != other.duplicate for one, other in zip(mine, theirs, strict=True))
    assert sorted(data for _, data in await contents(log)) == sorted(names)
    assert [seq for seq, _ in await contents(log)] == list(range(2, 202))


async def test_an_event_whose_first_one_was_evicted_may_be_appended_again(database: FaultyDatabase, clock: Clock) -> None:
    """Its identity is unique while it is in the log."""
    log = Log(database, clock=clock, max_documents=2)
    await log.open()
    appender = Appender(log, seconds=PATIENCE_SECONDS)
    async with running(appender.run()):
        await appender.append(events("a"))
        await appender.append(events("b", "c"))
        (again,) = await appender.append(events("a"))
    assert not again.duplicate
    assert await contents(log) == [(4, "c"), (5, "a")]


async def test_a_duplicate_is_answered_once_its_first_one_is_durable(log: Log, appender: Appender) -> None:
    """As long as that cannot be confirmed, it waits."""
    (first,) = await appender.append(events("a"))
    database_of(log).inject("update", not_sent)
    (again,) = await appender.append(events("a"))
    assert (again.id, again.duplicate) == (first.id, True)
    assert database_of(log).injected()


# --- lost answers ---


@pytest.mark.usefixtures("doubt")
async def test_a_lost_answer_to_an_insert_that_was_carried_out_is_made_up_for(log: Log, appender: Appender) -> None:
    """The receipts are given, nothing is appended twice, and the next one follows."""
    database_of(log).inject("insert", answer_lost)
    receipts = await appender.append([event("a"), event("b")])
    assert places(log, receipts) == [2, 3]
    await appender.append([event("c")])
    assert await contents(log) == [(2, "a"), (3, "b"), (4, "c")]


@pytest.mark.usefixtures("doubt")
async def test_an_insert_that_was_not_carried_out_is_tried_again(log: Log, appender: Appender) -> None:
    """As long as its sender waits: it learns nothing of it."""
    database_of(log).inject("insert", not_sent)
    assert places(log, await appender.append([event("a"), event("b")])) == [2, 3]
    assert await contents(log) == [(2, "a"), (3, "b")]


@pytest.mark.usefixtures("doubt")
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
async def test_a_publish_that_was_carried_out_in_part_is_completed(log: Log, count: int) -> None:
    """Of three publishes in one insert, each is in the log wholly and once, and has its receipts."""
    appender = Appender(log, seconds=PATIENCE_SECONDS)
    tasks = started(appender, [event("a1"), event("a2")], [event("b1"), event("b2")], [event("c1"), event("c2")])
    await asyncio.sleep(0)  # all are waiting now
    database_of(log).inject("insert", carried_out_in_part(count))
    async with running(appender.run()):
        receipts = [receipt for task in tasks for receipt in await task]
    assert await contents(log) == list(enumerate(["a1", "a2", "b1", "b2", "c1", "c2"], 2))
    assert places(log, receipts) == list(range(2, 8))
    assert appender.appended == 6


@pytest.mark.usefixtures("doubt")
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4])
async def test_a_publish_that_was_given_up_is_completed_if_it_was_begun_and_else_never_comes(log: Log, count: int) -> None:
    """Of two publishes whose senders are gone, MongoDB has so many events. What it was sent may reach it once more, and changes nothing."""
    appender = Appender(log, seconds=PATIENCE_SECONDS)
    late = Late()

    async def lost(run: Run, command: Document) -> Document:
        for task in tasks:
            task.cancel()
        with suppress(Unavailable):
            await late(run, command)
        return await carried_out_in_part(count)(run, command)

    database_of(log).inject("insert", lost)
    tasks = started(appender, [event("a1"), event("a2")], [event("b1"), event("b2")])
    await asyncio.sleep(0)  # both are waiting now
    async with running(appender.run()):
        await wait_until(appender.drained, "the group is over")
        assert (await late.arrive())["n"] == 0
        names = ["a1", "a2", "b1", "b2"][: 2 * ((count + 1) // 2)]
        expected = [*names, FENCE] if count in (0, 2) else names
        assert await contents(log) == list(enumerate(expected, 2))
        assert places(log, await appender.append([event("next")])) == [2 + len(expected)]


@pytest.mark.usefixtures("doubt")
@pytest.mark.parametrize("given_up", [(), (0,), (1,), (0, 1)], ids=["none", "first", "second", "both"])
@pytest.mark.parametrize("count", [1, 3, 4])
@pytest.mark.parametrize("moment", [("update", False), ("find", False), ("find", True), ("insert", False), ("insert", True)], ids=str)
async def test_an_insert_that_arrives_late_leaves_no_publish_in_part(
    log: Log, moment: tuple[str, bool], count: int, given_up: tuple[int, ...]
) -> None:
    """Before or after any step that settles it, wholly or in part: each publish is there wholly and once, or, given up, not at all."""
    appender = Appender(log, seconds=PATIENCE_SECONDS)
    late = Late()
    (command_name, afterwards) = moment

    async def lost(run: Run, command: Document) -> Document:
        having = "readConcern" if command_name == "find" else command_name
        database_of(log).inject(command_name, arrives, having=having)
        for number in given_up:
            tasks[number].cancel()
        return await late(run, command)

    async def arrives(run: Run, command: Document) -> Document:
        if not afterwards:
            await late.arrive(count)
        reply = await run(command)
        if afterwards:
            await late.arrive(count)
        return reply

    database_of(log).inject("insert", lost)
    tasks = started(appender, [event("a1"), event("a2")], [event("b1"), event("b2")])
    await asyncio.sleep(0)  # both are waiting now
    async with running(appender.run()):
        for number, task in enumerate(tasks):
            if number not in given_up:
                assert len(await task) == 2
        await wait_until(appender.drained, "the group is over")
        await late.arrive()
        await appender.append([event("next")])
    assert database_of(log).injected()
    found = await contents(log)
    assert [seq for seq, _ in found] == list(range(2, len(found) + 2))
    names = [data for _, data in found if data != FENCE]
    whole = [["a1", "a2"], ["b1", "b2"]]
    there = [number for number, pair in enumerate(whole) if pair[0] in names]
    assert sorted(names) == sorted([*(name for number in there for name in whole[number]), "next"])
    assert {0, 1} - set(given_up) <= set(there)
    receipts = [
        (receipt, name) for number in {0, 1} - set(given_up) for receipt, name in zip(tasks[number].result(), whole[number], strict=True)
    ]
    assert [dict(found)[place] for place in places(log, [receipt for receipt, _ in receipts])] == [name for _, name in receipts]


@pytest.mark.usefixtures("doubt")
@pytest.mark.parametrize(("meanwhile", "taken"), [(1, False), (3, False), (0, True), (1, True)])
async def test_an_insert_that_goes_on_while_it_is_settled_appends_nothing_twice(log: Log, meanwhile: int, taken: bool) -> None:
    """MongoDB had one of four events when the answer was lost, and so many more after it was asked what had arrived; then another
    process may have taken the next number.
    """
    appender = Appender(log, seconds=PATIENCE_SECONDS)
    lost: list[Document] = []

    async def interrupted(run: Run, command: Document) -> Document:
        lost.extend(dict(document) for document in command["documents"])
        database_of(log).inject("find", asked, having="readConcern")
        return await carried_out_in_part(1)(run, command)

    async def asked(run: Run, command: Document) -> Document:
        reply = await run(command)
        theirs = [{**event("theirs").document(), "_id": lost[meanwhile]["_id"] + 1}] if taken else []
        await log.insert([*lost[1 : 1 + meanwhile], *theirs])
        return reply

    database_of(log).inject("insert", interrupted)
    async with running(appender.run()):
        receipts = await appender.append([event(name) for name in "abcd"])
        await appender.append([event("e")])
    expected = list("abcde")
    if taken:
        expected.insert(1 + meanwhile, "theirs")
    found = await contents(log)
    assert found == list(enumerate(expected, 2))
    assert [dict(found)[place] for place in places(log, receipts)] == list("abcd")


@pytest.mark.usefixtures("doubt")
async def test_a_completion_may_be_interrupted_too(log: Log, appender: Appender) -> None:
    """It is settled like the first attempt."""
    database_of(log).inject("insert", carried_out_in_part(1))
    database_of(log).inject("insert", carried_out_in_part(1))
    database_of(log).inject("insert", answer_lost)
    assert places(log, await appender.append([event(name) for name in "abcd"])) == [2, 3, 4, 5]
    assert await contents(log) == list(enumerate("abcd", 2))


@pytest.mark.usefixtures("doubt")
async def test_others_entries_are_not_taken_for_ones_own(log: Log, clock: Clock, appender: Appender, mongodb_uri: str) -> None:
    """An insert that never arrived follows the entry of another process that took its number meanwhile."""

    async def overtaken(run: Run, command: Document) -> Document:
        async with another(log, clock, mongodb_uri) as other:
            await other.append([event("theirs")])
        raise Unavailable("not sent")

    database_of(log).inject("insert", overtaken)
    assert places(log, await appender.append([event("mine")])) == [3]
    assert await contents(log) == [(2, "theirs"), (3, "mine")]


@pytest.mark.usefixtures("doubt")
async def test_a_number_that_was_evicted_before_it_could_be_looked_up_is_refused(database: FaultyDatabase, clock: Clock) -> None:
    """Trying again might double the event, so its sender is told; the log goes on without a hole."""
    log = Log(database, clock=clock, max_documents=2)
    await log.open()
    appender = Appender(log, seconds=PATIENCE_SECONDS)

    async def overrun(run: Run, command: Document) -> Document:
        await run(command)
        await log.insert(list(documents(3, [1_000_000] * 4, "theirs")))
        raise Unavailable("no answer")

    database.inject("insert", overrun)
    async with running(appender.run()):
        with pytest.raises(Unavailable, match="moved on"):
            await appender.append([event("mine")])
        assert places(log, await appender.append([event("next")])) == [7]
    assert await contents(log) == [(6, "theirs"), (7, "next")]


@pytest.mark.usefixtures("doubt")
async def test_the_first_of_several_events_may_be_evicted_before_it_is_looked_up(database: FaultyDatabase, clock: Clock) -> None:
    """Whoever has the later numbers had the earlier ones."""
    log = Log(database, clock=clock, max_documents=2)
    await log.open()
    appender = Appender(log, seconds=PATIENCE_SECONDS)
    database.inject("insert", answer_lost)
    async with running(appender.run()):
        assert places(log, await appender.append([event(name) for name in "abcd"])) == [2, 3, 4, 5]


@pytest.mark.usefixtures("doubt")
async def test_a_mongodb_that_comes_and_goes_is_settled_in_the_end(log: Log, appender: Appender) -> None:
    """However often: the same insert is sent again under the same numbers, and nothing is doubled."""
    for fault in [not_sent, carried_out_in_part(1), not_sent, answer_lost] * 50:
        database_of(log).inject("insert", fault)
    receipts = [receipt for _ in range(20) for receipt in await appender.append([event(name) for name in "abcdef"])]
    await appender.append([event("last")])
    assert places(log, receipts) == list(range(2, 122))
    assert [data for _, data in await contents(log)] == [*"abcdef" * 20, "last"]


@pytest.mark.usefixtures("doubt")
async def test_a_log_that_is_shorter_than_it_was_is_continued_where_it_ends(log: Log, appender: Appender) -> None:
    """As after an older copy of MongoDB's files was put back; the numbers of what is in doubt would leave a hole there."""
    await appender.append([event("a"), event("b")])

    async def put_back(run: Run, command: Document) -> Document:
        for seq in (2, 3):
            await run({"delete": "log", "deletes": [{"q": {"_id": seq}, "limit": 1}]})
        raise Unavailable("restarting")

    database_of(log).inject("insert", put_back)
    assert places(log, await appender.append([event("c")])) == [2]
    assert await contents(log) == [(2, "c")]


async def test_after_a_while_without_events_the_head_is_read_again(log: Log, appender: Appender, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver replaces a connection that broke meanwhile without a word, and behind it may be an older copy of the log."""
    monkeypatch.setattr(module, "HEAD_SECONDS", 0)
    await appender.append([event("a"), event("b")])
    await log.database.command({"delete": "log", "deletes": [{"q": {"_id": 3}, "limit": 1}]})
    assert places(log, await appender.append([event("c")])) == [3]


@pytest.mark.usefixtures("doubt")
@pytest.mark.parametrize("command", ["listCollections", "update", "find"])
async def test_what_is_in_doubt_stays_so_until_mongodb_answers(log: Log, appender: Appender, command: str) -> None:
    """Settling goes on until it is through, whichever of its steps is interrupted."""
    await appender.append([event("a")])
    database_of(log).inject("insert", answer_lost)
    database_of(log).inject(command, not_sent)
    assert places(log, await appender.append([event("b")])) == [3]
    assert database_of(log).injected()
    assert await contents(log) == [(2, "a"), (3, "b")]


async def test_an_insert_that_cannot_begin_waits_for_mongodb(log: Log, appender: Appender, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is in doubt before the head of the log is known: the same publish goes on when it is."""
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.01)
    database_of(log).inject("find", not_sent)
    database_of(log).inject("find", not_sent)
    assert places(log, await appender.append([event("a")])) == [2]


@pytest.mark.parametrize("others", [["b"], []])
async def test_what_nobody_waits_for_any_more_is_not_begun(log: Log, monkeypatch: pytest.MonkeyPatch, others: list[str]) -> None:
    """A publish that was given up before MongoDB came back is not appended; those beside it are."""
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.01)
    appender = Appender(log, seconds=PATIENCE_SECONDS)

    async def given_up_meanwhile(run: Run, command: Document) -> Document:
        given_up.cancel()
        await asyncio.sleep(0)  # the cancelled one ends
        return await not_sent(run, command)

    database_of(log).inject("find", given_up_meanwhile)
    given_up, *waiting = started(appender, [event("a")], *([event(name)] for name in others))
    await asyncio.sleep(0)  # all are waiting now
    async with running(appender.run()):
        await asyncio.gather(*waiting)
        await wait_until(appender.drained, "nothing is left to append")
    assert await contents(log) == list(enumerate(others, 2))


@pytest.mark.usefixtures("doubt")
async def test_when_the_log_was_dropped_the_next_one_takes_the_events(log: Log, appender: Appender) -> None:
    """The new log is capped and without a hole, and its ids are its own."""
    (before,) = await appender.append([event("a")])
    await log.database.command({"drop": "log"})
    (after,) = await appender.append([event("b")])
    assert places(log, [after]) == [2]
    assert before.id.partition("-")[2][:5] != after.id.partition("-")[2][:5]
    assert await contents(log) == [(2, "b")]
    information = await log.collection.information()
    assert information is not None
    assert information["options"]["capped"]


async def test_a_new_log_that_the_follower_saw_first_has_no_hole(log: Log, appender: Appender) -> None:
    """The appender forgets the number that it gave last in the old one."""
    await appender.append([event("a"), event("b")])
    await log.database.command({"drop": "log"})
    await log.open()
    assert places(log, await appender.append([event("c")])) == [2]
    assert await contents(log) == [(2, "c")]


@pytest.mark.usefixtures("doubt")
async def test_what_was_begun_in_a_log_that_is_gone_is_in_the_new_one_as_a_whole(log: Log, appender: Appender) -> None:
    """Its first part went with the old log."""
    await appender.append([event("a"), event("b")])

    async def dropped(run: Run, command: Document) -> Document:
        await run({"drop": "log"})
        return await not_sent(run, command)

    database_of(log).inject("insert", carried_out_in_part(1))
    database_of(log).inject("insert", dropped)
    assert places(log, await appender.append([event("c"), event("d"), event("e")])) == [2, 3, 4]
    assert await contents(log) == [(2, "c"), (3, "d"), (4, "e")]


@pytest.mark.usefixtures("doubt")
async def test_a_log_that_is_not_open_yet_is_opened(database: FaultyDatabase, clock: Clock) -> None:
    """No ordinary collection is made in its place."""
    log = Log(database, clock=clock)
    appender = Appender(log, seconds=PATIENCE_SECONDS)
    async with running(appender.run()):
        assert places(log, await appender.append([event("a")])) == [2]


async def test_events_that_mongodb_refuses_are_an_error_and_all_others_go_in(log: Log, expected_logs: list[str]) -> None:
    """Here by a rule that an operator gave the collection; those who were grouped with it do not suffer for it."""
    expected_logs += ["append failed"]
    await log.database.command({"collMod": "log", "validator": {"data": {"$ne": "forbidden"}}})
    appender = Appender(log, seconds=PATIENCE_SECONDS)
    first, bad, last = started(appender, [event("a")], [event("forbidden")], [event("b")])
    await asyncio.sleep(0)  # all are waiting now
    async with running(appender.run()):
        assert places(log, await first) == [2]
        assert isinstance(await outcome(bad), CommandFailed)
        assert places(log, await last) == [3]
        assert places(log, await appender.append([event("c")])) == [4]


async def test_an_event_larger_than_the_whole_log_is_all_that_is_left(database: FaultyDatabase, clock: Clock) -> None:
    """MongoDB evicts everything before it and keeps it; the numbers go on."""
    log = Log(database, clock=clock, size_bytes=8192)
    await log.open()
    appender = Appender(log, seconds=PATIENCE_SECONDS)
    async with running(appender.run()):
        await appender.append([event("a")])
        await appender.append([event("x" * 10_000)])
        assert await contents(log) == [(3, "x" * 10_000)]
        assert places(log, await appender.append([event("b")])) == [4]


async def test_events_that_cannot_be_written_at_all_do_not_end_the_appender(log: Log, appender: Appender, expected_logs: list[str]) -> None:
    """Half a character is not text: such an event is refused."""
    expected_logs += ["append failed"]
    with pytest.raises(CommandFailed):
        await appender.append([event("\ud800")])
    assert places(log, await appender.append([event("a")])) == [2]


async def test_what_somebody_put_into_the_log_by_hand_does_not_disturb(log: Log, appender: Appender) -> None:
    """The numbers go on after it, and a publish that it is taken for is a duplicate of it."""
    by_hand = [{"_id": 2, "published": "a"}, {"_id": "x"}, {}]
    await log.database.command({"insert": "log", "documents": by_hand})
    (receipt,) = await appender.append(events("a"))
    assert (places(log, [receipt]), receipt.duplicate) == ([2], True)
    assert places(log, await appender.append(events("b"))) == [3]


# --- MongoDB goes away ---


async def test_every_acknowledged_event_survives_a_killed_mongodb(tmp_path: Path, expected_logs: list[str]) -> None:
    """Four publishers go on through `kill -9`: what has a receipt is in the log once and where the receipt says; no number is missing."""
    expected_logs += [DOUBT, SETTLED, "embedded mongod ended unexpectedly"]
    acknowledged: dict[str, int] = {}
    refused: set[str] = set()
    over = asyncio.Event()

    async def publish(appender: Appender, name: str) -> None:
        number = 0
        while not over.is_set():
            number += 1
            names = [f"{name}{number}.{index}" for index in range(3)]
            try:
                receipts = await appender.append(events(*names))
            except Unavailable:
                refused.update(names)
            else:
                acknowledged.update(zip(names, places(log, receipts), strict=True))

    async with own_mongodb(tmp_path) as mongodb:
        database = Database(mongodb.uri, "test", answer_seconds=PATIENCE_SECONDS)
        log = Log(database, clock=time.time, size_bytes=64 << 20)
        await log.open()
        appender = Appender(log, seconds=PATIENCE_SECONDS)
        async with running(appender.run()):
            publishers = [asyncio.create_task(publish(appender, name)) for name in "abcd"]
            await wait_until(lambda: len(acknowledged) > 300, "300 events are acknowledged")
            assert mongodb.pid is not None
            os.kill(mongodb.pid, signal.SIGKILL)
            await wait_until(lambda: len(acknowledged) > 600, "600 events are acknowledged")
            over.set()
            await asyncio.gather(*publishers)
        found = await contents(log)
        database.close()
    seqs, names = [seq for seq, _ in found], [data for _, data in found]
    assert seqs == list(range(2, len(found) + 2))
    assert len(set(names)) == len(names)
    assert {name: seq for seq, name in found if name in acknowledged} == acknowledged
    assert set(names) <= acknowledged.keys() | refused


async def test_a_mongodb_that_does_not_answer_refuses_in_time_and_then_goes_on(tmp_path: Path, expected_logs: list[str]) -> None:
    """A publish is refused after about `seconds`, also one that came later; once MongoDB goes on, so does the appender."""
    expected_logs += [DOUBT, SETTLED]
    async with own_mongodb(tmp_path) as mongodb:
        database = Database(mongodb.uri, "test", answer_seconds=1.0)
        log = Log(database, clock=time.time)
        await opened(log)
        appender = Appender(log, seconds=0.5)
        async with running(appender.run()):
            await persistently(appender, *events("before"))
            assert mongodb.pid is not None
            await freeze(mongodb.pid)
            for name in ("during", "later", "last"):
                began = time.monotonic()
                with pytest.raises(Unavailable):  # and not never: nothing is answered before it is let go
                    await appender.append(events(name))
                assert time.monotonic() - began > 0.4
            thaw(mongodb.pid)
            await persistently(appender, *events("after"))
        found = await contents(log)
        database.close()
    names = [data for _, data in found]
    assert [seq for seq, _ in found] == list(range(2, len(found) + 2))
    assert [name for name in names if name not in ("during", FENCE)] == ["before", "after"]  # that one may have arrived


async def test_a_mongodb_that_stands_still_in_the_middle_leaves_no_publish_in_part(tmp_path: Path, expected_logs: list[str]) -> None:
    """Eight publishers go on while it is frozen five times, longer than they wait: what was refused is there wholly and once, or not."""
    expected_logs += [DOUBT, SETTLED]
    acknowledged: list[str] = []
    refused: set[str] = set()
    over = asyncio.Event()

    async def publish(appender: Appender, name: str) -> None:
        number = 0
        while not over.is_set():
            number += 1
            request = f"{name}{number}"
            try:
                await appender.append([event(f"{request}.{index}") for index in range(20)])
            except Unavailable:
                refused.add(request)
            else:
                acknowledged.append(request)

    async with own_mongodb(tmp_path) as mongodb:
        assert mongodb.pid is not None
        with closing(Database(mongodb.uri, "test", answer_seconds=0.2)) as database:
            log = Log(database, clock=time.time, size_bytes=64 << 20)
            await opened(log)
            appender = Appender(log, seconds=0.1)
            async with running(appender.run()):
                publishers = [asyncio.create_task(publish(appender, name)) for name in "abcdefgh"]
                for _ in range(5):
                    await more(acknowledged, 20)
                    async with frozen(mongodb.pid):
                        await more(refused, 8)
                over.set()
                await asyncio.gather(*publishers)
                await wait_until(appender.drained, "nothing is in doubt any more")
            found = await contents(log)
    assert [seq for seq, _ in found] == list(range(2, len(found) + 2))
    names = [data for _, data in found if data != FENCE]
    requests = {name.partition(".")[0] for name in names}
    assert sorted(names) == sorted(f"{request}.{index}" for request in requests for index in range(20))
    assert set(acknowledged) <= requests <= {*acknowledged, *refused}


async def opened(log: Log) -> None:
    """Open a log though its MongoDB may be slower than it is given time."""

    async def is_open() -> bool:
        try:
            await log.open()
        except Unavailable:
            return False
        return True

    await wait_until(is_open, "the log is open")


async def persistently(appender: Appender, *what: NewEvent) -> list[Receipt]:
    """Append events with ids of their own until they are taken: what waits for a short time only may be refused by a slow MongoDB."""
    while True:
        try:
            return await appender.append(what)
        except Unavailable:
            continue


async def more(things: Sized, count: int) -> None:
    """Wait until there are so many more of them."""
    expected = len(things) + count
    await wait_until(lambda: len(things) >= expected, f"{count} more")


async def test_an_insert_that_takes_too_long_is_refused_and_still_settled(log: Log) -> None:
    """Its sender hears no more of it; the log stays dense."""
    appender = Appender(log, seconds=0.05)
    held = Held()
    database_of(log).inject("insert", held)
    async with running(appender.run()):
        with pytest.raises(Unavailable, match="did not confirm the events in time"):
            await appender.append([event("slow")])
        with pytest.raises(Unavailable, match="did not take the events in time"):
            await appender.append([event("behind it")])
        held.let_go.set()
        await wait_until(appender.drained, "the slow one is through")
        assert places(log, await persistently(appender, event("next", "next"))) == [3]
    assert await contents(log) == [(2, "slow"), (3, "next")]


# --- the queue ---


async def test_a_full_queue_refuses_what_comes_next(log: Log) -> None:
    """Nothing of it is appended; once there is room again it is taken."""
    appender = Appender(log, seconds=PATIENCE_SECONDS, queue_bytes=1000)
    waiting = started(appender, [event("a")], [event("b")], [event("c")])
    await asyncio.sleep(0)  # all are waiting now
    with pytest.raises(Overloaded):
        await appender.append([event("d")])
    async with running(appender.run()):
        await asyncio.gather(*waiting)
        await appender.append([event("e")])
    assert [data for _, data in await contents(log)] == ["a", "b", "c", "e"]


async def test_a_publish_larger_than_the_queue_is_taken_when_nothing_waits(log: Log) -> None:
    """It would never be otherwise."""
    appender = Appender(log, seconds=PATIENCE_SECONDS, queue_bytes=1)
    (large,) = started(appender, [event("a"), event("b")])
    async with running(appender.run()):
        assert len(await large) == 2


async def test_cancelling_an_append_harms_nobody_else(log: Log) -> None:
    """Waiting or being inserted: those beside it get their receipts."""
    appender = Appender(log, seconds=PATIENCE_SECONDS)
    held = Held()
    database_of(log).inject("insert", held)
    async with running(appender.run()):
        first, second = started(appender, [event("a")], [event("b")])
        await held.reached.wait()
        third, fourth = started(appender, [event("c")], [event("d")])
        await asyncio.sleep(0)  # these two wait for the next group
        first.cancel()
        third.cancel()
        held.let_go.set()
        assert places(log, await second) == [3]
        await fourth
    found = await contents(log)
    assert [seq for seq, _ in found] == list(range(2, len(found) + 2))
    assert {"b", "d"} <= {data for _, data in found}


# --- the end ---


async def test_closing_answers_those_who_wait_and_refuses_those_who_come(log: Log) -> None:
    """`run` then returns; closing twice is closing."""
    appender = Appender(log, seconds=PATIENCE_SECONDS)
    held = Held()
    database_of(log).inject("insert", held)
    async with running(appender.run()) as task:
        (first,) = started(appender, [event("a")])
        await held.reached.wait()
        (second,) = started(appender, [event("b")])
        await asyncio.sleep(0)  # it waits now
        appender.close()
        appender.close()
        assert not appender.drained()
        with pytest.raises(Unavailable, match="stopping"):
            await appender.append([event("c")])
        held.let_go.set()
        assert places(log, await first + await second) == [2, 3]
        await task
        assert appender.drained()


async def test_closing_one_that_has_nothing_to_do_ends_it(log: Log) -> None:
    """Before it runs, and while it waits."""
    early = Appender(log, seconds=PATIENCE_SECONDS)
    early.close()
    await early.run()
    appender = Appender(log, seconds=PATIENCE_SECONDS)
    async with running(appender.run()) as task:
        await asyncio.sleep(0)  # it waits now
        appender.close()
        await task


async def test_cancelling_it_refuses_everybody_who_waits(log: Log) -> None:
    """Those being inserted and those in the queue, and whoever comes later."""
    appender = Appender(log, seconds=PATIENCE_SECONDS)
    held = Held()
    database_of(log).inject("insert", held)
    async with running(appender.run()):
        (first,) = started(appender, [event("a")])
        await held.reached.wait()
        (second,) = started(appender, [event("b")])
        await asyncio.sleep(0)  # it waits now
    for task in (first, second):
        with pytest.raises(Unavailable, match="stopping"):
            await task
    with pytest.raises(Unavailable, match="stopping"):
        await appender.append([event("c")])
