"""Feeding several from one tail: whoever computes something from new entries hears of them here. No I/O."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection
from typing import Protocol

from storage.entries import Entry
from storage.positions import Position

MOST_WAITING = 20_000  # entries, some 20 MB; beyond them they are read from the log again


class Receiver(Protocol):
    """Who is fed by the follower; see storage.follower."""

    def start(self, head: Position) -> None:
        """Begin after `head`."""

    def receive(self, entries: list[Entry]) -> float:
        """Take the next entries."""

    def lose(self, first: Entry, reason: str) -> None:
        """Learn that everything between the last entry and `first` is gone."""

    def restart(self, reason: str) -> None:
        """Learn that the log is another one now."""


class Several:
    """Receivers as one, in this order: the first says for how long it pays to let entries gather, since it has the most to do."""

    def __init__(self, first: Receiver, *others: Receiver) -> None:
        self._first = first
        self._others = others

    def start(self, head: Position) -> None:
        """Begin after `head`."""
        for one in (self._first, *self._others):
            one.start(head)

    def receive(self, entries: list[Entry]) -> float:
        """Hand on the next entries."""
        rest = self._first.receive(entries)
        for one in self._others:
            one.receive(entries)
        return rest

    def lose(self, first: Entry, reason: str) -> None:
        """Hand on that entries are lost."""
        for one in (self._first, *self._others):
            one.lose(first, reason)

    def restart(self, reason: str) -> None:
        """Hand on that the log is another one."""
        for one in (self._first, *self._others):
            one.restart(reason)


class Feed:
    """What the tail brings of some types, kept until it is taken, while somebody listens.

    Args:
        types: Of the entries that are wanted.
        without: Entries of this source are not.
        most: How many may wait.
    """

    def __init__(self, types: Collection[str], without: str, most: int = MOST_WAITING) -> None:
        self.types = frozenset(types)
        self.without = without
        self.since: int | None = None  # all that is wanted after this entry, up to the head, waits here; None: nothing is known yet
        self.lost = False  # since somebody looked, entries are gone that nobody has seen
        self.generation = 0  # counted up when the log is another one
        self.changed = asyncio.Event()  # the tail has begun, something came that is wanted, or the log is another one
        self._head = 0
        self._waiting: deque[Entry] = deque()
        self._most = most
        self._listening = False

    def listen(self) -> None:
        """Keep what comes from now on."""
        self._listening = True

    def ignore(self) -> None:
        """Keep nothing."""
        self._listening = False
        self._skip()

    def take(self, most: int) -> tuple[list[Entry], int]:
        """Return the next entries, and up to which entry of the log these are all that is wanted."""
        taken = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
        if self._waiting:
            self.since = taken[-1].seq
        else:
            self.since = self._head
            self.changed.clear()
        return taken, self.since

    def _skip(self) -> None:
        self._waiting.clear()
        if self.since is not None:
            self.since = self._head

    # What the follower tells

    def start(self, head: Position) -> None:
        """Begin after `head`."""
        self.since = self._head = head.seq
        self.changed.set()

    def receive(self, entries: list[Entry]) -> float:
        """Keep those that are wanted. If it is too much, all of it is left to the log."""
        self._head = entries[-1].seq
        if not self._listening:
            self.since = self._head
            return 0.0
        wanted = [entry for entry in entries if entry.type in self.types and entry.source != self.without]
        if wanted:
            self._waiting.extend(wanted)
            if len(self._waiting) > self._most:
                self._skip()
            self.changed.set()
        return 0.0

    def lose(self, first: Entry, reason: str) -> None:
        """Note that something is gone. What was wanted of it, nobody knows."""
        self._head = first.seq - 1
        self.lost = True

    def restart(self, reason: str) -> None:
        """Forget everything: it was of another log."""
        self._waiting.clear()
        self.since = self._head = 0
        self.generation += 1
        self.changed.set()
