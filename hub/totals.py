"""How many connections and users there are, over all server processes as far as this one knows. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sized
from heapq import nlargest

from hub.census import USER, Census
from hub.elsewhere import Elsewhere

MOST_USERS = 1000  # that are listed with their connections


class Totals:
    """Counts of this process, and what the others told of theirs.

    Args:
        connections: Those of this process.
        census: Whose they are.
        elsewhere: What others have of the users that are here.
        others: Returns how many `connections` and `users` each of the others has; none while they are not heard.
    """

    def __init__(self, connections: Sized, census: Census, elsewhere: Elsewhere, others: Callable[[], Iterable[Mapping[str, int]]]) -> None:
        self._connections = connections
        self._census = census
        self._elsewhere = elsewhere
        self._others = others

    def clients(self) -> int:
        """Return how many connections there are, those without a credential too."""
        return len(self._connections) + self._told("connections")

    def users(self) -> int:
        """Return how many users there are. One that is at this process and at others counts once, as far as these say who is there; one
        that is at several others and not here counts for each."""
        only_here = sum(not self._elsewhere.user(user) for user in self._census.names(USER))
        return only_here + self._told("users")

    def _told(self, name: str) -> int:
        return sum(told.get(name, 0) for told in self._others())

    def per_user(self) -> dict[str, int]:
        """Return how many connections each user of this process has, wherever they are: of those `MOST_USERS` who have most."""
        counts = ((user, self._census.count(USER, user) + self._elsewhere.user(user)) for user in self._census.names(USER))
        return dict(nlargest(MOST_USERS, counts, key=lambda one: one[1]))
