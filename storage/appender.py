"""Appending: requests are grouped, numbered and inserted in order, one group at a time; their senders wait here for their receipts.

The rule that makes the log dense and ordered with any number of writers: a number is tried only by a writer that has seen the number
before it in the log, groups are inserted in order, and whoever loses a number to another writer reads the head again and renumbers.

A lost answer leaves it unknown how much of a group is in the log. It is settled, as soon as MongoDB is back, by looking for the group's
append token: a request that is there whole gets its receipt, one that is there in part is completed, one that is not there at all is
refused, and its sender may try again.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Sequence

from storage.entries import NewEvent, Receipt
from storage.errors import CommandFailed, Overloaded, StorageError, Unavailable
from storage.log import Log
from storage.mongo import DUPLICATE_KEY, Document
from storage.positions import Position

logger = logging.getLogger("tailcast.storage")

GROUP_EVENTS = 1000  # beyond this, larger inserts bring no more events per second (65,000/s measured at 1,000 an insert)
GROUP_BYTES = 8 << 20  # a group stays far below MongoDB's 48 MB a message
QUEUE_BYTES = 32 << 20  # what may wait; beyond it publishers are told to come back
DOCUMENT_OVERHEAD_BYTES = 300
SETTLE_SECONDS = 0.25  # between attempts to learn what became of a group
EXPIRY_SECONDS = 0.25  # how exactly the deadline of a waiting request is kept


class _Request:
    """The events of one publish, appended wholly or not at all."""

    __slots__ = ("deadline", "documents", "future", "receipts", "size")

    def __init__(self, documents: list[Document], size: int, future: asyncio.Future[list[Receipt]], deadline: float) -> None:
        self.documents = documents
        self.size = size
        self.future = future
        self.deadline = deadline  # by the loop's clock
        self.receipts: list[Receipt | None] = [None] * len(documents)

    def begun(self) -> bool:
        """Tell whether one of its events at least is known to be in the log."""
        return any(self.receipts)

    def answer(self) -> None:
        """Give the sender its receipts once it has all of them."""
        if not self.future.done() and all(self.receipts):
            self.future.set_result([receipt for receipt in self.receipts if receipt])

    def refuse(self, error: StorageError) -> None:
        """Tell the sender that it has no receipts to expect."""
        if not self.future.done():
            self.future.set_exception(error)


class _Item:
    """One event of a group: its document, and where its receipt goes."""

    __slots__ = ("document", "index", "request")

    def __init__(self, document: Document, request: _Request, index: int) -> None:
        self.document = document
        self.request = request
        self.index = index

    def received(self, id: str, duplicate: bool) -> None:
        self.request.receipts[self.index] = Receipt(id, duplicate)
        self.request.answer()


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
        self._queue_bytes = queue_bytes
        self._queue: deque[_Request] = deque()
        self._queued_bytes = 0
        self._working: list[_Request] = []  # the group that is being inserted or settled
        self._wake = asyncio.Event()
        self._head: Position | None = None  # of the log, when the last group went in without a surprise; None: read it
        self._uuid: bytes | None = None  # of the log in which `_head` is, and the numbers that are being tried; None before the first
        self._token = secrets.randbits(40) << 20  # of the last group; unique over processes by its random upper part
        self._expiry: asyncio.TimerHandle | None = None  # runs while somebody waits
        self._closed = False
        self.appended = 0  # events, since the start

    async def append(self, events: Sequence[NewEvent]) -> list[Receipt]:
        """Append all events or none, and return their receipts in order once they are journaled (and replicated, on a replica set).

        When this is cancelled the events may be in the log or not.

        Raises:
            Overloaded: If too much is waiting already; nothing was appended.
            Unavailable: If MongoDB is away, or did not confirm in time. Nothing is acknowledged; an event with an id of its publisher's
                can be sent again without harm.
        """
        documents = [event.document() for event in events]
        size = sum(len(event.data) for event in events) + DOCUMENT_OVERHEAD_BYTES * len(documents)
        if self._closed:
            raise Unavailable("the server is stopping")
        if self._queued_bytes and self._queued_bytes + size > self._queue_bytes:
            raise Overloaded("too many events are waiting to be written")
        loop = asyncio.get_running_loop()
        request = _Request(documents, size, loop.create_future(), loop.time() + self._seconds)
        self._queue.append(request)
        self._queued_bytes += size
        self._wake.set()
        if self._expiry is None:
            self._expiry = loop.call_later(EXPIRY_SECONDS, self._refuse_overdue)
        return await request.future

    def _refuse_overdue(self) -> None:
        """Refuse whoever waited too long: from the queue for good; what is being inserted goes on, its sender just hears no more of it."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        while self._queue and self._queue[0].deadline <= now:
            self._dequeue().refuse(Unavailable("MongoDB did not take the events in time"))
        for request in self._working:
            if request.deadline <= now:
                request.refuse(Unavailable("MongoDB did not confirm the events in time"))
        waiting = bool(self._queue) or bool(self._working)
        self._expiry = loop.call_later(EXPIRY_SECONDS, self._refuse_overdue) if waiting else None

    def _dequeue(self) -> _Request:
        request = self._queue.popleft()
        self._queued_bytes -= request.size
        return request

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
            for request in (*self._working, *self._queue):
                request.refuse(Unavailable("the server is stopping"))
            self._working = []
            self._queue.clear()

    def close(self) -> None:
        """Take nothing more, and let `run` return once all that waits is answered."""
        self._closed = True
        self._wake.set()

    def drained(self) -> bool:
        """Tell whether nobody waits for a receipt."""
        return not self._queue and not self._working

    async def _append_group(self) -> None:
        self._working = self._next_group()
        try:
            await self._append_requests(self._working)
        except CommandFailed:  # one by one, then, so that nobody suffers for what is wrong with another's
            for request in self._working:
                await self._append_alone(request)
        self._working = []  # not when this is cancelled: `run` refuses them

    async def _append_alone(self, request: _Request) -> None:
        self._head = None
        try:
            await self._append_requests([request])
        except CommandFailed as error:
            logger.error("append failed: %s", error)
            request.refuse(error)

    async def _append_requests(self, requests: list[_Request]) -> None:
        """Insert those events of some requests that have no receipt yet."""
        items = [
            _Item(document, request, index)
            for request in requests
            for index, document in enumerate(request.documents)
            if request.receipts[index] is None
        ]
        while items:
            items = await self._insert(items)

    def _next_group(self) -> list[_Request]:
        group: list[_Request] = []
        events = size = 0
        while self._queue:
            first = self._queue[0]
            events += len(first.documents)
            size += first.size
            if group and (events > GROUP_EVENTS or size > GROUP_BYTES):
                break
            group.append(self._dequeue())
        return group

    async def _insert(self, items: list[_Item]) -> list[_Item]:
        """Try to insert all items, and return those that are still to be inserted."""
        if self._uuid != self._log.uuid:  # somebody has opened another log since
            self._uuid, self._head = self._log.uuid, None
        try:
            head = self._head or await self._log.head(durable=False)
        except Unavailable:
            return await self._wait_for_head(items)
        self._head = None  # until this insert is known to have gone well
        documents = self._number(items, head)
        try:
            reply = await self._log.insert(documents, self._uuid)
        except Unavailable as error:
            return await self._settle(items, error)
        done, rest = items[: reply["n"]], items[reply["n"] :]
        self._acknowledge(done)
        if not rest:
            last = documents[-1]
            self._head = Position(last["_id"], last["ms"])
            return []
        refusal = reply["writeErrors"][0]
        if refusal["code"] != DUPLICATE_KEY:
            raise CommandFailed(refusal["errmsg"], refusal["code"])
        if "published" in refusal.get("keyPattern", ()):
            return await self._drop_duplicates(rest)
        return rest  # another process took the number: read the head again and renumber

    async def _wait_for_head(self, items: list[_Item]) -> list[_Item]:
        """Nothing was tried yet: drop whom nobody waits for and whom nothing binds, and give MongoDB a moment."""
        left = [item for item in items if item.request.begun() or not item.request.future.done()]
        if left:
            await asyncio.sleep(SETTLE_SECONDS)
        return left

    def _number(self, items: list[_Item], head: Position) -> list[Document]:
        """Give the items the numbers after `head`, a time that never falls along the log, and a token of their own."""
        self._token += 1
        ms = max(self._log.now_ms(), head.ms)
        documents = [item.document for item in items]
        for number, document in enumerate(documents, head.seq + 1):
            document["_id"] = number
            document["ms"] = ms
            document["append"] = self._token
        return documents

    def _acknowledge(self, items: list[_Item]) -> None:
        encode = self._log.codec.encode
        for item in items:
            item.received(encode(item.document["_id"], item.document["ms"]), False)
        self.appended += len(items)

    async def _drop_duplicates(self, items: list[_Item]) -> list[_Item]:
        """Answer those items whose publisher's id is in the log already with the first one's id, and return the others."""
        names = [item.document["published"] for item in items if "published" in item.document]
        try:
            await self._log.barrier()  # a first one that could still roll back is no promise
            found = await self._log.find({"published": {"$in": names}}, fields=("ms", "published"))
        except Unavailable:
            return items  # the next insert meets the duplicate again
        first = {document["published"]: (document["_id"], document["ms"]) for document in found}
        left = []
        for item in items:
            place = first.get(item.document.get("published"))
            if place is None:
                left.append(item)
            else:
                item.received(self._log.codec.encode(*place), True)
        return left

    async def _settle(self, items: list[_Item], error: Unavailable) -> list[_Item]:
        """Learn which items went in although the answer was lost, and return those that must still follow."""
        logger.warning("append in doubt: %s; %d events wait until it is settled", error, len(items))
        while True:
            try:
                await self._log.open()
                await self._log.barrier()
                arrived = await self._arrived(items)
                break
            except Unavailable:
                await asyncio.sleep(SETTLE_SECONDS)
        self._acknowledge([item for item in items if item.document["_id"] in arrived])
        left = [item for item in items if item.document["_id"] not in arrived]
        for item in left:
            if not item.request.begun():
                item.request.refuse(error)
        left = [item for item in left if item.request.begun()]
        logger.warning("append settled: %d events had arrived, %d are completed now", len(arrived), len(left))
        if self._uuid != self._log.uuid:
            return left  # their numbers mean nothing in another log
        return await self._complete(left)

    async def _complete(self, items: list[_Item]) -> list[_Item]:
        """Insert the rest of a publish as it was, and return what must be renumbered because another process was quicker.

        MongoDB may still be busy with the insert whose answer was lost. Under the same number each event can go in only once, and where
        another entry has the number, that insert ends too.
        """
        while items:
            try:
                await self._log.insert([item.document for item in items], self._uuid)
                arrived = await self._arrived(items)
            except Unavailable as error:
                return await self._settle(items, error)
            self._acknowledge([item for item in items if item.document["_id"] in arrived])
            items = [item for item in items if item.document["_id"] not in arrived]
            if not arrived:
                break
        return items

    async def _arrived(self, items: list[_Item]) -> set[int]:
        """Return the numbers among the items' that their own group holds in the log."""
        first, last = items[0].document["_id"], items[-1].document["_id"]
        query = {"_id": {"$gte": first, "$lte": last}, "append": items[0].document["append"]}
        return {document["_id"] for document in await self._log.find(query, fields=("_id",))}
