"""What pages use in place of a token: the session cookie that the browser adds, tickets, and resume tokens (SPEC S1)."""

from __future__ import annotations

from typing import Any

from tests.browser.chromium import Chromium, Page
from tests.browser.origin import Origin
from tests.faults.world import Server
from tests.handlers.assembly import PUBLISHER, USER, token
from tests.handlers.clients import event, publish, request

CLOSED = 2  # readyState
WITH_COOKIES = """
(host) => {
  const source = new EventSource(`http://${host}/v1/stream`, { withCredentials: true })
  for (const type of ["welcome", "error"]) source.addEventListener(type, () => tell(["source", type]))
  const socket = new WebSocket(`ws://${host}/ws`)
  for (const type of ["message", "error"]) socket.addEventListener(type, () => tell(["socket", type]))
}
"""
TICKET = """
async ([host, token]) => {
  const headers = { Authorization: `Bearer ${token}` }
  const response = await fetch(`http://${host}/v1/tickets`, { method: "POST", headers })
  return (await response.json()).ticket
}
"""
TALK = "([url, first]) => { talk(url, [], first) }"
LISTEN = "(url) => { listen(url, ['order:placed']) }"


def host(server: Server) -> str:
    """Return host and port as they stand in URLs."""
    return f"127.0.0.1:{server.port}"


async def sign_in(page: Page, server: Server) -> None:
    """Give a page the cookie of a session of user u1."""
    answer = await request(server.port, "POST", "/v1/sessions", token=token("a1", roles=["admin"]), body=b'{"sub": "u1"}')
    assert answer.status == 201
    await page.set_cookie("session", answer.json()["session"], f"http://{host(server)}")


async def outcomes(page: Page, server: Server) -> dict[str, Any]:
    """Return what each transport comes to with nothing but cookies."""
    await page.run(WITH_COOKIES, host(server))
    return dict(await page.tells(lambda told: len(told) >= 2, "both have come to something"))


async def test_a_session_cookie_is_enough_for_an_allowed_page(page: Page, server: Server) -> None:
    """EventSource has to be told to send it to another origin, and without it is refused; a WebSocket always sends it."""
    await sign_in(page, server)
    assert await outcomes(page, server) == {"source": "welcome", "socket": "message"}
    page.told.clear()
    await page.run(LISTEN, f"http://{host(server)}/v1/stream")
    assert await page.has("error") == [CLOSED]


async def test_a_session_cookie_is_not_taken_from_a_foreign_page(chromium: Chromium, server: Server) -> None:
    """Though the browser sends it: nobody can use the session of a user whom they have lured to their page."""
    origin = Origin()
    await origin.start()
    page = await chromium.open(origin.url)
    await sign_in(page, server)
    assert await outcomes(page, server) == {"source": "error", "socket": "error"}
    await page.close()
    await origin.stop()


async def test_a_ticket_opens_one_stream(page: Page, server: Server) -> None:
    """So what stands in the URL is worth nothing afterwards: EventSource gives up on the second use."""
    url = f"http://{host(server)}/v1/stream?ticket={await page.run(TICKET, [host(server), USER])}"
    await page.run(LISTEN, url)
    await page.has("welcome")
    await page.run("source.close()")
    await page.run(LISTEN, url)
    assert await page.has("error") == [CLOSED]


async def test_a_resume_token_opens_a_stream_again(page: Page, server: Server) -> None:
    """With its topics, and with what was missed, without any other credential."""
    stream = f"http://{host(server)}/v1/stream"
    await page.run(LISTEN, f"{stream}?token={USER}&topics=resumed.sse")
    (welcome,) = await page.has("welcome")
    await page.run("source.close()")
    missed = [event(n, topic=topic) for n, topic in enumerate(("resumed.sse", "resumed.other", "resumed.sse"))]
    assert (await publish(server.port, missed, PUBLISHER)).status == 202
    await page.run(LISTEN, f"{stream}?resume={welcome['resumeToken']}")
    assert await page.has("order:placed", 2) == [{"n": 0}, {"n": 2}]


async def test_a_resume_token_opens_a_websocket_again(page: Page, server: Server) -> None:
    """With its subscriptions, and with what was missed, without saying anything."""
    socket = f"ws://{host(server)}/ws"
    await page.run(TALK, [f"{socket}?token={USER}", [{"type": "subscribe", "topic": "resumed.ws"}]])
    (subscribed,) = await page.has("subscribed")
    await page.run("ws.close()")
    await page.has("close")
    missed = [event(n, topic=topic) for n, topic in enumerate(("resumed.ws", "resumed.other", "resumed.ws"))]
    assert (await publish(server.port, missed, PUBLISHER)).status == 202
    await page.run(TALK, [f"{socket}?resume={subscribed['resumeToken']}", []])
    assert [one["data"] for one in await page.has("event", 2)] == [{"n": 0}, {"n": 2}]
