"""Tests of handlers/validation.py: what is wrong, as a sentence and a field."""

from __future__ import annotations

import msgspec
import pytest

from handlers.validation import described


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    number: int = 0


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    inner: Inner = msgspec.field(default_factory=Inner)
    many: list[Inner] = []


@pytest.mark.parametrize(
    ("text", "sentence", "field"),
    [
        ('{"name": 5}', "Expected `str`, got `int`", "name"),
        ("{}", "Object missing required field `name`", "name"),
        ('{"name": "x", "other": 1}', "Object contains unknown field `other`", "other"),
        ('{"name": "x", "inner": {"number": "y"}}', "Expected `int`, got `str`", "inner.number"),
        ('{"name": "x", "inner": {"other": 1}}', "Object contains unknown field `other`", "inner.other"),
        ('{"name": "x", "many": [{}, {"number": null}]}', "Expected `int`, got `null`", "many[1].number"),
        ("5", "Expected `object`, got `int`", None),
    ],
)
def test_the_field_is_named_by_its_path(text: str, sentence: str, field: str | None) -> None:
    """Also one that is missing or unknown; None when it is the whole value that is wrong."""
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(text, type=Outer)
    assert described(caught.value) == (sentence, field)


def test_neither_grows_with_what_was_sent() -> None:
    """A client's own text comes back to it, and into the log, but not without end."""
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode('{"name": "x", "' + "y" * 10_000 + '": 1}', type=Outer)
    sentence, field = described(caught.value)
    assert len(sentence) == 300
    assert field == "y" * 300
