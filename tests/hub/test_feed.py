"""The feed: what is wanted of the tail, without a hole, or else a place from which to read the log."""

from __future__ import annotations

from hub.feed import Feed, Several
from storage.entries import Entry
from storage.positions import Position
from tests.hub.fakes import make_entry, place_of

PRICE = "price"


def feed(most: int = 10, head: int = 5) -> Feed:
    """Return a feed that listens, of a log with so many entries."""
    feed = Feed({PRICE}, without="own", most=most)
    feed.start(place_of(head))
    feed.listen()
    assert feed.changed.is_set()  # it has begun
    feed.take(0)
    return feed


def price(seq: int) -> Entry:
    """Return an entry that is wanted."""
    return make_entry(seq, type=PRICE)


def seqs(entries: list[Entry]) -> list[int]:
    """Return their numbers."""
    return [entry.seq for entry in entries]


def test_what_is_wanted_waits_until_it_is_taken() -> None:
    """In order, in portions, and with each comes up to where the log is known."""
    one = feed()
    one.receive([make_entry(6), price(7), price(8)])
    one.receive([price(9), make_entry(10)])
    assert one.since == 5
    taken, upto = one.take(2)
    assert (seqs(taken), upto, one.since, one.changed.is_set()) == ([7, 8], 8, 8, True)
    taken, upto = one.take(2)
    assert (seqs(taken), upto, one.since, one.changed.is_set()) == ([9], 10, 10, False)
    assert one.take(2) == ([], 10)


def test_nobody_is_woken_for_what_is_not_wanted() -> None:
    """Entries of other types, or of the source that is left out, only move the place up to which everything is known."""
    one = feed()
    one.receive([make_entry(6), make_entry(7, type=PRICE, source="own")])
    assert not one.changed.is_set()
    assert one.take(5) == ([], 7)


def test_too_much_is_left_to_the_log() -> None:
    """Memory is bounded: the place from which on everything is here moves, and what lies before it is to be read elsewhere."""
    one = feed(most=2)
    one.receive([price(6), price(7)])
    assert one.since == 5
    one.receive([price(8), make_entry(9)])
    assert (one.since, one.changed.is_set()) == (9, True)
    one.receive([price(10)])
    assert (seqs(one.take(5)[0]), one.since) == ([10], 10)


def test_nothing_is_kept_while_nobody_listens() -> None:
    """Before, and after it was enough."""
    one = Feed({PRICE}, without="own")
    assert one.since is None
    one.ignore()
    assert one.since is None
    one.start(place_of(5))
    one.receive([price(6)])
    assert one.take(5) == ([], 6)
    one.listen()
    one.receive([price(7)])
    one.ignore()
    assert one.take(5) == ([], 7)


def test_a_hole_is_noted() -> None:
    """What came before and after it is all there."""
    one = feed()
    one.receive([price(6)])
    one.lose(make_entry(9), "evicted")
    one.receive([price(9)])
    assert one.lost
    assert seqs(one.take(5)[0]) == [6, 9]


def test_another_log_begins_at_its_beginning() -> None:
    """Nothing of the old one is left, and whoever waits is woken."""
    one = feed()
    one.receive([price(6)])
    one.restart("log recreated")
    assert (one.since, one.generation, one.changed.is_set()) == (0, 1, True)
    one.receive([price(1)])
    assert seqs(one.take(5)[0]) == [1]


class Recorder:
    """A receiver that notes what it is told."""

    def __init__(self, rest: float) -> None:
        self.told: list[object] = []
        self._rest = rest

    def start(self, head: Position) -> None:
        self.told.append(head.seq)

    def receive(self, entries: list[Entry]) -> float:
        self.told.append(seqs(entries))
        return self._rest

    def lose(self, first: Entry, reason: str) -> None:
        self.told.append((first.seq, reason))

    def restart(self, reason: str) -> None:
        self.told.append(reason)


def test_several_hear_the_same() -> None:
    """All that the follower tells; how long it may rest, the first one says."""
    first, second = Recorder(0.5), Recorder(0.25)
    several = Several(first, second)
    several.start(place_of(5))
    assert several.receive([price(6)]) == 0.5
    several.lose(price(9), "evicted")
    several.restart("log recreated")
    assert first.told == second.told == [5, [6], (9, "evicted"), "log recreated"]
