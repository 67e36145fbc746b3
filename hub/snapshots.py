"""Snapshots for clients: state as of the head of this process, so that what comes next is every event after it.

What takes time is done first (`prepare`). What counts is done at once (`Prepared.now`), with no `await` between it and opening the
connection at the head: so no event is missing between the two, and none is in both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import islice
from typing import Any, Protocol

import msgspec

from hub.errors import NotReady
from hub.folds import Snapshot
from hub.formats import Format, sse_event
from hub.overlay import MOST_KEPT, Overlay, Pin
from hub.principal import PUBLIC
from hub.starting import HubLog
from hub.subscriptions import parse_payload
from storage.batcher import Batcher
from storage.items import Item
from storage.positions import Position
from storage.snapshots import Reading, Wanted

ATTEMPTS = 20  # at a reading that is of use: another log, or more news than the overlay holds, spoil it
PAUSE_SECONDS = 0.1  # between them
REACH_SECONDS = 2.0  # for the tail to come to where the log was when the items were read
BRIDGED_ENTRIES = 100_000  # how much of the log is read for what is not folded yet; where it is more, the folding must come nearer
PAGE_ENTRIES = 1000


class Reader(Protocol):
    """Where items are read; see storage.snapshots."""

    async def read(self, wanted: Wanted) -> Reading:
        """Return items, and the progress as it was before."""


class Headed(Protocol):
    """Who is at the head of the log: the hub."""

    head: Position

    def id_of(self, position: Position) -> str:
        """Return a place's id on the wire."""


class HasSnapshot(Protocol):
    """A channel."""

    @property
    def snapshot(self) -> Snapshot | None: ...


class Snapshots:
    """Makes snapshots for clients.

    Args:
        hub: At whose head they are.
        overlay: What is newer than the items.
        store: Where the items are.
        log: From which entries are read that are neither folded nor in the overlay.
        time: Returns the time in seconds since 1970.
    """

    def __init__(self, hub: Headed, overlay: Overlay, store: Reader, log: HubLog, time: Callable[[], float]) -> None:
        self.overlay = overlay
        self.hub = hub
        self.time = time
        self._store = store
        self._log = log
        self._heads: Batcher[None, int] = Batcher(self._load_head, name="the head of the log")
        self._bridging = asyncio.Lock()

    async def close(self) -> None:
        """Refuse whoever waits, and leave no task behind; idempotent."""
        await self._heads.close()

    async def prepare(self, channel: HasSnapshot, owner: str, keys: Collection[str] | None = None) -> Prepared:
        """Return what makes a channel's snapshot for a new client at any moment from now on.

        A thousand clients that ask at once are a few queries; public state is read once.

        Cancelling disturbs nobody else.

        Args:
            channel: One with a snapshot.
            owner: Whose state: a token of an audience.
            keys: Only these keys; None: all.

        Raises:
            StorageError: If MongoDB is away.
            NotReady: If state is not folded far enough yet, as just after a start, or the tail does not come after.
        """
        snapshot = channel.snapshot
        assert snapshot is not None, "the channel has one"
        chosen = None if keys is None else tuple(dict.fromkeys(keys))
        limit = MOST_KEPT if owner == PUBLIC else min(snapshot.limit, MOST_KEPT)
        for _ in range(ATTEMPTS):
            prepared = Prepared(self, snapshot, owner, chosen)
            if prepared.is_kept or await self._read(prepared, limit):
                if prepared.is_complete:
                    return prepared
                limit = min(2 * limit, MOST_KEPT)  # some of what was read is gone by now, and older ones take its place
            else:
                await asyncio.sleep(PAUSE_SECONDS)
        raise NotReady("state is not ready to be read", retry_after=1)

    async def _read(self, prepared: Prepared, limit: int) -> bool:
        """Read what is needed; False: it is of no use, try again."""
        keys = None if prepared.is_public else prepared.keys
        reading = await self._store.read(Wanted(prepared.snapshot.name, prepared.owner, limit, keys))
        # Whatever of it was written after the progress was read is in the log by now, and so after the progress and up to here.
        await self._reach((await self._heads.find([None]))[None])
        folded = reading.progress.of([prepared.snapshot.name])
        if reading.progress.epoch != self.overlay.epoch or not await self._bridge(folded):
            return False
        return prepared.take(reading.items, folded, limit if keys is None else None)

    async def _load_head(self, keys: list[None]) -> Mapping[None, int]:
        return {None: (await self._log.head()).seq}

    async def _reach(self, seq: int) -> None:
        try:
            async with asyncio.timeout(REACH_SECONDS):
                await self.overlay.reach(seq)
        except TimeoutError:
            raise NotReady("the tail is not at the head of the log", retry_after=1) from None

    async def _bridge(self, folded: int) -> bool:
        """Read from the log what is neither folded nor in the overlay, which is hardly ever anything; False: that cannot be done."""
        async with self._bridging:  # the second one finds it done
            overlay = self.overlay
            era, floor, at = overlay.era, overlay.floor, folded
            if floor - folded > BRIDGED_ENTRIES:
                return False
            items: list[Item] = []
            while at < floor:
                entries = await self._log.read(at, PAGE_ENTRIES)
                if (overlay.era, overlay.floor) != (era, floor) or not entries:
                    return False
                items += overlay.folds.items(entry for entry in entries if entry.seq <= floor)
                at = entries[-1].seq
            return folded >= floor or overlay.extend(items, folded)


class Prepared:
    """One client's snapshot, ready to be made.

    While it is held, the overlay lets go of nothing that it needs.
    """

    __slots__ = ("_asked", "_era", "_folded", "_items", "_maker", "_pin", "keys", "owner", "snapshot")

    def __init__(self, maker: Snapshots, snapshot: Snapshot, owner: str, keys: tuple[str, ...] | None) -> None:
        self.snapshot = snapshot
        self.owner = owner
        self.keys = keys  # None: all
        self._maker = maker
        self._pin: Pin = maker.overlay.pin()
        self._era = maker.overlay.era
        self._folded = 0  # up to which number the items are complete
        self._items: list[Item] = []  # as they were read
        self._asked: int | None = None  # how many items were asked for, if that was what bounded them

    @property
    def is_public(self) -> bool:
        """Whether it is the same for everybody."""
        return self.owner == PUBLIC

    @property
    def is_kept(self) -> bool:
        """Whether the whole state is in memory."""
        return self._maker.overlay.kept((self.snapshot.name, self.owner)) is not None

    @property
    def is_complete(self) -> bool:
        """Whether nothing is missing that there would be room for: of what was read, some may be gone, or over, by now."""
        asked = self._asked
        if self.is_kept or asked is None or not len(self._items) == asked < MOST_KEPT:
            return True
        last = self._items[-1]
        is_over = last.expires is not None and last.expires <= self._maker.time()  # and so is whatever is older
        return is_over or len(self._state()) >= self.snapshot.limit

    def take(self, items: list[Item], folded: int, asked: int | None) -> bool:
        """Take what was read; False: it is of no use. Public state is kept from here on."""
        self._items, self._folded, self._asked = items, folded, asked
        self._pin.seq = folded
        overlay = self._maker.overlay
        if not self._holds():
            return False
        if self.is_public and not self.is_kept:
            overlay.keep((self.snapshot.name, self.owner), reversed(self._merged()[:MOST_KEPT]))
        return True

    def _holds(self) -> bool:
        """Tell whether items and overlay have everything between them."""
        overlay = self._maker.overlay
        return self.is_kept or (overlay.era == self._era and overlay.floor <= self._folded)

    def _merged(self) -> list[Item]:
        """Return the items with what is newer over them, newest first."""
        found = {item.key: item for item in self._items}
        found |= self._maker.overlay.newest((self.snapshot.name, self.owner))
        return sorted((item for item in found.values() if not item.gone), key=_age, reverse=True)

    def _state(self) -> list[Item]:
        """Return the state as of the head, newest first."""
        kept = self._maker.overlay.kept((self.snapshot.name, self.owner))
        items: Iterable[Item] = self._merged() if kept is None else reversed(kept.values())
        if self.keys is not None:
            if kept is not None:
                items = sorted((kept[key] for key in self.keys if key in kept), key=_age, reverse=True)
            else:
                items = [item for item in items if item.key in self.keys]
        now = self._maker.time()
        return list(islice((item for item in items if item.expires is None or item.expires > now), self.snapshot.limit))

    def now(self, format: Format) -> bytes:
        """Return the snapshot as of the hub's head at this moment, for SSE; nothing, where there is nothing and it has no list.

        The caller opens the connection at the head, and awaits nothing in between.

        Raises:
            NotReady: If too much has happened since it was prepared: prepare it again.
        """
        if not self._holds() or not self.is_complete:
            raise NotReady("state has changed too much while it was read", retry_after=1)
        items = self._state()
        if self.snapshot.each:
            return format.join([_initial(item) for item in items]) if items else b""
        hub = self._maker.hub
        fields: dict[str, Any] = {
            "position": hub.id_of(hub.head),
            self.snapshot.name: [msgspec.Raw(item.data.encode()) for item in items],
        }
        if self.snapshot.total is not None:
            fields |= self.snapshot.total([parse_payload(item.data) for item in items])
        return format.message("snapshot", fields)


def _age(item: Item) -> tuple[int, int]:
    """Return what items are ordered by; times never fall along a log, and numbers begin again with another one."""
    return item.ms, item.seq


def _initial(item: Item) -> bytes:
    """Return an item as an event of its own. It has no `id`: whoever breaks off in the middle has not got the snapshot, and begins anew."""
    if item.initial is None:
        inner = item.data.rstrip()[:-1].rstrip()
        comma = "" if inner.endswith("{") else ","
        # At the end: where the publisher has given such a member, the last one is what counts for those who read JSON.
        item.initial = sse_event(item.type, f'{inner}{comma}"initializing":true}}', None)
    return item.initial
