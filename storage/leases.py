"""Leases: work that one process does at a time, and another takes over when that one is gone. What the work is, is not known here.

A lease saves work; it does not make anything right by itself. A process that stood still may act for a moment after its lease was over,
so what is written under a lease must bear being written twice.
"""

from __future__ import annotations

from storage.collection import Collection
from storage.mongo import DURABLE, Database

LEASES = "leases"
LEASE_SECONDS = 6.0  # after which another process may take it over


class Lease:
    """One lease, as one process sees it. Times are MongoDB's own, so the clocks of the machines do not matter.

    Args:
        database: Where it is.
        name: Of the work.
        holder: A name of this process that no other has or had.
        seconds: How long it holds each time.
    """

    def __init__(self, database: Database, name: str, *, holder: str, seconds: float = LEASE_SECONDS) -> None:
        self._database = database
        self._collection = Collection(database, LEASES)
        self._name = name
        self._holder = holder
        self.seconds = seconds

    async def take(self) -> bool:
        """Take the lease, or renew it, and tell whether this process has it now: for `seconds`, counted from the call.

        Of several who take it at once one gets it. When this is cancelled the lease may be taken; it is over by itself then.

        Raises:
            StorageError: If MongoDB is away or did not confirm it: it may be taken or not.
        """
        me = {"$literal": self._holder}
        mine, over = {"$eq": ["$holder", me]}, {"$lte": [{"$ifNull": ["$until", "$$NOW"]}, "$$NOW"]}
        until = {"$add": ["$$NOW", round(self.seconds * 1000)]}
        taken = {"$mergeObjects": ["$$ROOT", {"holder": me, "until": until}]}
        found = await self._collection.upsert(self._name, [{"$replaceWith": {"$cond": [{"$or": [mine, over]}, taken, "$$ROOT"]}}])
        return found is not None and found["holder"] == self._holder

    async def release(self) -> None:
        """Give the lease back, if this process has it, so that another need not wait until it is over; idempotent.

        Raises:
            StorageError: If MongoDB is away: the lease is over by itself then.
        """
        query = {"_id": self._name, "holder": self._holder}
        await self._database.command({"delete": LEASES, "deletes": [{"q": query, "limit": 1}], "writeConcern": DURABLE})
