"""The one place where a test lets real time pass, and only until a condition holds."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable

# For anything that a test waits for. No passing test waits that long, so it costs nothing, and on no machine it is the reason of a failure.
PATIENCE_SECONDS = 60.0
_TURN_SECONDS = 0.002


async def wait_until(condition: Callable[[], object], what: str, seconds: float = PATIENCE_SECONDS) -> object:
    """Let the loop turn until a condition holds, and return what it returned.

    This is no sleep for a time that is hoped to be enough: it ends at the first turn at which the condition
    holds, and one that never does fails the test by its name. The tiny real wait between two looks leaves the
    processor to what is waited for, such as MongoDB or a server process, which `sleep(0)` would not.

    Args:
        condition: Called again and again; holds when it returns something true; may be a coroutine function.
        what: What is waited for, as it should stand in "still not: ...".
        seconds: How long it may take before the test fails; generous, since no passing test waits that long.

    Raises:
        AssertionError: If the condition does not hold in time.
    """
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if inspect.isawaitable(result):
            result = await result
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds} seconds still not: {what}")
        await asyncio.sleep(_TURN_SECONDS)
