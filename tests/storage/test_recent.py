"""Tests of storage/recent.py: the last events of some audiences and types, and what it costs to find them."""

from __future__ import annotations

import pytest

from storage.entries import Entry, NewEvent
from storage.errors import CommandFailed, Unavailable
from storage.log import Log
from storage.mongo import Document
from storage.positions import Position
from storage.recent import RecentEvents, Wanted, recent_index
from tests.storage.faults import Clock, FaultyDatabase, Run, not_sent

TYPES = ("alert", "order", "fill")
EVERY = ((frozenset(TYPES), frozenset[str]()),)
LATE = Position(1 << 40, 0)


def wanted(
    *audiences: str,
    selections: tuple[tuple[frozenset[str], frozenset[str]], ...] = EVERY,
    keys: tuple[str, ...] = (),
    since_ms: int = 0,
    limit: int = 100,
) -> Wanted:
    """Return what is asked for."""
    return Wanted(frozenset(audiences), selections, frozenset(keys), since_ms, limit)


def event(type: str, *audience: str, source: str | None = None, key: str | None = None, n: int = 0) -> NewEvent:
    """Return an event."""
    return NewEvent("t", type, audience, f"{n}", source=source, key=key)


def data(entries: list[Entry]) -> list[str]:
    """Return what the entries say."""
    return [one.data for one in entries]


@pytest.fixture
async def log(database: FaultyDatabase, clock: Clock) -> Log:
    """A log with the index."""
    log = Log(database, clock=clock, size_bytes=1 << 20, indexes=[recent_index(TYPES)])
    await log.open()
    return log


async def insert(log: Log, first: int, *events: NewEvent) -> None:
    """Put events into the log under numbers from `first` on, each appended at ten times its number."""
    await log.insert([{**one.document(), "_id": seq, "ms": seq * 10, "append": 1} for seq, one in enumerate(events, first)])


async def test_they_are_the_newest_of_these_audiences_and_types_oldest_first(log: Log) -> None:
    """Each once, also if it is for several of the audiences; nobody else's, no other types, and no more than wanted."""
    recent = RecentEvents(log, TYPES)
    await insert(
        log,
        2,
        event("order", "user:u1", n=2),
        event("order", "user:u2", n=3),
        event("fill", "public", "user:u1", n=4),
        event("price", "user:u1", n=5),
        event("alert", "public", n=6),
    )
    assert data(await recent.events(wanted("user:u1", "public"), LATE)) == ["2", "4", "6"]
    assert data(await recent.events(wanted("user:u1", "public", limit=2), LATE)) == ["4", "6"]
    assert data(await recent.events(wanted("user:u2"), LATE)) == ["3"]
    assert await recent.events(wanted("user:u3"), LATE) == []


async def test_they_are_within_a_time_and_before_a_place(log: Log) -> None:
    """Both ends count."""
    recent = RecentEvents(log, TYPES)
    await insert(log, 2, *(event("order", "user:u1", n=n) for n in range(2, 8)))
    assert data(await recent.events(wanted("user:u1", since_ms=40), Position(6, 0))) == ["4", "5", "6"]


async def test_several_selections_are_put_together(log: Log) -> None:
    """Some types from some sources only, the others from any; and by key."""
    recent = RecentEvents(log, TYPES)
    await insert(
        log,
        2,
        event("order", "public", source="s1", key="k1", n=2),
        event("order", "public", source="s2", key="k2", n=3),
        event("alert", "public", source="s2", n=4),
        event("fill", "public", source="s1", n=5),
    )
    parts = ((frozenset({"order"}), frozenset({"s1", "s3"})), (frozenset({"alert"}), frozenset[str]()))
    assert data(await recent.events(wanted("public", selections=parts), LATE)) == ["2", "4"]
    assert data(await recent.events(wanted("public", keys=("k1", "k3")), LATE)) == ["2"]


async def test_they_are_found_without_looking_at_others(log: Log, database: FaultyDatabase) -> None:
    """By the index, from the newest on, however many entries the log has: some keys are looked at for each that is found."""
    recent = RecentEvents(log, TYPES)
    await insert(log, 2, *(event(TYPES[n % 3] if n % 2 else "price", f"user:u{n % 20}", n=n) for n in range(2, 2000)))
    parts = ((frozenset({"order", "fill"}), frozenset[str]()),)
    assert len(await recent.events(wanted("user:u1", "user:u3", "public", selections=parts, limit=10), LATE)) == 10
    find = next(command for command in reversed(database.commands) if "find" in command and "hint" in command)
    explained = await database.command({"explain": find, "verbosity": "executionStats"})
    counted = explained["executionStats"]
    assert counted["totalDocsExamined"] == 10
    assert counted["totalKeysExamined"] < 60


async def test_other_types_cost_nothing(log: Log, database: FaultyDatabase) -> None:
    """They are not in the index."""
    await insert(log, 2, *(event("price", "public", n=n) for n in range(2, 20)), event("order", "public"))
    name = recent_index(TYPES)["name"]
    found = await database.command({"validate": log.name})
    assert found["keysPerIndex"][name] == 1


async def test_the_index_of_other_types_is_dropped(log: Log, clock: Clock, expected_logs: list[str]) -> None:
    """A newer server makes its own; an older one that still runs finds nothing rather than reading the whole log."""
    await insert(log, 2, event("order", "public", n=2))
    await log.database.command({"createIndexes": log.name, "indexes": [{"key": {"topic": 1}, "name": "of_an_operator"}]})
    newer = Log(log.database, clock=clock, size_bytes=1 << 20, indexes=[recent_index(("order",))])
    await newer.open()
    indexes = (await log.database.command({"listIndexes": log.name}))["cursor"]["firstBatch"]
    names = {index["name"] for index in indexes}
    assert names == {"_id_", "published", "of_an_operator", recent_index(("order",))["name"]}
    assert data(await RecentEvents(newer, ("order",)).events(wanted("public"), LATE)) == ["2"]
    expected_logs.append("last events cannot be found")
    assert await RecentEvents(log, TYPES).events(wanted("public"), LATE) == []


async def test_other_errors_are_not_hidden(log: Log, database: FaultyDatabase) -> None:
    """MongoDB away, or a refusal for another reason."""
    recent = RecentEvents(log, TYPES)

    async def refused(run: Run, command: Document) -> Document:
        raise CommandFailed("refused", 13)

    for fault, error in ((not_sent, Unavailable), (refused, CommandFailed)):
        database.inject("find", fault, "hint")
        with pytest.raises(error):
            await recent.events(wanted("public"), LATE)
