"""What other server processes have: when each user's connections were opened, and how many an organisation has. No I/O, no clock."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence, Set

Openings = Sequence[int]  # milliseconds, oldest first


class Elsewhere:
    """The others' numbers, as they were heard last.

    Of users it remembers only those that are `known`, which this process has too; of organisations all, since one that has none here
    yet can be full already.
    """

    def __init__(self) -> None:
        self._users: dict[str, dict[str, Openings]] = {}  # by user and server
        self._orgs: dict[str, dict[str, int]] = {}  # by organisation and server

    def knows(self, user: str) -> bool:
        """Tell whether what others have of a user is remembered."""
        return user in self._users

    def know(self, user: str) -> None:
        """Remember from now on what others have of a user."""
        self._users.setdefault(user, {})

    def drop(self, user: str) -> None:
        """Forget a user."""
        self._users.pop(user, None)

    def hear_user(self, user: str, server: str, openings: Openings) -> None:
        """Learn when the connections were opened that a user has at another server."""
        at = self._users.get(user)
        if at is not None:
            at.pop(server, None)
            if openings:
                at[server] = openings

    def hear_org(self, org: str, server: str, count: int) -> None:
        """Learn how many connections an organisation has at another server."""
        at = self._orgs.setdefault(org, {})
        at[server] = count
        if not count:
            del at[server]
        if not at:
            del self._orgs[org]

    def org(self, org: str) -> int:
        """Return how many connections an organisation has at other servers."""
        at = self._orgs.get(org)
        return sum(at.values()) if at else 0

    def user(self, user: str) -> int:
        """Return how many connections a user has at other servers."""
        return sum(map(len, self._users.get(user, {}).values()))

    def surplus(self, user: str, server: str, openings: Openings, limit: int, told_at: Mapping[str, int]) -> int:
        """Return how many of a user's connections at this server, the oldest, are not among the newest `limit` over all servers.

        It is judged as of the last moment of which all servers with connections of this user have told, so that one that ended there
        and was opened again here does not count twice. Of two that were opened in the same millisecond, one server's counts as newer by
        the servers' names: everybody decides alike.

        Args:
            user: Whose connections.
            server: This server's name.
            openings: Its connections of this user.
            limit: How many may stay.
            told_at: As of when each other server has told, in milliseconds.
        """
        at = self._users.get(user)
        if not at:
            return max(0, len(openings) - limit)
        moment = min(told_at[other] for other in at)
        ranks = [rank for rank in _ranks({**at, server: openings}) if rank[0] <= moment]
        newest = heapq.nlargest(limit, ranks)
        return sum(one == server for _, one, _ in ranks) - sum(one == server for _, one, _ in newest)

    def keep(self, servers: Set[str]) -> None:
        """Forget what servers have that are not among these."""
        for user, at in self._users.items():
            if not at.keys() <= servers:
                self._users[user] = {server: openings for server, openings in at.items() if server in servers}
        for org, counts in list(self._orgs.items()):
            for server in counts.keys() - servers:
                self.hear_org(org, server, 0)

    def clear(self) -> None:
        """Forget everything."""
        self._users.clear()
        self._orgs.clear()

    def __len__(self) -> int:
        return len(self._users) + len(self._orgs)


def _ranks(at: dict[str, Openings]) -> Iterator[tuple[int, str, int]]:
    for server, openings in at.items():
        for index, ms in enumerate(openings):
            yield ms, server, index
