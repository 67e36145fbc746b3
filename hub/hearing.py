"""What a living connection hears: subscriptions that come and go, a fresh credential, other resources. Nothing of this ends it.

Each change is made where the connection stands, with no `await`, so that it has had everything before by what held then, and gets
everything after by what holds now.
"""

from __future__ import annotations

from typing import Any, Protocol

from hub.connection import Connection, Coverage, Start, State
from hub.errors import POLICY, Forbidden, Unauthenticated
from hub.formats import rfc3339_of
from hub.keeper import Keeper
from hub.principal import ADMIN, Principal
from hub.rights import Rights
from hub.router import Router
from hub.subscriptions import Subscription
from storage.positions import Position

MAX_CLAIMS = 10_000  # positions that one connection asked for, and nobody has looked at yet


class Host(Protocol):
    """Whose connections they are: the hub."""

    @property
    def head(self) -> Position:
        """As far as this process has seen the log."""

    def place(self, connection: Connection) -> Position:
        """Return how far a connection has read."""

    def resume(self, connection: Connection) -> None:
        """Put a connection whose sink is empty where it belongs by its position."""

    def seal(self, connection: Connection) -> str | None:
        """Return what reopens a connection where it stands."""

    def close(self, connection: Connection, code: int, reason: str) -> None:
        """End a connection."""

    def tell(self, connection: Connection, type: str, fields: dict[str, Any]) -> None:
        """Send one of the server's own messages."""


class Hearing:
    """Changes of what connections hear.

    Args:
        host: Whose they are.
        router: Says what is for whom.
        rights: Says who may hear what.
        keeper: Looks after credentials that end.
    """

    def __init__(self, host: Host, *, router: Router, rights: Rights, keeper: Keeper) -> None:
        self._host = host
        self._router = router
        self._rights = rights
        self._keeper = keeper

    def subscribe(self, connection: Connection, subscription: Subscription, start: Start | None) -> Position:
        """Add a subscription to a connection, or replace the one with the same topic, and return where it begins.

        A start before the connection's own place takes effect with `replay`, which goes back there and reads forward again for this
        subscription; what the others have had is not sent again.
        """
        assert connection.coverage is not None
        connection.cover(self._host.place(connection))
        begin = start.position if start else self._host.head
        connection.coverage[subscription.topic] = Coverage(subscription, begin.seq)
        self._change_interest(connection)
        return begin

    def replay(self, connection: Connection, start: Start) -> None:
        """Go back to a start given to `subscribe`, after the client was told of the subscription."""
        if connection.state is State.CLOSED:
            return
        place = self._host.place(connection)
        if len(start.claims) + len(connection.start.claims if connection.start else ()) > MAX_CLAIMS:
            self._host.close(connection, POLICY, "too many positions wait to be looked at")
            return
        if start.position >= place:  # nobody goes back, so whatever turns out to be gone is a loss
            start = start._replace(from_earliest=False)
        merged = connection.start.merge(start) if connection.start else start
        waiting = connection.state if connection.state is not State.ATTACHED else None
        connection.detach(waiting or State.READING, min(place, merged.position))
        connection.start = merged
        connection.replayed = connection.replayed or 0
        if waiting is None:
            self._host.resume(connection)

    def unsubscribe(self, connection: Connection, topic: str) -> bool:
        """Take a subscription away; False if there was none with this topic."""
        assert connection.coverage is not None
        if connection.coverage.pop(topic, None) is None:
            return False
        self._change_interest(connection)
        return True

    def renew(self, connection: Connection, principal: Principal, ref: str | None = None) -> None:
        """Go on with another credential of the same user, organisation and entity, and tell the client.

        Raises:
            Forbidden: If it is somebody else's, or lacks the role by which the connection hears what it hears.
            Unauthenticated: If it is revoked.
        """
        if not principal.is_same_as(connection.principal):
            raise Forbidden("the credential is somebody else's: open a connection of its own with it", field="token")
        if connection.granted and not principal.has_role(ADMIN):
            raise Forbidden("this connection hears what only an admin may: the credential must be one's", field="token")
        if self._rights.revocations.cover(principal):
            raise Unauthenticated("the credential was revoked", field="token")
        connection.principal = principal
        self._keeper.admit(connection)
        self._change_interest(connection)
        expires_at = principal.expires_at
        fields: dict[str, Any] = {} if ref is None else {"ref": ref}
        fields["expiresAt"] = rfc3339_of(expires_at)
        self._host.tell(connection, "renewed", {**fields, "resumeToken": self._host.seal(connection)})

    def change_rights(self, connection: Connection, owned: frozenset[str]) -> None:
        """Go on with other resources than before: what was not for a connection until now is, and the other way round."""
        if owned != connection.owned:
            self._rights.census.own(connection, owned)
            self._change_interest(connection)

    def _change_interest(self, connection: Connection) -> None:
        connection.limit_coverage()
        old = connection.interest
        assert old is not None
        new = self._router.intern(connection.audiences(), connection.subscriptions(), connection.format, connection.terms.pace)
        place, attached = self._host.place(connection), connection.state is State.ATTACHED
        if attached:
            connection.detach(State.READING, place)
        connection.interest = new
        self._router.release(old)
        if attached and place.seq == self._host.head.seq:
            connection.attach()
        elif attached:  # what is pending for it is delivered by what holds from now on
            self._host.resume(connection)
