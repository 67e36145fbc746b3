"""CloudEvents 1.0 in JSON (the JSON format, sections 3 and 4): structured and batched content modes, made into events.

What Tailcast needs beyond the standard attributes comes as extension attributes: `audience` (a list, or a string with commas, since the
standard knows no lists), `topic`, `key`, `priority`. Without `topic` the `subject` is the topic, and without that the type.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from handlers.events import EventIn, attempt, is_array, parse_with
from hub.errors import InvalidEvent
from hub.subscriptions import is_topic

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
MEDIA_TYPES = (STRUCTURED, BATCH)


class CloudEvent(msgspec.Struct):
    """The attributes that mean something here; others are allowed and not kept, as the standard allows."""

    specversion: str
    id: str
    source: str
    type: str
    audience: list[str] | str
    subject: str | None = None
    topic: str | None = None
    time: str | None = None
    key: str | None = None
    priority: str | None = None
    datacontenttype: str | None = None
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    data_base64: str | None = None


_one = msgspec.json.Decoder(CloudEvent)
_many = msgspec.json.Decoder(list[CloudEvent])


def parse(body: bytes, *, batch: bool) -> list[EventIn | InvalidEvent]:
    """Return the events of a body in structured or batched mode; in the place of one that is none, what is wrong with it.

    Raises:
        BadRequest: If it is not JSON.
        InvalidEvent: If it is an array where one event is expected, or the other way round.
    """
    if is_array(body) != batch:
        raise InvalidEvent(f"expected {'an array' if batch else 'one object'} with this media type")
    return [attempt(_event, given) for given in parse_with(body, _one, _many)]


def _event(given: CloudEvent) -> EventIn:
    if given.specversion != "1.0":
        raise InvalidEvent(f"expected 1.0, not {given.specversion[:20]!r}", field="specversion")
    if not given.source:
        raise InvalidEvent("expected a source that is not empty", field="source")
    audience: Any = given.audience
    if isinstance(audience, str):
        audience = [token.strip() for token in audience.split(",")]
    subject = given.subject if given.subject and is_topic(given.subject) else None
    return EventIn(
        topic=given.topic or subject or given.type,
        type=given.type,
        audience=audience,
        data=_data(given),
        key=given.key,
        source=given.source,
        id=given.id,
        time=given.time,
        priority=given.priority,
    )


def _data(given: CloudEvent) -> msgspec.Raw:
    """Return the payload as JSON text: `data` as it stands, `data_base64` when it is JSON, nothing as null."""
    if given.data_base64 is None:
        return msgspec.Raw(b"null") if given.data is msgspec.UNSET else given.data
    if given.data is not msgspec.UNSET:
        raise InvalidEvent("expected data or data_base64, not both", field="data_base64")
    try:
        text = base64.b64decode(given.data_base64, validate=True)
        text.decode()
        msgspec.json.decode(text)
    except (binascii.Error, ValueError, RecursionError):
        raise InvalidEvent("expected JSON in base64: Tailcast carries JSON only", field="data_base64") from None
    return msgspec.Raw(text)
