"""Tests of handlers/events.py: what is taken from publishers, and how each wrong field is named."""

from __future__ import annotations

import json
from typing import Any

import pytest

from handlers import events
from handlers.events import EventIn, RefusedField, accept, parse
from handlers.refused_fields import RefusedFields
from hub.errors import BadRequest, InvalidEvent, TooLarge
from hub.formats import RESERVED_TYPES
from hub.principal import Principal
from storage.entries import NewEvent

PUBLISHER = Principal("p1", org="o1", roles=frozenset({"publisher"}))
GOOD: dict[str, Any] = {"topic": "orders.eu", "type": "order:placed", "audience": ["public"], "data": {"n": 1}}
ABSENT = object()


def body(**fields: Any) -> bytes:
    """Return a good event as JSON, with these fields in place of the good ones."""
    merged = {**GOOD, **fields}
    return json.dumps({name: value for name, value in merged.items() if value is not ABSENT}).encode()


def taken(text: bytes, publisher: Principal = PUBLISHER) -> list[NewEvent]:
    """Parse and accept a body."""
    return accept(parse(text), publisher, max_event_bytes=1000, correlation_id="c1")


def refused(text: bytes) -> InvalidEvent:
    """Return the error with which a body is refused."""
    with pytest.raises(InvalidEvent) as caught:
        taken(text)
    return caught.value


def test_an_event_is_taken_with_all_its_fields() -> None:
    """Everything a publisher may say reaches the log (T12)."""
    (event,) = taken(
        body(key="k", source="s", id="i", time="2026-01-31T12:00:00.5+01:00", priority="high", audience=["user:a", "user:b", "user:a"])
    )
    assert event.document() == {
        "_id": 0,
        "ms": 0,
        "append": 0,
        "topic": "orders.eu",
        "type": "order:placed",
        "audience": ("user:a", "user:b"),
        "data": '{"n": 1}',
        "source": "s",
        "key": "k",
        "priority": "high",
        "time": "2026-01-31T12:00:00.5+01:00",
        "published": "o1\ns\ni",
        "correlationId": "c1",
    }


def test_what_is_left_out_is_left_out() -> None:
    """The source is the publisher unless it says another; the rest is optional, `normal` priority being none."""
    (event,) = taken(body(priority="normal"))
    assert (event.source, event.key, event.priority, event.time, event.published) == ("p1", None, None, None, None)


def test_publishers_ids_are_told_apart_by_source_and_organisation() -> None:
    """The same id from another source, or another tenant, is another event (L4)."""
    names = {taken(body(id="i", source=source), Principal("p", org=org))[0].published for source in ("a", "b") for org in ("x", "y", None)}
    assert len(names) == 6


@pytest.mark.parametrize(
    "data",
    [
        "1.10",
        "1e400",
        "12345678901234567890",
        '"\\u00e9\\n"',
        "null",
        "[]",
        '{"a": 1, "a": 2}',
        '{"x":1.0000000000000000000001}',
        '"é\u2028"',
    ],
)
def test_data_is_taken_as_it_was_written(data: str) -> None:
    """The payload's text is not touched: no number changes, and no key (L1)."""
    text = body().replace(b'{"n": 1}', data.encode())
    assert taken(text)[0].data == data


def test_an_array_keeps_its_order() -> None:
    """Events of an array come out in its order."""
    text = b"[" + b",".join(body(type=f"t{number}") for number in range(5)) + b"]"
    assert [event.type for event in taken(b" \r\n\t" + text)] == ["t0", "t1", "t2", "t3", "t4"]


@pytest.mark.parametrize(
    "text", [b"", b" ", b"{", b"x", b"[", b'{"topic": }', b"[5, x]", body() + b"x", body() + body(), b"\xef\xbb\xbf" + body()]
)
def test_what_is_not_json_is_refused(text: bytes) -> None:
    """Something that is no JSON is an invalid request, not an invalid event."""
    with pytest.raises(BadRequest, match="not JSON") as caught:
        parse(text)
    assert not isinstance(caught.value, InvalidEvent)


@pytest.mark.parametrize("data", ["NaN", "Infinity", "01", "1.", ".5", "+1", "'x'", '"\\ud800"', '"\n"', "{1: 2}", "[1,]", "tru"])
def test_data_that_is_not_json_is_refused(data: str) -> None:
    """The payload is checked to the standard although it is passed on as text, so that every subscriber can read it."""
    with pytest.raises(BadRequest, match="not JSON"):
        parse(body().replace(b'{"n": 1}', data.encode()))


@pytest.mark.parametrize("text", [b"[" * 100_000, body().replace(b'{"n": 1}', b"[" * 100_000 + b"]" * 100_000)])
def test_deep_nesting_is_refused(text: bytes) -> None:
    """Depth that would exhaust the stack is refused with a sentence."""
    with pytest.raises(BadRequest, match="nested too deeply"):
        parse(text)


@pytest.mark.parametrize("text", [b"5", b'"x"', b"null", b"true"])
def test_what_is_no_object_is_refused(text: bytes) -> None:
    """A value that is neither an event nor an array has no field to name."""
    assert refused(text).field is None


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        *((field, ABSENT, field) for field in ("topic", "type", "audience", "data")),
        *((field, 5, field) for field in ("topic", "type", "audience", "key", "source", "id", "time", "priority")),
        *((field, "", field) for field in ("topic", "type", "key", "source", "id", "time", "priority")),
        ("topic", ".a", "topic"),
        ("topic", "a.", "topic"),
        ("topic", "a..b", "topic"),
        ("topic", "a.*", "topic"),
        ("topic", "a b", "topic"),
        ("topic", "tailcast.control", "topic"),
        ("topic", "a\nb", "topic"),
        ("topic", "x" * 256, "topic"),
        ("type", "a b", "type"),
        ("type", "a,b", "type"),
        ("type", "a\r\nid: 5", "type"),
        ("type", "x" * 256, "type"),
        ("source", "a,b", "source"),
        ("audience", [], "audience"),
        ("audience", "public", "audience"),
        ("audience", ["public"] * 101, "audience"),
        ("audience", ["public", 5], "audience[1]"),
        ("audience", ["public", "everybody"], "audience[1]"),
        ("audience", ["user:"], "audience[0]"),
        ("audience", ["user:a b"], "audience[0]"),
        ("audience", ["User:a"], "audience[0]"),
        ("audience", ["public "], "audience[0]"),
        ("audience", ["role:admin"], "audience[0]"),
        ("audience", ["resource:stream"], "audience[0]"),
        ("audience", ["resource:/42"], "audience[0]"),
        ("audience", ["user:" + "x" * 252], "audience[0]"),
        ("id", "x" * 257, "id"),
        ("key", "x" * 257, "key"),
        ("time", "yesterday", "time"),
        ("time", "2026-01-31", "time"),
        ("time", "2026-01-31T12:00:00", "time"),
        ("time", "2026-02-30T12:00:00Z", "time"),
        ("time", "2026-01-31T25:00:00Z", "time"),
        ("time", "2026-01-31T12:00:00Z\n", "time"),
        ("priority", "low", "priority"),
        ("extra", 1, "extra"),
    ],
)
def test_each_wrong_field_is_named(field: str, value: Any, named: str) -> None:
    """A field that is missing, unknown, of a wrong type or out of bounds is named in the error (X6)."""
    assert refused(body(**{field: value})).field == named


@pytest.mark.parametrize("type", sorted(RESERVED_TYPES))
def test_nobody_publishes_in_the_servers_name(type: str) -> None:
    """The types of the server's own messages are reserved: a `closing` or `gap` comes from the server alone."""
    assert refused(body(type=type)).field == "type"


def test_an_empty_array_is_refused() -> None:
    """There must be something to publish."""
    assert "at least one" in str(refused(b"[]"))


@pytest.mark.parametrize("bad", [{"topic": 5}, {"topic": "a b"}])
def test_all_bad_events_of_an_array_are_named(bad: dict[str, Any]) -> None:
    """Wrong shape or wrong value: the answer lists each bad event with its place, and names the first (T12)."""
    error = refused(b"[" + b",".join([body(), body(**bad), body(), body(**bad)]) + b"]")
    assert error.field == "[1].topic"
    assert [(row["index"], row["field"]) for row in error.details or ()] == [(1, "topic"), (3, "topic")]


def test_wrong_shapes_and_wrong_values_are_named_together() -> None:
    """One answer has everything that is wrong with an array, however it was found, in the array's order (T12)."""
    given = [body(), body(topic="a b"), body(type=5), b"5", body(extra=1), body(audience=["x"]), body()]
    error = refused(b"[" + b",".join(given) + b"]")
    assert error.field == "[1].topic"
    assert "5 of 7" in str(error)
    assert [(row["index"], row["field"]) for row in error.details or ()] == [
        (1, "topic"),
        (2, "type"),
        (3, None),
        (4, "extra"),
        (5, "audience[0]"),
    ]


def test_what_is_wrong_stands_in_the_place_of_its_event() -> None:
    """Parsing refuses no event by itself, so that the others are looked at, too."""
    first, second, third = parse(b"[" + b",".join([body(), body(type=5), body(topic="")]) + b"]")
    assert isinstance(first, EventIn)
    assert isinstance(second, InvalidEvent)
    assert second.field == "type"
    assert isinstance(third, EventIn)  # its shape is good


@pytest.mark.parametrize("bad", [{"topic": 5}, {"topic": "a b"}])
def test_an_array_of_one_is_answered_like_the_event_alone(bad: dict[str, Any]) -> None:
    """There is only one event that can be meant."""
    error = refused(b"[" + body(**bad) + b"]")
    assert (error.field, error.details) == ("topic", refused(body(**bad)).details)


def test_an_item_of_an_array_that_is_no_object_is_named_by_its_place() -> None:
    """Without a field there is still the index."""
    assert refused(b"[" + body() + b", 5]").field == "[1]"


def test_the_list_of_bad_events_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer does not grow with what is wrong: beyond a number only the count tells."""
    monkeypatch.setattr(events, "MAX_FAULTS", 3)
    error = refused(b"[" + b",".join([body(topic="")] * 5) + b"]")
    assert len(error.details or ()) == 3
    assert "5 of 5" in str(error)


@pytest.mark.parametrize("size", [1000, 1001])
def test_an_event_has_a_largest_size(size: int) -> None:
    """The payload may have as many bytes as the limit says, and not one more; the message says the limit (T5)."""
    text = body().replace(b'{"n": 1}', b'"' + b"x" * (size - 2) + b'"')
    if size == 1000:
        assert len(taken(text)[0].data) == 1000
        return
    for given, field in ((text, "data"), (b"[" + text + b"]", "data"), (b"[" + body(type=5) + b"," + text + b"]", "[1].data")):
        with pytest.raises(TooLarge, match="1000") as caught:
            taken(given)
        assert caught.value.field == field


SECRETS = RefusedFields(("password", "cvv"))


def with_secret(text: bytes) -> RefusedField:
    """Return the error with which a body is refused for a field that is named like a secret."""
    with pytest.raises(RefusedField) as caught:
        accept(parse(text), PUBLISHER, max_event_bytes=1_000_000, correlation_id="c1", refused_fields=SECRETS)
    return caught.value


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"password": "x"}, "data.password"),
        ({"user": {"cards": [{}, {"CVV": 1}]}}, "data.user.cards[1].CVV"),
        ([{"pass_word": 1}], "data[0].pass_word"),
    ],
)
def test_a_payload_with_a_field_named_like_a_secret_is_refused(data: object, field: str) -> None:
    """The answer names where it stands, and never shows what it holds (S7)."""
    assert with_secret(body(data=data)).field == field


def test_of_a_batch_every_such_field_is_named_by_its_event() -> None:
    """What is wrong for other reasons is told along with it, as always."""
    events_in = [body(), body(data={"cvv": "4711"}), body(topic=""), body(data={"a": [{"password": "4711"}]})]
    error = with_secret(b"[" + b",".join(events_in) + b"]")
    assert error.field == "[1].data.cvv"
    assert [(row["index"], row["field"]) for row in error.details or ()] == [(1, "data.cvv"), (2, "topic"), (3, "data.a[0].password")]
    assert "4711" not in f"{error} {error.details}"


def test_without_names_every_field_is_welcome() -> None:
    """The list is the operator's."""
    (event,) = taken(body(data={"password": 1}))
    assert event.data == '{"password": 1}'
