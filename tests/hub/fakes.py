"""Honest fakes at the hub's edges: a clock that is moved, a log in a list, and sinks that record."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from hub.connection import Connection
from hub.formats import Format, WebSocketFormat
from hub.hub import Hub
from hub.principal import PUBLIC, Principal
from hub.subscriptions import Subscription
from storage.entries import Entry
from storage.errors import Unavailable
from storage.positions import Position, PositionCodec
from tests.hub.decoding import GzipDecoder, Received, SseDecoder, WebSocketDecoder

FIRST_MS = 1_750_000_000_000  # when the fake log's time begins
EPOCH, KEY = b"\x00\x00\x00\x01", bytes(range(16))


class ManualClock:
    """A clock that a test moves; `step` makes it count: so much passes at every look."""

    def __init__(self, step: float = 0.0) -> None:
        self.now = 1000.0
        self.step = step

    def monotonic(self) -> float:
        self.now += self.step
        return self.now

    def time(self) -> float:
        return FIRST_MS / 1000 + self.now


def make_codec(epoch: int = 1) -> PositionCodec:
    """Return the codec of the log with this epoch."""
    return PositionCodec(epoch.to_bytes(4, "big"), KEY)


CODEC = make_codec()


def make_entry(
    seq: int,
    topic: str = "a.b",
    type: str = "thing",
    audience: Iterable[str] = (PUBLIC,),
    data: str = "{}",
    source: str | None = None,
    time: str | None = None,
    key: str | None = None,
    priority: str | None = None,
    codec: PositionCodec = CODEC,
) -> Entry:
    """Return entry `seq`, appended `seq` milliseconds after the log's time began."""
    document = {"_id": seq, "ms": FIRST_MS + seq, "topic": topic, "type": type, "audience": list(audience), "data": data}
    optional = {"source": source, "time": time, "key": key, "priority": priority}
    return Entry.of(document | {name: value for name, value in optional.items() if value is not None}, codec)


def make_entries(first: int, last: int, **fields: Any) -> list[Entry]:
    """Return the entries with these numbers, both included."""
    return [make_entry(seq, **fields) for seq in range(first, last + 1)]


def place_of(seq: int) -> Position:
    """Return the place just after entry `seq`."""
    return Position(seq, FIRST_MS + seq)


def id_of(seq: int) -> str:
    """Return the id of entry `seq`."""
    return CODEC.encode(*place_of(seq))


class ListLog:
    """The log as the hub sees it, in a list: entries can be evicted or never have been; reads can be held up, or fail."""

    def __init__(self, entries: Iterable[Entry] = (), codec: PositionCodec = CODEC) -> None:
        self.entries = list(entries)
        self.codec = codec
        self.reads: list[tuple[int, int]] = []  # every read that was begun
        self.failures = 0  # how many of the next answers are Unavailable
        self.defect: Exception | None = None  # what reading raises; None: nothing
        self.most = 1 << 30  # how many entries one answer holds
        self._open = asyncio.Event()
        self._open.set()

    def hold_up(self) -> None:
        """Let reads wait from now on."""
        self._open.clear()

    def go_on(self) -> None:
        """Answer all reads."""
        self._open.set()

    def evict(self, count: int) -> None:
        """Let go of the oldest entries; the newest stays."""
        del self.entries[: min(count, max(0, len(self.entries) - 1))]

    async def _answer(self) -> None:
        if self.failures:
            self.failures -= 1
            raise Unavailable("MongoDB is away")

    async def read(self, after: int, limit: int) -> list[Entry]:
        self.reads.append((after, limit))
        if self.defect is not None:
            raise self.defect
        found = [entry for entry in self.entries if entry.seq > after][
            : min(limit, self.most)
        ]  # as it is now, however late the answer comes
        await self._open.wait()
        await self._answer()
        return found

    async def head(self) -> Position:
        await self._answer()
        return Position(self.entries[-1].seq, self.entries[-1].ms) if self.entries else Position(0, 0)

    async def oldest(self) -> Position:
        await self._answer()
        return Position(self.entries[0].seq, self.entries[0].ms) if self.entries else Position(0, 0)

    async def before_time(self, ms: int) -> Position:
        await self._answer()
        earlier = [Position(entry.seq, entry.ms) for entry in self.entries if entry.ms < ms]
        return earlier[-1] if earlier else Position(self.entries[0].seq - 1 if self.entries else 0, ms)


def make_decoder(format: Format) -> SseDecoder | WebSocketDecoder:
    """Return what decodes as a client of this format would."""
    if isinstance(format, WebSocketFormat):
        return WebSocketDecoder()
    return GzipDecoder() if format.compressed else SseDecoder()


class RecordingSink:
    """Takes bytes as handlers.sockets.SocketSink does, and decodes them as its client would.

    `room` is how many bytes the socket still takes; None: all. What does not fit is pending until `drain`.
    """

    def __init__(self, format: Format, clock: ManualClock) -> None:
        self.room: int | None = None
        self.stalled_since: float | None = None
        self.owner: Connection | None = None
        self.received: list[Received] = []
        self.offers: list[bytes] = []
        self.pending = 0
        self.most_pending = 0
        self.finished: bytes | None = None  # the farewell; None until `finish`
        self.aborted = False
        self.on_received: Callable[[Received], None] = lambda message: None
        self.decoder = make_decoder(format)
        self._clock = clock

    def offer(self, data: bytes) -> bool:
        assert not self.pending, "offered while an earlier offer is pending"
        assert data, "nothing was offered"
        if self.finished is not None or self.aborted:
            return False
        self.offers.append(data)
        self._decode(data)
        taken = len(data) if self.room is None else min(self.room, len(data))
        if self.room is not None:
            self.room -= taken
        self._keep(len(data) - taken)
        return not self.pending

    def _keep(self, count: int) -> None:
        self.pending = count
        self.most_pending = max(self.most_pending, count)
        if count:
            self.stalled_since = self._clock.now

    def _decode(self, data: bytes) -> None:
        state = self.owner.state if self.owner else None
        for message in self.decoder.feed(data):
            self.received.append(message._replace(state=state))
            self.on_received(self.received[-1])

    def drain(self, room: int | None = None) -> None:
        """Let the socket take all that is pending, and then `room` more."""
        self.room = room
        if not self.pending:
            return
        self.pending, self.stalled_since = 0, None
        if self.finished is None and not self.aborted and self.owner is not None:
            self.owner.on_drained()

    def finish(self, data: bytes = b"") -> None:
        if self.finished is None and not self.aborted:
            self.finished = data
            if data:
                self._decode(data)

    def abort(self) -> None:
        self.aborted = True
        self.pending, self.stalled_since = 0, None

    def leave(self, reason: str = "gone") -> None:
        """Let the client be gone."""
        if not self.aborted:
            self.abort()
            if self.owner is not None:
                self.owner.on_closed(reason)

    # What tests ask

    def kinds(self) -> list[str]:
        """Return what came, by kind."""
        return [message.kind for message in self.received]

    def of(self, kind: str) -> list[Received]:
        """Return the messages of a kind."""
        return [message for message in self.received if message.kind == kind]

    def numbers(self, codec: PositionCodec = CODEC) -> list[int]:
        """Return the sequence numbers of the events that came."""
        return [codec.decode(message.id or "").seq for message in self.of("event")]


def make_principal(user: str = "u1", *audiences: str, expires_at: float | None = None) -> Principal:
    """Return a principal who is in `public`, its own user's and these audiences."""
    return Principal(user, audiences=frozenset({PUBLIC, f"user:{user}", *audiences}), expires_at=expires_at)


def connect(
    hub: Hub,
    format: Format,
    clock: ManualClock,
    *,
    principal: Principal | None = None,
    room: int | None = None,
    client_id: str = "c",
) -> tuple[Connection, RecordingSink]:
    """Return a connection that is not open yet, and its sink. One on WebSocket may change its subscriptions."""
    sink = RecordingSink(format, clock)
    sink.room = room
    connection = Connection(client_id, principal or make_principal(), format, sink, hub)
    if isinstance(format, WebSocketFormat):
        connection.coverage = {}
    sink.owner = connection
    return connection, sink


def everything(*topics: str) -> frozenset[Subscription]:
    """Return subscriptions to these topics, or to all."""
    return frozenset(Subscription(topic) for topic in topics or ("**",))


async def turns(count: int = 10) -> None:
    """Let the loop turn: what is ready runs, and what that makes ready; no time passes."""
    for _ in range(count):
        await asyncio.sleep(0)
