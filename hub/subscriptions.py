"""What a connection asks for: topics, types, sources, keys and bounds on numbers in the payload. No I/O.

Topics are segments joined by dots. In a subscription `*` stands for one segment and `**`, as the last one, for one or more.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from hub.errors import BadRequest
from hub.principal import audience_of, is_audience

MAX_TOPIC_LENGTH = 255
MAX_LIST_LENGTH = 100
MAX_KEY_LENGTH = 256
MAX_BOUNDS = 10
EVERYTHING = "**"
_NAME = re.compile(r"[^\s,*\x00-\x1f\x7f\ud800-\udfff]+")  # half a surrogate pair has no UTF-8
_BOUND = re.compile(r"(min|max)([A-Z]\w{0,63})")
_SEGMENTS = {"*": r"[^.]+", "**": r".+"}


class Bound(NamedTuple):
    """A bound on one number of the payload: from `low` to `high`, both included; None: no bound on that side."""

    field: str
    low: Decimal | None
    high: Decimal | None

    def holds(self, payload: Mapping[str, Any]) -> bool:
        """Tell whether the payload has this field as a number, or as a string that is one, within the bound."""
        value = payload.get(self.field)
        if isinstance(value, bool) or not isinstance(value, int | str | Decimal):
            return False
        try:
            number = Decimal(value)
            return number.is_finite() and (self.low is None or number >= self.low) and (self.high is None or number <= self.high)
        except InvalidOperation:  # not a number
            return False


class Subscription(NamedTuple):
    """A selection of events. Equal selections are equal values, so that connections can share what is computed for them."""

    topic: str = EVERYTHING
    types: frozenset[str] = frozenset()  # empty: every type
    sources: frozenset[str] = frozenset()  # empty: every source
    bounds: tuple[Bound, ...] = ()
    audiences: frozenset[str] = frozenset()  # only events for one of these; empty: for whomever
    keys: frozenset[str] = frozenset()  # only events about one of these; empty: about whatever

    def selects(self, topic: str, type: str, source: str | None, audience: Collection[str], key: str | None = None) -> bool:
        """Tell whether events like this are selected, whatever their payload says."""
        if self.keys and key not in self.keys:
            return False
        return self.selects_some(topic, type, source, audience)

    def selects_some(self, topic: str, type: str, source: str | None, audience: Collection[str]) -> bool:
        """Tell whether events like this are selected if their key is."""
        if self.audiences and self.audiences.isdisjoint(audience):
            return False
        if self.types and type not in self.types:
            return False
        if self.sources and source not in self.sources:
            return False
        return topic_matches(self.topic, topic)

    def holds(self, payload: Any) -> bool:
        """Tell whether the payload is within all bounds; one that is not an object is in none."""
        return not self.bounds or (isinstance(payload, dict) and all(bound.holds(payload) for bound in self.bounds))


def parse_payload(data: str) -> Any:
    """Read a payload for comparing: numbers stay exact. One that cannot be read, being nested too deeply for instance, is None."""
    try:
        return _payload.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return None


def _exact(text: str) -> Decimal | None:
    """Return a number of JSON; None if its exponent is beyond what can be held, and so in no bound."""
    try:
        return Decimal(text)
    except InvalidOperation:
        return None


_payload = msgspec.json.Decoder(float_hook=_exact)


def is_name(text: str, longest: int = MAX_TOPIC_LENGTH) -> bool:
    """Tell whether this can be a type or a source: no white space, comma, asterisk or control character."""
    return 0 < len(text) <= longest and _NAME.fullmatch(text) is not None


def is_topic(text: str) -> bool:
    """Tell whether this can be published under: a name whose segments between dots are not empty."""
    return is_name(text) and not (text[0] == "." or text[-1] == "." or ".." in text)


def is_pattern(text: str) -> bool:
    """Tell whether this can be subscribed to."""
    if not 0 < len(text) <= MAX_TOPIC_LENGTH:
        return False
    *first, last = text.split(".")
    return all(part == "*" or is_name(part) for part in first) and (last in _SEGMENTS or is_name(last))


def is_exact(pattern: str) -> bool:
    """Tell whether a pattern is a plain topic."""
    return "*" not in pattern


def topic_matches(pattern: str, topic: str) -> bool:
    """Tell whether a topic is within a pattern."""
    return pattern == topic or ("*" in pattern and _compiled(pattern).fullmatch(topic) is not None)


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(r"\.".join(_SEGMENTS.get(part) or re.escape(part) for part in pattern.split(".")))


def make_subscription(
    topic: str,
    types: list[str],
    sources: list[str],
    bounds: Mapping[str, Any],
    resources: list[str] | None = None,
    keys: list[str] | None = None,
    *,
    topic_field: str = "topic",
    prefix: str = "filters.",
) -> Subscription:
    """Check what a client asked for and make a subscription of it.

    Args:
        topic: A topic or a pattern.
        types: Event types; empty: all.
        sources: Sources; empty: all.
        bounds: `min<Field>` and `max<Field>` with a number, or a string that is one. `minAmount` bounds `amount` from below.
        resources: Like `stream/42`: only events about one of these; empty: whomever they are for.
        keys: Keys as they were published; empty: all, also events without one.
        topic_field: What the client calls the topic.
        prefix: What stands before a filter's name in what the client sent.

    Raises:
        BadRequest: If something cannot be meant; its `field` names it.
    """
    if not is_pattern(topic):
        raise BadRequest(
            f"a topic is segments joined by dots, where * stands for one and a last ** for the rest, not {topic[:80]!r}",
            field=topic_field,
        )
    return Subscription(
        topic,
        _names(types, f"{prefix}types"),
        _names(sources, f"{prefix}sources"),
        _bounds(bounds, prefix),
        _resources(resources or [], f"{prefix}resources"),
        _keys(keys or [], f"{prefix}keys"),
    )


def _resources(names: list[str], field: str) -> frozenset[str]:
    """Return the audiences of resources."""
    _require_short(names, field)
    for index, name in enumerate(names):
        if not is_audience(audience_of(name)):
            raise BadRequest(f"a resource is <kind>/<id>, not {name[:80]!r}", field=f"{field}[{index}]")
    return frozenset(map(audience_of, names))


def _keys(keys: list[str], field: str) -> frozenset[str]:
    """Return keys, which may be any text."""
    _require_short(keys, field)
    for index, key in enumerate(keys):
        if not 0 < len(key) <= MAX_KEY_LENGTH:
            raise BadRequest(f"a key of 1 to {MAX_KEY_LENGTH} characters, not {key[:80]!r}", field=f"{field}[{index}]")
    return frozenset(keys)


def _require_short(given: list[str], field: str) -> None:
    if len(given) > MAX_LIST_LENGTH:
        raise BadRequest(f"at most {MAX_LIST_LENGTH} of them, not {len(given)}", field=field)


def _names(names: list[str], field: str) -> frozenset[str]:
    _require_short(names, field)
    for index, name in enumerate(names):
        if not is_name(name):
            raise BadRequest(
                f"a name of 1 to {MAX_TOPIC_LENGTH} characters without spaces, commas and asterisks, not {name[:80]!r}",
                field=f"{field}[{index}]",
            )
    return frozenset(names)


def is_bound(name: str) -> bool:
    """Tell whether a filter of this name is a bound."""
    return _BOUND.fullmatch(name) is not None


def _bounds(given: Mapping[str, Any], prefix: str) -> tuple[Bound, ...]:
    if len(given) > MAX_BOUNDS:
        raise BadRequest(f"at most {MAX_BOUNDS} bounds, not {len(given)}", field=prefix.rstrip(".") or "filters")
    limits: dict[str, dict[str, Decimal]] = {}
    for name, value in given.items():
        match = _BOUND.fullmatch(name)
        if match is None:
            raise BadRequest(
                "unknown filter: types, sources, resources, keys, min<Field> and max<Field> are known",
                field=f"{prefix}{name[:80]}",
            )
        side, field = match.groups()
        limits.setdefault(field[0].lower() + field[1:], {})[side] = _number(value, f"{prefix}{name}")
    return tuple(Bound(field, sides.get("min"), sides.get("max")) for field, sides in sorted(limits.items()))


def _number(value: Any, field: str) -> Decimal:
    try:
        if isinstance(value, int | float | str | Decimal) and not isinstance(value, bool):
            number = Decimal(str(value)) if isinstance(value, float) else Decimal(value)
            if number.is_finite():
                return number
    except InvalidOperation:
        pass
    raise BadRequest("expected a number", field=field)
