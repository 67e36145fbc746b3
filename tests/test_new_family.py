"""Test of docs/how-to/new-family.md: a copy of the project gets a sixth family, as the page says, and serves it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.handlers.assembly import PUBLISHER, token
from tests.handlers.clients import EventStream, publish
from tests.server_process import ROOT, SECRET, ServerProcess
from tests.waiting import PATIENCE_SECONDS

PAGE = ROOT / "docs" / "how-to" / "new-family.md"
SOURCES = ("channels", "handlers", "hub", "settings", "storage")


def blocks(language: str) -> list[str]:
    """Return what stands in the page's blocks of code."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the sources in which the page was followed."""
    for name in SOURCES:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for source in ROOT.glob("*.py"):
        shutil.copy(source, tmp_path)
    module, imports, families = blocks("python")
    (tmp_path / "channels" / "parcels.py").write_text(module)
    registry = tmp_path / "channels" / "families.py"
    text = registry.read_text()
    for line in (imports, families):
        pattern = re.compile(rf"^{re.escape(line[:16])}.*\n", re.MULTILINE)
        assert len(pattern.findall(text)) == 1, line
        text = pattern.sub(line, text)
    registry.write_text(text)
    return tmp_path


async def test_a_sixth_family_is_one_module_and_its_name(project: Path, mongodb_uri: str, database_name: str) -> None:
    """Its events are held to their shape, and its endpoint serves state, heartbeats and events as declared."""
    start = (str(project / "server.py"), "--port=0")
    settings = (f"--database={database_name}", "--drain_seconds=1", f"--append_seconds={PATIENCE_SECONDS}")
    environment = {"TAILCAST_JWT_SECRET": SECRET, "TAILCAST_MONGODB_URI": mongodb_uri}
    async with ServerProcess(*settings, start=start, environment=environment) as process:
        port = await process.port()
        good, bad = (match.encode() for match in re.findall(r"-d '(.*?)'", blocks("sh")[0], re.DOTALL))
        async with EventStream(port, path="/parcels/events", token=token("u1")) as stream:
            welcome = await stream.next()
            assert (welcome.type, welcome.retry) == ("welcome", 2000)
            assert (await publish(port, good, PUBLISHER)).status == 202
            assert (await stream.next_of("parcel.moved")).json()["place"] == "Linz"
        refused = await publish(port, bad, PUBLISHER)
        assert (refused.status, refused.json()["field"]) == (422, "data.status")
        async with EventStream(port, "?replay=0", path="/parcels/events", token=token("u1")) as stream:
            assert [one["parcelId"] for one in (await stream.next_of("snapshot")).json()["parcels"]] == ["p-7"]
        async with EventStream(port, path="/parcels/events") as stream:
            assert stream.head.status == 401
