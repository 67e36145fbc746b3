"""What channels ask of an event that is published: its payload's shape, and its topic. Errors name the field. Knows no request."""

from __future__ import annotations

import msgspec

from channels.validation import Facts, Unfit, Validation
from handlers.validation import described
from hub.errors import InvalidEvent


def facts_of(validation: Validation, topic: str, type: str, audience: tuple[str, ...], data: msgspec.Raw) -> Facts | None:
    """Return what a payload says of its event; None: no channel declares its type.

    Raises:
        InvalidEvent: If the event is not what its type declares, or its type is not declared and its topic is claimed.
    """
    if type not in validation.types:
        if validation.is_claimed(topic):
            raise InvalidEvent(f"expected a declared type under this topic, which a channel claims, not {type[:80]!r}", field="type")
        return None
    try:
        return validation.facts(type, data, audience)
    except msgspec.ValidationError as error:
        message, path = described(error)
        raise InvalidEvent(f"{type}: {message}", field=_within_data(path)) from None
    except Unfit as error:
        raise InvalidEvent(f"{type}: {error}", field=error.field) from None
    except RecursionError:
        raise InvalidEvent(f"{type}: the payload is nested too deeply", field="data") from None


def _within_data(path: str | None) -> str:
    if path is None:
        return "data"
    return f"data{path}" if path.startswith("[") else f"data.{path}"
