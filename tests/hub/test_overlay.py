"""The overlay: the newest of each key between what is folded and the head, bounded, and kept while somebody needs it."""

from __future__ import annotations

import asyncio
import random

import pytest

from channels.declaration import Snapshot
from hub.folds import Folds
from hub.overlay import Overlay
from storage.entries import Entry
from storage.items import Item
from tests.hub.fakes import make_entry, turns

EPOCH, OTHER = b"\x00\x00\x00\x01", b"\x00\x00\x00\x02"
FOLDS = Folds(
    [Snapshot("orders", "user", ("order",), gone=lambda payload: bool(payload.get("gone"))), Snapshot("prices", "public", ("price",))]
)
MINE = ("orders", "user:u1")
PUBLIC = ("prices", "public")


def order(seq: int, key: str, *, owner: str = "user:u1", gone: bool = False) -> Entry:
    """Return an entry about an order."""
    return make_entry(seq, type="order", key=key, audience=[owner], data='{"gone":true}' if gone else "{}")


def price(seq: int, key: str) -> Entry:
    """Return an entry about a price."""
    return make_entry(seq, type="price", key=key)


def overlay_at(head: int, *entries: Entry, most: int = 1000) -> Overlay:
    """Return an overlay that began at a place, and these entries came."""
    overlay = Overlay(FOLDS, most=most)
    overlay.start(EPOCH, head)
    for entry in entries:
        overlay.receive([entry])
    return overlay


def numbers(items: dict[str, Item] | None) -> dict[str, int] | None:
    """Return the numbers of items by key."""
    return None if items is None else {key: item.seq for key, item in items.items()}


def test_it_has_the_newest_of_each_key() -> None:
    """By owner, what is gone too; everything else only moves the head."""
    overlay = overlay_at(10, order(11, "a"), order(12, "b", owner="user:u2"), make_entry(13), order(14, "a", gone=True), order(15, "c"))
    assert numbers(overlay.newest(MINE)) == {"a": 14, "c": 15}
    assert overlay.newest(MINE)["a"].gone
    assert numbers(overlay.newest(("orders", "user:u3"))) == {}
    assert (overlay.floor, overlay.head, len(overlay)) == (10, 15, 3)
    assert [item.seq for item in overlay.after(12)] == [14, 15]


def test_what_is_folded_is_let_go() -> None:
    """Up to there, and never beyond what was seen here."""
    overlay = overlay_at(10, order(11, "a"), order(12, "b"), order(13, "a"))
    overlay.trim(12)
    assert (overlay.floor, numbers(overlay.newest(MINE))) == (12, {"a": 13})
    overlay.trim(11)
    assert overlay.floor == 12
    overlay.trim(99)
    assert (overlay.floor, len(overlay), overlay.newest(MINE)) == (13, 0, {})


def test_what_somebody_reads_is_kept() -> None:
    """As long as the pin is held, from where it is."""
    overlay = overlay_at(10, order(11, "a"), order(12, "b"))
    pin = overlay.pin()
    overlay.trim(12)
    assert (overlay.floor, len(overlay)) == (10, 2)
    pin.seq = 11
    overlay.trim(12)
    assert (overlay.floor, len(overlay)) == (11, 1)
    del pin
    overlay.trim(12)
    assert (overlay.floor, len(overlay)) == (12, 0)


def test_it_is_bounded() -> None:
    """Beyond the bound the oldest leave it, and it does not reach back so far any more; the same key again takes no more room."""
    overlay = overlay_at(10, *(order(seq, str(seq)) for seq in range(11, 16)), most=3)
    assert (overlay.floor, numbers(overlay.newest(MINE))) == (12, {"13": 13, "14": 14, "15": 15})
    overlay.receive([order(16, "15"), order(17, "15")])
    assert (overlay.floor, len(overlay)) == (12, 3)


def test_it_can_be_extended_back() -> None:
    """With entries that were read from the log; what is newer here stays."""
    overlay = overlay_at(10, order(11, "a"), order(12, "b"))
    older = [order(7, "c"), order(8, "a"), order(9, "d", owner="user:u2"), order(10, "c", gone=True)]
    assert overlay.extend(FOLDS.items(older), 5)
    assert (overlay.floor, numbers(overlay.newest(MINE))) == (5, {"c": 10, "a": 11, "b": 12})
    assert numbers(overlay.newest(("orders", "user:u2"))) == {"d": 9}
    overlay.trim(9)
    assert overlay.newest(("orders", "user:u2")) == {}
    assert [item.seq for item in overlay.after(9)] == [10, 11, 12]


def test_it_is_not_extended_beyond_its_bound() -> None:
    """It stays as it was then."""
    overlay = overlay_at(10, order(11, "a"), most=3)
    assert not overlay.extend(FOLDS.items(order(seq, str(seq)) for seq in range(1, 11)), 0)
    assert (overlay.floor, len(overlay)) == (10, 1)


def test_state_that_is_kept_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of the head, oldest first, without what is gone, and bounded, whatever is folded meanwhile."""
    monkeypatch.setattr("hub.overlay.MOST_KEPT", 3)
    overlay = overlay_at(10, price(11, "x"))
    assert overlay.kept(PUBLIC) is None
    overlay.keep(PUBLIC, FOLDS.items([price(3, "w"), price(11, "x")]))
    overlay.receive([price(12, "y"), price(13, "w")])
    overlay.trim(13)
    assert numbers(overlay.kept(PUBLIC)) == {"x": 11, "y": 12, "w": 13}
    overlay.receive([price(14, "z")])
    assert numbers(overlay.kept(PUBLIC)) == {"y": 12, "w": 13, "z": 14}
    overlay.keep(MINE, FOLDS.items([order(4, "a"), order(5, "b")]))
    overlay.receive([order(15, "a", gone=True), order(16, "never seen", gone=True)])
    assert numbers(overlay.kept(MINE)) == {"b": 5}


def test_after_a_hole_it_begins_again() -> None:
    """What was read before is of no use, and what is kept has the hole in it too."""
    overlay = overlay_at(10, order(11, "a"))
    overlay.keep(PUBLIC, [])
    era = overlay.era
    overlay.lose(20)
    assert (overlay.epoch, overlay.former, overlay.floor, overlay.head, len(overlay)) == (EPOCH, None, 20, 20, 0)
    assert overlay.era != era
    assert overlay.kept(PUBLIC) is None


def test_in_another_log_it_begins_again() -> None:
    """And knows which one it was before."""
    overlay = overlay_at(10, order(11, "a"))
    overlay.start(OTHER, 0)
    assert (overlay.epoch, overlay.former, overlay.floor, overlay.head, len(overlay)) == (OTHER, EPOCH, 0, 0, 0)


async def test_waiting_for_a_place() -> None:
    """Whoever waits goes on when the head is there, or when there is nothing to wait for any more; who gives up is forgotten."""
    overlay = overlay_at(10)
    await overlay.reach(10)
    near, far, given_up = (asyncio.create_task(overlay.reach(seq)) for seq in (11, 12, 13))
    await turns()
    given_up.cancel()
    overlay.receive([make_entry(11)])
    await turns()
    assert (near.done(), far.done(), given_up.cancelled()) == (True, False, True)
    overlay.lose(11)
    await far


def test_it_agrees_with_looking_at_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random entries, folded up to random places, with a small bound: it has exactly the newest of each key after its floor."""
    dice = random.Random(7)
    for _ in range(50):
        monkeypatch.setattr("hub.overlay.MOST_PENDING", dice.choice((1, 5, 1000)))
        overlay = overlay_at(0, most=dice.randrange(3, 12))
        entries: list[Entry] = []
        for seq in range(1, 60):
            entries.append(order(seq, dice.choice("abcdefghij"), owner=f"user:u{dice.randrange(3)}", gone=dice.random() < 0.2))
            overlay.receive(entries[-1:])
            if dice.random() < 0.1:
                overlay.trim(dice.randrange(seq + 1))
            if dice.random() < 0.1:
                since = dice.randrange(overlay.floor + 1)
                overlay.extend(FOLDS.items(entries[since : overlay.floor]), since)
            if dice.random() < 0.5:
                continue  # nobody looks
            newest = {(item.owner, item.key): item.seq for item in FOLDS.items(entries[overlay.floor :])}
            assert {(item.owner, item.key): item.seq for item in overlay.after(overlay.floor)} == newest
            for owner in ("user:u0", "user:u1", "user:u2"):
                assert numbers(overlay.newest(("orders", owner))) == {key: seq for (one, key), seq in newest.items() if one == owner}
