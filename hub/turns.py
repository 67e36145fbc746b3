"""Turns: who of many connections is served next. In turn by user, so that nobody gets more by connecting, or coming back, more often."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

from hub.connection import Connection

Held = TypeVar("Held")  # what a connection has in hand while it waits


class Turns(Generic[Held]):
    """Connections that wait for their turn, each once, with what it has in hand.

    Users come in the order in which they began to wait, and go to the end after each turn; of one user's connections it is the first
    that came.
    """

    def __init__(self) -> None:
        self._by_user: OrderedDict[str, OrderedDict[Connection, Held]] = OrderedDict()  # nobody with none

    def __bool__(self) -> bool:
        return bool(self._by_user)

    def __contains__(self, connection: Connection) -> bool:
        return connection in self._by_user.get(connection.principal.user, ())

    def put(self, connection: Connection, held: Held) -> None:
        """Let a connection wait for its turn; one that waits already keeps its place, and has this in hand instead."""
        waiting = self._by_user.get(connection.principal.user)
        if waiting is None:
            waiting = self._by_user[connection.principal.user] = OrderedDict()
        waiting[connection] = held

    def take(self) -> tuple[Connection, Held]:
        """Return whose turn it is, with what it has in hand; its user is the last one now.

        Raises:
            KeyError: If nobody waits.
        """
        user, waiting = self._by_user.popitem(last=False)
        taken = waiting.popitem(last=False)
        if waiting:
            self._by_user[user] = waiting
        return taken

    def clear(self) -> None:
        """Let nobody wait any more."""
        self._by_user.clear()
