"""Processes that stand still: as on a machine that swaps, is paused, or behind a network that takes everything and answers nothing."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.waiting import wait_until


async def freeze(pid: int) -> None:
    """Stop a process, and return once none of its threads runs any more.

    The signal alone is not enough: `kill` returns before they have all stopped, and one that has not may still answer.
    """
    os.kill(pid, signal.SIGSTOP)
    await wait_until(lambda: stands_still(pid), f"process {pid} stands still")


def thaw(pid: int) -> None:
    """Let a process go on; one that was not frozen, or is gone, is left as it is."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


@asynccontextmanager
async def frozen(pid: int) -> AsyncIterator[None]:
    """Freeze a process for as long as the block lasts, also when it fails."""
    try:
        await freeze(pid)
        yield
    finally:
        thaw(pid)


def stands_still(pid: int) -> bool:
    """Tell whether all threads of a process are stopped."""
    return all(_state(task) in ("T", None) for task in Path(f"/proc/{pid}/task").iterdir())


def _state(task: Path) -> str | None:
    """Return the state of a thread as the kernel names it; None if it has ended meanwhile."""
    try:
        return (task / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return None
