"""Tests of handlers/stream.py: from a GET to a stream of events, and how it begins, resumes and ends."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from handlers.stream import MAX_TOPICS
from hub.connection import State
from hub.formats import RETRY_MS
from tests.handlers.assembly import PUBLISHER, USER, Assembly, token
from tests.handlers.clients import EventStream, SseEvent, Wire, event, get, publish, request_bytes
from tests.handlers.conftest import Assemble, StoppableMongoDB
from tests.waiting import wait_until


async def published(here: Assembly, *events: dict[str, Any]) -> list[str]:
    """Publish events and return their ids, once the tail has read them."""
    response = await publish(here.port, list(events), PUBLISHER)
    ids = [one["id"] for one in response.json()["events"]]
    await wait_until(lambda: here.hub.id_of(here.hub.head) == ids[-1], "the tail has read what was published")
    return ids


async def numbers(stream: EventStream, count: int) -> list[Any]:
    """Return what `event(n)` was made with, of the next events."""
    return [(await stream.next()).json()["n"] for _ in range(count)]


async def rest_until_live(stream: EventStream) -> list[SseEvent]:
    """Return all events up to `live`, which is the last of them."""
    found = [await stream.next()]
    while found[-1].type != "live":
        found.append(await stream.next())
    return found


# ---- the answer


async def test_the_answer_has_the_headers_of_an_event_stream(here: Assembly) -> None:
    """Content type, no caching, no buffering in nginx, chunks, and a connection that stays (T1)."""
    async with EventStream(here.port, token=USER) as stream:
        head = stream.head
        assert head.status == 200
        assert head.headers["content-type"] == "text/event-stream"
        assert head.headers["cache-control"] == "no-cache"
        assert head.headers["connection"] == "keep-alive"
        assert head.headers["x-accel-buffering"] == "no"
        assert head.headers["transfer-encoding"] == "chunked"
        assert head.headers["x-correlation-id"]
        assert "content-length" not in head.headers


async def test_welcome_comes_first(here: Assembly) -> None:
    """It tells the client's id, position, time and the end of its credential, and sets the time to reconnect (X5, T1)."""
    async with EventStream(here.port, token=USER) as stream:
        welcome = await stream.welcome()
        body = welcome.json()
        assert {"clientId", "position", "expiresAt", "timestamp"} <= body.keys()
        assert welcome.id == body["position"] == here.hub.id_of(here.hub.head)
        assert welcome.retry == RETRY_MS
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", body["expiresAt"])
    async with EventStream(here.port, token=USER) as other:
        assert (await other.welcome()).json()["clientId"] != body["clientId"]


async def test_an_event_has_its_type_id_and_data(here: Assembly) -> None:
    """`event:` its type, `id:` its id, and `data:` its payload alone (X7)."""
    async with EventStream(here.port, token=USER) as stream:
        await stream.welcome()
        (id,) = await published(here, event(7))
        assert await stream.next() == SseEvent("order:placed", '{"n": 7}', id)


async def test_an_http_1_0_client_gets_the_stream_without_chunks(here: Assembly) -> None:
    """What ends with the connection says so; a chunk's size would be read as an event's text."""
    async with EventStream(here.port, token=USER, version="1.0") as stream:
        assert "transfer-encoding" not in stream.head.headers
        assert stream.head.headers["connection"] == "close"
        await stream.welcome()
        await published(here, event(7))
        assert await numbers(stream, 1) == [7]


async def test_a_page_of_an_allowed_origin_may_read_the_stream(assemble: Assemble) -> None:
    """The stream's own head has the cross-origin headers (T8)."""
    here = await assemble(allowed_origins=("https://app.example.com",))
    async with EventStream(here.port, token=USER, Origin="https://app.example.com") as stream:
        assert stream.head.headers["access-control-allow-origin"] == "https://app.example.com"
    async with EventStream(here.port, token=USER, Origin="https://evil.example.com") as stream:
        assert "access-control-allow-origin" not in stream.head.headers


async def test_without_a_credential_there_is_an_error_in_the_envelope(here: Assembly) -> None:
    """401, and no stream (S8)."""
    async with EventStream(here.port) as stream:
        assert stream.head.status == 401
    assert (await get(here.port, "/v1/stream")).error() == (401, "unauthenticated", None)


# ---- what is selected


async def test_nobody_gets_what_is_addressed_to_others(here: Assembly) -> None:
    """Public events, and those to one's own user, organisation, entity or granted audiences; live and replayed alike (L9)."""
    audiences = ["public", "user:u1", "user:u2", "org:o1", "org:o2", "entity:e1", "entity:e2", "resource:stream/1", "resource:stream/2"]
    mine = token("u1", org="o1", entity="e1", audiences=["resource:stream/1"])
    own = ["public", "user:u1", "org:o1", "entity:e1", "resource:stream/1"]
    async with EventStream(here.port, token=mine) as live:
        await live.welcome()
        await published(here, *(event(name, audience=[name]) for name in audiences))
        assert await numbers(live, 5) == own
        async with EventStream(here.port, "?from=earliest", token=mine) as replayed:
            await replayed.welcome()
            assert await numbers(replayed, 5) == own
            assert (await replayed.next()).type == "live"
        await published(here, event("end"))
        assert await numbers(live, 1) == ["end"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("topics=orders.eu", [0, 3]),
        ("topics=orders.*", [0, 1, 3]),
        ("topics=orders.us,alerts", [1, 2]),
        ("topics=**", [0, 1, 2, 3]),
        ("topics=,orders.us,", [1]),
        ("types=fill", [0, 2]),
        ("types=fill,new", [0, 1, 2]),
        ("sources=s2", [1, 3]),
        ("topics=orders.*&types=fill&sources=s1", [0]),
        ("minAmount=10", [1, 2, 3]),
        ("minAmount=10&maxAmount=20.5", [1, 2]),
        ("topics=orders.eu&minAmount=10", [3]),
        ("topics=&types=&sources=", [0, 1, 2, 3]),
        ("topics=orders.us&topics=alerts", [1, 2]),
        ("topics=orders.us&topics=", [1]),
        ("types=new,x&types=fill&sources=s1&sources=s3", [0, 2]),
        ("keys=k1", [1]),
        ("keys=k1,k%203", [1, 3]),
        ("topics=orders.*&keys=k1&keys=k2", [1]),
    ],
)
async def test_the_query_selects(here: Assembly, query: str, expected: list[int]) -> None:
    """Topics with `*` and `**`, types, sources, keys, and bounds on numbers of the payload (X5, T4). A parameter that is
    repeated is one list."""
    rows = [
        ("orders.eu", "fill", "s1", 5, {}),
        ("orders.us", "new", "s2", 10, {"key": "k1"}),
        ("alerts", "fill", "s1", "20.5", {"key": "k2"}),
        ("orders.eu", "x", "s2", 30, {"key": "k 3"}),
    ]
    async with EventStream(here.port, f"?{query}", token=USER) as stream:
        await stream.welcome()
        every = [
            event(topic=topic, type=type, source=source, data={"n": number, "amount": amount}, **key)
            for number, (topic, type, source, amount, key) in enumerate(rows)
        ]
        await published(here, *every)
        assert await numbers(stream, len(expected)) == expected


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("topic=a", "topic"),
        ("Topics=a", "Topics"),
        ("limit=5", "limit"),
        ("topics=a..b", "topics"),
        ("topics=a%20b", "topics"),
        ("topics=" + ",".join(["a"] * (MAX_TOPICS + 1)), "topics"),
        ("types=a*", "types[0]"),
        ("sources=a,b%0ac", "sources[1]"),
        ("types=" + ",".join(["a"] * 101), "types"),
        ("keys=k," + "x" * 257, "keys[1]"),
        ("keys=" + ",".join(["k"] * 101), "keys"),
        ("minAmount=ten", "minAmount"),
        ("maxAmount=NaN", "maxAmount"),
        ("minAmount=1&minAmount=2", "minAmount"),
        ("topics=a&topics=a..b", "topics"),
        ("from=2026-01-31T12:00:00", "from"),
        ("from=2026-01-31T99:00:00Z", "from"),
        ("lastEventId=2026-02-30T12:00:00Z", "lastEventId"),
    ],
)
async def test_a_query_that_cannot_be_meant_is_400(here: Assembly, query: str, field: str) -> None:
    """The parameter is named; a misspelt one would otherwise select everything."""
    assert (await get(here.port, f"/v1/stream?{query}", token=USER)).error() == (400, "invalid_request", field)


# ---- where it begins


async def test_without_a_position_it_begins_now(here: Assembly) -> None:
    """Nothing old comes, and no `live`: the connection was never behind (T2)."""
    await published(here, event(1))
    async with EventStream(here.port, token=USER) as stream:
        await stream.welcome()
        await published(here, event(2))
        assert await numbers(stream, 1) == [2]


async def test_from_earliest_replays_everything(here: Assembly) -> None:
    """All that is still in the log, then `live` with how many they were, then what is new (T2, X5)."""
    ids = await published(here, *(event(number) for number in range(3)))
    async with EventStream(here.port, "?from=earliest", token=USER) as stream:
        await stream.welcome()
        assert await numbers(stream, 3) == [0, 1, 2]
        live = await stream.next()
        assert (live.type, live.id, live.json()["position"], live.json()["replayed"]) == ("live", ids[-1], ids[-1], 3)
        await published(here, event(3))
        assert await numbers(stream, 1) == [3]


@pytest.mark.parametrize("name", ["from", "lastEventId"])
async def test_from_an_id_replays_what_came_after_it(here: Assembly, name: str) -> None:
    """The event with that id has been had (T2, D7)."""
    ids = await published(here, *(event(number) for number in range(3)))
    async with EventStream(here.port, f"?{name}={ids[0]}", token=USER) as stream:
        assert (await stream.welcome()).id == ids[0]
        assert await numbers(stream, 2) == [1, 2]
        assert (await stream.next()).json()["replayed"] == 2


async def test_from_the_newest_id_nothing_is_replayed(here: Assembly) -> None:
    """A client that missed nothing hears `live` at once."""
    (id,) = await published(here, event(1))
    async with EventStream(here.port, f"?from={id}", token=USER) as stream:
        await stream.welcome()
        assert (await stream.next()).json() == {"position": id, "replayed": 0}


async def test_from_a_time_replays_what_came_then_or_later(here: Assembly) -> None:
    """RFC 3339 with any zone; the `+` of one may have become a space in the URL (T2)."""
    await published(here, event(1))
    first = (await here.log.head()).ms
    await wait_until(lambda: time.time() * 1000 >= first + 2, "the clock shows another millisecond")
    await published(here, event(2))
    moment = datetime.fromtimestamp((first + 1) / 1000, UTC).isoformat(timespec="milliseconds")
    for text in (moment, moment.replace("+00:00", "Z"), moment.replace("+", "%2B")):
        async with EventStream(here.port, f"?from={text}", token=USER) as stream:
            await stream.welcome()
            assert await numbers(stream, 1) == [2]
            assert (await stream.next()).type == "live"


async def test_from_a_time_to_come_begins_now(here: Assembly) -> None:
    """There is nothing later than now."""
    await published(here, event(1))
    async with EventStream(here.port, "?from=2999-01-01T00:00:00Z", token=USER) as stream:
        await stream.welcome()
        assert (await stream.next()).json()["replayed"] == 0


@pytest.mark.parametrize("id", ["garbage", "1700000000000-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "-", "x" * 500, "%01x%0a"])
async def test_from_an_unknown_id_there_is_a_gap_and_then_everything(here: Assembly, id: str) -> None:
    """Never a silent loss: `gap` in band, then all that is there (L8)."""
    await published(here, event(1))
    async with EventStream(here.port, f"?lastEventId={id}", token=USER) as stream:
        await stream.welcome()
        gap = await stream.next()
        assert gap.type == "gap"
        assert gap.json()["reason"] in ("unknown position", "log recreated")
        assert {"from", "to", "fromTime", "toTime"} <= gap.json().keys()
        assert gap.id == gap.json()["to"]
        assert await numbers(stream, 1) == [1]


@pytest.fixture(autouse=True)
def _gaps_are_logged(request: pytest.FixtureRequest, expected_logs: list[str]) -> None:
    """A gap is worth a warning (S10)."""
    if "gap" in request.node.name:
        expected_logs.append("gap reported")


async def test_the_header_of_a_returning_browser_wins(here: Assembly) -> None:
    """EventSource repeats its URL, and adds where it was: `Last-Event-ID` before `lastEventId` before `from` (T2)."""
    ids = await published(here, *(event(number) for number in range(4)))
    async with EventStream(here.port, f"?lastEventId={ids[0]}&from=earliest", token=USER, Last_Event_ID=ids[2]) as stream:
        await stream.welcome()
        assert await numbers(stream, 1) == [3]
    async with EventStream(here.port, f"?lastEventId={ids[1]}&from=earliest", token=USER) as stream:
        await stream.welcome()
        assert await numbers(stream, 2) == [2, 3]


async def test_a_long_replay_arrives_whole_and_in_order(here: Assembly) -> None:
    """More than a socket takes at once, while more is published: each event once, in order (L6, L9)."""
    size = 1000
    for start in range(0, size, 250):
        await published(here, *(event(number, data={"n": number, "pad": "x" * 2000}) for number in range(start, start + 250)))
    async with EventStream(here.port, "?from=earliest", token=USER) as stream:
        await stream.welcome()
        await published(here, *(event(number) for number in range(size, size + 5)))
        seen: list[int] = []
        while len(seen) < size + 5:
            one = await stream.next()
            if one.type == "order:placed":
                seen.append(one.json()["n"])
        assert seen == list(range(size + 5))


async def test_from_a_time_is_503_while_mongodb_hangs(
    assemble: Assemble, stoppable_mongodb: StoppableMongoDB, expected_logs: list[str]
) -> None:
    """What must be looked up cannot be; the client is told when to come back."""
    expected_logs.append("tail interrupted")
    here = await assemble(stoppable_mongodb.uri)
    await stoppable_mongodb.hang()
    response = await get(here.port, "/v1/stream?from=2026-01-31T12:00:00Z", token=USER)
    assert response.error() == (503, "unavailable", None)
    assert int(response.headers["retry-after"]) > 0


# ---- while it lasts


async def test_heartbeats_carry_the_position(here: Assembly) -> None:
    """A quiet stream hears a comment, with an `id` when the log has moved on without it (T6, L8a)."""
    async with EventStream(here.port, "?topics=quiet", token=USER) as stream:
        await stream.welcome()
        (id,) = await published(here, event(1))
        await here.pass_seconds(here.settings.heartbeat_seconds)
        await here.pass_seconds(here.settings.heartbeat_seconds)
        await published(here, event("end", topic="quiet"))
        assert await stream._next_block() == f":heartbeat\nid: {id}"
        assert await stream._next_block() == ":heartbeat"


async def test_a_stream_ends_with_its_credential(here: Assembly) -> None:
    """It is told some seconds before, then closed with the reason, and the answer ends in good order (S3, T9)."""
    async with EventStream(here.port, token=token(seconds=100)) as stream:
        welcome = (await stream.welcome()).json()
        await here.pass_seconds(80)
        expiring = await stream.next()
        assert (expiring.type, expiring.json()) == ("expiring", {"expiresAt": welcome["expiresAt"]})
        await here.pass_seconds(21)
        closing = await stream.next()
        assert (closing.type, closing.json()["code"]) == ("closing", 4402)
        assert await stream.ends()


async def test_a_token_without_an_end_opens_a_stream_without_one(here: Assembly) -> None:
    """`expiresAt` is null then."""
    async with EventStream(here.port, token=token(exp=None)) as stream:
        assert (await stream.welcome()).json()["expiresAt"] is None


async def test_its_log_lines_carry_the_correlation_id_of_the_request(here: Assembly, caplog: pytest.LogCaptureFixture) -> None:
    """From the request to the end of the stream one id leads through (S9)."""
    caplog.set_level(logging.INFO, "tailcast")
    async with EventStream(here.port, token=USER, X_Correlation_ID="c1") as stream:
        await stream.welcome()
    await wait_until(lambda: not here.hub.connections, "the connection is forgotten")
    lines = {record.message: record.__dict__["fields"]["correlationId"] for record in caplog.records}
    assert lines == {"connected": "c1", "disconnected": "c1"}


async def test_what_comes_behind_the_request_is_thrown_away(here: Assembly) -> None:
    """A pipelined request, or garbage, does not hurt the stream: it is never answered."""
    headers = {"Host": "x", "Authorization": f"Bearer {USER}"}
    async with EventStream(here.port) as stream:
        assert stream.head.status == 401
    stream = EventStream(here.port)
    stream._request = request_bytes("GET", "/v1/stream", headers) + request_bytes("GET", "/healthz", {"Host": "x"}) + b"\x00garbage"
    async with stream:
        await stream.welcome()
        stream.send(b"\xff" * 100_000)
        await published(here, event(1))
        assert await numbers(stream, 1) == [1]


async def test_a_client_that_ends_its_side_is_gone(here: Assembly) -> None:
    """A half-closed connection is closed, and forgotten."""
    async with EventStream(here.port, token=USER) as stream:
        await stream.welcome()
        stream.end()
        assert await stream.read_rest() == b""
    await wait_until(lambda: not here.hub.connections, "the connection is forgotten")


@pytest.mark.parametrize("query", ["", "?from=2026-01-31T12:00:00Z"])
async def test_a_client_that_leaves_at_once_leaves_nothing_behind(here: Assembly, query: str) -> None:
    """Gone or half-closed before the answer, while a position is being looked up or not."""
    for leave in ("end", "close"):
        async with Wire(here.port) as wire:
            wire.send(request_bytes("GET", f"/v1/stream{query}", {"Host": "x", "Authorization": f"Bearer {USER}"}))
            if leave == "end":
                wire.end()
                await wire.read_rest()
    assert (await get(here.port, "/healthz")).status == 200  # asked later, answered: so the requests were read
    await wait_until(lambda: not any("_execute" in repr(task.get_coro()) for task in asyncio.all_tasks()), "the look-ups have ended")
    await wait_until(lambda: not here.hub.connections and not len(here.services.poller), "all is forgotten")


async def test_a_slow_reader_loses_nothing(here: Assembly) -> None:
    """It leaves the live path with a bounded rest pending, and reads on from its position when its socket drains (L7)."""
    async with EventStream(here.port, token=USER) as stream:
        await stream.welcome()
        (connection,) = here.hub.connections
        stream.reader._transport.pause_reading()  # type: ignore[attr-defined]
        count = 400  # 8 MB: with much less it could be at the head again before it reads, when the kernel has moved what it took
        for first in range(0, count, 20):
            await published(here, *(event(number, data={"n": number, "pad": "x" * 20_000}) for number in range(first, first + 20)))
        await wait_until(lambda: connection.state is State.BLOCKED, "it has left the live path")
        await published(here, event(count))
        stream.reader._transport.resume_reading()  # type: ignore[attr-defined]
        assert await numbers(stream, count + 1) == list(range(count + 1))
        assert (await stream.next()).type == "live"


# ---- when there is no room


async def test_beyond_the_limit_a_browser_is_sent_away_in_its_own_language(assemble: Assemble, expected_logs: list[str]) -> None:
    """EventSource gives up for good at any status but 200: it gets `closing` with a time to come back, and the end (S6, T9)."""
    expected_logs.append("refused: the server has as many connections")
    here = await assemble(max_connections=1)
    async with EventStream(here.port, token=USER) as stream:
        await stream.welcome()
        response = await get(here.port, "/v1/stream", token=USER, headers={"Accept": "text/event-stream"})
        assert (response.status, response.headers["content-type"]) == (200, "text/event-stream")
        assert response.body.startswith(b"retry: 1234\nevent: closing\ndata: {")
        assert b'"code":1013' in response.body
        assert b'"retryMs":1234' in response.body
        response = await get(here.port, "/v1/stream", token=USER)
        assert response.error() == (503, "unavailable", None)
        assert int(response.headers["retry-after"]) > 0


async def test_a_stopping_server_takes_no_streams(here: Assembly) -> None:
    """The same answer as of a full one (T10)."""
    here.services.stopping = True
    response = await get(here.port, "/v1/stream", token=USER, headers={"Accept": "text/html, text/event-stream"})
    assert (response.status, b"event: closing" in response.body) == (200, True)
