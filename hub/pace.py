"""Pace: connections that get what is new at most so often. What came between two deliveries is gathered once for all who share an interest.

A paced connection at the head of the log stands before the first entry that is pending for it. So whatever happens to it, from a full
socket to other rights, it reads on from there like any other, and has lost nothing but what was superseded.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from itertools import count

from hub.connection import Connection, State, offer_all
from hub.interest import Interest
from storage.entries import HIGH, Entry
from storage.positions import Position

TICK_SECONDS = 0.01  # between looks at what is due: interests that are due at about the same time cost the loop one turn
SLICE_SECONDS = 0.001  # of delivering, before the event loop gets a turn


class Pacer:
    """The deliveries of all paced interests, and the ticker that makes them.

    Args:
        clock: Seconds, monotonic.
        chunk_bytes: About how much one send may hold.
    """

    def __init__(self, clock: Callable[[], float], chunk_bytes: int) -> None:
        self._clock = clock
        self._chunk_bytes = chunk_bytes
        self._queue: list[tuple[float, int, Interest[Connection]]] = []  # a heap of those with something pending, by when it is due
        self._numbers = count()  # of those due at the same time, the first that came is served first
        self._wake = asyncio.Event()
        self.delivered = 0  # entries handed to sinks, since the start
        self.sends = 0  # in which they were
        self.conflated = 0  # entries that were not handed to a sink because a newer one with their key was

    def receive(self, interest: Interest[Connection], entries: list[Entry], before: Position) -> None:
        """Take new entries for an interest, the first of which comes right after `before`.

        They are delivered at once after a quiet spell, and if one is of high priority: then with everything that is pending before it.
        """
        gathering = interest.gathering
        assert gathering is not None, "an interest without pace is pushed to"
        now = self._clock()
        quiet = not gathering.entries and gathering.due <= now
        self.conflated += gathering.add(entries, before, now) * len(interest.attached)
        if quiet or gathering.full or any(entry.priority == HIGH for entry in entries):
            self.flush(interest)
        elif not gathering.queued:
            self._enqueue(interest)

    def _enqueue(self, interest: Interest[Connection]) -> None:
        gathering = interest.gathering
        assert gathering is not None
        gathering.queued = True
        heapq.heappush(self._queue, (gathering.due, next(self._numbers), interest))
        self._wake.set()

    def flush(self, interest: Interest[Connection]) -> None:
        """Deliver everything that is pending for an interest now."""
        gathering = interest.gathering
        if gathering is None or not gathering.entries:
            return
        self._begin(interest)
        while gathering.entries:
            self._deliver(interest, gathering.take(self._chunk_bytes, gathering.entries[-1].seq))

    def _begin(self, interest: Interest[Connection]) -> None:
        """Decide what is worth delivering, and when there may be something again."""
        gathering = interest.gathering
        assert gathering is not None
        now = self._clock()
        gathering.due = now + gathering.pace.seconds
        self.conflated += gathering.conflate(now) * len(interest.attached)

    def _deliver(self, interest: Interest[Connection], piece: list[Entry]) -> None:
        """Offer a piece to everybody at the head: to who came there in the middle of it, what comes after his place.

        A connection that cannot take it leaves the live path behind this piece.
        """
        end = Position(piece[-1].seq, piece[-1].ms)
        format, begins = interest.format, {connection: _begin_of(piece, connection) for connection in interest.attached}
        for begin in dict.fromkeys(begins.values()):
            part = piece[begin:]
            if not part:
                continue
            connections = [connection for connection, own in begins.items() if own == begin]
            self.delivered += len(part) * len(connections)
            self.sends += len(connections)
            for connection in offer_all(format.join([format.event(entry) for entry in part]), connections):
                connection.detach(State.BLOCKED, end)

    # As time goes by

    async def run(self) -> None:
        """Deliver what is due, until cancelled; what is pending then stays so."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(TICK_SECONDS)
            await self.tick()

    async def tick(self) -> None:
        """Deliver everything that is due now, in slices."""
        now = self._clock()
        until = now + SLICE_SECONDS
        while self._queue and self._queue[0][0] <= now:
            interest = heapq.heappop(self._queue)[2]
            gathering = interest.gathering
            assert gathering is not None
            gathering.queued = False
            if not gathering.entries:  # it was delivered before
                continue
            if gathering.due <= now:
                self._begin(interest)
                last = gathering.entries[-1].seq  # what comes while this is delivered is for the next time
                while gathering.entries and gathering.entries[0].seq <= last:
                    self._deliver(interest, gathering.take(self._chunk_bytes, last))
                    if self._clock() >= until:
                        await asyncio.sleep(0)  # live events and other sockets have their turn
                        until = self._clock() + SLICE_SECONDS
            if gathering.entries and not gathering.queued:
                self._enqueue(interest)
        if not self._queue:
            self._wake.clear()


def _begin_of(piece: list[Entry], connection: Connection) -> int:
    """Return where in a piece what comes after a connection's place begins."""
    if connection.position.seq < piece[0].seq:
        return 0
    return sum(entry.seq <= connection.position.seq for entry in piece)
