"""Tests of handlers/channels.py: what every path of a declared channel answers, whom, and in which order (SPEC part 7, E1)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable
from typing import Any

import msgspec
import pytest

from channels.declaration import Access
from channels.families import CATALOGUE, EVENT_TYPES
from channels.valuation import SOURCE
from hub.errors import NotReady
from storage.entries import Entry, NewEvent
from storage.positions import Position
from storage.recent import RecentEvents, Wanted
from tests.handlers.asking import ADMIN, AGENT, PUBLISHER, caught_up, own, revoke, session, ticket
from tests.handlers.assembly import USER, Assembly, token
from tests.handlers.clients import EventStream, SseEvent, get, publish
from tests.handlers.conftest import Assemble

ORDERS, PRICES, TRADING, STRATEGY = "/api/stream/orders", "/api/stream/prices", "/api/stream/trading", "/api/stream/strategies/s1"
MINE = token("u1", org="o1", entity="e1")
DOORS = [channel for channel in CATALOGUE if channel.path is not None and not channel.own_handler]


def sample(type: str, *audience: str, source: str | None = None, **data: Any) -> dict[str, Any]:
    """Return an event of a declared type, for these or for whom its sample is."""
    declared = EVENT_TYPES[type]
    return {
        "topic": declared.topic,
        "type": type,
        "audience": audience or declared.audience,
        "data": {**declared.sample, **data},
        **({"source": source} if source else {}),
    }


async def published(here: Assembly, *events: dict[str, Any]) -> list[str]:
    """Publish events and return their ids, once the tail has read them."""
    response = await publish(here.port, list(events), PUBLISHER)
    assert response.status == 202, response
    await caught_up(here)
    return [one["id"] for one in response.json()["events"]]


async def order(here: Assembly, *numbers: int, user: str = "u1") -> list[str]:
    """Publish updates of orders with these numbers."""
    return await published(here, *(sample("order:update", f"user:{user}", orderId=f"o{number}") for number in numbers))


async def until_live(stream: EventStream) -> list[SseEvent]:
    """Return the events behind `welcome` and a snapshot, up to `live`, which is left out."""
    await stream.welcome()
    found: list[SseEvent] = []
    while (one := await stream.next()).type != "live":
        found.append(one)
    return [one for one in found if one.type != "snapshot"]


async def orders(stream: EventStream, count: int) -> list[str]:
    """Return which orders the next events are about."""
    return [(await stream.next_of("order:update")).json()["orderId"] for _ in range(count)]


def opened(here: Assembly, path: str, query: str = "", token: str | None = MINE, **headers: str) -> EventStream:
    """Return a stream of a channel, to be used as a context."""
    return EventStream(here.port, query, token=token, path=path, **headers)


# ---- the answer


@pytest.mark.parametrize("channel", DOORS, ids=lambda one: one.name)
async def test_each_channel_answers_with_an_event_stream_of_its_own(here: Assembly, channel: Any) -> None:
    """Headers as any stream has them, and first `welcome` with the client's id and the time after which a browser comes back (D1)."""
    await own(here.port, "strategy/s1", "user:u1")
    path = channel.path.replace("(?P<id>[^/]+)", "s1")
    async with opened(here, path, X_Correlation_ID="c-1") as stream:
        assert stream.head.status == 200
        assert (
            stream.head.headers
            | {
                "content-type": "text/event-stream",
                "cache-control": "no-cache",
                "connection": "keep-alive",
                "x-accel-buffering": "no",
                "transfer-encoding": "chunked",
                "x-correlation-id": "c-1",
            }
            == stream.head.headers
        )
        first = await stream.next()
        assert (first.type, first.retry) == ("welcome", channel.retry_ms)
        assert re.fullmatch(rf"u1-{channel.name}-\d{{13}}", first.json()["clientId"])
        (connection,) = here.hub.connections
        assert connection.terms == channel.terms


@pytest.mark.parametrize("channel", DOORS, ids=lambda one: one.name)
async def test_without_a_credential_there_is_an_error_in_the_envelope_where_one_is_needed(here: Assembly, channel: Any) -> None:
    """401; and for a bad one everywhere: whoever shows something wants to be known by it (D1, S8)."""
    path = channel.path.replace("(?P<id>[^/]+)", "s1")
    if channel.access is not Access.ANYONE:
        assert (await get(here.port, path)).error() == (401, "unauthenticated", None)
    assert (await get(here.port, path, token="x")).error() == (401, "unauthenticated", None)
    assert (await get(here.port, f"{path}?token=x")).error() == (401, "unauthenticated", None)


async def test_a_quiet_channel_hears_its_own_heartbeat(here: Assembly) -> None:
    """`: keepalive` after 30 seconds without an event, with the position when the log has moved on (part 7, L8a)."""
    async with opened(here, "/api/stream/alerts", "?replay=0") as stream:
        assert await until_live(stream) == []
        (id,) = await order(here, 1)
        await here.pass_seconds(29)
        assert stream.comments == []
        await here.pass_seconds(1)
        await published(here, sample("alert:new", "user:u1"))
        assert await stream._next_block() == f": keepalive\nid: {id}"


async def test_the_stream_of_an_entity_has_the_servers_own_heartbeat(here: Assembly) -> None:
    """A channel that declares none has that of the setting."""
    async with opened(here, "/events") as stream:
        await stream.welcome()
        await here.pass_seconds(here.settings.heartbeat_seconds)
        await published(here, sample("balance.updated", "entity:e1"))
        assert await stream._next_block() == ":heartbeat"


@pytest.mark.parametrize("how", ["session", "ticket", "query"])
async def test_every_kind_of_credential_opens_a_channel(here: Assembly, how: str) -> None:
    """Session cookie or token, and what is made of them for a URL (D1)."""
    headers, query = {}, f"?token={MINE}"
    if how == "session":
        headers, query = {"Cookie": (await session(here.port, "u1")).cookie}, ""
    elif how == "ticket":
        query = f"?ticket={await ticket(here.port, MINE)}"
    async with opened(here, ORDERS, query, None, **headers) as stream:
        assert (await stream.welcome()).json()["clientId"].startswith("u1-orders-")


async def test_a_full_server_sends_browsers_away_in_their_own_language(assemble: Assemble, expected_logs: list[str]) -> None:
    """As /v1/stream does: EventSource gives up for good at any status but 200 (S6)."""
    expected_logs.append("refused: the server has as many connections")
    here = await assemble(max_connections=1)
    async with opened(here, ORDERS) as stream:
        await stream.welcome()
        async with opened(here, PRICES, token=None) as other:
            assert (other.head.status, other.head.headers["retry-after"]) == (200, "5")
            assert b'"code":1013' in await other.reader.readexactly(int(other.head.headers["content-length"]))
        assert (await get(here.port, PRICES)).error() == (503, "unavailable", None)


# ---- what is shown


async def test_a_channel_shows_its_own_types_to_those_who_may_see_them(here: Assembly) -> None:
    """Whatever the topic, and nothing of others; what is for everybody too (L9)."""
    async with opened(here, ORDERS, "?replay=0") as stream:
        assert await until_live(stream) == []
        stranger = {**sample("order:update", "user:u1", orderId="o2"), "topic": "elsewhere"}
        await published(
            here,
            sample("order:update", "user:u2"),
            sample("alert:new", "user:u1"),
            sample("order:fill", "user:u1", orderId="o1"),
            {"topic": "orders", "type": "strange", "audience": ["user:u1"], "data": {}},
            stranger,
            sample("agent:status", "public"),
        )
        assert [(await stream.next()).type for _ in range(3)] == ["order:fill", "order:update", "agent:status"]


async def test_positions_are_shown_as_they_are_valued_here(here: Assembly) -> None:
    """What publishers say is held is not shown, but what is computed of it (D3); together with the rest on `trading`."""
    async with opened(here, "/api/stream/positions", "?replay=0") as positions, opened(here, TRADING, "?replay=0") as trading:
        assert await until_live(positions) == await until_live(trading) == []
        await published(here, sample("position:update", "user:u1"), sample("trade:new", "user:u1"))
        valued = NewEvent("trading.positions", "position:update", ("user:u1",), '{"valued":1}', source=SOURCE)
        await here.appender.append([valued])
        assert (await positions.next()).data == '{"valued":1}'
        assert [(await trading.next()).type for _ in range(2)] == ["trade:new", "position:update"]


async def test_prices_are_for_anyone_and_can_be_chosen_by_symbol(here: Assembly) -> None:
    """Without a credential, which makes the client anonymous; what is for somebody only is not shown (D4)."""
    async with (
        opened(here, PRICES, token=None) as every,
        opened(here, PRICES, "?symbols=AAPL,GOOGL", token=None) as chosen,
        opened(here, PRICES, "?symbols=AAPL&symbols=GOOGL") as mine,
    ):
        assert re.fullmatch(r"anonymous-prices-\d{13}", (await every.welcome()).json()["clientId"])
        assert (await mine.welcome()).json()["clientId"].startswith("u1-prices-")
        assert (await every.next()).type == (await mine.next()).type == "live"
        assert await until_live(chosen) == []
        prices = [
            sample("price:update", audience, symbol=symbol) for symbol in ("MSFT", "AAPL", "GOOGL") for audience in ("user:u1", "public")
        ]
        await published(here, *prices)
        assert [(await every.next()).json()["symbol"] for _ in range(3)] == ["MSFT", "AAPL", "GOOGL"]
        for stream in (chosen, mine):
            assert [(await stream.next()).json()["symbol"] for _ in range(2)] == ["AAPL", "GOOGL"]
        assert here.hub.rights.census.users() == 1


async def test_the_events_of_an_entity_are_those_of_the_current_one_only(here: Assembly) -> None:
    """Nothing for the user, the public or another entity, be it granted or not (E1)."""
    async with opened(here, "/events", token=token("u1", entity="e1", audiences=["entity:e2"])) as stream:
        await stream.welcome()
        audiences = ("entity:e2", "user:u1", "public", "entity:e1")
        await published(here, *(sample("sync.completed", one, source=f"s-{one[-1]}") for one in audiences))
        await published(
            here, {"topic": "x", "type": "strange", "audience": ["entity:e1"], "data": {}}, sample("balance.updated", "entity:e1")
        )
        assert [(await stream.next()).type for _ in range(2)] == ["sync.completed", "balance.updated"]


async def test_a_credential_that_names_no_entity_cannot_open_the_stream_of_one(here: Assembly) -> None:
    """403 with the reason (E1)."""
    response = await get(here.port, "/events", token=USER)
    assert response.error() == (403, "forbidden", None)
    assert "entity" in response.json()["message"]


# ---- whose it is


async def test_a_strategy_is_shown_to_its_owner(here: Assembly) -> None:
    """Only its own events, whatever else is the owner's (D6, S4)."""
    await own(here.port, "strategy/s1", "org:o1")
    await own(here.port, "strategy/s2", "user:u1")
    await caught_up(here)
    async with opened(here, STRATEGY, "?replay=0") as stream:
        assert await until_live(stream) == []
        await published(
            here,
            sample("strategy:update", "resource:strategy/s2", "user:u1"),
            sample("strategy:update", "user:u1"),
            sample("strategy:update", "resource:strategy/s1", strategyId="s1"),
        )
        assert (await stream.next()).json()["strategyId"] == "s1"
        await own(here.port, "strategy/s1", "user:u2")
        await published(here, sample("strategy:update", "resource:strategy/s1", strategyId="lost"))
        await own(here.port, "strategy/s1", "user:u1")
        await published(here, sample("strategy:update", "resource:strategy/s1", strategyId="again"))
        assert (await stream.next()).json()["strategyId"] == "again"


async def test_who_does_not_own_a_strategy_learns_nothing(here: Assembly) -> None:
    """403 in the same words for another's and for none; 404 for none only to those who may know (S4)."""
    await own(here.port, "strategy/s1", "user:u2")
    await caught_up(here)
    foreign, unknown = await get(here.port, STRATEGY, token=MINE), await get(here.port, "/api/stream/strategies/s9", token=MINE)
    assert foreign.error() == unknown.error() == (403, "forbidden", None)
    assert foreign.json()["message"] == unknown.json()["message"]
    assert (await get(here.port, STRATEGY, token=AGENT)).error() == (403, "forbidden", None)
    assert (await get(here.port, STRATEGY, token=PUBLISHER)).error() == (403, "forbidden", None)
    for keeper in (PUBLISHER, ADMIN):
        assert (await get(here.port, "/api/stream/strategies/s9", token=keeper)).error() == (404, "not_found", None)
    assert (await get(here.port, "/api/stream/strategies/a%20b", token=MINE)).error()[0] == 400


async def test_an_admin_may_hear_of_any_strategy(here: Assembly) -> None:
    """By its role, and as long as it has that (S5)."""
    await own(here.port, "strategy/s1", "user:u2")
    await caught_up(here)
    async with opened(here, STRATEGY, token=ADMIN) as stream:
        assert await until_live(stream) == []
        (connection,) = here.hub.connections
        assert connection.granted == {"resource:strategy/s1"}
        await published(here, sample("strategy:update", "resource:strategy/s1", strategyId="s1"))
        assert (await stream.next()).json()["strategyId"] == "s1"


async def test_an_admin_may_name_another_user(here: Assembly) -> None:
    """It hears that one's events and nothing else, its last events first; whoever is no admin may name itself (part 7)."""
    await order(here, 1, user="u2")
    async with opened(here, TRADING, "?userId=u2", token=ADMIN) as stream:
        assert [one.json()["orderId"] for one in await until_live(stream)] == ["o1"]
        (connection,) = here.hub.connections
        assert connection.granted == connection.named() == {"user:u2"}
        await published(here, sample("trade:new", "user:root"), sample("agent:status", "public"))
        await order(here, 2, user="u2")
        assert (await stream.next()).json()["orderId"] == "o2"
    async with opened(here, TRADING, "?userId=u1&replay=0") as stream:
        assert await until_live(stream) == []
        await order(here, 3)
        assert await orders(stream, 1) == ["o3"]
    for who in (MINE, AGENT, PUBLISHER):
        assert (await get(here.port, f"{TRADING}?userId=u2", token=who)).error() == (403, "forbidden", "userId")


async def test_what_a_role_lets_hear_is_lost_with_the_role(here: Assembly) -> None:
    """An admin's stream of another user goes on only with an admin's credential; so does its resume token (S3)."""
    async with opened(here, TRADING, "?userId=u2", token=ADMIN) as stream:
        resume = (await stream.welcome()).json()["resumeToken"]
    async with opened(here, TRADING, f"?resume={resume}", token=None) as stream:
        assert await until_live(stream) == []
        (connection,) = (one for one in here.hub.connections if one.granted)
        assert connection.named() == {"user:u2"}
    response = await get(here.port, f"{TRADING}?resume={resume}", token=token("root"))
    assert response.error() == (403, "forbidden", "resume")


# ---- where it begins


async def test_a_new_client_gets_its_last_events_first(here: Assembly) -> None:
    """At most 100 and none older than five minutes, oldest first, then `live`, then what is new; each once (D7)."""
    await order(here, *range(105))
    await order(here, 200, user="u2")
    async with opened(here, ORDERS) as stream:
        first = await until_live(stream)
        assert [one.json()["orderId"] for one in first] == [f"o{number}" for number in range(5, 105)]
        await order(here, 105)
        assert await orders(stream, 1) == ["o105"]


async def test_welcome_moves_a_new_client_nowhere_until_it_has_its_last_events(here: Assembly) -> None:
    """A browser that breaks off in between has no last event id, and so begins anew (T2)."""
    (id,) = await order(here, 1)
    async with opened(here, ORDERS) as stream:
        welcome = await stream.welcome()
        assert (welcome.id, welcome.json()["position"]) == (None, id)
        assert (await stream.next()).id is None
        assert (await stream.next()).id == id
        live = await stream.next()
        assert (live.type, live.id, live.json()["replayed"]) == ("live", id, 0)


async def test_what_comes_while_last_events_are_read_follows_them(here: Assembly, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither is it missing nor does it come twice (D7, L6)."""
    read = here.services.recent.events

    async def later(wanted: Wanted, up_to: Position) -> list[Entry]:
        await order(here, 2)
        found = await read(wanted, up_to)
        await order(here, 3)
        return found

    await order(here, 1)
    monkeypatch.setattr(here.services.recent, "events", later)
    async with opened(here, ORDERS) as stream:
        assert [one.json()["orderId"] for one in await until_live(stream)] == ["o1", "o2", "o3"]


@pytest.mark.parametrize(("replay", "expected"), [("0", []), ("2", ["o1", "o2"]), ("100", ["o0", "o1", "o2"])])
async def test_a_client_says_how_many_of_its_last_events_it_wants(here: Assembly, replay: str, expected: list[str]) -> None:
    """From none to all that there can be (D7)."""
    await order(here, 0, 1, 2)
    async with opened(here, ORDERS, f"?replay={replay}") as stream:
        assert [one.json()["orderId"] for one in await until_live(stream)] == expected


async def test_what_is_long_past_is_no_last_event(here: Assembly) -> None:
    """Five minutes later they are gone, but for those who ask by position (D7)."""
    first, _ = await order(here, 1, 2)
    here.services.time = lambda: here.clock.time() + 301
    async with opened(here, ORDERS) as stream:
        assert await until_live(stream) == []
    async with opened(here, ORDERS, f"?lastEventId={first}") as stream:
        assert [one.json()["orderId"] for one in await until_live(stream)] == ["o2"]


async def test_large_last_events_are_as_many_as_fit(here: Assembly) -> None:
    """What a slow client does not take of them waits in memory, so it is bounded (L7)."""
    await published(here, *(sample("ai:decision", "user:u1", decisionId=f"d{number}", reasoning="x" * 9000) for number in range(40)))
    async with opened(here, "/api/stream/ai-decisions") as stream:
        found = [one.json()["decisionId"] for one in await until_live(stream)]
        assert found == [f"d{number}" for number in range(40 - len(found), 40)]
        assert 25 < len(found) < 30


@pytest.mark.parametrize("how", ["header", "lastEventId", "from"])
async def test_a_returning_client_gets_what_it_missed(here: Assembly, how: str) -> None:
    """In the middle of a burst: from its last event on, each once and in order, past 100 and five minutes (D7, L6)."""
    ids = await order(here, *range(150))
    headers, query = ({"Last_Event_ID": ids[9]}, "") if how == "header" else ({}, f"?{how}={ids[9]}")
    async with opened(here, ORDERS, query, **headers) as stream:
        await order(here, *range(150, 160))
        assert await orders(stream, 150) == [f"o{number}" for number in range(10, 160)]


async def test_a_connection_is_resumed_as_it_was(here: Assembly) -> None:
    """On its own path, with what it had chosen, from where it stood (S1)."""
    async with opened(here, PRICES, "?symbols=AAPL", token=None) as stream:
        resume = (await stream.welcome()).json()["resumeToken"]
    await published(here, *(sample("price:update", "public", symbol=symbol) for symbol in ("MSFT", "AAPL")))
    async with opened(here, PRICES, f"?resume={resume}", token=None) as stream:
        assert [one.json()["symbol"] for one in await until_live(stream)] == ["AAPL"]
    assert (await get(here.port, f"{PRICES}?resume={resume}&symbols=MSFT")).error() == (400, "invalid_request", "symbols")
    assert (await get(here.port, f"{PRICES}?resume={resume}", token=MINE)).error() == (403, "forbidden", "resume")
    assert (await get(here.port, f"{ORDERS}?resume={resume}")).error() == (401, "unauthenticated", None)
    assert (await get(here.port, f"{ORDERS}?resume={resume}", token=MINE)).error() == (400, "invalid_request", "resume")
    assert (await get(here.port, f"/v1/stream?resume={resume}")).error() == (401, "unauthenticated", None)


async def test_a_resume_token_is_good_for_its_own_resource_only(here: Assembly) -> None:
    """The path names another one then (S4)."""
    await own(here.port, "strategy/s1", "user:u1")
    await own(here.port, "strategy/s2", "user:u1")
    await caught_up(here)
    async with opened(here, STRATEGY) as stream:
        resume = (await stream.welcome()).json()["resumeToken"]
    async with opened(here, STRATEGY, f"?resume={resume}", token=None) as stream:
        assert await until_live(stream) == []
    response = await get(here.port, f"/api/stream/strategies/s2?resume={resume}", token=MINE)
    assert response.error() == (400, "invalid_request", "resume")


@pytest.mark.parametrize(
    ("path", "query", "field"),
    [
        (ORDERS, "topics=a", "topics"),
        (ORDERS, "symbols=AAPL", "symbols"),
        (ORDERS, "userId=u1", "userId"),
        (PRICES, "replay=1", "replay"),
        (PRICES, "symbol=AAPL", "symbol"),
        (PRICES, f"symbols={'x' * 257}", "symbols"),
        (PRICES, "symbols=" + ",".join(["A"] * 101), "symbols"),
        (TRADING, "userId=a%20b", "userId"),
        (TRADING, "userId=a,b", "userId"),
        (ORDERS, "replay=101", "replay"),
        (ORDERS, "replay=-1", "replay"),
        (ORDERS, "replay=%C2%B2", "replay"),
        (ORDERS, "replay=", "replay"),
        (ORDERS, "from=2026-02-30T12:00:00Z", "from"),
        ("/events", "types=a", "types"),
    ],
)
async def test_a_query_that_cannot_be_meant_is_400(here: Assembly, path: str, query: str, field: str) -> None:
    """The parameter is named, as on /v1/stream."""
    assert (await get(here.port, f"{path}?{query}", token=MINE)).error() == (400, "invalid_request", field)


# ---- how many


async def test_the_eleventh_connection_closes_the_oldest(here: Assembly, expected_logs: list[str]) -> None:
    """Over all channels together; it is told why, and the others have their own ids and lives (D9)."""
    expected_logs.append("too many connections")
    async with opened(here, ORDERS, "?replay=0") as oldest:
        ids = {(await oldest.welcome()).json()["clientId"]}
        others = [opened(here, path, "?replay=0") for path in (ORDERS, "/api/stream/alerts", TRADING) for _ in range(3)]
        last = opened(here, "/api/stream/positions")
        for one in (*others, last):
            await one.__aenter__()
            ids.add((await one.welcome()).json()["clientId"])
        try:
            assert len(ids) == 11
            closing = await oldest.next_of("closing")
            assert closing.json()["code"] == 4409
            assert await oldest.ends()
            await published(here, sample("agent:status", "public"))
            for one in others:
                assert (await one.next_of("agent:status")).json()["agentId"] == "scout"
        finally:
            for one in (*others, last):
                await one.__aexit__()


async def test_nobody_is_counted_by_a_name_that_they_have_not(assemble: Assemble) -> None:
    """Whoever comes without a credential closes nobody else's stream (S6)."""
    here = await assemble(connections_per_user=1)
    async with opened(here, PRICES, token=None) as one, opened(here, PRICES, token=None) as other:
        assert await until_live(one) == await until_live(other) == []
        await published(here, sample("price:update", "public"))
        assert (await one.next()).type == (await other.next()).type == "price:update"


# ---- state


async def test_a_new_client_gets_the_state_of_its_orders_first(here: Assembly) -> None:
    """The newest event of each order, newest first, as of a position; then the last events, then what is new (D7, part 7)."""
    await order(here, 1, 2)
    (id,) = await published(here, sample("order:fill", "user:u1", orderId="o1"))
    async with opened(here, ORDERS, "?replay=1") as stream:
        await stream.welcome()
        snapshot = await stream.next()
        assert (snapshot.type, snapshot.json()["position"]) == ("snapshot", id)
        assert [(one["orderId"], one["status"]) for one in snapshot.json()["orders"]] == [("o1", "partially_filled"), ("o2", "new")]
        assert (await stream.next()).id == id
        assert (await stream.next()).type == "live"
        await order(here, 3)
        assert await orders(stream, 1) == ["o3"]


async def test_positions_come_with_their_total_value(here: Assembly) -> None:
    """In exact decimals; a position that was closed is gone from the list (D3)."""
    valued = EVENT_TYPES["position:update"].shown_sample
    assert valued is not None
    for symbol, quantity, value in (("AAPL", "1", "0.10"), ("MSFT", "0", "0"), ("GOOGL", "2", "0.2000000000000000000001")):
        data = msgspec.json.encode({**valued, "symbol": symbol, "quantity": quantity, "marketValue": value}).decode()
        await here.appender.append([NewEvent("trading.positions", "position:update", ("user:u1",), data, source=SOURCE, key=symbol)])
    await caught_up(here)
    async with opened(here, "/api/stream/positions", "?replay=0") as stream:
        await stream.welcome()
        snapshot = (await stream.next()).json()
        assert [one["symbol"] for one in snapshot["positions"]] == ["GOOGL", "AAPL"]
        assert snapshot["totalValue"] == "0.3000000000000000000001"


async def test_prices_begin_with_the_latest_of_each_symbol(here: Assembly) -> None:
    """Single events that say so, of the symbols that were asked for; whoever comes back to a position gets none (D4)."""
    ids = await published(
        here, *(sample("price:update", "public", symbol=symbol, price=price) for symbol, price in (("A", "1"), ("B", "2"), ("A", "3")))
    )
    async with opened(here, PRICES, token=None) as every, opened(here, PRICES, "?symbols=A,C", token=None) as chosen:
        found = [(one.json()["symbol"], one.json()["price"], one.json()["initializing"], one.id) for one in await until_live(every)]
        assert sorted(found) == [("A", "3", True, None), ("B", "2", True, None)]
        assert [one.json()["price"] for one in await until_live(chosen)] == ["3"]
    async with opened(here, PRICES, f"?lastEventId={ids[1]}", token=None) as stream:
        assert [(one.json()["price"], "initializing" in one.json()) for one in await until_live(stream)] == [("3", False)]


async def test_state_that_is_not_ready_sends_a_browser_away_for_a_moment(here: Assembly, monkeypatch: pytest.MonkeyPatch) -> None:
    """EventSource comes back to 200 only; others get 503 (S6)."""

    async def prepare(*_: object) -> None:
        raise NotReady("state is not ready to be read", retry_after=1)

    monkeypatch.setattr(here.services.snapshots, "prepare", prepare)
    async with opened(here, ORDERS) as stream:
        assert (stream.head.status, stream.head.headers["retry-after"]) == (200, "1")
    assert (await get(here.port, ORDERS, token=MINE)).error() == (503, "unavailable", None)


async def test_state_that_was_spoilt_after_it_was_read_opens_nothing(here: Assembly, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is found out before the connection is taken from the request."""

    class Spoilt:
        def now(self, format: object) -> bytes:
            raise NotReady("state has changed too much while it was read", retry_after=1)

    async def prepare(*_: object) -> Spoilt:
        return Spoilt()

    monkeypatch.setattr(here.services.snapshots, "prepare", prepare)
    assert (await get(here.port, ORDERS, token=MINE)).error() == (503, "unavailable", None)
    assert not here.hub.connections


async def test_state_and_what_follows_fit_together_while_events_pour_in(here: Assembly) -> None:
    """Whenever a client comes: after the state, every event, in order and none twice, so that it knows what everybody knows (L6)."""
    count = 300

    def update(number: int) -> NewEvent:
        data = msgspec.json.encode({**EVENT_TYPES["order:update"].sample, "orderId": "o1", "qty": number}).decode()
        return NewEvent("trading.orders", "order:update", ("user:u1",), data, key="o1")

    async def pour() -> None:
        for first in range(1, count, 10):
            await here.appender.append([update(number) for number in range(first, first + 10)])

    async def watch() -> None:
        async with opened(here, ORDERS, "?replay=0") as stream:
            await stream.welcome()
            known = (await stream.next()).json()["orders"][0]["qty"]
            while known < count:
                one = await stream.next()
                if one.type != "live":
                    known += 1
                    assert one.json()["qty"] == known

    await here.appender.append([update(0)])
    await caught_up(here)
    pouring = asyncio.create_task(pour())
    await asyncio.gather(pouring, *(watch() for _ in range(8)))


async def test_a_compressed_stream_begins_in_the_same_way(here: Assembly) -> None:
    """State, last events and what follows, for whoever accepts gzip as for others (T7)."""
    await order(here, 1, 2)
    async with opened(here, ORDERS, "?replay=1", Accept_Encoding="gzip") as packed, opened(here, ORDERS, "?replay=1") as plain:
        assert packed.head.headers["content-encoding"] == "gzip"
        assert (await packed.welcome()).json()["position"] == (await plain.welcome()).json()["position"]
        for _ in range(3):
            assert await packed.next() == await plain.next()
        await order(here, 3)
        assert await packed.next() == await plain.next()


# --- rights that change meanwhile


async def test_rights_that_are_lost_while_last_events_are_read_count(here: Assembly, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has lost a resource gets none of its events, is refused where he named it, and with a revoked credential altogether (L9)."""
    meanwhile: list[Awaitable[None]] = []
    find = RecentEvents.events

    async def slow(self: RecentEvents, wanted: Wanted, up_to: Position) -> list[Entry]:
        found = await find(self, wanted, up_to)
        assert found
        await meanwhile.pop()
        await caught_up(here)
        return found

    monkeypatch.setattr(RecentEvents, "events", slow)
    for resource in ("desk/1", "strategy/1"):
        await own(here.port, resource, "user:u1")
    named = (("trade:new", "resource:desk/1"), ("strategy:update", "resource:strategy/1"), ("alert:new", "user:u1"))
    await published(here, *(sample(type, audience) for type, audience in named))
    meanwhile.append(own(here.port, "desk/1", "user:u2"))
    async with EventStream(here.port, path="/api/stream/trading", token=token("u1")) as stream:
        assert [(await stream.next()).type for _ in range(2)] == ["welcome", "live"]
    for path, change, status in (
        ("/api/stream/strategies/1", own(here.port, "strategy/1", "user:u2"), 403),
        ("/api/stream/alerts", revoke(here.port, "user", "u1"), 401),
    ):
        meanwhile.append(change)
        assert (await get(here.port, path, token=token("u1"))).status == status
