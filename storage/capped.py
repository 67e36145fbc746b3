"""The log's collection: how it is made, sized and told from any other. What is in it is log.py's."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence

from bson.binary import UUID_SUBTYPE, Binary

from storage.entries import NO_TOKEN
from storage.errors import CommandFailed, Unavailable
from storage.mongo import CANNOT_ROLL_BACK, COLLECTION_UUID_MISMATCH, DUPLICATE_KEY, DURABLE, NAMESPACE_EXISTS, Database, Document
from storage.positions import EPOCH_BYTES, KEY_BYTES, PositionCodec

OLDEST_MONGODB = 6  # the first that can resize a capped log while it is used, and insert by a collection's UUID
CAPPED_GRANULARITY_BYTES = 256  # MongoDB rounds a capped collection's size up to a multiple of this
UNLIMITED_DOCUMENTS = (1 << 31) - 1  # what MongoDB makes of a limit that is taken away again
EPOCHS = "log_epochs"
PUBLISHED = {"key": {"published": 1}, "name": "published", "unique": True, "sparse": True}
OPTIONAL = "recent_"  # how the names of indexes begin that are made and dropped here; those of operators stay
FIRST_ENTRY = {
    "_id": 1,
    "topic": "tailcast.log",
    "type": "log:created",
    "audience": [],
    "data": "{}",
    "append": NO_TOKEN,
}


class CappedCollection:
    """One capped collection, and what identifies it.

    Its UUID tells one log from the next: an epoch and a key are kept for each UUID, so that a log which was dropped or restored as a new
    collection gets new ones by itself, and ids of the old one are recognised as such.

    Args:
        database: Where it lives.
        name: Its name.
        size_bytes: How much it holds before the oldest entries leave it.
        max_documents: How many entries it holds at the most; 0 means that only bytes count.
        now_ms: Returns the time in milliseconds since 1970.
        indexes: What it has beside those that it needs itself. One that a process made before, and none needs any more, is dropped: it
            would cost every append.
    """

    def __init__(
        self,
        database: Database,
        *,
        name: str,
        size_bytes: int,
        max_documents: int,
        now_ms: Callable[[], int],
        indexes: Sequence[Document] = (),
    ) -> None:
        self.database = database
        self.name = name
        self._size_bytes = -(-size_bytes // CAPPED_GRANULARITY_BYTES) * CAPPED_GRANULARITY_BYTES
        self._max_documents = max_documents
        self._now_ms = now_ms
        self._indexes = [PUBLISHED, *indexes]

    async def open(self) -> bytes:
        """Make the collection if there is none, size it, and return its UUID. It is then ready to be appended to and tailed.

        Raises:
            Unavailable: If MongoDB is not there; nothing is half-done, call it again.
            CommandFailed: If the collection exists and cannot be used, with what to do about it.
        """
        information = await self.information()
        if information is None:
            await self._create()
            information = await self.information()
        if information is None:
            raise Unavailable("the log was dropped while it was being made")
        options = information["options"]
        if not options.get("capped"):
            raise CommandFailed(f"collection {self.name!r} is not capped: drop or rename it, or give another database")
        uuid = bytes(information["info"]["uuid"])
        await self._ensure_contents(uuid)
        await self._resize(options)
        return uuid

    async def require_version(self) -> None:
        """Raise CommandFailed if this MongoDB is too old."""
        version = (await self.database.command({"buildInfo": 1}))["versionArray"]
        if version[0] < OLDEST_MONGODB:
            raise CommandFailed(f"expected MongoDB {OLDEST_MONGODB}.0 or newer, not {version[0]}.{version[1]}: upgrade it")

    async def information(self) -> Document | None:
        """Return what MongoDB says of the collection; None if there is none."""
        reply = await self.database.command({"listCollections": 1, "filter": {"name": self.name}})
        found: list[Document] = reply["cursor"]["firstBatch"]
        return found[0] if found else None

    async def _create(self) -> None:
        command: Document = {
            "create": self.name,
            "capped": True,
            "size": self._size_bytes,
            "writeConcern": DURABLE,
        }
        if self._max_documents:
            command["max"] = self._max_documents
        try:
            await self.database.command(command)
        except CommandFailed as error:
            if error.code != NAMESPACE_EXISTS:  # another server process was quicker
                raise

    async def _ensure_contents(self, uuid: bytes) -> None:
        """Give it its indexes, and a first entry: a tailable cursor on an empty collection is dead at once."""
        await self.database.command({"createIndexes": self.name, "indexes": self._indexes, "writeConcern": DURABLE})
        await self._drop_others()
        reply = await self.database.command({"find": self.name, "limit": 1, "projection": {"_id": 1}})
        if not reply["cursor"]["firstBatch"]:
            await self.insert([{**FIRST_ENTRY, "ms": self._now_ms()}], uuid)

    async def _drop_others(self) -> None:
        """Drop the indexes of last events that were made for other types than those there are now."""
        reply = await self.database.command({"listIndexes": self.name})
        wanted = {index["name"] for index in self._indexes}
        for index in reply["cursor"]["firstBatch"]:
            if index["name"].startswith(OPTIONAL) and index["name"] not in wanted:
                await self.database.command({"dropIndexes": self.name, "index": index["name"], "writeConcern": DURABLE})

    async def _resize(self, options: Document) -> None:
        """Bring an existing log to the size that is asked for; growing and shrinking keep the newest entries."""
        change: Document = {}
        if options["size"] != self._size_bytes:
            change["cappedSize"] = self._size_bytes
        if options.get("max", UNLIMITED_DOCUMENTS) != (self._max_documents or UNLIMITED_DOCUMENTS):
            change["cappedMax"] = self._max_documents
        if change:
            await self.database.command({"collMod": self.name, **change, "writeConcern": DURABLE})

    async def codec_of(self, uuid: bytes) -> PositionCodec:
        """Return the epoch and key kept for this collection; the first process to come makes them."""
        mine = {
            "_id": Binary(uuid, UUID_SUBTYPE),
            "epoch": secrets.token_bytes(EPOCH_BYTES),
            "key": secrets.token_bytes(KEY_BYTES),
            "createdMs": self._now_ms(),
        }
        reply = await self.database.command({"insert": EPOCHS, "documents": [mine], "writeConcern": DURABLE})
        errors = reply.get("writeErrors")
        if errors and errors[0]["code"] != DUPLICATE_KEY:  # another process was quicker: its values count
            raise CommandFailed(errors[0]["errmsg"], errors[0]["code"])
        reply = await self.database.command({"find": EPOCHS, "filter": {"_id": mine["_id"]}, "limit": 1, "readConcern": CANNOT_ROLL_BACK})
        found = reply["cursor"]["firstBatch"]
        if not found:
            raise Unavailable("the log's epoch is not confirmed yet")
        return PositionCodec(bytes(found[0]["epoch"]), bytes(found[0]["key"]))

    async def insert(self, documents: Sequence[Document], uuid: bytes) -> Document:
        """Insert into this very collection: by its name alone, MongoDB would make an ordinary one in the place of one that was dropped,
        and the numbers, which follow those of the old log, would leave a hole in a new one.
        """
        reply = await self.database.command(
            {
                "insert": self.name,
                "documents": documents,
                "ordered": True,
                "collectionUUID": Binary(uuid, UUID_SUBTYPE),
                "writeConcern": DURABLE,
            }
        )
        if any(refused["code"] == COLLECTION_UUID_MISMATCH for refused in reply.get("writeErrors", ())):
            raise Unavailable("the log was dropped")
        return reply
