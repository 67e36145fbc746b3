"""Tests of hub/totals.py: how many there are, over all processes as far as one knows."""

from __future__ import annotations

from collections.abc import Mapping

from hub.census import Census
from hub.connection import Connection
from hub.elsewhere import Elsewhere
from hub.formats import SSE
from hub.principal import ANONYMOUS, Principal
from hub.totals import MOST_USERS, Totals
from tests.hub.fakes import ManualClock, RecordingSink
from tests.hub.test_connection import Owner


class Place:
    """What one process has."""

    def __init__(self) -> None:
        self.connections: dict[Connection, None] = {}
        self.census, self.elsewhere = Census(), Elsewhere()
        self.others: list[Mapping[str, int]] = []
        self.totals = Totals(self.connections, self.census, self.elsewhere, lambda: self.others)

    def open(self, user: str) -> None:
        """Open a connection; without a user, an anonymous one."""
        principal = Principal(user) if user else ANONYMOUS
        one = Connection("c", principal, SSE, RecordingSink(SSE, ManualClock()), Owner())
        self.connections[one] = None
        self.census.enter(one)


def test_alone_everybody_here_is_everybody() -> None:
    """Connections of one user are one user; those of nobody are connections only."""
    place = Place()
    for user in ("u1", "u1", "u2", ""):
        place.open(user)
    assert (place.totals.clients(), place.totals.users()) == (4, 2)
    assert place.totals.per_user() == {"u1": 2, "u2": 1}


def test_what_others_have_counts_too_and_who_is_at_both_counts_once() -> None:
    """As far as it is known who is there; and no longer than they are heard."""
    place = Place()
    for user in ("u1", "u2"):
        place.open(user)
        place.elsewhere.know(user)
    place.elsewhere.hear_user("u1", "b", [5, 6, 7])
    place.others = [{"connections": 5, "users": 2}, {}, {"connections": 1, "users": 1}]
    assert (place.totals.clients(), place.totals.users()) == (8, 4)
    assert place.totals.per_user() == {"u1": 4, "u2": 1}
    place.others = []
    place.elsewhere.clear()
    assert (place.totals.clients(), place.totals.users()) == (2, 2)


def test_of_many_users_those_with_most_connections_are_listed() -> None:
    """The list is bounded."""
    place = Place()
    for number in range(MOST_USERS + 5):
        place.open(f"u{number}")
    place.open("u1004")
    listed = place.totals.per_user()
    assert len(listed) == MOST_USERS
    assert next(iter(listed.items())) == ("u1004", 2)
