"""Tests of tests/freezing.py: what is said to stand still does."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.freezing import freeze, frozen, stands_still, thaw
from tests.waiting import wait_until

# Threads that never rest, so that some are still running when `kill` returns.
BUSY = """
import threading
for _ in range(8):
    threading.Thread(target=lambda: [None for _ in iter(int, 1)], daemon=True).start()
print("busy", flush=True)
threading.Event().wait()
"""


@pytest.fixture
def busy() -> Iterator[int]:
    """The id of a process with eight busy threads."""
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


async def test_a_frozen_process_stands_still_with_all_its_threads(busy: int) -> None:
    """When `freeze` returns; until it is let go."""
    assert not stands_still(busy)
    for _ in range(20):
        await freeze(busy)
        assert stands_still(busy)
        thaw(busy)
        await wait_until(lambda: not stands_still(busy), "it runs again")


async def test_a_block_that_fails_leaves_nothing_frozen(busy: int) -> None:
    """The process goes on when the block is left."""
    with pytest.raises(ZeroDivisionError):
        async with frozen(busy):
            raise ZeroDivisionError
    await wait_until(lambda: not stands_still(busy), "it runs again")


async def test_a_process_that_is_gone_cannot_be_frozen_and_need_not_be_let_go() -> None:
    """There is nothing to wait for."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await process.wait()
    with pytest.raises(ProcessLookupError):
        await freeze(process.pid)
    thaw(process.pid)
