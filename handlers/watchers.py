"""Who watches the totals: every few seconds all of them are told. One task for all; knows no request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from hub.connection import Connection
from hub.formats import Format, rfc3339_of
from hub.hub import Hub
from hub.principal import ADMIN
from hub.totals import Totals

TELL_SECONDS = 5.0
SLICE = 200  # connections told before the event loop gets a turn
COUNT_SECONDS = 1.0  # for which one count does: anybody may ask


class Watchers:
    """Tells totals.

    Args:
        hub: Whose connections they are.
        totals: What they are told.
        time: Returns seconds since 1970.
    """

    def __init__(self, hub: Hub, totals: Totals, time: Callable[[], float]) -> None:
        self.totals = totals
        self._hub = hub
        self._time = time
        self._connections: dict[Connection, None] = {}
        self._counted: dict[bool, dict[str, Any]] = {}  # for admins, and for others
        self._counted_at = 0.0

    def __len__(self) -> int:
        return len(self._connections)

    def count(self, *, per_user: bool) -> dict[str, Any]:
        """Return what is told; `per_user` adds the connections of each user, which is an admin's business only."""
        now = self._time()
        if not 0 <= now - self._counted_at < COUNT_SECONDS:
            self._counted.clear()
            self._counted_at = now
        counted = self._counted.get(per_user)
        if counted is None:
            counted = {"timestamp": rfc3339_of(now), "totalClients": self.totals.clients(), "totalUsers": self.totals.users()}
            if per_user:
                counted["clientsPerUser"] = self.totals.per_user()
            self._counted[per_user] = counted
        return counted

    def watch(self, connection: Connection) -> None:
        """Tell a connection now, and from now on until it is closed."""
        self._connections[connection] = None
        self._hub.send(connection, self._message(connection))

    async def run(self) -> None:
        """Tell all of them every few seconds, until cancelled."""
        while True:
            await asyncio.sleep(TELL_SECONDS)
            await self.tell()

    async def tell(self) -> None:
        """Tell all of them, and forget those that are closed."""
        messages: dict[tuple[Format, bool], bytes] = {}
        for index, connection in enumerate(list(self._connections), 1):
            if connection.closed:
                del self._connections[connection]
                continue
            key = connection.format, connection.principal.has_role(ADMIN)
            message = messages.get(key)
            if message is None:
                message = messages[key] = self._message(connection)
            self._hub.send(connection, message)
            if index % SLICE == 0:
                await asyncio.sleep(0)  # live events come first

    def _message(self, connection: Connection) -> bytes:
        return connection.format.message("metrics", self.count(per_user=connection.principal.has_role(ADMIN)))
