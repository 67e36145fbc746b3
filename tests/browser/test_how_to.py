"""The scripts of docs/how-to/browser.md and tickets-and-resume.md, run as they are printed."""

from __future__ import annotations

import re
import signal

import pytest

from tests.browser.chromium import Page
from tests.browser.conftest import Serve
from tests.handlers.assembly import token
from tests.handlers.clients import EventStream, event, publish
from tests.server_process import ROOT
from tests.waiting import wait_until

# What a page has around the script: its own fetchToken, whose second answer waits for the test; a console that the test can read;
# a clock that does not make it wait; and the last connection, in `made`.
AROUND = """
const [first, other] = %s
const released = new Promise((resolve) => { window.release = resolve })
let asked = 0
async function fetchToken() {
  tell(["asked", ++asked])
  if (asked > 1) await released
  return asked > 1 ? other : first
}
for (const level of ["log", "warn", "error"]) console[level] = (...written) => tell(written)
const later = window.setTimeout
window.setTimeout = (work, milliseconds) => {
  tell(["later"])
  later(work, milliseconds / 20)
}
for (const name of ["EventSource", "WebSocket"]) {
  const native = window[name]
  window[name] = function (...given) { return (window.made = new native(...given)) }
  window[name].CLOSED = native.CLOSED
}
"""
SCRIPTS = {  # how each writes an order, and where it keeps its place
    "EventSource": (["placed"], "last"),
    "WebSocket": (["orders.eu", "order:placed"], "position"),
}


def printed(class_name: str) -> str:
    """Return the script in the page that makes one of these."""
    text = (ROOT / "docs" / "how-to" / "browser.md").read_text(encoding="utf-8")
    (script,) = (block for block in re.findall(r"```js\n(.*?)```", text, re.S) if f"new {class_name}(" in block)
    assert isinstance(script, str)
    return script


def numbers(page: Page, heading: list[str]) -> list[int]:
    """Return the numbers of the orders that a script has written."""
    return [written[-1]["n"] for written in page.told if written[:-1] == heading]


@pytest.mark.parametrize("class_name", SCRIPTS)
async def test_the_script_misses_nothing(page: Page, serve: Serve, class_name: str) -> None:
    """Before anything has come its server is killed and its token holds no longer; it goes on with a new one, and after a restart."""
    first = await serve("--jwt_issuer=first")
    (heading, place), sent = SCRIPTS[class_name], 0

    async def order(count: int) -> None:
        nonlocal sent
        orders = [event(n, type="order:placed") for n in range(sent, sent + count)]
        assert (await publish(first.port, orders, token(roles=["publisher"], iss="second"))).status == 202
        sent += count

    await page.load(AROUND % [token(iss="first"), token(iss="second")])
    await page.load(printed(class_name).replace("127.0.0.1:8080", f"127.0.0.1:{first.port}"))
    await wait_until(lambda: page.run(place), "it has a place in the log")
    await first.end(signal.SIGKILL)
    second = await serve("--jwt_issuer=second", port=first.port)
    await page.has("asked", 2)
    await order(10)
    await page.run("release()")
    await page.tells(lambda _: len(numbers(page, heading)) >= 10, "10 orders")
    await second.end(signal.SIGTERM)
    await second.start()
    await order(10)
    await page.tells(lambda _: len(numbers(page, heading)) >= 20, "20 orders")
    await order(1)
    await page.tells(lambda _: len(numbers(page, heading)) >= 21, "21 orders")
    assert numbers(page, heading) == list(range(sent))


@pytest.mark.parametrize("class_name", SCRIPTS)
async def test_the_script_leaves_its_place_to_a_newer_connection(page: Page, serve: Serve, class_name: str) -> None:
    """If it came back, it would take the place of the newer one, which would come back, and so on for ever."""
    server = await serve("--connections_per_user=1")
    await page.load(AROUND % [token(), token()])
    await page.load(printed(class_name).replace("127.0.0.1:8080", f"127.0.0.1:{server.port}"))
    await wait_until(lambda: page.run(SCRIPTS[class_name][1]), "it has a place in the log")
    async with EventStream(server.port, token=token()) as newer:
        await newer.welcome()
        await wait_until(lambda: page.run("made.readyState === made.CLOSED"), "it has left")
    assert ["later"] not in page.told
    assert page.of("asked") == [1]


# What a page with tickets has around its scripts: tickets that a token pays for, and a token that lives longer.
TICKETS = """
const [token, longer] = %s
async function fetchTicket() {
  const answer = await fetch("http://127.0.0.1:8080/v1/tickets", { method: "POST", headers: { Authorization: `Bearer ${token}` } })
  if (!answer.ok) throw new Error(`no ticket: ${answer.status}`)
  tell(["ticket"])
  return (await answer.json()).ticket
}
async function fetchToken() { return longer }
for (const level of ["log", "warn"]) console[level] = (...written) => tell(written)
"""


async def test_the_script_with_tickets_comes_back_with_a_resume_token_and_renews(page: Page, serve: Serve) -> None:
    """A ticket opens the first stream only; the second one is opened, after a restart, with what the first one handed out."""
    text = (ROOT / "docs" / "how-to" / "tickets-and-resume.md").read_text(encoding="utf-8")
    connect, _, renew = re.findall(r"```js\n(.*?)```", text, re.S)
    server = await serve()
    around = TICKETS % [token(seconds=25), token(seconds=3600)]
    await page.load("\n".join((around, renew, connect)).replace("127.0.0.1:8080", f"127.0.0.1:{server.port}"))
    await page.tells(lambda told: any(one[0] == "renewed until" for one in told), "it is renewed")
    await server.end(signal.SIGTERM)
    await server.start()
    orders = [event(n, type="order:placed") for n in range(10)]
    assert (await publish(server.port, orders, token(roles=["publisher"]))).status == 202
    await page.tells(lambda _: len(numbers(page, ["placed"])) >= 10, "10 orders")
    assert numbers(page, ["placed"]) == list(range(10))
    assert page.told.count(["ticket"]) == 1
