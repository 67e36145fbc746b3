"""The reference of channels and event types, written from the declarations. `python -m channels.reference` prints the page.

docs/reference/events.md is what this prints, and a test compares the two.
"""

from __future__ import annotations

import json
import re
import types
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from channels.declaration import Access, Channel, EventType, Scope
from channels.families import CATALOGUE, Catalogue
from channels.values import Amount, Count, Number, PointInTime, ResourceId, SignedNumber, Symbol
from storage.entries import OWN_SOURCE

WHO = {
    Access.ANYONE: "anyone",
    Access.SIGNED_IN: "anybody signed in",
    Access.ENTITY: "whose credential names an entity",
    Access.OWNER: "its owner",
}
WHOSE = {
    Scope.EVERYTHING: "all that one may see",
    Scope.PUBLIC: "for `public`",
    Scope.ENTITY: "for one's current entity",
    Scope.RESOURCE: "for the resource in the path",
}
# What types are called; others by what they are made of.
NAMES: dict[Any, str] = {
    Amount: "decimal string",
    Number: "number or decimal string, from 0",
    SignedNumber: "number or decimal string",
    ResourceId: "string or whole number",
    PointInTime: "whole number or string",
    Count: "whole number, from 0",
    Symbol: "symbol",
    datetime: "time (RFC 3339)",
    str: "string",
    int: "whole number",
    float: "number",
    bool: "true or false",
    dict: "object",
    list: "list",
    Any: "any JSON",
    type(None): "null",
}

HEAD = f"""# Channels and event types

Written from the declarations in [channels/](../../channels) by `python -m channels.reference`; do not edit it by hand.

A **channel** is a named selection of events with its rules. It selects by the type of events, and by who may see them; the topic
they are published under does not matter. A type that a channel declares is held to its shape wherever it is published: every
field below that is needed must be there, no other field than these may be, and what is wrong is answered with 422 and the
field's name, like `data.amount` (see [publishing](http.md#post-v1events)). Every other type may have any payload.

- A *decimal string* is digits, perhaps with a point and more digits: `"1250.250000"`. It keeps every digit.
- Where a number may be written either way, it is passed on the way it came.
- `null` stands for a field that need not be there.
- Events of source `{OWN_SOURCE}`, or of one that begins with `{OWN_SOURCE}.`, come from the server itself.
"""


def page(catalogue: Catalogue = CATALOGUE) -> str:
    """Return the page about all channels and their types."""
    parts = [HEAD, "## Channels\n\n" + _overview(catalogue)]
    for channel in catalogue:
        parts.append(f"## {channel.name}\n\n{_channel(channel)}")
        parts += [f"### {one.name}\n\n{_type(one)}" for one in channel.events]
    return "\n".join(parts)


def _overview(catalogue: Catalogue) -> str:
    rows = ((f"[{one.name}](#{one.name})", _path(one), WHO[one.access], ", ".join(f"`{name}`" for name in one.types)) for one in catalogue)
    return _table(("channel", "opened at", "by", "types"), rows)


def _path(channel: Channel) -> str:
    if channel.path is None:
        return "`/v1/stream`, `/ws`"
    path = re.sub(r"\(\?P(<\w+>)[^)]*\)", r"\1", channel.path)
    return f"`{path}`"


def _channel(channel: Channel) -> str:
    """Return the rules of a channel."""
    rows = [(name, text) for name, text in _rules(channel) if text]
    return f"{channel.title}\n\n{_table(('', ''), rows)}"


def _rules(channel: Channel) -> Iterator[tuple[str, str]]:
    yield "opened at", _path(channel)
    yield "by", WHO[channel.access]
    yield "shows", WHOSE[channel.scope] + (f", `{channel.resource}/<id>`" if channel.resource else "")
    yield "declares", _code(one.name for one in channel.events)
    yield "shows as well", _code(channel.also)
    yield "what it declares only from", _code(channel.sources)
    yield "parameters", _code(channel.parameters)
    yield "topics", f"{_code(channel.claims)}: declared types only" if channel.claims else ""
    if channel.path is None:
        return
    seconds = channel.terms.heartbeat_seconds
    yield "heartbeat", f"`:{channel.heartbeat}`" + (f" every {seconds:g} s" if seconds else ", as often as the server's setting says")
    yield "`retry:`", f"{channel.retry_ms} ms"
    yield "snapshot", _snapshot(channel)
    yield "last events", f"up to {channel.recent.events}, of the last {channel.recent.seconds:g} s" if channel.recent else ""
    yield "pace", _pace(channel)


def _snapshot(channel: Channel) -> str:
    shown = channel.snapshot
    if shown is None:
        return ""
    form = 'each as an event with `"initializing": true`' if shown.each else f"as `{shown.name}`"
    kept = f", kept for {shown.keep_seconds / 86400:g} days" if shown.keep_seconds else ""
    return f"the newest {_code(shown.types, ' or ')} of each key, {form}, up to {shown.limit}{kept}"


def _pace(channel: Channel) -> str:
    pace = channel.terms.pace
    if pace is None:
        return ""
    return f"a delivery every {pace.seconds:g} s at the most; above {pace.above:g} events a second with the newest of each key only"


def _type(declared: EventType) -> str:
    """Return what there is to know of a type."""
    key = f" Its key is `{declared.key}`: of several about the same one, the newest counts." if declared.key else ""
    text = f"{_meaning(declared.shape)}{key} By convention under the topic `{declared.topic}`.\n\n{_fields(declared.shape)}"
    text += f"\n{_sample(declared.sample)}"
    if declared.shown is not None:
        text += f"\nChannels show it from {_code(declared.sources)} only. {_meaning(declared.shown)}\n\n{_fields(declared.shown)}"
        text += f"\n{_sample(declared.shown_sample)}"
    return text


def _meaning(shape: type[msgspec.Struct]) -> str:
    return " ".join((shape.__doc__ or "").split())


def _fields(shape: type[msgspec.Struct]) -> str:
    hints = get_type_hints(shape, include_extras=True)
    fields = sorted(msgspec.structs.fields(shape), key=lambda one: not one.required)
    rows = (
        (f"`{one.encode_name}`", _named(hints[one.name]), "yes" if one.required else "", _description(hints[one.name])) for one in fields
    )
    return _table(("field", "value", "needed", "meaning"), rows)


def _sample(sample: Any) -> str:
    return f"```json\n{json.dumps(sample, ensure_ascii=False)}\n```\n"


def _description(hint: Any) -> str:
    """Return what is said of a field."""
    return next((meta.description for meta in reversed(get_args(hint)) if isinstance(meta, msgspec.Meta) and meta.description), "")


def _named(hint: Any) -> str:
    """Return what a type is called."""
    for known, name in NAMES.items():
        if hint == known:
            return name
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _named(_without_description(hint))
    if origin is Literal:
        return " or ".join(f"`{json.dumps(value)}`" for value in inner)
    if origin in (Union, types.UnionType):
        return _union(hint)
    return _named(origin)


def _without_description(hint: Any) -> Any:
    """Return an annotated type without the descriptions, and without the bounds if it is then of no name."""
    metas = tuple(meta for meta in hint.__metadata__ if not (isinstance(meta, msgspec.Meta) and meta.description))
    bare = Annotated[(hint.__origin__, *metas)] if metas else hint.__origin__
    return bare if bare != hint else hint.__origin__


def _union(hint: Any) -> str:
    """Return what a union is called, without its null, which the column `needed` tells of."""
    parts = [part for part in get_args(hint) if part is not type(None)]
    for known, name in NAMES.items():
        if get_origin(known) in (Union, types.UnionType) and set(get_args(known)) == set(parts):
            return name
    return " or ".join(dict.fromkeys(_named(part) for part in parts))


def _code(names: Any, joiner: str = ", ") -> str:
    return joiner.join(f"`{name}`" for name in names)


def _table(head: tuple[str, ...], rows: Any) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    print(page(), end="")
