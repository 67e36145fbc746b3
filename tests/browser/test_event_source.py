"""The browser's own EventSource against the server: what SPEC T1, T2, L8 and T10 promise, as a page sees it."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from pathlib import Path

from tests.browser.chromium import Page
from tests.browser.conftest import Serve
from tests.browser.origin import Origin
from tests.faults.world import Publisher, Server
from tests.handlers.assembly import PUBLISHER, token
from tests.handlers.clients import EventStream, event, publish
from tests.waiting import wait_until

CONNECTING, CLOSED = 0, 2  # readyState
LISTEN = "([url, types]) => { listen(url, types) }"
FILL = "order:placed"


def stream(server: Server, query: str = "topics=orders.*") -> str:
    """Return the URL of a stream for user u1."""
    return f"http://127.0.0.1:{server.port}/v1/stream?token={token()}&{query}"


async def listen(page: Page, url: str, *types: str) -> None:
    """Open an EventSource, and wait until it is welcome."""
    await page.run(LISTEN, [url, [FILL, *types]])
    await page.has("welcome")


def numbers(page: Page) -> list[int]:
    """Return the numbers of the events that a page has heard."""
    return [data["n"] for data in page.of(FILL)]


async def test_the_welcome_comes_first_then_events_in_order_with_their_ids(page: Page, server: Server) -> None:
    """Each event once, with the id from its receipt as `lastEventId` (X4, X5, L9)."""
    await listen(page, stream(server))
    answers = [await publish(server.port, batch, PUBLISHER) for batch in ([event(n) for n in range(50)], event(50), event(51))]
    await page.has(FILL, 52)
    assert {"clientId", "position", "expiresAt", "timestamp"} <= page.told[0][1].keys()
    receipts = [receipt["id"] for answer in answers for receipt in answer.json()["events"]]
    assert page.told == [page.told[0], *([FILL, {"n": n}, id] for n, id in enumerate(receipts))]


async def test_it_comes_back_by_itself_after_kill_9(page: Page, tmp_path: Path, origin: Origin) -> None:
    """With its last id in a header that wins over the URL: each acknowledged event once, in order, nothing doubled (T2, L6)."""
    async with Server(tmp_path, f"--allowed_origins={origin.url}") as server:
        publisher = Publisher(server)
        await publisher.publish(10)
        await listen(page, stream(server, "topics=orders.*&from=earliest"))

        async def kill() -> None:
            await page.has(FILL, 20)
            await server.end(signal.SIGKILL)
            await server.start()

        await publisher.publish(50, {20: kill})
        await page.has(FILL, 60)
        await page.has("live", 2)
        assert numbers(page) == publisher.acknowledged
        kinds = Counter(told[0] for told in page.told)
        assert kinds == {FILL: 60, "welcome": 2, "live": 2, "error": kinds["error"]}
        assert set(page.of("error")) == {CONNECTING}


async def test_a_gap_is_told_to_a_page_that_was_away_too_long(page: Page, serve: Serve) -> None:
    """While its server was down the log moved past its position: it is told from where to where, then gets what is left (L8)."""
    server, other = await serve("--log_bytes=64KiB"), await serve("--log_bytes=64KiB")
    publisher = Publisher(other, padding=500)
    await listen(page, stream(server))
    await publisher.publish(5)
    await page.has(FILL, 5)
    last_id = page.told[-1][2]
    await server.end(signal.SIGTERM)  # it comes back sooner than after kill -9
    batch = [event(n, data={"n": n, "padding": "x" * 500}) for n in range(6, 306)]
    assert (await publish(other.port, batch, PUBLISHER)).status == 202
    await server.start()
    await page.has("live")
    (gap,) = page.of("gap")
    assert (gap["from"], gap["reason"]) == (last_id, "evicted")
    rest = numbers(page)[5:]
    assert 6 < rest[0] < 300
    assert rest == list(range(rest[0], 306))
    kinds = [told[0] for told in page.told if told[0] not in (FILL, "error")]
    assert kinds == ["welcome", "closing", "welcome", "gap", "live"]


async def test_a_quiet_page_keeps_its_place(page: Page, serve: Serve) -> None:
    """Heartbeats move its position, unseen by its scripts; sent away by a restart it comes back and has missed nothing (L8a, T10)."""
    server = await serve("--log_bytes=64KiB", "--heartbeat_seconds=0.1")
    await listen(page, stream(server, "topics=quiet"))
    async with (
        EventStream(server.port, "?topics=quiet", token=token()) as like_it,
        EventStream(server.port, "?topics=loud", token=token()) as loud,
    ):
        reading = asyncio.create_task(like_it.next_of("closing"))
        for _ in range(20):  # in small batches, each after the one before was read: what fills the log overruns its readers
            batch = [event(n, topic="loud", data={"n": n, "padding": "x" * 500}) for n in range(10)]
            assert (await publish(server.port, batch, PUBLISHER)).status == 202
            for _ in batch:
                last = (await loud.next_of(FILL)).id
        await wait_until(lambda: like_it.last_id == last, "a heartbeat with the newest position")
        heard = len(like_it.comments)
        # Every sweep gives the page one, too, and of two the second has begun after that.
        await wait_until(lambda: len(like_it.comments) >= heard + 2, "two heartbeats more")
        await server.end(signal.SIGTERM)
        await reading
    await server.start()
    assert (await publish(server.port, event(1, topic="quiet"), PUBLISHER)).status == 202
    await page.tells(lambda _: numbers(page), "an event after the restart")
    (closing,) = page.of("closing")
    assert closing["code"] == 1012
    kinds = [told[0] for told in page.told if told[0] not in ("error", "live")]
    assert kinds == ["welcome", "closing", "welcome", FILL]
    before, behind = (told[2] for told in page.told[:2])
    assert behind != before, "the heartbeats carried no position"


async def test_payloads_arrive_as_they_were_published(page: Page, server: Server) -> None:
    """Whatever is in them; only line breaks between JSON's tokens are all the same to an event stream (T1)."""
    text = '{ "a":\r\n"\\r\\n\\u0000",\r"b" :\n\n["\u2028\u2029\ufeff\u00e4\U0001f600", 12345678901234567890.10],"c":"data: id: 1"}'
    body = f'{{"topic":"orders.eu","type":"message","audience":["public"],"data":{text}}}'.encode()
    await page.run("(url) => { listen(url).onmessage = ({ data }) => tell(['message', data]) }", stream(server))
    await page.has("welcome")
    assert (await publish(server.port, body, PUBLISHER)).status == 202
    await page.has("message")
    assert page.of("message") == [text.replace("\r\n", "\n").replace("\r", "\n")]


async def test_a_full_server_is_survived(page: Page, serve: Serve) -> None:
    """It is told to come back later with an answer at which EventSource does not give up, and is let in once there is room (T9)."""
    server = await serve("--max_connections=1")
    async with EventStream(server.port, token=token()) as other:
        await other.welcome()
        await page.run(LISTEN, [stream(server), []])
        await page.has("error")
        ((_, closing, _), (_, state)) = page.told[:2]
        assert (closing["code"], state) == (1013, CONNECTING)
        assert 1000 <= closing["retryMs"] <= 5000
    await page.has("welcome")


REFUSED = {
    "no token": "",
    "not a token": "token=nonsense",
    "a token of yesterday": f"token={token(seconds=-86400)}",
    "no such parameter": f"token={token()}&colour=red",
}


async def test_it_gives_up_when_it_is_refused(page: Page, server: Server) -> None:
    """Without a good token or with a wrong URL coming back would not help (S8)."""
    for query in REFUSED.values():
        page.told.clear()
        await page.run(LISTEN, [f"http://127.0.0.1:{server.port}/v1/stream?{query}", []])
        assert await page.has("error") == [CLOSED], query
        assert page.told == [["error", CLOSED]], query


async def test_it_gives_up_when_its_token_has_ended(page: Page, serve: Serve) -> None:
    """It is told with 4402, comes back with the same URL, and is refused; from there on it is the page's turn (S3)."""
    server = await serve("--jwt_leeway_seconds=0")
    seconds = 2
    while True:
        await page.run(LISTEN, [f"http://127.0.0.1:{server.port}/v1/stream?token={token(seconds=seconds)}", []])
        await page.tells(lambda told: told, "it is welcome, or refused")
        if page.of("welcome"):
            break
        page.told.clear()
        seconds *= 2  # the token had ended before it was shown: the machine is slow
    assert await page.has("error", 2) == [CONNECTING, CLOSED]
    assert [told[0] for told in page.told if told[0] != "expiring"] == ["welcome", "closing", "error", "error"]
    assert page.of("closing")[0]["code"] == 4402


async def test_six_streams_are_open_and_the_seventh_waits(page: Page, server: Server) -> None:
    """That is the browser's limit for one host over HTTP/1.1, as docs/how-to/browser.md says."""
    await page.run("(url) => { for (let n = 1; n <= 7; n++) listen(url, [], `source${n}`) }", stream(server))
    await page.has("welcome", 6)
    states = "[1, 2, 3, 4, 5, 6, 7].map((n) => window[`source${n}`].readyState)"
    assert Counter(await page.run(states)) == {1: 6, CONNECTING: 1}
    await page.run("source1.close()")
    await page.has("welcome", 7)
