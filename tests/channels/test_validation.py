"""Tests of channels/validation.py: what the payload of a declared type says of its event."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from channels.declaration import EventType
from channels.families import EVENT_TYPES
from channels.validation import VALIDATION, Facts, Unfit
from storage.entries import HIGH

ALL_STREAMS = ("resource:channel/subscriptions",)
AT = "2026-11-20T12:00:00Z"
ALERT = {"alertId": "a1", "message": "m", "timestamp": AT}
SIGNAL = {"type": "entry", "symbol": "AAPL", "action": "buy", "confidence": 0.8, "details": {}, "reasoning": "because"}


def facts(type: str, payload: Any, *audience: str) -> Facts:
    """Return what a payload says of its event."""
    return VALIDATION.facts(type, msgspec.json.encode(payload), audience or ("user:u1",))


@pytest.mark.parametrize("declared", EVENT_TYPES.values(), ids=lambda one: one.name)
def test_every_sample_is_what_it_is_a_sample_of(declared: EventType) -> None:
    """The samples of the reference and of the demo feed are of the shapes that publishers are held to."""
    found = facts(declared.name, declared.sample, *declared.audience)
    assert found.key == (None if declared.key is None else str(declared.sample[declared.key]))
    if declared.shown is not None:
        msgspec.json.decode(msgspec.json.encode(declared.shown_sample), type=declared.shown)


def test_a_type_that_nobody_declares_is_known_as_such() -> None:
    """Whoever publishes one may publish anything (X6)."""
    assert VALIDATION.types == frozenset(EVENT_TYPES)


def test_a_key_is_text_whatever_it_is_in_the_payload() -> None:
    """Streams are called by numbers or by strings: both are one key."""
    assert facts("stream:updated", {"streamId": 42}) == facts("stream:updated", {"streamId": "42"}) == Facts("42", False, ())


@pytest.mark.parametrize(("level", "high"), [("info", False), ("warning", False), ("error", True)])
def test_an_alert_of_level_error_is_of_high_priority(level: str, high: bool) -> None:
    """It is never held back, whatever its publisher says of it (D5)."""
    assert facts("alert:new", {**ALERT, "level": level}) == Facts(None, high, ())


@pytest.mark.parametrize("audience", [("public",), ("org:o1",), ("user:u1", "user:u2"), ("resource:user/u1",)])
def test_a_position_is_one_users(audience: tuple[str, ...]) -> None:
    """Its value counts in the portfolio of that one (D3)."""
    position = {"symbol": "AAPL", "quantity": "1", "entryPrice": "2"}
    assert facts("position:update", position, "org:o1", "user:u1") == Facts("AAPL", False, ())
    with pytest.raises(Unfit, match="exactly one user") as caught:
        facts("position:update", position, *audience)
    assert caught.value.field == "audience"


@pytest.mark.parametrize("quantity", [1, "0.5", -2, "-0.1"])
def test_a_position_that_is_held_was_bought_at_a_price(quantity: object) -> None:
    """Only one that is closed needs none: what is won or lost could not be told."""
    facts("position:update", {"symbol": "AAPL", "quantity": "0.00"})
    with pytest.raises(Unfit) as caught:
        facts("position:update", {"symbol": "AAPL", "quantity": quantity})
    assert caught.value.field == "data.entryPrice"


@pytest.mark.parametrize(("type", "field"), [("price:update", "price"), ("position:update", "entryPrice"), ("position:update", "quantity")])
@pytest.mark.parametrize(("number", "good"), [("9" * 100, True), (1e99, True), (10**100, False), (1e100, False), (1e-101, False)])
def test_numbers_of_a_portfolio_have_a_bounded_count_of_digits(type: str, field: str, number: object, good: bool) -> None:
    """Its sums and products are exact, and so what goes into them is not of any length (D3)."""
    payload = {**EVENT_TYPES[type].sample, field: number}
    if good:
        facts(type, payload)
    else:
        with pytest.raises(Unfit, match="digits") as caught:
            facts(type, payload)
        assert caught.value.field == f"data.{field}"


@pytest.mark.parametrize("change", [{"status": "started"}, {"status": "error", "details": "no data"}, {"type": "stopped"}])
def test_a_strategy_may_tell_of_its_status(change: dict[str, Any]) -> None:
    """A change of status is no signal, and needs nothing of one (D6)."""
    assert facts("strategy:update", change) == Facts(None, False, ())


@pytest.mark.parametrize("missing", list(SIGNAL))
def test_a_signal_of_a_strategy_is_whole(missing: str) -> None:
    """Whoever acts on a signal must find all of it (D6)."""
    assert facts("strategy:update", SIGNAL) == Facts(None, False, ())
    with pytest.raises(Unfit) as caught:
        facts("strategy:update", {name: value for name, value in SIGNAL.items() if name != missing})
    assert caught.value.field == f"data.{missing}"


def test_the_servers_own_events_are_made_like_everybodys() -> None:
    """They are under the topic of their type, with its key and priority, and for whoever may have all of their channel."""
    sample = EVENT_TYPES["stream.withdrawn"].sample
    made = VALIDATION.event("stream.withdrawn", sample, ("user:a",), source="tailcast", published="p", correlation_id="c")
    assert (made.topic, made.audience, made.key, made.priority) == ("payments.streams", ("user:a", *ALL_STREAMS), None, None)
    assert (msgspec.json.decode(made.data), made.source, made.published, made.correlation_id) == (sample, "tailcast", "p", "c")
    assert VALIDATION.event("alert:new", {**ALERT, "level": "error"}, ("user:a",), source="tailcast").priority == HIGH
    with pytest.raises(msgspec.ValidationError):
        VALIDATION.event("stream.withdrawn", {"streamId": "1"}, ("user:a",), source="tailcast")
