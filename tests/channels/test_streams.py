"""Tests of channels/streams.py: what a payment stream may be made of, and what may happen to it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from channels.streams import (
    ACTIVE,
    CANCELLED,
    COMPLETED,
    MAX_AMOUNT_DIGITS,
    MAX_SUM_DIGITS,
    PAYLOADS,
    STEPS,
    NewStream,
    created,
    is_stream_id,
    parties_of,
    payload,
    positive_amount,
    stepped,
)
from hub.errors import Conflict, InvalidEvent

WANTED = {
    "sender": "GALICE",
    "recipient": "GBOB",
    "tokenAddress": "CUSDC",
    "ratePerSecond": "0.0000001",
    "depositedAmount": "100.50",
    "startTime": 1_700_000_000,
}
STATE = {**WANTED, "streamId": "s1", "withdrawnAmount": "0", "status": ACTIVE}


def wanted(**fields: Any) -> NewStream:
    """Return what is wanted, with other fields than usual."""
    return msgspec.convert({**WANTED, **fields}, NewStream)


def test_a_stream_is_what_was_asked_for() -> None:
    """Every amount as it was written, nothing taken out yet."""
    assert created("s1", wanted()) == STATE
    assert created("s1", wanted(startTime="2026-01-31T12:00:00.5+01:00", id="s1"))["startTime"] == "2026-01-31T12:00:00.5+01:00"
    assert created("s1", wanted(startTime="1700000000"))["startTime"] == "1700000000"
    assert parties_of(STATE) == ("user:GALICE", "user:GBOB")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sender", ""),
        ("sender", "a b"),
        ("recipient", "x" * 300),
        ("recipient", "GALICE"),
        ("tokenAddress", ""),
        ("tokenAddress", "a,b"),
        ("startTime", -1),
        ("startTime", 10**15),
        ("startTime", "tomorrow"),
        ("startTime", "9" * 13),
        ("startTime", "9" * 5000),
        ("startTime", "²"),
        ("startTime", "٣"),
        *[
            (field, value)
            for field in ("ratePerSecond", "depositedAmount")
            for value in ("", "0", "0.00", "-1", "+1", "1e3", "01", ".5", "5.", "1,5", "NaN", "Infinity", " 1", "1\n", "٣")
        ],
        ("depositedAmount", "9" * (MAX_AMOUNT_DIGITS + 1)),
    ],
)
def test_what_a_stream_cannot_be_made_of(field: str, value: Any) -> None:
    """Is refused by the name of its field."""
    with pytest.raises(InvalidEvent) as refused:
        created("s1", wanted(**{field: value}))
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("text", "holds"), [("s1", True), ("A-b_9", True), ("x" * 64, True), ("", False), ("x" * 65, False), ("a.b", False)]
)
def test_ids_are_segments_of_topics_and_paths(text: str, holds: bool) -> None:
    """Letters, digits, - and _."""
    assert is_stream_id(text) is holds


@pytest.mark.parametrize(
    ("before", "amount", "after"),
    [
        ("100.50", "0.50", "101.00"),
        ("9" * 78, "1", "1" + "0" * 78),
        ("1", "0." + "0" * 900 + "1", "1." + "0" * 900 + "1"),
        ("9" * MAX_AMOUNT_DIGITS, "0." + "1" * (MAX_AMOUNT_DIGITS - 1), "9" * MAX_AMOUNT_DIGITS + "." + "1" * (MAX_AMOUNT_DIGITS - 1)),
    ],
)
def test_sums_are_exact(before: str, amount: str, after: str) -> None:
    """Whatever their size, and never in another notation."""
    assert stepped({**STATE, "depositedAmount": before}, STEPS["top-up"], amount)["depositedAmount"] == after


def test_a_sum_has_a_limit() -> None:
    """A stream that grows for ever is refused, by a named bound."""
    long = "9" * MAX_SUM_DIGITS
    with pytest.raises(Conflict) as refused:
        stepped({**STATE, "depositedAmount": long}, STEPS["top-up"], "1")
    assert refused.value.field == "amount"


def test_no_more_is_withdrawn_than_there_is() -> None:
    """All of it is, to the last digit."""
    state = stepped(STATE, STEPS["withdraw"], "100.49")
    assert (state["withdrawnAmount"], state["depositedAmount"]) == ("100.49", "100.50")
    with pytest.raises(Conflict, match=r"at most what is left, 0\.01") as refused:
        stepped(state, STEPS["withdraw"], "0.0100000001")
    assert refused.value.field == "amount"
    assert stepped(state, STEPS["withdraw"], "0.01")["withdrawnAmount"] == "100.50"


@pytest.mark.parametrize(("end", "status"), [("cancel", CANCELLED), ("complete", COMPLETED)])
def test_nothing_happens_to_a_stream_that_is_over(end: str, status: str) -> None:
    """Neither what moves money nor another end."""
    state = stepped(STATE, STEPS[end], None)
    assert state == {**STATE, "status": status}
    for step in STEPS.values():
        with pytest.raises(Conflict, match=status):
            stepped(state, step, "1" if step.moves else None)


@pytest.mark.parametrize("amount", ["", "0", "1e5", "9" * (MAX_AMOUNT_DIGITS + 1)])
def test_an_amount_is_checked_first(amount: str) -> None:
    """Also where the stream is over."""
    with pytest.raises(InvalidEvent) as refused:
        stepped({**STATE, "status": CANCELLED}, STEPS["top-up"], amount)
    assert refused.value.field == "amount"
    with pytest.raises(InvalidEvent):
        positive_amount(amount)


def test_events_say_what_their_table_says() -> None:
    """And nothing else of the state."""
    for type, fields in PAYLOADS.items():
        assert payload(type, STATE, "5").keys() <= set(fields)
    assert payload("stream.topped_up", STATE, "5.0") == {"streamId": "s1", "amount": "5.0", "depositedAmount": "100.50"}
