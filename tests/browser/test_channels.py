"""The browser's own EventSource on channels: what a page sees of state, last events, and a server that goes and comes back (D7)."""

from __future__ import annotations

import signal
from typing import Any

from tests.browser.chromium import Page
from tests.browser.conftest import Serve
from tests.faults.world import Server
from tests.handlers.assembly import PUBLISHER, token
from tests.handlers.clients import EventStream, publish
from tests.handlers.test_channels import sample

LISTEN = "([url, types]) => { listen(url, types) }"
UPDATE, PRICE = "order:update", "price:update"


async def published(server: Server, *events: dict[str, Any]) -> None:
    """Publish events, and return once the server itself has heard of them: whoever comes then has them in its snapshot."""
    answer = await publish(server.port, list(events), PUBLISHER)
    assert answer.status == 202
    last = answer.json()["events"][-1]["id"]
    async with EventStream(server.port, "?from=earliest", token=token()) as stream:
        await stream.welcome()
        while (await stream.next()).id != last:
            pass


async def order(server: Server, *numbers: int) -> None:
    """Publish updates of orders with these numbers."""
    await published(server, *(sample(UPDATE, "user:u1", orderId=f"o{number}") for number in numbers))


async def test_a_page_gets_state_and_then_each_event_once_however_often_its_server_restarts(page: Page, serve: Serve) -> None:
    """The snapshot comes once; later the browser says where it was, and misses nothing."""
    server, other = await serve(), await serve()
    await order(server, 1, 2)
    await page.run(LISTEN, [f"http://127.0.0.1:{server.port}/api/stream/orders?replay=1&token={token()}", ["snapshot", UPDATE]])
    await page.has("live")
    assert [told[0] for told in page.told] == ["welcome", "snapshot", UPDATE, "live"]
    assert [told[2] for told in page.told[:2]] == ["", ""], "whoever breaks off here begins anew"
    (snapshot,) = page.of("snapshot")
    assert [one["orderId"] for one in snapshot["orders"]] == ["o2", "o1"]
    await order(other, 3)
    await page.has(UPDATE, 2)
    await server.end(signal.SIGTERM)
    await order(other, *range(4, 150))
    await server.start()
    await page.has("live", 2)
    assert [one["orderId"] for one in page.of(UPDATE)] == [f"o{number}" for number in range(2, 150)]
    assert [told[0] for told in page.told if told[0] not in (UPDATE, "error")] == [
        "welcome",
        "snapshot",
        "live",
        "closing",
        "welcome",
        "live",
    ]


async def test_a_page_without_a_credential_gets_prices(page: Page, serve: Serve) -> None:
    """The latest of the symbols that it has chosen, marked as such, then each new one."""
    server = await serve()
    prices = [sample(PRICE, "public", symbol=symbol, price=price) for symbol, price in (("A", "1"), ("B", "2"), ("A", "3"))]
    await published(server, *prices)
    await page.run(LISTEN, [f"http://127.0.0.1:{server.port}/api/stream/prices?symbols=A", [PRICE]])
    await page.has("live")
    assert (await publish(server.port, [*prices, sample(PRICE, "public", symbol="A", price="4")], PUBLISHER)).status == 202
    await page.has(PRICE, 4)
    assert [(one["price"], one.get("initializing")) for one in page.of(PRICE)] == [("3", True), ("1", None), ("3", None), ("4", None)]
