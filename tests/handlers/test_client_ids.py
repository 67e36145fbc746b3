"""Tests of handlers/client_ids.py: names that tell whose a connection is, and that no other one has."""

from __future__ import annotations

from handlers.client_ids import REMEMBERED, ClientIds
from tests.hub.fakes import ManualClock


def test_a_name_says_whose_where_and_since_when() -> None:
    """The user, the channel, and milliseconds since 1970 (D1); who came without a credential has no name of his own."""
    clock = ManualClock()
    ids = ClientIds(clock.time)
    ms = int(clock.time() * 1000)
    assert ids.make("u1", "orders") == f"u1-orders-{ms}"
    assert ids.make("", "prices") == f"anonymous-prices-{ms}"


def test_no_two_are_alike() -> None:
    """However many are given within a millisecond, also when the clock is put back, and where the parts could be cut elsewhere."""
    clock = ManualClock()
    ids = ClientIds(clock.time)
    given = [ids.make("u1", "orders") for _ in range(5)]
    clock.now -= 0.003
    given += [ids.make(*one) for one in (("u1", "orders"), ("u1-ai", "decisions"), ("u1", "ai-decisions")) for _ in range(5)]
    assert len(set(given)) == len(given)


def test_what_is_remembered_is_bounded() -> None:
    """Whoever was given a name long ago is forgotten, and gets another one all the same."""
    clock = ManualClock()
    ids = ClientIds(clock.time)
    first = ids.make("u1", "orders")
    for number in range(REMEMBERED):
        ids.make(f"v{number}", "orders")
    assert len(ids._last) == REMEMBERED
    clock.now += 0.001
    assert ids.make("u1", "orders") != first
