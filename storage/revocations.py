"""Revocations: which credentials are refused although their time is not over. What a credential is is not known here."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import NamedTuple

from storage.collection import Collection, date_of, expiry, seconds_of
from storage.mongo import Database

logger = logging.getLogger("tailcast.storage")

REVOCATIONS = "revocations"
KINDS = ("token", "session", "user", "org")


class Revoked(NamedTuple):
    """What is revoked: a token by its `jti`, a session by its id, or what was issued to a user or an organisation.

    Both times are in seconds since 1970. What was issued up to `before` is refused, until `until`: by then its own time is over.
    """

    kind: str
    id: str
    before: float
    until: float


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

    async def add(self, revoked: Revoked) -> None:
        """Keep a revocation.

        Where the same is revoked already, the later `before` and the later `until` count, in whatever order they come. `until` is kept in
        milliseconds, and no later than the year 9999. When this is cancelled it may be kept or not; doing it again changes nothing more.

        Raises:
            ValueError: If the kind is none of the four, or `before` is not finite.
            Unavailable: If MongoDB is away or did not confirm it.
        """
        if revoked.kind not in KINDS:
            raise ValueError(f"expected one of {', '.join(KINDS)}, not {revoked.kind!r}")
        if not math.isfinite(revoked.before):
            raise ValueError(f"expected `before` in seconds since 1970, not {revoked.before}")
        update = {
            "$max": {"before": float(revoked.before), "until": date_of(revoked.until)},
            "$setOnInsert": {"kind": revoked.kind, "id": revoked.id},
        }
        await self._collection.upsert(f"{revoked.kind}:{revoked.id}", update)

    async def in_force(self, limit: int = 1_000_000) -> list[Revoked]:
        """Return all revocations whose `until` is not over.

        If there are more than `limit`, these are the ones that last longest, and a warning is logged.

        Raises:
            Unavailable: If MongoDB is away, or was for a moment; call it again.
        """
        found: list[Revoked] = []
        query = {"until": {"$gt": date_of(self._clock())}}
        async for batch in self._collection.batches(query, sort={"until": -1}, limit=limit + 1):
            found += [Revoked(one["kind"], one["id"], one["before"], seconds_of(one["until"])) for one in batch]
        if len(found) > limit:
            logger.warning("more than %d revocations are in force: the others are not known here", limit)
        return found[:limit]
