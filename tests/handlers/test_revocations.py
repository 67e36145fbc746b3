"""Tests of handlers/revocations.py: what is revoked on one process ends on every other once that reads of it; no sweep runs here."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

import pytest

from hub.connection import State
from tests.handlers.asking import ADMIN, OpenSession, ask, caught_up, heard, lasts, published, revoke, session
from tests.handlers.assembly import Assembly, token
from tests.handlers.clients import EventStream, RawWebSocket, event, get, publish
from tests.handlers.conftest import Assemble
from tests.waiting import wait_until

KINDS = [("token", "t1"), ("session", ""), ("user", "u1"), ("org", "o1")]


def mine(**claims: Any) -> str:
    """Return a token of u1, issued now."""
    return token("u1", **{"org": "o1", "jti": "t1", "iat": int(time.time()), **claims})


async def shown(here: Assembly, kind: str) -> tuple[dict[str, Any], OpenSession | None]:
    """Return what a client shows whose credential is to be revoked: a token, or a session's cookie."""
    if kind != "session":
        return {"token": mine()}, None
    opened = await session(here.port, "u1", org="o1")
    return {"Cookie": opened.cookie, "Origin": f"http://127.0.0.1:{here.port}"}, opened


def websocket(port: int, shown: dict[str, Any]) -> RawWebSocket:
    """Return a WebSocket that shows this."""
    headers = {name: value for name, value in shown.items() if name != "token"}
    return RawWebSocket(port, token=shown.get("token"), headers=headers)


@pytest.mark.parametrize(("kind", "id"), KINDS)
async def test_connections_of_every_process_end(assemble: Assemble, kind: str, id: str) -> None:
    """SSE and WebSocket, with 4401 and no time to come back; those of others go on, and the credential opens nothing any more (S3)."""
    one, other = await assemble(), await assemble()
    credential, opened = await shown(other, kind)
    bystander = token("u2", org="o2", jti="t2", iat=int(time.time()))
    async with (
        EventStream(other.port, **credential) as stream,
        websocket(other.port, credential) as socket,
        EventStream(other.port, token=bystander) as others,
    ):
        await stream.welcome()
        await socket.next("welcome")
        await others.welcome()
        await revoke(one.port, kind, opened.id if opened else id)
        closing = await stream.next()
        code, said = await socket.closed_with()
        assert closing.type == "closing"
        assert closing.json() == {"code": 4401, "reason": "the credential was revoked"}
        assert await stream.ends()
        assert (code, said["reason"]) == (4401, "the credential was revoked")
        await published(one, "public")
        assert await heard(others, "public") == ["public"]
    for here in (one, other):
        async with EventStream(here.port, **(credential | {"Origin": f"http://127.0.0.1:{here.port}"})) as again:
            assert again.head.status == 401


@pytest.mark.parametrize(("kind", "id"), KINDS)
async def test_a_running_replay_ends(assemble: Assemble, kind: str, id: str) -> None:
    """Its client gets what its socket had taken and one chunk more, then `closing`, and nothing of what it was still owed (S3)."""
    one, other = await assemble(), await assemble()
    credential, opened = await shown(other, kind)
    count = 0
    events = [event("public", data={"n": "public", "pad": "x" * 20_000}) for _ in range(100)]
    for _ in range(8):
        await publish(one.port, events, token("p1", roles=["publisher"]))
        count += len(events)
    await caught_up(other)
    async with EventStream(other.port, "?from=earliest", **credential) as stream:
        stream.reader._transport.pause_reading()  # type: ignore[attr-defined]
        (connection,) = other.hub.connections
        await wait_until(lambda: connection.state is State.BLOCKED, "the replay has filled the socket")
        assert connection.position < other.hub.head
        await revoke(one.port, kind, opened.id if opened else id)
        await wait_until(lambda: connection.closed, "the connection is closed")
        stream.reader._transport.resume_reading()  # type: ignore[attr-defined]
        got = 0
        while (found := await stream.next()).type != "closing":
            got += found.type == "order:placed"
        assert found.json()["code"] == 4401
        assert 0 < got < count
        assert await stream.ends()


async def test_whoever_signs_in_again_is_welcome(assemble: Assemble) -> None:
    """A user is revoked with what it has been given until now, not for ever; a token that does not say since when is refused."""
    one, other = await assemble(), await assemble()
    await revoke(one.port, "user", "u1")
    await caught_up(one, other)
    for here in (one, other):
        assert (await get(here.port, "/v1/stream", token=token("u1"))).status == 401
        async with EventStream(here.port, token=token("u1", iat=int(time.time()) + 2)) as stream:
            await stream.welcome()


async def test_the_answer_says_what_holds_no_longer_and_until_when(here: Assembly) -> None:
    """From now back, for as long as the setting says."""
    since = time.time()
    response = await ask(here.port, "POST", "/v1/revocations", {"kind": "user", "id": "u1"}, token=ADMIN)
    body = response.json()
    before, until = (datetime.fromisoformat(body[name]).timestamp() for name in ("before", "until"))
    assert (response.status, body["kind"], body["id"]) == (202, "user", "u1")
    assert lasts(body["before"], 0, since)
    assert abs(until - before - here.settings.revocation_seconds) < 0.01


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({"kind": "device", "id": "x"}, "kind"),
        ({"kind": "user"}, "id"),
        ({"kind": "session", "id": "A" * 43}, "id"),
        ({"kind": "user", "id": ""}, "id"),
        ({"kind": "user", "id": "x" * 257}, "id"),
        ({"kind": "user", "id": "x", "until": 5}, "until"),
        ("x", None),
    ],
)
async def test_what_cannot_be_revoked_is_400(here: Assembly, value: Any, field: str | None) -> None:
    """And nothing is revoked."""
    response = await ask(here.port, "POST", "/v1/revocations", value, token=ADMIN)
    assert response.error() == (400, "invalid_request", field)
    assert await here.state.revocations.in_force() == []
