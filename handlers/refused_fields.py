"""Payload fields whose names say that they hold a secret: found in the JSON text of events before these are kept. Knows no event.

Every payload is looked at, so looking must cost next to nothing: one pass of C code tells for nearly all that there is none. Only where
there may be one is the text parsed, which tells for certain, and where.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

MAX_PATH_LENGTH: Final = 300
# Case, `_` and `-` make no difference in a name: `apiKey`, `api_key` and `API-KEY` are one. Only ASCII has case here, as in a JSON text
# the other letters are no letters of these names.
_LOWER: Final = bytes(range(256)).lower()
_JOINERS: Final = b"_-"
_ESCAPED_ASCII = re.compile(rb"\\u00[2-7]")


class TooDeep(ValueError):
    """A payload is nested more deeply than it can be looked through."""


class RefusedFields:
    """The names of fields that no payload may have, at any depth.

    Args:
        names: Of ASCII letters and digits, in any case, also with `_` and `-`; none: every field is welcome.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(plain_name(name) for name in names)
        assert all(name.isascii() and name.isalnum() for name in self._names)
        alternatives = b"|".join(name.encode() for name in sorted(self._names))
        self._pattern = re.compile(b'"(?:%b)"' % alternatives) if self._names else None

    def may_be_in(self, payloads: Iterable[bytes | memoryview | msgspec.Raw]) -> bool:
        """Tell whether one of these JSON texts may have such a field; if not, none has.

        A name stands in the text as it is, between quotation marks, unless it is written with escapes (RFC 8259 section 7). Of those only
        `\\u0020` to `\\u007f` can stand for a letter of it; what others stand for is frequent, and not looked at.
        """
        if self._pattern is None:
            return False
        text = b"\n".join(payloads)
        if b"\\" in text and _ESCAPED_ASCII.search(text):
            return True
        return self._pattern.search(text.translate(_LOWER, _JOINERS)) is not None

    def path_in(self, payload: str) -> str | None:
        """Return the path of the first such field in a JSON text, like `user.cards[0].cvv`; None if there is none.

        Raises:
            TooDeep: If the text is nested too deeply to tell.
        """
        try:
            parsed = _parse(payload)
        except RecursionError:
            raise TooDeep("nested too deeply") from None
        waiting: list[Iterator[tuple[str, str, Any]]] = [_members("", parsed)]
        while waiting:
            for name, path, value in waiting[-1]:
                if plain_name(name) in self._names:
                    return path[:MAX_PATH_LENGTH]
                if isinstance(value, _Object | list):
                    waiting.append(_members(path, value))
                    break
            else:
                waiting.pop()
        return None


def plain_name(name: str) -> str:
    """Return a field's name as it is compared."""
    return name.encode("utf-8", "surrogatepass").translate(_LOWER, _JOINERS).decode("utf-8", "surrogatepass")


class _Object(tuple[tuple[str, Any], ...]):
    """All members of a JSON object, also those of one name: a text that has a name twice is delivered with both."""


def _nothing(_: str) -> None:
    """Numbers do not matter, and making them could be slow."""


def _parse(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_Object, parse_int=_nothing, parse_float=_nothing)


def _members(path: str, value: Any) -> Iterator[tuple[str, str, Any]]:
    """Return the name, path and value of everything in an object or array; in an array they have no names."""
    if isinstance(value, _Object):
        for name, member in value:
            yield name, f"{path}.{name}" if path else name, member
    elif isinstance(value, list):
        for index, member in enumerate(value):
            yield "", f"{path}[{index}]", member
