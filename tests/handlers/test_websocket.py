"""Tests of handlers/websocket.py: the handshake, who is asking, and from which page."""

from __future__ import annotations

import base64
import hashlib
import logging
import socket
import struct

import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from handlers.websocket import GUID, choose_protocol, token_of
from settings import UNLIMITED
from tests.handlers.assembly import USER, Assembly, token
from tests.handlers.clients import CLOSE, HANDSHAKE, KEY, RawWebSocket, frame, request, request_bytes, text, websocket
from tests.handlers.conftest import Assemble
from tests.waiting import wait_until

PAGE = "https://app.example.com"


async def test_the_handshake_is_answered(here: Assembly) -> None:
    """101 with the proof that the key was understood, and no subprotocol where none was offered (RFC 6455, 4.2.2)."""
    async with RawWebSocket(here.port, token=USER) as opened:
        head = opened.head
        assert head.status == 101
        assert head.headers["upgrade"].lower() == "websocket"
        assert head.headers["connection"].lower() == "upgrade"
        assert head.headers["sec-websocket-accept"] == base64.b64encode(hashlib.sha1(KEY.encode() + GUID).digest()).decode()
        assert head.headers["x-correlation-id"]
        assert not {"sec-websocket-protocol", "sec-websocket-extensions"} & head.headers.keys()
        welcome = await opened.next("welcome")
        assert {"clientId", "position", "expiresAt", "timestamp"} <= welcome.keys()


async def test_a_library_agrees(here: Assembly) -> None:
    """A client that others wrote opens, receives, pings and closes without complaint."""
    async with connect(f"ws://127.0.0.1:{here.port}/ws?token={USER}", proxy=None) as opened:
        assert '"type":"welcome"' in str(await opened.recv())
        await (await opened.ping())
    assert opened.close_code == 1000


@pytest.mark.parametrize(
    "headers",
    [
        {"Upgrade": None},
        {"Upgrade": "h2c"},
        {"Connection": None},
        {"Connection": "keep-alive"},
        {"Sec-WebSocket-Version": None},
        {"Sec-WebSocket-Version": "8"},
        {"Sec-WebSocket-Version": "13, 8"},
    ],
)
async def test_what_is_no_handshake_of_this_version_is_426(here: Assembly, headers: dict[str, str | None]) -> None:
    """The answer says what to upgrade to, and in which version (RFC 9110, 15.5.22; RFC 6455, 4.4)."""
    async with RawWebSocket(here.port, token=USER, headers=headers) as opened:
        assert opened.head.error() == (426, "upgrade_required", None)
        assert opened.head.headers["upgrade"] == "websocket"
        assert opened.head.headers["sec-websocket-version"] == "13"


async def test_a_handshake_over_http_1_0_is_400(here: Assembly) -> None:
    """It takes HTTP/1.1 (RFC 6455, 4.1); the answer says so, since it is a proxy's mistake that its operator must find."""
    async with RawWebSocket(here.port, token=USER, version="1.0") as opened:
        assert opened.head.error() == (400, "invalid_request", None)
        assert "HTTP/1.1" in opened.head.json()["message"]


@pytest.mark.parametrize("key", [None, "", "short", "!" * 24, base64.b64encode(b"x" * 15).decode(), base64.b64encode(b"x" * 17).decode()])
async def test_a_key_that_is_none_is_400(here: Assembly, key: str | None) -> None:
    """The key must be sixteen bytes in base64 (RFC 6455, 4.2.1)."""
    async with RawWebSocket(here.port, token=USER, headers={"Sec-WebSocket-Key": key}) as opened:
        assert opened.head.error() == (400, "invalid_request", None)


@pytest.mark.parametrize("connection", ["Upgrade", "keep-alive, Upgrade", "UPGRADE,x"])
async def test_the_connection_header_may_name_more(here: Assembly, connection: str) -> None:
    """Firefox sends `keep-alive, Upgrade`."""
    async with RawWebSocket(here.port, token=USER, headers={"Connection": connection, "Upgrade": "WebSocket"}) as opened:
        assert opened.head.status == 101


# ---- who is asking


@pytest.mark.parametrize(
    ("offered", "echoed"),
    [
        (["tailcast", f"bearer.{USER}"], "tailcast"),
        ([f"bearer.{USER}", "tailcast"], "tailcast"),
        (["bearer", USER], "bearer"),
        (["tailcast", "bearer", USER], "tailcast"),
        ([USER, "mine"], "mine"),
        (["tailcast", USER], "tailcast"),
        ([USER], USER),
        ([f"bearer.{USER}"], f"bearer.{USER}"),
    ],
)
async def test_a_token_comes_as_a_subprotocol(here: Assembly, offered: list[str], echoed: str) -> None:
    """Whichever way it is put; exactly one of those offered is echoed, and the token only when there is nothing else (S1)."""
    async with connect(
        f"ws://127.0.0.1:{here.port}/ws", subprotocols=[Subprotocol(one) for one in offered], proxy=None, compression=None
    ) as opened:
        assert opened.subprotocol == echoed
        assert '"type":"welcome"' in str(await opened.recv())


async def test_an_offered_subprotocol_is_echoed_without_a_token_too(here: Assembly) -> None:
    """A browser would fail the handshake otherwise; the token may still come in the first message."""
    async with RawWebSocket(here.port, headers={"Sec-WebSocket-Protocol": "a, b"}) as opened:
        assert opened.head.headers["sec-websocket-protocol"] == "a"
        opened.say({"type": "auth", "token": USER})
        await opened.next("welcome")


@pytest.mark.parametrize(
    ("offered", "found", "chosen"),
    [
        ([], None, None),
        (["a"], None, "a"),
        (["bearer"], None, "bearer"),
        (["bearer", "t"], "t", "bearer"),
        (["a", "bearer.t"], "t", "a"),
        (["eyJa.b.c"], "eyJa.b.c", "eyJa.b.c"),
        (["eyJa.b", "x.b.c"], None, "eyJa.b"),
    ],
)
def test_the_token_among_subprotocols(offered: list[str], found: str | None, chosen: str | None) -> None:
    """`bearer.<token>`, the one after `bearer`, or what looks like a JWT; one is chosen that is none, if there is one."""
    assert (token_of(offered), choose_protocol(offered)) == (found, chosen)


@pytest.mark.parametrize("query", ["?token=x.y.z", f"?token={token(seconds=-60)}"])
async def test_a_bad_token_in_the_handshake_is_401(here: Assembly, query: str) -> None:
    """Who shows a credential that does not hold is not taken for somebody who will show one later."""
    async with RawWebSocket(here.port, query) as opened:
        assert opened.head.error()[0] == 401
    for offered in ("bearer.x", "tailcast, bearer, x.y.z"):
        async with RawWebSocket(here.port, headers={"Sec-WebSocket-Protocol": offered}) as opened:
            assert opened.head.error() == (401, "unauthenticated", None)
    async with RawWebSocket(here.port, token="x.y.z") as opened:
        assert opened.head.error() == (401, "unauthenticated", None)


async def test_a_token_comes_in_the_header_or_the_query(here: Assembly) -> None:
    """Both open the connection at once (S1)."""
    async with RawWebSocket(here.port, token=USER) as opened:
        await opened.next("welcome")
    async with RawWebSocket(here.port, f"?token={USER}") as opened:
        await opened.next("welcome")


@pytest.mark.parametrize("handed", [True, False])
async def test_frames_behind_the_handshake_are_read(assemble: Assemble, handed: bool) -> None:
    """A client need not wait for the answer: what it sent with its request is answered in order, with a token or without one yet."""
    here = await assemble(messages_per_second=UNLIMITED)
    first = [] if handed else [{"type": "auth", "token": USER}]
    behind = b"".join(map(text, [*first, *({"type": "ping", "ref": str(number)} for number in range(500))]))
    async with RawWebSocket(here.port, token=USER if handed else None, behind=behind) as opened:
        await opened.next("welcome")
        assert [(await opened.next("pong"))["ref"] for _ in range(500)] == [str(number) for number in range(500)]


# ---- from where


@pytest.mark.parametrize("origin", ["https://evil.example.com", "null", PAGE + ".evil.com"])
@pytest.mark.parametrize("name", ["Origin", "Sec-WebSocket-Origin"])
async def test_a_foreign_page_may_not_connect(assemble: Assemble, name: str, origin: str) -> None:
    """Browsers ask nobody before a handshake, so the server looks at the origin itself, and before the token (T8)."""
    here = await assemble(allowed_origins=(PAGE,))
    async with RawWebSocket(here.port, headers={name: origin}) as opened:
        assert opened.head.error() == (403, "forbidden", None)


async def test_an_allowed_page_and_the_servers_own_may_connect(assemble: Assemble) -> None:
    """Those of the setting, and those of the same host, also where a proxy ends TLS before it (T8)."""
    here = await assemble(allowed_origins=(PAGE,))
    for origin in (PAGE, f"http://127.0.0.1:{here.port}", f"https://127.0.0.1:{here.port}"):
        async with RawWebSocket(here.port, token=USER, headers={"Origin": origin}) as opened:
            assert opened.head.status == 101


# ---- what is logged


@pytest.mark.parametrize("credential", [USER, None])
async def test_its_log_lines_carry_the_correlation_id_of_the_handshake(
    here: Assembly, caplog: pytest.LogCaptureFixture, credential: str | None
) -> None:
    """From the request to the end of what it opened, or to the refusal of what it did not, one id leads through (S9)."""
    caplog.set_level(logging.INFO, "tailcast")
    async with RawWebSocket(here.port, token=credential, headers={"X-Correlation-ID": "c1"}) as opened:
        if credential:
            await opened.next("welcome")
        opened.send(frame(CLOSE, b""))
        await opened.close_code()
    lines = {record.message: record.__dict__["fields"]["correlationId"] for record in caplog.records}
    assert lines == dict.fromkeys(["connected", "disconnected"] if credential else ["refused"], "c1")


# ---- when there is no room, or nobody any more


async def test_beyond_the_limit_a_handshake_is_503(assemble: Assemble, expected_logs: list[str]) -> None:
    """With a time to come back; the same while the server stops (S6, T10)."""
    expected_logs.append("refused: the server has as many connections")
    here = await assemble(max_connections=1)
    async with websocket(here.port, USER), RawWebSocket(here.port, token=USER) as refused:
        assert refused.head.error() == (503, "unavailable", None)
        assert int(refused.head.headers["retry-after"]) > 0
    await wait_until(lambda: here.hub.has_room(), "there is room again")
    here.services.stopping = True
    async with RawWebSocket(here.port, token=USER) as refused:
        assert refused.head.error() == (503, "unavailable", None)


@pytest.mark.parametrize("path", ["/ws", "/v1/stream"])
@pytest.mark.parametrize("how", ["half-closed", "reset"])
async def test_a_client_that_has_left_meanwhile_leaves_nothing_behind(
    here: Assembly, monkeypatch: pytest.MonkeyPatch, path: str, how: str
) -> None:
    """One that closed or half-closed its connection in the last moment before it was answered is forgotten."""
    client = socket.create_connection(("127.0.0.1", here.port))
    left = []

    def leave(*_: object) -> bool:
        if how == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
        else:
            client.shutdown(socket.SHUT_WR)
        left.append(how)
        return True

    monkeypatch.setattr(here.hub, "has_room", leave)
    client.sendall(request_bytes("GET", path, {"Host": "x", **HANDSHAKE, "Authorization": f"Bearer {USER}"}))
    await wait_until(lambda: left, "the client has left")
    await wait_until(lambda: not here.hub.connections and not len(here.services.poller), "all is forgotten")
    client.close()


async def test_other_methods_are_refused(here: Assembly) -> None:
    """A handshake is a GET (RFC 6455, 4.1); any other error than 426 says nothing of upgrading."""
    response = await request(here.port, "POST", "/ws", body=b"")
    assert response.error() == (405, "method_not_allowed", None)
    assert "upgrade" not in response.headers
