"""What is kept beside the log: sessions, tickets, revocations, owners, who is connected, snapshots, portfolios, payment streams; opened and
closed together."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from storage.derived import DerivedState
from storage.keys import shared_key
from storage.leases import Lease
from storage.mongo import Database
from storage.ownership import Ownership
from storage.revocations import RevocationStore
from storage.roll import RollStore
from storage.sessions import Sessions
from storage.snapshots import SnapshotStore
from storage.streams import Streams
from storage.tickets import Tickets

RESUME_KEY = "resume"
RESUME_KEY_BYTES = 32
PORTFOLIO = "portfolio"


class State:
    """The collections of one database that all server processes share.

    Args:
        database: Where they are.
        clock: Returns the time in seconds since 1970.
    """

    def __init__(self, database: Database, *, clock: Callable[[], float]) -> None:
        self._database = database
        self.sessions = Sessions(database, clock=clock)
        self.tickets = Tickets(database, clock=clock)
        self.revocations = RevocationStore(database, clock=clock)
        self.ownership = Ownership(database, clock=clock)
        self.streams = Streams(database, clock=clock)
        process = secrets.token_hex(6)
        self.roll = RollStore(database, process=process)
        self.snapshots = SnapshotStore(database, clock=clock)
        self.folding = Lease(database, "snapshots", holder=process)
        self.portfolio = DerivedState(database, PORTFOLIO)
        self.valuing = Lease(database, PORTFOLIO, holder=process)

    async def open(self) -> bytes:
        """Make what is not there yet, and return the key that resume tokens are sealed with; idempotent.

        Raises:
            Unavailable: If MongoDB is away; call it again.
        """
        await self.sessions.open()
        await self.tickets.open()
        await self.revocations.open()
        await self.ownership.open()
        await self.streams.open()
        await self.roll.open()
        await self.snapshots.open()
        await self.portfolio.open()
        return await shared_key(self._database, RESUME_KEY, RESUME_KEY_BYTES)

    async def close(self) -> None:
        """Refuse whoever still waits for an answer, and leave no task behind; idempotent."""
        await self.sessions.close()
        await self.ownership.close()
        await self.snapshots.close()
