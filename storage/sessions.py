"""Sessions: who has signed in, found by a secret that only the client has. What the claims mean is not known here."""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from storage.batcher import Batcher
from storage.collection import Collection, date_of, expiry, seconds_of
from storage.handed_out import claims_of, hash_of, new_secret, require_life, text_of
from storage.mongo import Database, Document

SESSIONS = "sessions"
ID_BYTES = 16  # of the hash
_ID = re.compile(rf"[0-9a-f]{{{2 * ID_BYTES}}}")


class NewSession(NamedTuple):
    """A session that was just made. `secret` goes to the client, and is nowhere else; `expires_at` is in seconds since 1970."""

    secret: str
    id: str
    expires_at: float

    def __repr__(self) -> str:
        return f"NewSession(id={self.id!r}, expires_at={self.expires_at!r})"


class Session(NamedTuple):
    """A session that holds. `id` is public: it names the session in logs and lists, and opens nothing."""

    id: str
    claims: dict[str, Any]
    expires_at: float


class Sessions:
    """All sessions of one database.

    Each is kept under the first half of its secret's SHA-256 hash, which is its id, with the whole hash beside it: a stolen copy of the
    database opens no session.

    Args:
        database: Where they are.
        clock: Returns the time in seconds since 1970.
    """

    def __init__(self, database: Database, *, clock: Callable[[], float]) -> None:
        self._collection = Collection(database, SESSIONS)
        self._clock = clock
        self._batcher: Batcher[str, Document] = Batcher(self._load, name="sessions")

    async def open(self) -> None:
        """Make the indexes that are not there yet; idempotent.

        Raises:
            Unavailable: If MongoDB is away; call it again.
        """
        by_user = {"key": {"user": 1, "created": -1}, "name": "user"}
        await self._collection.ensure_indexes([expiry("expires"), by_user])

    async def close(self) -> None:
        """Refuse whoever waits in `find`, and leave no task behind; idempotent."""
        await self._batcher.close()

    async def create(self, claims: Mapping[str, Any], seconds: float) -> NewSession:
        """Make a session, and return it once it is there to stay.

        When this is cancelled there may be a session that nobody can open; it goes when its time is over.

        Args:
            claims: Whom it speaks for, as in a JWT; `sub` is the user. Without `iat` it is issued now: revoking a user or an organisation
                tells by this what was issued before.
            seconds: How long it holds.

        Raises:
            ValueError: If the claims have no `sub`, or are not what JSON can hold, or the time is not above 0.
            Unavailable: If MongoDB is away or did not confirm it.
        """
        user = claims.get("sub")
        if not isinstance(user, str) or not user:
            raise ValueError("expected a user's name as the claim sub")
        now = self._clock()
        text = text_of({"iat": now, **claims})
        expires = date_of(now + require_life(seconds))
        secret = new_secret()
        hashed = hash_of(secret)
        assert hashed is not None, "a new secret has the form of one"
        id = _id_of(hashed)
        document = {"_id": id, "hash": hashed, "user": user, "claims": text, "created": date_of(now), "expires": expires}
        await self._collection.insert(document)
        return NewSession(secret, id, seconds_of(expires))

    async def find(self, secret: str) -> Session | None:
        """Return the session that a client's secret opens; None if there is none, its time is over, or it was revoked.

        Many at once are one query. Cancelling disturbs nobody else.

        Raises:
            Unavailable: If MongoDB is away.
        """
        hashed = hash_of(secret)
        if hashed is None:
            return None
        id = _id_of(hashed)
        document = (await self._batcher.find((id,))).get(id)
        if document is None or not hmac.compare_digest(document["hash"], hashed):
            return None
        return self._unless_over(document)

    async def revoke(self, id: str) -> Session | None:
        """Delete a session, and return it if it held until now.

        From now on it opens nothing. Streams that it opened before are cut off by a revocation (see revocations.py), not by this.
        When this is cancelled it may be revoked or not; do it again.

        Raises:
            Unavailable: If MongoDB is away or did not confirm it.
        """
        document = await self._collection.take(id)
        return None if document is None else self._unless_over(document)

    async def of_user(self, user: str, limit: int = 100) -> list[Session]:
        """Return the sessions of a user that hold, newest first, `limit` of them at most.

        Raises:
            Unavailable: If MongoDB is away.
        """
        query = {"user": {"$eq": user}, "expires": {"$gt": date_of(self._clock())}}
        return [_session(document) for document in await self._collection.find(query, sort={"created": -1}, limit=limit)]

    async def _load(self, ids: list[str]) -> dict[str, Document]:
        return {document["_id"]: document for document in await self._collection.find({"_id": {"$in": ids}})}

    def _unless_over(self, document: Document) -> Session | None:
        """Return the session if its time is not over: MongoDB deletes it up to minutes later."""
        session = _session(document)
        return session if self._clock() < session.expires_at else None


def is_session_id(text: str) -> bool:
    """Tell whether this has the form of a session's id. A session's secret, which must be kept nowhere, has not."""
    return _ID.fullmatch(text) is not None


def _id_of(hashed: bytes) -> str:
    return hashed[:ID_BYTES].hex()


def _session(document: Document) -> Session:
    return Session(document["_id"], claims_of(document["claims"]), seconds_of(document["expires"]))
