"""What a declared type asks of an event, and what the event's payload says of it: its key, its priority, and who may hear it, too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from channels.declaration import EventType
from channels.families import CATALOGUE, Catalogue
from storage.entries import HIGH, NewEvent

_json = msgspec.json.Encoder()


class Unfit(ValueError):
    """An event that its type does not allow, beyond the shape of its payload.

    Args:
        field: What it is about: `audience`, or a field of the payload like `data.price`.
        expected: What is expected there.
    """

    def __init__(self, field: str, expected: str) -> None:
        super().__init__(f"expected {expected}")
        self.field = field


class Facts(NamedTuple):
    """What the payload of a declared type says of its event."""

    key: str | None
    high: bool
    further_audience: tuple[str, ...]


class Validation:
    """Looks at payloads; what that takes is made once.

    Args:
        catalogue: The types that are declared.

    `types` are their names, and `is_claimed` tells whether a channel claims a topic.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._rules = {name: _Rules(declared, catalogue.further_audience(name)) for name, declared in catalogue.types.items()}
        self.types = frozenset(self._rules)
        self.is_claimed = catalogue.is_claimed

    def facts(self, type: str, data: bytes | msgspec.Raw, audience: tuple[str, ...]) -> Facts:
        """Return what a payload of a declared type says of its event.

        Raises:
            msgspec.ValidationError: If it is not of the shape that its type declares.
            Unfit: If it cannot be for another reason.
            RecursionError: If it is nested too deeply to tell.
        """
        return self._rules[type].facts(data, audience)

    def event(
        self,
        type: str,
        payload: Mapping[str, Any],
        audience: tuple[str, ...],
        *,
        source: str,
        published: str | None = None,
        correlation_id: str | None = None,
    ) -> NewEvent:
        """Return an event of the server's own, of a declared type and under its topic.

        Raises:
            msgspec.ValidationError, Unfit: If the payload, or the audience, is not as the type declares.
        """
        rules, data = self._rules[type], _json.encode(payload)
        facts = rules.facts(data, audience)
        return NewEvent(
            rules.topic,
            type,
            (*audience, *facts.further_audience),
            data.decode(),
            source=source,
            key=facts.key,
            priority=HIGH if facts.high else None,
            published=published,
            correlation_id=correlation_id,
        )


class _Rules:
    def __init__(self, declared: EventType, further_audience: tuple[str, ...]) -> None:
        self.topic = declared.topic
        self._decode = msgspec.json.Decoder(declared.shape).decode
        self._key = None if declared.key is None else _attribute(declared.shape, declared.key)
        self._high = declared.high
        self._check = declared.check
        self._further_audience = further_audience

    def facts(self, data: bytes | msgspec.Raw, audience: tuple[str, ...]) -> Facts:
        payload = self._decode(data)
        wrong = None if self._check is None else self._check(payload, audience)
        if wrong is not None:
            raise Unfit(*wrong)
        key = None if self._key is None else str(getattr(payload, self._key))
        return Facts(key, self._high is not None and self._high(payload), self._further_audience)


def _attribute(shape: type[msgspec.Struct], field: str) -> str:
    """Return what a field of the payload is called in Python."""
    return next(one.name for one in msgspec.structs.fields(shape) if one.encode_name == field)


VALIDATION = Validation(CATALOGUE)
