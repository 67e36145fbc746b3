"""Payload fields whose names say that they hold a secret: found in the JSON text of events before these are kept. Knows no event.

Every payload is looked at, so looking must cost next to nothing, and no payload may make it slow: regular expressions over the text tell
whether there is such a field. Only to tell where, and only of so many bytes of one request, text is parsed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

MAX_PATH_LENGTH: Final = 300
LOCATED_BYTES: Final = 64 << 10  # of payloads of one request that are parsed, some 0.4 us a byte
# Case, `_` and `-` make no difference in a name: `apiKey`, `api_key` and `API-KEY` are one. Only ASCII has case here: other letters are
# no letters of these names.
_LOWER: Final = bytes(range(256)).lower()
_JOINERS: Final = b"_-"
_ESCAPED_ASCII: Final = re.compile(rb"\\u00[2-7]")
# A quotation mark that begins a string is never behind a backslash in JSON, and a string before a colon is a name (RFC 8259 section 4).
# It comes first in the pattern, since looking for one character is fast.
_BEGIN: Final = rb'"(?<!\\")'
_END: Final = rb'"[ \t\r\n]*:'
_ESCAPABLE_JOINERS: Final = rb"(?:[_-]|\\u00(?:5[fF]|2[dD]))*+"

Payload = bytes | memoryview | msgspec.Raw


class RefusedFields:
    """The names of fields that no payload may have, at any depth.

    Args:
        names: Of ASCII letters and digits, in any case, also with `_` and `-`; none: every field is welcome.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(plain_name(name) for name in names)
        assert all(name.isascii() and name.isalnum() for name in self._names)
        names = sorted(self._names)
        # Two patterns: one for texts that are all lower case and without joiners, the other for texts with escaped letters, as they are.
        self._plain = re.compile(_BEGIN + b"(?:%b)" % b"|".join(map(str.encode, names)) + _END)
        first = "".join({name[0] + name[0].upper() for name in names}).encode()
        self._escaped = re.compile(
            _BEGIN
            + rb"(?=[%b_\\-])" % first  # which most names in a text do not begin with
            + _ESCAPABLE_JOINERS
            + b"(?:%b)" % b"|".join(map(_escapable, names))
            + _ESCAPABLE_JOINERS
            + _END
        )

    def are_in(self, *payloads: Payload) -> bool:
        """Tell whether one of these JSON texts has such a field."""
        if not self._names:
            return False
        text = b"\n".join(payloads)
        if b"\\" in text and _ESCAPED_ASCII.search(text):
            return self._escaped.search(text) is not None
        return self._plain.search(text.translate(_LOWER, _JOINERS)) is not None

    def path_in(self, payload: str) -> str | None:
        """Return the path of the first such field in a JSON text, like `user.cards[0].cvv`; None if there is none.

        Raises:
            RecursionError: If the text is nested too deeply to tell.
        """
        waiting: list[Iterator[tuple[str, str, Any]]] = [_members("", _parse(payload))]
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


class Search:
    """The search through the payloads of one request: it tells where a refused field is, as long as that is not too much work.

    Args:
        fields: What is searched for.
    """

    def __init__(self, fields: RefusedFields) -> None:
        self._fields = fields
        self._left = LOCATED_BYTES  # that may still be parsed

    def field_in(self, payload: Payload) -> str | None:
        """Return the path of the first refused field in an event's payload, which is `data`; that alone if looking for it would take too
        long; None if there is no such field."""
        if not self._fields.are_in(payload):
            return None
        self._left -= memoryview(payload).nbytes
        if self._left < 0:
            return "data"
        try:
            path = self._fields.path_in(str(memoryview(payload), "utf-8"))
        except RecursionError:
            return "data"
        assert path is not None, "the pattern has found it"
        return f"data{path}" if path.startswith("[") else f"data.{path}"


def plain_name(name: str) -> str:
    """Return a field's name as it is compared."""
    return name.encode("utf-8", "surrogatepass").translate(_LOWER, _JOINERS).decode("utf-8", "surrogatepass")


def _escapable(name: str) -> bytes:
    """Return a pattern for a name with joiners anywhere in it, each letter in any case and perhaps as an escape."""
    letters = []
    for letter in name:
        cases = {letter, letter.upper()}
        codes = "|".join("".join(f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in f"{ord(one):02x}") for one in cases)
        letters.append(f"(?:[{''.join(sorted(cases))}]|\\\\u00(?:{codes}))".encode())
    return _ESCAPABLE_JOINERS.join(letters)


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
