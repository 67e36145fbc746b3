"""Folding: writes what the log says of state to MongoDB, about once a second, in one process at a time.

What is new is in the overlay. What this process has not followed is read from the log: after a start, and after others did nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection, Iterable
from typing import Protocol

from hub.overlay import Overlay
from hub.pages import EntryLog
from storage.entries import Entry
from storage.errors import StorageError
from storage.items import Item
from storage.snapshots import Progress

logger = logging.getLogger("tailcast.hub")

COMMIT_SECONDS = 1.0
START_SECONDS = 0.05  # between looks whether the log is being followed
RELEASE_SECONDS = 1.0  # for the last word; without it the lease ends by itself
PAGE_ENTRIES = 1000
STRANGE_TURNS = 2  # after which the log that is followed here is taken for the newer one, if another one is noted


class Lease(Protocol):
    """Whose work it is; see storage.leases."""

    async def take(self) -> bool:
        """Take or renew it, and tell whether this process has it."""

    async def release(self) -> None:
        """Let another process have it."""


class Store(Protocol):
    """Where items are written; see storage.snapshots."""

    async def enter(self, epoch: bytes) -> int:
        """Note which log is folded now."""

    async def progress(self) -> Progress:
        """Return how far it is folded."""

    async def commit(self, log: int, items: Iterable[Item], snapshots: Collection[str], seq: int) -> None:
        """Write items, and then the progress."""


class Folding:
    """Folds for as long as `run` runs.

    Args:
        overlay: What is new.
        log: Where the rest is.
        store: Where it is written.
        lease: Which process does it. Two that do it at once do no harm.
    """

    def __init__(self, overlay: Overlay, log: EntryLog, store: Store, lease: Lease) -> None:
        self._overlay = overlay
        self._log = log
        self._store = store
        self._lease = lease
        self._strange = 0  # turns in which another log was noted than the one that is followed
        self._failing = False  # that it went wrong has been logged

    async def run(self) -> None:
        """Fold every second until cancelled. Whatever is cut off by that is done again by whoever is next."""
        try:
            while True:
                await self.turn()
                await asyncio.sleep(COMMIT_SECONDS if self._overlay.epoch else START_SECONDS)
        finally:
            with contextlib.suppress(StorageError, TimeoutError):
                await asyncio.wait_for(self._lease.release(), RELEASE_SECONDS)

    async def turn(self) -> None:
        """Fold everything up to the head, if it is this process's work. If MongoDB is away, the next turn does it."""
        try:
            await self._turn()
        except StorageError as error:
            if not self._failing:
                logger.warning("snapshots are not folded: %s", error)
            self._failing = True
        else:
            if self._failing:
                logger.info("snapshots are folded again")
            self._failing = False

    async def _turn(self) -> None:
        if not self._overlay.folds.names:
            return
        holds = await self._lease.take()
        progress = await self._store.progress()
        epoch, era = self._overlay.epoch, self._overlay.era
        if epoch is None:
            return
        if progress.epoch != epoch:
            if not self._is_newer(progress):
                return
            await self._store.enter(epoch)
            progress = await self._store.progress()
        self._strange = 0
        folded = progress.of(self._overlay.folds.names)
        if era != self._overlay.era:
            return
        self._overlay.trim(folded)
        if holds:
            await self._fold(progress.log, folded, era)

    def _is_newer(self, progress: Progress) -> bool:
        """Tell whether the log that is followed here is newer than the one that is noted.

        Where it is not, this process is about to notice that its log is gone.
        """
        self._strange += 1
        return progress.log == 0 or progress.epoch == self._overlay.former or self._strange >= STRANGE_TURNS

    async def _fold(self, log: int, folded: int, era: int) -> None:
        """Fold everything after a number up to the head."""
        overlay, names = self._overlay, self._overlay.folds.names
        while folded < overlay.floor:
            entries = await self._log.read(folded, PAGE_ENTRIES)
            if era != overlay.era or not entries:
                return
            self._notice_hole(folded, entries[0])
            await self._store.commit(log, _newest(overlay.folds.items(entries)), names, entries[-1].seq)
            folded = entries[-1].seq
            if era != overlay.era or not await self._lease.take():
                return
        head = overlay.head
        if head > folded:
            await self._store.commit(log, overlay.after(folded), names, head)
            if era == overlay.era:
                overlay.trim(head)

    def _notice_hole(self, folded: int, first: Entry) -> None:
        """Say what has left the log before it was folded. Where nothing was folded yet, state begins with what there is."""
        if folded and first.seq != folded + 1:
            logger.warning("entries %d to %d left the log before they were folded: snapshots may miss them", folded + 1, first.seq - 1)


def _newest(items: Iterable[Item]) -> Collection[Item]:
    """Return the newest item of each key."""
    return {(item.snapshot, item.owner, item.key): item for item in items}.values()
