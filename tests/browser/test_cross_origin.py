"""Pages of this and of other origins: what the browser lets through, and what the server refuses (SPEC T8)."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.browser.chromium import Chromium, Page
from tests.browser.conftest import Serve
from tests.browser.origin import Origin
from tests.faults.world import Server
from tests.handlers.assembly import PUBLISHER, USER
from tests.handlers.clients import EventStream, event, publish

TRY_EVERYTHING = """
async ([host, token]) => {
  listen(`http://${host}/v1/stream?token=${token}`, ["order:placed"])
  talk(`ws://${host}/ws`, ["tailcast", `bearer.${token}`])
}
"""
READ_STREAM = """
async ([url, token, position, awaited]) => {
  const headers = { Authorization: `Bearer ${token}`, "Last-Event-ID": position, "X-Correlation-ID": "from-a-page" }
  const leaving = new AbortController()
  const response = await fetch(url, { headers, signal: leaving.signal })
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
  let text = ""
  while (!awaited.every((part) => text.includes(part))) text += (await reader.read()).value
  leaving.abort()
  return [response.status, response.headers.get("X-Correlation-ID"), response.headers.get("Vary"), text]
}
"""
PUBLISH = """
async ([url, token, event]) => {
  const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json" }
  const response = await fetch(url, { method: "POST", headers, body: JSON.stringify(event) })
  return [response.status, response.headers.get("Retry-After"), await response.json()]
}
"""
FETCH_FAILS = "async ([url, token]) => fetch(url, { headers: { Authorization: `Bearer ${token}` } }).then(() => 'read', (e) => e.name)"


def host(server: Server) -> str:
    """Return host and port as they stand in URLs."""
    return f"127.0.0.1:{server.port}"


async def is_refused(page: Page, server: Server) -> None:
    """Check that neither transport says anything to a page, and that the WebSocket did not even open."""
    await page.run(TRY_EVERYTHING, [host(server), USER])
    await page.tells(lambda told: len(told) >= 2, "both have failed")
    assert sorted(told[0] for told in page.told) == ["close", "error"]
    assert page.of("error") == [2]
    assert page.of("close")[0]["code"] == 1006
    assert any("Unexpected response code: 403" in line for line in page.console)
    assert any("has been blocked by CORS policy" in line for line in page.console)
    assert await page.run(FETCH_FAILS, [f"http://{host(server)}/healthz", USER]) == "TypeError"


async def is_served(page: Page, server: Server) -> None:
    """Check that both transports welcome a page."""
    await page.run(TRY_EVERYTHING, [host(server), USER])
    await page.has("welcome", 2)
    assert page.of("error", "close") == []


@pytest.fixture
async def foreign(chromium: Chromium) -> AsyncIterator[Page]:
    """A page of an origin that the servers do not allow."""
    origin = Origin()
    await origin.start()
    page = await chromium.open(origin.url)
    yield page
    await page.close()
    await origin.stop()


async def test_a_page_of_an_allowed_origin_is_served(page: Page, server: Server) -> None:
    """EventSource and WebSocket alike."""
    await is_served(page, server)


async def test_fetch_reads_a_stream_with_headers(page: Page, server: Server) -> None:
    """With token, position and correlation id in headers, which a preflight has to allow; the correlation id can be read, too."""
    answer = await publish(server.port, [event(1, topic="fetched"), event(2, topic="fetched")], PUBLISHER)
    first, second = (receipt["id"] for receipt in answer.json()["events"])
    # Which of them comes first depends on when the server has heard of what it appended.
    awaited = ["event: live", f'id: {second}\nevent: order:placed\ndata: {{"n": 2}}\n\n']
    url = f"http://{host(server)}/v1/stream?topics=fetched"
    status, correlation_id, hidden, text = await page.run(READ_STREAM, [url, USER, first, awaited])
    assert (status, correlation_id, hidden) == (200, "from-a-page", None)
    assert first not in text.partition("event: order:placed")[2]


async def test_fetch_publishes_and_reads_refusals(page: Page, server: Server) -> None:
    """An allowed page may publish if its token may; it reads the envelope of a refusal as well (S8)."""
    url = f"http://{host(server)}/v1/events"
    status, _, receipt = await page.run(PUBLISH, [url, PUBLISHER, event(1)])
    assert (status, receipt["events"][0]["duplicate"]) == (202, False)
    for token, given, code in ((USER, event(1), 403), ("nonsense", event(1), 401), (PUBLISHER, {}, 422)):
        status, _, envelope = await page.run(PUBLISH, [url, token, given])
        assert (status, envelope["statusCode"]) == (code, code)


async def test_a_page_of_a_foreign_origin_is_refused(foreign: Page, server: Server) -> None:
    """The WebSocket handshake with 403; of EventSource and fetch the browser lets it read nothing."""
    await is_refused(foreign, server)


async def test_a_page_of_a_foreign_origin_cannot_publish(foreign: Page, server: Server) -> None:
    """The preflight does not allow it, so the browser does not even send it."""
    failed = "([url, token, event]) => publish([url, token, event]).then(() => 'published', (error) => error.name)"
    await foreign.load(f"const publish = {PUBLISH}")
    assert await foreign.run(failed, [f"http://{host(server)}/v1/events", PUBLISHER, event(1, topic="forged")]) == "TypeError"
    assert (await publish(server.port, event(2, topic="forged"), PUBLISHER)).status == 202
    async with EventStream(server.port, "?topics=forged&from=earliest", token=USER) as stream:
        assert (await stream.next_of("order:placed")).json() == {"n": 2}


async def test_a_page_without_an_origin_is_refused(page: Page, server: Server) -> None:
    """A sandboxed frame has the origin `null`, which anybody can have."""
    await page.load(
        """
        const frame = document.createElement("iframe")
        frame.sandbox = "allow-scripts"
        frame.srcdoc = `<script>
          const done = (what) => parent.postMessage(what, "*")
          addEventListener("message", ({ data: [host, token] }) => {
            const source = new EventSource("http://" + host + "/v1/stream?token=" + token)
            source.onerror = () => done(["error", source.readyState])
            source.addEventListener("welcome", () => done(["welcome", {}]))
            const socket = new WebSocket("ws://" + host + "/ws?token=" + token)
            socket.onclose = ({ code }) => done(["close", { code }])
            socket.onopen = () => done(["welcome", {}])
          })
          done(["ready"])
        </script>`
        addEventListener("message", ({ data }) => tell(data))
        document.body.append(frame)
        """
    )
    await page.tells(lambda told: told, "the frame is there")
    await page.run("(argument) => frame.contentWindow.postMessage(argument, '*')", [host(server), USER])
    await page.tells(lambda told: len(told) >= 3, "both have failed")
    assert sorted(page.told[1:], key=str) == [["close", {"code": 1006}], ["error", 2]]


async def test_every_origin_may_be_allowed(foreign: Page, serve: Serve) -> None:
    """With `*`; there are no cookies that this would lay open."""
    await is_served(foreign, await serve("--allowed_origins=*"))


async def test_the_servers_own_pages_are_served(page: Page, server: Server) -> None:
    """They need not be among the origins in the setting."""
    await page.go(f"http://{host(server)}/healthz")
    await is_served(page, server)
    await page.go("about:blank")
