"""Limits over several server processes: what the others are to be told of this one, and what follows from what they tell. No I/O, no clock.

The rules: of a user's connections the newest stay, wherever they are, and each process closes its own that are older. An organisation's
are counted together, and one too many is refused. Everybody decides by what was heard last, so two processes may admit at the same
moment what together is too much; of a user's, what is too much is closed then.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Mapping
from itertools import islice

from hub.census import ENTITY, ORG, USER, Census, names_of
from hub.connection import Connection
from hub.elsewhere import Elsewhere
from hub.principal import Principal
from storage.roll import Counts, Told

logger = logging.getLogger("tailcast.hub")

MOST_PER_USER = 10_000  # openings in one document; a higher limit holds within each process only


class Roll:
    """The part of this process in counting over all of them.

    Args:
        census: Who is connected here.
        replace: Closes connections, given oldest first, that newer ones took the place of.
        connections_per_user: See hub.rights.
        connections_per_org: See hub.rights.
    """

    def __init__(
        self,
        census: Census,
        replace: Callable[[list[Connection]], None],
        *,
        connections_per_user: int,
        connections_per_org: int,
    ) -> None:
        self._census = census
        self._replace = replace
        self._per_user = connections_per_user
        # Which counts matter to anybody.
        self._kinds = {USER: 0 < connections_per_user <= MOST_PER_USER, ORG: 0 < connections_per_org < sys.maxsize, ENTITY: False}
        self._server = ""  # what the others call this process
        self._told_at = 0  # as of when this process has told everything, by the clock that all share
        self._others: Mapping[str, int] = {}  # the same of the others, in milliseconds since 1970
        self._unsettled: dict[str, None] = {}  # users with more connections than they may have, as far as it is known
        self._zero = 0.0  # the others' clock, in seconds since 1970, when the hub's clock was 0
        self._pending: dict[tuple[str, str], None] | None = None  # whose counts changed since they were told; None while nobody listens
        self.elsewhere = Elsewhere()

    def note(self, principal: Principal) -> None:
        """Note that a connection of this principal came or went."""
        if self._pending is not None:
            self._pending.update((name, None) for name in names_of(principal) if self._kinds[name[0]])

    # Others come and go

    def begin(self, server: str, zero: float) -> None:
        """Begin to be heard under this name, with times of a clock that all share."""
        self.alone()
        self._server, self._zero, self._told_at = server, zero, 0

    def alone(self) -> None:
        """Learn that there is nobody else, or nobody who could be heard: limits hold within this process."""
        self._pending = None
        self._others = {}
        self._unsettled.clear()
        self.elsewhere.clear()

    def meet(self, servers: Mapping[str, int]) -> None:
        """Learn which other servers there are now, and as of when they have told everything. As soon as there is one, it is told."""
        if not servers:
            self.alone()
            return
        if not self._others.keys() <= servers.keys():
            self.elsewhere.keep(servers.keys())
        self._others = servers
        if self._pending is None:
            self._pending = {(kind, name): None for kind, told in self._kinds.items() if told for name in self._census.names(kind)}

    # Telling and hearing

    def take(self, most: int, now: float) -> tuple[Counts, int]:
        """Return what is to be told, oldest changes first: for users when their connections were opened, for organisations how many.

        Args:
            most: How many users and organisations at a time.
            now: The hub's clock.

        Returns:
            The counts, and as of when everything is told with them.
        """
        pending = self._pending or {}
        names = list(islice(pending, most))
        for name in names:
            del pending[name]
        if not pending:
            self._told_at = self._shared(now)
        return {":".join(name): self._numbers(*name) for name in names}, self._told_at

    def _shared(self, moment: float) -> int:
        return round((moment + self._zero) * 1000)

    def _numbers(self, kind: str, name: str) -> list[int]:
        if kind == USER:
            return self._openings(name)
        count = self._census.count(kind, name)
        return [count] if count else []

    def _openings(self, user: str) -> list[int]:
        return [self._shared(one.opened_at) for one in self._census.of(USER, user)]

    def strangers(self, taken: Iterable[str]) -> list[str]:
        """Return which of these are users that are here, and of whom it is not known yet what others have: it must be asked."""
        return [name for name in taken if self._is_stranger(*name.split(":", 1))]

    def _is_stranger(self, kind: str, name: str) -> bool:
        return kind == USER and self._census.count(USER, name) > 0 and not self.elsewhere.knows(name)

    def hear(self, told: Iterable[Told], taken: Iterable[str]) -> None:
        """Take in what others told, in this order, and what they were asked about those who were `taken`; close what is too much now."""
        changed = [id for kind, id in (name.split(":", 1) for name in taken) if kind == USER]
        for user in changed:
            if self._census.count(USER, user):
                self.elsewhere.know(user)
            else:
                self.elsewhere.drop(user)
        for server, name, numbers in told:
            kind, id = name.split(":", 1)
            if kind == ORG:
                self.elsewhere.hear_org(id, server, sum(numbers))
            elif self.elsewhere.knows(id):
                self.elsewhere.hear_user(id, server, numbers)
                changed.append(id)
        concerned = dict.fromkeys([*self._unsettled, *changed])
        self._unsettled.clear()
        for user in concerned:
            self._settle(user)

    def _settle(self, user: str) -> None:
        openings = self._openings(user)
        surplus = self.elsewhere.surplus(user, self._server, openings, self._per_user, self._others)
        if self.elsewhere.user(user) + len(openings) - surplus > self._per_user:
            self._unsettled[user] = None
        self._replace(self._census.of(USER, user)[:surplus])
