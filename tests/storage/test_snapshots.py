"""State in MongoDB: the newest event of each key stays, whoever writes, in whatever order and however often."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable

import pytest

from storage.errors import CommandFailed, Unavailable
from storage.items import Item
from storage.snapshots import WRITE_BYTES, WRITES, Progress, Reading, SnapshotStore, Wanted
from tests.storage.faults import Clock, FaultyDatabase, Held, answer_lost, indexes, plan, stored
from tests.storage.test_items import make_item, same

EPOCH, OTHER = b"\x00\x00\x00\x01", b"\x00\x00\x00\x02"
NAMES = ("orders", "prices")


async def opened(database: FaultyDatabase, clock: Clock) -> SnapshotStore:
    """Return the state as a process sees it."""
    store = SnapshotStore(database, clock=clock)
    await store.open()
    return store


@pytest.fixture
async def a(database: FaultyDatabase, present: Clock) -> SnapshotStore:
    return await opened(database, present)


@pytest.fixture
async def b(other_database: FaultyDatabase, present: Clock) -> SnapshotStore:
    return await opened(other_database, present)


def mine(limit: int = 100, keys: tuple[str, ...] | None = None, owner: str = "user:u1") -> Wanted:
    """Return what somebody wants of an owner's orders."""
    return Wanted("orders", owner, limit, keys)


def brief(items: Iterable[Item]) -> list[tuple[str, int]]:
    """Return keys and numbers, in order."""
    return [(item.key, item.seq) for item in items]


async def found(store: SnapshotStore, wanted: Wanted) -> list[tuple[str, int]]:
    """Return keys and numbers of what is read."""
    return brief((await store.read(wanted)).items)


async def test_what_is_committed_is_read_newest_first(a: SnapshotStore) -> None:
    """With all that it says, and the progress."""
    log = await a.enter(EPOCH)
    items = [make_item("x", 3, data='{"a" : 1.50}', expires=2e9), make_item("y", 7), make_item("z", 5, owner="user:u2")]
    await a.commit(log, items, NAMES, 9)
    reading = await a.read(mine())
    assert reading.progress == Progress(EPOCH, 1, {"orders": 9, "prices": 9})
    assert [same(item) for item in reading.items] == [same(items[1]), same(items[0])]
    await a.close()


async def test_nothing_yet(a: SnapshotStore) -> None:
    """Without any log nothing is folded, and there is nothing."""
    assert await a.read(mine()) == Reading(Progress(b"", 0, {}), [])
    assert (await a.progress()).of(NAMES) == 0
    await a.close()


async def test_progress_of_several_is_that_of_the_last(a: SnapshotStore) -> None:
    """A snapshot that was never folded holds them all back; of none there is nothing to wait for."""
    await a.commit(await a.enter(EPOCH), [], ["orders"], 9)
    progress = await a.progress()
    assert (progress.of(["orders"]), progress.of(NAMES), progress.of([])) == (9, 0, 0)


async def test_at_most_so_many_of_each_owner(a: SnapshotStore) -> None:
    """The newest ones, whatever others have."""
    log = await a.enter(EPOCH)
    await a.commit(log, [make_item(str(n), n, owner=f"user:u{n % 2}") for n in range(1, 21)], NAMES, 20)
    assert await found(a, mine(3, owner="user:u0")) == [("20", 20), ("18", 18), ("16", 16)]
    assert await found(a, mine(2, owner="user:u1")) == [("19", 19), ("17", 17)]
    await a.close()


async def test_some_keys_only(a: SnapshotStore) -> None:
    """Those that are there, newest first, each once."""
    log = await a.enter(EPOCH)
    await a.commit(log, [make_item("x", 1), make_item("y", 2), make_item("z", 3)], NAMES, 3)
    assert await found(a, mine(keys=("x", "z", "no", "x"))) == [("z", 3), ("x", 1)]
    assert await found(a, mine(keys=())) == []
    await a.close()


async def test_order_and_repetition_do_not_matter(a: SnapshotStore, b: SnapshotStore) -> None:
    """Two processes write the same events in any order, in any pieces, more than once: each key has its newest one."""
    dice = random.Random(4)
    log = await a.enter(EPOCH)
    assert await b.enter(EPOCH) == log
    events = [
        make_item(f"k{dice.randrange(12)}", seq, owner=f"user:u{dice.randrange(3)}", gone=dice.random() < 0.3) for seq in range(1, 121)
    ]
    writes = [[dice.choice(events) for _ in range(dice.randrange(1, 30))] for _ in range(30)] + [events[:60], events[60:]]
    dice.shuffle(writes)
    await asyncio.gather(*(dice.choice((a, b)).commit(log, write, NAMES, write[-1].seq) for write in writes))
    for owner in ("user:u0", "user:u1", "user:u2"):
        newest = {event.key: event for event in events if event.owner == owner}
        expected = sorted(((item.key, item.seq) for item in newest.values() if not item.gone), key=lambda one: -one[1])
        assert await found(b, mine(owner=owner)) == expected
    assert (await b.progress()).folded == {"orders": 120, "prices": 120}, "it never goes back"
    await a.close()
    await b.close()


async def test_another_log_is_newer_whatever_its_numbers(a: SnapshotStore, b: SnapshotStore) -> None:
    """What the old log said stays until the new one says otherwise; what is late from the old log changes nothing any more."""
    old = await a.enter(EPOCH)
    await a.commit(old, [make_item("x", 50), make_item("y", 60)], NAMES, 60)
    new = await b.enter(OTHER)
    assert new == old + 1
    assert (await b.progress()) == Progress(OTHER, new, {})
    await b.commit(new, [make_item("x", 2)], NAMES, 3)
    await a.commit(old, [make_item("x", 70)], NAMES, 70)
    assert await found(b, mine()) == [("x", 2), ("y", 60)]
    assert (await b.progress()).of(NAMES) == 3
    await b.close()


async def test_every_process_counts_logs_alike(a: SnapshotStore, b: SnapshotStore) -> None:
    """However many enter the same one, and however often."""
    assert set(await asyncio.gather(a.enter(EPOCH), b.enter(EPOCH), a.enter(EPOCH))) == {1}
    assert await b.enter(OTHER) == 2
    assert await a.enter(OTHER) == 2


async def test_what_is_gone_stays_gone(a: SnapshotStore, database: FaultyDatabase, present: Clock) -> None:
    """Nothing older brings it back, something newer does; and MongoDB forgets it some time."""
    log = await a.enter(EPOCH)
    await a.commit(log, [make_item("x", 5, gone=True)], NAMES, 5)
    await a.commit(log, [make_item("x", 4)], NAMES, 4)
    assert await found(a, mine()) == []
    assert await found(a, mine(keys=("x",))) == []
    assert (await stored(database, "snapshots"))[0]["expires"] is not None
    assert (await indexes(database, "snapshots"))["expires"]["expireAfterSeconds"] == 0
    await a.commit(log, [make_item("x", 6)], NAMES, 6)
    assert await found(a, mine()) == [("x", 6)]
    assert "expires" not in (await stored(database, "snapshots"))[0]
    await a.close()


async def test_a_crash_between_items_and_progress(a: SnapshotStore, database: FaultyDatabase) -> None:
    """The progress does not say what is not sure; the next one does the same again."""
    log = await a.enter(EPOCH)
    database.inject("update", answer_lost)
    with pytest.raises(Unavailable):
        await a.commit(log, [make_item("x", 5)], NAMES, 5)
    assert (await a.progress()).of(NAMES) == 0
    await a.commit(log, [make_item("x", 5)], NAMES, 5)
    assert await found(a, mine()) == [("x", 5)]
    assert (await a.progress()).of(NAMES) == 5
    await a.close()


async def test_many_items_are_several_commands(a: SnapshotStore, database: FaultyDatabase) -> None:
    """Each of bounded length, in items and in bytes; the progress comes after all of them."""
    log = await a.enter(EPOCH)
    await a.commit(log, [make_item(str(n), n) for n in range(1, WRITES + 2)], NAMES, 2000)
    assert (database.count("update", "snapshots"), database.count("update", "snapshot_progress")) == (2, 1)
    large = "x" * (WRITE_BYTES // 7)
    await a.commit(log, [make_item(f"large {n}", 3000 + n, data=large) for n in range(3)], NAMES, 4000)
    assert database.count("update", "snapshots") == 4
    assert len((await a.read(mine(5000))).items) == WRITES + 4
    await a.close()


async def test_what_is_refused_is_an_error(a: SnapshotStore, database: FaultyDatabase) -> None:
    """And the progress does not pass it."""
    log = await a.enter(EPOCH)
    await database.command({"collMod": "snapshots", "validator": {"key": {"$ne": "x"}}})
    with pytest.raises(CommandFailed):
        await a.commit(log, [make_item("x", 1)], NAMES, 1)
    assert (await a.progress()).of(NAMES) == 0


async def test_a_thousand_readers_are_a_few_queries(a: SnapshotStore, database: FaultyDatabase) -> None:
    """Whether they want the newest or some keys; each gets what is his own, and all are found by index."""
    log = await a.enter(EPOCH)
    await a.commit(log, [make_item("x", n, owner=f"user:u{n}") for n in range(1000)], NAMES, 1000)
    before = len(database.commands)
    readings = await asyncio.gather(*(a.read(mine(owner=f"user:u{n}", keys=("x",) if n % 3 == 0 else None)) for n in range(1000)))
    assert [brief(reading.items) for reading in readings] == [[("x", n)] for n in range(1000)]
    assert len(database.commands) - before < 20
    aggregate = next(command for command in reversed(database.commands) if "aggregate" in command)
    pipeline = aggregate["pipeline"][1]["$lookup"]["pipeline"]
    found_by = {"find": "snapshots", "filter": {"group": "orders/user:u1", **pipeline[0]["$match"]}, "sort": pipeline[1]["$sort"]}
    how = await plan(database, found_by)
    assert "COLLSCAN" not in how
    assert "'SORT'" not in how, "the index has them in this order"
    await a.close()


async def test_progress_is_read_before_the_items(a: SnapshotStore, b: SnapshotStore, database: FaultyDatabase) -> None:
    """What is committed in between is newer than the progress says, never missing without being so."""
    log = await a.enter(EPOCH)
    await a.commit(log, [make_item("x", 1)], NAMES, 1)
    held = Held()
    database.inject("aggregate", held)
    reading = asyncio.create_task(a.read(mine()))
    await held.reached.wait()
    await b.commit(log, [make_item("x", 2)], NAMES, 2)
    held.let_go.set()
    progress, items = await reading
    assert (progress.of(NAMES), brief(items)) == (1, [("x", 2)])
    await a.close()


async def test_closing_refuses_readers(a: SnapshotStore) -> None:
    """Nobody waits for what does not come."""
    await a.close()
    with pytest.raises(Unavailable):
        await a.read(mine())
