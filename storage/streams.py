"""Payment streams: what each one is now, and the one change of it whose event may not be in the log yet. What a state means is not known
here.

A state and its event lie in one document, so that neither can be there without the other being known: a change is *begun* in the same
write that makes it, and *done* once its event is in the log. Whoever dies in between leaves it begun, and anybody can finish it, as often
as he likes: a change has one identity. The next change of a stream waits until the one before is done, so their events are in order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from storage.collection import Collection, date_of, seconds_of
from storage.errors import CommandFailed
from storage.mongo import DUPLICATE_KEY, Database, Document

STREAMS = "streams"
REMEMBERED_CHANGES = 100  # of one stream: a retry of an older one is not known any more


class Change(NamedTuple):
    """A change of a stream on its way into the log.

    `number` counts the changes of a stream, from 1; `type` and `data` are the event's. `key` is what its sender calls the request, None:
    nothing, and `digest` stands for what was asked. `at` is when it was begun, in seconds since 1970; it is noted by `Streams`.
    """

    number: int
    type: str
    data: str
    key: str | None
    digest: str
    correlation_id: str
    at: float = 0.0


class Done(NamedTuple):
    """A change whose event is in the log, under the id `event`."""

    number: int
    key: str | None
    digest: str
    event: str


class Stream(NamedTuple):
    """A stream as it is now.

    `changes` counts those that it has had; `begun` is the last one, while it may not be in the log, and `done` are the last ones that are.
    `digest` stands for what was asked when it was made, and `first` is the id of the event of that, None while it is not in the log.
    """

    id: str
    state: Mapping[str, Any]
    changes: int
    digest: str
    begun: Change | None
    done: tuple[Done, ...]
    first: str | None


class Streams:
    """All payment streams of one database.

    Args:
        database: Where they are.
        clock: Returns the time in seconds since 1970.
    """

    def __init__(self, database: Database, *, clock: Callable[[], float]) -> None:
        self._collection = Collection(database, STREAMS)
        self._clock = clock

    async def open(self) -> None:
        """Make the index that is not there yet; idempotent.

        Raises:
            Unavailable: If MongoDB is away; call it again.
        """
        begun = {"key": {"begun.at": 1}, "name": "begun", "partialFilterExpression": {"begun.at": {"$exists": True}}}
        await self._collection.ensure_indexes([begun])

    async def create(self, id: str, state: Mapping[str, Any], change: Change) -> Stream | None:
        """Make a stream with its first change begun, and return it; None if there is one of this id.

        When this is cancelled, or fails with Unavailable, it may be made or not; do it again.

        Raises:
            Unavailable: If MongoDB is away or did not confirm it.
        """
        document = {"_id": id, "state": dict(state), "changes": 1, "digest": change.digest, "begun": self._begun(change), "done": []}
        try:
            await self._collection.insert(document)
        except CommandFailed as error:
            if error.code == DUPLICATE_KEY:
                return None
            raise
        return _stream(document)

    async def find(self, id: str) -> Stream | None:
        """Return a stream; None if there is none of this id.

        Raises:
            Unavailable: If MongoDB is away.
        """
        found = await self._collection.find({"_id": {"$eq": id}}, limit=1)
        return _stream(found[0]) if found else None

    async def begin(self, stream: Stream, state: Mapping[str, Any], change: Change) -> Stream | None:
        """Change a stream, and return it; None if that is not as it is given here any more, or has a change begun: look at it again.

        When this is cancelled, or fails with Unavailable, it may be done or not.

        Raises:
            Unavailable: If MongoDB is away or did not confirm it.
        """
        query = {"_id": {"$eq": stream.id}, "changes": stream.changes, "begun": {"$exists": False}}
        fields = {"state": dict(state), "changes": change.number, "begun": self._begun(change)}
        document = await self._collection.change(query, {"$set": fields})
        return None if document is None else _stream(document)

    async def finish(self, id: str, change: Change, event: str) -> None:
        """Note that a change is in the log under this id; idempotent, and harmless when cancelled.

        Raises:
            Unavailable: If MongoDB is away or did not confirm it.
        """
        done = {"number": change.number, "key": change.key, "digest": change.digest, "event": event}
        update: Document = {"$unset": {"begun": ""}, "$push": {"done": {"$each": [done], "$slice": -REMEMBERED_CHANGES}}}
        if change.number == 1:
            update["$set"] = {"first": event}
        await self._collection.change({"_id": {"$eq": id}, "begun.number": change.number}, update)

    async def unfinished(self, seconds: float, limit: int) -> list[Stream]:
        """Return streams with a change that was begun so long ago, oldest first.

        Args:
            seconds: How long ago at least: whoever has just begun one finishes it himself.
            limit: How many at the most.

        Raises:
            Unavailable: If MongoDB is away.
        """
        query = {"begun.at": {"$exists": True, "$lte": date_of(self._clock() - seconds)}}
        return [_stream(document) for document in await self._collection.find(query, sort={"begun.at": 1}, limit=limit)]

    def _begun(self, change: Change) -> Document:
        return {**change._asdict(), "at": date_of(self._clock())}


def _stream(document: Document) -> Stream:
    begun = document.get("begun")
    return Stream(
        document["_id"],
        document["state"],
        int(document["changes"]),  # BSON has its own kind of integer
        document["digest"],
        None if begun is None else Change(**{**begun, "number": int(begun["number"]), "at": seconds_of(begun["at"])}),
        tuple(Done(**{**one, "number": int(one["number"])}) for one in document["done"]),
        document.get("first"),
    )
