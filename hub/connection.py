"""A connection: a cursor into the log, with a sink for what it reads. It holds state and keeps it consistent; hub.py moves it.

A connection is in exactly one of these states:

    ATTACHED   at the head of the log: whatever is new is pushed to it, or gathered for it if it is paced; its position is the hub's, or
               right before what is pending for it
    READING    behind the head: reads on from its position as soon as it is its turn
    BLOCKED    its sink holds bytes that the socket did not take: reads on from its position once they are gone
    AHEAD      it can go on only when this process has seen more of the log: waits until the head moves
    CLOSED     over
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum, auto
from typing import Any, NamedTuple, Protocol

from hub.compression import GzipStream, Shared
from hub.formats import Format
from hub.interest import Interest
from hub.principal import Principal
from hub.subscriptions import Subscription, parse_payload
from hub.terms import PLAIN
from storage.entries import Entry
from storage.positions import Position

OUTBOX_BYTES = 16 << 10  # the server's own messages that may wait behind bytes the socket did not take


class State(Enum):
    """Where a connection stands."""

    ATTACHED = auto()
    READING = auto()
    BLOCKED = auto()
    AHEAD = auto()
    CLOSED = auto()


class Start(NamedTuple):
    """Where to begin reading.

    `lost` is what a `gap` says when the place is not known any more: the id as the client gave it, and why. `from_earliest` begins with
    whatever is there, and reports nothing as lost. `claims` are places that ids of the client name, with these ids, as long as nobody has
    looked whether the log has these entries there.
    """

    position: Position
    lost: tuple[str, str] | None = None
    from_earliest: bool = False
    claims: tuple[tuple[Position, str], ...] = ()

    def merge(self, other: Start) -> Start:
        """Return the start that leaves out nothing of either, nor of what either reports as lost."""
        return Start(
            min(self.position, other.position),
            self.lost or other.lost,
            self.from_earliest and other.from_earliest,
            self.claims + other.claims,
        )


class Sink(Protocol):
    """Where a connection's bytes go; see handlers.sockets."""

    stalled_since: float | None

    def offer(self, data: bytes) -> bool:
        """Take bytes; False: they are pending (all of them are kept), and the owner hears `on_drained` when they are gone."""

    def finish(self, data: bytes = b"") -> None:
        """Send what is pending and this, then end."""

    def abort(self) -> None:
        """End now."""


class Inbox(Protocol):
    """Who reads what the client sends."""

    def on_data(self, data: bytes) -> None:
        """Take bytes."""

    def on_closed(self) -> None:
        """Learn that the connection is over."""


class Owner(Protocol):
    """What a connection tells: the hub."""

    def drained(self, connection: Connection) -> None:
        """Its sink is empty again."""

    def gone(self, connection: Connection, reason: str) -> None:
        """Its client is gone."""

    def heard(self, connection: Connection) -> None:
        """Its client sent something."""


class Coverage:
    """One subscription of a connection that may have several, and which part of the log it has had.

    It wants what comes after `start`, and when the connection goes back in the log for another subscription, it has had what is up to
    `done` already.
    """

    __slots__ = ("done", "start", "subscription")

    def __init__(self, subscription: Subscription, start: int) -> None:
        self.subscription = subscription
        self.start = start
        self.done = start


class Connection:
    """One client on one transport."""

    __slots__ = (
        "client_id",
        "correlation_id",
        "coverage",
        "covered_to",
        "due",
        "expires_at",
        "format",
        "granted",
        "gzip",
        "heard_at",
        "inbox",
        "interest",
        "opened_at",
        "outbox",
        "owned",
        "owner",
        "owns_all",
        "position",
        "principal",
        "replayed",
        "sink",
        "start",
        "state",
        "terms",
        "told",
        "warned",
    )

    def __init__(
        self, client_id: str, principal: Principal, format: Format, sink: Sink, owner: Owner, correlation_id: str | None = None
    ) -> None:
        self.client_id = client_id
        self.correlation_id = correlation_id or client_id  # of the request that opened it
        self.principal = principal
        self.format = format
        self.sink = sink
        self.gzip = GzipStream() if format.compressed else None  # None: its sink gets what its format makes
        self.owner = owner
        self.owned: frozenset[str] = frozenset()  # audiences of those resources of its principal's that it hears of
        self.granted: frozenset[str] = frozenset()  # audiences that it named, and may hear by its role alone
        self.owns_all = True  # it hears of all of them, also of those to come; False: only of those that its subscriptions name
        self.inbox: Inbox | None = None  # None: what the client sends does not matter
        self.interest: Interest[Connection] | None = None  # None before it is opened and after it is closed
        self.state = State.READING
        self.position = Position(0, 0)  # while ATTACHED where it came there, which it has passed: use Hub.place
        self.start: Start | None = None  # how it began, until the first entry was read; None afterwards
        self.replayed: int | None = None  # entries delivered since it was behind the head; None when there is no `live` to come
        self.coverage: dict[str, Coverage] | None = None  # by topic as subscribed; None: its subscriptions never change
        self.covered_to = 0  # up to this number `coverage` must be asked; beyond it the interest says all
        self.outbox: bytes | None = None  # own messages that wait until the sink is empty
        self.opened_at = 0.0  # clock
        self.due = 0.0  # clock: when the sweep has to look at it
        self.expires_at: float | None = None  # clock: when its credential ends; None: never
        self.warned = False  # the client knows that its credential ends soon
        self.heard_at: float | None = None  # clock: when the client gave a sign of life; None: this transport has none
        self.terms = PLAIN  # of its channel
        self.told = 0  # the number of the position in the last heartbeat

    def on_drained(self) -> None:
        """The sink is empty again."""
        self.owner.drained(self)

    def on_data(self, data: bytes) -> None:
        """The client sent something."""
        self.owner.heard(self)
        if self.inbox is not None:
            self.inbox.on_data(data)

    def on_closed(self, reason: str) -> None:
        """The socket is gone."""
        self.owner.gone(self, reason)

    def offer(self, data: bytes, preamble: bytes = b"") -> bool:
        """Hand its sink what it alone gets, as its format makes it, behind bytes that go as they are; False: see `Sink.offer`."""
        return self.sink.offer(preamble + self.packed(data))

    def packed(self, data: bytes) -> bytes:
        """Return what goes over the wire for what it alone gets, as its format makes it; apart from everything else."""
        return data if self.gzip is None or not data else self.gzip.pack(data)

    def finish(self, data: bytes) -> None:
        """Hand its sink the last bytes."""
        self.sink.finish(data if self.gzip is None else self.gzip.end(data))

    def attach(self) -> None:
        """Put it on the live path. The caller has made sure, without an `await` in between, that its position is the head, or that
        everything after it is gathered for its interest.
        """
        interest = self.interest
        assert interest is not None
        self.state = State.ATTACHED
        if interest.gathering is not None and not interest.attached:
            interest.gathering.restart(self.position)
        interest.attached[self] = None

    def detach(self, state: State, position: Position) -> None:
        """Take it off the live path at `position`, or just note where it stands if it was not on it."""
        interest = self.interest
        if self.state is State.ATTACHED:
            assert interest is not None
            del interest.attached[self]
            if interest.gathering is not None and not interest.attached:
                interest.gathering.restart(position)
        self.state = state
        self.position = position

    def wants(self, entry: Entry) -> bool:
        """Tell whether an entry at or before `covered_to` is still owed to this connection: nothing is sent twice on it."""
        if self.interest is None or self.coverage is None or self.interest.audiences.isdisjoint(entry.audience):
            return False
        wanted = False
        for one in self.coverage.values():
            if entry.seq > one.start and _selects(one.subscription, entry):
                if entry.seq <= one.done:
                    return False
                wanted = True
        return wanted

    def missed(self, first: int) -> bool:
        """Tell whether one of several subscriptions, with a place after this one, loses something if reading goes on at number `first`."""
        return any(self.position.seq < one.done < first - 1 for one in self._coverages())

    def cover(self, place: Position) -> None:
        """Note that all its subscriptions have had what is up to `place`, before it goes elsewhere."""
        for one in self._coverages():
            one.done = max(one.done, place.seq)

    def start_over(self, wrong: int, start: Start) -> None:
        """Begin elsewhere, since what its client called the place `wrong` is another one; so do its subscriptions that begin there."""
        self.start = start
        self.position = start.position
        for one in self._coverages():
            if one.start == wrong:
                one.start = one.done = start.position.seq
        self.limit_coverage()

    def limit_coverage(self) -> None:
        """Recompute `covered_to` after its coverage changed."""
        self.covered_to = max((max(one.start, one.done) for one in self._coverages()), default=0)

    def subscriptions(self) -> frozenset[Subscription]:
        """Return what it has subscribed to."""
        if self.coverage is not None:
            return frozenset(one.subscription for one in self.coverage.values())
        return self.interest.subscriptions if self.interest is not None else frozenset()

    def named(self) -> frozenset[str]:
        """Return the audiences that its subscriptions are limited to."""
        return frozenset(audience for one in self.subscriptions() for audience in one.audiences)

    def hears_of(self, audience: str) -> bool:
        """Tell whether it hears of the resource with this audience whenever that is its principal's."""
        return self.owns_all or audience in self.named()

    def _coverages(self) -> Iterable[Coverage]:
        return self.coverage.values() if self.coverage is not None else ()

    @property
    def closed(self) -> bool:
        """Whether it is over."""
        return self.state is State.CLOSED

    def audiences(self) -> frozenset[str]:
        """Return everything it may receive from just now."""
        further = self.owned | self.granted
        return self.principal.audiences | further if further else self.principal.audiences

    def describe(self) -> dict[str, Any]:
        """Return what log lines about it say."""
        return {
            "clientId": self.client_id,
            "correlationId": self.correlation_id,
            "user": self.principal.user,
            "transport": self.format.name,
            "channel": self.terms.channel,
        }


def offer_all(data: bytes, connections: Sequence[Connection]) -> list[Connection]:
    """Offer several connections of one format the same bytes, and return those whose sink is full now."""
    if not connections[0].format.compressed:
        return [one for one in connections if not one.sink.offer(data)]
    streams = [one.gzip for one in connections if one.gzip is not None]
    shared = Shared(data, streams)
    return [one for one, stream in zip(connections, streams, strict=True) if not one.sink.offer(shared.pack(stream))]


def _selects(subscription: Subscription, entry: Entry) -> bool:
    if not subscription.selects(entry.topic, entry.type, entry.source, entry.audience, entry.key):
        return False
    return not subscription.bounds or subscription.holds(parse_payload(entry.data))
