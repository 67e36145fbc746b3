"""Following: one supervised tailable cursor that feeds every entry of the log, in order, to one receiver.

MongoDB tells a reader nothing when its tailable cursor was overrun or died: so every new cursor starts at the last entry that was
received, and numbers are compared. A cursor that does not start there, or skips a number, is thrown away, and an indexed read decides
whether entries are really gone; if so that is reported, and reading goes on after the hole.

The cursor itself reads locally, and what it finds is passed on only once a majority read has confirmed it: a tailable cursor with read
concern majority is woken when an entry is inserted, finds it not committed yet, and then sleeps until the next insert or its time limit.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Protocol

from bson.binary import UUID_SUBTYPE, Binary

from storage.entries import Entry
from storage.errors import CommandFailed, StorageError
from storage.log import IS_NUMBER, Log
from storage.mongo import CURSOR_GONE
from storage.positions import RECREATED, Position

logger = logging.getLogger("tailcast.storage")

BATCH_ENTRIES = 1000
LEAST_REST_SECONDS = 0.002  # less is not worth a timer
MOST_REST_SECONDS = 0.05
AWAIT_SECONDS = 1.0  # how long MongoDB holds an empty read; below the time after which a silent MongoDB counts as lost
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


class _CursorLost(Exception):
    """The cursor ended, or does not continue where the last one stopped."""


class Follower:
    """Feed a receiver from the head of the log on, for as long as `run` runs."""

    def __init__(self, log: Log, receiver: Receiver) -> None:
        self._log = log
        self._receiver = receiver
        self._uuid: bytes | None = None  # of the log that is being followed; None until the first contact
        self._last = Position(0, 0)  # of the last entry received
        self._rest = 0.0  # seconds that the receiver asked for after the last batch, until they were rested
        self._attempts = 0  # since a cursor lived or something was read last
        self.at_head_since: float | None = None  # loop time of the last proof that nothing was unread; None: none yet

    async def run(self) -> None:
        """Follow for ever, through restarts and failovers of MongoDB. Ends by cancellation only; the receiver then has whole batches."""
        while True:
            try:
                await self._synchronise()
                await self._follow()
            except (_CursorLost, StorageError) as error:
                level = logging.WARNING if self._attempts == 0 else logging.DEBUG
                logger.log(level, "tail interrupted, goes on after entry %d: %s", self._last.seq, error)
                await asyncio.sleep(BACKOFF_SECONDS[min(self._attempts, len(BACKOFF_SECONDS) - 1)])
            self._attempts += 1

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
        while entries := await self._log.read(self._last.seq, BATCH_ENTRIES):
            for run in _without_holes(entries):
                await self._receive_after_hole(run)
        self._proved_at_head()

    async def _begin(self) -> None:
        """Start at the head of a log seen for the first time; another log than before is followed from its beginning."""
        replaced = self._uuid is not None
        head = Position(0, 0) if replaced else await self._log.head()
        self._uuid = self._log.uuid
        self._last = head
        if replaced:
            self._receiver.restart(RECREATED)
        else:
            self._receiver.start(head)

    async def _receive_after_hole(self, entries: list[Entry]) -> None:
        """Pass on entries read by index: a number that is missing here is missing in the log."""
        first = entries[0]
        if self._last.seq and first.seq != self._last.seq + 1:
            oldest = await self._log.oldest()
            reason = EVICTED if oldest.seq >= first.seq else MISSING
            logger.error("log entries %d to %d were not seen: %s", self._last.seq + 1, first.seq - 1, reason)
            self._last = Position(first.seq - 1, first.ms)
            self._receiver.lose(first, reason)
        self._receive(entries)

    def _receive(self, entries: list[Entry]) -> None:
        """Pass on the entries that are new, and insist on their being the next ones."""
        new = [entry for entry in entries if entry.seq > self._last.seq]
        if not new:
            return
        if self._last.seq and (new[0].seq != self._last.seq + 1 or new[-1].seq - new[0].seq != len(new) - 1):
            raise _CursorLost(f"expected entry {self._last.seq + 1}, got {new[0].seq} to {new[-1].seq}")
        self._last = Position(new[-1].seq, new[-1].ms)
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
        database = self._log.database
        session = await database.start_session()
        try:
            cursor, documents = await self._open_cursor(session)
            if not documents or documents[0]["_id"] != self._last.seq:
                raise _CursorLost("its last entry has left the log")
            while True:
                self._receive(self._log.entries(documents))
                if not cursor:
                    raise _CursorLost("MongoDB ended it")
                if len(documents) < BATCH_ENTRIES:
                    self._proved_at_head()
                    await self._let_gather()
                cursor, documents = await self._next_batch(cursor, session)
                if cursor:
                    self._attempts = 0  # also in a log where nothing happens: the next interruption is another one
        finally:
            await session.end_session()

    async def _confirmed(self, reply: dict[str, Any], batch: str) -> tuple[int, list[dict[str, Any]]]:
        """Return a cursor's id and batch once nothing of it can roll back any more.

        The last entry stands for all: they were read from one history, in which it comes after the others.
        """
        documents = reply["cursor"][batch]
        if documents and not await self._log.confirm(documents[-1], reply.get("operationTime")):
            raise _CursorLost("what it had read was rolled back")
        return reply["cursor"]["id"], documents

    async def _open_cursor(self, session: Any) -> tuple[int, list[dict[str, Any]]]:
        assert self._uuid is not None, "the log was opened"
        command = {
            "find": self._log.name,
            "collectionUUID": Binary(self._uuid, UUID_SUBTYPE),  # another log may have come in its place, and have such a number too
            "filter": {"_id": {**IS_NUMBER, "$gte": self._last.seq}},
            "tailable": True,
            "awaitData": True,
            "batchSize": BATCH_ENTRIES,
        }
        return await self._confirmed(await self._log.database.command(command, session), "firstBatch")

    async def _next_batch(self, cursor: int, session: Any) -> tuple[int, list[dict[str, Any]]]:
        command = {
            "getMore": cursor,
            "collection": self._log.name,
            "batchSize": BATCH_ENTRIES,
            "maxTimeMS": round(AWAIT_SECONDS * 1000),
        }
        try:
            reply = await self._log.database.command(command, session)
        except CommandFailed as error:
            if error.code in CURSOR_GONE:
                raise _CursorLost(f"MongoDB dropped it (error {error.code})") from error
            raise
        return await self._confirmed(reply, "nextBatch")


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
