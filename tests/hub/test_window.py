"""Tests of hub/window.py: the newest entries, and no more bytes of them than the limit."""

from __future__ import annotations

import pytest

from hub.window import Window
from tests.hub.fakes import make_entries, make_entry


def test_new_window_covers_nothing() -> None:
    """Without entries there is nothing to read, from wherever."""
    assert not Window().covers(0)


def test_window_covers_what_follows_its_first_entry() -> None:
    """Every place from just before the first entry on can be read from."""
    window = Window()
    window.append(make_entries(5, 7))
    assert [window.covers(position) for position in (3, 4, 6, 7)] == [False, True, True, True]
    assert [entry.seq for entry in window.after(4, 2)] == [5, 6]
    assert [entry.seq for entry in window.after(6, 10)] == [7]
    assert window.after(7, 10) == []


def test_window_lets_go_of_the_oldest_beyond_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it holds stays within the limit, and what it lets go of is the oldest."""
    monkeypatch.setattr("hub.window.TRIM_ENTRIES", 2)
    window = Window(limit_bytes=5 * make_entry(1).size)
    for seq in range(1, 10):
        window.append([make_entry(seq)])
    held = [entry.seq for entry in window.after(8 - 4, 100)]
    assert held == [5, 6, 7, 8, 9]
    assert not window.covers(3)


def test_window_keeps_the_newest_entry_however_large() -> None:
    """One entry stays, even when it alone is more than the limit."""
    window = Window(limit_bytes=10)
    window.append(make_entries(1, 3))
    assert [entry.seq for entry in window.after(2, 10)] == [3]
    assert not window.covers(1)


def test_window_refuses_a_hole() -> None:
    """Entries that do not follow the newest are a defect of whoever adds them."""
    window = Window()
    window.append(make_entries(1, 2))
    with pytest.raises(AssertionError):
        window.append(make_entries(4, 4))


def test_cleared_window_takes_entries_from_anywhere() -> None:
    """After `clear` nothing is covered, and any entry may come next."""
    window = Window()
    window.append(make_entries(1, 2))
    window.clear()
    assert not window.covers(1)
    window.append(make_entries(10, 11))
    assert window.covers(9)
