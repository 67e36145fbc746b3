"""Tests of handlers/shapes.py: what is refused of events whose type a channel declares, field by field, and how it is named."""

from __future__ import annotations

import json
from typing import Any

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from channels.families import CATALOGUE, EVENT_TYPES
from channels.validation import VALIDATION
from handlers.cloudevents import parse as parse_cloud_events
from handlers.events import EventIn, RefusedField, accept, parse
from handlers.refused_fields import RefusedFields
from handlers.shapes import facts_of
from hub.errors import InvalidEvent
from hub.principal import Principal
from storage.entries import HIGH, NewEvent
from tests.handlers.assembly import Assembly, token
from tests.handlers.clients import EventStream, publish

PUBLISHER = Principal("p1", org="o1", roles=frozenset({"publisher"}))
ANY_JSON = {("agent.action.completed", "result")}  # fields that may be anything
OPEN = {"test"}  # types whose payload may have other fields, too
STRANGE: tuple[Any, ...] = (True, [], {}, [{}], -1, 1.5, "", "\n", "x" * 30_000, "2026-02-30T12:00:00Z", "-", "1e5", "NaN")


def body(type: str, data: Any, **fields: Any) -> dict[str, Any]:
    """Return an event of a declared type, as it is published."""
    declared = EVENT_TYPES.get(type)
    return {"topic": "free", "type": type, "audience": declared.audience if declared else ["public"], "data": data, **fields}


def given(*events: dict[str, Any]) -> list[EventIn | InvalidEvent]:
    """Return events as they come from a publisher: one by itself, or an array."""
    return parse(json.dumps(events[0] if len(events) == 1 else events).encode())


def taken(*events: dict[str, Any], **arguments: Any) -> list[NewEvent]:
    """Parse and accept events."""
    return accept(given(*events), PUBLISHER, max_event_bytes=1 << 20, correlation_id="c1", **arguments)


def refused(*events: dict[str, Any], **arguments: Any) -> InvalidEvent:
    """Return the error with which events are refused."""
    with pytest.raises(InvalidEvent) as caught:
        taken(*events, **arguments)
    return caught.value


def fault_of(event: EventIn | InvalidEvent) -> InvalidEvent | None:
    """Return what is wrong with an event; None: nothing."""
    try:
        accept([event], PUBLISHER, max_event_bytes=1 << 20, correlation_id="c1")
    except InvalidEvent as error:
        return error
    return None


def fields(*, required: bool | None = None) -> list[tuple[str, str]]:
    """Return each declared type with each of its fields: those that must be there, those that need not, or all."""
    return [
        (declared.name, one.encode_name)
        for declared in EVENT_TYPES.values()
        for one in msgspec.structs.fields(declared.shape)
        if required is None or one.required is required
    ]


@pytest.mark.parametrize(("type", "field"), fields(required=True))
def test_each_field_that_is_missing_is_named(type: str, field: str) -> None:
    """A payload without one of the fields that its type must have is refused (X6)."""
    data = {name: value for name, value in EVENT_TYPES[type].sample.items() if name != field}
    assert refused(body(type, data)).field == f"data.{field}"


@pytest.mark.parametrize(("type", "field"), fields())
def test_each_field_of_a_wrong_type_is_named(type: str, field: str) -> None:
    """Of values that are no sensible ones, some are refused for every field, and then by its name (X6)."""
    sample = EVENT_TYPES[type].sample
    faults = [fault_of(*given(body(type, {**sample, field: value}))) for value in STRANGE]
    named = [str(fault.field) for fault in faults if fault is not None]
    assert bool(named) is ((type, field) not in ANY_JSON)
    assert {one.partition("[")[0] for one in named} <= {f"data.{field}"}


@pytest.mark.parametrize(("type", "field"), fields(required=False))
def test_each_field_that_may_be_missing_may_be_null(type: str, field: str) -> None:
    """Null says that there is none, as leaving it out does; but a signal must be whole, and a position have its price."""
    sample = EVENT_TYPES[type].sample
    is_conditional = (type, field) == ("position:update", "entryPrice") or (type == "strategy:update" and field in sample)
    fault = fault_of(*given(body(type, {**sample, field: None})))
    assert fault is None or (is_conditional and fault.field == f"data.{field}")


@pytest.mark.parametrize("type", EVENT_TYPES)
def test_a_field_that_is_unknown_is_named(type: str) -> None:
    """Shapes are allow-lists: nothing is delivered that nobody has thought of (A4)."""
    event = body(type, {**EVENT_TYPES[type].sample, "email": "a@b.example"})
    if type in OPEN:
        taken(event)
    else:
        assert refused(event).field == "data.email"


@pytest.mark.parametrize("type", EVENT_TYPES)
@pytest.mark.parametrize("data", [5, "text", None, True, [], [{}]])
def test_a_payload_that_is_no_object_is_refused(type: str, data: Any) -> None:
    """Every declared type has an object as its payload."""
    assert refused(body(type, data)).field == "data"


@pytest.mark.parametrize("payload", [5, None, [], {"email": "a@b.example"}])
def test_a_type_that_nobody_declares_may_be_anything(payload: Any) -> None:
    """The server is useful without writing Python (X6)."""
    assert json.loads(taken(body("greeting", payload))[0].data) == payload


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@hypothesis.given(st.sampled_from(fields()), JSON)
def test_whatever_comes_is_taken_or_refused_with_a_field(where: tuple[str, str], value: Any) -> None:
    """No payload is a defect of the server, and none is refused without saying where."""
    type, field = where
    fault = fault_of(*given(body(type, {**EVENT_TYPES[type].sample, field: value})))
    assert fault is None or str(fault.field).startswith(f"data.{field}")


@pytest.mark.parametrize(
    ("amount", "good"),
    [
        ("1", True),
        ("9" * 1000, True),
        ("0.000000000000000000000000000001", True),
        (1, False),
        (1.5, False),
        ("-1", False),
        ("1e5", False),
        ("1.", False),
        (".5", False),
        ("", False),
        (" 1", False),
        ("1\n", False),
        ("NaN", False),
        ("٣", False),
        ("0x10", False),
        ("1_000", False),
        ("1,5", False),
        ("9" * 10_001, False),
    ],
)
def test_amounts_of_payment_streams_are_decimal_strings(amount: object, good: bool) -> None:
    """They stay exact, whatever their size: as a number of JSON they would not everywhere (C4)."""
    event = body("stream.topped_up", {"streamId": "1", "amount": amount})
    if good:
        assert json.loads(taken(event)[0].data)["amount"] == amount
    else:
        assert refused(event).field == "data.amount"


@pytest.mark.parametrize("price", [1, 1.5, "1.50", 0, "9" * 100])
def test_numbers_of_trading_are_numbers_or_decimal_strings(price: object) -> None:
    """Whoever publishes them keeps them as it has them, to the last digit (D4)."""
    (event,) = taken(body("price:update", {**EVENT_TYPES["price:update"].sample, "price": price}))
    assert json.loads(event.data)["price"] == price


@pytest.mark.parametrize("time", ["2026-01-31T12:00:00Z", "2026-01-31T12:00:00.123456789+01:00"])
def test_times_are_rfc_3339(time: str) -> None:
    """With an offset from UTC, and as they were written (D2)."""
    sample = EVENT_TYPES["order:update"].sample
    assert json.loads(taken(body("order:update", {**sample, "timestamp": time}))[0].data)["timestamp"] == time
    for wrong in (time[:19], "2026-01-31", "31.01.2026", "now", 1_795_176_000):
        assert refused(body("order:update", {**sample, "timestamp": wrong})).field == "data.timestamp"


def test_a_batch_names_what_is_wrong_with_each_of_its_events() -> None:
    """Events of declared types stand in the list of what is wrong like all others (T12)."""
    sample = EVENT_TYPES["order:fill"].sample
    error = refused(
        body("order:fill", sample),
        body("order:fill", {**sample, "qty": "many"}),
        body("greeting", {"qty": "many"}),
        body("position:update", EVENT_TYPES["position:update"].sample, audience=["public"]),
        body("scheduler.tick", {}),
    )
    assert [(row["index"], row["field"]) for row in error.details or ()] == [(1, "data.qty"), (3, "audience"), (4, "data.timestamp")]
    assert error.field == "[1].data.qty"


def test_a_topic_that_a_channel_claims_takes_declared_types_only() -> None:
    """Whoever follows a family's topics gets what the family declares, and nothing else (X6)."""
    for claim in CATALOGUE.claims:
        topic = claim.replace("**", "anything.else")
        assert refused(body("greeting", {}, topic=topic)).field == "type"
        assert taken(body("sync.completed", EVENT_TYPES["sync.completed"].sample, topic=topic))[0].topic == topic


@pytest.mark.parametrize("source", ["tailcast", "tailcast.portfolio", "tailcast."])
def test_nobody_publishes_as_the_server(source: str) -> None:
    """What is valued here comes from here alone; a name that only begins alike is anybody's."""
    assert refused(body("greeting", {}, source=source)).field == "source"
    assert taken(body("greeting", {}, source="tailcasting"))[0].source == "tailcasting"
    with pytest.raises(InvalidEvent):
        accept(parse(json.dumps(body("greeting", {})).encode()), Principal(source), max_event_bytes=1000, correlation_id="c1")


def test_the_payload_says_what_an_event_is_about() -> None:
    """Its key is in it, and so is its priority; of a type that is not declared the publisher says both (T11)."""
    (order,) = taken(body("order:fill", EVENT_TYPES["order:fill"].sample, key="other"))
    (alert,) = taken(body("alert:new", {**EVENT_TYPES["alert:new"].sample, "level": "error"}, priority="normal", key="other"))
    (warning,) = taken(body("alert:new", EVENT_TYPES["alert:new"].sample, priority="high"))
    (free,) = taken(body("greeting", {}, priority="high", key="mine"))
    assert [(one.key, one.priority) for one in (order, alert, warning, free)] == [
        ("o-1", None),
        (None, HIGH),
        (None, HIGH),
        ("mine", HIGH),
    ]


def test_who_may_have_all_of_a_channel_is_in_the_audience() -> None:
    """Events of the subscription API are also for its own audience (C1)."""
    (event,) = taken(body("stream.completed", {"streamId": "1"}, audience=["user:a"]))
    assert event.audience == ("user:a", "resource:channel/subscriptions")


def test_a_secret_is_refused_as_such() -> None:
    """A field that is named like a secret is counted as one, also where it would be unknown anyway (S7)."""
    error = refused(body("order:fill", {**EVENT_TYPES["order:fill"].sample, "password": "x"}), refused_fields=RefusedFields(["password"]))
    assert isinstance(error, RefusedField)


def test_a_payload_that_is_nested_too_deeply_is_refused() -> None:
    """Particulars may be any JSON, as deep as can be read."""
    sample = {**EVENT_TYPES["alert:new"].sample, "details": {"a": 5}}
    payload = msgspec.Raw(json.dumps(sample).replace("5", "[" * 100_000 + "]" * 100_000).encode())
    with pytest.raises(InvalidEvent, match="too deeply") as caught:
        facts_of(VALIDATION, "free", "alert:new", ("user:a",), payload)
    assert caught.value.field == "data"


def test_cloud_events_are_held_to_the_same() -> None:
    """However an event is written, its type declares what it may be (T12)."""
    event = {"specversion": "1.0", "id": "1", "source": "shop", "type": "sync.completed", "audience": "public"}
    for count, field in ((1, None), (-1, "data.recordsUpdated")):
        text = json.dumps({**event, "data": {"source": "bank", "recordsUpdated": count}}).encode()
        fault = fault_of(*parse_cloud_events(text, batch=False))
        assert (None if fault is None else fault.field) == field


async def test_every_sample_is_published_and_received(here: Assembly) -> None:
    """What the reference shows for each type can be published as it stands, and arrives as it stands (A1, B4, C3, D2 to D6, E2)."""
    samples = [body(one.name, one.sample, topic=one.topic, id=one.name) for one in EVENT_TYPES.values()]
    everything = token("demo", org="demo", entity="demo")
    async with EventStream(here.port, token=everything) as stream:
        await stream.welcome()
        answer = await publish(here.port, samples, token("p1", roles=["publisher"]))
        assert answer.status == 202
        received = [await stream.next() for _ in samples]
    assert {(one.type, one.data) for one in received} == {(one["type"], json.dumps(one["data"])) for one in samples}
    assert [one.id for one in received] == [one["id"] for one in answer.json()["events"]]


async def test_what_is_wrong_is_answered_with_422(here: Assembly) -> None:
    """The answer is the one envelope, with the field (X6, S8)."""
    answer = await publish(here.port, body("stream.topped_up", {"streamId": "1", "amount": 5}), token("p1", roles=["publisher"]))
    assert answer.error() == (422, "invalid_event", "data.amount")
