"""Tickets: codes for a URL, good once and for seconds. What the claims mean is not known here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from storage.collection import Collection, date_of, expiry, seconds_of
from storage.handed_out import claims_of, hash_of, new_secret, require_life, text_of
from storage.mongo import Database

TICKETS = "tickets"


class Tickets:
    """All tickets of one database; only their SHA-256 hashes are kept.

    Args:
        database: Where they are.
        clock: Returns the time in seconds since 1970.
    """

    def __init__(self, database: Database, *, clock: Callable[[], float]) -> None:
        self._collection = Collection(database, TICKETS)
        self._clock = clock

    async def open(self) -> None:
        """Make the index that is not there yet; idempotent.

        Raises:
            Unavailable: If MongoDB is away; call it again.
        """
        await self._collection.ensure_indexes([expiry("expires")])

    async def issue(self, claims: Mapping[str, Any], seconds: float) -> tuple[str, float]:
        """Return a new ticket's code, and when its time is over in seconds since 1970.

        When this is cancelled there may be a ticket that nobody can use; it goes when its time is over.

        Args:
            claims: Whom it speaks for.
            seconds: How long it holds.

        Raises:
            ValueError: If the claims are not what JSON can hold, or the time is not above 0.
            Unavailable: If MongoDB is away or did not confirm it.
        """
        text = text_of(claims)
        expires = date_of(self._clock() + require_life(seconds))
        code = new_secret()
        hashed = hash_of(code)
        assert hashed is not None, "a new code has the form of one"
        await self._collection.insert({"_id": hashed.hex(), "claims": text, "expires": expires})
        return code, seconds_of(expires)

    async def redeem(self, code: str) -> dict[str, Any] | None:
        """Use a ticket up, and return its claims; None if there is none, it was used before, or its time is over.

        Of several who redeem it at once, in whatever processes, exactly one gets the claims: it is deleted in one step, and deleted for
        good before anybody hears of it. When this is cancelled, or the answer is lost, the ticket may be used up: get another one.

        Raises:
            Unavailable: If MongoDB is away or did not confirm it.
        """
        hashed = hash_of(code)
        document = None if hashed is None else await self._collection.take(hashed.hex())
        if document is None or self._clock() >= seconds_of(document["expires"]):
            return None
        return claims_of(document["claims"])
