"""Positions are valued once and rightly, whatever is killed (SPEC D3)."""

from __future__ import annotations

import random
import signal
from decimal import Decimal
from pathlib import Path
from typing import Any

from storage.embedded import EmbeddedMongoDB
from tests.channels.ledger import SYMBOLS, Logged, compare
from tests.faults.world import Publisher, Server
from tests.handlers.assembly import token
from tests.handlers.clients import EventStream

AT = "2026-11-20T12:00:00Z"
EVENTS = 60
TRADER = "trader"
QUERY = "?types=position:update,price:update"


class Market(Publisher):
    """Publishes positions of one user, and prices, at random; the last event is a position."""

    def __init__(self, *servers: Server) -> None:
        super().__init__(*servers)
        self._chance = random.Random(3)

    def event(self, number: int) -> dict[str, Any]:
        """Return an event with this number as its id."""
        symbol, price = self._chance.choice(SYMBOLS), str(Decimal(self._chance.randrange(1, 10**9)).scaleb(-4))
        if number % 3 == 1:
            data = {"symbol": symbol, "price": price, "bid": price, "ask": price, "timestamp": AT}
            return {"topic": "trading.prices", "type": "price:update", "audience": ["public"], "id": str(number), "data": data}
        quantity = str(Decimal(self._chance.randrange(-(10**20), 10**20)).scaleb(-self._chance.randrange(9)))
        data = {"symbol": symbol, "quantity": self._chance.choice([quantity, quantity, "0"]), "entryPrice": price}
        return {"topic": "trading.positions", "type": "position:update", "audience": [f"user:{TRADER}"], "id": str(number), "data": data}


async def whole_log(server: Server) -> list[Logged]:
    """Return all that is in the log about positions and prices, once the last event of the market is answered."""
    log: list[Logged] = []
    async with EventStream(server.port, f"{QUERY}&from=earliest", token=token(TRADER)) as stream:
        while True:
            one = await stream.next()
            if one.type in ("position:update", "price:update"):
                log.append(Logged(str(one.id), None if one.type == "price:update" else TRADER, one.json()))
                raw = [one.id for one in log if "cause" not in one.said]
                if len(raw) == EVENTS and log[-1].said.get("cause") == raw[-1]:
                    return log


async def test_killed_while_positions_are_valued(tmp_path: Path) -> None:
    """A server is killed twice while positions and prices come: each raw event has one answer, in order, and all values are right."""
    async with Server(tmp_path) as server:
        market = Market(server)

        async def kill() -> None:
            await server.end(signal.SIGKILL)
            await server.start()

        async def kill_at_work() -> None:
            async with EventStream(server.port, f"{QUERY}&sources=tailcast.portfolio&from=earliest", token=token(TRADER)) as stream:
                await stream.next_of("position:update")
            await kill()

        await market.publish(EVENTS, {25: kill_at_work, 45: kill})
        compare(await whole_log(server))


async def test_another_server_goes_on_when_the_one_that_values_is_killed(tmp_path: Path) -> None:
    """It takes over by itself, and nobody can tell from what stands in the log."""
    mongodb = EmbeddedMongoDB(tmp_path / "mongodb")
    uri = await mongodb.start()
    try:
        first, second = Server(tmp_path / "first", mongodb_uri=uri), Server(tmp_path / "second", mongodb_uri=uri)
        async with first, second:
            await Market(second).publish(EVENTS, {30: lambda: first.end(signal.SIGKILL)})
            compare(await whole_log(second))
    finally:
        await mongodb.stop()
