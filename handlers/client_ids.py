"""Names of connections that say whose they are, on which channel, and since when: `<user>-<channel>-<milliseconds since 1970>`."""

from __future__ import annotations

from collections.abc import Callable

REMEMBERED = 10_000  # names that were given lately: far more than are given within a millisecond
NOBODY = "anonymous"


class ClientIds:
    """Gives names that are unique within this process: of two alike in one millisecond, the second is a millisecond later.

    Args:
        time: Returns seconds since 1970.
    """

    def __init__(self, time: Callable[[], float]) -> None:
        self._time = time
        self._last: dict[str, int] = {}  # the latest time that was given with a user and channel; least lately given first

    def make(self, user: str, channel: str) -> str:
        """Return a name for one more connection of this user; empty: nobody's."""
        name = f"{user or NOBODY}-{channel}"
        ms = max(int(self._time() * 1000), self._last.pop(name, 0) + 1)
        self._last[name] = ms
        if len(self._last) > REMEMBERED:
            del self._last[next(iter(self._last))]
        return f"{name}-{ms}"
