"""Tests of handlers/sessions.py: sessions are opened, listed and ended, and their cookies are taken from known pages only."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.handlers.asking import ADMIN, AGENT, ask, caught_up, lasts, session
from tests.handlers.assembly import Assembly, token
from tests.handlers.clients import EventStream, RawWebSocket, Response, request
from tests.handlers.conftest import Assemble

APP = "https://app.example.com"
EVIL = "https://evil.example.com"


async def test_a_session_is_opened_for_somebody(here: Assembly) -> None:
    """The fields mean what the claims mean, and it ends when the answer says (S1)."""
    fields = {"org": "o1", "entity": "e1", "roles": ["user"], "audiences": ["resource:stream/1"], "seconds": 600}
    since = time.time()
    response = await ask(here.port, "POST", "/v1/sessions", {"sub": "u1", **fields}, token=ADMIN)
    body = response.json()
    assert (response.status, response.headers["cache-control"]) == (201, "no-store")
    assert lasts(body["expiresAt"], 600, since)
    assert body["session"] not in body["id"]
    async with EventStream(here.port, Cookie=f"session={body['session']}") as stream:
        assert (await stream.welcome()).json()["expiresAt"] == body["expiresAt"]
        (connection,) = here.hub.connections
        assert connection.principal.audiences == {"public", "user:u1", "org:o1", "entity:e1", "resource:stream/1"}
        assert connection.principal.roles == {"user"}


async def test_without_a_time_it_lasts_as_long_as_the_setting_says(assemble: Assemble) -> None:
    """Which is also the longest that may be asked for."""
    here = await assemble(session_seconds=100.0)
    since = time.time()
    response = await ask(here.port, "POST", "/v1/sessions", {"sub": "u1"}, token=ADMIN)
    assert lasts(response.json()["expiresAt"], 100, since)
    for seconds in (100.5, 0, -1):
        response = await ask(here.port, "POST", "/v1/sessions", {"sub": "u1", "seconds": seconds}, token=ADMIN)
        assert response.error() == (400, "invalid_request", "seconds")


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({}, "sub"),
        ({"sub": ""}, None),
        ({"sub": "a b"}, None),
        ({"sub": "u1", "org": "a,b"}, None),
        ({"sub": "u1", "audiences": ["nobody"]}, None),
        ({"sub": "u1", "roles": "admin"}, "roles"),
        ({"sub": "u1", "exp": 5}, "exp"),
        ({"sub": "u1", "seconds": "60"}, "seconds"),
    ],
)
async def test_a_session_for_nobody_is_400(here: Assembly, value: Any, field: str | None) -> None:
    """What no token could say, no session can."""
    response = await ask(here.port, "POST", "/v1/sessions", value, token=ADMIN)
    assert response.error() == (400, "invalid_request", field)


async def test_sessions_of_a_user_are_listed(assemble: Assemble) -> None:
    """On every process, newest first, without their secrets; somebody must be named."""
    one, other = await assemble(), await assemble()
    first, second = await session(one.port, "u1", org="o1", roles=["x"]), await session(other.port, "u1")
    await session(one.port, "u2")
    response = await ask(other.port, "GET", "/v1/sessions?user=u1", token=ADMIN)
    found = response.json()["sessions"]
    assert {one["id"] for one in found} == {first.id, second.id}
    assert {name: value for name, value in found[-1].items() if name != "expiresAt"} == {
        "id": first.id,
        "sub": "u1",
        "org": "o1",
        "roles": ["x"],
    }
    assert first.secret.encode() not in response.body
    assert (await ask(one.port, "GET", "/v1/sessions?user=nobody", token=ADMIN)).json() == {"sessions": []}
    assert (await ask(one.port, "GET", "/v1/sessions", token=ADMIN)).error() == (400, "invalid_request", "user")


@pytest.mark.parametrize("by", ["an admin", "itself"])
async def test_an_ended_session_opens_nothing_on_any_process(assemble: Assemble, by: str) -> None:
    """Its connections end too, and an admin is told when there was none (S3)."""
    one, other = await assemble(), await assemble()
    opened, kept = await session(one.port), await session(one.port)
    async with EventStream(other.port, Cookie=opened.cookie) as stream, EventStream(other.port, Cookie=kept.cookie) as stays:
        await stream.welcome()
        await stays.welcome()
        shown = {"token": ADMIN} if by == "an admin" else {"Cookie": opened.cookie, "Sec_Fetch_Site": "same-origin"}
        response = await ask(one.port, "DELETE", f"/v1/sessions/{opened.id}", **shown)
        assert (response.status, response.body) == (204, b"")
        assert (await stream.next()).json()["code"] == 4401
        await caught_up(one, other)
        assert [connection.principal.session_id for connection in other.hub.connections] == [kept.id]
    for here in (one, other):
        async with EventStream(here.port, Cookie=opened.cookie) as again:
            assert again.head.status == 401
    assert (await ask(one.port, "DELETE", f"/v1/sessions/{opened.id}", token=ADMIN)).error() == (404, "not_found", None)


async def test_anothers_session_is_not_ones_own_to_end(here: Assembly) -> None:
    """Not with a session, not with a token, and not as an agent whatever its other roles (S5); whether there is one is not told."""
    theirs, mine = await session(here.port, "u1"), await session(here.port, "u1")
    for id in (theirs.id, "nobody"):
        for shown in ({"Cookie": mine.cookie, "Sec_Fetch_Site": "same-origin"}, {"token": token("u1")}, {"token": AGENT}):
            response = await ask(here.port, "DELETE", f"/v1/sessions/{id}", **shown)
            assert response.error() == (403, "forbidden", None)
    assert len(await here.state.sessions.of_user("u1")) == 2


async def test_a_secret_given_for_an_id_is_not_kept(here: Assembly) -> None:
    """An admin who mistakes one for the other is told that there is no such session, and no revocation names it (S7)."""
    opened = await session(here.port)
    response = await ask(here.port, "DELETE", f"/v1/sessions/{opened.secret}", token=ADMIN)
    assert response.error() == (404, "not_found", None)
    assert await here.state.revocations.in_force() == []


async def test_of_two_who_end_a_session_with_it_both_succeed(here: Assembly, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever signs out is out, also when it happened already a moment ago."""
    opened = await session(here.port)
    revoke = here.state.sessions.revoke

    async def twice(id: str) -> Any:
        await revoke(id)
        return await revoke(id)

    monkeypatch.setattr(here.state.sessions, "revoke", twice)
    response = await ask(here.port, "DELETE", f"/v1/sessions/{opened.id}", Cookie=opened.cookie, Sec_Fetch_Site="same-origin")
    assert response.status == 204


# ---- where a cookie is taken from

KNOWN = {"Origin": APP}
OWN = {"Origin": "http://{host}"}
OWN_BEHIND_TLS = {"Origin": "https://{host}"}
FOREIGN = {"Origin": EVIL}
OPAQUE = {"Origin": "null"}
SAME_SITE = {"Sec-Fetch-Site": "same-origin"}
TYPED = {"Sec-Fetch-Site": "none"}
CROSS_SITE = {"Sec-Fetch-Site": "cross-site"}
SIBLING = {"Sec-Fetch-Site": "same-site"}


@pytest.mark.parametrize(
    ("headers", "get", "post", "websocket"),
    [
        (KNOWN, True, True, True),
        ({"Origin": APP.upper()}, True, True, True),
        (OWN, True, True, True),
        (OWN_BEHIND_TLS, True, True, True),
        (KNOWN | CROSS_SITE, True, True, True),
        (FOREIGN, False, False, False),
        (FOREIGN | SAME_SITE, False, False, False),
        (OPAQUE, False, False, False),
        ({"Origin": f"{APP}.evil.example.com"}, False, False, False),
        ({"Origin": f"{APP}:8443"}, False, False, False),
        ({}, True, False, False),
        (SAME_SITE, True, True, False),
        (TYPED, True, True, False),
        (CROSS_SITE, False, False, False),
        (SIBLING, False, False, False),
    ],
)
@pytest.mark.parametrize("star", [False, True])
async def test_a_cookie_is_taken_from_known_pages_only(
    assemble: Assemble, headers: dict[str, str], get: bool, post: bool, websocket: bool, star: bool
) -> None:
    """By `Origin`, or by what the browser says of the page; `*` knows nobody, and a WebSocket always has an `Origin` (T8)."""
    here = await assemble(allowed_origins=(APP, "*") if star else (APP,))
    opened = await session(here.port)
    shown: dict[str, str | None] = {
        "Cookie": opened.cookie,
        **{name: text.format(host=f"127.0.0.1:{here.port}") for name, text in headers.items()},
    }
    sent = {name: text for name, text in shown.items() if text is not None}
    async with EventStream(here.port, **sent) as stream:
        assert allowed(stream.head) is get
    assert allowed(await request(here.port, "POST", "/v1/tickets", headers=sent)) is post
    assert allowed(await request(here.port, "DELETE", "/v1/sessions/another", headers=sent), ended=True) is post
    async with RawWebSocket(here.port, headers=shown) as socket:
        assert allowed(socket.head) is websocket


def allowed(response: Response, *, ended: bool = False) -> bool:
    """Tell whether the cookie was taken; a session that is not one's own to end is refused with another sentence."""
    if response.status == 403:
        return ended and b"unless the session is your own" in response.body
    assert response.status in (101, 200, 201), response
    return True
