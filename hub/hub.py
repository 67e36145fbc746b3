"""The hub: takes what is new from the follower, connections from the handlers, and keeps each where its position says it belongs.

It is fed by the follower (`start`, `receive`, `lose`, `restart`). Nothing it does waits: a socket that does not take its bytes costs its
own connection the live path, and nobody else anything.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import Any

from hub.catchup import EVICTED, CatchUp
from hub.connection import OUTBOX_BYTES, Connection, Start, State
from hub.errors import POLICY, RESTART, STALE
from hub.fanout import FanOut
from hub.folds import Folds
from hub.formats import rfc3339_of
from hub.hearing import Hearing
from hub.keeper import Clock, Keeper
from hub.overlay import Overlay
from hub.pace import Pacer
from hub.rights import Rights
from hub.router import Router
from hub.starting import HubLog, locate
from hub.subscriptions import Subscription
from hub.window import Window
from storage.entries import Entry
from storage.positions import Position, PositionCodec

logger = logging.getLogger("tailcast.hub")

CROWD_ENTRIES = 4  # in one batch: more came while the last one was pushed
RETRY_SPREAD_MS = 1000  # the least window over which clients of a stopping server come back


class Hub:
    """All connections of this process.

    Args:
        log: What is read when the window does not reach back far enough.
        clock: Time.
        heartbeat_seconds: How often a quiet connection hears something.
        stale_seconds: How long a full socket may make no progress; 0: for ever.
        chunk_bytes: How much may be pending for a connection that does not keep up.
        window_bytes: How much of the log's end is kept in memory.
        max_connections: How many connections there may be; 0: any number.
        connections_per_user: How many of them one user may have; one more closes the oldest. 0: any number.
        connections_per_org: How many of them one organisation may have; one more is refused. 0: any number.
        seal: Makes the resume token of a connection at a place, given as an id; None: there are none.
        overlay: Takes what the log says of state; None: there is no state.
        logged: Types of events whose delivery is logged where they are of high priority.
    """

    def __init__(
        self,
        log: HubLog,
        clock: Clock,
        *,
        heartbeat_seconds: float = 15.0,
        stale_seconds: float = 300.0,
        chunk_bytes: int = 64 << 10,
        window_bytes: int = 64 << 20,
        max_connections: int = 0,
        connections_per_user: int = 0,
        connections_per_org: int = 0,
        seal: Callable[[Connection, str], str | None] = lambda connection, position: None,
        overlay: Overlay | None = None,
        logged: Collection[str] = (),
    ) -> None:
        self._log = log
        self._clock = clock
        self._max_connections = max_connections
        self._seal = seal
        self._codec: PositionCodec | None = None  # of the log that is being followed; None before the first contact
        self.head = Position(0, 0)  # of the log, as far as this process has seen it
        self.connections: dict[Connection, None] = {}
        self._ahead: list[Connection] = []  # those that wait for the head to move
        self.overlay = Overlay(Folds()) if overlay is None else overlay
        self.router = Router()
        self.rights = Rights(self, clock.time, connections_per_user=connections_per_user, connections_per_org=connections_per_org)
        self.window = Window(window_bytes)
        self.pacer = Pacer(clock.monotonic, chunk_bytes)
        self.fan_out = FanOut(self.router, self.pacer, chunk_bytes, logged)
        self.keeper = Keeper(
            self,
            self.connections,
            self._encode,
            clock,
            heartbeat_seconds=heartbeat_seconds,
            stale_seconds=stale_seconds,
        )
        self.hearing = Hearing(self, router=self.router, rights=self.rights, keeper=self.keeper)
        self.catch_up = CatchUp(
            self,
            router=self.router,
            window=self.window,
            log=log,
            clock=clock.monotonic,
            chunk_bytes=chunk_bytes,
        )

    def _encode(self, seq: int, ms: int) -> str:
        return (self._codec or self._log.codec).encode(seq, ms)

    # What the follower tells

    def start(self, head: Position) -> None:
        """Begin at the head of the log."""
        self._codec = self._log.codec
        self.head = head
        self.overlay.start(self._codec.epoch, head.seq)

    def receive(self, entries: list[Entry]) -> float:
        """Push new entries to everybody at the head, in pieces of one chunk.

        Returns:
            For how many seconds it pays to let further entries gather: for as long as this took, if entries come faster than they can be
            pushed one by one, and most sends held all there was. A send costs the same however much it holds, so more entries would have
            cost little more. Where everybody gets entries of his own, waiting joins nothing, and where they come singly it only delays:
            then it is 0.
        """
        began = self._clock.monotonic()
        delivered, possible = self.fan_out.delivered, self.fan_out.possible
        if entries[0].seq != self.head.seq + 1:  # another log, whose beginning was evicted before this process read it
            self.lose(entries[0], EVICTED)
        if not all(entry.audience for entry in entries):
            self.rights.heed(entry for entry in entries if not entry.audience)
        self.window.append(entries)
        self.overlay.receive(entries)
        for piece in self.fan_out.pieces(entries):
            blocked = self.fan_out.push(piece, self.head)
            self.head = Position(piece[-1].seq, piece[-1].ms)
            for connection in blocked:
                connection.detach(State.BLOCKED, self.head)
        if self._ahead:
            self._overtake()
        if logger.isEnabledFor(logging.DEBUG):
            for entry in entries:
                logger.debug("broadcast", extra={"fields": {"correlationId": entry.correlation_id, "id": entry.id}})
        joined = self.fan_out.delivered - delivered >= (self.fan_out.possible - possible) / 2
        return self._clock.monotonic() - began if joined and len(entries) >= CROWD_ENTRIES else 0.0

    def lose(self, first: Entry, reason: str) -> None:
        """Tell everybody at the head that what lies before `first` is gone; whoever reads behind it meets the hole by itself."""
        before = Position(first.seq - 1, first.ms)
        lost_from = self._encode(*self.head)
        self._flush()
        self.window.clear()
        self.overlay.lose(before.seq)
        self.rights.lose()
        self.head = before
        for connection in [one for one in self.connections if one.state is State.ATTACHED]:
            gathering = connection.interest.gathering if connection.interest is not None else None
            if gathering is not None:
                gathering.restart(before)  # who left the live path before the hole does not come back to it behind the hole
            self.catch_up.report_gap(connection, lost_from, reason, before)

    def _flush(self) -> None:
        """Deliver what is pending for paced connections."""
        for interest in {connection.interest for connection in self.connections if connection.state is State.ATTACHED}:
            assert interest is not None
            self.pacer.flush(interest)

    def restart(self, reason: str) -> None:
        """Send everybody to the beginning of another log, told that the one they were in is gone."""
        places = {connection: self._encode(*self.place(connection)) for connection in self.connections}
        self._codec = self._log.codec
        self.head = Position(0, 0)
        self.window.clear()
        self.overlay.start(self._codec.epoch, 0)
        self.catch_up.clear()
        self.rights.lose()
        self._ahead = []
        for connection, place in places.items():
            lost = connection.start.lost if connection.start and connection.start.lost else (place, reason)
            state = State.BLOCKED if connection.state is State.BLOCKED else State.AHEAD
            connection.detach(state, self.head)
            connection.start = Start(self.head, lost)
            for one in (connection.coverage or {}).values():
                one.start = one.done = 0
            connection.covered_to = 0
            if state is State.AHEAD:
                self._ahead.append(connection)

    def _overtake(self) -> None:
        """Let those read on that waited for the head to move."""
        waiting, self._ahead = self._ahead, []
        for connection in waiting:
            if connection.state is State.AHEAD:
                self.resume(connection)

    # Coming and going

    async def locate(self, wanted: str | None, *, field: str) -> Start | None:
        """Return where a client wants to begin; see hub.starting."""
        return await locate(self._log, self.head, wanted, field=field)

    def place(self, connection: Connection) -> Position:
        """Return how far a connection has read. Of what is pending for it, a paced one has read nothing."""
        if connection.state is not State.ATTACHED:
            return connection.position
        gathering = connection.interest.gathering if connection.interest is not None else None
        if gathering is None or not gathering.entries:
            return self.head
        return max(connection.position, gathering.before)

    def has_room(self, expected: int = 0, share: float = 1.0) -> bool:
        """Tell whether one more connection may be opened, beside those that are expected to be, within a share of all there may be."""
        return not self._max_connections or len(self.connections) + expected < share * self._max_connections

    def open(
        self,
        connection: Connection,
        subscriptions: frozenset[Subscription],
        start: Start | None,
        preamble: bytes = b"",
        first: bytes = b"",
    ) -> None:
        """Take a connection in: it hears `welcome`, then what it is owed from its start on, then what is new.

        Args:
            connection: A new one, which `rights` let in; what it owns is noted in it.
            subscriptions: What it selects; with none it hears nothing until it subscribes.
            start: Where it begins; None: at the head.
            preamble: Bytes that its transport needs before everything else.
            first: Bytes that it gets after `welcome`, of what was before its start. A client that did not get them must not come back to
                where it begins: its `welcome` moves it nowhere then.
        """
        connection.opened_at = self._clock.monotonic()
        connection.interest = self.router.intern(connection.audiences(), subscriptions, connection.format, connection.terms.pace)
        connection.position = start.position if start else self.head
        connection.start = start
        connection.replayed = 0 if start else None
        connection.told = connection.position.seq
        self.connections[connection] = None
        self.rights.enter(connection)
        self.keeper.admit(connection)
        logger.info("connected", extra={"fields": connection.describe()})
        # The resume token in it is a secret: it must not be compressed together with what others have a say in.
        welcome = connection.packed(self._welcome(connection, moves=not first))
        if self.offer(connection, first, preamble + welcome):
            self.resume(connection)

    def _welcome(self, connection: Connection, *, moves: bool) -> bytes:
        position = self._encode(*connection.position)
        expires_at = connection.principal.expires_at
        fields = {
            "clientId": connection.client_id,
            "position": position,
            "resumeToken": self._seal(connection, position),
            "expiresAt": rfc3339_of(expires_at),
            "timestamp": rfc3339_of(self._clock.time()),
        }
        return connection.format.message("welcome", fields, position if moves else None)

    def resume(self, connection: Connection) -> None:
        """Put a connection whose sink is empty where it belongs by its position."""
        lost = connection.start is not None and connection.start.lost is not None
        if connection.position.seq > self.head.seq or (lost and self.head.seq == 0):
            self.wait_for_head(connection)
        elif self._at_head(connection) or self._rejoins(connection):
            self.arrived(connection)
        else:
            connection.state = State.READING
            connection.replayed = connection.replayed or 0
            self.catch_up.enqueue(connection)

    def _at_head(self, connection: Connection) -> bool:
        return connection.position.seq == self.head.seq and not (connection.start and connection.start.claims)

    def _rejoins(self, connection: Connection) -> bool:
        """Tell whether everything after a paced connection's position is pending for others with its interest, so that it can wait with
        them: it left the live path because of a full socket, and is back before the next delivery.
        """
        interest = connection.interest
        assert interest is not None
        if interest.gathering is None or not interest.attached or connection.start is not None:
            return False
        return connection.covered_to <= connection.position.seq and interest.gathering.covers(connection.position)

    def wait_for_head(self, connection: Connection) -> None:
        """Let a connection rest until the head of the log has moved."""
        connection.state = State.AHEAD
        self._ahead.append(connection)

    def arrived(self, connection: Connection) -> None:
        """Put a connection that has read everything, or everything that is not pending for it, on the live path; no `await` since that was
        seen.
        """
        if connection.covered_to > self.head.seq:  # one of its subscriptions begins beyond the head: being pushed knows no beginnings
            self.wait_for_head(connection)
            return
        connection.start = None
        replayed, connection.replayed = connection.replayed, None
        if replayed is not None:
            position = self._encode(*connection.position)
            fields = {"position": position, "replayed": replayed}
            if not self.offer(connection, connection.format.message("live", fields, position)):
                return
        connection.attach()

    def offer(self, connection: Connection, data: bytes, preamble: bytes = b"") -> bool:
        """Hand bytes to a connection that is not blocked, behind a preamble that is not its format's; False: now it is."""
        accepted = connection.offer(data, preamble)
        if not accepted:
            connection.detach(State.BLOCKED, self.place(connection))
        return accepted

    def id_of(self, position: Position) -> str:
        """Return a place's id on the wire."""
        return self._encode(*position)

    def seal(self, connection: Connection) -> str | None:
        """Return what reopens a connection where it stands, with the subscriptions it has now; None: there is no such thing."""
        return self._seal(connection, self._encode(*self.place(connection)))

    def tell(self, connection: Connection, type: str, fields: dict[str, Any]) -> None:
        """Send one of the server's own messages; see `send`."""
        self.send(connection, connection.format.message(type, fields))

    def send(self, connection: Connection, message: bytes) -> None:
        """Send bytes that belong together, behind what is pending. A client that reads none of its answers is closed."""
        if connection.state is State.CLOSED:
            return
        if connection.state is not State.BLOCKED:
            self.offer(connection, message)
            return
        connection.outbox = (connection.outbox or b"") + message
        if len(connection.outbox) > OUTBOX_BYTES:
            self.close(connection, POLICY, "too many answers wait to be read")

    def drained(self, connection: Connection) -> None:
        """Let a connection read on whose sink is empty again."""
        if connection.state is not State.BLOCKED:
            return
        if connection.heard_at is not None:
            self.keeper.heard(connection)  # it has only now read the pings that it is to answer
        connection.state = State.READING
        outbox, connection.outbox = connection.outbox, None
        if outbox is None or self.offer(connection, outbox):
            self.resume(connection)

    def heard(self, connection: Connection) -> None:
        """Note that a client is alive."""
        self.keeper.heard(connection)

    def gone(self, connection: Connection, reason: str) -> None:
        """Forget a connection whose socket is gone."""
        self._forget(connection, reason, None)

    def close(
        self,
        connection: Connection,
        code: int,
        reason: str,
        retry_ms: int | None = None,
        farewell: bytes | None = None,
    ) -> None:
        """End a connection; idempotent. The one way in which the server ends a connection.

        Args:
            connection: Which.
            code: A close code of hub.errors.
            reason: A sentence for the client and for the log.
            retry_ms: When the client should come back; None: not by itself.
            farewell: The last bytes; None: the `closing` message and the transport's own end.
        """
        if connection.state is State.CLOSED:
            return
        nobody_reads = connection.state is State.BLOCKED and code == STALE
        self._forget(connection, reason, code)
        if nobody_reads:
            connection.sink.abort()
            return
        connection.finish(connection.format.closing(code, reason, retry_ms) if farewell is None else farewell)
        self.keeper.linger(connection)

    def _forget(self, connection: Connection, reason: str, code: int | None) -> None:
        if connection.state is State.CLOSED:
            return
        connection.detach(State.CLOSED, self.place(connection))
        self.connections.pop(connection, None)
        self.rights.leave(connection)
        if connection.interest is not None:
            self.router.release(connection.interest)
            connection.interest = None
        if connection.inbox is not None:
            connection.inbox.on_closed()
        seconds = round(self._clock.monotonic() - connection.opened_at, 3)
        fields = {**connection.describe(), "reason": reason, "code": code, "seconds": seconds}
        logger.info("disconnected", extra={"fields": fields})

    def drain(self, seconds: float, random: Callable[[], float]) -> None:
        """Send everybody away, to come back at moments spread over `seconds`.

        Args:
            seconds: The window.
            random: Returns numbers from 0 to 1, evenly.
        """
        self._flush()
        window = max(RETRY_SPREAD_MS, seconds * 1000)
        for connection in list(self.connections):
            self.close(connection, RESTART, "the server restarts", RETRY_SPREAD_MS // 2 + round(random() * window))
