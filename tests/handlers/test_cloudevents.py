"""Tests of handlers/cloudevents.py: CloudEvents 1.0, structured and batched, become events."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from handlers.cloudevents import parse
from handlers.events import EventIn, accept
from hub.errors import BadRequest, InvalidEvent
from hub.principal import Principal

PUBLISHER = Principal("p1", roles=frozenset({"publisher"}))
GOOD: dict[str, Any] = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "order.filled", "audience": ["user:u1"]}


def body(**attributes: Any) -> bytes:
    """Return a CloudEvent as JSON; an attribute that is `...` is left out."""
    return json.dumps({name: value for name, value in {**GOOD, **attributes}.items() if value is not ...}).encode()


def one(**attributes: Any) -> EventIn:
    """Return the event made of a CloudEvent in structured mode."""
    (event,) = events_of(body(**attributes))
    return event


def events_of(text: bytes, *, batch: bool = False) -> list[EventIn]:
    """Return the events of a body, of which none may be bad."""
    given = parse(text, batch=batch)
    good = [event for event in given if isinstance(event, EventIn)]
    assert good == given
    return good


def refused(text: bytes, *, batch: bool = False) -> InvalidEvent:
    """Return the error with which a body is refused."""
    with pytest.raises(InvalidEvent) as caught:
        accept(parse(text, batch=batch), PUBLISHER, max_event_bytes=1 << 20, correlation_id="c1")
    return caught.value


def test_attributes_become_fields() -> None:
    """Id, source, type, time and data mean what they mean there; key and priority are extensions (T12)."""
    event = one(
        data={"n": 1.10}, time="2026-01-31T12:00:00Z", key="k", priority="high", datacontenttype="application/json", other="ignored"
    )
    assert (event.id, event.source, event.type, event.time) == ("1", "/shop", "order.filled", "2026-01-31T12:00:00Z")
    assert (event.key, event.priority, event.audience, bytes(event.data)) == ("k", "high", ["user:u1"], b'{"n": 1.1}')


@pytest.mark.parametrize(
    ("attributes", "topic"),
    [
        ({"topic": "t", "subject": "s"}, "t"),
        ({"subject": "orders.7"}, "orders.7"),
        ({"subject": "no topic, this"}, "order.filled"),
        ({"subject": ""}, "order.filled"),
        ({}, "order.filled"),
    ],
)
def test_the_topic_is_the_best_that_is_there(attributes: dict[str, str], topic: str) -> None:
    """`topic`, else a `subject` that can be one, else the type."""
    assert one(**attributes).topic == topic


def test_the_audience_may_be_a_string_with_commas() -> None:
    """The standard knows no lists, so a string with commas is a list."""
    assert one(audience="user:u1, org:o1").audience == ["user:u1", "org:o1"]


def test_numbers_in_data_stay_as_they_are() -> None:
    """The payload's text is taken as it stands."""
    text = body(data=0).replace(b'"data": 0', b'"data": {"a":1.10,"b":1e400}')
    assert bytes(events_of(text)[0].data) == b'{"a":1.10,"b":1e400}'


def test_without_data_the_payload_is_null() -> None:
    """An event may say nothing but that it happened."""
    assert bytes(one().data) == b"null"


def test_base64_data_is_decoded() -> None:
    """`data_base64` carries JSON as well, and its text is taken as it stands."""
    assert bytes(one(data_base64=base64.b64encode(b'{"n": 1.10}').decode()).data) == b'{"n": 1.10}'


@pytest.mark.parametrize(
    "encoded", ["%", "e", "é", *(base64.b64encode(raw).decode() for raw in (b"\xff", b"no json", b"", b"[" * 100_000))]
)
def test_base64_data_must_be_json(encoded: str) -> None:
    """What is no base64, no UTF-8 or no JSON cannot be delivered as JSON."""
    assert refused(body(data_base64=encoded)).field == "data_base64"


def test_data_comes_in_one_form_only() -> None:
    """With both `data` and `data_base64` it is not clear which is meant (the JSON format, 3.1.1)."""
    assert refused(body(data=1, data_base64="MQ==")).field == "data_base64"


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        *((name, ...) for name in GOOD),
        *((name, 5) for name in GOOD),
        ("specversion", "0.3"),
        ("source", ""),
        ("time", 5),
        ("data_base64", 5),
    ],
)
def test_each_wrong_attribute_is_named(attribute: str, value: Any) -> None:
    """A required attribute that is missing, the audience among them, or one of a wrong type is named."""
    assert refused(body(**{attribute: value})).field == attribute


def test_a_batch_keeps_its_order() -> None:
    """Events of a batch come out in its order; an empty one holds none."""
    text = b"[" + b",".join(body(id=str(number)) for number in range(3)) + b"]"
    assert [event.id for event in events_of(text, batch=True)] == ["0", "1", "2"]
    assert parse(b"[]", batch=True) == []


def test_all_bad_events_of_a_batch_are_named() -> None:
    """Of wrong shape, no CloudEvent, or no event for this server: each is listed with its place (T12)."""
    error = refused(b"[" + b",".join([body(), body(specversion=1), body(specversion="2.0"), body(audience=["x"])]) + b"]", batch=True)
    assert error.field == "[1].specversion"
    assert [(row["index"], row["field"]) for row in error.details or ()] == [(1, "specversion"), (2, "specversion"), (3, "audience[0]")]


@pytest.mark.parametrize("batch", [True, False])
def test_the_media_type_and_the_body_must_agree(batch: bool) -> None:
    """An array is no structured event, and an object no batch."""
    assert "expected" in str(refused(body() if batch else b"[" + body() + b"]", batch=batch))


def test_what_is_not_json_is_refused() -> None:
    """Something that is no JSON is an invalid request."""
    with pytest.raises(BadRequest, match="not JSON"):
        parse(b"{", batch=False)
