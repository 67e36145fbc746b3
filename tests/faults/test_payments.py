"""A server is killed while payment streams are made and changed: whatever is repeated happened once, and everything is told of."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections import Counter
from contextlib import AsyncExitStack

from storage.log import Log
from storage.mongo import Database
from storage.streams import Streams
from tests.handlers.asking import ask, new_stream
from tests.handlers.assembly import token
from tests.handlers.clients import Response
from tests.server_process import ServerProcess
from tests.waiting import PATIENCE_SECONDS, wait_until

ALICE = token("GALICE")
STREAMS = 40
KILLS = 2


async def repeated(port: int, path: str, value: object, key: str) -> Response:
    """Make a request until it is answered, by whichever server."""

    async def attempt() -> Response | None:
        try:
            answer = await ask(port, "POST", path, value, token=ALICE, Idempotency_Key=key)
        except (OSError, asyncio.IncompleteReadError):
            return None
        return None if answer.status == 503 else answer

    answer = await wait_until(attempt, f"{path} is answered")
    assert isinstance(answer, Response)
    return answer


async def lives(port: int, number: int) -> list[str]:
    """Make a stream and top it up, and return the ids of the two events."""
    ids = []
    path, value = "/streams", new_stream("GALICE", f"GBOB{number}")
    for step in ("create", "top-up"):
        answer = await repeated(port, path, value, f"{step}-{number}")
        assert answer.status in (200, 201), answer
        ids.append(str(answer.json()["eventId"]))
        path, value = f"/streams/{answer.json()['stream']['streamId']}/top-up", {"amount": "0.5"}
    return ids


async def test_killed_servers_lose_and_double_nothing(mongodb_uri: str, database_name: str) -> None:
    """Each stream is made once and topped up once, and each event's id is what was answered (C4)."""
    database = Database(mongodb_uri, database_name, answer_seconds=PATIENCE_SECONDS)
    log, streams = Log(database, clock=time.time, size_bytes=16 << 20), Streams(database, clock=time.time)
    await log.open()
    arguments = [f"--mongodb_uri={mongodb_uri}", f"--database={database_name}", "--log_bytes=16777216", "--drain_seconds=1"]

    async def told() -> list[tuple[str, str, str]]:
        entries = await log.read(0, 10_000)
        return [(entry.id, entry.type, json.loads(entry.data)["streamId"]) for entry in entries if entry.source == "tailcast.payments"]

    async def some(count: int) -> bool:
        return len(await told()) >= count

    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(ServerProcess(*arguments))
        port = await server.port()
        work = asyncio.gather(*(lives(port, number) for number in range(STREAMS)))
        for kill in range(KILLS):
            await wait_until(lambda kill=kill: some(10 * (kill + 1)), "something has happened")  # type: ignore[misc]  # it is a coroutine
            await server.end(signal.SIGKILL)
            server = await stack.enter_async_context(ServerProcess(*arguments, f"--port={port}"))
            await server.port()
        answered = [id for ids in await work for id in ids]
    found = await told()
    assert sorted(id for id, _, _ in found) == sorted(answered)
    assert Counter(type for _, type, _ in found) == {"stream.created": STREAMS, "stream.topped_up": STREAMS}
    assert [type for _, type, stream in found if stream == found[0][2]] == ["stream.created", "stream.topped_up"]
    assert await streams.unfinished(-60, 10) == []
    database.close()
