"""State that is folded from the log: the newest event of each key, as ordinary documents. What is folded is not known here.

Any number of processes may write the same items, in any order and more than once: of two events of a key the newer one stays, whoever
writes last. So writing needs no transaction, and a process that dies between items and progress has done no harm.

Logs are counted, since a log that was made anew begins again at number 1: whatever is of an earlier log is older than anything of this one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from storage.batcher import Batcher
from storage.collection import Collection as Documents
from storage.collection import expiry
from storage.errors import CommandFailed
from storage.items import Item, group_of, item_id
from storage.mongo import DURABLE, Database, Document

ITEMS, PROGRESS = "snapshots", "snapshot_progress"
LOG = "/log"  # the document beside the progress of snapshots, whose names hold no slash
TOMBSTONE_SECONDS = 86_400  # how long it is known that a key is gone: nobody folds what is older than that by so much later
WRITES = 1000  # in one command
WRITE_BYTES = 8 << 20  # in one command: MongoDB takes 48 MB
MAX_SNAPSHOTS = 1000
_NEWEST_FIRST = {"log": -1, "seq": -1}


class Progress(NamedTuple):
    """How far the log is folded.

    `epoch` is that of the log that the numbers belong to, and `log` counts the logs there were, up to it; 0: none yet. `folded` has for
    each snapshot the number up to which everything is in its items.
    """

    epoch: bytes
    log: int
    folded: Mapping[str, int]

    def of(self, snapshots: Iterable[str]) -> int:
        """Return up to which number all of these are folded."""
        return min((self.folded.get(name, 0) for name in snapshots), default=0)


class Wanted(NamedTuple):
    """Items that somebody asks for: of one owner, the newest `limit` that are not gone, or those of some keys."""

    snapshot: str
    owner: str
    limit: int
    keys: tuple[str, ...] | None = None


class Reading(NamedTuple):
    """Items as they were found, newest first, and the progress as it was before: what they miss is newer than that."""

    progress: Progress
    items: list[Item]


class SnapshotStore:
    """The state of one database, as one process sees and writes it.

    Args:
        database: Where it is.
        clock: Returns the time in seconds since 1970.
    """

    def __init__(self, database: Database, *, clock: Callable[[], float]) -> None:
        self._database = database
        self._items = Documents(database, ITEMS)
        self._progress = Documents(database, PROGRESS)
        self._clock = clock
        self._readings: Batcher[Wanted, Reading] = Batcher(self._load, name="snapshots")

    async def open(self) -> None:
        """Make the indexes that are not there yet; idempotent.

        Raises:
            Unavailable: If MongoDB is away; call it again.
        """
        newest = {"key": {"group": 1, **_NEWEST_FIRST}, "name": "newest"}
        await self._items.ensure_indexes([newest, expiry("expires")])

    async def close(self) -> None:
        """Refuse whoever waits for an answer, and leave no task behind; idempotent."""
        await self._readings.close()

    # How far the work is

    async def enter(self, epoch: bytes) -> int:
        """Note that the log with this epoch is the one that is folded now, and return its place among all there were, from 1 on.

        Raises:
            Unavailable: If MongoDB is away or did not confirm it; do it again.
        """
        count = {"$cond": [{"$eq": ["$epoch", epoch]}, "$log", {"$add": [{"$ifNull": ["$log", 0]}, 1]}]}
        document = await self._progress.upsert(LOG, [{"$set": {"log": count, "epoch": epoch}}])
        assert document is not None, "there is one after an upsert"
        return int(document["log"])

    async def progress(self) -> Progress:
        """Return how far the log is folded.

        Raises:
            Unavailable: If MongoDB is away.
        """
        found = {document["_id"]: document for document in await self._progress.find({}, limit=MAX_SNAPSHOTS)}
        current = found.get(LOG, {"epoch": b"", "log": 0})
        log = int(current["log"])
        of_this_log = {name: int(one["seq"]) for name, one in found.items() if "seq" in one and one["log"] == log}
        return Progress(bytes(current["epoch"]), log, of_this_log)

    async def commit(self, log: int, items: Iterable[Item], snapshots: Collection[str], seq: int) -> None:
        """Write items, and then that everything of these snapshots is folded up to a number.

        Done again, done by several at once, or done for less than is there already, it changes nothing.

        When this is cancelled or fails, any part of the items may be written, and the progress is not, or not confirmed: do it again.

        Args:
            log: Which log the numbers belong to, as `enter` returned it.
            items: The newest of each key; each key once.
            snapshots: The names of all that were folded, also of those without an item.
            seq: Everything up to this number is in the items, here or written before.

        Raises:
            StorageError: If MongoDB is away, or refuses something.
        """
        forgotten = self._clock() + TOMBSTONE_SECONDS
        for part in _parts(items):
            await self._write(ITEMS, [_newer(one.document(log, forgotten)) for one in part])
        await self._write(PROGRESS, [_newer({"_id": name, "log": log, "seq": seq}) for name in snapshots])

    async def _write(self, collection: str, updates: Sequence[Document]) -> None:
        command = {"update": collection, "updates": list(updates), "ordered": False, "writeConcern": DURABLE}
        for refused in (await self._database.command(command)).get("writeErrors", ()):
            raise CommandFailed(refused["errmsg"], refused["code"])

    # Reading it

    async def read(self, wanted: Wanted) -> Reading:
        """Return items, and the progress as it was before they were read.

        Of two items some may be as they were later than others: none is older than the progress says, and an item may be missing, or as
        it was before, only if a newer event of its key was folded meanwhile.

        Many calls at once are a few queries. Cancelling disturbs nobody else.

        Raises:
            Unavailable: If MongoDB is away.
        """
        return (await self._readings.find([wanted]))[wanted]

    async def _load(self, wanted: list[Wanted]) -> dict[Wanted, Reading]:
        progress = await self.progress()
        found: dict[Wanted, list[Item]] = {}
        for limit in {one.limit for one in wanted if one.keys is None}:
            found |= await self._load_newest([one for one in wanted if one.keys is None and one.limit == limit], limit)
        if named := [one for one in wanted if one.keys is not None]:
            found |= await self._load_named(named)
        return {one: Reading(progress, items) for one, items in found.items()}

    async def _load_newest(self, wanted: list[Wanted], limit: int) -> dict[Wanted, list[Item]]:
        groups = {group_of(one.snapshot, one.owner): one for one in wanted}
        documents = await self._items.join("group", list(groups), limit, where={"gone": None}, sort=_NEWEST_FIRST)
        return {one: [Item.of(one.snapshot, one.owner, document) for document in documents[group]] for group, one in groups.items()}

    async def _load_named(self, wanted: list[Wanted]) -> dict[Wanted, list[Item]]:
        ids = {item_id(one.snapshot, one.owner, key) for one in wanted for key in one.keys or ()}
        documents = {document["_id"]: document for document in await self._items.find({"_id": {"$in": sorted(ids)}, "gone": None})}
        return {one: _named(one, documents) for one in wanted}


def _named(wanted: Wanted, documents: Mapping[str, Document]) -> list[Item]:
    """Return the items of the keys that somebody wants, newest first."""
    ids = (item_id(wanted.snapshot, wanted.owner, key) for key in dict.fromkeys(wanted.keys or ()))
    found = [documents[id] for id in ids if id in documents]
    found.sort(key=lambda document: (document["log"], document["seq"]), reverse=True)
    return [Item.of(wanted.snapshot, wanted.owner, document) for document in found]


def _newer(document: Document) -> Document:
    """Return the update that puts a document in the place of an older one, and does nothing to a newer one."""
    of_earlier_log = {"$lt": ["$log", document["log"]]}  # without one, too: what is missing comes before every number
    older = {"$and": [{"$eq": ["$log", document["log"]]}, {"$lt": ["$seq", document["seq"]]}]}
    replaced = [{"$replaceWith": {"$cond": [{"$or": [of_earlier_log, older]}, {"$literal": document}, "$$ROOT"]}}]
    return {"q": {"_id": {"$eq": document["_id"]}}, "u": replaced, "upsert": True}


def _parts(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Cut into parts that fit in one command each."""
    part: list[Item] = []
    size = 0
    for item in items:
        if part and (len(part) == WRITES or size + item.size > WRITE_BYTES):
            yield part
            part, size = [], 0
        part.append(item)
        size += item.size
    if part:
        yield part
