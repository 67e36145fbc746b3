"""The programs that the guides print work as they stand."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from pathlib import Path

import pytest

from storage.mongo import Database
from storage.sessions import Sessions
from tests.waiting import PATIENCE_SECONDS

ROOT = Path(__file__).parent.parent


def program(guide: str, name: str) -> str:
    """Return the program that a guide says to save under this name."""
    text = (ROOT / "docs" / "how-to" / guide).read_text(encoding="utf-8")
    found = re.search(rf"Save this as `{re.escape(name)}`.*?```python\n(.*?)```", text, re.S)
    assert found, f"{guide} has no program to save as {name}"
    return found[1]


class Login:
    """The login service of docs/how-to/sessions.md, saved and started as a process of its own."""

    def __init__(self, directory: Path, uri: str, database: str) -> None:
        self._path = directory / "login.py"
        self._path.write_text(program("sessions.md", "login.py"), encoding="utf-8")
        self._environment = {**os.environ, "PYTHONPATH": str(ROOT), "TAILCAST_MONGODB_URI": uri, "TAILCAST_DATABASE": database}

    async def __call__(self, *arguments: str) -> str:
        """Run it, and return what it printed."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(self._path), *arguments, env=self._environment, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
        assert process.returncode == 0
        return output.decode().strip()


@pytest.fixture
def login(tmp_path: Path, mongodb_uri: str, database_name: str) -> Login:
    return Login(tmp_path, mongodb_uri, database_name)


async def test_the_login_service_of_the_guide_works(login: Login, mongodb_uri: str, database_name: str) -> None:
    """Whom it signs in the server finds, until it signs him out."""
    database = Database(mongodb_uri, database_name, answer_seconds=PATIENCE_SECONDS)
    sessions = Sessions(database, clock=time.time)
    printed = re.fullmatch(r"session (\w{32}), secret (\S{43})", await login("in", "alice"))
    assert printed
    id, secret = printed.groups()
    session = await sessions.find(secret)
    assert session is not None
    assert (session.id, session.claims["sub"], session.claims["org"]) == (id, "alice", "acme")
    assert (await login("list", "alice")).startswith(f"session {id} of alice until ")
    assert await login("out", id) == "alice is signed out"
    assert await login("out", id) == "there is no such session"
    assert await login("list", "alice") == ""
    assert await sessions.find(secret) is None
    await sessions.close()
    database.close()
