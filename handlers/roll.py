"""The roll call: once a second this process tells the others whom it has, and hears whom they have. Knows no request."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping

from hub.keeper import Clock
from hub.roll import Roll
from storage.errors import StorageError
from storage.roll import RollStore

logger = logging.getLogger("tailcast.handlers")

EXCHANGE_SECONDS = 1.0
LEAVE_SECONDS = 1.0  # for the last word; without it the others notice by themselves
CLOCK_LOOKS = 3  # at MongoDB's clock; the one that took least time counts
MOST_TOLD = 10_000  # counts in one exchange, so that the sign of life behind them is not late


class RollCall:
    """Exchanges counts with the other processes. While there is none it only gives a sign of life.

    Args:
        store: Where they are exchanged.
        roll: This process's part.
        clock: The hub's.
        count: Returns what this process has in all, by names of its own.
    """

    def __init__(self, store: RollStore, roll: Roll, clock: Clock, count: Callable[[], Mapping[str, int]]) -> None:
        self._store = store
        self._roll = roll
        self._clock = clock
        self.count = count
        self._begun = False  # the others can hear this process; False again after anything that went wrong
        self._failing = False  # that it went wrong has been logged

    async def run(self) -> None:
        """Exchange counts every second until cancelled; then take back what was told."""
        try:
            while True:
                await self.exchange()
                await asyncio.sleep(EXCHANGE_SECONDS)
        finally:
            with contextlib.suppress(StorageError, TimeoutError):
                await asyncio.wait_for(self.leave(), LEAVE_SECONDS)

    def elsewhere(self) -> list[Mapping[str, int]]:
        """Return what each of the others has in all, as of about a second ago; none while they cannot be heard."""
        return self._store.totals if self._begun else []

    async def exchange(self) -> None:
        """Tell what has changed and act on what others tell. If MongoDB is away, limits hold within this process, and it starts anew."""
        try:
            await self._exchange()
        except StorageError as error:
            self._begun = False
            self._roll.alone()
            if not self._failing:
                logger.warning("connections are counted within this process only: %s", error)
            self._failing = True
        else:
            if self._failing:
                logger.info("connections are counted over all processes again")
            self._failing = False

    async def _exchange(self) -> None:
        if not self._begun:
            await self._begin()
        self._roll.meet(await self._store.look())
        taken, told_at = self._roll.take(MOST_TOLD, self._clock.monotonic())
        await self._store.tell(taken, told_at, self.count())
        told = await self._store.hear()
        # Asked after hearing: what is answered is at least as new.
        told += await self._store.ask(self._roll.strangers(taken))
        self._roll.hear(told, taken)

    async def _begin(self) -> None:
        await self._store.begin()
        looks = [await self._look_at_clock() for _ in range(CLOCK_LOOKS)]
        self._roll.begin(self._store.server, min(looks)[1])
        self._begun = True

    async def _look_at_clock(self) -> tuple[float, float]:
        """Return by how much it may be wrong, and what MongoDB's clock was when the hub's was 0."""
        before = self._clock.monotonic()
        now = await self._store.time()
        took = self._clock.monotonic() - before
        return took / 2, now - before - took / 2

    async def leave(self) -> None:
        """Take back what was told.

        Raises:
            StorageError: If MongoDB is away.
        """
        if self._begun:
            self._begun = False
            await self._store.leave()
