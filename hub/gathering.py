"""What is gathered for one paced interest between two deliveries, and which of it is still worth delivering. No I/O; the time is given."""

from __future__ import annotations

from collections.abc import Sequence

from hub.terms import Pace
from storage.entries import HIGH, Entry
from storage.positions import Position

FRAMING_BYTES = 256  # about what an id, a type and a frame add to the payload of an entry
# What one interest may have pending; beyond it everything is delivered at once. The entries themselves are those of the window, as long as
# they are in it.
MOST_ENTRIES = 4096
MOST_BYTES = 8 << 20  # by the entries' own estimate
RATE_SECONDS = 1.0  # over which it is measured how many come
CONFLATE_ENTRIES = 256  # as many are gathered before it is first looked which of them are superseded


def newest_of_each(entries: Sequence[Entry]) -> list[Entry]:
    """Return, in the same order, the newest entry of each type and key, and all that have no key or are of high priority."""
    seen: set[tuple[str, str]] = set()
    kept: list[Entry] = []
    for entry in reversed(entries):
        if entry.key is not None:
            about = (entry.type, entry.key)
            if about in seen and entry.priority != HIGH:
                continue
            seen.add(about)
        kept.append(entry)
    kept.reverse()
    return kept


def chunk_of(entries: Sequence[Entry], begin: int, chunk_bytes: int) -> int:
    """Return the end of the piece of about one chunk that begins at `begin`: at least one entry, if there is one."""
    room = chunk_bytes
    for end in range(begin, len(entries)):
        data = entries[end].data
        data_bytes = len(data) if data.isascii() else len(data.encode())
        if data_bytes > room and end > begin:
            return end
        room -= data_bytes + FRAMING_BYTES
    return len(entries)


class Gathering:
    """The pending entries of an interest, in log order.

    While anybody stands at the head with this interest, everything for it after `before` is either pending here, superseded by something
    that is, or not there.
    """

    __slots__ = ("_allowance", "_conflate_at", "_refilled_at", "_size", "before", "due", "entries", "pace", "queued")

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self.entries: list[Entry] = []
        self.before = Position(0, 0)
        self.due = 0.0  # clock: when something may be delivered again
        self.queued = False  # the ticker will look at it
        # How many more may come before it is too much: a bucket that holds what may come in one second, so that it is all the same whether
        # they come evenly or in batches. Below zero it is too much; it does not fall far, so that it is soon over.
        self._allowance = pace.above * RATE_SECONDS
        self._refilled_at = 0.0  # clock
        self._size = 0
        self._conflate_at = CONFLATE_ENTRIES

    def restart(self, before: Position) -> None:
        """Forget what is pending, and gather what comes after `before`."""
        self.entries = []
        self.before = before
        self._size = 0

    def covers(self, place: Position) -> bool:
        """Tell whether everything after a place is pending here; only while somebody is at the head with this interest."""
        return self.before.seq <= place.seq

    def add(self, entries: list[Entry], before: Position, now: float) -> int:
        """Gather entries, the first of which comes right after `before`, and return how many are superseded and let go."""
        if not self.entries:
            self.before, self._conflate_at = before, CONFLATE_ENTRIES
        self.entries += entries
        self._refill(now)
        self._allowance = max(self._allowance - len(entries), -self.pace.above * self.pace.seconds - 1)
        self._size += sum(entry.size for entry in entries)
        return self.conflate(now) if len(self.entries) >= self._conflate_at or self._size > MOST_BYTES else 0

    def conflate(self, now: float) -> int:
        """Keep the newest of each key only, if more came than the pace allows; return how many were let go."""
        count = len(self.entries)
        self._refill(now)
        if self._allowance < 0:
            self.entries = newest_of_each(self.entries)
            self._size = sum(entry.size for entry in self.entries)
        self._conflate_at = max(CONFLATE_ENTRIES, 2 * len(self.entries))
        return count - len(self.entries)

    def _refill(self, now: float) -> None:
        above = self.pace.above
        self._allowance = min(above * RATE_SECONDS, self._allowance + above * (now - self._refilled_at))
        self._refilled_at = now

    @property
    def full(self) -> bool:
        """Whether no more may be gathered before something is delivered."""
        return len(self.entries) > MOST_ENTRIES or self._size > MOST_BYTES

    def take(self, chunk_bytes: int, last: int) -> list[Entry]:
        """Return the next piece of about one chunk, with nothing beyond number `last`; it is no longer pending."""
        end = chunk_of(self.entries, 0, chunk_bytes)
        while end > 1 and self.entries[end - 1].seq > last:
            end -= 1
        piece = self.entries[:end]
        del self.entries[:end]
        self._size -= sum(entry.size for entry in piece)
        self.before = Position(piece[-1].seq, piece[-1].ms)
        return piece
