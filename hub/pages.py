"""Pages: older entries, read from the log in shared pieces, so that a thousand readers near one place cost one query."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from storage.entries import Entry
from storage.errors import StorageError

PAGE_ENTRIES = 512  # 2 ms of MongoDB's time, some 250 KB of documents
CACHED_PAGES = 32
CONCURRENT_READS = 4  # readers of old entries must not take MongoDB from the publishers
RETRY_SECONDS = 0.25


class EntryLog(Protocol):
    """What is read from."""

    async def read(self, after: int, limit: int) -> list[Entry]:
        """Return up to `limit` entries after number `after`, in order; raise StorageError if it cannot be read now."""


class Page(NamedTuple):
    """What one read returned.

    `after` is the number it was read after: entries between that and the first one are not in the log.
    """

    after: int
    entries: list[Entry]

    def serves(self, position: int) -> bool:
        """Tell whether the log's next entry after `position` is here."""
        return self.after <= position and bool(self.entries) and self.entries[-1].seq > position


class Pages:
    """A small cache of full pages, and one read for all who want the same.

    Args:
        log: Where entries come from.
        ready: Called after a read, with what `request` was given by each who waited, and the page; None if the log is another one now.
    """

    def __init__(self, log: EntryLog, ready: Callable[[Any, Page | None], None]) -> None:
        self._log = log
        self._ready = ready
        self._cache: dict[int, Page] = {}  # by page number, least recently used first
        self._waiting: dict[int, dict[object, None]] = {}  # page number to those who wait for its read, each once
        self._reads: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(CONCURRENT_READS)
        self._generation = 0  # counted up by clear(): a page read from a log that is gone must not be kept
        self.queries = 0  # since the start

    def cached(self, position: int) -> Page | None:
        """Return the page with the entry after `position`, if it is here."""
        number = position // PAGE_ENTRIES
        page = self._cache.pop(number, None)
        if page is None:
            return None
        self._cache[number] = page
        return page if page.serves(position) else None

    def request(self, position: int, waiter: object) -> None:
        """Read that page, and call `ready` with this waiter and the page when it is here. A log that cannot be read is tried again."""
        number = position // PAGE_ENTRIES
        waiting = self._waiting.get(number)
        if waiting is not None:
            waiting[waiter] = None
            return
        self._waiting[number] = {waiter: None}
        task = asyncio.get_running_loop().create_task(self._read(number), name=f"read page {number}")
        self._reads.add(task)
        task.add_done_callback(self._reads.discard)

    async def _read(self, number: int) -> None:
        generation = self._generation
        first = number * PAGE_ENTRIES
        async with self._slots:
            page = Page(first, await self._read_until_answered(first))
        current = generation == self._generation
        if current and len(page.entries) == PAGE_ENTRIES:  # a shorter one is still growing
            self._cache[number] = page
            while len(self._cache) > CACHED_PAGES:
                del self._cache[next(iter(self._cache))]
        for waiter in self._waiting.pop(number):
            self._ready(waiter, page if current else None)

    async def _read_until_answered(self, after: int) -> list[Entry]:
        while True:
            try:
                self.queries += 1
                return await self._log.read(after, PAGE_ENTRIES)
            except StorageError:
                await asyncio.sleep(RETRY_SECONDS)

    def clear(self) -> None:
        """Forget all pages: the log is another one."""
        self._generation += 1
        self._cache.clear()

    async def close(self) -> None:
        """End all reads; nobody who waits is called any more."""
        for task in self._reads:
            task.cancel()
        await asyncio.gather(*self._reads, return_exceptions=True)
