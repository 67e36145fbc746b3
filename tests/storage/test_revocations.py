"""Revocations: kept until nothing that they concern could hold, and only ever extended."""

from __future__ import annotations

import asyncio
import itertools
import math

import pytest

from storage.collection import BATCH_DOCUMENTS, LATEST_SECONDS, date_of
from storage.errors import Unavailable
from storage.revocations import RevocationStore
from storage.revoked import Revocation
from tests.storage.faults import Clock, FaultyDatabase, answer_lost, cursor_killed, indexes, plan


@pytest.fixture
async def store(database: FaultyDatabase, present: Clock) -> RevocationStore:
    store = RevocationStore(database, clock=present)
    await store.open()
    return store


async def insert(database: FaultyDatabase, count: int, now: float) -> None:
    """Keep many at once, as `add` keeps them, each lasting a second longer than the one before."""
    documents = [
        {"_id": f"token:{number}", "kind": "token", "id": str(number), "before": now, "until": date_of(now + 100 + number)}
        for number in range(count)
    ]
    await database.command({"insert": "revocations", "documents": documents})


async def test_what_is_revoked_is_in_force(store: RevocationStore, other_database: FaultyDatabase, present: Clock) -> None:
    """Each kind, in every process that starts later, those that last longest first."""
    now = present.now
    revoked = [
        Revocation("token", "j1", now, now + 40),
        Revocation("session", "s1", now + 0.25, now + 30),
        Revocation("user", "u1", now - 10.5, now + 20),
        Revocation("org", "u1", now, now + 10),
    ]
    for one in reversed(revoked):
        await store.add(one)
    assert await store.in_force() == revoked
    assert await RevocationStore(other_database, clock=present).in_force() == revoked


async def test_one_whose_time_is_over_is_not_in_force(store: RevocationStore, present: Clock) -> None:
    """To the millisecond, however long MongoDB takes to delete it."""
    await store.add(Revocation("user", "u1", present.now, present.now + 10))
    present.now += 9.999
    assert len(await store.in_force()) == 1
    present.now += 0.001
    assert await store.in_force() == []


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
async def test_of_several_the_later_times_count(store: RevocationStore, present: Clock, order: tuple[int, ...]) -> None:
    """In whatever order they come, and each time by itself."""
    now = present.now
    several = [
        Revocation("user", "u1", now, now + 10),
        Revocation("user", "u1", now + 5, now + 5),
        Revocation("user", "u1", now - 5, now + 7),
    ]
    for number in order:
        await store.add(several[number])
    assert await store.in_force() == [Revocation("user", "u1", now + 5, now + 10)]


async def test_many_that_revoke_the_same_at_once_are_one(store: RevocationStore, other_database: FaultyDatabase, present: Clock) -> None:
    """None is lost, and none is refused."""
    stores = (store, RevocationStore(other_database, clock=present))
    now = present.now
    await asyncio.gather(*(stores[n % 2].add(Revocation("org", "o1", now + n, now + 100 - n)) for n in range(16)))
    assert await store.in_force() == [Revocation("org", "o1", now + 15, now + 100)]


async def test_ids_are_taken_as_they_are(store: RevocationStore, present: Clock) -> None:
    """Whatever characters a name has, and however it looks together with its kind."""
    names = ["a:b", "$where", "a.b", "é", "x" * 5000]
    for name in names:
        await store.add(Revocation("user", name, present.now, present.now + 10))
    assert sorted(one.id for one in await store.in_force()) == sorted(names)


async def test_a_revocation_without_an_end_has_the_last_that_can_be_written(store: RevocationStore, present: Clock) -> None:
    """It comes back as a finite number, which JSON can hold."""
    await store.add(Revocation("user", "u1", present.now, math.inf))
    assert await store.in_force() == [Revocation("user", "u1", present.now, LATEST_SECONDS)]


@pytest.mark.parametrize(
    ("revoked", "message"),
    [
        (Revocation("role", "admin", 1, 2), "one of token, session, user, org, not 'role'"),
        (Revocation("user", "u1", math.nan, 2), "not nan"),
        (Revocation("user", "u1", math.inf, 2), "not inf"),
        (Revocation("user", "u1", 1, math.nan), "not NaN"),
    ],
)
async def test_what_is_no_revocation_is_refused(store: RevocationStore, revoked: Revocation, message: str) -> None:
    """A `before` that is infinite would refuse everything for ever."""
    with pytest.raises(ValueError, match=message):
        await store.add(revoked)
    assert await store.in_force() == []


async def test_all_are_read_however_many(store: RevocationStore, database: FaultyDatabase, present: Clock) -> None:
    """Batch by batch; by index, without sorting in memory."""
    await insert(database, 2 * BATCH_DOCUMENTS + 1, present.now)
    database.commands.clear()
    found = await store.in_force()
    assert [one.id for one in found] == [str(number) for number in reversed(range(2 * BATCH_DOCUMENTS + 1))]
    assert database.count("find", "revocations") == 1
    command = {name: value for name, value in database.commands[0].items() if name != "readConcern"}
    by_index = await plan(database, command)
    assert "IXSCAN" in by_index
    assert "'SORT'" not in by_index


async def test_beyond_the_limit_those_that_last_longest_are_known(
    store: RevocationStore, database: FaultyDatabase, present: Clock, expected_logs: list[str]
) -> None:
    """And it is said that there are more; at the limit nothing is."""
    await insert(database, 3, present.now)
    assert len(await store.in_force(limit=3)) == 3
    expected_logs.append("more than 2 revocations are in force")
    assert [one.id for one in await store.in_force(limit=2)] == ["2", "1"]


async def test_a_break_gives_nobody_half_of_them(store: RevocationStore, database: FaultyDatabase, present: Clock) -> None:
    """A process that knew only some would let the others' credentials in."""
    await insert(database, BATCH_DOCUMENTS + 1, present.now)
    database.inject("getMore", cursor_killed)
    with pytest.raises(Unavailable):
        await store.in_force()
    assert len(await store.in_force()) == BATCH_DOCUMENTS + 1


async def test_one_that_is_not_confirmed_is_added_again(store: RevocationStore, database: FaultyDatabase, present: Clock) -> None:
    """That changes nothing if it was kept already."""
    revoked = Revocation("user", "u1", present.now, present.now + 10)
    database.inject("findAndModify", answer_lost)
    with pytest.raises(Unavailable):
        await store.add(revoked)
    await store.add(revoked)
    assert await store.in_force() == [revoked]


async def test_mongodb_deletes_what_is_over(store: RevocationStore, database: FaultyDatabase) -> None:
    """By an index on its end; opening again changes nothing."""
    await store.open()
    assert (await indexes(database, "revocations"))["until"]["expireAfterSeconds"] == 0
