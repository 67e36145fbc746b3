"""One tailable cursor on the log: opened at an entry, read batch by batch, and given up. What it returns cannot roll back any more.

The cursor itself reads locally, and what it finds is passed on only once a majority read has confirmed it: a tailable cursor with read
concern majority is woken when an entry is inserted, finds it not committed yet, and then sleeps until the next insert or its time limit.
"""

from __future__ import annotations

import contextlib
from typing import Any

from bson.binary import UUID_SUBTYPE, Binary

from storage.errors import CommandFailed, StorageError
from storage.log import IS_NUMBER, Log
from storage.mongo import CURSOR_GONE, Document, Session

BATCH_ENTRIES = 1000
AWAIT_SECONDS = 1.0  # how long MongoDB holds an empty read; below the time after which a silent MongoDB counts as lost


class CursorLost(Exception):
    """The cursor ended, or does not continue where the last one stopped."""


class Cursor:
    """A tailable cursor.

    Args:
        log: What it reads.
        uuid: Of the log that is meant: another one may have come in its place, and have the same numbers.
    """

    def __init__(self, log: Log, uuid: bytes) -> None:
        self._log = log
        self._uuid = uuid
        self._id = 0  # MongoDB's name for it; 0 before it is open, and when MongoDB has ended it
        self._session: Session = None  # None before it is open

    def alive(self) -> bool:
        """Tell whether there may be another batch."""
        return self._id != 0

    async def open(self, first: int) -> list[Document]:
        """Open it at the entry with this number, and return its first batch: empty when there is nothing from there on.

        Raises:
            CursorLost: If what it had read was rolled back.
        """
        self._session = await self._log.database.start_session()
        command = {
            "find": self._log.name,
            "collectionUUID": Binary(self._uuid, UUID_SUBTYPE),
            "filter": {"_id": {**IS_NUMBER, "$gte": first}},
            "tailable": True,
            "awaitData": True,
            "batchSize": BATCH_ENTRIES,
        }
        return await self._confirmed(await self._log.database.command(command, self._session), "firstBatch")

    async def next(self) -> list[Document]:
        """Return the next batch; an empty one after a while in which nothing came.

        Raises:
            CursorLost: If MongoDB has ended it, or what it had read was rolled back.
        """
        if not self._id:
            raise CursorLost("MongoDB ended it")
        command = {
            "getMore": self._id,
            "collection": self._log.name,
            "batchSize": BATCH_ENTRIES,
            "maxTimeMS": round(AWAIT_SECONDS * 1000),
        }
        try:
            reply = await self._log.database.command(command, self._session)
        except CommandFailed as error:
            if error.code in CURSOR_GONE:
                self._id = 0
                raise CursorLost(f"MongoDB dropped it (error {error.code})") from error
            raise
        return await self._confirmed(reply, "nextBatch")

    async def _confirmed(self, reply: dict[str, Any], batch: str) -> list[Document]:
        """Return a batch once nothing of it can roll back any more.

        The last entry stands for all: they were read from one history, in which it comes after the others.
        """
        self._id = reply["cursor"]["id"]
        documents: list[Document] = reply["cursor"][batch]
        if documents and not await self._log.confirm(documents[-1], reply.get("operationTime")):
            raise CursorLost("what it had read was rolled back")
        return documents

    async def close(self) -> None:
        """Let MongoDB forget it now, and not only after ten minutes without a read; whether it did is not worth an error."""
        cursor, self._id = self._id, 0
        if cursor:
            with contextlib.suppress(StorageError):
                await self._log.database.command({"killCursors": self._log.name, "cursors": [cursor]})
        session, self._session = self._session, None
        if session is not None:
            await session.end_session()
