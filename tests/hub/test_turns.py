"""Tests of hub/turns.py: in turn by user."""

from __future__ import annotations

import pytest

from hub.connection import Connection
from hub.formats import SSE
from hub.hub import Hub
from hub.principal import Principal
from hub.turns import Turns
from tests.hub.fakes import ListLog, ManualClock, RecordingSink


def connections(*users: str) -> list[Connection]:
    """Return a connection of each of these users."""
    clock = ManualClock()
    hub = Hub(ListLog(), clock)
    return [Connection(f"c{number}", Principal(user), SSE, RecordingSink(SSE, clock), hub) for number, user in enumerate(users)]


def test_users_come_in_turn_however_many_connections_they_have() -> None:
    """Of one user's connections it is the first that came; a user who has had a turn is the last."""
    turns: Turns[int] = Turns()
    busy1, busy2, busy3, other = connections("busy", "busy", "busy", "other")
    for number, one in enumerate((busy1, busy2, busy3, other)):
        turns.put(one, number)
    assert [turns.take() for _ in range(3)] == [(busy1, 0), (other, 3), (busy2, 1)]
    turns.put(busy1, 4)
    turns.put(other, 5)
    assert [turns.take() for _ in range(3)] == [(busy3, 2), (other, 5), (busy1, 4)]
    assert not turns


def test_who_waits_keeps_its_place() -> None:
    """With what it has in hand now."""
    turns: Turns[str] = Turns()
    first, second = connections("a", "a")
    turns.put(first, "old")
    turns.put(second, "page")
    turns.put(first, "new")
    assert turns
    assert first in turns
    assert [turns.take(), turns.take()] == [(first, "new"), (second, "page")]
    with pytest.raises(KeyError):
        turns.take()


def test_nobody_waits_after_clear() -> None:
    """Nor has anybody a place from before."""
    turns: Turns[None] = Turns()
    (one,) = connections("a")
    turns.put(one, None)
    turns.clear()
    assert not turns
    assert one not in turns
