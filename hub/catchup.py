"""Catching up: everybody who is behind the head reads on from its position, a chunk at a time, in turn.

One task for all. It works in slices, so that live events never wait long for those who are behind; entries come from the window or from
shared pages; who meets a full socket leaves the queue until it has drained.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from itertools import islice
from typing import Protocol

from hub.connection import Connection, Start, State
from hub.errors import INTERNAL
from hub.formats import rfc3339
from hub.gathering import RATE_SECONDS, newest_of_each
from hub.pages import EntryLog, Page, Pages
from hub.router import Router
from hub.turns import Turns
from hub.window import Window
from storage.entries import Entry
from storage.positions import RECREATED, UNKNOWN, Position

logger = logging.getLogger("tailcast.hub")

# Of reading, before the event loop gets a turn. An event on its way to another client takes some ten turns: at 3 ms each it took 35 ms
# while eight WebSockets of one user replayed without a pause, at half a millisecond 13. A thousand clients that return are served as
# soon as before.
SLICE_SECONDS = 0.0005
LOOK_ENTRIES = 512  # looked at in one turn of one connection, whether they are for it or not
# The same for a paced one. As long as it looks at more than its socket takes of the newest, it gets to the head, however fast that moves:
# this is a second of 20,000 updates, and some 10 ms.
PACED_LOOK_ENTRIES = 20_000
EVICTED = "evicted"
MISSING = "missing"
GONE = -1  # in the place of a time
RETRY_MS = 1000  # after which a client comes back that could not be served


class Host(Protocol):
    """Whose connections they are: the hub."""

    @property
    def head(self) -> Position:
        """As far as this process has seen the log."""

    def arrived(self, connection: Connection) -> None:
        """Take a connection that has read everything up to the head."""

    def wait_for_head(self, connection: Connection) -> None:
        """Take a connection that can read on only when the head has moved."""

    def id_of(self, position: Position) -> str:
        """Return a place's id."""

    def close(self, connection: Connection, code: int, reason: str, retry_ms: int | None = None) -> None:
        """End a connection."""


class CatchUp:
    """The queue of connections that read on.

    Args:
        host: Whose they are.
        router: Says what is for whom.
        window: The newest entries.
        log: Where older ones are read.
        clock: Seconds, monotonic.
        chunk_bytes: How much one connection is given at a time.
    """

    def __init__(
        self,
        host: Host,
        *,
        router: Router,
        window: Window,
        log: EntryLog,
        clock: Callable[[], float],
        chunk_bytes: int,
    ) -> None:
        self._host = host
        self._router = router
        self._window = window
        self.pages = Pages(log, self._page_ready, self._page_failed)
        self._clock = clock
        self._chunk_bytes = chunk_bytes
        self._queue: Turns[Page | None] = Turns()  # each with the page in hand, if there is one
        self._wake = asyncio.Event()
        self.replayed = 0  # entries given to connections behind the head, since the start
        self.gaps = 0  # reported to connections, since the start
        self.conflated = 0  # entries that were left out for paced connections because a newer one with their key follows, since the start

    def enqueue(self, connection: Connection, page: Page | None = None) -> None:
        """Give a connection in state READING its turn; one that is queued already has it at its place in the queue."""
        self._queue.put(connection, page)
        self._wake.set()

    def clear(self) -> None:
        """Forget what was read and who waits: the log is another one."""
        self._queue.clear()
        self.pages.clear()

    def _page_ready(self, connection: Connection, page: Page | None) -> None:
        if connection.state is State.READING:
            self.enqueue(connection, page)

    def _page_failed(self, connection: Connection) -> None:
        """Send a connection away that cannot be served: it may come back, to its position."""
        if connection.state is State.READING:
            self._host.close(connection, INTERNAL, "what comes next cannot be read", RETRY_MS)

    async def run(self) -> None:
        """Serve the queue, until cancelled; no connection is left half-served then."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                self._work(self._clock() + SLICE_SECONDS)
                await asyncio.sleep(0)  # live events and other sockets have their turn

    def _work(self, until: float) -> None:
        while self._queue and self._clock() < until:
            connection, page = self._queue.take()
            if connection.state is State.READING:  # it may have closed while it waited
                self._step(connection, page)

    def _step(self, connection: Connection, page: Page | None) -> None:
        """Give one connection its next chunk."""
        if not self._verify(connection, page):
            return
        head = self._host.head.seq
        if connection.position.seq >= head:
            self._host.arrived(connection)
            return
        found = self._find(connection.position.seq, page, LOOK_ENTRIES if connection.terms.pace is None else PACED_LOOK_ENTRIES)
        if found is None:
            self.pages.request(connection.position.seq, connection)
            return
        entries, index, reason = found
        if entries[index].seq > head:  # MongoDB knows more than this process has seen, and what was before is evicted
            self._host.wait_for_head(connection)
            return
        if self._leap(connection, entries[index], reason):
            self._read_chunk(connection, entries, index, head)
        if connection.state is not State.READING:
            return
        if connection.position.seq >= head:
            self._host.arrived(connection)
        else:
            self.enqueue(connection, page)

    def _verify(self, connection: Connection, page: Page | None) -> bool:
        """See whether the ids a connection came with name the entries that the log has there; False: a page must be fetched first.

        An id is sealed, so one that names another entry was issued before an older copy of the log was put back. Its client had entries
        that are not there any more, and others have taken their numbers.
        """
        while connection.start is not None and connection.start.claims:
            (position, id), *others = connection.start.claims
            if 0 < position.seq <= self._host.head.seq:
                found = self._time_at(position.seq, page)
                if found is None:
                    self.pages.request(position.seq - 1, connection)
                    return False
                if found not in (position.ms, GONE):
                    connection.start_over(position.seq, Start(Position(0, 0), (id, RECREATED)))
                    return True
            # Each only once: the page of one may be forgotten while that of another is read, and so on in a circle.
            connection.start = connection.start._replace(claims=tuple(others))
        return True

    def _time_at(self, seq: int, page: Page | None) -> int | None:
        """Return when entry `seq` was appended; GONE if it is not in the log, None if a page must be fetched to know."""
        head = self._host.head
        if seq == head.seq:
            return head.ms
        found = self._find(seq - 1, page)
        if found is None:
            return None
        entries, index, _ = found
        return entries[index].ms if entries[index].seq == seq else GONE

    def _find(self, position: int, page: Page | None, limit: int = LOOK_ENTRIES) -> tuple[list[Entry], int, str] | None:
        """Return entries, the index among them of the first after `position`, and why others are not there that should be before it; None
        when they must be fetched.
        """
        if self._window.covers(position):
            return self._window.after(position, limit), 0, MISSING
        if page is None or not page.serves(position):  # read on past it, or went back before it
            page = self.pages.cached(position)
        if page is None:
            return None
        index = page.after_position(position)
        return page.entries, index, EVICTED if page.evicted and index == 0 else MISSING

    def _leap(self, connection: Connection, first: Entry, reason: str) -> bool:
        """Move over entries that are gone, and say so; False when that filled the sink."""
        start, connection.start = connection.start, None
        before = Position(first.seq - 1, first.ms)
        if start is not None and start.lost is not None:
            return self.report_gap(connection, *start.lost, before)
        if first.seq == connection.position.seq + 1:
            return True
        if start is not None and start.from_earliest and not connection.missed(first.seq):
            connection.position = before
            return True
        return self.report_gap(connection, self._host.id_of(connection.position), reason, before)

    def report_gap(self, connection: Connection, lost_from: str, reason: str, to: Position) -> bool:
        """Tell a connection which part of the log it will never get, and move it to the end of that part; False: the sink is full now."""
        self.gaps += 1
        fields = {
            "from": lost_from,
            "to": self._host.id_of(to),
            "reason": reason,
            "fromTime": None if reason == UNKNOWN else _time_of(lost_from),
            "toTime": rfc3339(to.ms),
        }
        known = {} if reason == UNKNOWN else {"from": lost_from}  # what is no id of this log may be anything, a token too
        logger.warning("gap reported", extra={"fields": {**connection.describe(), **fields, "from": None, **known}})
        connection.position = to
        if connection.offer(connection.format.message("gap", fields, fields["to"])):
            return True
        connection.detach(State.BLOCKED, to)
        return False

    def _read_chunk(self, connection: Connection, entries: list[Entry], index: int, head: int) -> None:
        collect = self._collect if connection.terms.pace is None else self._collect_paced
        parts, last = collect(connection, entries, index, head)
        connection.position = Position(last.seq, last.ms)
        if not parts:
            return
        self.replayed += len(parts)
        connection.replayed = (connection.replayed or 0) + len(parts)
        if not connection.offer(connection.format.join(parts)):
            connection.detach(State.BLOCKED, connection.position)

    def _collect(self, connection: Connection, entries: list[Entry], index: int, head: int) -> tuple[list[bytes], Entry]:
        """Return what a connection gets next, and the last entry looked at.

        That is up to a chunk, but one entry at least if there is any for it; and nothing beyond the head, where being pushed begins.
        """
        interest, encode, concerns = connection.interest, connection.format.event, self._router.concerns
        assert interest is not None
        parts: list[bytes] = []
        room = self._chunk_bytes
        last = entries[index]
        expected = last.seq
        for entry in entries[index : index + LOOK_ENTRIES]:
            if entry.seq != expected or entry.seq > head:
                break  # a hole is reported in the next turn
            expected += 1
            covered = entry.seq <= connection.covered_to
            if connection.wants(entry) if covered else concerns(interest, entry):
                encoded = encode(entry)
                if parts and len(encoded) > room:
                    break
                parts.append(encoded)
                room -= len(encoded)
            last = entry
        return parts, last

    def _collect_paced(self, connection: Connection, entries: list[Entry], index: int, head: int) -> tuple[list[bytes], Entry]:
        """Return the same for a paced connection: of all it can look at, if that is more than its pace allows, the newest of each key."""
        pace = connection.terms.pace
        assert pace is not None
        owed, last = self._owed(connection, entries, index, head)
        seconds = max(RATE_SECONDS, (last.ms - entries[index].ms) / 1000)
        kept = newest_of_each(owed) if len(owed) > pace.above * seconds else owed
        encode = connection.format.event
        parts: list[bytes] = []
        room = self._chunk_bytes
        for count, entry in enumerate(kept):
            encoded = encode(entry)
            if parts and len(encoded) > room:
                last = kept[count - 1]
                break
            parts.append(encoded)
            room -= len(encoded)
        if len(kept) < len(owed):
            self.conflated += sum(entry.seq <= last.seq for entry in owed) - len(parts)
        return parts, last

    def _owed(self, connection: Connection, entries: list[Entry], index: int, head: int) -> tuple[list[Entry], Entry]:
        """Return those of the entries that are for a connection, and the last one looked at: none beyond a hole or the head."""
        interest, concerns = connection.interest, self._router.concerns
        assert interest is not None
        owed: list[Entry] = []
        last = entries[index]
        for expected, entry in enumerate(islice(entries, index, None), last.seq):
            if entry.seq != expected or entry.seq > head:
                break
            if connection.wants(entry) if entry.seq <= connection.covered_to else concerns(interest, entry):
                owed.append(entry)
            last = entry
        return owed, last


def _time_of(id: str) -> str | None:
    """Return the time in an id, None if there is none in it: it may be anything a client sent."""
    milliseconds = id.partition("-")[0]
    if not (milliseconds.isascii() and milliseconds.isdigit() and 0 < len(milliseconds) <= 14):
        return None
    return rfc3339(int(milliseconds))
