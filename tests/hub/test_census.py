"""Tests of hub/census.py: who is connected, by every name by which one is looked for."""

from __future__ import annotations

import pytest

from hub.census import ENTITY, ORG, USER, Census
from hub.connection import Connection
from hub.formats import SSE
from hub.principal import ANONYMOUS, Principal
from tests.hub.fakes import ManualClock, RecordingSink
from tests.hub.test_connection import Owner

R1, R2 = "resource:stream/1", "resource:stream/2"


def connection(user: str = "u1", org: str | None = None, entity: str | None = None, owned: frozenset[str] = frozenset()) -> Connection:
    """Return a connection of this principal that owns these."""
    sink = RecordingSink(SSE, ManualClock())
    one = Connection("c", Principal(user, org, entity), SSE, sink, Owner())
    one.owned = owned
    return one


@pytest.mark.parametrize("count", [1, 2, 3])
def test_connections_are_found_by_each_of_their_names_in_the_order_in_which_they_came(count: int) -> None:
    """By user, organisation and entity, however many there are; and by none of them once they have left."""
    census = Census()
    every = [connection("u1", "o1", "e1") for _ in range(count)]
    other = connection("u2")
    for one in (*every, other):
        census.enter(one)
    for kind, name in ((USER, "u1"), (ORG, "o1"), (ENTITY, "e1")):
        assert census.of(kind, name) == every
        assert census.count(kind, name) == count
    assert census.users() == 2
    assert list(census.names(USER)) == ["u1", "u2"]
    assert list(census.names(ORG)) == ["o1"]
    for left, one in enumerate(every, 1):
        census.leave(one)
        assert census.of(USER, "u1") == every[left:]
    assert census.count(USER, "u1") == 0
    assert census.of(ORG, "o1") == census.of(ENTITY, "e1") == []
    assert census.users() == 1


@pytest.mark.parametrize("others", [0, 1, 2])
def test_leaving_twice_takes_nobody_else_away(others: int) -> None:
    """Whoever is not there has no effect on whoever is."""
    census = Census()
    stayed = [connection() for _ in range(others)]
    gone = connection()
    for one in (*stayed, gone):
        census.enter(one)
    census.leave(gone)
    census.leave(gone)
    assert census.of(USER, "u1") == stayed


def test_whoever_is_nobody_is_counted_under_no_name() -> None:
    """Anonymous connections are no user's, and so no limit of users is theirs."""
    census = Census()
    one = Connection("c", ANONYMOUS, SSE, RecordingSink(SSE, ManualClock()), Owner())
    census.enter(one)
    assert (census.users(), census.count(USER, "")) == (0, 0)
    census.leave(one)


def test_owners_are_found_by_what_they_own() -> None:
    """Also when that changes while they are connected."""
    census = Census()
    first, second = connection(owned=frozenset({R1})), connection("u2")
    census.enter(first)
    census.enter(second)
    assert census.owning(R1) == [first]
    census.own(second, frozenset({R1, R2}))
    assert second.owned == {R1, R2}
    assert (census.owning(R1), census.owning(R2)) == ([first, second], [second])
    census.own(first, frozenset())
    assert census.owning(R1) == [second]
    census.leave(second)
    assert census.owning(R1) == census.owning(R2) == []


def test_an_owners_audience_leads_to_its_connections() -> None:
    """`user:`, `org:` and `entity:` name somebody; every other audience names nobody who could own something."""
    census = Census()
    one = connection("u1", "o1", "e:1")
    census.enter(one)
    for audience in ("user:u1", "org:o1", "entity:e:1"):
        assert census.named(audience) == [one]
    for audience in ("user:o1", "public", R1, "u1"):
        assert census.named(audience) == []
