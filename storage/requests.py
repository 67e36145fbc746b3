"""Publishes that wait to be in the log: each goes in wholly or not at all, first come first served, in bounded groups. No I/O."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from storage.entries import NewEvent, Receipt
from storage.errors import Overloaded, StorageError, Unavailable
from storage.mongo import Document

GROUP_EVENTS = 1000  # beyond this, larger inserts bring no more events per second (65,000/s measured at 1,000 an insert)
GROUP_BYTES = 8 << 20  # a group stays far below MongoDB's 48 MB a message
DOCUMENT_OVERHEAD_BYTES = 300


class Item:
    """One event on its way: its document, and its receipt once it is known to be in the log.

    It does not know its request: that would be a cycle, and hold the payloads of a publish until the garbage collector comes.
    """

    __slots__ = ("document", "receipt", "untold")

    def __init__(self, document: Document) -> None:
        self.document = document
        self.receipt: Receipt | None = None
        self.untold = False  # whether it is in the log cannot be learned any more


class Request:
    """The events of one publish.

    Args:
        events: What was published.
        future: What its sender waits for.
        deadline: Until when, by the loop's clock.
    """

    __slots__ = ("abandoned", "deadline", "future", "items", "size")

    def __init__(self, events: Sequence[NewEvent], future: asyncio.Future[list[Receipt]], deadline: float) -> None:
        self.items = [Item(event.document()) for event in events]
        self.size = sum(len(event.data) for event in events) + DOCUMENT_OVERHEAD_BYTES * len(events)
        self.future = future
        self.deadline = deadline
        self.abandoned = False  # nothing more of it is tried, whatever is in the log

    def missing(self) -> list[Item]:
        """Return those of its events that must still get into the log: none if its sender gave up before the first of them was there."""
        if self.abandoned or (self.future.done() and not self._begun()):
            return []
        return [item for item in self.items if item.receipt is None]

    def _begun(self) -> bool:
        return any(item.receipt for item in self.items)

    def answer(self) -> None:
        """Give the sender its receipts once it has all of them; refuse it once there is one that cannot be had."""
        if any(item.untold for item in self.items):  # trying again might double events, so the sender must decide
            self.abandon(Unavailable("the log moved on before MongoDB confirmed the events"))
        receipts = [item.receipt for item in self.items if item.receipt]
        if not self.future.done() and len(receipts) == len(self.items):
            self.future.set_result(receipts)

    def refuse(self, error: StorageError) -> None:
        """Tell the sender that it has no receipts to expect."""
        if not self.future.done():
            self.future.set_exception(error)

    def abandon(self, error: StorageError) -> None:
        """Refuse it, and try nothing more of it."""
        self.abandoned = True
        self.refuse(error)

    def start_over(self) -> None:
        """Forget the receipts of a log that is not there any more, unless the sender has them all."""
        if self.missing():
            for item in self.items:
                item.receipt = None


class Queue:
    """Requests in the order in which they came.

    Args:
        limit_bytes: How much may wait. A request that is larger than this is taken when nothing else waits: it would never be otherwise.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._requests: deque[Request] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._requests)

    def put(self, request: Request) -> None:
        """Add a request.

        Raises:
            Overloaded: If too much waits already.
        """
        if self._bytes and self._bytes + request.size > self._limit_bytes:
            raise Overloaded("too many events are waiting to be written")
        self._requests.append(request)
        self._bytes += request.size

    def _take(self) -> Request:
        request = self._requests.popleft()
        self._bytes -= request.size
        return request

    def take_group(self) -> list[Request]:
        """Take what goes into one insert: at least one request, and none in part."""
        group: list[Request] = []
        events = size = 0
        while self._requests:
            first = self._requests[0]
            events += len(first.items)
            size += first.size
            if group and (events > GROUP_EVENTS or size > GROUP_BYTES):
                break
            group.append(self._take())
        return group

    def refuse_overdue(self, now: float) -> None:
        """Refuse for good what waited too long; all wait equally long, so the first is the first to be overdue."""
        while self._requests and self._requests[0].deadline <= now:
            self._take().refuse(Unavailable("MongoDB did not take the events in time"))

    def refuse_all(self, error: StorageError) -> None:
        """Refuse everything that waits."""
        while self._requests:
            self._take().refuse(error)
