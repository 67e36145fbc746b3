"""Tests of handlers/roll.py: limits over two servers on one MongoDB, with real clients; and what holds while MongoDB is away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest

from hub.errors import REPLACED
from tests.handlers.assembly import Assembly, token
from tests.handlers.clients import EventStream, RawWebSocket
from tests.handlers.conftest import Assemble, StoppableMongoDB
from tests.waiting import wait_until

TOO_MANY = "too many connections"
REFUSED = "refused: an organisation has as many connections as it may have"
PER_USER = 3


class Clients:
    """Clients that stay for as long as the block lasts."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Clients:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def stream(self, server: Assembly, user: str = "u1", org: str | None = None) -> EventStream:
        """Open an event stream, past its `welcome` if it is let in."""
        stream = await self._stack.enter_async_context(EventStream(server.port, token=token(user, org=org), Accept="*/*"))
        if stream.head.status == 200:
            await stream.welcome()
        return stream

    async def websocket(self, server: Assembly, user: str = "u1") -> RawWebSocket:
        """Open a WebSocket, past its `welcome`."""
        opened = await self._stack.enter_async_context(RawWebSocket(server.port, token=token(user)))
        await opened.next("welcome")
        return opened


async def meet(*servers: Assembly) -> None:
    """Let servers exchange counts twice, as they do within two seconds: each tells, and each hears what the last one told."""
    for _ in range(2):
        for server in servers:
            await server.roll.exchange()


async def until(condition: Callable[[], bool], what: str, *servers: Assembly) -> None:
    """Let servers exchange counts until a condition holds. Two rounds do, but for the milliseconds by which their clocks differ."""

    async def holds() -> bool:
        for server in servers:
            await server.roll.exchange()
        return condition()

    await wait_until(holds, what)


def later(*servers: Assembly) -> None:
    """Let a minute pass for all: what is opened now is newer, whatever they take for MongoDB's time."""
    for server in servers:
        server.clock.ahead += 60


def numbers(*servers: Assembly) -> list[int]:
    """Return how many connections each server has."""
    return [len(server.hub.connections) for server in servers]


async def two(assemble: Assemble, **limits: int) -> tuple[Assembly, Assembly]:
    """Start two servers on one database that know of each other."""
    a, b = await assemble(**limits), await assemble(**limits)
    await meet(a, b)
    return a, b


async def test_the_oldest_over_both_servers_is_closed(assemble: Assemble, expected_logs: list[str]) -> None:
    """Within two exchanges, told why, and logged; a newer one stays wherever it is."""
    expected_logs.append(TOO_MANY)
    a, b = await two(assemble, connections_per_user=PER_USER)
    async with Clients() as clients:
        oldest = await clients.websocket(a)
        later(a, b)
        second = await clients.stream(a)
        later(a, b)
        await clients.stream(b)
        await meet(a, b)
        assert numbers(a, b) == [2, 1]
        later(a, b)
        await clients.stream(b)
        await until(lambda: numbers(a, b) != [2, 2], "the oldest is closed", a, b)
        code, closing = await oldest.closed_with()
        assert (code, closing["reason"]) == (REPLACED, "a newer connection took its place: a user has at most 3")
        assert numbers(a, b) == [1, 2]
        later(a, b)
        await clients.stream(b)
        await until(lambda: numbers(a, b) != [1, 3], "the next one is closed", a, b)
        assert (await second.next_of("closing")).json()["code"] == REPLACED
        assert numbers(a, b) == [0, 3]


async def test_many_opened_at_once_on_both_sides_converge(assemble: Assemble, expected_logs: list[str]) -> None:
    """Exactly as many stay as a user may have, and at each server they are the newest."""
    expected_logs.append(TOO_MANY)
    a, b = await two(assemble, connections_per_user=PER_USER)
    async with Clients() as clients:
        await asyncio.gather(*(clients.stream(server) for server in (a, b) * 6))
        opened = [list(server.hub.connections) for server in (a, b)]
        assert list(map(len, opened)) == [PER_USER, PER_USER]
        await asyncio.gather(a.roll.exchange(), b.roll.exchange())
        await until(lambda: sum(numbers(a, b)) <= PER_USER, "they are not too many any more", a, b)
        await meet(a, b)
        left = [list(server.hub.connections) for server in (a, b)]
        assert sum(map(len, left)) == PER_USER
        assert left == [before[len(before) - len(now) :] for before, now in zip(opened, left, strict=True)]


async def test_an_organisation_has_its_limit_over_both(assemble: Assemble, expected_logs: list[str]) -> None:
    """One more is refused with 429 on either server, and there is room again when one is gone."""
    expected_logs.append(REFUSED)
    a, b = await two(assemble, connections_per_org=2)
    async with Clients() as clients:
        await clients.stream(a, "u1", "o1")
        async with Clients() as short:
            await short.stream(a, "u2", "o1")
            await meet(a, b)
            refused = await clients.stream(b, "u3", "o1")
            assert (refused.head.status, refused.head.headers["retry-after"]) == (429, "10")
            assert (await clients.stream(b, "u3", "o2")).head.status == 200
        await wait_until(lambda: len(a.hub.connections) == 1, "the client is gone")
        await meet(a, b)
        assert (await clients.stream(b, "u3", "o1")).head.status == 200
        await meet(a, b)
        assert (await clients.stream(a, "u1", "o1")).head.status == 429


async def test_a_killed_server_does_not_count(assemble: Assemble, expected_logs: list[str]) -> None:
    """Once it was not seen for some seconds; until then its connections may be coming back."""
    expected_logs.append(REFUSED)
    a, b = await two(assemble, connections_per_org=1)
    async with Clients() as clients:
        await clients.stream(a, "u1", "o1")
        await meet(a, b)
        assert (await clients.stream(b, "u2", "o1")).head.status == 429
        longer_ago = [{"$set": {"seen": {"$subtract": ["$seen", 11_000]}}}]
        own = a.state.roll.server.partition("/")[0]
        await b.database.command({"update": "servers", "updates": [{"q": {"_id": own}, "u": longer_ago}]})
        await b.roll.exchange()
        assert (await clients.stream(b, "u2", "o1")).head.status == 200


async def test_a_server_that_stops_takes_back_what_it_told(assemble: Assemble) -> None:
    """Its task ends with nothing of it left, so that the others need not wait until it looks dead."""
    a, b = await two(assemble, connections_per_org=1)
    async with Clients() as clients:
        await clients.stream(a, "u1", "o1")
        await meet(a, b)
        task = asyncio.create_task(a.roll.run(), name="roll of a")
        await asyncio.sleep(0)  # it has begun
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await b.roll.exchange()
        assert (await clients.stream(b, "u2", "o1")).head.status == 200


async def test_the_task_exchanges_until_it_is_cancelled(assemble: Assemble, monkeypatch: pytest.MonkeyPatch) -> None:
    """Again and again, by itself."""
    monkeypatch.setattr("handlers.roll.EXCHANGE_SECONDS", 0)
    a, b = await assemble(connections_per_org=1), await assemble(connections_per_org=1)
    async with Clients() as clients:
        await clients.stream(a, "u1", "o1")
        tasks = [asyncio.create_task(one.roll.run(), name="roll") for one in (a, b)]
        await wait_until(lambda: b.hub.rights.roll.elsewhere.org("o1"), "b has heard of a")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_while_mongodb_is_away_limits_hold_within_each_server(
    assemble: Assemble, stoppable_mongodb: StoppableMongoDB, expected_logs: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """That is logged once, and once more when they hold over all of them again, with everything told anew."""
    expected_logs.append("connections are counted within this process only")
    expected_logs.append("tail interrupted")
    caplog.set_level("INFO", "tailcast.handlers")
    a = await assemble(stoppable_mongodb.uri, connections_per_org=2)
    b = await assemble(stoppable_mongodb.uri, connections_per_org=2)
    await meet(a, b)
    async with Clients() as clients:
        await clients.stream(a, "u1", "o1")
        await meet(a, b)
        assert b.hub.rights.roll.elsewhere.org("o1") == 1
        await stoppable_mongodb.hang()
        for _ in range(2):
            await b.roll.exchange()
        assert b.hub.rights.roll.elsewhere.org("o1") == 0
        await b.roll.leave()  # nothing was told that it would have to take back: it does not even ask
        stoppable_mongodb.go_on()
        await until(lambda: b.hub.rights.roll.elsewhere.org("o1") == 1, "b has heard of a again", a, b)
    lines = [record.getMessage() for record in caplog.records if record.name == "tailcast.handlers"]
    assert sum("within this process only" in line for line in lines) == 1
    assert sum("over all processes again" in line for line in lines) == 1
