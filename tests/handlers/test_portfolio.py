"""Positions from end to end: published over HTTP, valued, and shown by their channel (SPEC D3)."""

from __future__ import annotations

from typing import Any

from tests.channels.ledger import FIELDS
from tests.handlers.assembly import PUBLISHER, Assembly, token
from tests.handlers.clients import EventStream, publish
from tests.handlers.conftest import Assemble
from tests.storage.faults import running

AT = "2026-11-20T12:00:00Z"
TRADER = token("u1")


def position(symbol: str, quantity: object, entry_price: object = None, **more: object) -> dict[str, Any]:
    """Return an event about a position of user u1."""
    given = {"symbol": symbol, "quantity": quantity, "entryPrice": entry_price, "timestamp": AT, **more}
    data = {name: value for name, value in given.items() if value is not None}
    return {"topic": "trading.positions", "type": "position:update", "audience": ["user:u1"], "data": data}


def price(symbol: str, value: str) -> dict[str, Any]:
    """Return an event about a price."""
    data = {"symbol": symbol, "price": value, "bid": value, "ask": value, "timestamp": AT}
    return {"topic": "trading.prices", "type": "price:update", "audience": ["public"], "data": data}


async def published(here: Assembly, *events: dict[str, Any]) -> None:
    """Publish events one after the other."""
    for event in events:
        response = await publish(here.port, event, PUBLISHER)
        assert response.status == 202, response.body


async def shown(stream: EventStream) -> dict[str, Any]:
    """Return the next position that is shown."""
    said: dict[str, Any] = (await stream.next_of("position:update")).json()
    return said


def values(said: dict[str, Any]) -> list[str]:
    """Return its values in the order of the independent calculation."""
    return [said[name] for name in FIELDS]


async def test_a_position_from_opening_to_closing(here: Assembly) -> None:
    """Opened, changed by a price, made smaller, closed, and gone from the list that a new client gets."""
    path = "/api/stream/positions"
    async with running(here.portfolio.run()), EventStream(here.port, "?replay=0", token=TRADER, path=path) as stream:
        await stream.next_of("live")
        await published(here, position("AAPL", 10, "100"))
        said = await shown(stream)
        assert (values(said), said["status"]) == (["10", "100", "100", "1000", "0", "0", "1000"], "opened")
        await published(here, price("AAPL", "110.5"))
        said = await shown(stream)
        assert (values(said), said["status"]) == (["10", "100", "110.5", "1105", "105", "0", "1105"], "updated")
        await published(here, position("BTC", "-0.00000001", "60000"), position("AAPL", 6, 100))
        said = await shown(stream)
        assert values(said) == ["-0.00000001", "60000", "60000", "-0.0006", "0", "0", "1104.9994"]
        said = await shown(stream)
        assert values(said) == ["6", "100", "110.5", "663", "63", "42", "662.9994"]
        await published(here, position("AAPL", "0", price="120"))
        said = await shown(stream)
        assert (values(said), said["status"]) == (["0", "100", "110.5", "0", "0", "162", "-0.0006"], "closed")
    async with EventStream(here.port, "?replay=0", token=TRADER, path=path) as stream:
        snapshot = (await stream.next_of("snapshot")).json()
        assert [one["symbol"] for one in snapshot["positions"]] == ["BTC"]
        assert snapshot["totalValue"] == "-0.0006"


async def test_others_do_not_see_what_a_position_is_worth(here: Assembly) -> None:
    """Its value is for whom it was published (L9)."""
    async with running(here.portfolio.run()):
        await published(here, position("AAPL", 10, "100"))
        async with EventStream(here.port, "?types=position:update&from=earliest", token=TRADER) as stream:
            assert (await shown(stream))["quantity"] == 10
            assert (await shown(stream))["marketValue"] == "1000"
        async with EventStream(here.port, "?types=position:update,price:update&from=earliest", token=token("u2")) as stream:
            await published(here, price("AAPL", "110"))
            await stream.welcome()
            while (one := await stream.next()).type != "price:update":
                assert one.type == "live"


async def test_any_server_values_what_was_published_on_any(assemble: Assemble) -> None:
    """The one whose turn it is; and when that one ends, the other goes on (L11)."""
    first, second = await assemble(), await assemble()
    async with EventStream(second.port, "?types=position:update&sources=tailcast.portfolio", token=TRADER) as stream:
        await stream.welcome()
        async with running(first.portfolio.run()):
            await published(second, position("AAPL", 10, "100"))
            assert (await shown(stream))["status"] == "opened"
        async with running(second.portfolio.run()):
            await published(first, position("AAPL", 4, "100", price=101))
            assert (await shown(stream))["realizedPnl"] == "6"
