"""The window: the newest entries of the log, in memory, shared by all connections that read near the head. No I/O."""

from __future__ import annotations

from itertools import islice

from storage.entries import Entry

TRIM_ENTRIES = 256  # how many are let go at a time: deleting from the front of a list moves the rest


class Window:
    """A run of consecutive entries that ends at the head.

    Args:
        limit_bytes: How much its entries may take, by their own estimate, before the oldest are let go.
    """

    def __init__(self, limit_bytes: int = 64 << 20) -> None:
        self._limit_bytes = limit_bytes
        self._entries: list[Entry] = []
        self._bytes = 0

    def append(self, entries: list[Entry]) -> None:
        """Add entries that follow the newest without a hole, and let go of the oldest beyond the limit."""
        assert not self._entries or entries[0].seq == self._entries[-1].seq + 1
        self._entries.extend(entries)
        self._bytes += sum(entry.size for entry in entries)
        while self._bytes > self._limit_bytes and len(self._entries) > 1:
            count = min(TRIM_ENTRIES, len(self._entries) - 1)
            self._bytes -= sum(entry.size for entry in islice(self._entries, count))
            del self._entries[:count]

    def clear(self) -> None:
        """Forget everything: the next entries do not follow."""
        self._entries = []
        self._bytes = 0

    def covers(self, position: int) -> bool:
        """Tell whether everything after `position` up to the head is here."""
        return bool(self._entries) and position + 1 >= self._entries[0].seq

    def after(self, position: int, limit: int) -> list[Entry]:
        """Return up to `limit` entries after `position`, which the window must cover."""
        start = position + 1 - self._entries[0].seq
        return self._entries[start : start + limit]
