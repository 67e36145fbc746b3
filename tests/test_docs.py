"""The reference says what the code does: it has every name of the code's tables, and no broken links."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from handlers.routes import ROUTES, template
from settings import DECLARATIONS
from settings.declared import Declaration

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "docs" / "reference"


def reference() -> str:
    """Return the text of all pages of the reference."""
    return "\n".join(page.read_text(encoding="utf-8") for page in sorted(REFERENCE.glob("*.md")))


def missing(names: Iterable[object]) -> list[str]:
    """Return the names that stand nowhere in the reference as code, between backquotes or in a code block."""
    text = reference()
    return [str(name) for name in names if not re.search(rf"(?<![\w./-]){re.escape(str(name))}(?![\w/-])", text)]


def table(module: str, name: str) -> Any:
    """Return a table of the code by its name."""
    return getattr(importlib.import_module(module), name)


def subclasses(root: type[Any]) -> Iterator[type[Any]]:
    """Return a class and all that derive from it."""
    yield root
    for one in root.__subclasses__():
        yield from subclasses(one)


def row(one: Declaration) -> str:
    """Return the line of docs/reference/settings.md for a setting."""
    default = one.shown(one.default)
    return f"| `{one.name}` | {f'`{default}`' if default else 'empty'} | {one.meaning} | {one.kind.expected} |"


@pytest.mark.parametrize("declaration", DECLARATIONS, ids=lambda one: one.name)
def test_setting_is_documented(declaration: Declaration) -> None:
    """Each setting has a row in the reference with its default, meaning and values, as the code has them."""
    assert row(declaration) in (REFERENCE / "settings.md").read_text(encoding="utf-8").splitlines()


def test_no_setting_is_documented_that_does_not_exist() -> None:
    """The reference of the settings has no row of a setting that is no more."""
    text = (REFERENCE / "settings.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.M)) == {one.name for one in DECLARATIONS}


def test_routes_are_documented() -> None:
    """Each path that the server answers stands in the reference."""
    paths = [template(pattern) for pattern, _ in ROUTES]
    assert paths
    assert not missing(paths)


@pytest.mark.parametrize(("module", "name"), [("handlers.messages", "CLIENT_MESSAGES"), ("hub.formats", "SERVER_MESSAGES")])
def test_messages_are_documented(module: str, name: str) -> None:
    """Each type of WebSocket message, of the client and of the server, stands in the reference."""
    messages = table(module, name)
    assert messages
    assert not missing(messages)


@pytest.mark.parametrize("attribute", ["code", "status"])
def test_errors_are_documented(attribute: str) -> None:
    """Each error's code and HTTP status stands in the reference."""
    errors = list(subclasses(table("hub.errors", "TailcastError")))
    assert not missing(sorted({str(getattr(one, attribute)) for one in errors if getattr(one, attribute, None)}))


def test_close_codes_are_documented() -> None:
    """Each code with which a WebSocket is closed stands in the reference."""
    codes = [int(code) for code in table("hub.errors", "CLOSE_CODES")]
    assert codes
    assert not missing(codes)


def links() -> Iterator[tuple[Path, str]]:
    """Return each relative link of README and docs, with the page it stands on."""
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if not re.match(r"[a-z][a-z0-9+.-]*:", target):
                yield page, target


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_relative_links_lead_somewhere() -> None:
    """Each relative link of README and docs names a file that exists, and a heading in it."""
    broken = []
    for page, target in links():
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert not broken
