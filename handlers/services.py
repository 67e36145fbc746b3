"""What every handler is given: the parts of the server, as assembly.py makes them, and whether one more client fits."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

from handlers.addresses import Network
from handlers.authentication import Authenticator
from handlers.belongings import Belonging
from handlers.client_ids import ClientIds
from handlers.parties import Parties
from handlers.rates import RateLimits
from handlers.refusals import CONNECTIONS, ORG_CONNECTIONS
from handlers.refused_fields import RefusedFields
from handlers.roll import RollCall
from handlers.sockets import Poller
from handlers.watchers import Watchers
from hub.errors import NotReady, TooMany
from hub.hub import Hub
from hub.principal import Principal
from hub.snapshots import Snapshots
from storage.appender import Appender
from storage.recent import RecentEvents
from storage.state import State

ANONYMOUS_SHARE = 0.8  # of all connections there may be; beyond that there is room only for those who show a credential
FULL_SECONDS = 5  # said to whom a server that is full or stopping refuses


@dataclass(slots=True, kw_only=True)
class Limits:
    """Sizes and counts that handlers hold clients to."""

    max_body_bytes: int
    max_event_bytes: int
    max_batch_events: int
    max_frame_bytes: int
    subscriptions_per_connection: int
    auth_seconds: float
    ticket_seconds: float
    session_seconds: float
    revocation_seconds: float


class Waiting(Protocol):
    """A client that the hub does not know yet."""

    def send_away(self) -> None:
        """Tell it to come back."""


@dataclass(slots=True, kw_only=True)
class Services:
    """The parts of the server.

    `ready` raises an error that says why the server cannot append and tail just now. `stopping` is set when it takes nothing new.
    """

    hub: Hub
    appender: Appender
    authenticator: Authenticator
    belonging: Belonging
    parties: Parties
    state: State
    recent: RecentEvents
    snapshots: Snapshots
    poller: Poller
    roll: RollCall
    limits: Limits
    rates: RateLimits
    watchers: Watchers
    refused_fields: RefusedFields
    ready: Callable[[], Awaitable[None]]
    allowed_origins: frozenset[str] = frozenset()
    trusted_proxies: tuple[Network, ...] = ()
    gzip: bool = True  # whether event streams are compressed for clients that take it
    stopping: bool = False
    waiting: set[Waiting] = field(default_factory=set)  # WebSockets that have not sent their credential yet
    time: Callable[[], float] = time.time
    make_id: Callable[[], str] = field(default_factory=lambda: _ids())
    client_ids: ClientIds = field(default_factory=lambda: ClientIds(time.time))
    jitter_ms: Callable[[], int] = field(default=lambda: 1000 + random.randrange(4000))

    def require_room(self, principal: Principal | None, address: str, correlation_id: str) -> None:
        """Make sure that one more client may connect now; the caller lets it, without an `await` in between.

        Args:
            principal: Who it is; None: that is not known yet.
            address: Where it comes from, and
            correlation_id: of which request, for the log.

        Raises:
            Unauthenticated: If its credential is revoked.
            TooMany: If its organisation has as many connections as it may have.
            NotReady: If the server has, or is stopping.
        """
        try:
            if principal is not None:
                self.hub.rights.check(principal)
        except TooMany:
            assert principal is not None
            self.rates.refusals.count(ORG_CONNECTIONS, str(principal.org), user=principal.user, correlationId=correlation_id)
            raise
        if self.stopping:
            raise NotReady("the server takes no more connections", retry_after=FULL_SECONDS)
        share = ANONYMOUS_SHARE if principal is not None and principal.is_anonymous else 1.0
        if not self.hub.has_room(len(self.waiting), share):
            self.rates.refusals.count(CONNECTIONS, address, correlationId=correlation_id)
            raise NotReady("the server takes no more connections", retry_after=FULL_SECONDS)


def _ids() -> Callable[[], str]:
    """Return a maker of ids that nobody else makes: this process's own random part, and a number. They name, and protect nothing."""
    own, numbers = secrets.token_hex(6), count(1)
    return lambda: f"{own}-{next(numbers):x}"
