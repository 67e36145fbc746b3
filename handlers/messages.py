"""What WebSocket clients send: one class for each message, one table for all. Knows no connection."""

from __future__ import annotations

from typing import Any

import msgspec

from handlers.validation import described
from hub.errors import InvalidMessage
from hub.subscriptions import Subscription, make_subscription

MAX_REF_LENGTH = 128
MAX_SHOWN = 80


class ClientMessage(msgspec.Struct, forbid_unknown_fields=True, tag_field="type", kw_only=True):
    """The base: `ref` is the client's own, and comes back with the answer."""

    ref: str | None = None


class Auth(ClientMessage, tag="auth"):
    """A token: the first one on a connection that came without, or a fresh one."""

    token: str


class Subscribe(ClientMessage, tag="subscribe"):
    """A topic with filters; with `position` or `from` it replays first."""

    topic: str
    filters: dict[str, Any] = {}
    position: str | None = None
    from_: str | None = msgspec.field(default=None, name="from")


class Unsubscribe(ClientMessage, tag="unsubscribe"):
    """A topic as it was subscribed to."""

    topic: str


class Ping(ClientMessage, tag="ping"):
    """A question whether the server lives, for scripts that cannot see ping frames."""


class Ack(ClientMessage, tag="ack"):
    """An event that the client has dealt with."""

    id: str


CLIENT_MESSAGES = {"auth": Auth, "subscribe": Subscribe, "unsubscribe": Unsubscribe, "ping": Ping, "ack": Ack}
AnyMessage = Auth | Subscribe | Unsubscribe | Ping | Ack


class _Outline(msgspec.Struct):
    """As much of a message as can be told when the rest of it is wrong."""

    ref: Any = None


_decoder = msgspec.json.Decoder(AnyMessage)
_outline = msgspec.json.Decoder(_Outline)


def parse(payload: bytes) -> AnyMessage:
    """Return a client's message.

    Raises:
        InvalidMessage: If it is none; its `field` names what is wrong.
    """
    try:
        message: AnyMessage = _decoder.decode(payload)
    except msgspec.ValidationError as error:
        text, field = described(error)
        raise InvalidMessage(text, field=field) from None
    except (msgspec.DecodeError, RecursionError):
        raise InvalidMessage("the message is not JSON") from None
    if message.ref is not None and len(message.ref) > MAX_REF_LENGTH:
        raise InvalidMessage(f"at most {MAX_REF_LENGTH} characters", field="ref")
    return message


def ref_of(payload: bytes) -> str | None:
    """Return the `ref` of a message that could not be parsed, if it has one that could be."""
    try:
        ref = _outline.decode(payload).ref
    except (msgspec.DecodeError, RecursionError):
        return None
    return ref if isinstance(ref, str) and len(ref) <= MAX_REF_LENGTH else None


def subscription_of(message: Subscribe) -> Subscription:
    """Return what a `subscribe` selects.

    Raises:
        BadRequest: If a filter or the topic cannot be meant; its `field` names it.
    """
    bounds = dict(message.filters)
    types = _strings(bounds.pop("types", []), "filters.types")
    sources = _strings(bounds.pop("sources", []), "filters.sources")
    resources = _strings(bounds.pop("resources", []), "filters.resources")
    keys = _strings(bounds.pop("keys", []), "filters.keys")
    return make_subscription(message.topic, types, sources, bounds, resources, keys)


def _strings(value: Any, field: str) -> list[str]:
    if not isinstance(value, list):
        raise InvalidMessage("expected an array of strings", field=field)
    for index, one in enumerate(value):
        if not isinstance(one, str):
            raise InvalidMessage("expected a string", field=f"{field}[{index}]")
    return value
