"""What was acknowledged arrives once and in order, whatever is killed (SPEC L1 to L11)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
from pathlib import Path

import pytest

from storage.embedded import EmbeddedMongoDB
from tests.faults.world import Publisher, Server, Subscriber
from tests.freezing import frozen
from tests.handlers.assembly import token
from tests.handlers.clients import HANDSHAKE, EventStream, request_bytes, text
from tests.server_process import runs
from tests.waiting import wait_until


async def restart(server: Server, number: signal.Signals) -> None:
    """End a server, and start it again on the same port and data."""
    await server.end(number)
    await server.start()


async def test_killed_server(tmp_path: Path) -> None:
    """A server is killed twice while events flow: a client that comes back has each acknowledged event once, in order (L6)."""
    async with Server(tmp_path) as server, Subscriber(server) as subscriber:
        publisher = Publisher(server)
        kill = lambda: restart(server, signal.SIGKILL)  # noqa: E731
        await publisher.publish(150, {50: kill, 100: kill})
        await subscriber.has(150)
        assert subscriber.numbers == publisher.acknowledged
        assert subscriber.gaps == []
        assert subscriber.welcomes >= 3


async def test_stopped_server(tmp_path: Path) -> None:
    """A server is stopped in order and started again: nobody loses anything, and it exits with 0 (T10)."""
    async with Server(tmp_path) as server, Subscriber(server) as subscriber:
        publisher = Publisher(server)
        await publisher.publish(30)
        assert await server.end(signal.SIGTERM) == 0
        await server.start()
        await publisher.publish(30)
        await subscriber.has(60)
        assert subscriber.numbers == publisher.acknowledged


async def test_killed_mongodb(tmp_path: Path) -> None:
    """The server's own MongoDB is killed twice and started again: publishers get 503 meanwhile, and nothing is lost or doubled (L5)."""
    async with Server(tmp_path) as server, Subscriber(server) as subscriber:
        publisher = Publisher(server)
        kill = lambda: os.kill(server.mongod(), signal.SIGKILL)  # noqa: E731
        await publisher.publish(150, {50: kill, 100: kill})
        await subscriber.has(150)
        assert subscriber.numbers == publisher.acknowledged
        assert subscriber.welcomes == 1, "the connection lives on while MongoDB is away"


async def test_frozen_mongodb(tmp_path: Path) -> None:
    """MongoDB answers nothing for longer than a publish waits: it is refused with 503, and everything goes on afterwards (L4, T12)."""
    async with Server(tmp_path, "--append_seconds=0.5") as server, Subscriber(server) as subscriber:
        publisher = Publisher(server)
        await publisher.publish(20)
        async with frozen(server.mongod()):
            publishing = asyncio.create_task(publisher.publish(20))
            await wait_until(lambda: publisher.refused, "a publish was refused")
        await publishing
        await subscriber.has(40)
        assert subscriber.numbers == publisher.acknowledged


async def test_frozen_server(tmp_path: Path) -> None:
    """A server that stood still for a moment, as in a paused machine, goes on where it was."""
    async with Server(tmp_path) as server, Subscriber(server) as subscriber:
        publisher = Publisher(server)
        await publisher.publish(20)
        async with frozen(server.pid):
            publishing = asyncio.create_task(publisher.publish(20))
            await asyncio.wait({publishing}, timeout=0.5)
        await publishing
        await subscriber.has(40)
        assert subscriber.numbers == publisher.acknowledged


async def test_several_servers_on_one_mongodb(tmp_path: Path) -> None:
    """Publishers and subscribers spread over two servers, one of which is killed: one log, one order, resumed on either (L11)."""
    mongodb = EmbeddedMongoDB(tmp_path / "mongodb")
    uri = await mongodb.start()
    try:
        first = Server(tmp_path / "first", mongodb_uri=uri)
        second = Server(tmp_path / "second", mongodb_uri=uri)
        async with first, second, Subscriber(first, second) as one, Subscriber(second, first, user="other") as other:
            publisher = Publisher(first, second)
            await publisher.publish(120, {40: lambda: restart(first, signal.SIGKILL), 80: lambda: restart(second, signal.SIGKILL)})
            await one.has(120)
            await other.has(120)
            assert one.numbers == other.numbers == publisher.acknowledged
    finally:
        await mongodb.stop()


async def test_overrun_log(tmp_path: Path) -> None:
    """A client that stays away until the log has moved past its position is told of the gap, and gets all that is still there (L8)."""
    async with Server(tmp_path, "--log_bytes=64KiB") as server:
        publisher = Publisher(server, padding=500)
        async with Subscriber(server) as subscriber:
            await publisher.publish(5)
            await subscriber.has(5)
        await publisher.publish(300)
        await restart(server, signal.SIGTERM)  # what it holds in memory reaches back further than the log
        query = f"?topics=orders.*&lastEventId={subscriber.last_id}"
        async with EventStream(server.port, query, token=token("reader")) as stream:
            await stream.welcome()
            gap = await stream.next()
            assert gap.type == "gap"
            assert gap.json()["from"] == subscriber.last_id
            assert gap.json()["reason"] == "evicted"
            numbers: list[int] = []
            while (event := await stream.next()).type != "live":
                numbers.append(event.json()["n"])
        assert numbers == list(range(numbers[0], 306))
        assert 6 < numbers[0] < 300


async def test_older_copy_put_back(tmp_path: Path) -> None:
    """The database is taken back to a copy of its files: a client that has later events is told, and not led to others' places (L2, L8)."""
    async with Server(tmp_path) as server:
        publisher = Publisher(server)
        await publisher.publish(5)
        await server.end(signal.SIGTERM)
        shutil.copytree(tmp_path / "db", tmp_path / "copy")
        await server.start()
        async with Subscriber(server, query="?topics=orders.*&from=earliest") as subscriber:
            await publisher.publish(5)
            await subscriber.has(10)
        await server.end(signal.SIGTERM)
        shutil.rmtree(tmp_path / "db")
        shutil.move(tmp_path / "copy", tmp_path / "db")
        await server.start()
        await publisher.publish(10)
        async with EventStream(server.port, f"?topics=orders.*&lastEventId={subscriber.last_id}", token=token("reader")) as stream:
            await stream.welcome()
            gap = await stream.next()
            assert (gap.type, gap.json()["from"], gap.json()["reason"]) == ("gap", subscriber.last_id, "log recreated")
            numbers = [(await stream.next_of("order:placed")).json()["n"] for _ in range(15)]
    assert numbers == [1, 2, 3, 4, 5, *range(11, 21)]


async def test_client_that_stops_reading(tmp_path: Path) -> None:
    """A client that does not read gets everything once it reads again, and meanwhile nobody else waits for it (L7)."""
    async with Server(tmp_path) as server, Subscriber(server) as subscriber:
        publisher = Publisher(server, padding=20_000)
        async with EventStream(server.port, "?topics=orders.*", token=token("slow")) as slow:
            await slow.welcome()
            slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await publisher.publish(300)  # 6 MB: more than the buffers on both sides take
            await subscriber.has(300)
            slow.writer.transport.resume_reading()  # type: ignore[attr-defined]
            numbers: list[int] = []
            while len(numbers) < 300:
                event = await slow.next()
                assert event.type in ("order:placed", "live")
                if event.type == "order:placed":
                    numbers.append(event.json()["n"])
        assert numbers == publisher.acknowledged == subscriber.numbers


async def test_nothing_is_left_behind(tmp_path: Path) -> None:
    """When a server is killed, its MongoDB ends with it, and the next one starts on the same data at once."""
    async with Server(tmp_path) as server:
        mongod = server.mongod()
        await server.end(signal.SIGKILL)
        await wait_until(lambda: not runs(mongod), "its mongod is gone")
        await server.start()
        publisher = Publisher(server)
        await publisher.publish(3)


STOPPED_READERS = 100
COST_BYTES = 100 << 10  # of a client that does not read: what is pending of it, and the connection itself


@pytest.mark.parametrize("transport", ["sse", "websocket"])
async def test_clients_that_stop_reading_cost_little(tmp_path: Path, transport: str) -> None:
    """Each holds a bounded rest of what it did not read, however much comes: the server's memory grows by no more than that (L7)."""
    async with Server(tmp_path, "--window_bytes=1MiB") as server:
        publisher, marks = Publisher(server, padding=100_000), Publisher(server, topic="marks")
        async with EventStream(server.port, "?topics=marks", token=token("reader")) as reader:
            await reader.welcome()

            async def push(count: int) -> None:
                """Publish, each event once the one before was pushed: of many at once the server would hold more for a moment."""
                for _ in range(count):
                    await publisher.publish(1)
                    await marks.publish(1)
                    await reader.next_of("order:placed")

            await push(100)  # so that what the server keeps for itself is there already
            before = server.memory()
            with contextlib.ExitStack() as stack:
                for _ in range(STOPPED_READERS):
                    stack.enter_context(stopped_reader(server.port, transport))
                await push(200)  # if they were kept, only once for all, it would be 20 MB
                assert server.memory() - before <= STOPPED_READERS * COST_BYTES


def stopped_reader(port: int, transport: str) -> socket.socket:
    """Return a client that asked for everything, and never reads."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", port))
    headers = {"Host": "x", "Authorization": f"Bearer {token('slow')}"}
    if transport == "sse":
        client.sendall(request_bytes("GET", "/v1/stream", headers))
    else:
        client.sendall(request_bytes("GET", "/ws", {**headers, **HANDSHAKE}) + text({"type": "subscribe", "topic": "**"}))
    return client
