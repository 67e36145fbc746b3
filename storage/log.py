"""The log: inserting numbered entries, confirming and reading them. Appending is in appender.py, following in follower.py."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

from storage.capped import CappedCollection
from storage.entries import MALFORMED, NO_TOKEN, Entry, ms_of
from storage.errors import CommandFailed, Unavailable
from storage.mongo import CANNOT_ROLL_BACK, DURABLE, NAMESPACE_NOT_FOUND, Database, Document
from storage.positions import Position, PositionCodec

logger = logging.getLogger("tailcast.storage")

# What can be the number of an entry. Documents with other identities, put there by hand, are not in the log for anybody.
IS_NUMBER = {"$type": ["int", "long", "double"], "$gte": 0, "$lt": 1 << 62}
BARRIER = "log_barrier"
ACKNOWLEDGED_TOKENS = 64  # the tail is a few groups behind at the most; beyond that it asks
CONFIRM_PAUSES = (0.0, 0.0, 0.001, 0.005, 0.02, 0.1)  # seconds before each look for an entry that is not confirmed yet
REMEMBERED_FAULTS = 1000  # documents of which it is remembered that they were reported


class Log:
    """The log as one server process sees it.

    Args:
        database: Where it lives.
        name: Of the collection.
        size_bytes: How much the log holds before the oldest entries leave it.
        max_documents: How many entries it holds at the most; 0 means that only bytes count.
        clock: Returns the time in seconds since 1970.
        indexes: What it has beside its own; see recent.py.
    """

    def __init__(
        self,
        database: Database,
        *,
        clock: Any,
        name: str = "log",
        size_bytes: int = 1 << 30,
        max_documents: int = 0,
        indexes: Sequence[Document] = (),
    ) -> None:
        self.database = database
        self.name = name
        self._clock = clock
        self.collection = CappedCollection(
            database, name=name, size_bytes=size_bytes, max_documents=max_documents, now_ms=self.now_ms, indexes=indexes
        )
        self.uuid: bytes | None = None  # of the collection; None until open() was through once
        self._codec: PositionCodec | None = None  # of the collection with that UUID
        self._inserting: dict[int, asyncio.Event] = {}  # append tokens of inserts without an answer yet
        self._acknowledged: deque[int] = deque(maxlen=ACKNOWLEDGED_TOKENS)  # of the last ones that were confirmed, newest last
        self._reported: deque[int] = deque(maxlen=REMEMBERED_FAULTS)  # numbers of documents that are no entries
        self.malformed = 0  # documents among the entries that are none, as far as they were read

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
            await self.collection.require_version()
        uuid = await self.collection.open()
        if uuid == self.uuid:
            return False
        codec = await self.collection.codec_of(uuid)
        replaced = self.uuid is not None
        self.uuid, self._codec = uuid, codec
        return replaced

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
        answered = asyncio.Event()
        self._inserting[token] = answered
        try:
            reply = await self.collection.insert(documents, uuid)
            if reply["n"]:
                self._acknowledged.append(token)
            return reply
        finally:
            del self._inserting[token]
            answered.set()

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
        if await self._is_acknowledged(document.get("append", NO_TOKEN)):
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
                return bool(found[0].get("append") == document.get("append"))
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
            await answered.wait()
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
        return self.entries(await self.find({"_id": {**IS_NUMBER, "$gt": after}}, limit=limit))

    async def select(self, types: Iterable[str], without: str, after: int, upto: int, limit: int) -> list[Entry]:
        """Return the first `limit` entries of these types, and not of the source `without`, after one number and up to another.

        There may be less, as in `read`: only when there are none, there are no more. The caller bounds the numbers: all entries between
        them are looked at, there is no index.
        """
        wanted = {"type": {"$in": list(types)}, "source": {"$ne": without}}
        return self.entries(await self.find({"_id": {**IS_NUMBER, "$gt": after, "$lte": upto}, **wanted}, limit=limit))

    def entries(self, documents: Sequence[Document]) -> list[Entry]:
        """Return the entries that documents with numbers are.

        What somebody put there by hand without the fields of an entry has a number nevertheless, and leaves a hole without it: it becomes
        an entry that nobody receives, is counted in `malformed`, and reported once.
        """
        codec = self.codec
        try:
            return [Entry.of(document, codec) for document in documents]
        except ValueError:  # one by one, then
            whole = (one for one in documents if one["_id"] == int(one["_id"]))  # a fraction stands between two numbers
            return [self._entry_or_none(document, codec) for document in whole]

    def _entry_or_none(self, document: Document, codec: PositionCodec) -> Entry:
        try:
            return Entry.of(document, codec)
        except ValueError:
            return Entry.of(self._replace(document), codec)

    def _replace(self, document: Document) -> Document:
        seq = int(document["_id"])
        if seq not in self._reported:
            self._reported.append(seq)
            self.malformed += 1
            logger.error("document %d in the log has not the fields of an entry: nobody receives it", seq)
        return {**MALFORMED, "_id": seq, "ms": ms_of(document), "append": document.get("append", NO_TOKEN)}

    async def head(self, *, durable: bool = True) -> Position:
        """Return the place of the newest entry; (0, 0) in an empty log."""
        return await self._end(newest_first=True, durable=durable)

    async def oldest(self) -> Position:
        """Return the place of the oldest entry that is still there; (0, 0) in an empty log."""
        return await self._end(newest_first=False, durable=True)

    async def _end(self, *, newest_first: bool, durable: bool) -> Position:
        found = await self.find({"_id": IS_NUMBER}, limit=1, newest_first=newest_first, fields=("ms",), durable=durable)
        return Position(int(found[0]["_id"]), ms_of(found[0])) if found else Position(0, 0)

    async def before_time(self, ms: int) -> Position:
        """Return the place after which everything was appended at `ms` (milliseconds since 1970) or later.

        Times never fall along the log, so this halves the interval of numbers: some twenty indexed look-ups in a million entries.
        """
        oldest = await self.oldest()
        low, low_ms, high = oldest.seq - 1, min(ms, oldest.ms), (await self.head()).seq
        while low < high:  # everything up to `low` is too early or gone, everything after `high` is late enough
            middle = (low + high) // 2
            found = await self.find({"_id": {**IS_NUMBER, "$gt": middle}, "ms": {"$gte": 0}}, limit=1, fields=("ms",))
            if found and found[0]["ms"] < ms:
                low, low_ms = int(found[0]["_id"]), found[0]["ms"]
            else:
                high = middle
        return Position(low, low_ms)
