"""Folds: which events belong to which state, whose it is, and when there is nothing of a key any more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from channels.declaration import Snapshot
from hub.folds import Folds
from storage.entries import Entry
from tests.hub.fakes import FIRST_MS, make_entry


def is_closed(payload: Mapping[str, Any]) -> bool:
    """Tell whether nothing is left of it."""
    return int(payload["qty"]) == 0


ORDERS = Snapshot("orders", "user", ("order:update", "order:fill"))
POSITIONS = Snapshot("positions", "user", ("position:update",), ("tailcast.portfolio",), gone=is_closed)
PRICES = Snapshot("prices", "public", ("price:update",), keep_seconds=60, each=True)
FOLDS = Folds((ORDERS, POSITIONS, PRICES, ORDERS))


def said(*entries: Entry) -> list[tuple[str, str, str, int, bool]]:
    """Return what entries say of state."""
    return [(item.snapshot, item.owner, item.key, item.seq, item.gone) for item in FOLDS.items(entries)]


def test_events_of_a_state_belong_to_each_owner_among_their_audience() -> None:
    """In their order; audiences of another kind own nothing."""
    first = make_entry(1, type="order:update", key="o1", audience=["user:u1", "org:o", "user:u2", "resource:user/7"])
    second = make_entry(2, type="order:fill", key="o1", audience=["user:u1"])
    assert said(first, second) == [
        ("orders", "user:u1", "o1", 1, False),
        ("orders", "user:u2", "o1", 1, False),
        ("orders", "user:u1", "o1", 2, False),
    ]


def test_public_state_is_of_public_events() -> None:
    """Whatever else their audience is; what is for somebody only is not in it."""
    assert said(make_entry(1, type="price:update", key="AAPL", audience=["public", "user:u1"])) == [("prices", "public", "AAPL", 1, False)]
    assert said(make_entry(1, type="price:update", key="AAPL", audience=["user:u1", "publicity:x"])) == []


@pytest.mark.parametrize(
    "entry",
    [
        make_entry(1, type="other", key="o1", audience=["user:u1"]),
        make_entry(1, type="order:update", audience=["user:u1"]),
        make_entry(1, type="position:update", key="k", audience=["user:u1"], data='{"qty":"1"}', source="somebody"),
    ],
    ids=["another type", "no key", "another source"],
)
def test_everything_else_says_nothing(entry: Entry) -> None:
    """Of any state."""
    assert said(entry) == []


@pytest.mark.parametrize(
    ("data", "gone"), [('{"qty":"0"}', True), (' {"qty":"5"}', False), ('{"qty":"x"}', True), ("{}", True), ("{", True)]
)
def test_the_payload_says_whether_something_is_gone(data: str, gone: bool) -> None:
    """Of one that is not of its shape, from before it was declared, nothing is known."""
    found = said(make_entry(1, type="position:update", key="k", audience=["user:u1"], data=data, source="tailcast.portfolio"))
    assert found == [("positions", "user:u1", "k", 1, gone)]


def test_what_is_no_object_says_nothing() -> None:
    """Of a state that never goes, either."""
    assert said(make_entry(1, type="price:update", key="AAPL", data="[]")) == [("prices", "public", "AAPL", 1, True)]


def test_items_have_what_the_event_had() -> None:
    """And end, where state is not kept for good, so long after it was appended."""
    entry = make_entry(5, type="price:update", key="AAPL", data='{"price": 1.50}')
    (item,) = FOLDS.items([entry])
    assert (item.type, item.id, item.data, item.ms) == (entry.type, entry.id, entry.data, entry.ms)
    assert item.expires == (FIRST_MS + 5) / 1000 + 60
    (order,) = FOLDS.items([make_entry(6, type="order:update", key="o", audience=["user:u"])])
    assert order.expires is None


def test_an_event_can_belong_to_several_states() -> None:
    """Each in its own way."""
    folds = Folds([Snapshot("mine", "user", ("t", "t")), Snapshot("everybody's", "public", ("t",))])
    entry = make_entry(1, type="t", key="k", audience=["user:u", "public"])
    assert [(item.snapshot, item.owner) for item in folds.items([entry])] == [("mine", "user:u"), ("everybody's", "public")]
    assert folds.names == ("mine", "everybody's")


@pytest.mark.parametrize("other", [Snapshot("orders", "org", ("order:update",)), Snapshot("a/b", "user", ("t",)), Snapshot("", "user", ())])
def test_names_tell_states_apart(other: Snapshot) -> None:
    """Two states of one name, and names that could be mixed up, are refused."""
    with pytest.raises(ValueError, match="snapshot"):
        Folds((ORDERS, other))
