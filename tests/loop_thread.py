"""An event loop in a thread of its own, for what must outlive the loops of single tests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from tests.waiting import PATIENCE_SECONDS

_Result = TypeVar("_Result")


class LoopThread:
    """Run coroutines on one loop, in one thread that lives until the `with` block is left."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.run(self._loop.shutdown_asyncgens(), seconds=PATIENCE_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, coroutine: Coroutine[Any, Any, _Result], seconds: float) -> _Result:
        """Run a coroutine in the thread and return its result.

        Raises:
            TimeoutError: If it takes longer than `seconds`; it is then cancelled.
        """
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result(seconds)
        except TimeoutError:
            future.cancel()
            raise

    async def call(self, coroutine: Coroutine[Any, Any, _Result]) -> _Result:
        """Run a coroutine in the thread and return its result, while the caller's own loop goes on.

        Cancelling cancels it in the thread.
        """
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self._loop))
