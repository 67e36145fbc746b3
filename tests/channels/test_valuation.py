"""Valuation: what answers raw events, what prices change, and that none of it depends on who computes it, or on crashes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channels.portfolio import Portfolios
from channels.trading import ValuedPosition
from channels.valuation import POSITION, PRICE, SOURCE, Valuation
from hub.principal import PUBLIC
from hub.subscriptions import topic_matches
from storage.entries import Entry, NewEvent
from storage.parts import Part
from tests.hub.fakes import id_of, make_entry

AT = "2026-11-20T12:00:00Z"


def position(seq: int, quantity: Any, entry_price: Any = None, *, user: str = "u1", symbol: str = "AAPL", **more: Any) -> Entry:
    """Return a raw event about a position."""
    data = {"symbol": symbol, "quantity": quantity, **({} if entry_price is None else {"entryPrice": entry_price}), **more}
    return make_entry(seq, "trading.positions", POSITION, [f"user:{user}"], json.dumps(data))


def price(seq: int, price: Any, symbol: str = "AAPL", **more: Any) -> Entry:
    """Return an event about a price."""
    return make_entry(seq, "trading.prices", PRICE, [PUBLIC], json.dumps({"symbol": symbol, "price": price, **more}))


def payload(event: NewEvent) -> dict[str, Any]:
    """Return what an event says."""
    said: dict[str, Any] = json.loads(event.data)
    return said


def only(events: list[NewEvent]) -> dict[str, Any]:
    """Return what the only event says."""
    (event,) = events
    return payload(event)


def test_a_price_that_is_not_for_everybody_values_nothing() -> None:
    """Whoever holds the symbol would learn it, though it is not for him (L9)."""
    valuation = Valuation()
    valuation.take(price(1, "190"))
    private = price(2, "200")
    private.audience = ("org:o2", "user:u2")
    assert valuation.take(private) == []
    assert only(valuation.take(position(3, 10, "180")))["currentPrice"] == "190"
    assert valuation.due(0.0, 10) == []


def test_a_raw_event_is_answered_with_its_value() -> None:
    """By one event for the same audience, of the server's own source, about the same symbol, which says what caused it."""
    valuation = Valuation()
    assert valuation.take(price(1, "190.5")) == []
    raw = position(2, 10, "180.25", timestamp=AT)
    raw.correlation_id = "c1"
    raw.audience = ("user:u1", "resource:channel/positions")
    (event,) = valuation.take(raw)
    assert payload(event) == {
        "symbol": "AAPL",
        "quantity": "10",
        "entryPrice": "180.25",
        "currentPrice": "190.5",
        "marketValue": "1905",
        "unrealizedPnl": "102.5",
        "realizedPnl": "0",
        "totalValue": "1905",
        "status": "opened",
        "timestamp": AT,
        "cause": id_of(2),
    }
    assert (event.topic, event.type, event.audience) == ("trading.positions.AAPL", "position:update", raw.audience)
    assert (event.source, event.key, event.correlation_id) == (SOURCE, "AAPL", "c1")
    assert event.published == f"\n{SOURCE}\n{id_of(2)}/u1/AAPL"
    assert len(valuation) == 1


def test_what_is_told_is_what_is_declared() -> None:
    """Of the shape and within the topics that trading declares, whatever became of the position."""
    valuation = Valuation()
    raw = [position(1, 10, "180.25"), position(2, -3, "181", symbol="BRK.B"), position(3, 0), position(4, 0, symbol="X")]
    events = [event for entry in raw for event in valuation.take(entry)]
    valuation.take(price(5, 7, symbol="BRK.B"))
    for event in [*events, *valuation.due(0, 10)]:
        assert msgspec.to_builtins(msgspec.json.decode(event.data, type=ValuedPosition)).keys() == payload(event).keys()
        assert topic_matches("trading.**", event.topic)


def test_amounts_are_exact_however_they_are_written() -> None:
    """Numbers of JSON are read digit by digit, never as floats; a short position is below zero."""
    valuation = Valuation()
    said = only(valuation.take(make_entry(1, type=POSITION, audience=["user:u"], data='{"symbol":"X","quantity":-0.1,"entryPrice":0.3}')))
    assert (said["quantity"], said["marketValue"], said["totalValue"]) == ("-0.1", "-0.03", "-0.03")
    long = "123456789012345678901234567890.000000000000000000001"
    said = only(
        valuation.take(make_entry(2, type=POSITION, audience=["user:v"], data=f'{{"symbol":"X","quantity":{long},"entryPrice":3}}'))
    )
    assert said["marketValue"] == "370370367037037036703703703670.000000000000000000003"


def test_a_closed_position_is_gone() -> None:
    """It is told with quantity 0 and what was realised, and counts in no total any more."""
    valuation = Valuation()
    valuation.take(position(1, 2, 10))
    valuation.take(position(2, 1, 5, symbol="BRK.B"))
    said = only(valuation.take(position(3, 0, price=12)))
    assert (said["status"], said["quantity"], said["realizedPnl"], said["totalValue"]) == ("closed", "0", "4", "5")
    assert (said["marketValue"], said["unrealizedPnl"], said["entryPrice"]) == ("0", "0", "10")
    valuation.take(price(4, 20))
    assert valuation.due(0, 10) == []


def test_a_symbol_is_one_segment_of_the_topic() -> None:
    """A dot would make two of it."""
    (event,) = Valuation().take(position(1, 1, 5, symbol="BRK.B"))
    assert (event.topic, event.key) == ("trading.positions.BRK-B", "BRK.B")


def test_a_price_changes_the_value_of_what_is_held() -> None:
    """For every holder; the price is the cause, and says when."""
    valuation = Valuation()
    valuation.take(position(1, 2, 10))
    valuation.take(position(2, 1, 10, user="u2"))
    valuation.take(price(3, 11, timestamp=AT))
    first, second = valuation.due(0, 10)
    assert (first.audience, second.audience) == (("user:u1",), ("user:u2",))
    said = payload(first)
    assert (said["currentPrice"], said["totalValue"], said["status"], said["cause"]) == ("11", "22", "updated", id_of(3))
    assert said["timestamp"] == AT
    assert first.published == f"\n{SOURCE}\n{id_of(3)}/u1/AAPL"


def test_prices_are_told_once_a_second() -> None:
    """The first one at once; then the newest only, and nothing if it is the one that was told."""
    valuation = Valuation()
    valuation.take(position(1, 2, 10))
    assert valuation.wait(0) is None
    valuation.take(price(2, 11))
    assert valuation.wait(100) == 0
    assert only(valuation.due(100, 10))["currentPrice"] == "11"
    valuation.take(price(3, 12))
    assert (valuation.due(100.5, 10), valuation.wait(100.5)) == ([], 0.5)
    valuation.take(price(4, 13))
    assert only(valuation.due(101, 10))["currentPrice"] == "13"
    valuation.take(price(5, 14))
    valuation.take(price(6, "13.0"))
    assert valuation.due(102, 10) == []
    assert valuation.wait(102) is None


def test_much_is_told_in_portions() -> None:
    """The rest is due at once, with the price that is the newest then; the next round begins a second after the end of the last."""
    valuation = Valuation()
    for number in range(3):
        valuation.take(position(number + 1, 1, 10, user=f"u{number}"))
    valuation.take(price(4, 11))
    assert [payload(event)["currentPrice"] for event in valuation.due(0, 2)] == ["11", "11"]
    valuation.take(price(5, 12))
    assert valuation.wait(0.5) == 0
    assert [payload(event)["currentPrice"] for event in valuation.due(0.5, 2)] == ["12"]
    assert valuation.wait(0.5) == 1.0
    assert [payload(event)["currentPrice"] for event in valuation.due(1.5, 5)] == ["12", "12"]


def test_what_is_closed_before_its_turn_is_not_told() -> None:
    """A round goes on over what has changed meanwhile."""
    valuation = Valuation()
    for number in range(2):
        valuation.take(position(number + 1, 1, 10, user=f"u{number}"))
    valuation.take(price(3, 11))
    assert len(valuation.due(0, 1)) == 1
    valuation.take(position(4, 0, user="u1"))
    assert valuation.due(0, 1) == []


def test_a_price_that_nobody_holds_is_known_when_somebody_does() -> None:
    """And nothing is told of it before."""
    valuation = Valuation()
    valuation.take(price(1, 7))
    assert (valuation.wait(0), valuation.due(0, 5)) == (None, [])
    assert only(valuation.take(position(2, 1, 5)))["currentPrice"] == "7"


BAD = {
    "no user": (["public"], '{"symbol":"A","quantity":1,"entryPrice":1}'),
    "two users": (["user:a", "user:b"], '{"symbol":"A","quantity":1,"entryPrice":1}'),
    "no JSON": (["user:a"], "{"),
    "no quantity": (["user:a"], '{"symbol":"A","entryPrice":1}'),
    "no number": (["user:a"], '{"symbol":"A","quantity":"NaN","entryPrice":1}'),
    "too many digits": (["user:a"], '{"symbol":"A","quantity":1e100,"entryPrice":1}'),
    "no entry price": (["user:a"], '{"symbol":"A","quantity":1}'),
    "no symbol": (["user:a"], '{"symbol":"","quantity":1,"entryPrice":1}'),
    "nested": (["user:a"], '{"x":' * 5000 + "1" + "}" * 5000),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_valued_is_logged(case: str, expected_logs: list[str]) -> None:
    """It changes nothing, and what comes after it is valued."""
    expected_logs.append(f"the position in event {id_of(1)} is not valued")
    valuation = Valuation()
    audience, data = BAD[case]
    assert valuation.take(make_entry(1, type=POSITION, audience=audience, data=data)) == []
    assert (len(valuation), valuation.changed(100)) == (0, [])
    assert only(valuation.take(position(2, 1, 5)))["totalValue"] == "5"


@pytest.mark.parametrize("data", ["{", '{"symbol":"A"}', '{"symbol":"a b","price":1}', '{"symbol":"A","price":"Infinity"}'])
def test_a_price_that_is_none_is_not_used(data: str) -> None:
    """Without a word: there may be thousands a second."""
    valuation = Valuation()
    assert valuation.take(make_entry(1, type=PRICE, data=data)) == []
    assert valuation.changed(100) == []


def test_limits_are_logged(expected_logs: list[str]) -> None:
    """One position too many is logged and not valued; prices of one symbol too many are logged once."""
    expected_logs += [
        f"the position in event {id_of(2)} is not valued: there are 1 open",
        f"the price in event {id_of(4)}, and others like",
    ]
    valuation = Valuation(Portfolios(max_positions=1, max_symbols=1))
    assert valuation.take(position(1, 1, 5)) != []
    assert valuation.take(position(2, 1, 5, user="u2")) == []
    valuation.take(price(3, 1))
    valuation.take(price(4, 1, symbol="B"))
    valuation.take(price(5, 1, symbol="C"))
    assert len(valuation.changed(100)) == 2


def test_a_timestamp_that_is_none_is_not_repeated() -> None:
    """Then the entry's own time stands for it."""
    valuation = Valuation()
    assert only(valuation.take(position(1, 1, 5, timestamp=17)))["timestamp"] == "2025-06-15T15:06:40.001Z"
    assert only(valuation.take(position(2, 1, 5, timestamp="x" * 65)))["timestamp"] == "2025-06-15T15:06:40.002Z"


# --- what is kept ---


def restored(parts: Iterable[Part], portfolios: Portfolios | None = None) -> Valuation:
    """Return the state that these parts say, read in the opposite order of saving."""
    newest = {(part.kind, part.key): part for part in parts}
    valuation = Valuation(portfolios)
    for kind in reversed(valuation.kinds):
        for part in newest.values():
            if part.kind == kind and part.fields is not None:
                valuation.restore(Part(kind, part.key, part.seq, json.loads(json.dumps(part.fields))))
    return valuation


def test_what_was_kept_goes_on() -> None:
    """Positions, prices and what was shown of them; nothing is kept twice."""
    valuation = Valuation()
    for entry in (position(1, 2, 10), position(2, 3, 10, user="u2"), price(3, 11), position(4, 1, 10)):
        valuation.take(entry)
    valuation.due(0, 10)
    parts = [*valuation.changed(1), *valuation.changed(100)]
    assert [part.kind for part in parts] == [POSITION, POSITION, PRICE]
    assert valuation.changed(100) == []
    again = restored(parts)
    assert (len(again), again.wait(0)) == (2, None)
    assert again.take(position(5, 1, 10)) != []
    assert again.take(position(4, 7, 10)) == []  # it was taken before
    again.take(price(3, 99))
    assert again.due(0, 10) == []
    assert only(again.take(position(6, 0)))["realizedPnl"] == "2"
    assert again.changed(100)[0].fields is None


def test_a_price_that_was_not_told_is_told_by_the_next_process() -> None:
    """What is due is seen from what was kept."""
    valuation = Valuation()
    valuation.take(position(1, 2, 10))
    valuation.take(price(2, 11))
    again = restored(valuation.changed(100))
    assert only(again.due(0, 10))["currentPrice"] == "11"


def test_what_is_too_much_to_take_back_is_logged(expected_logs: list[str]) -> None:
    """Where there is less room than before."""
    expected_logs.append("position:update u1 AAPL is not taken back")
    valuation = Valuation()
    valuation.take(position(1, 2, 10))
    assert len(restored(valuation.changed(100), Portfolios(max_positions=0))) == 0


amounts = st.integers(-5, 5).map(str)
raw = st.tuples(st.sampled_from(["u1", "u1", "u2"]), st.sampled_from("AAB"), amounts, amounts, st.one_of(st.none(), st.none(), amounts))
quotes = st.tuples(st.sampled_from("AAB"), amounts)


def entries_of(history: list[tuple[Any, ...]]) -> list[Entry]:
    """Return a log with these events."""
    entries = []
    for seq, one in enumerate(history, 1):
        if len(one) == 2:
            entries.append(price(seq, one[1], one[0]))
        else:
            user, symbol, quantity, entry_price, at = one
            entries.append(position(seq, quantity, entry_price, user=user, symbol=symbol, **({} if at is None else {"price": at})))
    return entries


@settings(max_examples=150)
@given(
    st.lists(st.one_of(raw, quotes), min_size=5, max_size=25),
    st.lists(st.tuples(st.integers(1, 6), st.integers(0, 4), st.booleans()), max_size=8),
)
def test_crashes_change_nothing(history: list[tuple[Any, ...]], lives: list[tuple[int, int, bool]]) -> None:
    """Whoever begins where the last save stood, which may have been written in part, answers every raw event as if nothing had happened.

    A life takes in some entries, saves a beginning of what has changed, with or without the progress behind it, and ends.
    """
    entries = entries_of(history)
    expected = [event for one in [Valuation()] for entry in entries for event in one.take(entry)]
    log: dict[str, dict[str, Any]] = {}  # what was appended: an identity once, with what was said first
    kept: dict[tuple[str, str], Part] = {}
    progress = 0
    for count, written, in_between in [*lives, (len(entries), 0, False)]:
        valuation, at = restored(kept.values()), progress
        for number, entry in enumerate(entries[at : at + count]):
            events = valuation.take(entry)
            if in_between and number == count // 2:
                events += valuation.due(number, 5)
            for event in events:
                log.setdefault(str(event.published), payload(event))
        at = min(at + count, len(entries))
        parts = valuation.changed(100)
        for part in parts[:written]:
            kept[part.kind, part.key] = part
        if written >= len(parts):
            progress = at
    answers = {identity: said for identity, said in log.items() if any(identity == event.published for event in expected)}
    assert list(answers.items()) == [(str(event.published), payload(event)) for event in expected]
    assert all(Fraction(said["marketValue"]) == Decimal(said["quantity"]) * Decimal(said["currentPrice"]) for said in log.values())
