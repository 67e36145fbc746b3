"""The three C programs: building them, running them, and talking to them; knows no server."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.bench.errors import BenchError
from tests.bench.machine import pinned_to

SOURCES = Path(__file__).parent / "c"
BUILD = Path(__file__).parent / "build"
PROGRAMS = {
    "limit": ["limit.c"],
    "generator": ["generator.c", "stream.c"],
    "publisher": ["publisher.c"],
}

Report = dict[str, float]


def build() -> None:
    """Compile what is missing or older than any source.

    Raises:
        BenchError: If there is no compiler, or it refuses.
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise BenchError("the benchmarks need a C compiler: no gcc and no cc on PATH")
    BUILD.mkdir(exist_ok=True)
    newest = max(file.stat().st_mtime for file in SOURCES.iterdir())
    for name, files in PROGRAMS.items():
        program = BUILD / name
        if program.exists() and program.stat().st_mtime > newest:
            continue
        sources = [str(SOURCES / file) for file in files]
        command = [compiler, "-std=gnu11", "-O2", "-Wall", "-Wextra", "-o", str(program), *sources]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchError(f"{name} does not compile:\n{done.stderr}")


class Program:
    """A running C program that prints JSON objects, one a line; ended with the `with` block."""

    def __init__(self, name: str, arguments: Sequence[object], *, core: int) -> None:
        self.name = name
        self._unread = b""  # the beginning of a line whose end has not come
        self._process = subprocess.Popen(
            [str(BUILD / name), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            preexec_fn=pinned_to(core),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Close its input, which ends it, and kill it if that does not."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def tell(self, line: str) -> None:
        """Send it a command."""
        assert self._process.stdin
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()

    def report(self, seconds: float) -> Report:
        """Return the next object it prints.

        Raises:
            BenchError: If it ends first, or the time is over.
        """
        assert self._process.stdout
        until = time.monotonic() + seconds
        while b"\n" not in self._unread:
            readable, _, _ = select.select([self._process.stdout], [], [], max(0.0, until - time.monotonic()))
            if not readable:
                raise BenchError(f"{self.name} printed nothing for {seconds:g} s")
            some = os.read(self._process.stdout.fileno(), 65536)
            if not some:
                raise BenchError(f"expected a report, but {self.name} ended: {self._process.wait()}")
            self._unread += some
        line, _, self._unread = self._unread.partition(b"\n")
        report: Report = json.loads(line)
        return report


class Generator(Program):
    """The subscribers."""

    def __init__(self, arguments: Sequence[object], *, core: int) -> None:
        super().__init__("generator", arguments, core=core)

    def ready(self, seconds: float = 120) -> Report:
        """Wait until every client is subscribed.

        Raises:
            BenchError: If any could not.
        """
        report = self.report(seconds)
        if report["failed"]:
            raise BenchError(
                f"{report['failed']:.0f} of the clients could not subscribe; the first refusal's status was "
                f"{report['first_refusal']:.0f} (0: the connection failed or was closed)"
            )
        return report

    def wait_for(self, events: int, *, slow_events: int = 0, seconds: float = 60) -> Report:
        """Return the counts since the last report, once every client has that many or the time is over."""
        self.tell(f"wait {events} {slow_events} {seconds:g}")
        return self.report(seconds + 10)


class Limit(Program):
    """A server that does nothing but send ready events."""

    def __init__(self, arguments: Sequence[object], *, core: int) -> None:
        super().__init__("limit", arguments, core=core)
        self.port = int(self.report(10)["port"])
