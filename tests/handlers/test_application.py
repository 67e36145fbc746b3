"""Tests of handlers/application.py: what a connection is held to before a handler knows of it."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket

import pytest

from handlers import application
from handlers.application import MAX_HEADERS_BYTES
from handlers.routes import ROUTES, template
from tests.certificates import Certificate, client_hello
from tests.handlers.assembly import PUBLISHER, USER, Assembly
from tests.handlers.clients import EventStream, Wire, get, request, request_bytes
from tests.handlers.conftest import Assemble
from tests.handlers.test_sockets import reset
from tests.waiting import wait_until


async def test_every_route_is_served_and_nothing_else(here: Assembly) -> None:
    """What has no route is 404 in the one envelope (S8)."""
    for path, _ in ROUTES:
        assert (await request(here.port, "OPTIONS", template(path))).status == 204
    assert (await get(here.port, "/v1")).error() == (404, "not_found", None)


async def test_without_free_descriptors_connections_are_closed_at_once(here: Assembly, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some are kept for MongoDB and for refusing: a connection beyond them is closed before it is read."""
    assert (await get(here.port, "/healthz")).status == 200
    await wait_until(lambda: not len(here.http.deadlines), "nobody is there who could make room")
    monkeypatch.setattr(application, "RESERVED_FILES", 1 << 40)
    async with Wire(here.port) as wire:
        assert await wire.read_rest() == b""


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HTTP/1.1\r\nHost: x\r\n"])
async def test_who_says_nothing_makes_room_for_who_does(here: Assembly, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    """Connections without a request cost nothing to make, so those that are oldest are closed first (S6)."""
    async with EventStream(here.port, token=USER), Wire(here.port) as first, Wire(here.port) as second:
        first.send(sent)
        await wait_until(lambda: len(here.http.deadlines) == 2, "both are here")
        _, allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
        monkeypatch.setattr(application, "RESERVED_FILES", allowed - 3)  # these two, and the stream
        assert (await get(here.port, "/healthz")).status == 200
        assert await first.read_rest() == b""
        second.send(request_bytes("GET", "/healthz", {"Host": "x"}))
        assert (await second.read_response()).status == 200


async def answered_in_time(wire: Wire) -> bool:
    """Make a request; tell whether it was answered: on a slow machine its short time may be over before it has been sent."""
    wire.send(request_bytes("GET", "/healthz", {"Host": "x"}))
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        return (await wire.read_response()).status == 200
    return False


async def test_a_connection_with_endless_headers_is_cut(here: Assembly) -> None:
    """What the handlers would refuse with an answer is read only so far."""
    async with Wire(here.port) as wire:
        wire.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * MAX_HEADERS_BYTES)
        assert await wire.read_rest() == b""


@pytest.mark.parametrize("sent", ["nothing", "a request", "a part of the headers", "a part of a body"])
async def test_a_connection_that_goes_on_with_nothing_is_closed(assemble: Assemble, monkeypatch: pytest.MonkeyPatch, sent: str) -> None:
    """Before its first request, after one that was answered, or in the middle of one: it is waited for so long and no longer."""
    monkeypatch.setattr(application, "IDLE_SECONDS", 0.1)
    here = await assemble()
    async with contextlib.AsyncExitStack() as stack:
        wire = await stack.enter_async_context(Wire(here.port))
        if sent == "a request":
            while not await answered_in_time(wire):
                wire = await stack.enter_async_context(Wire(here.port))
        elif sent == "a part of the headers":
            wire.send(b"GET /healthz HTTP/1.1\r\nHost: ")
        elif sent == "a part of a body":
            headers = {"Host": "x", "Authorization": f"Bearer {PUBLISHER}", "Content-Length": "100"}
            wire.send(request_bytes("POST", "/v1/events", headers, b"[" * 10))
        assert await wire.read_rest() == b""


async def test_what_is_answered_slowly_is_not_cut_off(assemble: Assemble, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what clients send has a deadline: others that fall idle are closed, while a request that has arrived is being answered."""
    monkeypatch.setattr(application, "IDLE_SECONDS", 0.05)
    here = await assemble()
    answered = asyncio.Event()

    async def ready() -> None:
        await answered.wait()

    here.services.ready = ready
    async with Wire(here.port) as wire:
        wire.send(request_bytes("GET", "/readyz", {"Host": "x"}))
        for _ in range(3):  # one after the other: each sweep takes those that were idle before it
            async with Wire(here.port) as idle:
                assert await idle.read_rest() == b""
        answered.set()
        assert (await wire.read_response()).status == 200


async def test_a_client_that_leaves_before_its_deadline_is_forgotten(assemble: Assemble, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left to be closed later, and the sweep ends until somebody is waited for again."""
    monkeypatch.setattr(application, "IDLE_SECONDS", 0.05)
    here = await assemble()
    deadlines = here.http.deadlines
    waited_for = False
    while not waited_for:
        async with Wire(here.port) as wire:
            waited_for = await answered_in_time(wire) and len(deadlines) == 1
    await wait_until(lambda: not len(deadlines), "the connection is forgotten")
    await wait_until(lambda: not deadlines.sweeping, "the sweep has ended")
    async with Wire(here.port) as wire:
        assert await wire.read_rest() == b""


@pytest.mark.parametrize("said", [0, 5, None])
async def test_a_tls_handshake_that_is_never_finished_is_cut(
    assemble: Assemble, certificate: Certificate, monkeypatch: pytest.MonkeyPatch, said: int | None
) -> None:
    """However far it had come, it is waited for so long and no longer."""
    monkeypatch.setattr(application, "HANDSHAKE_SECONDS", 0.1)
    here = await assemble(**certificate.settings)
    async with Wire(here.port) as wire:
        wire.send(client_hello()[:said])
        await wire.read_rest()


async def test_a_tls_handshake_that_was_finished_in_time_ends_the_wait(
    assemble: Assemble, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection without a request yet, and a stream, outlive the time that a handshake has."""
    monkeypatch.setattr(application, "HANDSHAKE_SECONDS", 3.0)
    here = await assemble(**certificate.settings)
    monkeypatch.setattr(Wire, "tls", certificate.client())
    async with EventStream(here.port, token=USER) as stream, Wire(here.port) as wire:
        await stream.welcome()
        monkeypatch.setattr(Wire, "tls", None)
        async with Wire(here.port) as late:  # cut later than those would have been
            await late.read_rest()
        wire.send(request_bytes("GET", "/healthz", {"Host": "x"}))
        assert (await wire.read_response()).status == 200
        assert here.hub.connections


async def test_the_last_messages_of_a_tls_handshake_are_not_delayed(
    assemble: Assemble, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nagle's algorithm would hold the second of two small ones back, and with it the first answer."""
    here = await assemble(**certificate.settings)
    monkeypatch.setattr(Wire, "tls", certificate.client())
    async with Wire(here.port):
        (connection,) = here.http._connections
        assert connection.stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_clients_that_vanish_before_they_are_accepted_leave_nothing_behind(
    assemble: Assemble, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the first message of a handshake sent or not; no line is logged, and the next one is served."""
    here = await assemble(**certificate.settings)
    for said in (b"", client_hello()):
        with socket.create_connection(("127.0.0.1", here.port)) as client:  # nothing is awaited, so it is not accepted yet
            client.sendall(said)
            reset(client)
    monkeypatch.setattr(Wire, "tls", certificate.client())
    assert (await get(here.port, "/healthz")).status == 200
    await wait_until(lambda: not here.http._connections, "all are forgotten")
