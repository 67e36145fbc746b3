"""What is computed from the log: its state in parts, and how far the log was processed.

The state is written part by part, without a transaction, and so what is read back may be newer in some parts than in others, and than the
progress. Each part has the number of the entry that changed it last, so that nothing is applied to it twice; and kinds of parts are
written in a fixed order and read in the opposite one, so that of two kinds the one read first is never newer than the other.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence

from storage.collection import Collection, expiry
from storage.mongo import DURABLE, Database, Document
from storage.parts import Part, Progress

PROGRESS = "progress"  # kind and id of the document that tells how far
GONE_SECONDS = 86_400  # for which it is remembered that a part is gone: no process stands still longer, and then writes what it had


class DerivedState:
    """One computation's state and progress.

    Several processes may write at once by mistake: of two states of a part, the one after the later entry stays.

    Args:
        database: Where it is.
        name: Of the computation.
    """

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._collection = Collection(database, name)

    async def open(self) -> None:
        """Make the index that is not there yet; idempotent.

        Raises:
            Unavailable: If MongoDB is away; call it again.
        """
        await self._collection.ensure_indexes([expiry("gone", GONE_SECONDS)])

    async def progress(self) -> Progress | None:
        """Return how far the log was processed; None: nobody has begun.

        Raises:
            StorageError: If MongoDB is away.
        """
        found = await self._collection.find({"_id": PROGRESS})
        return Progress(found[0]["log"], found[0]["seq"]) if found else None

    async def parts(self, kind: str, log: str) -> AsyncIterator[list[Part]]:
        """Return all parts of a kind, batch by batch; one that was changed last by another log has the number 0.

        Raises:
            StorageError: If MongoDB is away.
        """
        async for batch in self._collection.batches({"kind": kind, "gone": None}):
            yield [Part(kind, one["key"], one["seq"] if one["log"] == log else 0, one["fields"]) for one in batch]

    async def write(self, parts: Sequence[Part], log: str) -> None:
        """Write parts that this log has changed, in this order.

        When this is cancelled or fails, a beginning of them may be written.

        Raises:
            StorageError: If MongoDB is away or did not confirm it.
        """
        await self._write(list(_updates(parts, log)))

    async def advance(self, progress: Progress) -> None:
        """Note how far the log is processed. Everything that changed until then must have been written.

        Raises:
            StorageError: If MongoDB is away or did not confirm it.
        """
        await self._write([_update(PROGRESS, {"kind": PROGRESS, "log": progress.log, "seq": progress.seq})])

    async def _write(self, updates: list[Document]) -> None:
        command = {"update": self._collection.name, "updates": updates, "ordered": True, "writeConcern": DURABLE}
        await self._database.command(command)


def _updates(parts: Sequence[Part], log: str) -> Iterator[Document]:
    for part in parts:
        state = {"kind": part.kind, "key": part.key, "log": log, "seq": part.seq}
        yield _update(f"{part.kind} {part.key}", state if part.fields is None else {**state, "fields": part.fields}, part.fields is None)


def _update(id: str, state: Document, gone: bool = False) -> Document:
    """Return an update to this state, unless the one that is there is of a later entry of the same log."""
    later = {"$and": [{"$eq": ["$log", {"$literal": state["log"]}]}, {"$gt": ["$seq", state["seq"]]}]}
    wanted = {"$mergeObjects": [{"$literal": {"_id": id, **state}}, {"gone": "$$NOW"} if gone else {}]}
    return {"q": {"_id": id}, "u": [{"$replaceWith": {"$cond": [later, "$$ROOT", wanted]}}], "upsert": True}
