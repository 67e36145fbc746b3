"""Folding: everything in the log gets into MongoDB, whatever goes wrong in between, whoever does it, and where it began."""

from __future__ import annotations

import asyncio
import random

import pytest

from hub.folding import PAGE_ENTRIES, Folding
from hub.folds import Folds
from hub.overlay import Overlay
from storage.entries import Entry
from storage.mongo import Document
from storage.snapshots import Wanted
from tests.hub.fakes import EPOCH, ListLog, make_codec, make_entry
from tests.hub.test_snapshots import Process, Start, database, here, independent, log, order, start
from tests.storage.faults import FaultyDatabase, Held, Run, answer_lost, not_sent, running, stored
from tests.waiting import wait_until

__all__ = ["database", "here", "log", "start"]  # fixtures

AWAY = "snapshots are not folded"
ALL_ORDERS = "all orders"


async def folded(process: Process, user: str = "u1") -> dict[str, int]:
    """Return what MongoDB has of a user's orders, newest first."""
    reading = await process.store.read(Wanted(ALL_ORDERS, f"user:{user}", 1000))
    return {item.key: item.seq for item in reading.items}


async def progress(process: Process) -> int:
    """Return how far everything is folded."""
    return (await process.store.progress()).of(process.overlay.folds.names)


async def test_everything_up_to_the_head(here: Process) -> None:
    """Also what no state has: the progress is the head, and the overlay is empty."""
    here.append(order(2, "a"), order(3, "b", user="u2"), order(4, "a"), make_entry(5))
    await here.folding.turn()
    assert (await folded(here), await folded(here, "u2"), await progress(here)) == ({"a": 4}, {"b": 3}, 5)
    assert (len(here.overlay), here.overlay.floor) == (0, 5)


async def test_nothing_new_is_nothing_to_write(here: Process, database: FaultyDatabase) -> None:
    """A turn without news looks, and leaves it at that."""
    before = database.count("update", "snapshot_progress")
    await here.folding.turn()
    assert database.count("update", "snapshot_progress") == before


async def test_without_state_there_is_nothing_to_do(here: Process, database: FaultyDatabase) -> None:
    """MongoDB is not even asked."""
    before = len(database.commands)
    await Folding(Overlay(Folds()), here.log, here.store, here.lease).turn()
    assert len(database.commands) == before


async def test_before_the_log_is_followed(log: ListLog, here: Process) -> None:
    """There is nothing to fold yet."""
    await Folding(Overlay(here.overlay.folds), log, here.store, here.lease).turn()
    assert await progress(here) == 1


async def test_what_was_appended_before_the_first_start(start: Start, log: ListLog) -> None:
    """It is read from the log, page by page, from the oldest entry on; nobody misses what had left it before."""
    count = 2 * PAGE_ENTRIES + 10
    log.entries = [make_entry(5), *(order(seq, f"k{seq % 7}", gone=seq % 5 == 0) for seq in range(6, count))]
    process = await start()
    await process.folding.turn()
    assert await folded(process) == independent(log.entries, limit=1000)
    assert await progress(process) == count - 1
    assert len(log.reads) == 3


async def test_after_a_crash_it_goes_on_from_the_progress(
    start: Start, log: ListLog, database: FaultyDatabase, expected_logs: list[str]
) -> None:
    """A process that died between items and progress is followed by one that writes the same again, and what came since."""
    expected_logs.append(AWAY)
    first = await start("a")
    await first.folding.turn()
    first.append(order(2, "a"), order(3, "b"))
    await first.folding.turn()
    first.append(order(4, "a"), order(5, "c"))
    database.inject("update", answer_lost)  # the items are written, the progress is not
    await first.folding.turn()
    assert (await folded(first), await progress(first)) == ({"c": 5, "a": 4, "b": 3}, 3)
    await first.lease.release()
    log.entries += [order(6, "b", gone=True)]
    second = await start("b")
    second.append(order(7, "d"))
    await second.folding.turn()
    assert (await folded(second), await progress(second)) == ({"d": 7, "c": 5, "a": 4}, 7)
    assert log.reads[-1] == (3, PAGE_ENTRIES), "not from the beginning"


async def test_one_process_does_it_and_another_takes_over(here: Process, start: Start) -> None:
    """The others let go of what is folded, and write nothing."""
    other = await start("b")
    log = here.log
    log.entries += [order(2, "a"), order(3, "b")]
    for process in (here, other):
        process.follow()
    await other.folding.turn()
    assert (await progress(here), len(other.overlay)) == (1, 4)
    await here.folding.turn()
    await other.folding.turn()
    assert (await progress(here), len(other.overlay), other.overlay.floor) == (3, 0, 3)
    await here.lease.release()
    log.entries += [order(4, "a")]
    other.follow()
    await other.folding.turn()
    assert await progress(here) == 4


async def test_two_at_once_do_no_harm(here: Process, start: Start) -> None:
    """One that stood still while its lease ended writes what it has, late: nothing goes back."""
    other = await start("b")
    here.append(order(2, "a"), order(3, "b"))
    held = Held()
    here_database = here.store._database
    assert isinstance(here_database, FaultyDatabase)
    here_database.inject("update", held)
    late = asyncio.create_task(here.folding.turn())
    await held.reached.wait()
    await here.lease.release()
    here.log.entries += [order(4, "a", gone=True), order(5, "b"), order(6, "c")]
    other.follow()
    await other.folding.turn()
    assert await progress(other) == 6
    held.let_go.set()
    await late
    assert (await folded(other), await progress(other)) == ({"c": 6, "b": 5}, 6)


async def test_mongodb_is_away(here: Process, database: FaultyDatabase, expected_logs: list[str]) -> None:
    """That is said once, and everything is done when it is back."""
    expected_logs.append(AWAY)
    here.append(order(2, "a"))
    for _ in range(3):
        database.inject("findAndModify", not_sent)
        await here.folding.turn()
    here.append(order(3, "b"))
    await here.folding.turn()
    assert await folded(here) == {"b": 3, "a": 2}


async def test_what_left_the_log_unfolded_is_said(
    here: Process, start: Start, log: ListLog, expected_logs: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """It cannot be known any more. Everything else is folded."""
    log.entries += [order(seq, f"k{seq}") for seq in range(2, 10)]
    log.evict(4)
    other = await start("b")
    await here.lease.release()
    expected_logs.append("entries 2 to 4 left the log before they were folded: snapshots may miss them")
    await other.folding.turn()
    assert expected_logs[0] in caplog.text
    assert await folded(other) == {f"k{seq}": seq for seq in range(9, 4, -1)}


async def test_a_hole_that_another_process_has_folded_is_none(here: Process, start: Start) -> None:
    """Only what nobody has seen is missing."""
    other = await start("b")
    other.append(*(order(seq, f"k{seq}") for seq in range(2, 8)))
    await here.lease.release()
    await other.folding.turn()
    await other.lease.release()
    here.log.entries += [order(8, "k2", gone=True)]
    here.hub.receive(here.log.entries[-1:])  # it finds a hole before it
    await here.folding.turn()
    assert await folded(here) == {f"k{seq}": seq for seq in range(7, 2, -1)}


def made_anew(process: Process, *entries: Entry, epoch: int = 2) -> None:
    """Let the log of a process be another one, with these entries."""
    process.log.codec = make_codec(epoch)
    process.log.entries = [make_entry(1, codec=process.log.codec), *entries]
    process.hub.restart("log recreated")


async def test_the_log_is_made_anew(here: Process) -> None:
    """It is folded from its beginning, at once; its small numbers count more than the large ones before."""
    here.append(*(order(seq, f"k{seq}") for seq in range(2, 6)))
    await here.folding.turn()
    made_anew(here, order(2, "k5", gone=True), order(3, "k2"))
    here.follow()
    await here.folding.turn()
    assert await folded(here) == {"k2": 3, "k4": 4, "k3": 3}
    assert (await here.store.progress()).log == 2


async def test_a_log_made_anew_while_no_server_ran(here: Process, start: Start) -> None:
    """A process that finds another log noted than its own waits a turn, since its own may be the older one; then its own counts."""
    here.log.codec = make_codec(2)
    here.log.entries = [make_entry(1, codec=here.log.codec), order(2, "a")]
    other = await start("b")
    await here.lease.release()
    await other.folding.turn()
    assert (await other.store.progress()).epoch == EPOCH
    await other.folding.turn()
    assert (await other.store.progress()).epoch == here.log.codec.epoch
    assert await folded(other) == {"a": 2}


@pytest.mark.parametrize("name", ["find", "update", "findAndModify"])
async def test_the_log_is_made_anew_in_the_middle_of_it(name: str, here: Process, start: Start, database: FaultyDatabase) -> None:
    """What is being folded of the old one comes to nothing, and the next turn folds the new one."""
    here.append(order(2, "a"), order(3, "b"))
    other = await start("b")  # has to read the log
    await here.lease.release()
    await other.lease.take()
    held = Held()
    database.inject(name, held)
    turn = asyncio.create_task(other.folding.turn())
    await held.reached.wait()
    made_anew(other, order(2, "b"))
    other.follow()
    held.let_go.set()
    await turn
    await other.folding.turn()
    assert (await folded(other))["b"] == 2
    assert (await other.store.progress()).log == 2
    assert await progress(other) == 2


async def test_the_log_is_made_anew_while_news_are_written(here: Process, database: FaultyDatabase) -> None:
    """What came of the new one meanwhile stays to be folded."""
    here.append(order(2, "a"))
    held = Held()
    database.inject("update", held)
    turn = asyncio.create_task(here.folding.turn())
    await held.reached.wait()
    made_anew(here, order(2, "b"))
    here.follow()
    held.let_go.set()
    await turn
    assert len(here.overlay) == 2
    await here.folding.turn()
    assert await folded(here) == {"b": 2, "a": 2}


async def test_the_log_is_made_anew_once_more(here: Process, database: FaultyDatabase) -> None:
    """Just when it was noted that it is another one: the next turn notes that, too."""

    async def found(run: Run, command: Document) -> Document:
        return await run(command)

    made_anew(here)
    held = Held()
    database.inject("find", found)  # what is noted before
    database.inject("find", held)
    turn = asyncio.create_task(here.folding.turn())
    await held.reached.wait()
    made_anew(here, order(2, "a"), epoch=3)
    here.follow()
    held.let_go.set()
    await turn
    assert await folded(here) == {}
    await here.folding.turn()
    assert await folded(here) == {"a": 2}
    assert (await here.store.progress()).log == 3


async def test_the_log_is_made_anew_while_a_page_is_read(here: Process, start: Start, log: ListLog) -> None:
    """The page is of no use."""
    here.append(order(2, "a"))
    other = await start("b")
    await here.lease.release()
    log.hold_up()
    turn = asyncio.create_task(other.folding.turn())
    await wait_until(lambda: (1, PAGE_ENTRIES) in log.reads, "the page is read")
    made_anew(other, order(2, "b"))
    other.follow()
    log.go_on()
    await turn
    await other.folding.turn()
    assert await folded(other) == {"b": 2}


async def test_running(here: Process, monkeypatch: pytest.MonkeyPatch, database: FaultyDatabase) -> None:
    """Turn after turn until it is cancelled; then another process may go on at once."""
    monkeypatch.setattr("hub.folding.COMMIT_SECONDS", 0)
    async with running(here.folding.run()):
        here.append(order(2, "a"))
        await wait_until(lambda: not len(here.overlay), "it is folded")
        here.append(order(3, "b"))
        await wait_until(lambda: not len(here.overlay), "that too")
    assert await folded(here) == {"b": 3, "a": 2}
    assert await stored(database, "leases") == []


async def test_ending_while_mongodb_is_away(here: Process, database: FaultyDatabase) -> None:
    """It ends all the same; the lease is over by itself then."""
    async with running(here.folding.run()):
        await asyncio.sleep(0)  # it runs
        database.inject("delete", not_sent)
    assert database.injected()


@pytest.mark.parametrize("seed", range(6))
async def test_random_folding(seed: int, start: Start, log: ListLog, database: FaultyDatabase, expected_logs: list[str]) -> None:
    """Processes come, fold some, fail between any two writes, and go: in the end MongoDB has what an independent look at the log finds."""
    expected_logs.append(AWAY)
    dice = random.Random(seed)
    for number in range(8):
        process: Process = await start(f"p{number}")
        for _ in range(dice.randrange(1, 6)):
            seq = log.entries[-1].seq + 1
            users = ("u1", "u2")
            log.entries += [
                order(one, dice.choice("abcdef"), user=dice.choice(users), gone=dice.random() < 0.3) for one in range(seq, seq + 9)
            ]
            process.follow()
            if dice.random() < 0.5:
                database.inject("update", dice.choice((not_sent, answer_lost)))
            await process.folding.turn()
        if dice.random() < 0.8:
            await process.lease.release()
        else:  # it died: others wait until its lease is over
            await database.command({"delete": "leases", "deletes": [{"q": {}, "limit": 0}]})
    while not database.injected():
        process.append(order(log.entries[-1].seq + 1, "a"))
        await process.folding.turn()
    process.append(order(log.entries[-1].seq + 1, "b"))
    await process.folding.turn()
    for user in ("u1", "u2"):
        assert await folded(process, user) == independent(log.entries, user, 1000)
    assert await progress(process) == log.entries[-1].seq
