"""State is what the log says, whatever is killed while it is folded, and whoever folds it."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from pathlib import Path
from typing import Any

from storage.log import Log
from storage.mongo import Database
from storage.snapshots import Reading, SnapshotStore, Wanted
from tests.faults.world import Publisher, Server
from tests.handlers.assembly import token
from tests.handlers.clients import EventStream
from tests.waiting import PATIENCE_SECONDS, wait_until

KEYS = 12


class Orders(Publisher):
    """Publishes changes of a few orders of one user, in turn."""

    def data(self, number: int) -> dict[str, Any]:
        at = "2026-11-20T12:00:00.000Z"
        return {"orderId": f"o-{number % KEYS}", "symbol": "AAPL", "side": "buy", "qty": str(number), "status": "new", "timestamp": at}


class Book:
    """The state of one user's orders in MongoDB, looked at from outside."""

    def __init__(self, uri: str, name: str) -> None:
        self._database = Database(uri, name, answer_seconds=PATIENCE_SECONDS)
        self._store = SnapshotStore(self._database, clock=time.time)
        self._log = Log(self._database, clock=time.time)

    async def reading(self) -> Reading:
        """Return it once everything that is in the log now is folded."""
        await self._log.open()
        head = (await self._log.head()).seq

        async def folded() -> bool:
            return (await self._store.progress()).of(["orders"]) >= head

        await wait_until(folded, "everything is folded")
        return await self._store.read(Wanted("orders", "user:u1", 100))

    async def close(self) -> None:
        """Leave nothing open."""
        await self._store.close()
        self._database.close()


async def test_killed_while_folding(tmp_path: Path, mongodb_uri: str, database_name: str) -> None:
    """Two servers on one MongoDB are killed in turn in the middle of a burst: in the end each order is as it was published last, once."""
    servers = [Server(tmp_path / name, f"--database={database_name}", mongodb_uri=mongodb_uri) for name in "ab"]
    book = Book(mongodb_uri, database_name)
    async with servers[0] as a, servers[1] as b:
        publisher = Orders(a, b, topic="trading.orders", type="order:update", audience="user:u1")

        async def kill(server: Server) -> None:
            await server.end(signal.SIGKILL)
            await server.start()

        await publisher.publish(200, {40: lambda: kill(a), 90: lambda: kill(b), 140: lambda: kill(a)})
        items = (await book.reading()).items
    newest = {f"o-{number % KEYS}": str(number) for number in sorted(publisher.acknowledged)}
    assert {item.key: json.loads(item.data)["qty"] for item in items} == newest
    assert [item.seq for item in items] == sorted((item.seq for item in items), reverse=True)
    await book.close()


async def follow(server: Server, last: int) -> dict[str, int]:
    """Open the user's orders, and return how each stands once this one is known: state, and every event after it in order, each once."""
    while True:
        async with EventStream(server.port, "?replay=0", path="/api/stream/orders", token=token("u1")) as stream:
            if (await stream.next()).type != "welcome":
                continue  # just started: state cannot be read yet, and the client is told to come back
            orders = (await stream.next_of("snapshot")).json()["orders"]
            known = {one["orderId"]: int(one["qty"]) for one in orders}
            number = max(known.values(), default=0)
            while number < last:
                payload = (await stream.next_of("order:update")).json()
                assert int(payload["qty"]) == number + 1
                number = known[payload["orderId"]] = int(payload["qty"])
            return known


async def test_clients_that_come_after_a_kill(tmp_path: Path) -> None:
    """In the middle of a burst, when nothing of it may be folded yet: what they get first and what follows fit together."""
    async with Server(tmp_path) as server:
        publisher = Orders(server, topic="trading.orders", type="order:update", audience="user:u1")
        await publisher.publish(40)
        await server.end(signal.SIGKILL)
        await server.start()
        clients = [asyncio.create_task(follow(server, 100)) for _ in range(5)]
        await publisher.publish(60)
        expected = {f"o-{number % KEYS}": number for number in range(1, 101)}
        assert await asyncio.gather(*clients) == [expected] * 5
        assert await follow(server, 100) == expected


async def test_state_outlives_the_servers(tmp_path: Path, mongodb_uri: str, database_name: str) -> None:
    """All are gone when it is not folded yet: the next one folds what they left."""
    book = Book(mongodb_uri, database_name)
    async with Server(tmp_path, f"--database={database_name}", mongodb_uri=mongodb_uri) as server:
        publisher = Orders(server, topic="trading.orders", type="order:update", audience="user:u1")
        await publisher.publish(30)
        await server.end(signal.SIGKILL)
        await server.start()
        items = (await book.reading()).items
    assert sorted(int(json.loads(item.data)["qty"]) for item in items) == list(range(30 - KEYS + 1, 31))
    await book.close()
