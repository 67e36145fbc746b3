"""Tests of channels/families.py: the channels of all families fit together, and what cannot fit is refused when the server starts."""

from __future__ import annotations

from typing import Any

import pytest

from channels.declaration import Channel, EventType
from channels.families import CATALOGUE, CHANNELS, EVENT_TYPES, Catalogue, Selection, all_of
from channels.valuation import SOURCE
from channels.values import Shape

WANTED = """
stream:updated settle:finished
stream.created stream.topped_up stream.withdrawn stream.cancelled stream.completed
scheduler.tick run.stage change.detected action.delivered change.stateChanged org.entitlements.changed
order:update order:fill position:update trade:new price:update alert:new strategy:update agent:status ai:decision test
transactions.new agent.action.completed balance.updated sync.completed
"""


class Anything(Shape):
    """A payload without fields."""


def declared(name: str, **more: Any) -> EventType:
    """Return a declared type."""
    return EventType(name, Anything, {}, ("public",), "t", **more)


def test_every_type_that_is_wanted_is_declared() -> None:
    """Five families, and in them the types of A1, C3, B4, part 7 and E2; nothing else is held to a shape."""
    assert sorted(EVENT_TYPES) == sorted(WANTED.split())


def test_every_channel_has_its_place() -> None:
    """Each channel has its path, or is served by the stream of everything."""
    assert {channel.name: channel.path for channel in CATALOGUE} == {
        "payments": None,
        "subscriptions": "/events/subscribe",
        "monitoring": None,
        "orders": "/api/stream/orders",
        "positions": "/api/stream/positions",
        "prices": "/api/stream/prices",
        "trading": "/api/stream/trading",
        "ai-decisions": "/api/stream/ai-decisions",
        "strategies": "/api/stream/strategies/(?P<id>[^/]+)",
        "metrics": "/api/stream/metrics",
        "alerts": "/api/stream/alerts",
        "entities": "/events",
    }


@pytest.mark.parametrize("channel", CHANNELS, ids=lambda one: one.name)
def test_a_channel_that_has_terms_of_its_own_is_called_so_in_them(channel: Channel) -> None:
    """Metrics and logs name a channel as it is declared; those that are served by the stream of everything count there."""
    assert channel.terms.channel == ("stream" if channel.path is None else channel.name)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Channel("a", "."), Channel("a", ".")),
        (Channel("a", ".", (declared("x"),)), Channel("b", ".", (declared("x"),))),
        (Channel("a", ".", path="/x"), Channel("b", ".", path="/x")),
        (Channel("a", "."), Channel("b", ".", also=("x",))),
        (Channel("a", "."), Channel("b", ".", (declared("welcome"),))),
        (Channel("a", "."), Channel("b", ".", (declared("x y"),))),
        (Channel("a", "."), Channel("b c", ".")),
        (Channel("a", "."), Channel("b", ".", claims=("x.**.y",))),
    ],
    ids=["name", "type", "path", "undeclared", "reserved", "no type", "no name", "no pattern"],
)
def test_what_does_not_fit_together_is_refused(first: Channel, second: Channel) -> None:
    """Two of one name, a type that nobody declares, or a name that none can have: the server does not start with that."""
    with pytest.raises(ValueError, match=r"channel|path|types|claims"):
        Catalogue([first, second])


@pytest.mark.parametrize(
    ("topic", "claimed"), [("payments.x", True), ("trading.a.b", True), ("payments", False), ("orders.eu", False), ("xpayments.a", False)]
)
def test_a_topic_is_claimed_by_pattern(topic: str, claimed: bool) -> None:
    """Everything below the name of a family is its own; every other topic is free (X6)."""
    assert CATALOGUE.is_claimed(topic) is claimed


def test_a_channel_that_may_be_heard_whole_adds_an_audience_of_its_own() -> None:
    """Events of the subscription API are also for whoever may have all of it (C1)."""
    assert all_of(CATALOGUE.channels["subscriptions"]) == "resource:channel/subscriptions"
    assert CATALOGUE.further_audience("stream.created") == ("resource:channel/subscriptions",)
    assert CATALOGUE.further_audience("order:fill") == ()
    both = Catalogue([Channel("a", ".", (declared("x"),), all=True), Channel("b", ".", also=("x",), all=True)])
    assert both.further_audience("x") == ("resource:channel/a", "resource:channel/b")


def test_a_channel_shows_positions_as_they_are_valued_here() -> None:
    """Wherever positions are shown they come from the portfolio; what is shown beside them comes from anybody (D3)."""
    for name in ("positions", "trading"):
        parts = CATALOGUE.selections(CATALOGUE.channels[name])
        others = [part for part in parts if "position:update" not in part.types]
        (valued,) = (part for part in parts if "position:update" in part.types)
        assert valued == Selection(frozenset({"position:update"}), frozenset({SOURCE}))
        assert [part.sources for part in others] == [frozenset()]
    channel = Channel("a", ".", (declared("x"),), also=("y",), sources=("s",))
    catalogue = Catalogue([channel, Channel("b", ".", (declared("y"),))])
    assert catalogue.selections(channel) == [Selection(frozenset("x"), frozenset("s")), Selection(frozenset("y"), frozenset())]
