"""docs/how-to/add-a-family.md works as it is printed: a further family is one module."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.handlers.clients import EventStream
from tests.programs import needs_curl
from tests.server_process import ROOT, ServerProcess
from tests.waiting import PATIENCE_SECONDS

GUIDE = (ROOT / "docs" / "how-to" / "add-a-family.md").read_text(encoding="utf-8")
PACKAGES = ("storage", "hub", "channels", "handlers", "settings")


def blocks(language: str) -> list[str]:
    """Return the blocks of the guide in a language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.S)


async def run(block: str, directory: Path) -> str:
    """Run commands in a directory as somebody would who has activated its environment, and return what they print."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    process = await asyncio.create_subprocess_exec("bash", "-ec", block, cwd=directory, env=environment, stdout=-1, stderr=-3)
    async with asyncio.timeout(PATIENCE_SECONDS):
        output, _ = await process.communicate()
    assert process.returncode == 0, process
    return output.decode()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the sources, with the module of the guide in it."""
    for name in PACKAGES:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ROOT.glob("*.py"):
        shutil.copy(file, tmp_path)
    (tmp_path / "docs" / "reference").mkdir(parents=True)
    (module,) = blocks("python")
    assert "Save this as `channels/parcels.py`" in GUIDE
    (tmp_path / "channels" / "parcels.py").write_text(module, encoding="utf-8")
    return tmp_path


@needs_curl
async def test_a_further_family_is_one_module(copy: Path, mongodb_uri: str, database_name: str) -> None:
    """It is published, validated, delivered, folded into a snapshot and in the reference, by what its module declares (X6)."""
    naming, watching, publishing, spoiling = blocks("sh")
    await run(naming, copy)
    assert "| `parcelId` | string | yes | The parcel. |" in (copy / "docs" / "reference" / "events.md").read_text(encoding="utf-8")
    assert "entities, parcels, families" in (copy / "channels" / "__init__.py").read_text(encoding="utf-8")
    arguments = (f"--mongodb_uri={mongodb_uri}", f"--database={database_name}", f"--data_dir={copy / 'data'}", "--drain_seconds=1")
    start = (str(copy / "server.py"), "--port=0", "--demo")
    async with ServerProcess(*arguments, start=start, environment={}) as process:
        port = await process.port()
        token, path = (copy / "data" / "demo-user.token").read_text(), "/api/parcels"
        assert f"127.0.0.1:8080{path}" in watching
        async with EventStream(port, path=path, token=token) as stream:
            await stream.welcome()
            told = await run(publishing.replace(":8080", f":{port}"), copy)
            assert json.loads(told)["events"][0]["duplicate"] is False
            async with asyncio.timeout(PATIENCE_SECONDS):  # the sample comes from the demo feed, for ever
                while (moved := (await stream.next_of("parcel.moved")).json())["parcelId"] != "p-2":
                    pass
            assert moved["place"] == "Porto"
        async with EventStream(port, "?replay=0", path=path, token=token) as stream:
            assert stream.head.headers["content-type"] == "text/event-stream"
            async with asyncio.timeout(PATIENCE_SECONDS):
                snapshot = (await stream.next_of("snapshot")).json()
            assert "p-2" in [parcel["parcelId"] for parcel in snapshot["parcels"]]
        wrong = json.loads(await run(spoiling.replace(":8080", f":{port}"), copy))
        assert (wrong["statusCode"], wrong["field"]) == (422, "data.status")
