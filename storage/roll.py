"""The roll: how many connections each server process has, told to the others. What is counted under a name is not known here.

It is soft state. A process that is in any doubt about what the others have been told, because a write was not answered or it was taken
for dead, begins a new life: it tells everything anew under a number of its own, and what it told before does not count any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple, TypeVar

from storage.collection import Collection, expiry, seconds_of
from storage.errors import CommandFailed, Unavailable
from storage.mongo import DURABLE, Database, Document

SERVERS, ROLL = "servers", "roll"
DEAD_SECONDS = 10  # without a sign of life; they look every second
GONE_SECONDS = 60  # for which an empty count is kept, so that all who live have read it
MOST_SERVERS = 1000
WRITES = 1000  # in one command

Counts = Mapping[str, Sequence[int]]
T = TypeVar("T")


class Told(NamedTuple):
    """What one server has under a name, as numbers; none: nothing any more."""

    server: str
    name: str
    numbers: tuple[int, ...]


class _Life(NamedTuple):
    """One life of one process. `version` is that of the last counts that are written completely, `at` as of when they are all."""

    process: str
    life: int
    version: int
    at: int

    @property
    def server(self) -> str:
        return _server(self.process, self.life)


class RollStore:
    """The roll of one database, as one process sees and writes it.

    Calls must not overlap. After any error the caller has to `begin` again.

    Args:
        database: Where it is.
        process: A name that no other process has or had.
    """

    def __init__(self, database: Database, *, process: str) -> None:
        self._database = database
        self._servers = Collection(database, SERVERS)
        self._roll = Collection(database, ROLL)
        self._process = process
        self._life = 0  # 0: not begun
        self._version = 0  # of the last counts that were told in this life
        self._others: dict[str, _Life] = {}  # by the name of the server, as of the last look
        self._read: dict[str, int] = {}  # up to which version each of them was heard
        self.totals: list[Mapping[str, int]] = []  # what each of them has in all, as of the last look

    @property
    def server(self) -> str:
        """The name under which the others hear of this process, in this life."""
        return _server(self._process, self._life)

    async def open(self) -> None:
        """Make the indexes that are not there yet; idempotent.

        Raises:
            Unavailable: If MongoDB is away; call it again.
        """
        by_version = {"key": {"process": 1, "life": 1, "version": 1}, "name": "version"}
        by_name = {"key": {"name": 1}, "name": "name"}
        await self._roll.ensure_indexes([by_version, by_name, expiry("gone", GONE_SECONDS)])

    async def time(self) -> float:
        """Return MongoDB's time, in seconds since 1970.

        Raises:
            StorageError: If MongoDB is away.
        """
        return seconds_of((await self._database.command({"hello": 1}))["localTime"])

    async def begin(self) -> None:
        """Begin a new life, in which nothing is told or heard yet.

        Raises:
            StorageError: If MongoDB is away, or refuses it.
        """
        self._life += 1
        self._version = 0
        self._others, self._read, self.totals = {}, {}, []
        update = {"$set": {"life": self._life, "version": 0, "at": 0}, "$unset": {"over": ""}, "$currentDate": {"seen": True}}
        await self._servers.upsert(self._process, update)
        await self._delete(self._roll, {"process": self._process, "life": {"$lt": self._life}})

    async def look(self) -> dict[str, int]:
        """Return which other servers live, and as of when each has told everything.

        What is left of one that was not seen for `DEAD_SECONDS` is removed.

        Times are MongoDB's own, so the clocks of the machines do not matter.

        Raises:
            Unavailable: If MongoDB is away, or this process was taken for dead.
        """
        documents = {document["_id"]: document for document in await self._servers.find({}, limit=MOST_SERVERS)}
        own = documents.pop(self._process, None)
        if own is None or own["life"] != self._life:
            raise Unavailable("the other servers took this one for dead")
        now = seconds_of(own["seen"])  # a second ago; later if this process stood still, and then nobody looks dead to it
        dead = [one for one in documents.values() if now - seconds_of(one["seen"]) > DEAD_SECONDS]
        for document in dead:
            del documents[document["_id"]]
            await self._remove(document)
        living = (_Life(one["_id"], one["life"], one["version"], one["at"]) for one in documents.values())
        self._others = {one.server: one for one in living}
        self.totals = [one.get("totals", {}) for one in documents.values()]
        self._read = {server: version for server, version in self._read.items() if server in self._others}
        return {one.server: one.at for one in self._others.values()}

    async def tell(self, counts: Counts, at: int, totals: Mapping[str, int] | None = None) -> None:
        """Tell the others what changed, as of when that is everything, what there is in all, and that this process lives.

        The counts are written without waiting for a majority. The sign of life behind them does, and so confirms them as well.

        Raises:
            StorageError: If MongoDB is away, refuses it, or this process was taken for dead: what was told is unknown.
        """
        if counts:
            self._version += 1
        for part in _parts(counts.items()):
            updates = [self._update(name, numbers) for name, numbers in part]
            command = {"update": ROLL, "updates": updates, "ordered": False, "writeConcern": {"w": 1}}
            for refused in (await self._database.command(command)).get("writeErrors", ()):
                raise CommandFailed(refused["errmsg"], refused["code"])
        alive = {
            "findAndModify": SERVERS,
            "query": {"_id": self._process, "life": self._life, "over": None},
            "update": {"$set": {"version": self._version, "at": at, "totals": dict(totals or {})}, "$currentDate": {"seen": True}},
            "writeConcern": DURABLE,
        }
        if (await self._database.command(alive))["value"] is None:
            raise Unavailable("the other servers took this one for dead")

    async def hear(self) -> list[Told]:
        """Return what the servers of the last look have told since they were heard last; all there is of one that is new.

        Raises:
            StorageError: If MongoDB is away.
        """
        news = [one for one in self._others.values() if one.version > self._read.get(one.server, 0)]
        if not news:
            return []
        since = [{"process": one.process, "life": one.life, "version": {"$gt": self._read.get(one.server, 0)}} for one in news]
        told = [one async for batch in self._roll.batches({"$or": since}) for one in self._told(batch)]
        # Not up to the newest that was found: it may be one of several that were just being written.
        self._read |= {one.server: one.version for one in news}
        return told

    async def ask(self, names: Iterable[str]) -> list[Told]:
        """Return what the servers of the last look have told under these names.

        Raises:
            StorageError: If MongoDB is away.
        """
        told: list[Told] = []
        for part in _parts(names):
            async for batch in self._roll.batches({"name": {"$in": part}}):
                told += self._told(batch)
        return told

    async def leave(self) -> None:
        """Remove everything of this process, as it ends.

        Raises:
            StorageError: If MongoDB is away: the others remove it then.
        """
        await self._delete(self._servers, {"_id": self._process})
        await self._delete(self._roll, {"process": self._process})

    def _update(self, name: str, numbers: Sequence[int]) -> Document:
        fields = {"process": self._process, "life": self._life, "version": self._version, "name": name, "numbers": list(numbers)}
        gone = {"$unset": {"gone": ""}} if numbers else {"$currentDate": {"gone": True}}
        return {"q": {"_id": f"{self.server}/{name}"}, "u": {"$set": fields, **gone}, "upsert": True}

    def _told(self, batch: Iterable[Document]) -> Iterator[Told]:
        for one in batch:
            server = _server(one["process"], one["life"])
            if server in self._others:
                yield Told(server, one["name"], tuple(one["numbers"]))

    async def _remove(self, dead: Document) -> None:
        """Remove what is left of a process. Its end is noted first: if it lives after all, it hears of that and begins again."""
        process, life = dead["_id"], dead["life"]
        sign = {"q": {"_id": process, "life": life, "seen": dead["seen"]}, "u": {"$set": {"over": True}}}
        if (await self._database.command({"update": SERVERS, "updates": [sign], "writeConcern": DURABLE}))["n"]:
            await self._delete(self._roll, {"process": process, "life": {"$lte": life}})
            await self._delete(self._servers, {"_id": process, "life": life, "over": True})

    async def _delete(self, collection: Collection, query: Document) -> None:
        await self._database.command({"delete": collection.name, "deletes": [{"q": query, "limit": 0}], "writeConcern": DURABLE})


def _server(process: str, life: int) -> str:
    return f"{process}/{life}"


def _parts(items: Iterable[T]) -> Iterator[list[T]]:
    """Cut into parts that fit in one command each."""
    iterator = iter(items)
    while part := list(islice(iterator, WRITES)):
        yield part
