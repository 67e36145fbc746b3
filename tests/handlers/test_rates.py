"""Tests of handlers/rates.py: each limit as it is and one beyond it, what it counts by, and what is told of a refusal."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from handlers.buckets import FULL
from handlers.rates import RateLimits, Rates
from handlers.refusals import (
    AGENT_SUBSCRIPTIONS,
    CONNECTS,
    EVENTS,
    FAILED_LOGINS,
    GRANTS,
    MESSAGES,
    ORG_EVENTS,
    PAYMENTS,
    REASONS,
    Refusals,
)
from hub.errors import TokenExpired, TooMany, Unauthenticated
from hub.principal import Principal

ADDRESS = "203.0.113.9"
PUBLISHER = Principal("p1", org="o1")


class NoTimer:
    """A call that never comes: here no summary is waited for."""

    def cancel(self) -> None:
        """Nothing to take back."""


class World:
    """Limits with a clock that stands still until the test moves it."""

    def __init__(self, rates: Rates) -> None:
        self.now = 1000.0
        self.refusals = Refusals(lambda seconds, call: NoTimer())
        self.limits = RateLimits(rates, self.refusals, lambda: self.now)

    def counted(self) -> dict[str, int]:
        """Return the reasons for which something was refused, and how often."""
        return {reason: count for reason, count in self.refusals.counts.items() if count}


@pytest.fixture
def world(expected_logs: list[str]) -> Callable[..., World]:
    """A function that makes limits; the test may refuse what it likes."""
    expected_logs.extend(REASONS.values())
    return lambda **rates: World(Rates(**rates))


Make = Callable[..., World]


def allowed(times: int, call: Callable[[], object]) -> list[int | None]:
    """Call again and again; return for each call None, or after how many seconds to come back."""
    answers: list[int | None] = []
    for _ in range(times):
        try:
            call()
            answers.append(None)
        except TooMany as error:
            answers.append(error.retry_after)
    return answers


def test_an_address_opens_its_burst_and_then_as_many_as_its_rate(world: Make) -> None:
    """Twenty connections at once, the next after twelve seconds, as told, and the next after twelve more."""
    here = world(connects_per_minute=5, connects_burst=20)
    assert allowed(21, lambda: here.limits.connect(ADDRESS)) == [None] * 20 + [12]
    here.now += 12
    assert allowed(2, lambda: here.limits.connect(ADDRESS)) == [None, 12]
    assert here.counted() == {CONNECTS: 2}


def test_other_addresses_are_not_held_to_it_but_those_of_one_network_are(world: Make) -> None:
    """An IPv4 address counts by itself, an IPv6 address with all others of its /64."""
    here = world(connects_per_minute=1, connects_burst=1)
    assert allowed(2, lambda: here.limits.connect(ADDRESS)) == [None, 60]
    assert allowed(1, lambda: here.limits.connect("203.0.113.10")) == [None]
    assert allowed(1, lambda: here.limits.connect("2001:db8::1")) == [None]
    assert allowed(1, lambda: here.limits.connect("2001:db8::ffff:2")) == [60]
    assert allowed(1, lambda: here.limits.connect("2001:db8:0:1::1")) == [None]


def test_a_user_has_as_many_tickets_and_renewals_as_its_rate(world: Make) -> None:
    """Users of other organisations with the same name are others."""
    here = world(grants_per_minute=2)
    assert allowed(3, lambda: here.limits.grant(Principal("u1", org="o1"))) == [None, None, 30]
    assert allowed(1, lambda: here.limits.grant(Principal("u1", org="o2"))) == [None]
    assert here.counted() == {GRANTS: 1}


def test_a_user_changes_payment_streams_as_often_as_its_rate(world: Make) -> None:
    """Users of other organisations with the same name are others."""
    here = world(payments_per_minute=2)
    assert allowed(3, lambda: here.limits.pay(Principal("u1", org="o1"))) == [None, None, 30]
    assert allowed(1, lambda: here.limits.pay(Principal("u1", org="o2"))) == [None]
    assert here.counted() == {PAYMENTS: 1}


def test_the_log_names_the_address_and_not_its_network(world: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Who reads the log sees whom to look for, and by which request."""
    here = world(connects_per_minute=1, connects_burst=1)
    allowed(2, lambda: here.limits.connect("2001:db8::1", correlationId="k1"))
    [record] = caplog.records
    assert getattr(record, "fields", None) == {"limit": CONNECTS, "who": "2001:db8::1", "correlationId": "k1"}


def outcome(here: World, error: Exception | None) -> str:
    """Show a credential that leads to this error, or holds; return what came of it."""
    looked = False
    try:
        with here.limits.login(ADDRESS):
            looked = True
            if error is not None:
                raise error
    except TooMany as refused:
        assert not looked
        return f"after {refused.retry_after}"
    except Unauthenticated:
        return "failed"
    return "held"


def test_credentials_that_do_not_hold_are_looked_at_so_often_only(world: Make) -> None:
    """After as many failures as there may be in a minute no credential is looked at, also no good one, until there may be one more."""
    here = world(failed_logins_per_minute=3)
    assert [outcome(here, Unauthenticated("no")) for _ in range(4)] == ["failed"] * 3 + ["after 20"]
    assert outcome(here, None) == "after 20"
    here.now += 20
    assert [outcome(here, None) for _ in range(10)] == ["held"] * 10
    assert outcome(here, Unauthenticated("no")) == "failed"
    assert outcome(here, None) == "after 20"
    assert here.counted() == {FAILED_LOGINS: 3}


def test_credentials_that_hold_or_did_once_never_count(world: Make) -> None:
    """Neither a good credential nor one whose time is over is a failed login."""
    here = world(failed_logins_per_minute=1)
    assert [outcome(here, None) for _ in range(5)] == ["held"] * 5
    assert [outcome(here, TokenExpired("over")) for _ in range(5)] == ["failed"] * 5
    assert outcome(here, None) == "held"


def test_a_publisher_publishes_so_many_events(world: Make) -> None:
    """Two seconds' worth at once, a batch by its events; of a batch beyond it, nothing counts."""
    here = world(events_per_second=10)
    assert allowed(1, lambda: here.limits.publish(PUBLISHER, 15)) == [None]
    assert allowed(2, lambda: here.limits.publish(PUBLISHER, 6)) == [1, 1]
    assert allowed(2, lambda: here.limits.publish(PUBLISHER, 5)) == [None, 1]
    assert here.counted() == {EVENTS: 3}


def test_publishers_count_by_user_within_their_organisation(world: Make) -> None:
    """Another user, the same name in another organisation, and the same without one, are others."""
    here = world(events_per_second=1)
    for other in (PUBLISHER, Principal("p2", org="o1"), Principal("p1", org="o2"), Principal("p1")):
        assert allowed(3, lambda other=other: here.limits.publish(other, 1)) == [None, None, 1]  # type: ignore[misc]


def test_an_organisation_publishes_so_many_events_through_all_its_publishers(world: Make) -> None:
    """What one of its publishers has used up is not there for the others; other organisations have theirs."""
    here = world(org_events_per_second=10, events_per_second=15)
    assert allowed(1, lambda: here.limits.publish(PUBLISHER, 20)) == [None]
    assert allowed(1, lambda: here.limits.publish(Principal("p2", org="o1"), 1)) == [1]
    assert allowed(1, lambda: here.limits.publish(Principal("p2", org="o2"), 20)) == [None]
    assert allowed(2, lambda: here.limits.publish(Principal("p3"), 15)) == [None, None]
    assert here.counted() == {ORG_EVENTS: 1}


def test_what_the_organisation_refuses_does_not_count_for_the_publisher(world: Make) -> None:
    """A refused batch was not published: afterwards the publisher may publish all that it may."""
    here = world(org_events_per_second=10, events_per_second=10)
    here.limits.publish(Principal("p2", org="o1"), 20)
    allowed(5, lambda: here.limits.publish(PUBLISHER, 20))
    here.now += 2
    assert allowed(1, lambda: here.limits.publish(PUBLISHER, 20)) == [None]


def test_what_the_publisher_may_not_does_not_count_for_its_organisation(world: Make) -> None:
    """One publisher that goes on trying takes nothing from the others of its organisation."""
    here = world(org_events_per_second=20, events_per_second=10)
    assert allowed(5, lambda: here.limits.publish(PUBLISHER, 20)) == [None, 2, 2, 2, 2]
    assert allowed(1, lambda: here.limits.publish(Principal("p2", org="o1"), 20)) == [None]


def test_a_batch_beyond_the_burst_is_published_once_in_a_while(world: Make) -> None:
    """A batch that is larger than what may come at once is not refused for ever; what follows waits for it."""
    here = world(events_per_second=10)
    assert allowed(2, lambda: here.limits.publish(PUBLISHER, 100)) == [None, 10]


def test_a_websocket_sends_so_many_messages(world: Make) -> None:
    """Four seconds' worth at once, then as many as the rate; the state is the connection's, and a refusal leaves it as it was."""
    here = world(messages_per_second=50)
    full_at = FULL
    for _ in range(200):
        wait, full_at = here.limits.message(full_at)
        assert wait == 0.0
    wait, unchanged = here.limits.message(full_at)
    assert wait == pytest.approx(0.02)
    assert unchanged == full_at
    error = here.limits.too_many_messages(wait, "u1")
    assert (error.retry_after, str(error)) == (1, "at most 50 messages a second")
    assert here.counted() == {MESSAGES: 1}


def test_an_agent_that_subscribes_too_often_is_reported(world: Make) -> None:
    """Nothing is refused: the log and the count tell the operator."""
    here = world(agent_subscriptions_per_minute=60)
    for _ in range(60):
        here.limits.subscribed(Principal("bot", roles=frozenset({"agent"})))
    assert here.counted() == {}
    here.limits.subscribed(Principal("bot", roles=frozenset({"agent"})))
    assert here.counted() == {AGENT_SUBSCRIPTIONS: 1}


def test_others_subscribe_as_often_as_they_like(world: Make) -> None:
    """Only agents are watched."""
    here = world(agent_subscriptions_per_minute=1)
    for _ in range(100):
        here.limits.subscribed(Principal("u1", roles=frozenset({"user"})))
    assert here.counted() == {}


@pytest.mark.parametrize("off", [0, sys.maxsize])
def test_limits_that_are_switched_off_refuse_nothing(off: int, world: Make) -> None:
    """With 0, and with the number that stands for it, everything may be done at any rate."""
    here = world(**dict.fromkeys(Rates.__dataclass_fields__, off))
    agent = Principal("p1", org="o1", roles=frozenset({"agent"}))
    for _ in range(1000):
        here.limits.connect(ADDRESS)
        assert outcome(here, Unauthenticated("no")) == "failed"
        here.limits.publish(PUBLISHER, 1_000_000)
        assert here.limits.message(FULL) == (0.0, FULL)
        here.limits.subscribed(agent)
    assert here.counted() == {}
