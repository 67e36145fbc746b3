"""What every fault test has: a server process to be killed and started again, a publisher that insists, a subscriber that comes back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from tests.handlers.assembly import SECRET, token
from tests.handlers.clients import EventStream, SseEvent, publish
from tests.server_process import ServerProcess, mongod_of
from tests.waiting import PATIENCE_SECONDS, wait_until

RETRY_SECONDS = 0.02  # how soon clients come back: they poll for a server that is on its way up
NOBODY_WAITS = ("--connects_per_minute=0", "--connections_per_user=0", "--messages_per_second=0")


class Server:
    """A server that can be ended in every way, and started again on the same port and data.

    Args:
        data_dir: Where its own MongoDB lives.
        settings: Further settings, as on the command line; connecting is not limited, since all clients here have one address.
        mongodb_uri: A MongoDB to use instead; empty: its own.
    """

    def __init__(self, data_dir: Path, *settings: str, mongodb_uri: str = "") -> None:
        self.port = 0  # where it listens, and will listen again
        self._data_dir = data_dir
        self._settings = (f"--data_dir={data_dir}", "--log_level=ERROR", "--drain_seconds=1", *NOBODY_WAITS, *settings)
        self._environment = {"TAILCAST_JWT_SECRET": SECRET, "TAILCAST_MONGODB_URI": mongodb_uri}

    async def start(self) -> None:
        """Start it, and return once it listens."""
        self._process = ServerProcess(f"--port={self.port}", *self._settings, environment=self._environment)
        await self._process.start()
        self.port = await self._process.port()

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send it a signal that ends it, and return its exit status."""
        return await self._process.end(number)

    @property
    def pid(self) -> int:
        """The id of its process."""
        return self._process.process.pid

    def mongod(self) -> int:
        """Return the process id of its own MongoDB."""
        return mongod_of(self._data_dir)

    def memory(self) -> int:
        """Return how many bytes of memory it holds (RSS)."""
        status = Path(f"/proc/{self.pid}/statm").read_text()
        return int(status.split()[1]) * resource.getpagesize()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end()


class Publisher:
    """Publishes numbered events one after the other, each until it is acknowledged."""

    def __init__(
        self, *servers: Server, topic: str = "orders.eu", type: str = "order:placed", audience: str = "public", padding: int = 0
    ) -> None:
        self.acknowledged: list[int] = []
        self.refused = 0  # answers that said 503
        self._servers = servers
        self._fixed: dict[str, Any] = {"topic": topic, "type": type, "audience": [audience]}
        self._padding = "x" * padding
        self._token = token("backend", roles=["publisher"])

    async def publish(self, count: int, faults: dict[int, Callable[[], Any]] | None = None) -> None:
        """Publish `count` more events, and do each fault once that many of them are acknowledged."""
        begun = len(self.acknowledged)
        for number in range(begun + 1, begun + count + 1):
            await self._insist(number)
            fault = (faults or {}).get(number - begun)
            if fault is not None:
                await _maybe_await(fault())

    def event(self, number: int) -> dict[str, Any]:
        """Return the event with this number."""
        return {**self._fixed, "id": f"{self._fixed['topic']}/{number}", "data": self.data(number)}

    def data(self, number: int) -> dict[str, Any]:
        """Return the payload of an event."""
        return {"n": number, "padding": self._padding}

    async def _insist(self, number: int) -> None:
        event = self.event(number)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            server = self._servers[number % len(self._servers)]
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                response = await publish(server.port, event, self._token)
                if response.status == 202:
                    self.acknowledged.append(number)
                    return
                assert response.status == 503, response.body
                self.refused += 1
            await asyncio.sleep(RETRY_SECONDS)
        raise AssertionError(f"event {number} was never acknowledged")


class Subscriber:
    """Receives over SSE, and comes back with its last event id whenever the stream ends."""

    def __init__(self, *servers: Server, user: str = "reader", query: str = "?topics=orders.*", reads: bool = True) -> None:
        self.numbers: list[int] = []
        self.gaps: list[dict[str, Any]] = []
        self.welcomes = 0
        self.last_id: str | None = None
        self._servers = servers
        self._query = query
        self._token = token(user)
        self._task = asyncio.create_task(self._run(), name=f"subscriber {user}")

    async def __aenter__(self) -> Self:
        await wait_until(lambda: self.welcomes, "the subscriber is welcome")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def has(self, count: int) -> None:
        """Wait until this many events have come."""
        await wait_until(lambda: len(self.numbers) >= count or self._task.done(), f"{count} events are here")
        if self._task.done():
            await self._task

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, AssertionError):
                await self._receive()
            await asyncio.sleep(RETRY_SECONDS)

    async def _receive(self) -> None:
        server = self._servers[self.welcomes % len(self._servers)]
        headers = {"Last_Event_ID": self.last_id} if self.last_id else {}
        async with EventStream(server.port, self._query, token=self._token, **headers) as stream:
            while True:
                self._take(await stream.next())

    def _take(self, event: SseEvent) -> None:
        self.last_id = event.id or self.last_id
        if event.type == "welcome":
            self.welcomes += 1
        elif event.type == "gap":
            self.gaps.append(event.json())
        elif event.type == "order:placed":
            self.numbers.append(json.loads(event.data)["n"])


async def _maybe_await(result: Any) -> None:
    if asyncio.iscoroutine(result):
        await result
