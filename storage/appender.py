"""Appending: requests are grouped, numbered and inserted in order, one group at a time; their senders wait here for their receipts.

The rule that makes the log dense and ordered with any number of writers: a number is tried only by a writer that has seen the number
before it in the log, groups are inserted in order, and whoever loses a number to another writer reads the head again and renumbers.

A group is appended in rounds: learn what became of inserts without an answer, then insert what is missing. When MongoDB answers
nothing, or goes and comes back, that is only more rounds. A group is over when nothing of it is missing and nothing of it can still
arrive: then each request is in the log wholly, or not at all and never will be (see doubt.py).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Sequence

from storage.doubt import FENCE, Arrived, Attempt, Doubt
from storage.entries import NewEvent, Receipt, ms_of
from storage.errors import CommandFailed, Unavailable
from storage.log import IS_NUMBER, Log
from storage.mongo import DUPLICATE_KEY
from storage.positions import Position
from storage.requests import Item, Queue, Request

logger = logging.getLogger("tailcast.storage")

QUEUE_BYTES = 32 << 20  # what may wait; beyond it publishers are told to come back
PAUSE_SECONDS = 0.25  # between rounds while MongoDB is away
EXPIRY_SECONDS = 0.25  # how exactly the deadline of a waiting request is kept
# For how long the place of the last group counts as the head. Within a second a connection that broke is an error; after that the
# driver replaces it silently, and who knows which MongoDB, with which files, is behind the new one.
HEAD_SECONDS = 1.0


class Appender:
    """The one writer of this process.

    Args:
        log: Where to.
        seconds: How long a publish waits for MongoDB before it is refused with Unavailable.
        queue_bytes: How much may wait to be appended before a publish is refused with Overloaded.
    """

    def __init__(self, log: Log, *, seconds: float = 5.0, queue_bytes: int = QUEUE_BYTES) -> None:
        self._log = log
        self._seconds = seconds
        self._queue = Queue(queue_bytes)
        self._working: list[Request] = []  # the group that is being appended
        self._wake = asyncio.Event()
        self._head: Position | None = None  # of the log, when the last insert went in without a surprise; None: read it
        self._head_at = 0.0  # loop time of that insert
        self._uuid: bytes | None = None  # of the log in which all numbers here are; None before the first
        self._doubt: Doubt | None = None  # None: every insert was answered
        self._token = secrets.randbits(40) << 20  # of the last insert; unique over processes by its random upper part
        self._expiry: asyncio.TimerHandle | None = None  # runs while somebody waits
        self._closed = False
        self.appended = 0  # events, since the start

    async def append(self, events: Sequence[NewEvent]) -> list[Receipt]:
        """Append all events or none, and return their receipts in order once they are journaled (and replicated, on a replica set).

        When this is cancelled the events may be in the log, all of them, or not.

        Raises:
            Overloaded: If too much is waiting already; nothing was appended.
            Unavailable: If MongoDB is away, or did not confirm in time. Nothing is acknowledged; the events are in the log or come
                there all, or none of them does. An event with an id of its publisher's can be sent again without harm.
        """
        if self._closed:
            raise Unavailable("the server is stopping")
        loop = asyncio.get_running_loop()
        request = Request(events, loop.create_future(), loop.time() + self._seconds)
        self._queue.put(request)
        self._wake.set()
        if self._expiry is None:
            self._expiry = loop.call_later(EXPIRY_SECONDS, self._refuse_overdue)
        return await request.future

    def _refuse_overdue(self) -> None:
        """Refuse whoever waited too long: from the queue for good; what is being inserted goes on, its sender just hears no more of it."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._queue.refuse_overdue(now)
        for request in self._working:
            if request.deadline <= now:
                request.refuse(Unavailable("MongoDB did not confirm the events in time"))
        self._expiry = None if self.drained() else loop.call_later(EXPIRY_SECONDS, self._refuse_overdue)

    async def run(self) -> None:
        """Append what comes, until `close` and the last waiting request is answered. Cancelling refuses everybody who waits."""
        try:
            while not (self._closed and not self._queue):
                await self._wake.wait()
                self._wake.clear()
                while self._queue:
                    await self._append_group()
        finally:
            self._closed = True
            if self._expiry is not None:
                self._expiry.cancel()
            stopping = Unavailable("the server is stopping")
            for request in self._working:
                request.refuse(stopping)
            self._working = []
            self._queue.refuse_all(stopping)

    def close(self) -> None:
        """Take nothing more, and let `run` return once all that waits is answered."""
        self._closed = True
        self._wake.set()

    def drained(self) -> bool:
        """Tell whether nobody waits for a receipt."""
        return not self._queue and not self._working

    async def _append_group(self) -> None:
        self._working = self._queue.take_group()
        try:
            await self._append_all(self._working)
        except CommandFailed:  # one by one, then, so that nobody suffers for what is wrong with another's
            for request in self._working:
                await self._append_alone(request)
        self._working = []  # not when this is cancelled: `run` refuses them

    async def _append_alone(self, request: Request) -> None:
        try:
            await self._append_all([request])
        except CommandFailed as error:
            logger.error("append failed: %s", error)
            request.abandon(error)

    async def _append_all(self, requests: list[Request]) -> None:
        """Insert in rounds, until nothing of these requests is missing, and nothing is in doubt.

        What a round leaves is the next one's: because an answer was lost, another process took a number, or an event was there already.
        """
        while True:
            await self._settle()
            self._follow_log(requests)
            items = [item for request in requests for item in request.missing()]
            if not items and self._doubt:
                items = [self._doubt.fence]
            if not items:
                return
            await self._insert(items)

    async def _settle(self) -> None:
        """Learn which events went in although the answer was lost; return once MongoDB has told."""
        while self._doubt:
            try:
                await self._log.open()
                if self._uuid != self._log.uuid:
                    return  # numbers mean nothing in another log
                await self._log.barrier()
                query, limit = self._doubt.query()
                found = await self._log.find(query, limit=limit, fields=("append",))
            except Unavailable:
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            self._acknowledge(self._doubt.learn(found))
            self._answer()
            if self._doubt.over():
                self._end_doubt()
            return

    def _follow_log(self, requests: list[Request]) -> None:
        """When the log is another one now, forget what was known of the old one: what is not answered yet is appended here as a whole."""
        if self._uuid == self._log.uuid:
            return
        self._uuid, self._head = self._log.uuid, None
        self._end_doubt()
        for request in requests:
            request.start_over()

    async def _insert(self, items: list[Item]) -> None:
        """Try to insert all items, and note what became of them."""
        try:
            head = await self._head_of_log()
        except Unavailable:  # nothing was tried
            await asyncio.sleep(PAUSE_SECONDS)
            return
        self._head = None  # until this insert is known to have gone well
        attempt = (self._doubt and self._doubt.same(items)) or self._number(items, head)
        try:
            reply = await self._log.insert(attempt.documents(), self._uuid)
        except Unavailable as error:
            await self._lose(attempt, head, error)
            return
        if reply["n"]:
            self._end_doubt()  # it got the number, so nobody else did
        arrived = attempt.arrived(reply["n"])
        self._acknowledge(arrived)
        self._answer()
        if len(arrived) == len(items):
            self._head, self._head_at = arrived[-1].place, asyncio.get_running_loop().time()
            return
        refusal = reply["writeErrors"][0]
        if refusal["code"] != DUPLICATE_KEY:
            raise CommandFailed(refusal["errmsg"], refusal["code"])
        if "published" in refusal.get("keyPattern", ()):
            await self._settle()  # before an event that arrived after all is taken for its own duplicate
            await self._answer_duplicates([item for item in items if item.receipt is None])

    async def _head_of_log(self) -> Position:
        """Return the place after which numbers may be tried."""
        if self._doubt:
            return self._doubt.before
        if self._head and asyncio.get_running_loop().time() - self._head_at < HEAD_SECONDS:
            return self._head
        return await self._log.head(durable=False)

    def _number(self, items: list[Item], head: Position) -> Attempt:
        """Give the items the numbers after `head`, a time that never falls along the log, and a token of their own."""
        self._token += 1
        return Attempt(head, max(self._log.now_ms(), head.ms), self._token, items)

    async def _lose(self, attempt: Attempt, head: Position, error: Unavailable) -> None:
        """Note that the answer to an insert is missing."""
        if self._doubt:  # again: MongoDB comes and goes
            self._doubt.add(attempt)
            await asyncio.sleep(PAUSE_SECONDS)
            return
        logger.warning("append in doubt: %s; %d events wait until it is settled", error, len(attempt.items))
        self._doubt = Doubt(head)
        self._doubt.add(attempt)

    def _end_doubt(self) -> None:
        if self._doubt:
            logger.warning("append settled: nothing is in doubt after entry %d", self._doubt.before.seq)
            self._doubt = None

    def _acknowledge(self, arrived: list[Arrived]) -> None:
        encode = self._log.codec.encode
        for item, place in arrived:
            item.receipt = Receipt(encode(*place), False)
            self.appended += item.document["type"] != FENCE["type"]

    def _answer(self) -> None:
        for request in self._working:
            request.answer()

    async def _answer_duplicates(self, items: list[Item]) -> None:
        """Answer those items whose publisher's id is in the log already with the first one's id."""
        names = [item.document["published"] for item in items if "published" in item.document]
        try:
            await self._log.barrier()  # a first one that could still roll back is no promise
            found = await self._log.find({"_id": IS_NUMBER, "published": {"$in": names}}, fields=("ms", "published"))
        except Unavailable:
            return  # the next insert meets the duplicate again
        first = {document["published"]: (int(document["_id"]), ms_of(document)) for document in found}
        for item in items:
            place = first.get(item.document.get("published"))
            if place is not None:
                item.receipt = Receipt(self._log.codec.encode(*place), True)
        self._answer()
