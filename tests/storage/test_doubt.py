"""Inserts without an answer: whatever arrives late or in part, each event is in the log once at most, and whose sender waits, once."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.doubt import Attempt, Doubt
from storage.entries import Receipt
from storage.mongo import Document
from storage.positions import Position
from storage.requests import Item
from tests.storage.faults import event

HEAD = Position(5, 1000)


def items(*names: str) -> list[Item]:
    return [Item(event(name).document()) for name in names]


def in_doubt(*names: str, token: int = 1) -> tuple[Doubt, Attempt]:
    """Return a doubt with one insert of these events after entry 5."""
    doubt, attempt = Doubt(HEAD), Attempt(HEAD, 2000, token, items(*names))
    doubt.add(attempt)
    return doubt, attempt


def log_of(*tokens: int, first: int = 5) -> list[Document]:
    """Return entries as they are found, each with the token of its insert."""
    return [{"_id": number, "append": token} for number, token in enumerate(tokens, first)]


def asked(doubt: Doubt) -> tuple[int, int]:
    """Return from which number on, and how many entries it wants to see."""
    query, limit = doubt.query()
    return query["_id"]["$gte"], limit


def numbers(arrived: list[Any]) -> list[tuple[str, Position]]:
    return [(item.document["data"], place) for item, place in arrived]


def test_an_insert_numbers_its_events_from_the_head_on() -> None:
    """All with its time and its token."""
    documents = Attempt(HEAD, 2000, 7, items("a", "b")).documents()
    assert [(one["_id"], one["ms"], one["append"], one["data"]) for one in documents] == [(6, 2000, 7, "a"), (7, 2000, 7, "b")]


def test_what_is_found_under_its_token_has_arrived() -> None:
    """With its place; what is missing may still follow, from there on."""
    doubt, _ = in_doubt("a", "b", "c")
    assert asked(doubt) == (5, 4)
    assert numbers(doubt.learn(log_of(0, 1, 1))) == [("a", (6, 2000)), ("b", (7, 2000))]
    assert not doubt.over()
    assert doubt.before == (7, 2000)
    assert asked(doubt) == (7, 2)
    assert numbers(doubt.learn(log_of(1, 1, first=7))) == [("c", (8, 2000))]
    assert doubt.over()


def test_nothing_found_decides_nothing() -> None:
    """The insert may arrive a moment later."""
    doubt, attempt = in_doubt("a")
    assert doubt.learn(log_of(0)) == []
    assert not doubt.over()
    assert doubt.same(attempt.items) is attempt
    assert doubt.same(items("a")) is None


@pytest.mark.parametrize(("tokens", "count"), [((0, 9), 0), ((0, 1, 9), 1)])
def test_a_number_that_another_one_has_ends_the_insert(tokens: tuple[int, ...], count: int) -> None:
    """What is before it has arrived."""
    doubt, _ = in_doubt("a", "b")
    assert len(doubt.learn(log_of(*tokens))) == count
    assert doubt.over()


def test_of_several_inserts_only_the_one_that_has_the_number_goes_on() -> None:
    """They all begin there."""
    doubt, _ = in_doubt("a", "b", token=1)
    other = Attempt(HEAD, 3000, 2, items("c", "d"))
    doubt.add(other)
    doubt.add(other)
    assert numbers(doubt.learn(log_of(0, 2))) == [("c", (6, 3000))]
    assert asked(doubt) == (6, 2)


def test_in_a_log_that_is_shorter_than_it_was_nothing_can_arrive() -> None:
    """It is an older copy; in a log that was empty nothing is missing."""
    doubt, _ = in_doubt("a")
    assert doubt.learn([]) == []
    assert doubt.over()
    first = Doubt(Position(0, 0))
    first.add(Attempt(Position(0, 0), 1, 1, items("a")))
    assert first.learn([]) == []
    assert not first.over()


def test_who_has_a_later_number_had_the_earlier_ones() -> None:
    """Though these are evicted."""
    doubt, _ = in_doubt("a", "b", "c")
    assert [place.seq for _, place in doubt.learn(log_of(1, 9, first=8))] == [6, 7, 8]
    assert doubt.over()


def test_when_the_number_is_evicted_nobody_knows_whose_it_was() -> None:
    """The senders must decide."""
    doubt, attempt = in_doubt("a", "b")
    assert doubt.learn(log_of(9, 9, first=8)) == []
    assert doubt.over()
    assert all(item.untold for item in attempt.items)


class World:
    """A log, and inserts that reach it bit by bit, in any order, as they do from a MongoDB that stood still."""

    def __init__(self) -> None:
        self.items = items(*"abcdef")
        self.log: list[tuple[int, Item | None]] = [(0, None)]  # entry 1; token and event of each, None for others'
        self.sent: list[tuple[int, int, list[Item]]] = []  # next number, token and the events left of each insert; may go on at any time
        self.doubt: Doubt | None = None
        self.tokens = 0

    def send(self, choice: int) -> None:
        """Insert some of what is missing, and hear nothing of it."""
        missing = [item for index, item in enumerate(self.items) if item.receipt is None and choice >> index & 1]
        if not missing:
            return
        self.doubt = self.doubt or Doubt(Position(len(self.log), 0))
        attempt = self.doubt.same(missing)
        if attempt is None:
            self.tokens += 1
            attempt = Attempt(self.doubt.before, 0, self.tokens, missing)
        self.doubt.add(attempt)
        self.sent.append((attempt.first, attempt.token, list(attempt.items)))

    def go_on(self, choice: int) -> None:
        """Let one of the inserts have its next events, up to the first number that is taken."""
        if not self.sent:
            return
        number, token, left = self.sent.pop(choice % len(self.sent))
        for _ in range(1 + choice % 3):
            if not left or number != len(self.log) + 1:
                return
            self.log.append((token, left.pop(0)))
            number += 1
        self.sent.append((number, token, left))

    def overtake(self, _: int = 0) -> None:
        """Let another process append."""
        self.log.append((0, None))

    def look(self, _: int = 0) -> None:
        """Learn what is in the log."""
        if self.doubt is None:
            return
        query, limit = self.doubt.query()
        first = query["_id"]["$gte"]
        found = [{"_id": number, "append": token} for number, (token, _) in enumerate(self.log, 1) if number >= first][:limit]
        for item, place in self.doubt.learn(found):
            assert item.receipt is None
            item.receipt = Receipt(str(place.seq), False)
        if self.doubt.over():
            self.doubt = None


@given(st.lists(st.tuples(st.sampled_from(["send", "go_on", "go_on", "overtake", "look"]), st.integers(0, 63)), max_size=40))
def test_whatever_happens_each_event_is_in_the_log_once_if_it_has_a_receipt_and_else_not(steps: list[tuple[str, int]]) -> None:
    """Also after the doubt is over and everything that was ever sent has arrived."""
    world = World()
    for name, choice in steps:
        getattr(world, name)(choice)
    world.look()
    while world.doubt:
        world.overtake()  # as the fence does
        world.look()
    while world.sent:
        world.go_on(2)
    places = [(str(number), item) for number, (_, item) in enumerate(world.log, 1) if item]
    assert sorted(place for place, _ in places) == sorted(item.receipt.id for item in world.items if item.receipt)
    assert all(item.receipt is not None and item.receipt.id == place for place, item in places)
