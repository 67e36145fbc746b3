"""Revocations: which credentials are refused although their time is not over. What a credential is is not known here."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

from storage.collection import Collection, date_of, expiry, seconds_of
from storage.mongo import Database
from storage.revoked import KINDS, Revocation

logger = logging.getLogger("tailcast.storage")

REVOCATIONS = "revocations"


class RevocationStore:
    """All revocations of one database. They are kept for processes that start; those that run are told by the log.

    Args:
        database: Where they are.
        clock: Returns the time in seconds since 1970.
    """

    def __init__(self, database: Database, *, clock: Callable[[], float]) -> None:
        self._collection = Collection(database, REVOCATIONS)
        self._clock = clock

    async def open(self) -> None:
        """Make the index that is not there yet; idempotent.

        Raises:
            Unavailable: If MongoDB is away; call it again.
        """
        await self._collection.ensure_indexes([expiry("until")])

    async def add(self, revocation: Revocation) -> None:
        """Keep a revocation.

        Where the same is revoked already, the later `before` and the later `until` count, in whatever order they come. `until` is kept in
        milliseconds, and no later than the year 9999. When this is cancelled it may be kept or not; doing it again changes nothing more.

        Raises:
            ValueError: If the kind is none of the four, or `before` is not finite.
            Unavailable: If MongoDB is away or did not confirm it.
        """
        if revocation.kind not in KINDS:
            raise ValueError(f"expected one of {', '.join(KINDS)}, not {revocation.kind!r}")
        if not math.isfinite(revocation.before):
            raise ValueError(f"expected `before` in seconds since 1970, not {revocation.before}")
        update = {
            "$max": {"before": float(revocation.before), "until": date_of(revocation.until)},
            "$setOnInsert": {"kind": revocation.kind, "id": revocation.id},
        }
        await self._collection.upsert(f"{revocation.kind}:{revocation.id}", update)

    async def in_force(self, limit: int = 1_000_000) -> list[Revocation]:
        """Return all revocations whose `until` is not over.

        If there are more than `limit`, these are the ones that last longest, and a warning is logged.

        Raises:
            Unavailable: If MongoDB is away, or was for a moment; call it again.
        """
        found: list[Revocation] = []
        query = {"until": {"$gt": date_of(self._clock())}}
        async for batch in self._collection.batches(query, sort={"until": -1}, limit=limit + 1):
            found += [Revocation(one["kind"], one["id"], one["before"], seconds_of(one["until"])) for one in batch]
        if len(found) > limit:
            logger.warning("more than %d revocations are in force: the others are not known here", limit)
        return found[:limit]
