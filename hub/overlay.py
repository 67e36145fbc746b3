"""The overlay: what the log says of state beyond what is folded into MongoDB, in each process, up to its head. No I/O, no clock.

Folding keeps the newest event of each key, so it does not matter which part of it MongoDB has done: items as they were read, none of them
newer than the head, with everything over them that came between the progress and the head, are the state as of the head.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from weakref import WeakSet

from hub.folds import Folds
from storage.entries import Entry
from storage.items import Item

MOST_ITEMS = 50_000  # in the overlay: some seconds of more keys than anybody has; beyond that what is missing is read from the log
MOST_PENDING = 5_000  # entries that wait to be put in their places
MOST_KEPT = 10_000  # of public state, for which MongoDB is not asked again

Keyed = tuple[str, str, str]  # snapshot, owner, key
Owned = tuple[str, str]  # snapshot, owner
Kind = tuple[str, str, tuple[str, ...], str | None]  # type, key, audience and source of an entry: what decides which items it changes


class Pin:
    """Keeps the overlay from letting go of what comes after a number, for as long as somebody holds it."""

    __slots__ = ("__weakref__", "seq")

    def __init__(self, seq: int) -> None:
        self.seq = seq


class Overlay:
    """The newest item of each key, of all entries after `floor` up to `head`.

    Args:
        folds: What is folded.
        most: How many items there may be; beyond that the oldest leave it, and the floor rises.
    """

    def __init__(self, folds: Folds, *, most: int = MOST_ITEMS) -> None:
        self.folds = folds
        self.epoch: bytes | None = None  # of the log that is followed; None before the first contact
        self.former: bytes | None = None  # of the one that was followed before; None: there was none
        self.era = 0  # counted up when what was read before is of no use any more
        self.head = 0  # everything up to here is in
        self._floor = 0  # everything after it is in
        self._most = most
        # The newest entry of each kind that is not in its place yet, oldest first: of a price that changes twenty times before anybody
        # asks, one change is put there.
        self._pending: dict[Kind, Entry] = {}
        self._items: dict[Keyed, Item] = {}  # oldest first
        self._owned: dict[Owned, dict[str, Item]] = {}  # the same by owner
        self._kept: dict[Owned, dict[str, Item]] = {}  # the whole state of some owners as of the head, oldest first
        self._pins: WeakSet[Pin] = WeakSet()
        self._waiting: dict[asyncio.Future[None], int] = {}  # for the head to be there

    def __len__(self) -> int:
        self._settle()
        return len(self._items)

    @property
    def floor(self) -> int:
        """Return the number after which everything is in."""
        self._settle()
        return self._floor

    # What the hub tells

    def start(self, epoch: bytes, head: int) -> None:
        """Begin at this place of the log with this epoch, with nothing."""
        if epoch != self.epoch:
            self.former, self.epoch = self.epoch, epoch
        self.head = self._floor = head
        self.era += 1
        self._pending.clear()
        self._items.clear()
        self._owned.clear()
        self._kept.clear()
        self._wake(None)

    def lose(self, before: int) -> None:
        """Go on after this number: what is between it and the head was not seen."""
        assert self.epoch is not None, "it was started"
        self.start(self.epoch, before)

    def receive(self, entries: list[Entry]) -> None:
        """Take the entries that follow the head. One of a type that no state has costs one look into a table."""
        types, pending = self.folds.types, self._pending
        for entry in entries:
            if entry.type in types and entry.key is not None:
                kind = (entry.type, entry.key, entry.audience, entry.source)
                pending.pop(kind, None)
                pending[kind] = entry
        self.head = entries[-1].seq
        if len(pending) > MOST_PENDING:
            self._settle()
        if self._waiting:
            self._wake(self.head)

    def _settle(self) -> None:
        """Put what is pending in its place."""
        if not self._pending:
            return
        for item in self.folds.items(self._pending.values()):
            self._put(item)
        self._pending.clear()
        while len(self._items) > self._most:
            self._floor = self._drop_oldest()

    def _put(self, item: Item) -> None:
        owned, keyed = (item.snapshot, item.owner), (item.snapshot, item.owner, item.key)
        self._items.pop(keyed, None)
        self._items[keyed] = item
        self._owned.setdefault(owned, {})[item.key] = item
        kept = self._kept.get(owned)
        if kept is None:
            return
        kept.pop(item.key, None)
        if not item.gone:
            kept[item.key] = item
            if len(kept) > MOST_KEPT:
                del kept[next(iter(kept))]

    def _drop_oldest(self) -> int:
        """Let go of the oldest item, and return its number."""
        keyed = next(iter(self._items))
        item = self._items.pop(keyed)
        owned = self._owned[keyed[:2]]
        del owned[item.key]
        if not owned:
            del self._owned[keyed[:2]]
        return item.seq

    def _wake(self, head: int | None) -> None:
        """Let those go on who wait for a place up to `head`; None: all."""
        for future, seq in self._waiting.items():
            if (head is None or seq <= head) and not future.done():
                future.set_result(None)

    # What is folded

    def after(self, seq: int) -> list[Item]:
        """Return the newest item of each key after a number, which must not be below the floor."""
        assert seq >= self.floor
        return [item for item in self._items.values() if item.seq > seq]

    def trim(self, folded: int) -> None:
        """Let go of what MongoDB has, unless somebody who reads it still needs it here."""
        floor = min([folded, self.head, *(pin.seq for pin in self._pins)])
        if floor <= self.floor:
            return
        while self._items and next(iter(self._items.values())).seq <= floor:
            self._drop_oldest()
        self._floor = floor

    # What is read

    def pin(self) -> Pin:
        """Return a pin at the floor."""
        pin = Pin(self.floor)
        self._pins.add(pin)
        return pin

    def extend(self, older: Iterable[Item], since: int) -> bool:
        """Put under it what entries say between `since` and the floor, in their order; False: it cannot hold that much."""
        self._settle()
        added: dict[Keyed, Item] = {}
        for item in older:
            keyed = (item.snapshot, item.owner, item.key)
            added.pop(keyed, None)
            added[keyed] = item
        added = {keyed: item for keyed, item in added.items() if keyed not in self._items}
        if len(added) + len(self._items) > self._most:
            return False
        self._items = {**added, **self._items}
        for item in added.values():
            self._owned.setdefault((item.snapshot, item.owner), {})[item.key] = item
        self._floor = since
        return True

    def newest(self, owned: Owned) -> dict[str, Item]:
        """Return what is here of an owner, by key."""
        self._settle()
        return self._owned.get(owned, {})

    def keep(self, owned: Owned, items: Iterable[Item]) -> None:
        """Keep an owner's whole state, given as of the head and oldest first, and go on with it as entries come."""
        self._settle()
        self._kept[owned] = {item.key: item for item in items}

    def kept(self, owned: Owned) -> dict[str, Item] | None:
        """Return an owner's whole state as of the head, by key and oldest first; None: it is not kept."""
        self._settle()
        return self._kept.get(owned)

    async def reach(self, seq: int) -> None:
        """Return once the head is there, or what was read before is of no use any more."""
        if seq > self.head:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting[future] = seq
            try:
                await future
            finally:
                del self._waiting[future]
