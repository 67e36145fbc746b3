"""Ordinary collections, in which state lies: no write that was acknowledged, and nothing that was read, rolls back. Knows no kind of state.

Times are kept as dates, which MongoDB's own expiry needs, in whole milliseconds.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from storage.errors import CommandFailed, Unavailable
from storage.mongo import CANNOT_ROLL_BACK, CURSOR_GONE, DUPLICATE_KEY, DURABLE, Database, Document

BATCH_DOCUMENTS = 1000
LATEST_SECONDS = 253_402_300_799  # the end of the year 9999, the last that a datetime can hold
_EPOCH = datetime(1970, 1, 1)  # without a zone, as dates come from the driver: they are all UTC
_MILLISECOND = timedelta(milliseconds=1)


def date_of(seconds: float) -> datetime:
    """Return seconds since 1970 as a date for MongoDB, no later than the year 9999.

    Raises:
        ValueError: If it is no number.
    """
    if seconds != seconds:
        raise ValueError("expected seconds since 1970, not NaN")
    return _EPOCH + round(min(max(seconds, 0), LATEST_SECONDS) * 1000) * _MILLISECOND


def seconds_of(date: datetime) -> float:
    """Return a date that came from MongoDB as seconds since 1970."""
    return (date - _EPOCH) // _MILLISECOND / 1000


def expiry(field: str, after_seconds: int = 0) -> Document:
    """Return the index by which MongoDB deletes documents so long after the date in a field; those without one stay.

    It looks once a minute: what is over must not count before that either.
    """
    return {"key": {field: 1}, "name": field, "expireAfterSeconds": after_seconds}


class Collection:
    """One collection by its name.

    Cancelling a write leaves it unknown whether it was carried out. Every method raises Unavailable if MongoDB cannot be reached or did
    not confirm in time (the outcome of a write is then unknown), and CommandFailed if it refused.
    """

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self.name = name

    async def ensure_indexes(self, indexes: Sequence[Document]) -> None:
        """Make the collection and these indexes, where they are not there yet."""
        await self._database.command({"createIndexes": self.name, "indexes": list(indexes), "writeConcern": DURABLE})

    async def insert(self, document: Document) -> None:
        """Insert one document."""
        reply = await self._database.command({"insert": self.name, "documents": [document], "writeConcern": DURABLE})
        for refused in reply.get("writeErrors", ()):
            raise CommandFailed(refused["errmsg"], refused["code"])

    async def upsert(self, id: str, update: Any, *, before: bool = False) -> Document | None:
        """Change the document with this id, made if there is none, in one step.

        An update that changes nothing is confirmed as well: what it returns cannot roll back.

        Args:
            id: Its `_id`.
            update: Update operators, or a pipeline.
            before: Return the document as it was before (None: there was none), not as it is now.
        """
        command = {
            "findAndModify": self.name,
            "query": {"_id": {"$eq": id}},
            "update": update,
            "upsert": True,
            "new": not before,
            "writeConcern": DURABLE,
        }
        try:
            reply = await self._database.command(command)
        except CommandFailed as error:
            if error.code != DUPLICATE_KEY:
                raise
            reply = await self._database.command(command)  # somebody made it in the same moment: now it is there
        found: Document | None = reply["value"]
        return found

    async def change(self, query: Document, update: Any) -> Document | None:
        """Change the one document that matches, in one step, and return it as it is now; None if there is none."""
        command = {"findAndModify": self.name, "query": query, "update": update, "new": True, "writeConcern": DURABLE}
        found: Document | None = (await self._database.command(command))["value"]
        return found

    async def take(self, id: str) -> Document | None:
        """Delete the document with this id and return it. Of several who take it at once one gets it."""
        command = {"findAndModify": self.name, "query": {"_id": {"$eq": id}}, "remove": True, "writeConcern": DURABLE}
        found: Document | None = (await self._database.command(command))["value"]
        return found

    async def find(self, query: Document, *, sort: Mapping[str, int] | None = None, limit: int = 0) -> list[Document]:
        """Return all matching documents, or the first `limit` of them if it is not 0; the caller has bounded them one way or the other."""
        return [document async for batch in self.batches(query, sort=sort, limit=limit) for document in batch]

    async def batches(self, query: Document, *, sort: Mapping[str, int] | None = None, limit: int = 0) -> AsyncIterator[list[Document]]:
        """Return the same batch by batch, for more than should be in memory at once."""
        command: Document = {"find": self.name, "filter": query, "limit": limit, "batchSize": BATCH_DOCUMENTS}
        if sort:
            command["sort"] = dict(sort)
        async for batch in self._read(command):
            yield batch

    async def join(
        self, field: str, values: Sequence[str], limit: int, *, where: Document | None = None, sort: Mapping[str, int] | None = None
    ) -> dict[str, list[Document]]:
        """Return for each of these values the documents that hold it in an indexed field: the first `limit`, by their ids' order.

        Args:
            field: The field, which an index begins with.
            values: What it holds.
            limit: How many documents of each value at the most.
            where: What else must hold of them; None: nothing.
            sort: Another order, by the fields that the index goes on with.
        """
        lookup = {
            "from": self.name,
            "localField": "value",
            "foreignField": field,
            "pipeline": [{"$match": where or {}}, {"$sort": dict(sort or {"_id": 1})}, {"$limit": limit}],
            "as": "found",
        }
        # Unwound, so that no document of the answer grows beyond MongoDB's limit.
        stages = [{"$documents": [{"value": {"$literal": value}} for value in values]}, {"$lookup": lookup}, {"$unwind": "$found"}]
        joined: dict[str, list[Document]] = {value: [] for value in values}
        async for batch in self._read({"aggregate": 1, "pipeline": stages, "cursor": {"batchSize": BATCH_DOCUMENTS}}):
            for document in batch:
                joined[document["value"]].append(document["found"])
        return joined

    async def _read(self, command: Document) -> AsyncIterator[list[Document]]:
        """Run a command that returns a cursor, and read that to its end: one reply holds 16 MiB at the most."""
        session = await self._database.start_session()
        try:
            reply = await self._database.command({**command, "readConcern": CANNOT_ROLL_BACK}, session)
            yield reply["cursor"]["firstBatch"]
            while cursor := reply["cursor"]["id"]:
                namespace = reply["cursor"]["ns"].partition(".")[2]
                reply = await self._database.command({"getMore": cursor, "collection": namespace, "batchSize": BATCH_DOCUMENTS}, session)
                yield reply["cursor"]["nextBatch"]
        except CommandFailed as error:
            if error.code in CURSOR_GONE:
                raise Unavailable("MongoDB dropped the cursor in the middle of reading") from error
            raise
        finally:
            await session.end_session()
