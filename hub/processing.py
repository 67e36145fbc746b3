"""Processing: something is computed from the log, entry by entry, and what follows from it is appended to the log. No I/O of its own.

One process does it at a time, and begins where the last one that saved its progress stood. Between two saves it may be that events were
appended and that nobody knows: they are computed again, and since each has an identity of what caused it, the log takes none twice. That
is also why nothing goes wrong when for a moment two processes believe that it is theirs. Whatever fails, state in memory is thrown away
and read anew: there is one way to begin, and it is the one after a crash.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from typing import Any, Protocol

from hub.feed import Feed
from hub.keeper import Clock
from storage.entries import Entry, NewEvent
from storage.errors import StorageError, Unavailable
from storage.parts import Part, Progress
from storage.positions import Position, PositionCodec

logger = logging.getLogger("tailcast.hub")

PORTION = 500  # entries, or events, at a time
SLICE = 25  # of them, or of parts of the state, before the event loop gets a turn: half a millisecond
SAVE_PORTION = 100  # parts in one command
READ_ENTRIES = 20_000  # of the log, looked at in one query: some 20 ms of MongoDB's time
SAVE_SECONDS = 2.0  # between two saves: a crash lets so much be computed again
SAVE_ENTRIES = 10_000  # after which progress is saved even though nothing changed
RETRY_SECONDS = 1.0  # after anything that went wrong, or when another process does the work
REST_SECONDS = 1.0
LEAVE_SECONDS = 1.0  # for giving back the lease; without it the others wait until it is over


class Work(Protocol):
    """What is computed. It knows no time and no log; the same entries lead to the same events."""

    kinds: tuple[str, ...]  # of parts, in the order in which they are saved; they are restored in the opposite one

    def __len__(self) -> int:
        """Return how much would be wrong if something of the log were missing."""

    def take(self, entry: Entry) -> list[NewEvent]:
        """Take in one entry, and return what follows from it."""

    def due(self, now: float, most: int) -> list[NewEvent]:
        """Return what is to be told by now, up to so many events."""

    def wait(self, now: float) -> float | None:
        """Return in how many seconds something will be due; None: nothing, unless an entry comes."""

    def changed(self, most: int) -> list[Part]:
        """Return up to `most` parts that have changed since they were returned last, in the order of `kinds`."""

    def restore(self, part: Part) -> None:
        """Take back a part that was saved."""


class ProcessedLog(Protocol):
    """What is read; see storage.log."""

    @property
    def codec(self) -> PositionCodec:
        """Tells this log from others."""

    async def select(self, types: Collection[str], without: str, after: int, upto: int, limit: int) -> list[Entry]:
        """Return entries of these types between two numbers."""

    async def head(self) -> Position:
        """Return the place of the newest entry."""

    async def oldest(self) -> Position:
        """Return the place of the oldest entry."""


class Kept(Protocol):
    """Where state and progress are kept; see storage.derived."""

    async def progress(self) -> Progress | None:
        """Return how far the log was processed."""

    def parts(self, kind: str, log: str) -> AsyncIterator[list[Part]]:
        """Return all parts of a kind."""

    async def write(self, parts: Sequence[Part], log: str) -> None:
        """Write what has changed, in this order."""

    async def advance(self, progress: Progress) -> None:
        """Note how far the log is processed."""


class TakenLease(Protocol):
    """Says whose work it is; see storage.leases."""

    seconds: float

    async def take(self) -> bool:
        """Take or renew it, and tell whether it is held."""

    async def release(self) -> None:
        """Give it back."""


class Processor:
    """One process's part in it.

    Args:
        make: Returns the work in its first state.
        log: What is read.
        feed: What the tail brings of it.
        append: Appends events, all or none, in order.
        kept: Where state and progress are.
        lease: Whose turn it is.
        clock: Time.
    """

    def __init__(
        self,
        make: Callable[[], Work],
        *,
        log: ProcessedLog,
        feed: Feed,
        append: Callable[[Sequence[NewEvent]], Awaitable[Any]],
        kept: Kept,
        lease: TakenLease,
        clock: Clock,
    ) -> None:
        self._make = make
        self._log = log
        self._feed = feed
        self._append = append
        self._kept = kept
        self._lease = lease
        self._now = clock.monotonic
        self._work = make()
        self._at = 0  # everything up to this entry is taken in, and what follows from it is in the log
        self._saved_at = 0  # up to where progress is saved
        self._name_of_log = ""
        self._generation = 0  # of the feed, when state was read
        self._may_hold = False  # the lease, as far as it is known
        self._held_until = 0.0  # when it is over, by this process's clock
        self._renew_at = 0.0  # when it is renewed
        self._save_at = 0.0  # when state is saved
        self.working = False  # this process does the work now

    async def run(self) -> None:
        """Do the work whenever it is this process's turn, until cancelled; then let another one do it."""
        try:
            while True:
                try:
                    await self.process()
                except StorageError as error:
                    logger.info("events that follow from others wait: %s", error)
                finally:
                    self.working = False
                    self._feed.ignore()
                await asyncio.sleep(RETRY_SECONDS)
        finally:
            if self._may_hold:
                with suppress(StorageError, TimeoutError):
                    await asyncio.wait_for(self._lease.release(), LEAVE_SECONDS)

    async def process(self) -> None:
        """Do the work for as long as it is this process's turn; return at once if it is not.

        When this is cancelled, events may be appended or not; beginning anew settles it.

        Raises:
            StorageError: If MongoDB is away, or the log is another one now: begin anew.
        """
        if self._feed.since is None:
            await self._feed.changed.wait()
        self._renew_at = 0.0
        if not await self._is_mine():
            return
        await self._begin()
        self.working = True
        while await self._is_mine():
            more = await self._advance()
            told = await self._tell_due()
            await self._maybe_save()
            if not more and not told:
                await self._rest()

    async def _is_mine(self) -> bool:
        """Take the lease, or renew it when a third of its time is over."""
        now = self._now()
        if now < self._renew_at:
            return True
        self._may_hold = True  # also when this is cancelled meanwhile
        self._may_hold = await self._lease.take()
        if not self._may_hold:
            return False
        self._held_until = now + self._lease.seconds  # counted from before the question, and so never too long
        self._renew_at = now + self._lease.seconds / 3
        return True

    async def _begin(self) -> None:
        """Read state and progress. What the tail brings from now on waits, and what lies between is read from the log."""
        self._feed.listen()
        self._feed.lost = False
        self._generation = self._feed.generation
        self._work = self._make()
        self._name_of_log = self._log.codec.epoch.hex()
        # Progress before parts: they may be newer than it, but never older.
        progress, head, oldest = await self._kept.progress(), await self._log.head(), await self._log.oldest()
        goes_on = progress is not None and progress.log == self._name_of_log and progress.seq <= head.seq
        for kind in reversed(self._work.kinds):
            async for batch in self._kept.parts(kind, self._name_of_log if goes_on else ""):
                for number, part in enumerate(batch, 1):
                    self._work.restore(part)
                    if number % SLICE == 0:
                        await asyncio.sleep(0)
        if progress is not None and goes_on:
            self._at = progress.seq
        else:
            self._at = max(oldest.seq - 1, 0)
            if progress is not None:
                self._warn("the log is another one, or an older copy: it is processed from its beginning")
        self._saved_at = self._at
        self._save_at = self._now() + SAVE_SECONDS

    async def _advance(self) -> bool:
        """Take in the next entries and append what follows from them; tell whether there may be more at once."""
        entries, upto = await self._read()
        events: list[NewEvent] = []
        for number, entry in enumerate(entries, 1):
            events += self._take(entry)
            if number % SLICE == 0:
                await asyncio.sleep(0)
        await self._tell(events)
        self._at = max(self._at, upto)
        return self._feed.changed.is_set() or self._at < (self._feed.since or 0)

    def _take(self, entry: Entry) -> list[NewEvent]:
        try:
            return self._work.take(entry)
        except Exception:  # a defect: the next process would meet it again, and so would this one, for ever
            logger.exception("nothing follows from event %s, because of a defect", entry.id)
            return []

    async def _read(self) -> tuple[list[Entry], int]:
        """Return the next entries, and up to where that is everything."""
        feed = self._feed
        assert feed.since is not None, "the tail has begun"
        if feed.generation != self._generation:
            raise Unavailable("the log is another one now")
        if feed.lost:
            feed.lost = False
            self._warn("a part of the log was not seen")
        if self._at >= feed.since:
            entries, upto = feed.take(PORTION)
            return [entry for entry in entries if entry.seq > self._at], upto
        upto = min(self._at + READ_ENTRIES, feed.since)
        entries = await self._log.select(feed.types, feed.without, self._at, upto, PORTION)
        if (await self._log.oldest()).seq > self._at + 1:
            self._warn(f"entries after {self._at} have left the log before they were processed")
        return entries, entries[-1].seq if entries else upto

    def _warn(self, what: str) -> None:
        """Say that something may be missing; it is worth a warning if it matters to anybody."""
        level = logging.WARNING if len(self._work) else logging.INFO
        logger.log(level, "what follows from events may be incomplete: %s", what)

    async def _tell_due(self) -> int:
        """Append what is to be told by now, or a portion of it; return how much it was."""
        told: list[NewEvent] = []
        while len(told) < PORTION and (events := self._work.due(self._now(), SLICE)):
            told += events
            await asyncio.sleep(0)
        await self._tell(told)
        return len(told)

    async def _tell(self, events: list[NewEvent]) -> None:
        for start in range(0, len(events), PORTION):
            if self._now() >= self._held_until:  # this process stood still, and another one may be at work
                raise Unavailable("the lease is over")
            await self._append(events[start : start + PORTION])

    async def _maybe_save(self) -> None:
        """Save state and progress, from time to time. Everything that follows from what was taken in is in the log."""
        now = self._now()
        if now < self._save_at:
            return
        self._save_at = now + SAVE_SECONDS
        saved = 0
        while parts := self._work.changed(SAVE_PORTION):
            await self._kept.write(parts, self._name_of_log)
            saved += len(parts)
        if saved or self._at - self._saved_at >= SAVE_ENTRIES:
            await self._kept.advance(Progress(self._name_of_log, self._at))
            self._saved_at = self._at

    async def _rest(self) -> None:
        """Wait until something comes, or it is time for something: at least once a second, which is when there may be something to save."""
        now = self._now()
        due = self._work.wait(now)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._feed.changed.wait(), min(self._renew_at - now, REST_SECONDS if due is None else due))
