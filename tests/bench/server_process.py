"""One server under measurement, known from outside only: its start, its tokens, its memory, its end."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import jwt

from tests.bench.errors import BenchError
from tests.bench.machine import ROOT, pinned_to

START_SECONDS = 60
STOP_SECONDS = 30
LEFT_SECONDS = 3
TOKEN_SECONDS = 24 * 3600  # longer than the longest run
# Limits are switched off, and the end is quick: what is measured is the server, not its manners.
SETTINGS = (
    "--address=127.0.0.1",
    "--port=0",
    "--connections_per_user=0",
    "--connects_per_minute=0",
    "--max_connections=0",
    "--messages_per_second=0",
    "--events_per_second=0",
    "--org_events_per_second=0",
    "--drain_seconds=1",
)

_LISTENING = re.compile(r"listening on http://(?P<address>[^\s/:]+):(?P<port>\d+)\s*$", re.MULTILINE)


def find_port(output: str) -> int | None:
    """Return the port of the line that says the server can serve, or None while there is none."""
    found = _LISTENING.search(output)
    return int(found["port"]) if found else None


def read_kib(status: str, name: str) -> int:
    """Return a size of a process from the text of its /proc/PID/status, such as VmRSS."""
    found = re.search(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE)
    if found is None:
        raise BenchError(f"expected a line {name} in the process status")
    return int(found[1])


class Server:
    """A server of its own for one run, with a temporary data directory and a secret nobody else knows."""

    def __init__(self, command: Sequence[str], *, core: int, settings: Sequence[str] = ()) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="tailcast-bench-"))
        self._secret = secrets.token_hex(32)
        self._output = self.directory / "output.log"
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [*command, *SETTINGS, f"--data_dir={self.directory / 'data'}", *settings],
                cwd=ROOT,
                env={**os.environ, "TAILCAST_JWT_SECRET": self._secret},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=pinned_to(core),
            )
        try:
            self.port = self._wait_until_it_serves()
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.stop()

    def _wait_until_it_serves(self) -> int:
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            port = find_port(self._output.read_text(errors="replace"))
            if port is not None:
                return port
            if self._process.poll() is not None:
                raise BenchError(f"the server ended: {self._process.returncode}\n{self.last_output()}")
            time.sleep(0.05)
        raise BenchError(f"the server does not listen after {START_SECONDS} s:\n{self.last_output()}")

    def last_output(self) -> str:
        """Return the last of what the server printed."""
        return self._output.read_text(errors="replace")[-2000:]

    def token(self, user: str, *roles: str) -> str:
        """Make a token that the server accepts."""
        claims = {"sub": user, "roles": list(roles), "exp": int(time.time()) + TOKEN_SECONDS}
        return jwt.encode(claims, self._secret, algorithm="HS256")

    def token_file(self, count: int = 1, *, role: str = "user") -> Path:
        """Write tokens of that many different users into a file, one a line."""
        path = self.directory / f"{role}-{count}.tokens"
        path.write_text("".join(f"{self.token(f'{role}-{number}', role)}\n" for number in range(count)))
        return path

    def publish_one(self, event: dict[str, object]) -> str:
        """Publish an event and return its id."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        token = self.token("bench", "publisher")
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        try:
            connection.request("POST", "/v1/events", json.dumps(event), headers)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        if answer.status != 202:
            raise BenchError(f"expected 202 for an event, got {answer.status}: {body[:300]!r}")
        event_id: str = json.loads(body)["events"][0]["id"]
        return event_id

    def resident_kib(self) -> int:
        """Return the resident memory of the Python process, without its MongoDB."""
        return read_kib(Path(f"/proc/{self._process.pid}/status").read_text(), "VmRSS")

    def stop(self) -> None:
        """End the server and remove its data.

        Raises:
            BenchError: If it had to be killed, or left a process behind; those are ended too.
        """
        killed = False
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                killed = True
                self._process.kill()
                self._process.wait()
        left = self._end_what_is_left()
        output = self.last_output()
        shutil.rmtree(self.directory, ignore_errors=True)
        if killed or left:
            state = "was killed" if killed else "ended"
            raise BenchError(f"the server {state} and left {left} processes behind:\n{output}")

    def _end_what_is_left(self) -> int:
        """Give the server's children a moment to end after it, kill those that do not, and count them."""
        until = time.monotonic() + LEFT_SECONDS
        while (left := _processes_naming(str(self.directory))) and time.monotonic() < until:
            time.sleep(0.05)
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        return len(left)


def _processes_naming(text: str) -> list[int]:
    """Return the ids of the processes whose command line contains a text that only our own have."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue  # it ended meanwhile
        if text.encode() in command:
            found.append(int(entry.name))
    return found
