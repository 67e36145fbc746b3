"""Events as publishers send them: their shape, and what is checked of it. Knows no request."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from channels.validation import VALIDATION, Validation
from handlers.refused_fields import RefusedFields, Search
from handlers.shapes import facts_of
from handlers.validation import described
from hub.errors import BadRequest, InvalidEvent, TooLarge
from hub.formats import RESERVED_TYPES
from hub.principal import AUDIENCE_KINDS, Principal, is_audience
from hub.subscriptions import MAX_KEY_LENGTH, MAX_TOPIC_LENGTH, is_name, is_topic
from storage.entries import HIGH, OWN_TOPICS, NewEvent, is_own_source

MAX_AUDIENCES = 100
MAX_ID_LENGTH = 256
MAX_FAULTS = 100  # bad events that one answer lists
PRIORITIES = (HIGH, "normal")
NO_FIELDS = RefusedFields(())
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")  # RFC 3339 section 5.6


class RefusedField(InvalidEvent):
    """A payload with a field that is named like a secret."""


class EventIn(msgspec.Struct, forbid_unknown_fields=True):
    """An event in the body of a publish; see the reference for what each field means."""

    topic: str
    type: str
    audience: list[str]
    data: msgspec.Raw
    key: str | None = None
    source: str | None = None
    id: str | None = None
    time: str | None = None
    priority: str | None = None


_one = msgspec.json.Decoder(EventIn)
_many = msgspec.json.Decoder(list[EventIn])


def parse(body: bytes) -> list[EventIn | InvalidEvent]:
    """Return the events of a JSON body: one, or an array; in the place of one that is not of this shape, what is wrong with it.

    Raises:
        BadRequest: If it is not JSON.
    """
    return parse_with(body, _one, _many)


def parse_with(body: bytes, one: msgspec.json.Decoder[Any], many: msgspec.json.Decoder[Any]) -> list[Any]:
    """Return what is in a JSON body, one value or an array, by these decoders; see `parse`."""
    try:
        return _decode_array(body, one, many) if is_array(body) else [attempt(_decode_piece(one), body)]
    except RecursionError:
        raise BadRequest("the body is nested too deeply") from None
    except msgspec.DecodeError as error:
        raise BadRequest(f"the body is not JSON: {str(error)[:200]}") from None


def is_array(body: bytes) -> bool:
    """Tell whether a JSON body is an array."""
    return body.lstrip(b" \t\r\n").startswith(b"[")


def _decode_array(body: bytes, one: msgspec.json.Decoder[Any], many: msgspec.json.Decoder[Any]) -> list[Any]:
    try:
        return list(many.decode(body))
    except msgspec.ValidationError:  # of the first bad event; one by one they are all found
        pieces: list[msgspec.Raw] = msgspec.json.decode(body, type=list[msgspec.Raw])
        return [attempt(_decode_piece(one), piece) for piece in pieces]


def _decode_piece(decoder: msgspec.json.Decoder[Any]) -> Callable[[bytes | msgspec.Raw], Any]:
    def decode(piece: bytes | msgspec.Raw) -> Any:
        try:
            return decoder.decode(piece)
        except msgspec.ValidationError as error:
            raise fault(error) from None

    return decode


def attempt(make: Callable[[Any], Any], value: Any) -> Any:
    """Return what is made of a value, or what is wrong with it; what was wrong before stays so."""
    if isinstance(value, InvalidEvent):
        return value
    try:
        return make(value)
    except InvalidEvent as error:
        return error


def fault(error: msgspec.ValidationError) -> InvalidEvent:
    """Return a validation error with the field it is about."""
    message, field = described(error)
    return InvalidEvent(message, field=field)


def accept(
    given: Sequence[EventIn | InvalidEvent],
    publisher: Principal,
    *,
    max_event_bytes: int,
    correlation_id: str,
    refused_fields: RefusedFields = NO_FIELDS,
    validation: Validation = VALIDATION,
) -> list[NewEvent]:
    """Return checked events, ready to be appended.

    Args:
        given: The events, or what is wrong with them.
        publisher: Whose they are.
        max_event_bytes: How large the payload of one may be.
        correlation_id: Of the request.
        refused_fields: Names that no field of a payload may have.
        validation: What channels ask of events.

    Raises:
        InvalidEvent: If one of them cannot be; of several, names every one.
        TooLarge: If the payload of one is larger than the limit.
    """
    if not given:
        raise InvalidEvent("expected at least one event, not an empty array")
    for index, event in enumerate(given):
        size = 0 if isinstance(event, InvalidEvent) else memoryview(event.data).nbytes
        if size > max_event_bytes:
            field = "data" if len(given) == 1 else f"[{index}].data"
            raise TooLarge(f"data has {size} bytes, the limit is {max_event_bytes}", field=field)
    refused = refused_fields.are_in(*[event.data for event in given if not isinstance(event, InvalidEvent)])
    search = Search(refused_fields) if refused else None
    checked = [attempt(lambda event: _accept(event, publisher, correlation_id, search, validation), event) for event in given]
    faults = {index: event for index, event in enumerate(checked) if isinstance(event, InvalidEvent)}
    if faults:
        raise faults[0] if len(given) == 1 else _together(faults, len(given))
    return checked


def _together(faults: Mapping[int, InvalidEvent], count: int) -> InvalidEvent:
    """Return one error for all events of a batch that cannot be taken."""
    index, first = next(iter(faults.items()))
    details: list[dict[str, object]] = [{"index": place, "field": error.field, "message": str(error)} for place, error in faults.items()]
    kind = RefusedField if any(isinstance(error, RefusedField) for error in faults.values()) else InvalidEvent
    return kind(
        f"{len(faults)} of {count} events cannot be taken, and so none was; event {index}: {first}",
        field=f"[{index}].{first.field}" if first.field else f"[{index}]",
        details=details[:MAX_FAULTS],
    )


def _accept(event: EventIn, publisher: Principal, correlation_id: str, search: Search | None, validation: Validation) -> NewEvent:
    source = publisher.user if event.source is None else event.source
    if not is_topic(event.topic):
        raise _invalid("topic", f"segments of 1 to {MAX_TOPIC_LENGTH} characters in all, joined by dots", event.topic)
    if event.topic.startswith(OWN_TOPICS):
        raise _invalid("topic", f"a topic that does not begin with {OWN_TOPICS}, which are the server's own", event.topic)
    if not is_name(event.type):
        raise _invalid("type", "a name without spaces, commas and asterisks", event.type)
    if event.type in RESERVED_TYPES:
        raise _invalid("type", "a name that is none of the server's own messages", event.type)
    if not is_name(source):
        raise _invalid("source", "a name without spaces, commas and asterisks", source)
    if is_own_source(source):
        raise _invalid("source", "a source that is none of the server's own", source)
    _check_audience(event.audience)
    _check_optional(event)
    _check_payload(event, search)
    audience, key, high = tuple(dict.fromkeys(event.audience)), event.key, event.priority == HIGH
    facts = facts_of(validation, event.topic, event.type, audience, event.data)
    if facts is not None:
        # The payload says what the event is about; whoever may hear all of a channel is in the audience of each of its events.
        audience, key, high = (*audience, *facts.further_audience), facts.key, high or facts.high
    return NewEvent(
        event.topic,
        event.type,
        audience,
        str(memoryview(event.data), "utf-8"),
        source=source,
        key=key,
        priority=HIGH if high else None,
        time=event.time,
        published=_identity(event, publisher, source),
        correlation_id=correlation_id,
    )


def _check_audience(audience: list[str]) -> None:
    if not 0 < len(audience) <= MAX_AUDIENCES:
        raise InvalidEvent(f"expected 1 to {MAX_AUDIENCES} audiences, not {len(audience)}", field="audience")
    for index, token in enumerate(audience):
        if not is_audience(token):
            raise _invalid(f"audience[{index}]", " or ".join(AUDIENCE_KINDS), token)


def _check_optional(event: EventIn) -> None:
    if event.priority is not None and event.priority not in PRIORITIES:
        raise _invalid("priority", " or ".join(PRIORITIES), event.priority)
    if event.id is not None and not 0 < len(event.id) <= MAX_ID_LENGTH:
        raise _invalid("id", f"1 to {MAX_ID_LENGTH} characters", event.id)
    if event.key is not None and not 0 < len(event.key) <= MAX_KEY_LENGTH:
        raise _invalid("key", f"1 to {MAX_KEY_LENGTH} characters", event.key)
    if event.time is not None and not _is_time(event.time):
        raise _invalid("time", "an RFC 3339 time like 2026-01-31T12:00:00Z", event.time)


def _check_payload(event: EventIn, search: Search | None) -> None:
    field = None if search is None else search.field_in(event.data)
    if field is not None:
        raise RefusedField("expected no field with the name of a secret: events are kept, and shown to others", field=field)


def _is_time(text: str) -> bool:
    if not _TIME.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _identity(event: EventIn, publisher: Principal, source: str) -> str | None:
    """Return what makes a retry known: the publisher's id within its source, and that within its organisation, so that no tenant's event
    is taken for another's."""
    return None if event.id is None else f"{publisher.org or ''}\n{source}\n{event.id}"


def _invalid(field: str, expected: str, came: str) -> InvalidEvent:
    return InvalidEvent(f"expected {expected}, not {came[:80]!r}", field=field)
