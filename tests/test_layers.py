"""Imports run downwards only, and what a layer must not know it does not import."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# From the top down: each may import from those below it. The order of the files within a package is stated in
# the docstring of its `__init__.py`.
LAYERS = ("server", "assembly", "demo", "handlers", "channels", "hub", "storage")
PACKAGES = tuple(name for name in (*LAYERS, "settings") if (ROOT / name).is_dir())

# What only some files may import; a name stands for all modules within it, a place for all files within it.
ONLY_IN = {
    "motor": ("storage/mongo.py",),
    "pymongo": ("storage",),
    "bson": ("storage",),
    "tornado": ("server.py", "handlers"),
    "settings": ("server.py", "assembly.py", "settings"),
    "logs": ("server.py",),
    "fiftyone": ("storage",),
    "tests": (),
}

# The hub is given a clock, a log and sinks: it reaches for nothing itself.
NOT_IN_HUB = {
    "os",
    "pathlib",
    "random",
    "secrets",
    "select",
    "socket",
    "ssl",
    "subprocess",
    "threading",
    "time",
    "uuid",
}
CLOCKS = {"now", "utcnow", "today"}


@dataclass(frozen=True)
class Import:
    """One import: the file and line it stands in, and the module it names."""

    file: Path
    line: int
    module: str

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line} imports {self.module}"


def sources() -> list[Path]:
    """Return every file of ours but the tests."""
    packages = [path for name in (*LAYERS, "settings") for path in sorted((ROOT / name).rglob("*.py"))]
    return [*packages, *(path for path in sorted(ROOT.glob("*.py")))]


def module_of(file: Path) -> str:
    """Return the dotted name under which a file is imported."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(file: Path) -> Iterator[Import]:
    """Return each import of a file, also within functions or for types only, as the modules it loads."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (Import(file, node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.relative_to(ROOT)}:{node.lineno}: expected a whole name, not a relative one"
            yield from (Import(file, node.lineno, _loaded(str(node.module), name.name)) for name in node.names)


def _loaded(module: str, name: str) -> str:
    """Return the module that `from module import name` is about: the submodule, if it is one of ours."""
    is_ours = (ROOT / Path(*module.split(".")) / f"{name}.py").exists()
    return f"{module}.{name}" if is_ours else module


def stated_order(package: str) -> list[str]:
    """Return the files of a package, without `.py`, in the order that its docstring states."""
    docstring = ast.get_docstring(ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8"))) or ""
    stated = re.search(r"Order of the files[^:]*:([\w,\s]+)\.", docstring)
    assert stated, f"{package}/__init__.py: expected 'Order of the files, each importing only earlier ones: a, b.'"
    return [name.strip() for name in stated[1].split(",")]


ALL_IMPORTS = [one for file in sources() for one in imports_of(file)]


def test_layers_import_downwards_only() -> None:
    """A layer imports from the layers below it, never from one above or beside."""
    upwards = []
    for one in ALL_IMPORTS:
        importer, imported = module_of(one.file).split(".")[0], one.module.split(".")[0]
        if imported not in LAYERS or importer == imported:
            continue
        if importer not in LAYERS or LAYERS.index(imported) < LAYERS.index(importer):
            upwards.append(str(one))
    assert not upwards


@pytest.mark.parametrize("package", PACKAGES)
def test_package_states_the_order_of_its_files(package: str) -> None:
    """Each file of a package has its place in the order that the package states."""
    files = sorted(path.stem for path in (ROOT / package).glob("*.py") if path.stem != "__init__")
    assert sorted(stated_order(package)) == files


@pytest.mark.parametrize("package", PACKAGES)
def test_files_import_only_earlier_files_of_their_package(package: str) -> None:
    """Within a package a file imports only those before it, so that there is no cycle."""
    order = {name: place for place, name in enumerate(stated_order(package))}
    later = []
    for one in ALL_IMPORTS:
        importer, _, file = module_of(one.file).partition(".")
        imported_package, _, imported = one.module.partition(".")
        # The package itself (`file` is empty) comes after all of its files, and none of them imports it.
        if file and importer == imported_package == package and not order.get(imported, 99) < order.get(file, 99):
            later.append(str(one))
    assert not later


@pytest.mark.parametrize("name", ONLY_IN)
def test_module_is_imported_only_where_it_belongs(name: str) -> None:
    """MongoDB's drivers stay in the storage, Tornado in the handlers and the server, and so on."""
    places = [ROOT / place for place in ONLY_IN[name]]
    elsewhere = [
        str(one)
        for one in ALL_IMPORTS
        if one.module.split(".")[0] == name and not any(one.file == place or place in one.file.parents for place in places)
    ]
    assert not elsewhere


def test_hub_reaches_for_nothing_itself() -> None:
    """The hub has no socket, clock, file or randomness but those it is given."""
    reached = [str(one) for one in ALL_IMPORTS if ROOT / "hub" in one.file.parents and one.module.split(".")[0] in NOT_IN_HUB]
    for file in sorted((ROOT / "hub").glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in CLOCKS:
                reached.append(f"{file.relative_to(ROOT)}:{node.lineno} reads the clock: .{node.attr}")
    assert not reached
