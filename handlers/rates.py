"""How often clients may do what: decides, counts and tells; what a refusal looks like is the error's business. Knows no request."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from handlers.addresses import counted_as
from handlers.buckets import Allowance, Buckets
from handlers.refusals import AGENT_SUBSCRIPTIONS, CONNECTS, EVENTS, FAILED_LOGINS, GRANTS, MESSAGES, ORG_EVENTS, PAYMENTS, Refusals
from hub.errors import TokenExpired, TooMany, Unauthenticated
from hub.principal import AGENT, Principal

MESSAGES_BURST_SECONDS: Final = 4.0  # of messages that may come at once: a page that opens subscribes to all it shows
EVENTS_BURST_SECONDS: Final = 2.0  # of events that may come at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """How often what may be done; 0, or the number that stands for it in the settings: no limit."""

    connects_per_minute: float = 0
    connects_burst: float = 0
    failed_logins_per_minute: float = 0
    messages_per_second: float = 0
    events_per_second: float = 0
    org_events_per_second: float = 0
    grants_per_minute: float = 0
    payments_per_minute: float = 0
    agent_subscriptions_per_minute: float = 0


class RateLimits:
    """All limits on how often something is done. Each server process counts for itself.

    Args:
        rates: What is allowed.
        refusals: Where refusals are counted and told.
        clock: Seconds, never going back.
    """

    def __init__(self, rates: Rates, refusals: Refusals, clock: Callable[[], float]) -> None:
        self.rates = rates
        self.refusals = refusals
        self._clock = clock
        self._connects = Buckets(rates.connects_per_minute / 60, rates.connects_burst, clock)
        self._failed_logins = Buckets(rates.failed_logins_per_minute / 60, rates.failed_logins_per_minute, clock)
        self._events = Buckets(rates.events_per_second, rates.events_per_second * EVENTS_BURST_SECONDS, clock)
        self._org_events = Buckets(rates.org_events_per_second, rates.org_events_per_second * EVENTS_BURST_SECONDS, clock)
        self._grants = Buckets(rates.grants_per_minute / 60, rates.grants_per_minute, clock)
        self._payments = Buckets(rates.payments_per_minute / 60, rates.payments_per_minute, clock)
        self._agents = Buckets(rates.agent_subscriptions_per_minute / 60, rates.agent_subscriptions_per_minute, clock)
        self._messages = Allowance(rates.messages_per_second, rates.messages_per_second * MESSAGES_BURST_SECONDS)

    def connect(self, address: str, **fields: Any) -> None:
        """Let an address open one connection.

        Raises:
            TooMany: If it has opened too many lately.
        """
        wait = self._connects.take(counted_as(address))
        if wait:
            self.refusals.count(CONNECTS, address, **fields)
            raise _too_many("this address connects too often", wait)

    @contextmanager
    def login(self, address: str, **fields: Any) -> Iterator[None]:
        """Let an address show a credential, which is looked at in the context.

        One that does not hold counts, one whose time is over does not: it did hold. What is shown at the same moment is looked at before
        any of it counts, so somewhat more than the limit may be.

        Raises:
            TooMany: If too many from this address did not hold lately; this one must not be looked at, however good it is.
        """
        self.require_login(address, **fields)
        try:
            yield
        except Unauthenticated as error:
            self.failed_login(address, error)
            raise

    def require_login(self, address: str, **fields: Any) -> None:
        """Make sure that an address may show a credential; see `login`."""
        wait = self._failed_logins.wait(counted_as(address))
        if wait:
            self.refusals.count(FAILED_LOGINS, address, **fields)
            raise _too_many("too many credentials from this address did not hold", wait)

    def failed_login(self, address: str, error: Unauthenticated) -> None:
        """Count a credential that did not hold; see `login`."""
        if not isinstance(error, TokenExpired):
            self._failed_logins.take(counted_as(address))

    def publish(self, publisher: Principal, events: int, **fields: Any) -> None:
        """Let a publisher publish so many events, or none of them.

        Raises:
            TooMany: If it, or its organisation, has published too many lately.
        """
        user, org = _counted(publisher), publisher.org
        wait = 0.0 if org is None else self._org_events.wait(org, events)
        if wait:
            self.refusals.count(ORG_EVENTS, str(org), user=publisher.user, **fields)
            raise _too_many("your organisation publishes too many events", wait)
        wait = self._events.take(user, events)
        if wait:
            self.refusals.count(EVENTS, publisher.user, org=org, **fields)
            raise _too_many("you publish too many events", wait)
        if org is not None:
            self._org_events.take(org, events)

    def grant(self, principal: Principal, **fields: Any) -> None:
        """Let somebody have one ticket or renewal: each is kept, and costs all processes a moment.

        Raises:
            TooMany: If it has had too many lately.
        """
        wait = self._grants.take(_counted(principal))
        if wait:
            self.refusals.count(GRANTS, principal.user, org=principal.org, **fields)
            raise _too_many("you ask for too many tickets and renewals", wait)

    def pay(self, principal: Principal, **fields: Any) -> None:
        """Let a user make or change one payment stream: the other party hears of it, and it takes the place of others' events in the log.

        Raises:
            TooMany: If it has done so too often lately.
        """
        wait = self._payments.take(_counted(principal))
        if wait:
            self.refusals.count(PAYMENTS, principal.user, org=principal.org, **fields)
            raise _too_many("you make and change payment streams too often", wait)

    def message(self, full_at: float) -> tuple[float, float]:
        """Let a WebSocket send one message; its state is its own, see `Allowance.spend`."""
        return self._messages.spend(full_at, self._clock())

    def too_many_messages(self, wait: float, who: str, **fields: Any) -> TooMany:
        """Count a message that was refused, and return what is said of it."""
        self.refusals.count(MESSAGES, who, **fields)
        return _too_many(f"at most {self.rates.messages_per_second:g} messages a second", wait)

    def subscribed(self, principal: Principal, **fields: Any) -> None:
        """Note that somebody subscribed: an agent that does so too often is reported."""
        if principal.has_role(AGENT) and self._agents.take(_counted(principal)):
            self.refusals.count(AGENT_SUBSCRIPTIONS, principal.user, org=principal.org, **fields)


def _counted(principal: Principal) -> str:
    """Return the name under which a user is counted: one of another organisation is another."""
    return f"{principal.org or ''}\n{principal.user}"


def _too_many(message: str, wait: float) -> TooMany:
    return TooMany(message, retry_after=math.ceil(wait))
