"""The browser's own WebSocket against the server: what SPEC T3, T6, T9 and S1 promise, as a page sees it."""

from __future__ import annotations

import signal
from typing import Any

from hub.errors import POLICY, RESTART, TOKEN_EXPIRED, TOO_BIG, UNAUTHENTICATED
from hub.keeper import MISSED_PONGS
from tests.browser.chromium import Page
from tests.browser.conftest import Serve
from tests.faults.world import Publisher, Server
from tests.handlers.assembly import PUBLISHER, USER, token
from tests.handlers.clients import event, publish
from tests.waiting import PATIENCE_SECONDS

TALK = "([url, protocols, first]) => { talk(url, protocols, first) }"
SUBSCRIBE = {"type": "subscribe", "ref": "1", "topic": "orders.*"}
ABNORMAL = {"code": 1006, "reason": "", "wasClean": False}  # all that a page is told of a handshake that failed


async def talk(page: Page, server: Server, *first: Any, query: str = "", protocols: list[str] | None = None) -> None:
    """Open a WebSocket, which sends these messages first."""
    offered = ["tailcast", f"bearer.{USER}"] if protocols is None else protocols
    await page.run(TALK, [f"ws://127.0.0.1:{server.port}/ws{query}", offered, first])


async def say(page: Page, message: Any) -> None:
    """Send a message on the WebSocket."""
    await page.run("(message) => ws.send(JSON.stringify(message))", message)


async def closed(page: Page) -> dict[str, Any]:
    """Return what the page was told of the close, once it is."""
    await page.has("close")
    (close,) = page.of("close")
    assert isinstance(close, dict)
    return close


WAYS = {
    "tailcast and bearer.<token>": (["tailcast", f"bearer.{USER}"], "", "tailcast"),
    "bearer.<token> alone": ([f"bearer.{USER}"], "", f"bearer.{USER}"),
    "bearer and the token": (["bearer", USER], "", "bearer"),
    "the token alone": ([USER], "", USER),
    "the page's own protocol and the token": (["chat", USER], "", "chat"),
    "the query": ([], f"?token={USER}", ""),
}


async def test_the_token_may_come_in_every_documented_way(page: Page, server: Server) -> None:
    """With each the handshake succeeds, one of the offered subprotocols is agreed on, and `welcome` is the first message (S1, X5)."""
    for protocols, query, agreed in WAYS.values():
        page.told.clear()
        await talk(page, server, SUBSCRIBE, query=query, protocols=protocols)
        await page.has("subscribed")
        assert [told[0] for told in page.told] == ["welcome", "subscribed"]
        assert await page.run("ws.protocol") == agreed
        await page.run("ws.close()")
        assert (await closed(page))["wasClean"]
    page.told.clear()
    await talk(page, server, {"type": "auth", "token": USER}, SUBSCRIBE, protocols=[])
    await page.has("subscribed")
    assert [told[0] for told in page.told] == ["welcome", "subscribed"]


async def test_events_come_in_order_with_their_ids(page: Page, server: Server) -> None:
    """Each event once, with the id from its receipt, its topic and type (X7, L9)."""
    await talk(page, server, SUBSCRIBE)
    await page.has("subscribed")
    answers = [await publish(server.port, batch, PUBLISHER) for batch in ([event(n) for n in range(50)], event(50), event(51))]
    await page.has("event", 52)
    events = page.of("event")
    assert [one["id"] for one in events] == [receipt["id"] for answer in answers for receipt in answer.json()["events"]]
    assert [one["data"] for one in events] == [{"n": n} for n in range(52)]
    assert {(one["topic"], one["event"]) for one in events} == {("orders.eu", "order:placed")}


async def test_it_gets_what_it_missed_after_kill_9(page: Page, serve: Serve) -> None:
    """The connection is cut without a word; on a new one, with the last position, comes what was missed, and then `live` (L6)."""
    server = await serve()
    publisher = Publisher(server)
    await talk(page, server, SUBSCRIBE)
    await page.has("subscribed")
    await publisher.publish(20)
    await page.has("event", 20)
    await server.end(signal.SIGKILL)
    assert await closed(page) == ABNORMAL
    await server.start()
    await publisher.publish(20)
    await talk(page, server, {**SUBSCRIBE, "position": page.of("event")[-1]["id"]})
    await page.has("live")
    await publisher.publish(1)
    await page.has("event", 41)
    assert [one["data"]["n"] for one in page.of("event")] == publisher.acknowledged
    assert 0 <= page.of("live")[0]["replayed"] <= 20


async def test_a_gap_is_told(page: Page, server: Server) -> None:
    """A position that the log never issued: it says so, gives it back, and sends all that there is (L8)."""
    assert (await publish(server.port, [event(n, topic="kept") for n in range(3)], PUBLISHER)).status == 202
    await talk(page, server, {**SUBSCRIBE, "topic": "kept", "position": "not-ours"})
    await page.has("event", 3)
    await page.has("live")  # where it stands depends on when the server has heard of what it appended
    assert [told[0] for told in page.told if told[0] != "live"] == ["welcome", "subscribed", "gap", "event", "event", "event"]
    (gap,) = page.of("gap")
    assert (gap["from"], gap["reason"]) == ("not-ours", "unknown position")


async def test_payloads_arrive_as_they_were_published(page: Page, server: Server) -> None:
    """Character for character within the message, whatever is in them."""
    text = '{ "a":\r\n"\\r\\n\\u0000",\r"b" :\n\n["\u2028\u2029\ufeff\u00e4\U0001f600", 12345678901234567890.10]}'
    body = f'{{"topic":"orders.eu","type":"message","audience":["public"],"data":{text}}}'.encode()
    await talk(page, server, SUBSCRIBE)
    await page.run("() => { ws.addEventListener('message', ({ data }) => data.includes('orders.eu') && tell(['raw', data])) }")
    await page.has("subscribed")
    assert (await publish(server.port, body, PUBLISHER)).status == 202
    (raw,) = await page.has("raw")
    assert f'"data":{text},' in raw


async def test_the_browser_answers_pings_and_scripts_see_the_position(page: Page, serve: Serve) -> None:
    """It outlives the four heartbeats without an answer after which it would be closed, and gets `position` when that moved (T6, L8a)."""
    server = await serve("--heartbeat_seconds=2")  # so it has eight seconds to answer on a busy machine
    await talk(page, server, {**SUBSCRIBE, "topic": "quiet"})
    await page.has("subscribed")
    publisher = Publisher(server)
    for count in range(1, MISSED_PONGS + 2):
        await publisher.publish(1)
        await page.has("position", count)
    await say(page, {"type": "ping", "ref": "2"})
    await page.has("pong")
    assert page.of("pong")[0]["position"] == page.of("position")[-1]["position"]
    assert page.of("close", "event") == []


async def test_a_credential_is_renewed_on_the_open_connection(page: Page, server: Server) -> None:
    """It is told that its time is nearly over, sends a new token, and stays (S3)."""
    await talk(page, server, query=f"?token={token(seconds=28)}", protocols=[])
    await page.has("expiring")
    await say(page, {"type": "auth", "ref": "1", "token": USER})
    await page.has("renewed")
    assert page.of("renewed")[0]["expiresAt"] > page.of("welcome")[0]["expiresAt"]


async def silence(page: Page, server: Server) -> None:
    """Send no credential."""
    await talk(page, server, protocols=[])


async def bad_token(page: Page, server: Server) -> None:
    """Send a credential that does not hold."""
    await talk(page, server, {"type": "auth", "token": "nonsense"}, protocols=[])


async def old_token(page: Page, server: Server) -> None:
    """Send a credential that is over, within an open connection's life or before."""
    await talk(page, server, {"type": "auth", "token": token(seconds=-86400)}, protocols=[])


async def short_token(page: Page, server: Server) -> None:
    """Stay for longer than the credential holds."""
    await talk(page, server, query=f"?token={token(seconds=1)}", protocols=[])


async def nonsense(page: Page, server: Server) -> None:
    """Say again and again what is no message."""
    await talk(page, server, *["nonsense"] * 11)


async def too_much(page: Page, server: Server) -> None:
    """Send a message above the limit."""
    await talk(page, server, {"type": "ping", "ref": "x" * 2000})


async def a_restart(page: Page, server: Server) -> None:
    """Stay until the server stops."""
    await talk(page, server)
    await page.has("welcome")
    await server.end(signal.SIGTERM)


CLOSES = {
    silence: (UNAUTHENTICATED, "no credential came in time"),
    bad_token: (UNAUTHENTICATED, "the token cannot be read"),
    old_token: (TOKEN_EXPIRED, "the token has expired"),
    short_token: (TOKEN_EXPIRED, "the credential has expired"),
    nonsense: (POLICY, "too many invalid messages"),
    too_much: (TOO_BIG, "a message may have at most 1024 bytes"),
    a_restart: (RESTART, "the server restarts"),
}


async def test_close_codes_reach_the_page_with_their_reason(page: Page, serve: Serve) -> None:
    """`closing` says it, and the close frame says the same: the close is clean, never a bare drop (T9)."""
    impatient = await serve("--auth_seconds=0.2")
    server = await serve(f"--auth_seconds={PATIENCE_SECONDS}", f"--jwt_leeway_seconds={PATIENCE_SECONDS}", "--max_frame_bytes=1KiB")
    seen = {}
    for cause in CLOSES:
        page.told.clear()
        await cause(page, impatient if cause is silence else server)
        close = await closed(page)
        assert close["wasClean"], cause
        (closing,) = page.of("closing")
        assert (closing["code"], closing["reason"]) == (close["code"], close["reason"])
        assert ("retryMs" in closing) == (cause is a_restart)
        seen[cause] = (close["code"], close["reason"])
    assert seen == CLOSES


async def test_the_pages_own_close_is_answered(page: Page, server: Server) -> None:
    """With the page's own code, and cleanly (RFC 6455, 7.1.4)."""
    for script, code in (("ws.close()", 1000), ("ws.close(1000)", 1000), ("ws.close(3001, 'bye')", 3001)):
        page.told.clear()
        await talk(page, server)
        await page.has("welcome")
        await page.run(script)
        assert await closed(page) == {"code": code, "reason": "", "wasClean": True}


async def test_a_refused_handshake_is_an_abnormal_close(page: Page, serve: Serve) -> None:
    """Whatever its status was, 401 or 503: the page is told 1006, as docs/how-to/browser.md says."""
    server = await serve("--max_connections=1")
    await talk(page, server, query="?token=nonsense", protocols=[])
    assert await closed(page) == ABNORMAL
    assert "HTTP Authentication failed" in page.console[-1]
    page.told.clear()
    await talk(page, server)
    await page.has("welcome")
    await talk(page, server)
    assert await closed(page) == ABNORMAL
    assert "503" in page.console[-1]
