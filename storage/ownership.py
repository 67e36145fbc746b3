"""Ownership: whose a resource is. Names of resources and of owners are strings here, and mean nothing.

Every change of a resource gives it a higher version, so whoever learns of two changes in the wrong order still knows which is the last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from storage.batcher import Batcher
from storage.collection import Collection, date_of, expiry
from storage.mongo import Database, Document
from storage.owned import Owned

OWNERSHIP = "ownership"
TOMBSTONE_SECONDS = 86_400  # how long it is known which version nobody's resource had: no clock is wrong by more
MAX_RESOURCES = 1000  # in one question
PROBE_DOCUMENTS = 5000  # if all callers together own fewer resources, one plain query answers them; it is the cheapest


class Ownership:
    """All resources of one database.

    Args:
        database: Where they are.
        clock: Returns the time in seconds since 1970.
    """

    def __init__(self, database: Database, *, clock: Callable[[], float]) -> None:
        self._collection = Collection(database, OWNERSHIP)
        self._clock = clock
        self._resources: Batcher[str, Owned] = Batcher(self._load_resources, name="owners")
        self._names: Batcher[tuple[str, int], list[Owned]] = Batcher(self._load_names, name="resources of owners")
        self._is_empty = False  # True: there was no resource when `open` looked, and nothing was noticed since
        self._noticed = 0  # how often something was

    async def open(self) -> None:
        """Make the indexes that are not there yet, and see whether there is any resource; idempotent.

        Where changes of other processes are learned from the log, open this once the log is followed: what they made before is then seen
        here, and what they make later is noticed.

        Raises:
            Unavailable: If MongoDB is away; call it again.
        """
        await self._collection.ensure_indexes([expiry("expires"), {"key": {"owners": 1}, "name": "owners"}])
        noticed = self._noticed
        found = await self._collection.find({}, limit=1)
        self._is_empty = not found and noticed == self._noticed

    async def close(self) -> None:
        """Refuse whoever waits for an answer, and leave no task behind; idempotent."""
        await self._resources.close()
        await self._names.close()

    @property
    def is_empty(self) -> bool:
        """Whether it is certain that nobody owns anything."""
        return self._is_empty

    def noticed(self) -> None:
        """Learn that there may be resources, or others than before: made by another process."""
        self._noticed += 1
        self._is_empty = False

    async def set_owners(self, resource: str, owners: Sequence[str]) -> Owned:
        """Replace the owners of a resource, known or not, and return it as it is now. Without owners it is as if it did not exist.

        When this is cancelled, or fails with Unavailable, it may be done or not; do it again, which gives it one more version.

        Raises:
            ValueError: If the resource has no name.
            Unavailable: If MongoDB is away or did not confirm it.
        """
        document = await self._change(resource, self._fields(owners, self._now_ms()))
        assert document is not None, "there is one after an upsert"
        return _owned(document)

    async def create(self, resource: str, owners: Sequence[str]) -> Owned | None:
        """Give a resource its first owners, and return it; None if it has owners already, and then nothing is changed.

        Of several who create it at once one succeeds. When this is cancelled, or fails with Unavailable, it may be done or not.

        Raises:
            ValueError: If the resource has no name, or no owners are given.
            Unavailable: If MongoDB is away or did not confirm it.
        """
        if not owners:
            raise ValueError("expected at least one owner")
        now_ms = self._now_ms()
        has_owners = {"$gt": [{"$size": {"$ifNull": ["$owners", []]}}, 0]}
        update = {field: {"$cond": [has_owners, f"${field}", value]} for field, value in self._fields(owners, now_ms).items()}
        previous = await self._change(resource, update, before=True)  # what was there tells who won, and which version it has now
        if previous is None:
            return Owned(resource, _distinct(owners), now_ms)
        if previous["owners"]:
            return None
        return Owned(resource, _distinct(owners), max(int(previous["version"]) + 1, now_ms))

    async def owners_of(self, resources: Sequence[str]) -> dict[str, Owned]:
        """Return those of these resources that somebody owns.

        Many calls at once are one query. Cancelling disturbs nobody else.

        Args:
            resources: Up to 1,000 of them.

        Raises:
            ValueError: If there are more.
            Unavailable: If MongoDB is away.
        """
        if len(resources) > MAX_RESOURCES:
            raise ValueError(f"expected at most {MAX_RESOURCES} resources, not {len(resources)}")
        return {} if self._is_empty else await self._resources.find(resources)

    async def owned_by(self, names: Sequence[str], limit: int) -> list[Owned]:
        """Return the resources of which one of these names is an owner.

        Many calls at once are one query, or two when much is owned. Where there are no resources at all, none is sent. Cancelling
        disturbs nobody else.

        Args:
            names: Of owners.
            limit: One more than this is returned at the most: so it is seen that there are more.

        Raises:
            Unavailable: If MongoDB is away.
        """
        if self._is_empty:
            return []
        found = await self._names.find([(name, limit) for name in names])
        distinct = {one.resource: one for owned in found.values() for one in owned}
        return list(distinct.values())[: limit + 1]

    async def _change(self, resource: str, fields: Document, *, before: bool = False) -> Document | None:
        if not resource:
            raise ValueError("expected the name of a resource")
        self.noticed()
        return await self._collection.upsert(resource, [{"$set": fields}], before=before)

    def _fields(self, owners: Sequence[str], now_ms: int) -> Document:
        """Return what a resource's fields become, as expressions that MongoDB evaluates on what it holds at that moment."""
        forgotten = date_of(now_ms / 1000 + TOMBSTONE_SECONDS)
        return {
            "owners": {"$literal": list(_distinct(owners))},
            "version": {"$max": [{"$add": [{"$ifNull": ["$version", 0]}, 1]}, now_ms]},
            "expires": "$$REMOVE" if owners else forgotten,
        }

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)

    async def _load_resources(self, resources: list[str]) -> dict[str, Owned]:
        found = await self._collection.find({"_id": {"$in": resources}})
        return {document["_id"]: _owned(document) for document in found if document["owners"]}

    async def _load_names(self, keys: list[tuple[str, int]]) -> dict[tuple[str, int], list[Owned]]:
        """Return for each name, and how many its caller wants, what it owns; up to the most that any caller wants, and one more."""
        most = max(limit for _, limit in keys) + 1
        names = list(dict.fromkeys(name for name, _ in keys))
        probe = max(PROBE_DOCUMENTS, most)
        documents = await self._collection.find({"owners": {"$in": names}}, limit=probe)
        if len(documents) < probe:
            by_name = _by_owner(names, documents)
        else:  # somebody owns much: nobody else may go short for that
            by_name = await self._collection.join("owners", names, most)
        owned = {name: [_owned(document) for document in found] for name, found in by_name.items()}
        return {key: owned[key[0]] for key in keys}


def _by_owner(names: Sequence[str], documents: Sequence[Document]) -> dict[str, list[Document]]:
    found: dict[str, list[Document]] = {name: [] for name in names}
    for document in documents:
        for owner in document["owners"]:
            if owner in found:
                found[owner].append(document)
    return found


def _distinct(owners: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(owners))


def _owned(document: Document) -> Owned:
    return Owned(document["_id"], tuple(document["owners"]), int(document["version"]))  # BSON has its own kind of integer
