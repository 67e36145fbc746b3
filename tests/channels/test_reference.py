"""Tests of channels/reference.py: docs/reference/events.md says what the declarations say."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
from msgspec import Meta

from channels.declaration import Channel, EventType
from channels.families import CATALOGUE, EVENT_TYPES, Catalogue
from channels.reference import page
from channels.values import Shape

PAGE = Path(__file__).parent.parent.parent / "docs" / "reference" / "events.md"


def fields(shape: type[msgspec.Struct]) -> set[str]:
    """Return the names of a shape's fields, as the reference shows them."""
    return {f"| `{one.encode_name}` |" for one in msgspec.structs.fields(shape)}


def test_the_reference_is_what_the_declarations_say() -> None:
    """Whoever changes a declaration writes the page anew: `python -m channels.reference > docs/reference/events.md`."""
    assert PAGE.read_text(encoding="utf-8") == page()


def test_every_channel_and_type_has_its_part() -> None:
    """Each has a heading, and each type its fields under it, also those of the form in which channels show it."""
    parts = {part.partition("\n")[0].strip(): part for part in page().replace("\n### ", "\n## ").split("\n## ")}
    assert {*CATALOGUE.channels, *EVENT_TYPES} <= set(parts)
    for one in EVENT_TYPES.values():
        for shape in filter(None, (one.shape, one.shown)):
            assert all(field in parts[one.name] for field in fields(shape))


def test_every_field_says_what_it_is() -> None:
    """No field is left without a value and a meaning, and no bar in them breaks a row of the table."""
    rows = [line for line in page().splitlines() if line.startswith("| `") and line.count(" | ") == 3]
    assert len(rows) > 100
    assert not [row for row in rows if "" in (cell.strip() for cell in row.strip("|").split("|")[1::2])]


class Odd(Shape):
    """Fields of types that are not used elsewhere."""

    items: Annotated[list[int], Meta(min_length=1, description="Some.")]
    silent: bool


def test_types_without_a_name_are_called_by_what_they_are_made_of() -> None:
    """A further family may have other fields; a channel that promises nothing has no empty rows."""
    text = page(Catalogue([Channel("odd", "Odd things.", (EventType("odd", Odd, {"items": [1], "silent": True}, ("public",), "odd"),))]))
    assert "| `items` | list | yes | Some. |" in text
    assert "| `silent` | true or false | yes |  |" in text
    assert "|  |\n| by" not in text


def test_the_page_is_printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The command in the page's first lines makes the page."""
    monkeypatch.delitem(sys.modules, "channels.reference")
    namespace: dict[str, Any] = runpy.run_module("channels.reference", run_name="__main__")
    assert capsys.readouterr().out == namespace["page"]() == PAGE.read_text(encoding="utf-8")
