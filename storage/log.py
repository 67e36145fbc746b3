"""The capped collection: how it is made, identified, sized and read. Appending is in appender.py, following in follower.py."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Sequence
from typing import Any

from bson.binary import UUID_SUBTYPE, Binary

from storage.entries import Entry
from storage.errors import CommandFailed, Unavailable
from storage.mongo import (
    CANNOT_ROLL_BACK,
    COLLECTION_UUID_MISMATCH,
    DUPLICATE_KEY,
    DURABLE,
    NAMESPACE_EXISTS,
    NAMESPACE_NOT_FOUND,
    Database,
    Document,
)
from storage.positions import EPOCH_BYTES, KEY_BYTES, Position, PositionCodec

OLDEST_MONGODB = 6  # the first that can resize a capped log while it is used, and insert by a collection's UUID
CAPPED_GRANULARITY_BYTES = 256  # MongoDB rounds a capped collection's size up to a multiple of this
UNLIMITED_DOCUMENTS = (1 << 31) - 1  # what MongoDB makes of a limit that is taken away again
EPOCHS = "log_epochs"
BARRIER = "log_barrier"
ACKNOWLEDGED_TOKENS = 64  # the tail is a few groups behind at the most; beyond that it asks
CONFIRM_PAUSES = (0.0, 0.0, 0.001, 0.005, 0.02, 0.1)  # seconds before each look for an entry that is not confirmed yet
NO_TOKEN = 0  # of entries that no appender has made
FIRST_ENTRY = {
    "_id": 1,
    "topic": "tailcast.log",
    "type": "log:created",
    "audience": [],
    "data": "{}",
    "append": NO_TOKEN,
}


class Log:
    """The log as one server process sees it.

    The collection's UUID tells one log from the next: an epoch and a key are kept for each UUID, so that a log which was dropped or
    restored gets new ones by itself, and ids of the old one are recognised as such.

    Args:
        database: Where it lives.
        name: The collection.
        size_bytes: How much the log holds before the oldest entries leave it.
        max_documents: How many entries it holds at the most; 0 means that only bytes count.
        clock: Returns the time in seconds since 1970.
    """

    def __init__(
        self,
        database: Database,
        *,
        clock: Any,
        name: str = "log",
        size_bytes: int = 1 << 30,
        max_documents: int = 0,
    ) -> None:
        self.database = database
        self.name = name
        self._clock = clock
        self._size_bytes = -(-size_bytes // CAPPED_GRANULARITY_BYTES) * CAPPED_GRANULARITY_BYTES
        self._max_documents = max_documents
        self.uuid: bytes | None = None  # of the collection; None until open() was through once
        self._codec: PositionCodec | None = None  # of the collection with that UUID
        self._inserting: dict[int, asyncio.Future[None]] = {}  # append tokens of inserts without an answer yet
        self._acknowledged: deque[int] = deque(maxlen=ACKNOWLEDGED_TOKENS)  # of the last ones that were confirmed, newest last

    @property
    def codec(self) -> PositionCodec:
        """The codec of this log's ids; there is one once `open` has returned."""
        if self._codec is None:
            raise Unavailable("the log is not open yet")
        return self._codec

    async def open(self) -> bool:
        """Make the log if there is none, size it, and learn its identity; call it again after every break.

        Returns:
            Whether it is another log than the one that was open before.

        Raises:
            Unavailable: If MongoDB is not there; nothing is half-done, call it again.
            CommandFailed: If the collection exists and cannot be used, with what to do about it.
        """
        if self.uuid is None:
            await self._require_version()
        information = await self._information()
        if information is None:
            await self._create()
            information = await self._information()
        if information is None:
            raise Unavailable("the log was dropped while it was being made")
        options = information["options"]
        if not options.get("capped"):
            raise CommandFailed(f"collection {self.name!r} is not capped: drop or rename it, or give another database")
        uuid = bytes(information["info"]["uuid"])
        await self._ensure_contents(uuid)
        await self._resize(options)
        if uuid == self.uuid:
            return False
        codec = await self._codec_of(uuid)
        replaced = self.uuid is not None
        self.uuid, self._codec = uuid, codec
        return replaced

    async def _require_version(self) -> None:
        version = (await self.database.command({"buildInfo": 1}))["versionArray"]
        if version[0] < OLDEST_MONGODB:
            raise CommandFailed(f"expected MongoDB {OLDEST_MONGODB}.0 or newer, not {version[0]}.{version[1]}: upgrade it")

    async def _information(self) -> Document | None:
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
        """Give it its index, and a first entry: a tailable cursor on an empty collection is dead at once."""
        index = {"key": {"published": 1}, "name": "published", "unique": True, "sparse": True}
        await self.database.command({"createIndexes": self.name, "indexes": [index], "writeConcern": DURABLE})
        reply = await self.database.command({"find": self.name, "limit": 1, "projection": {"_id": 1}})
        if not reply["cursor"]["firstBatch"]:
            await self._insert([{**FIRST_ENTRY, "ms": self.now_ms()}], uuid)

    async def _resize(self, options: Document) -> None:
        """Bring an existing log to the size that is asked for; growing and shrinking keep the newest entries."""
        change: Document = {}
        if options["size"] != self._size_bytes:
            change["cappedSize"] = self._size_bytes
        if options.get("max", UNLIMITED_DOCUMENTS) != (self._max_documents or UNLIMITED_DOCUMENTS):
            change["cappedMax"] = self._max_documents
        if change:
            await self.database.command({"collMod": self.name, **change, "writeConcern": DURABLE})

    async def _codec_of(self, uuid: bytes) -> PositionCodec:
        """Return the epoch and key kept for this collection; the first process to come makes them."""
        mine = {
            "_id": Binary(uuid, UUID_SUBTYPE),
            "epoch": secrets.token_bytes(EPOCH_BYTES),
            "key": secrets.token_bytes(KEY_BYTES),
            "createdMs": self.now_ms(),
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

    def now_ms(self) -> int:
        """Return the time in milliseconds since 1970."""
        return int(self._clock() * 1000)

    async def insert(self, documents: Sequence[Document], uuid: bytes | None = None) -> Document:
        """Insert numbered documents in order, journaled, and return MongoDB's reply (`n`, and `writeErrors` where one was refused).

        Args:
            documents: What to insert.
            uuid: Of the log to which their numbers belong; None: of the one that is open.

        Raises:
            Unavailable: If the outcome is unknown: a prefix of the documents may be in the log. Or if the log that was opened is not
                there any more: nothing of it was inserted elsewhere.
        """
        uuid = uuid or self.uuid
        if uuid is None:
            raise Unavailable("the log is not open yet")
        token = documents[0]["append"]
        answered = asyncio.get_running_loop().create_future()
        self._inserting[token] = answered
        try:
            reply = await self._insert(documents, uuid)
            if reply["n"]:
                self._acknowledged.append(token)
            return reply
        finally:
            del self._inserting[token]
            answered.set_result(None)

    async def _insert(self, documents: Sequence[Document], uuid: bytes) -> Document:
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

    async def barrier(self) -> None:
        """Return once everything that the primary had taken before is journaled, and replicated where there are replicas.

        Raises:
            Unavailable: If that could not be confirmed; so this also tells whether the log can be appended to.
        """
        update = {"q": {"_id": 1}, "u": {"$inc": {"passed": 1}}, "upsert": True}
        await self.database.command({"update": BARRIER, "updates": [update], "writeConcern": DURABLE})

    async def confirm(self, document: Document, operation_time: Any) -> bool:
        """Return, once everything up to `operation_time` is committed, whether this entry is in the log to stay.

        Args:
            document: An entry as a local read saw it.
            operation_time: What that read's reply gave; None, as without a replica set, where being journaled is all there is.

        Raises:
            Unavailable: If that could not be learned.
        """
        if await self._is_acknowledged(document["append"]):
            return True
        if operation_time is None:
            await self.barrier()
            return True
        for pause in CONFIRM_PAUSES:
            await asyncio.sleep(pause)
            reply = await self.database.command(
                {
                    "find": self.name,
                    "filter": {"_id": document["_id"]},
                    "limit": 1,
                    "projection": {"append": 1},
                    "readConcern": {**CANNOT_ROLL_BACK, "afterClusterTime": operation_time},
                }
            )
            found = reply["cursor"]["firstBatch"]
            if found:
                return bool(found[0]["append"] == document["append"])
            # An entry can be seen a moment before the operation time includes it.
            operation_time = reply.get("operationTime", operation_time)
        return bool((await self.oldest()).seq > document["_id"])  # evicted meanwhile; or else rolled back, its number not yet used again

    async def _is_acknowledged(self, token: int) -> bool:
        """Tell whether MongoDB has acknowledged an insert of this process with this token; one under way is awaited.

        This is no second road for events: it saves asking MongoDB for what it is just about to say.
        """
        if token == NO_TOKEN:
            return False
        answered = self._inserting.get(token)
        if answered is not None:
            await asyncio.wait({answered})
        return token in self._acknowledged

    async def find(
        self,
        query: Document,
        *,
        limit: int = 0,
        newest_first: bool = False,
        fields: Sequence[str] = (),
        durable: bool = True,
    ) -> list[Document]:
        """Return matching documents in order of their numbers, by index.

        Args:
            query: The filter.
            limit: How many at most; 0: all, which the caller must have bounded in the query.
            newest_first: Turn the order round.
            fields: Return only these; empty: all.
            durable: Read only what cannot roll back.

        Raises:
            Unavailable: If MongoDB did not answer.
        """
        command: Document = {
            "find": self.name,
            "filter": query,
            "sort": {"_id": -1 if newest_first else 1},
            "singleBatch": True,
            "batchSize": limit or 100_000,
        }
        if limit:
            command["limit"] = limit
        if fields:
            command["projection"] = dict.fromkeys(fields, 1)
        if durable:
            command["readConcern"] = CANNOT_ROLL_BACK
        try:
            reply = await self.database.command(command)
        except CommandFailed as error:
            if error.code == NAMESPACE_NOT_FOUND:
                raise Unavailable("the log was dropped") from error
            raise
        found: list[Document] = reply["cursor"]["firstBatch"]
        return found

    async def read(self, after: int, limit: int) -> list[Entry]:
        """Return up to `limit` entries after number `after`, oldest first: less when MongoDB's 16 MiB a reply are reached before.

        What was evicted is simply not there: the first number returned tells.
        """
        codec = self.codec
        return [Entry(document, codec) for document in await self.find({"_id": {"$gt": after}}, limit=limit)]

    async def head(self, *, durable: bool = True) -> Position:
        """Return the place of the newest entry; (0, 0) in an empty log."""
        return await self._end(newest_first=True, durable=durable)

    async def oldest(self) -> Position:
        """Return the place of the oldest entry that is still there; (0, 0) in an empty log."""
        return await self._end(newest_first=False, durable=True)

    async def _end(self, *, newest_first: bool, durable: bool) -> Position:
        found = await self.find({}, limit=1, newest_first=newest_first, fields=("ms",), durable=durable)
        return Position(found[0]["_id"], found[0]["ms"]) if found else Position(0, 0)

    async def before_time(self, ms: int) -> int:
        """Return the number after which everything was appended at `ms` (milliseconds since 1970) or later.

        Times never fall along the log, so this halves the interval of numbers: some twenty indexed look-ups in a million entries.
        """
        low, high = (await self.oldest()).seq - 1, (await self.head()).seq
        while low < high:  # everything up to `low` is too early or gone, everything after `high` is late enough
            middle = (low + high) // 2
            found = await self.find({"_id": {"$gt": middle}}, limit=1, fields=("ms",))
            if found and found[0]["ms"] < ms:
                low = found[0]["_id"]
            else:
                high = middle
        return low
