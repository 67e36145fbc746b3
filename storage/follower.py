"""Following: one supervised tailable cursor that feeds every entry of the log, in order, to one receiver.

MongoDB tells a reader nothing when its tailable cursor was overrun or died: so every new cursor starts at the last entry that was
received, and numbers are compared. A cursor that does not start there, or skips a number, is thrown away, and an indexed read decides
whether entries are really gone; if so that is reported, and reading goes on after the hole.

A MongoDB whose files were put back from an older copy has the same log with another end. So wherever reading goes on, the entry that was
received last must be there as it was; if it is not, it is as if the log had been made anew.
"""

from __future__ import annotations

import asyncio
import logging
from typing import NamedTuple, Protocol

from storage.cursor import BATCH_ENTRIES, Cursor, CursorLost
from storage.entries import NO_TOKEN, Entry, ms_of
from storage.errors import StorageError
from storage.log import Log
from storage.mongo import Document
from storage.positions import RECREATED, Position

logger = logging.getLogger("tailcast.storage")

CROWD_ENTRIES = 4  # in one batch: there are several publishers, who wait for their answers
LEAST_REST_SECONDS = 0.002  # less is not worth a timer
MOST_REST_SECONDS = 0.05
CLOSE_SECONDS = 0.5  # what the end waits for MongoDB to forget the cursor
BACKOFF_SECONDS = (0.0, 0.05, 0.1, 0.25, 0.5, 1.0)  # between attempts; the last one repeats
EVICTED = "evicted"
MISSING = "missing"


class Receiver(Protocol):
    """Who is fed."""

    def start(self, head: Position) -> None:
        """Begin after `head`: what was appended before is not fed."""

    def receive(self, entries: list[Entry]) -> float:
        """Take the next entries, without a hole to the ones before; return for how many seconds it pays to let more gather."""

    def lose(self, first: Entry, reason: str) -> None:
        """Learn that everything between the last entry and `first` is gone: evicted, or missing without an explanation."""

    def restart(self, reason: str) -> None:
        """Learn that the log is another one now: nothing received so far has a place in it."""


class _Last(NamedTuple):
    """The last entry received, as far as it is known: its place, and its token (None: not known)."""

    seq: int
    ms: int
    token: int | None

    def is_in(self, document: Document) -> bool:
        """Tell whether this is the entry in a document with its number."""
        return ms_of(document) == self.ms and self.token in (None, document.get("append", NO_TOKEN))


class Follower:
    """Feed a receiver from the head of the log on, for as long as `run` runs."""

    def __init__(self, log: Log, receiver: Receiver) -> None:
        self._log = log
        self._receiver = receiver
        self._uuid: bytes | None = None  # of the log that is being followed; None until the first contact
        self._last = _Last(0, 0, None)  # number 0: nothing is received yet
        self._closing: set[asyncio.Task[None]] = set()  # cursors that were given up and that MongoDB is told to forget
        self._rest = 0.0  # seconds that the receiver asked for after the last batch, until they were rested
        self._attempts = 0  # since a cursor lived or something was read last
        self.at_head_since: float | None = None  # loop time of the last proof that nothing was unread; None: none yet

    async def run(self) -> None:
        """Follow for ever, through restarts and failovers of MongoDB. Ends by cancellation only; the receiver then has whole batches."""
        try:
            while True:
                try:
                    await self._synchronise()
                    await self._follow()
                except (CursorLost, StorageError) as error:
                    level = logging.WARNING if self._attempts == 0 else logging.DEBUG
                    logger.log(level, "tail interrupted, goes on after entry %d: %s", self._last.seq, error)
                    await asyncio.sleep(BACKOFF_SECONDS[min(self._attempts, len(BACKOFF_SECONDS) - 1)])
                self._attempts += 1
        finally:
            await self._end()

    def lag(self) -> float:
        """Return for how many seconds nobody has been sure to have read everything; infinite before the first contact."""
        if self.at_head_since is None:
            return float("inf")
        return asyncio.get_running_loop().time() - self.at_head_since

    async def _synchronise(self) -> None:
        """Open the log, and read by index what was appended since the last entry received."""
        await self._log.open()
        if self._uuid != self._log.uuid:
            await self._begin()
        elif not await self._continues():
            logger.error("the log does not have entry %d any more as it was: an older copy of MongoDB's files was put back", self._last.seq)
            self._begin_again()
        while entries := await self._log.read(self._last.seq, BATCH_ENTRIES):
            for run in _without_holes(entries):
                await self._receive_after_hole(run)
        self._proved_at_head()

    async def _begin(self) -> None:
        """Start at the head of a log seen for the first time; another log than before is followed from its beginning."""
        if self._uuid is not None:
            self._begin_again()
            return
        head = await self._log.head()
        self._uuid = self._log.uuid
        self._last = _Last(*head, None)
        self._receiver.start(head)

    def _begin_again(self) -> None:
        self._uuid = self._log.uuid
        self._last = _Last(0, 0, None)
        self._receiver.restart(RECREATED)

    async def _continues(self) -> bool:
        """Tell whether the log goes on from the last entry received: it is there as it was, or evicted."""
        if await self._has_last():
            return True
        await self._log.barrier()  # after a failover, a majority read may for a moment see less than was confirmed before
        return await self._has_last()

    async def _has_last(self) -> bool:
        if not self._last.seq:
            return True
        found = await self._log.find({"_id": self._last.seq}, limit=1, fields=("ms", "append"))
        return self._last.is_in(found[0]) if found else (await self._log.head()).seq > self._last.seq

    async def _receive_after_hole(self, entries: list[Entry]) -> None:
        """Pass on entries read by index: a number that is missing here is missing in the log."""
        first = entries[0]
        if self._last.seq and first.seq != self._last.seq + 1:
            oldest = await self._log.oldest()
            reason = EVICTED if oldest.seq >= first.seq else MISSING
            logger.error("log entries %d to %d were not seen: %s", self._last.seq + 1, first.seq - 1, reason)
            self._last = _Last(first.seq - 1, first.ms, None)
            self._receiver.lose(first, reason)
        self._receive(entries)

    def _receive(self, entries: list[Entry]) -> None:
        """Pass on the entries that are new, and insist on their being the next ones."""
        new = [entry for entry in entries if entry.seq > self._last.seq]
        if not new:
            return
        if self._last.seq and (new[0].seq != self._last.seq + 1 or new[-1].seq - new[0].seq != len(new) - 1):
            raise CursorLost(f"expected entry {self._last.seq + 1}, got {new[0].seq} to {new[-1].seq}")
        self._last = _Last(new[-1].seq, new[-1].ms, new[-1].token)
        self._attempts = 0
        self._rest = self._receiver.receive(new)

    async def _let_gather(self) -> None:
        """Rest as long as the receiver asked for: what is appended meanwhile comes with the next batch."""
        rest, self._rest = self._rest, 0.0
        if rest >= LEAST_REST_SECONDS:
            await asyncio.sleep(min(rest, MOST_REST_SECONDS))

    def _proved_at_head(self) -> None:
        self.at_head_since = asyncio.get_running_loop().time()

    async def _follow(self) -> None:
        """Read from a new tailable cursor until it is lost. Its first batch must begin with the last entry received."""
        assert self._uuid is not None, "the log was opened"
        cursor = Cursor(self._log, self._uuid)
        try:
            documents = await cursor.open(self._last.seq)
            if not documents or documents[0]["_id"] != self._last.seq or not self._last.is_in(documents[0]):
                raise CursorLost("its last entry has left the log")
            while True:
                self._receive(self._log.entries(documents))
                if cursor.alive() and len(documents) < BATCH_ENTRIES:
                    self._proved_at_head()
                    await self._let_gather()
                documents = await cursor.next()
                if len(documents) >= CROWD_ENTRIES:
                    await asyncio.sleep(0)  # who published them is answered first, and makes the next ones while these are passed on
                if cursor.alive():
                    self._attempts = 0  # also in a log where nothing happens: the next interruption is another one
        finally:
            self._give_up(cursor)

    def _give_up(self, cursor: Cursor) -> None:
        """Let MongoDB forget a cursor, beside what goes on."""
        task = asyncio.get_running_loop().create_task(cursor.close(), name="close the tail's cursor")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _end(self) -> None:
        """Give MongoDB a moment to forget the cursors that were given up; then end."""
        closing = set(self._closing)
        if closing:
            _, late = await asyncio.wait(closing, timeout=CLOSE_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*closing, return_exceptions=True)


def _without_holes(entries: list[Entry]) -> list[list[Entry]]:
    """Split entries into runs of consecutive numbers; nearly always there is one."""
    if entries[-1].seq - entries[0].seq == len(entries) - 1:
        return [entries]
    runs: list[list[Entry]] = []
    for entry in entries:
        if runs and entry.seq == runs[-1][-1].seq + 1:
            runs[-1].append(entry)
        else:
            runs.append([entry])
    return runs
