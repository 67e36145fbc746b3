"""Looking after connections as time goes by: heartbeats, dead clients, credentials that end. One sweep for all of them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection
from typing import Any, Protocol

from hub.connection import Connection, State
from hub.errors import STALE, TOKEN_EXPIRED
from hub.formats import rfc3339_of
from storage.positions import Position

SWEEP_SECONDS = 1.0
SWEEP_SLICE = 200  # connections looked at before the event loop gets a turn
EXPIRY_NOTICE_SECONDS = 30.0  # before a credential ends
MISSED_PONGS = 4  # heartbeats without any sign of life from a WebSocket client
STOOD_STILL_SECONDS = 10.0  # between two sweeps: this process was frozen, or had no CPU, and has read nothing of what came meanwhile
LINGER_SECONDS = 10.0  # for the last bytes of a connection that was closed


class Clock(Protocol):
    """Time, given from outside."""

    def monotonic(self) -> float:
        """Seconds that never go back."""

    def time(self) -> float:
        """Seconds since 1970."""


class Kept(Protocol):
    """What the sweep does to connections: the hub."""

    def tell(self, connection: Connection, type: str, fields: dict[str, Any]) -> None:
        """Send one of the server's own messages."""

    def offer(self, connection: Connection, data: bytes) -> bool:
        """Hand bytes to a connection that is not blocked."""

    def close(self, connection: Connection, code: int, reason: str) -> None:
        """End a connection."""

    def place(self, connection: Connection) -> Position:
        """Return how far it has read."""


class Keeper:
    """The sweep.

    Args:
        hub: Who acts on what it finds.
        connections: All of them.
        encode: Makes an id of a number and a time.
        clock: Time.
        heartbeat_seconds: How often a quiet connection hears something.
        stale_seconds: How long a full socket may make no progress; 0: for ever.
    """

    def __init__(
        self,
        hub: Kept,
        connections: Collection[Connection],
        encode: Callable[[int, int], str],
        clock: Clock,
        *,
        heartbeat_seconds: float,
        stale_seconds: float,
    ) -> None:
        self._hub = hub
        self._connections = connections
        self._encode = encode
        self._clock = clock
        self._heartbeat_seconds = heartbeat_seconds
        self._stale_seconds = stale_seconds
        self._swept_at = clock.monotonic()  # when the last sweep began
        self._awake_since = self._swept_at  # since when this process has been able to hear of its clients
        self._lingering: deque[tuple[float, Connection]] = deque()  # closed, with bytes still to send; the first one ends first

    def admit(self, connection: Connection) -> None:
        """Begin to look after a connection, or note that its credential was renewed."""
        now = self._clock.monotonic()
        ends = connection.principal.expires_at
        connection.expires_at = now + ends - self._clock.time() if ends is not None else None
        connection.warned = False
        self._schedule(connection, now)

    def linger(self, connection: Connection) -> None:
        """Let a closed connection send its last bytes, but not for ever."""
        self._lingering.append((self._clock.monotonic() + LINGER_SECONDS, connection))

    def heard(self, connection: Connection) -> None:
        """Note that a client is alive."""
        connection.heard_at = self._clock.monotonic()

    async def run(self) -> None:
        """Sweep for ever."""
        # As often as heartbeats are due: a client that was not pinged yet must not look like one that does not answer.
        pause = min(SWEEP_SECONDS, self._heartbeat_seconds)
        while True:
            await asyncio.sleep(pause)
            await self.sweep()

    async def sweep(self) -> None:
        """Look once at every connection whose time has come."""
        now = self._clock.monotonic()
        if now - self._swept_at > STOOD_STILL_SECONDS:
            self._awake_since = now  # what clients have sent or read since then is not seen yet
        self._swept_at = now
        while self._lingering and self._lingering[0][0] <= now:
            self._lingering.popleft()[1].sink.abort()
        heartbeats: dict[Any, bytes] = {}
        for index, connection in enumerate(list(self._connections), 1):
            if connection.due <= now and connection.state is not State.CLOSED:
                self._attend(connection, now, heartbeats)
            if index % SWEEP_SLICE == 0:
                await asyncio.sleep(0)  # live events come first

    def _schedule(self, connection: Connection, now: float) -> None:
        """Set when the sweep looks at a connection again."""
        beat = connection.terms.heartbeat_seconds or self._heartbeat_seconds
        # Compressed ones in step with each other: they share what they are sent as long as they have had the same.
        due = now + beat if connection.gzip is None else (now // beat + 1) * beat
        if self._stale_seconds:
            due = min(due, now + self._stale_seconds / 2)
        ends = connection.expires_at
        if ends is not None:
            due = min(due, ends if connection.warned else max(ends - EXPIRY_NOTICE_SECONDS, now))
        connection.due = due

    def _attend(self, connection: Connection, now: float, heartbeats: dict[Any, bytes]) -> None:
        ends, stalled_since = connection.expires_at, connection.sink.stalled_since
        if ends is not None and ends <= now:
            self._hub.close(connection, TOKEN_EXPIRED, "the credential has expired")
        elif stalled_since is not None and self._stale_seconds and now - max(stalled_since, self._awake_since) >= self._stale_seconds:
            self._hub.close(connection, STALE, "the client has stopped reading")
        elif connection.heard_at is not None and self._silent(connection, now):
            self._hub.close(connection, STALE, "the client does not answer pings")
        elif ends is not None and ends - now <= EXPIRY_NOTICE_SECONDS and not connection.warned:
            self._warn(connection)
        elif connection.state is not State.BLOCKED and connection.start is None:
            self._beat(connection, heartbeats)
        self._schedule(connection, now)

    def _silent(self, connection: Connection, now: float) -> bool:
        if connection.state is State.BLOCKED or connection.heard_at is None:
            return False  # it cannot answer what it has not read
        return now - max(connection.heard_at, self._awake_since) > MISSED_PONGS * self._heartbeat_seconds

    def _warn(self, connection: Connection) -> None:
        connection.warned = True
        ends = connection.principal.expires_at
        assert ends is not None
        self._hub.tell(connection, "expiring", {"expiresAt": rfc3339_of(ends)})

    def _beat(self, connection: Connection, heartbeats: dict[Any, bytes]) -> None:
        """Send a heartbeat with the connection's position; those at the same place share their bytes."""
        place = self._hub.place(connection)
        moved = place.seq != connection.told
        connection.told = place.seq
        key = (connection.format, place, moved)
        heartbeat = heartbeats.get(key)
        if heartbeat is None:
            heartbeat = heartbeats[key] = connection.format.heartbeat(self._encode(*place), moved)
        self._hub.offer(connection, heartbeat)
