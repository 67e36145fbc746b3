"""Pages: older entries, read from the log in shared pieces, so that a thousand readers near one place cost one query."""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_right
from collections.abc import Callable
from operator import attrgetter
from typing import Any, NamedTuple, Protocol

from storage.entries import Entry
from storage.errors import StorageError
from storage.positions import Position

logger = logging.getLogger("tailcast.hub")

PAGE_ENTRIES = 512  # 2 ms of MongoDB's time, some 250 KB of documents
CACHED_PAGES = 32
CACHED_BYTES = 32 << 20  # of payloads in them: a page of large entries has up to 16 MiB
CONCURRENT_READS = 4  # readers of old entries must not take MongoDB from the publishers
RETRY_SECONDS = 0.25
_number = attrgetter("seq")


class EntryLog(Protocol):
    """What is read from."""

    async def read(self, after: int, limit: int) -> list[Entry]:
        """Return up to `limit` entries after number `after`, in order; raise StorageError if it cannot be read now."""

    async def oldest(self) -> Position:
        """Return the place of the oldest entry there is."""


class Page(NamedTuple):
    """What one read returned.

    `after` is the number it was read after: entries between that and the first one are not in the log. `evicted` says that they have
    left it by its front, as entries do; else they are missing.
    """

    after: int
    entries: list[Entry]
    evicted: bool = False

    def serves(self, position: int) -> bool:
        """Tell whether the log's next entry after `position` is here."""
        return self.after <= position and bool(self.entries) and self.entries[-1].seq > position

    def size(self) -> int:
        """Return about how many bytes the payloads have."""
        return sum(len(entry.data) for entry in self.entries)

    def after_position(self, position: int) -> int:
        """Return the index of the next entry after `position`."""
        return bisect_right(self.entries, position, key=_number)


class Pages:
    """A small cache of full pages, and one read for all who want the same.

    Args:
        log: Where entries come from.
        ready: Called after a read, with what `request` was given by each who waited, and the page; None if the log is another one now.
        failed: Called instead when a defect kept the page from being read: it cannot be served.
    """

    def __init__(self, log: EntryLog, ready: Callable[[Any, Page | None], None], failed: Callable[[Any], None]) -> None:
        self._log = log
        self._ready = ready
        self._failed = failed
        self._cache: dict[int, Page] = {}  # by page number, least recently used first
        self._cached_bytes = 0  # of all of them
        self._waiting: dict[int, dict[object, int]] = {}  # where a read begins, to those who wait for it, each with its position
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
        self._wait(position // PAGE_ENTRIES * PAGE_ENTRIES, position, waiter)

    def _wait(self, after: int, position: int, waiter: object) -> None:
        """Let somebody wait for what is read after `after`, which is before its position."""
        waiting = self._waiting.get(after)
        if waiting is not None:
            waiting[waiter] = position
            return
        self._waiting[after] = {waiter: position}
        task = asyncio.get_running_loop().create_task(self._read(after), name=f"read page after {after}")
        self._reads.add(task)
        task.add_done_callback(self._reads.discard)

    async def _read(self, after: int) -> None:
        generation = self._generation
        try:
            async with self._slots:
                page = await self._read_until_answered(after)
        except Exception:  # a defect, here or below: nobody may wait for ever because of it
            logger.exception("the page after entry %d cannot be read", after)
            for waiter in self._waiting.pop(after):
                self._failed(waiter)
            return
        if generation != self._generation:
            for waiter in self._waiting.pop(after):
                self._ready(waiter, None)
            return
        self._keep(page)
        for waiter, position in self._waiting.pop(after).items():
            if page.entries and page.entries[-1].seq <= position:  # large entries: a reply of MongoDB holds 16 MiB
                self._wait(page.entries[-1].seq, position, waiter)
            else:
                self._ready(waiter, page)

    def _keep(self, page: Page) -> None:
        if len(page.entries) < PAGE_ENTRIES or page.after % PAGE_ENTRIES:  # a shorter one is still growing
            return
        self._forget(page.after // PAGE_ENTRIES)
        self._cache[page.after // PAGE_ENTRIES] = page
        self._cached_bytes += page.size()
        while len(self._cache) > CACHED_PAGES or self._cached_bytes > CACHED_BYTES:
            self._forget(next(iter(self._cache)))

    def _forget(self, number: int) -> None:
        page = self._cache.pop(number, None)
        if page is not None:
            self._cached_bytes -= page.size()

    async def _read_until_answered(self, after: int) -> Page:
        while True:
            try:
                self.queries += 1
                entries = await self._log.read(after, PAGE_ENTRIES)
                hole = bool(entries) and entries[0].seq != after + 1
                return Page(after, entries, hole and (await self._log.oldest()).seq >= entries[0].seq)
            except StorageError:
                await asyncio.sleep(RETRY_SECONDS)

    def clear(self) -> None:
        """Forget all pages: the log is another one."""
        self._generation += 1
        self._cache.clear()
        self._cached_bytes = 0

    async def close(self) -> None:
        """End all reads; nobody who waits is called any more."""
        for task in self._reads:
            task.cancel()
        await asyncio.gather(*self._reads, return_exceptions=True)
