"""Ownership: whose a resource is, in which version, and who owns what."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from storage.collection import seconds_of
from storage.errors import Unavailable
from storage.mongo import Document
from storage.owned import Owned
from storage.ownership import PROBE_DOCUMENTS, Ownership
from tests.storage.faults import Clock, FaultyDatabase, Held, answer_lost, indexes, not_sent, plan, stored


@pytest.fixture
async def ownership(database: FaultyDatabase, present: Clock) -> Ownership:
    ownership = Ownership(database, clock=present)
    await ownership.open()
    database.commands.clear()
    return ownership


@pytest.fixture
async def others(other_database: FaultyDatabase, present: Clock) -> Ownership:
    """What another process has."""
    return Ownership(other_database, clock=present)


async def insert(database: FaultyDatabase, owners: Sequence[tuple[str, ...]]) -> None:
    """Make many resources at once, `stream/0` and so on."""
    documents = [{"_id": f"stream/{number}", "owners": list(names), "version": 1} for number, names in enumerate(owners)]
    await database.command({"insert": "ownership", "documents": documents})


def names_of(owned: Sequence[Owned]) -> list[str]:
    return sorted(one.resource for one in owned)


# --- changing owners ---


async def test_a_resource_gets_owners(ownership: Ownership, present: Clock) -> None:
    """Each once, in the order given; its version is the time in milliseconds."""
    owned = await ownership.set_owners("stream/42", ["user:u1", "org:o1", "user:u1"])
    assert owned == Owned("stream/42", ("user:u1", "org:o1"), int(present.now * 1000))
    assert await ownership.owners_of(["stream/42", "stream/43"]) == {"stream/42": owned}


async def test_new_owners_replace_the_old_ones(ownership: Ownership) -> None:
    """Nothing is left to those before."""
    await ownership.set_owners("stream/42", ["user:u1"])
    owned = await ownership.set_owners("stream/42", ["user:u2"])
    assert await ownership.owned_by(["user:u1"], 10) == []
    assert await ownership.owned_by(["user:u2"], 10) == [owned]


async def test_versions_grow_with_every_change(ownership: Ownership, present: Clock) -> None:
    """By one where the clock stands still or goes back, to its time where that is later."""
    now_ms = int(present.now * 1000)
    assert (await ownership.set_owners("stream/42", ["user:u1"])).version == now_ms
    assert (await ownership.set_owners("stream/42", ["user:u1"])).version == now_ms + 1
    present.now -= 3600
    assert (await ownership.set_owners("stream/42", ["user:u2"])).version == now_ms + 2
    present.now += 7200
    assert (await ownership.set_owners("stream/42", ["user:u3"])).version == now_ms + 3_600_000


async def test_changes_at_once_have_an_order(ownership: Ownership, others: Ownership) -> None:
    """All versions differ, and what is kept is the change with the highest."""
    changed = await asyncio.gather(*((ownership, others)[n % 2].set_owners("stream/42", [f"user:u{n}"]) for n in range(16)))
    assert len({one.version for one in changed}) == 16
    last = max(changed, key=lambda one: one.version)
    assert await ownership.owners_of(["stream/42"]) == {"stream/42": last}


async def test_a_resource_without_owners_is_as_if_it_did_not_exist(ownership: Ownership, database: FaultyDatabase, present: Clock) -> None:
    """But for a day its version is remembered, so that whoever makes it again does not fall behind."""
    now_ms = int(present.now * 1000)
    await ownership.set_owners("stream/42", ["user:u1"])
    assert await ownership.set_owners("stream/42", []) == Owned("stream/42", (), now_ms + 1)
    assert await ownership.owners_of(["stream/42"]) == {}
    assert await ownership.owned_by(["user:u1"], 10) == []
    (tombstone,) = await stored(database, "ownership")
    assert seconds_of(tombstone["expires"]) == present.now + 86_400
    assert await ownership.create("stream/42", ["user:u2"]) == Owned("stream/42", ("user:u2",), now_ms + 2)
    (document,) = await stored(database, "ownership")
    assert document == {"_id": "stream/42", "owners": ["user:u2"], "version": now_ms + 2}


async def test_one_that_was_never_known_may_lose_its_owners(ownership: Ownership) -> None:
    """It has a version then, and no owners."""
    assert (await ownership.set_owners("stream/42", [])).owners == ()
    assert await ownership.owners_of(["stream/42"]) == {}


async def test_mongodb_forgets_only_those_without_owners(ownership: Ownership, database: FaultyDatabase) -> None:
    """By an index on a field that the others do not have; opening again changes nothing."""
    await ownership.open()
    await ownership.set_owners("stream/42", ["user:u1"])
    assert (await indexes(database, "ownership"))["expires"]["expireAfterSeconds"] == 0
    assert "expires" not in (await stored(database, "ownership"))[0]


async def test_creating_gives_the_first_owners(ownership: Ownership, present: Clock) -> None:
    """What it returns is what is kept."""
    owned = await ownership.create("stream/42", ["user:u1", "user:u1"])
    assert owned == Owned("stream/42", ("user:u1",), int(present.now * 1000))
    assert await ownership.owners_of(["stream/42"]) == {"stream/42": owned}


async def test_creating_what_exists_changes_nothing(ownership: Ownership, present: Clock) -> None:
    """Neither its owners nor its version."""
    owned = await ownership.create("stream/42", ["user:u1"])
    present.now += 10
    assert await ownership.create("stream/42", ["user:u2"]) is None
    assert await ownership.owners_of(["stream/42"]) == {"stream/42": owned}


async def test_of_several_that_create_it_one_succeeds(ownership: Ownership, others: Ownership) -> None:
    """Also where it is one that lost its owners."""
    for resource in ("stream/new", "stream/old"):
        if resource == "stream/old":
            await ownership.set_owners(resource, [])
        created = await asyncio.gather(*((ownership, others)[n % 2].create(resource, [f"user:u{n}"]) for n in range(16)))
        (winner,) = [one for one in created if one is not None]
        assert await ownership.owners_of([resource]) == {resource: winner}


@pytest.mark.parametrize("owner", ["$owners", "$$NOW", "user:$$ROOT", "a.b"])
async def test_names_are_never_taken_for_expressions(ownership: Ownership, owner: str) -> None:
    """What looks like a field or a variable of MongoDB is a name."""
    owned = await ownership.set_owners("$version", [owner])
    assert owned.owners == (owner,)
    assert await ownership.create("stream/42", [owner]) is not None
    assert names_of(await ownership.owned_by([owner], 10)) == ["$version", "stream/42"]


async def test_what_makes_no_sense_is_refused(ownership: Ownership, database: FaultyDatabase) -> None:
    """Before anything is asked of MongoDB."""
    with pytest.raises(ValueError, match="name of a resource"):
        await ownership.set_owners("", ["user:u1"])
    with pytest.raises(ValueError, match="at least one owner"):
        await ownership.create("stream/42", [])
    with pytest.raises(ValueError, match="at most 1000 resources, not 1001"):
        await ownership.owners_of([f"stream/{number}" for number in range(1001)])
    assert database.commands == []


async def test_a_change_that_is_not_confirmed_is_made_again(ownership: Ownership, database: FaultyDatabase, present: Clock) -> None:
    """It has one more version then: nobody takes the repetition for something old."""
    database.inject("findAndModify", answer_lost)
    with pytest.raises(Unavailable):
        await ownership.set_owners("stream/42", ["user:u1"])
    assert (await ownership.set_owners("stream/42", ["user:u1"])).version == int(present.now * 1000) + 1


# --- who owns what ---


async def test_it_finds_what_any_of_the_names_owns(ownership: Ownership, database: FaultyDatabase) -> None:
    """Each resource once, though several of the names own it."""
    await insert(database, [("user:u1", "org:o1"), ("org:o1",), ("user:u2",), ("user:u1",)])
    ownership.noticed()
    assert names_of(await ownership.owned_by(["user:u1", "org:o1"], 10)) == ["stream/0", "stream/1", "stream/3"]
    assert names_of(await ownership.owned_by(["user:u1"], 10)) == ["stream/0", "stream/3"]
    assert names_of(await ownership.owned_by(["user:u2"], 10)) == ["stream/2"]
    assert await ownership.owned_by(["user:u3"], 10) == []
    assert await ownership.owned_by([], 10) == []


async def test_one_more_than_the_limit_shows_that_there_are_more(ownership: Ownership, database: FaultyDatabase) -> None:
    """At the limit all are returned."""
    await insert(database, [("user:u1",)] * 3 + [("org:o1",)])
    ownership.noticed()
    assert len(await ownership.owned_by(["user:u1"], 3)) == 3
    assert len(await ownership.owned_by(["user:u1"], 2)) == 3
    assert len(await ownership.owned_by(["user:u1", "org:o1"], 1)) == 2
    assert len(await ownership.owned_by(["user:u1", "org:o1"], 4)) == 4


async def test_many_that_ask_at_once_are_one_query(ownership: Ownership, database: FaultyDatabase) -> None:
    """Each gets its own, up to its own limit."""
    await insert(database, [(f"user:u{number}", "org:o1") for number in range(50)])
    ownership.noticed()
    database.commands.clear()
    asked = [ownership.owned_by([f"user:u{number}"], 1) for number in range(50)] + [ownership.owned_by(["org:o1"], 9)]
    *users, org = await asyncio.gather(*asked)
    assert [names_of(owned) for owned in users] == [[f"stream/{number}"] for number in range(50)]
    assert len(org) == 10
    assert database.count("find", "ownership") == 1


async def test_nobody_goes_short_for_somebody_who_owns_much(ownership: Ownership, database: FaultyDatabase) -> None:
    """Those who ask at the same moment as he does get all of theirs."""
    await insert(database, [("org:large",)] * (PROBE_DOCUMENTS + 10) + [("user:u1",), ("user:u1", "org:large")])
    ownership.noticed()
    large, small, none = await asyncio.gather(*(ownership.owned_by([name], 100) for name in ("org:large", "user:u1", "user:u2")))
    assert len(large) == 101
    assert names_of(small) == [f"stream/{PROBE_DOCUMENTS + 10}", f"stream/{PROBE_DOCUMENTS + 11}"]
    assert none == []


async def test_a_limit_beyond_what_one_query_looks_at_holds(ownership: Ownership, database: FaultyDatabase) -> None:
    """Whoever wants that many gets them."""
    await insert(database, [("org:large",)] * (PROBE_DOCUMENTS + 10))
    ownership.noticed()
    assert len(await ownership.owned_by(["org:large"], PROBE_DOCUMENTS + 20)) == PROBE_DOCUMENTS + 10
    assert len(await ownership.owned_by(["org:large"], PROBE_DOCUMENTS + 5)) == PROBE_DOCUMENTS + 6


async def test_looking_up_is_by_index(ownership: Ownership, database: FaultyDatabase) -> None:
    """By `_id` or by owner, never by looking at everything."""
    await ownership.set_owners("stream/42", ["user:u1"])
    database.commands.clear()
    await ownership.owners_of(["stream/42"])
    await ownership.owned_by(["user:u1"], 10)
    plans = [await plan(database, _explainable(command)) for command in database.commands[:2]]
    assert "_id_" in plans[0]
    assert "owners" in plans[1]
    assert all("IXSCAN" in one and "COLLSCAN" not in one for one in plans)


def _explainable(command: Document) -> Document:
    return {name: value for name, value in command.items() if name != "readConcern"}


async def test_a_break_reaches_all_who_asked(ownership: Ownership, database: FaultyDatabase) -> None:
    """Nobody is taken for somebody who owns nothing because MongoDB was away."""
    ownership.noticed()
    database.inject("find", not_sent)
    asked = (ownership.owned_by(["user:u1"], 1), ownership.owned_by(["user:u2"], 1))
    assert [type(one) for one in await asyncio.gather(*asked, return_exceptions=True)] == [Unavailable] * 2


# --- nothing there ---


async def test_where_there_is_no_resource_nobody_is_asked(ownership: Ownership, database: FaultyDatabase) -> None:
    """Until somebody in this process makes one."""
    assert await ownership.owned_by(["user:u1"], 10) == []
    assert await ownership.owners_of(["stream/42"]) == {}
    assert database.commands == []
    await ownership.create("stream/42", ["user:u1"])
    assert len(await ownership.owned_by(["user:u1"], 10)) == 1


async def test_what_another_process_made_is_found_once_it_was_noticed(ownership: Ownership, others: Ownership) -> None:
    """The log tells of it."""
    owned = await others.set_owners("stream/42", ["user:u1"])
    assert await ownership.owned_by(["user:u1"], 10) == []
    ownership.noticed()
    assert await ownership.owned_by(["user:u1"], 10) == [owned]
    assert await ownership.owners_of(["stream/42"]) == {"stream/42": owned}


async def test_before_it_was_opened_it_is_not_taken_for_empty(others: Ownership, ownership: Ownership) -> None:
    """Nobody has looked yet."""
    owned = await ownership.set_owners("stream/42", ["user:u1"])
    assert await others.owned_by(["user:u1"], 10) == [owned]


async def test_opening_again_sees_what_is_there(ownership: Ownership, others: Ownership) -> None:
    """Also what was never noticed."""
    owned = await others.set_owners("stream/42", ["user:u1"])
    await ownership.open()
    assert await ownership.owned_by(["user:u1"], 10) == [owned]


@pytest.mark.parametrize("act", ["set_owners", "noticed"])
async def test_what_comes_while_it_looks_is_not_overlooked(
    ownership: Ownership, others: Ownership, database: FaultyDatabase, act: str
) -> None:
    """The look saw nothing, and is older than what came."""
    held = Held()

    async def looked_before(run: object, command: Document) -> Document:
        reply = await run(command)  # type: ignore[operator]
        held.reached.set()
        await held.let_go.wait()
        return dict(reply)

    database.inject("find", looked_before)
    opening = asyncio.create_task(ownership.open())
    await held.reached.wait()
    if act == "set_owners":
        await ownership.set_owners("stream/42", ["user:u1"])
    else:
        await others.set_owners("stream/42", ["user:u1"])
        ownership.noticed()
    held.let_go.set()
    await opening
    assert names_of(await ownership.owned_by(["user:u1"], 10)) == ["stream/42"]


async def test_a_closed_one_answers_nothing_more(ownership: Ownership) -> None:
    """And leaves no task."""
    ownership.noticed()
    await ownership.close()
    with pytest.raises(Unavailable, match="stopping"):
        await ownership.owned_by(["user:u1"], 10)
    with pytest.raises(Unavailable, match="stopping"):
        await ownership.owners_of(["stream/42"])


async def test_versions_are_plain_numbers(ownership: Ownership) -> None:
    """Whoever passes an answer on must not meet a type of the driver's, which encoders refuse."""
    changed = await ownership.set_owners("stream/1", ["user:u1"])
    found = (await ownership.owners_of(["stream/1"]))["stream/1"]
    (owned,) = await ownership.owned_by(["user:u1"], 10)
    created = await ownership.create("stream/2", ["user:u1"])
    assert created is not None
    assert {type(one.version) for one in (changed, found, owned, created)} == {int}
