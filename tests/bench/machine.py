"""What the machine is, which core runs what, and who else is at work; knows nothing of what is measured."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Cores:
    """The core of the server and its MongoDB, and the core of everything that puts load on them."""

    server: int
    load: int

    @property
    def shared(self) -> bool:
        """Whether there is only one core, so that the load takes its time from the server."""
        return self.server == self.load


def choose_cores(available: set[int]) -> Cores:
    """Take the first two cores that this process may use."""
    first, *others = sorted(available)
    return Cores(server=first, load=others[0] if others else first)


def pinned_to(core: int) -> Callable[[], None]:
    """Return a function for a child process to call before it becomes its program."""

    def pin() -> None:
        os.sched_setaffinity(0, {core})

    return pin


@dataclass(frozen=True)
class Usage:
    """CPU seconds up to a moment, by everybody and by ourselves with our ended children."""

    at: float
    everybody: float
    ourselves: float

    @classmethod
    def now(cls) -> Self:
        """Read the present usage."""
        mine = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        ourselves = sum(usage.ru_utime + usage.ru_stime for usage in mine)
        busy = busy_ticks(Path("/proc/stat").read_text()) / os.sysconf("SC_CLK_TCK")
        return cls(at=time.monotonic(), everybody=busy, ourselves=ourselves)

    def others_since(self, before: Usage) -> float:
        """Return how much of one core others used meanwhile; 1 is a whole core."""
        others = (self.everybody - before.everybody) - (self.ourselves - before.ourselves)
        return max(0.0, others) / (self.at - before.at)


def busy_ticks(stat: str) -> int:
    """Return the time all cores have worked, also for other machines on the same host, from /proc/stat."""
    user, nice, system, _idle, _waiting, irq, softirq, stolen = map(int, stat.split("\n", 1)[0].split()[1:9])
    return user + nice + system + irq + softirq + stolen


def describe(cores: Cores) -> list[str]:
    """Say on what, when and with which code the figures were made: one line each."""
    placing = (
        f"one core only: the load shares core {cores.server} with the server, and every figure suffers"
        if cores.shared
        else f"server and MongoDB on core {cores.server}, generator and publisher on core {cores.load}"
    )
    return [
        f"commit {_commit()}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        f"{os.cpu_count()} cores ({_first_value('/proc/cpuinfo', 'model name')}), "
        f"{_first_value('/proc/meminfo', 'MemTotal')} of memory, Linux {platform.release()}",
        f"Python {platform.python_version()}; {placing}",
        f"load average before the first run: {os.getloadavg()[0]:.2f}",
    ]


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except OSError:
        return "unknown (no git)"
    return answer.stdout.strip() or "none yet"


def _first_value(path: str, name: str) -> str:
    """Return what stands after the colon in the first line of a /proc file that begins with a name."""
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "unknown"
