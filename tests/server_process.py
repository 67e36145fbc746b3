"""A server as a process of its own, as an operator starts it: its output, its log, its children, its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.waiting import PATIENCE_SECONDS, wait_until

ROOT = Path(__file__).parent.parent
START = ("server.py",)
SECRET = "a secret for HS256, of more than 32 bytes"


class ServerProcess:
    """One server, used as a context: started when it is entered; when it is left it is stopped, and killed after a failure.

    Args:
        arguments: Its command line.
        start: What Python is to run; `server.py` gets any free port unless an argument says otherwise.
        environment: Variables besides the test's own; a secret for tokens unless it says otherwise.
    """

    def __init__(self, *arguments: str, start: tuple[str, ...] = START, environment: dict[str, str] | None = None) -> None:
        self._command = [*start, "--port=0", *arguments] if start == START else [*start, *arguments]
        self._environment = {"TAILCAST_JWT_SECRET": SECRET} if environment is None else environment
        self._readers: list[asyncio.Task[None]] = []
        self.output = ""  # of standard output so far
        self.log = ""  # of standard error so far

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        await self.end(signal.SIGTERM if kind is None else signal.SIGKILL)

    async def start(self) -> None:
        """Start it, and return at once: see `port`."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TAILCAST_")}
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            *self._command,
            cwd=ROOT,
            env={**inherited, **self._environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        self._readers = [asyncio.create_task(self._read("output")), asyncio.create_task(self._read("log"))]

    async def end(self, number: signal.Signals) -> int:
        """Send it a signal that ends it, unless it has ended already, and return its exit status."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        return await self.ended()

    async def _read(self, name: str) -> None:
        stream = self.process.stdout if name == "output" else self.process.stderr
        assert stream is not None
        while piece := await stream.read(65536):
            setattr(self, name, getattr(self, name) + piece.decode())

    async def port(self, host: str = r"127\.0\.0\.1") -> int:
        """Return the port once the server says that it listens (X2), on this host as it stands in URLs."""
        found = await wait_until(
            lambda: re.search(rf"listening on https?://{host}:(\d+)\n", self.output) or self.process.returncode is not None,
            "the server listens",
        )
        assert isinstance(found, re.Match), f"it ended with {self.process.returncode}: {self.log}"
        return int(found[1])

    async def logged(self, part: str) -> None:
        """Wait for a part of a log line."""
        await wait_until(lambda: part in self.log, f"{part!r} is logged")

    def terminate(self) -> None:
        """Ask it to stop, as service managers do."""
        self.process.send_signal(signal.SIGTERM)

    async def ended(self) -> int:
        """Return its exit status, once it has ended and all of its output is read."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            await asyncio.gather(self.process.wait(), *self._readers)
        assert self.process.returncode is not None
        return self.process.returncode


def mongod_of(data_dir: Path) -> int:
    """Return the process id of the mongod that runs, or ran last, in a data directory."""
    return int((data_dir / "db" / "mongod.lock").read_text())


def runs(pid: int) -> bool:
    """Tell whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
