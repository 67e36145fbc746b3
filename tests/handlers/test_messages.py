"""Tests of handlers/messages.py: what WebSocket clients may say, and how each wrong field is named."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from handlers.messages import CLIENT_MESSAGES, MAX_REF_LENGTH, Ack, Auth, Ping, Subscribe, Unsubscribe, parse, ref_of, subscription_of
from hub.errors import BadRequest, InvalidMessage
from hub.subscriptions import Bound, Subscription


def encoded(message: Any) -> bytes:
    """Return a message as a client sends it."""
    return json.dumps(message).encode()


def refused(message: Any) -> InvalidMessage:
    """Return the error with which a message is refused."""
    with pytest.raises(InvalidMessage) as caught:
        parse(message if isinstance(message, bytes) else encoded(message))
    return caught.value


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"type": "auth", "token": "t"}, Auth(token="t")),
        ({"type": "subscribe", "topic": "a.*", "ref": "1"}, Subscribe(topic="a.*", ref="1")),
        ({"type": "subscribe", "topic": "a", "position": "p"}, Subscribe(topic="a", position="p")),
        (
            {"type": "subscribe", "topic": "a", "from": "earliest", "filters": {"minAmount": 1}},
            Subscribe(topic="a", from_="earliest", filters={"minAmount": 1}),
        ),
        ({"type": "unsubscribe", "topic": "a", "ref": "x" * MAX_REF_LENGTH}, Unsubscribe(topic="a", ref="x" * MAX_REF_LENGTH)),
        ({"type": "ping"}, Ping()),
        ({"type": "ack", "id": "i", "ref": None}, Ack(id="i")),
    ],
)
def test_each_message_is_understood(message: dict[str, Any], expected: Any) -> None:
    """The five messages of clients are read with all their fields (T3, X7)."""
    assert parse(encoded(message)) == expected


@pytest.mark.parametrize("name", CLIENT_MESSAGES)
def test_the_table_names_each_message_as_it_is_sent(name: str) -> None:
    """The table that the reference is checked against is the one that is decoded by."""
    assert CLIENT_MESSAGES[name].__struct_config__.tag == name


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({}, "type"),
        ({"ref": "1"}, "type"),
        ({"type": "publish"}, "type"),
        ({"type": 5}, "type"),
        ({"type": None}, "type"),
        ({"type": "auth"}, "token"),
        ({"type": "auth", "token": 5}, "token"),
        ({"type": "subscribe"}, "topic"),
        ({"type": "subscribe", "topic": ["a"]}, "topic"),
        ({"type": "subscribe", "topic": "a", "filters": []}, "filters"),
        ({"type": "subscribe", "topic": "a", "position": 5}, "position"),
        ({"type": "subscribe", "topic": "a", "from": 5}, "from"),
        ({"type": "subscribe", "topic": "a", "topics": "b"}, "topics"),
        ({"type": "subscribe", "topic": "a", "from_": "b"}, "from_"),
        ({"type": "unsubscribe", "topic": None}, "topic"),
        ({"type": "ping", "ref": 5}, "ref"),
        ({"type": "ping", "ref": "x" * (MAX_REF_LENGTH + 1)}, "ref"),
        ({"type": "ack"}, "id"),
        ([], None),
        (5, None),
    ],
)
def test_each_wrong_field_is_named(message: Any, field: str | None) -> None:
    """An unknown type, and a field that is missing, unknown or of a wrong type, is named (T3)."""
    assert refused(message).field == field


@pytest.mark.parametrize("payload", [b"", b"{", b"x", b'{"ref": ' + b"[" * 100_000, b'{"type": "ping"}{'])
def test_what_is_not_json_is_refused(payload: bytes) -> None:
    """Something that is no JSON, or nested beyond measure, has no field to name."""
    assert "not JSON" in str(refused(payload))


@pytest.mark.parametrize(
    ("payload", "ref"),
    [
        (encoded({"type": "nothing", "ref": "1"}), "1"),
        (encoded({"type": "ping", "ref": 5}), None),
        (encoded({"type": "ping", "ref": "x" * (MAX_REF_LENGTH + 1)}), None),
        (encoded({"type": "nothing"}), None),
        (encoded([]), None),
        (b"{", None),
        (b'{"ref": "1", "x": ' + b"[" * 100_000, None),
    ],
)
def test_an_error_repeats_the_ref_when_it_can(payload: bytes, ref: str | None) -> None:
    """Of a message that is wrong elsewhere the `ref` is still read, so that the client knows which it was."""
    assert ref_of(payload) == ref


def test_a_subscription_has_filters() -> None:
    """Types, sources, keys, and bounds on numbers of the payload (T4)."""
    filters = {"types": ["a"], "sources": ["s"], "keys": ["k, 1"], "minAmount": 10, "maxAmount": "20.5"}
    message = Subscribe(topic="orders.*", filters=filters)
    bounds = (Bound("amount", Decimal(10), Decimal("20.5")),)
    assert subscription_of(message) == Subscription("orders.*", frozenset({"a"}), frozenset({"s"}), bounds, keys=frozenset({"k, 1"}))


@pytest.mark.parametrize(
    ("topic", "filters", "field"),
    [
        ("a..b", {}, "topic"),
        ("", {}, "topic"),
        ("**.a", {}, "topic"),
        ("a", {"types": "x"}, "filters.types"),
        ("a", {"types": None}, "filters.types"),
        ("a", {"types": ["x", 5]}, "filters.types[1]"),
        ("a", {"types": ["x", "y z"]}, "filters.types[1]"),
        ("a", {"types": ["x"] * 101}, "filters.types"),
        ("a", {"sources": {"x": 1}}, "filters.sources"),
        ("a", {"keys": "k"}, "filters.keys"),
        ("a", {"keys": ["k", ""]}, "filters.keys[1]"),
        ("a", {"sources": [""]}, "filters.sources[0]"),
        ("a", {"minAmount": "ten"}, "filters.minAmount"),
        ("a", {"minAmount": True}, "filters.minAmount"),
        ("a", {"maxAmount": None}, "filters.maxAmount"),
        ("a", {"minAmount": "NaN"}, "filters.minAmount"),
        ("a", {"minimum": 5}, "filters.minimum"),
        ("a", {f"minField{number}": 1 for number in range(11)}, "filters"),
    ],
)
def test_each_wrong_filter_is_named(topic: str, filters: dict[str, Any], field: str) -> None:
    """A topic or filter that cannot be meant is named with its whole path."""
    with pytest.raises(BadRequest) as caught:
        subscription_of(Subscribe(topic=topic, filters=filters))
    assert caught.value.field == field
