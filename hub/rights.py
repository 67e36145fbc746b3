"""Rights as time goes by: who may connect, whose credential holds no longer, who owns what. It decides; the hub acts.

Whatever changes is told to every process by the log itself (see control.py), in one order, so that no process can miss it and go on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Protocol

from hub.census import ORG, USER, Census
from hub.connection import Connection
from hub.control import Changed, Renewed, Revoked, read_control
from hub.errors import POLICY, REPLACED, UNAUTHENTICATED, Forbidden, TooMany, Unauthenticated
from hub.ownership import MAX_OWNED, OwnershipChanges
from hub.principal import Principal, audience_of
from hub.revocations import Revocations
from hub.roll import Roll
from storage.entries import Entry
from storage.owned import Owned
from storage.revoked import Revocation

logger = logging.getLogger("tailcast.hub")

FORGET_REVOCATIONS_SECONDS = 60.0  # between looks at which are over
ORG_RETRY_SECONDS = 10  # said to whom the organisation's limit refuses


class Hearing(Protocol):
    """Changes what a connection hears; see hearing.py."""

    def renew(self, connection: Connection, principal: Principal) -> None:
        """Go on with another credential."""

    def change_rights(self, connection: Connection, owned: frozenset[str]) -> None:
        """Go on with other resources."""


class Host(Protocol):
    """Whose connections they are: the hub."""

    connections: dict[Connection, None]

    @property
    def hearing(self) -> Hearing:
        """What changes what they hear."""

    def close(self, connection: Connection, code: int, reason: str) -> None:
        """End a connection."""


class Rights:
    """What this process knows of rights.

    Args:
        hub: Who acts on it.
        time: Returns seconds since 1970.
        connections_per_user: How many connections a user may have; one more closes the oldest. 0: any number.
        connections_per_org: How many connections an organisation may have; one more is refused. 0: any number.
    """

    def __init__(
        self,
        hub: Host,
        time: Callable[[], float],
        *,
        connections_per_user: int = 0,
        connections_per_org: int = 0,
    ) -> None:
        self._hub = hub
        self._time = time
        self._connections_per_user = connections_per_user
        self._connections_per_org = connections_per_org
        self._forgot_at = time()
        self.census = Census()
        self.roll = Roll(
            self.census,
            self._replace,
            connections_per_user=connections_per_user,
            connections_per_org=connections_per_org,
        )
        self.revocations = Revocations()
        self.changes = OwnershipChanges()
        self.replaced = 0  # connections closed because their user has newer ones, since the start
        self.missed = asyncio.Event()  # set when part of the log was lost: what was told there must be asked of MongoDB

    # Coming and going

    def check(self, principal: Principal) -> None:
        """Make sure that a principal may open one more connection now; the caller opens it without an `await` in between.

        Raises:
            Unauthenticated: If its credential is revoked.
            TooMany: If its organisation has as many connections as it may have.
        """
        if self.revocations.cover(principal):
            raise Unauthenticated("the credential was revoked")
        limit, org = self._connections_per_org, principal.org
        if limit and org is not None and self.census.count(ORG, org) + self.roll.elsewhere.org(org) >= limit:
            raise TooMany(f"at most {limit} connections for one organisation", retry_after=ORG_RETRY_SECONDS)

    def enter(self, connection: Connection) -> None:
        """Count a connection in, and close the oldest of its user if these are too many now."""
        self.census.enter(connection)
        self.roll.note(connection.principal)
        limit, user = self._connections_per_user, connection.principal.user
        if limit and self.census.count(USER, user) > limit:
            self._replace(self.census.of(USER, user)[:-limit])

    def _replace(self, connections: list[Connection]) -> None:
        limit = self._connections_per_user
        for oldest in connections:
            self.replaced += 1
            logger.warning("too many connections", extra={"fields": {**oldest.describe(), "limit": limit}})
            self._hub.close(oldest, REPLACED, f"a newer connection took its place: a user has at most {limit}")

    def leave(self, connection: Connection) -> None:
        """Count a connection out."""
        self.census.leave(connection)
        self.roll.note(connection.principal)

    # What the log tells

    def heed(self, entries: Iterable[Entry]) -> None:
        """Act on what entries tell the server processes. Called before any of them is pushed, so that nobody hears what comes after it."""
        controls = [control for control in map(read_control, entries) if control is not None]
        self.revoke([control.revocation for control in controls if isinstance(control, Revoked)])
        for control in controls:
            if isinstance(control, Changed):
                self._change(control.owned)
            elif isinstance(control, Renewed):
                self.renew(control)

    def revoke(self, revocations: Iterable[Revocation]) -> None:
        """Take revocations into force, and end the connections that they concern."""
        found = False
        for one in revocations:
            self.revocations.add(one)
            found = True
        if not found:
            return
        now = self._time()
        if now - self._forgot_at >= FORGET_REVOCATIONS_SECONDS:
            self._forgot_at = now
            self.revocations.forget(now)
        for connection in [one for one in self._hub.connections if self.revocations.cover(one.principal)]:
            self._hub.close(connection, UNAUTHENTICATED, "the credential was revoked")

    def _change(self, owned: Owned) -> None:
        if not self.changes.note(owned):
            return
        audience = audience_of(owned.resource)
        concerned = dict.fromkeys(self.census.owning(audience))
        for owner in owned.owners:
            concerned.update(dict.fromkeys(self.census.named(owner)))
        for connection in concerned:
            if not owned.belongs_to(connection.principal.names()):
                self._hub.hearing.change_rights(connection, connection.owned - {audience})
            elif connection.hears_of(audience):
                self._let_hear(connection, audience)

    def _let_hear(self, connection: Connection, audience: str) -> None:
        if connection.owns_all and len(connection.owned) >= MAX_OWNED and audience not in connection.owned:
            self._hub.close(connection, POLICY, f"more than {MAX_OWNED} resources are yours now: name those you want to hear of")
        else:
            self._hub.hearing.change_rights(connection, connection.owned | {audience})

    def renew(self, renewed: Renewed) -> bool:
        """Let a connection of this process go on with a fresh credential, if it is the same principal's; False: it is not here."""
        for connection in self.census.of(USER, renewed.principal.user):
            if connection.client_id == renewed.client_id:
                try:
                    self._hub.hearing.renew(connection, renewed.principal)
                except (Forbidden, Unauthenticated) as error:
                    logger.warning("not renewed: %s", error, extra={"fields": connection.describe()})
                return True
        return False

    def lose(self) -> None:
        """Learn that entries were lost, or that the log is another one: what they told must be asked of MongoDB."""
        self.changes.lose()
        self.missed.set()
