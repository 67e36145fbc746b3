"""Batching: many look-ups that come at once are few queries. Knows neither MongoDB nor what is looked up."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Hashable, Mapping
from typing import Generic, TypeVar

from storage.errors import Unavailable

MAX_KEYS = 1000

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class _Request(Generic[K, V]):
    """What one caller asked for."""

    __slots__ = ("future", "keys")

    def __init__(self, keys: Collection[K], future: asyncio.Future[dict[K, V]]) -> None:
        self.keys = keys
        self.future = future

    def answer(self, found: Mapping[K, V]) -> None:
        if not self.future.done():
            self.future.set_result({key: found[key] for key in self.keys if key in found})

    def refuse(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class Batcher(Generic[K, V]):
    """One query at a time: whoever asks while it is on its way is in the next one, together with all others who do.

    Nobody gets an answer to a query that was sent before he asked, so everybody sees what he wrote himself.

    Args:
        load: Looks up distinct keys, and returns those that were found.
        name: What is looked up, for the name of the task.
        max_keys: How many keys go into one query; a request with more of them alone is a query of its own.
    """

    def __init__(self, load: Callable[[list[K]], Awaitable[Mapping[K, V]]], *, name: str, max_keys: int = MAX_KEYS) -> None:
        self._load = load
        self._name = name
        self._max_keys = max_keys
        self._waiting: deque[_Request[K, V]] = deque()
        self._loading: list[_Request[K, V]] = []  # those whom the query on its way is for
        self._task: asyncio.Task[None] | None = None  # None, or done, while nobody waits
        self._closed = False

    async def find(self, keys: Collection[K]) -> dict[K, V]:
        """Return what was found for these keys.

        Cancelling it disturbs nobody else.

        Raises:
            Unavailable: If this was closed.
            Exception: What `load` raised, for all who were in that query.
        """
        if self._closed:
            raise Unavailable("the server is stopping")
        if not keys:
            return {}
        request: _Request[K, V] = _Request(keys, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name=f"looking up {self._name}")
        return await request.future

    async def _run(self) -> None:
        while self._waiting:
            keys = self._next_batch()
            if keys:  # or else all of them were cancelled
                await self._answer(keys)
        # No `await` between the last look at who waits and the end: whoever comes later starts another task.

    def _next_batch(self) -> list[K]:
        """Take the next requests that fit into one query, and return their keys."""
        keys: dict[K, None] = {}
        self._loading = []
        while self._waiting:
            request = self._waiting[0]
            if not request.future.done():
                more = dict.fromkeys(key for key in request.keys if key not in keys)
                if keys and len(keys) + len(more) > self._max_keys:
                    break
                keys |= more
                self._loading.append(request)
            self._waiting.popleft()
        return list(keys)

    async def _answer(self, keys: list[K]) -> None:
        try:
            found = await self._load(keys)
        except Exception as error:  # each of them handles it as if it had asked alone
            for request in self._loading:
                request.refuse(error)
        else:
            for request in self._loading:
                request.answer(found)
        self._loading = []

    async def close(self) -> None:
        """Refuse whoever waits with Unavailable, and return once no task is left; idempotent."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        for request in (*self._loading, *self._waiting):
            request.refuse(Unavailable("the server is stopping"))
        self._loading = []
        self._waiting.clear()
