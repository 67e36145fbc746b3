"""What every fault test has: a server process to be killed and started again, a publisher that insists, a subscriber that comes back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import jwt

from tests.handlers.clients import EventStream, SseEvent, publish
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
SECRET = "a secret of more than thirty-two bytes, for tests only"
START_SECONDS = 60
RETRY_SECONDS = 0.02  # how soon clients come back: they poll for a server that is on its way up


def token(user: str, **claims: Any) -> str:
    """Return a token for a user."""
    return jwt.encode({"sub": user, "exp": int(time.time()) + 3600, **claims}, SECRET, algorithm="HS256")


class ServerProcess:
    """`python server.py`, which can be ended in every way and started again on the same port.

    Args:
        data_dir: Where its own MongoDB lives.
        settings: Further settings, as on the command line.
        mongodb_uri: A MongoDB to use instead; empty: its own.
    """

    def __init__(self, data_dir: Path, *settings: str, mongodb_uri: str = "") -> None:
        self.port = 0
        self._data_dir = data_dir
        self._settings = settings
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TAILCAST_")},
            "TAILCAST_JWT_SECRET": SECRET,
            "TAILCAST_MONGODB_URI": mongodb_uri,
        }
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it, and return once it listens."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(ROOT / "server.py"),
            f"--port={self.port}",
            f"--data_dir={self._data_dir}",
            "--log_level=ERROR",
            "--drain_seconds=1",
            *self._settings,
            env=self._environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(START_SECONDS):
            while not (found := re.search(rb"listening on http://[\w.]+:(\d+)\s*$", await self._process.stdout.readline())):
                assert self._process.returncode is None, "the server has ended"
        self.port = int(found[1])

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send it a signal that ends it, and return its exit status."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(number)
        return await self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal that does not end it."""
        assert self._process is not None
        self._process.send_signal(number)

    def mongod(self) -> int:
        """Return the process id of its own MongoDB; 0 while none runs."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        return next((int(child) for child in children if b"mongod" in Path(f"/proc/{child}/cmdline").read_bytes()), 0)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end()


class Publisher:
    """Publishes numbered events one after the other, each until it is acknowledged."""

    def __init__(self, *servers: ServerProcess, topic: str = "orders.eu", audience: str = "public", padding: int = 0) -> None:
        self.acknowledged: list[int] = []
        self._servers = servers
        self._fixed: dict[str, Any] = {"topic": topic, "type": "order:fill", "audience": [audience]}
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

    async def _insist(self, number: int) -> None:
        event = {**self._fixed, "id": str(number), "data": {"n": number, "padding": self._padding}}
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            server = self._servers[number % len(self._servers)]
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                response = await publish(server.port, event, self._token)
                if response.status == 202:
                    self.acknowledged.append(number)
                    return
                assert response.status == 503, response.body
            await asyncio.sleep(RETRY_SECONDS)
        raise AssertionError(f"event {number} was never acknowledged")


class Subscriber:
    """Receives over SSE, and comes back with its last event id whenever the stream ends."""

    def __init__(self, *servers: ServerProcess, user: str = "reader", query: str = "?topics=orders.*", reads: bool = True) -> None:
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
        await wait_until(lambda: len(self.numbers) >= count or self._task.done(), f"{count} events are here", START_SECONDS)
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
        elif event.type == "order:fill":
            self.numbers.append(json.loads(event.data)["n"])


async def _maybe_await(result: Any) -> None:
    if asyncio.iscoroutine(result):
        await result
