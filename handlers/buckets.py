"""Token buckets by name: how often somebody may do something, and when it makes sense to come back. Knows no clock but the one it is given.

A bucket that holds `burst` tokens and gets `rate` a second is one number: when it will be full again (the generic cell rate algorithm of
ITU-T I.371, annex A). So a bucket can live in somebody else's object, and one that is full need not exist at all.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Final

MOST_NAMES: Final = 100_000
FULL: Final = 0.0  # the state of a bucket from which nothing was ever taken: it was full long ago
_NO_LIMIT: Final = 1e12  # as many a second, or at once, are no limit: nothing can be done that often
_ROUNDING: Final = 1e-6  # seconds: whoever comes back when told to is not sent away once more for a last bit
_FORGOTTEN_AT_ONCE: Final = 2  # buckets that one call forgets or puts right: more than it adds or makes wrong
_TRIES: Final = 8  # buckets that are looked at to find the one nearest to full


class Allowance:
    """What one bucket gets and holds; its state is the caller's.

    Args:
        rate_per_second: Tokens it gets; 0, or more than anybody can take: no limit.
        burst: Tokens it holds; at least 1; 0, or more than anybody can take: no limit.
    """

    __slots__ = ("_rate", "_seconds", "unlimited")

    def __init__(self, rate_per_second: float, burst: float) -> None:
        self.unlimited = not (0 < rate_per_second < _NO_LIMIT and 0 < burst < _NO_LIMIT)
        self._rate = rate_per_second
        self._seconds = 0.0 if self.unlimited else max(burst, 1.0) / rate_per_second  # in which an empty one is full again

    def spend(self, full_at: float, now: float, cost: float = 1.0) -> tuple[float, float]:
        """Take tokens out of a bucket.

        A cost that is more than the bucket holds is taken from a full one, and is then owed: nothing is refused for ever, and what is
        taken in the long run is no more than the rate.

        Args:
            full_at: The bucket's state: when it is full; `FULL` for a new one.
            now: The same clock, in seconds.
            cost: Tokens; a whole batch may cost what its parts do.

        Returns:
            0.0 and the new state if the tokens were there; else after how many seconds they will be, and the state as it was.
        """
        if self.unlimited:
            return 0.0, full_at
        begin = max(full_at, now)
        seconds = cost / self._rate
        missing = begin + min(seconds, self._seconds) - self._seconds - now
        if missing > _ROUNDING:
            return missing, full_at
        return 0.0, begin + seconds


class Buckets:
    """One bucket for each name, all alike.

    Full buckets are forgotten. At most `most` are kept: then those nearest to full go first, as far as a bounded search finds them, so that
    a flood of new names drives out itself, and not those who have used up what they had. A name that is forgotten nevertheless begins anew
    with a full bucket: with more than `most` names at once, each may get some of its burst again.

    Args:
        rate_per_second: Tokens each bucket gets; 0: no limit, and nothing is remembered.
        burst: Tokens each bucket holds.
        clock: Seconds, never going back.
        most: How many buckets are kept; some 130 bytes each, beside the name.
    """

    def __init__(self, rate_per_second: float, burst: float, clock: Callable[[], float], most: int = MOST_NAMES) -> None:
        self._allowance = Allowance(rate_per_second, burst)
        self._clock = clock
        self._most = most
        self._full_at: dict[str, float] = {}
        # Each name once, by when it was known to be full: that moves on without the heap, and is put right when it comes up.
        self._heap: list[tuple[float, str]] = []

    def __len__(self) -> int:
        """Return how many names are remembered."""
        return len(self._full_at)

    def take(self, name: str, cost: float = 1.0) -> float:
        """Take tokens out of a name's bucket.

        Returns:
            0.0 if they were there; else after how many seconds it makes sense to come back, and nothing was taken.
        """
        if self._allowance.unlimited:
            return 0.0
        now = self._clock()
        self._forget_full(now)
        known = self._full_at.get(name)
        wait, full_at = self._allowance.spend(FULL if known is None else known, now, cost)
        if wait == 0.0:
            self._full_at[name] = full_at
            if known is None:
                heapq.heappush(self._heap, (full_at, name))
                if len(self._heap) > self._most:
                    self._forget_one()
        return wait

    def wait(self, name: str, cost: float = 1.0) -> float:
        """Return what `take` would return, and take nothing."""
        return self._allowance.spend(self._full_at.get(name, FULL), self._clock(), cost)[0]

    def _forget_full(self, now: float) -> None:
        for _ in range(_FORGOTTEN_AT_ONCE):
            if not self._heap or self._heap[0][0] > now:
                return
            if self._first_is_right():
                self._forget_first()

    def _forget_one(self) -> None:
        """Forget the bucket nearest to full; if many were used meanwhile, the one that is as far as the search went."""
        for _ in range(_TRIES):
            if self._first_is_right():
                break
        self._forget_first()

    def _first_is_right(self) -> bool:
        """Tell whether what comes up first is known to be full when it will be; else put it in its place."""
        noted, name = self._heap[0]
        full_at = self._full_at[name]
        if full_at == noted:
            return True
        heapq.heapreplace(self._heap, (full_at, name))
        return False

    def _forget_first(self) -> None:
        del self._full_at[heapq.heappop(self._heap)[1]]
