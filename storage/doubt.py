"""Doubt: inserts whose answers were lost, and what the log tells of them. No I/O.

Such an insert may be in the log, wholly or its first part, or may still arrive or go on: a MongoDB that stood still reads what was sent
to it when it goes on. What keeps this in hand is one rule: **whatever is tried next begins at the first number of which nobody knows
who has it.** So all inserts in doubt go on from the same number, and only one of them can have it; when it is seen whose it is, all
others end there with a duplicate key, since inserts are ordered.
"""

from __future__ import annotations

from typing import NamedTuple

from storage.log import IS_NUMBER
from storage.mongo import Document
from storage.positions import Position
from storage.requests import Item

# Takes the number of an insert that nobody waits for any more, so that it cannot arrive later. Nobody receives it.
FENCE = {"_id": 0, "ms": 0, "append": 0, "topic": "tailcast.log", "type": "log:fence", "audience": [], "data": "{}"}


class Arrived(NamedTuple):
    """An event that is in the log, and where."""

    item: Item
    place: Position


class Attempt:
    """One insert: events that get consecutive numbers, the same time and the same token.

    Args:
        head: The place before it.
        ms: The time of its entries.
        token: Tells them from all others.
        items: The events, in order.
    """

    def __init__(self, head: Position, ms: int, token: int, items: list[Item]) -> None:
        self.first = head.seq + 1
        self.ms = ms
        self.token = token
        self.items = items

    def documents(self) -> list[Document]:
        """Return the documents to insert."""
        documents = [item.document for item in self.items]
        for number, document in enumerate(documents, self.first):
            document["_id"] = number
            document["ms"] = self.ms
            document["append"] = self.token
        return documents

    def arrived(self, count: int) -> list[Arrived]:
        """Take away its next `count` events, which are in the log, and return them."""
        done, self.items = self.items[:count], self.items[count:]
        places = [Arrived(item, Position(number, self.ms)) for number, item in enumerate(done, self.first)]
        self.first += count
        return places


class Doubt:
    """All inserts in doubt, none of which is known to have the number after `before`.

    Args:
        before: The last place that is known.
    """

    def __init__(self, before: Position) -> None:
        self.before = before
        self.fence = Item(dict(FENCE))
        self._attempts: list[Attempt] = []  # those that may still have it, or go on there

    def add(self, attempt: Attempt) -> None:
        """Add an insert that begins after `before`, and whose answer is missing."""
        assert attempt.first == self.before.seq + 1
        if attempt not in self._attempts:
            self._attempts.append(attempt)

    def same(self, items: list[Item]) -> Attempt | None:
        """Return the insert of just these events, if there was one: sending it again cannot double them, and adds no further doubt."""
        return next((attempt for attempt in self._attempts if attempt.items == items), None)

    def over(self) -> bool:
        """Tell whether nothing is in doubt any more."""
        return not self._attempts

    def query(self) -> tuple[Document, int]:
        """Return which entries `learn` wants to see, and how many of them."""
        return {"_id": {**IS_NUMBER, "$gte": self.before.seq}}, 1 + max(len(attempt.items) for attempt in self._attempts)

    def learn(self, found: list[Document]) -> list[Arrived]:
        """Return which events are in the log, and move on to the number after them.

        Args:
            found: The entries that `query` asks for, oldest first, with number and token; read after everything that MongoDB had taken
                before was journaled.
        """
        if found and found[0]["_id"] == self.before.seq:
            found = found[1:]
        elif not found and self.before.seq:  # the log is shorter than it was: whoever has it now never got these inserts
            self._attempts = []
        if not found:
            return []
        number, token = found[0]["_id"], found[0].get("append")
        winner = next((attempt for attempt in self._attempts if attempt.token == token), None)
        if winner is None:
            if number > self.before.seq + 1:
                self._abandon()
            self._attempts = []
            return []
        count = next((index for index, one in enumerate(found) if one.get("append") != token), len(found))
        arrived = winner.arrived(number + count - winner.first)  # what was before the first one found was there too, and is evicted
        self.before = arrived[-1].place
        self._attempts = [winner] if winner.items and count == len(found) else []
        return arrived

    def _abandon(self) -> None:
        """Nobody can tell who had the number: it is evicted already."""
        for attempt in self._attempts:
            for item in attempt.items:
                item.untold = True
