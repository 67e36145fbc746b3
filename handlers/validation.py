"""What a failed validation says, as a sentence and a field. Knows no request."""

from __future__ import annotations

import re

import msgspec

_PATH = re.compile(r" - at `\$?\.?(.*)`$")
_UNKNOWN_FIELD = re.compile(r"Object contains unknown field `(.*)`")
_MISSING_FIELD = re.compile(r"Object missing required field `(.*)`")


def described(error: msgspec.ValidationError) -> tuple[str, str | None]:
    """Return what a validation error says, and the path of the field it is about; None for the whole value."""
    text = str(error)
    match = _PATH.search(text)
    path = match[1] if match else ""
    text = text[: match.start()] if match else text
    for pattern in (_UNKNOWN_FIELD, _MISSING_FIELD):
        named = pattern.search(text)
        if named:
            path = f"{path}.{named[1]}" if path else named[1]
    return text[:300], path[:300] or None
