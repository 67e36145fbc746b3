"""What tests ask of a server in one line: JSON by any method, and credentials of every kind that servers hand out."""

from __future__ import annotations

import json
import time
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import quote

from tests.handlers.assembly import Assembly, token
from tests.handlers.clients import EventStream, Response, event, publish, request, websocket
from tests.waiting import wait_until

ADMIN = token("root", roles=["admin"])
AGENT = token("a1", roles=["agent", "admin", "publisher"])
PUBLISHER = token("p1", roles=["publisher"])


async def ask(port: int, method: str, target: str, value: Any = None, *, token: str | None = None, **headers: str) -> Response:
    """Make a request, with a value as its JSON body unless it is None."""
    body = None if value is None else json.dumps(value).encode()
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return await request(port, method, target, token=token, headers=named, body=body)


async def ticket(port: int, token: str) -> str:
    """Return a ticket for a token."""
    response = await ask(port, "POST", "/v1/tickets", token=token)
    assert response.status == 201, response
    return str(response.json()["ticket"])


class OpenSession(NamedTuple):
    """A session: the cookie's value, and its id."""

    secret: str
    id: str

    @property
    def cookie(self) -> str:
        """The header's value."""
        return f"session={self.secret}"


async def session(port: int, sub: str = "u1", **fields: Any) -> OpenSession:
    """Return a session for somebody."""
    response = await ask(port, "POST", "/v1/sessions", {"sub": sub, **fields}, token=ADMIN)
    assert response.status == 201, response
    return OpenSession(response.json()["session"], response.json()["id"])


async def resume_token(port: int, token: str, query: str = "") -> str:
    """Return the resume token of a stream that was opened with this and has ended."""
    async with EventStream(port, query, token=token) as stream:
        return str((await stream.welcome()).json()["resumeToken"])


async def resume_token_of_websocket(port: int, token: str, *topics: str) -> str:
    """Return the resume token of a WebSocket that had these subscriptions."""
    async with websocket(port, token) as opened:
        for topic in topics:
            found = await opened.ask({"type": "subscribe", "topic": topic}, "subscribed")
        return str(found["resumeToken"])


async def revoke(port: int, kind: str, id: str) -> None:
    """Revoke something, and return once it is in the log."""
    response = await ask(port, "POST", "/v1/revocations", {"kind": kind, "id": id}, token=ADMIN)
    assert response.status == 202, response


async def own(port: int, resource: str, *owners: str) -> None:
    """Give a resource to these, or to nobody, and return once it is in the log."""
    kind, id = resource.split("/")
    target = f"/v1/resources/{quote(kind)}/{quote(id)}"
    response = (
        await ask(port, "PUT", target, {"owners": owners}, token=PUBLISHER)
        if owners
        else await ask(port, "DELETE", target, token=PUBLISHER)
    )
    assert response.status in (200, 204), response


def new_stream(sender: str, recipient: str, **fields: Any) -> dict[str, Any]:
    """Return what a payment stream is made of."""
    amounts = {"ratePerSecond": "0.5", "depositedAmount": "100", "startTime": 1_800_000_000}
    return {"sender": sender, "recipient": recipient, "tokenAddress": "CTOKEN", **amounts, **fields}


async def published(here: Assembly, *audiences: str) -> list[str]:
    """Publish one event for each of these audiences, its `n` the audience, and return their ids."""
    response = await publish(here.port, [event(one, audience=[one]) for one in audiences], PUBLISHER)
    assert response.status == 202, response
    return [one["id"] for one in response.json()["events"]]


def lasts(expires_at: str, seconds: float, since: float) -> bool:
    """Tell whether a time in an answer is so many seconds after a moment between `since` and now, but for what claims cut off: a second."""
    begun = datetime.fromisoformat(expires_at).timestamp() - seconds
    return since - 1 < begun < time.time() + 0.001


async def caught_up(*assemblies: Assembly) -> None:
    """Wait until each has read what is in the log by now."""
    head = await assemblies[0].log.head()
    await wait_until(lambda: all(one.hub.head.seq >= head.seq for one in assemblies), "every process has read the log")


async def heard(stream: EventStream, until: str) -> list[str]:
    """Return the `n` of the events that come, up to this one."""
    found: list[str] = []
    while not found or found[-1] != until:
        one = await stream.next()
        if one.type == "order:placed":
            found.append(one.json()["n"])
    return found
