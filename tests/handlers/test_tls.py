"""Tests of handlers/tls.py, with real sockets: what holds of a sink's plain socket holds over TLS, and what TLS adds."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import select
import socket
import ssl
import struct
import termios
import time
from collections.abc import Callable
from typing import Any

import pytest
import websockets

from handlers.certificates import make_context
from handlers.sockets import FAILED, FINISHED, GONE, SocketSink
from handlers.tls import RECORD_BYTES
from hub.connection import Connection, State
from tests.certificates import Certificate, client_hello
from tests.handlers import test_sockets
from tests.handlers.asking import caught_up
from tests.handlers.assembly import PUBLISHER, USER, Assembly, token
from tests.handlers.clients import EventStream, Wire, event, get, publish, request_bytes, text, websocket
from tests.handlers.conftest import Assemble
from tests.handlers.test_sockets import BIG, at_end, called, read, read_all, reset, room, turn
from tests.waiting import PATIENCE_SECONDS, wait_until

Pair = tuple[socket.socket, socket.socket]

# Run once more, over TLS. Left out are those that send by a copy of the descriptor, which TLS would not know of, and those that have
# a like of their own below.
SAME = (
    "test_offer_sends_at_once",
    "test_epoll_waits_for_room_only_while_something_is_pending",
    "test_stalled_client_holds_little_of_the_kernel",
    "test_kernel_queue_can_be_left_to_the_system",
    "test_offers_from_on_drained_go_on",
    "test_offer_while_pending_is_a_mistake_of_the_caller",
    "test_one_that_does_not_read_delays_nobody",
    "test_data_goes_to_an_owner_that_wants_it",
    "test_unwanted_data_is_read_and_thrown_away",
    "test_client_that_closes_is_gone",
    "test_last_data_comes_before_the_end",
    "test_client_that_resets_is_reset",
    "test_offer_to_a_reset_socket_returns_before_it_tells",
    "test_finish_sends_the_last_bytes_and_waits_for_the_client",
    "test_finish_sends_what_is_pending_first",
    "test_finish_with_more_than_the_socket_takes",
    "test_client_that_leaves_before_it_has_read_the_end_is_gone",
    "test_finish_of_a_reset_socket_tells_later",
    "test_finish_without_last_bytes_ends_the_stream",
    "test_abort_is_silent_and_may_be_repeated",
    "test_abort_after_a_failed_offer_is_silent",
    "test_owner_may_abort_itself_and_others_in_a_callback",
    "test_abort_in_on_drained_and_in_on_closed_is_harmless",
    "test_fault_of_one_owner_is_logged_and_ends_only_its_connection",
    "test_closing_the_poller_aborts_its_sinks",
    "test_poller_may_be_closed_in_a_callback",
)
for _name in SAME:
    globals()[_name] = getattr(test_sockets, _name)


class Client(ssl.SSLSocket):
    """A client's end, of the standard library but for this: it blocks as plain sockets do, as the tests of those expect."""

    def recv(self, size: int = 1024, flags: int = 0) -> bytes:
        """Read some bytes."""
        try:
            data = super().recv(size, flags)
        except ssl.SSLWantReadError:
            raise BlockingIOError from None
        if not data and self.version() is not None:
            try:
                self.getpeername()  # older Pythons take a reset for an end, but then there is no peer
            except OSError:
                raise ConnectionResetError from None
        return data

    def send(self, data: Any, flags: int = 0) -> int:
        """Send some bytes, one record at the most."""
        try:
            return super().send(data[:RECORD_BYTES], flags)
        except ssl.SSLWantWriteError:
            raise BlockingIOError from None


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"], autouse=True)
def _over_tls(request: pytest.FixtureRequest, certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every connection of these tests, and of those that they share, be one over TLS."""
    server = make_context(certificate.certificate, certificate.key, time.time())
    client = certificate.client()
    client.maximum_version = request.param
    client.sslsocket_class = Client
    for name in ("loopback", "neighbours"):
        monkeypatch.setattr(test_sockets, name, _secured(getattr(test_sockets, name), server, client))


def _secured(connect: Callable[[], Pair], server: ssl.SSLContext, client: ssl.SSLContext) -> Callable[[], Pair]:
    """Return a function that connects as the given one, and then agrees on TLS."""

    def connect_securely() -> Pair:
        ours, theirs = connect()
        ours.setblocking(False)
        theirs.setblocking(False)
        if ours.family == socket.AF_INET:
            ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # all that ends the handshake is sent with it
        return shake_hands(
            server.wrap_socket(ours, server_side=True, do_handshake_on_connect=False),
            client.wrap_socket(theirs, server_hostname="127.0.0.1", do_handshake_on_connect=False),
        )

    return connect_securely


def shake_hands(ours: ssl.SSLSocket, theirs: ssl.SSLSocket) -> tuple[ssl.SSLSocket, ssl.SSLSocket]:
    """Let both ends agree, and the client read what the server says afterwards: tickets, unread, would make its end a reset."""
    waiting = [theirs, ours]
    while waiting:
        end = waiting.pop(0)
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            waiting.append(end)
    seconds = PATIENCE_SECONDS if theirs.version() == "TLSv1.3" else 0.0  # since 1.3 there are tickets, which the kernel may bring late
    while select.select([theirs], [], [], seconds)[0]:
        with pytest.raises(BlockingIOError):
            theirs.recv(1)
        seconds = 0.0
    return ours, theirs


# ---- sending


async def test_what_is_pending_goes_out_as_the_client_reads() -> None:
    """Several megabytes, of which a full socket took some: all arrive in order, and `on_drained` is called once."""
    async with room() as here:
        owner, client = here.connect()
        assert not owner.sink.offer(BIG)
        assert 0 < owner.sink.pending < len(BIG)
        await turn()
        assert owner.calls == []
        assert await read_all(client, len(BIG)) == BIG
        await called(owner, "drained")
        await turn()
        assert owner.calls == ["drained"]
        assert owner.sink.offer(b"more")
        assert await read_all(client, 4) == b"more"


async def test_stalled_since_is_the_time_of_the_last_progress() -> None:
    """The time begins with the remainder, stands still while nothing goes out, and moves with what does."""
    async with room() as here:
        owner, client = here.connect()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)  # so that what it reads makes room for a little at a time
        sink = owner.sink
        sink.offer(BIG)
        assert sink.stalled_since == 100.0
        await turn()
        before = sink.pending
        here.clock.now = 300.0
        await turn()
        assert sink.stalled_since == 100.0
        await wait_until(lambda: client.recv(1 << 16) and sink.pending < before, "some of the remainder is out")
        assert sink.pending > 0
        assert sink.stalled_since == 300.0


async def test_a_chunk_of_many_records_is_sent_at_once() -> None:
    """OpenSSL sends a record a call, 16 KiB: what the kernel takes of a larger chunk is with it when `offer` returns."""
    async with room() as here:
        owner, client = here.connect()
        assert owner.sink.offer(BIG[:60_000])
        assert read(client) == BIG[:60_000]
        assert owner.calls == []


async def test_a_full_socket_takes_nothing_and_says_so() -> None:
    """All that is offered waits, is tried again with the same bytes first, and more may be added behind it by `finish`."""
    async with room() as here:
        owner, client = here.connect()
        sock = owner.sink._socket
        already = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                already += sock.send(BIG[already : already + 10_000])
        rest = BIG[already : already + 10_000]
        assert not owner.sink.offer(rest)
        assert owner.sink.pending == len(rest)
        owner.sink._handle(select.EPOLLIN | select.EPOLLOUT)  # a false alarm
        assert owner.sink.pending == len(rest)
        owner.sink.finish(b"closing")
        expected = BIG[: already + 10_000] + b"closing"
        assert await read_all(client, len(expected)) == expected


async def test_room_is_not_waited_for_with_nothing_to_send() -> None:
    """Sending nothing is no record, and no fault."""
    async with room() as here:
        owner, client = here.connect()
        assert owner.sink.offer(b"")
        assert read(client) == b""


# ---- receiving


async def test_every_record_reaches_the_owner() -> None:
    """Small ones, and the largest there are: nothing stays behind in OpenSSL, where no epoll sees it."""
    async with room() as here:
        owner, client = here.connect(want_data=True)
        expected = b""
        for size in (1, 16384, 1, 16384, 16384, 5):
            assert client.send(BIG[:size]) == size
            expected += BIG[:size]
        await wait_until(lambda: len(owner.data) >= len(expected), "all records have arrived")
        assert owner.data == expected
        assert set(owner.calls) == {"data"}
        assert owner.sink._socket.pending() == 0  # type: ignore[attr-defined]


async def test_a_part_of_a_record_is_waited_for() -> None:
    """It wakes the epoll, and nobody is told of it."""
    async with room() as here:
        owner, client = here.connect(want_data=True)
        socket.socket.send(client, b"\x17\x03\x03\x01\x00")  # the head of a record, of application data
        await turn()
        assert owner.calls == []
        assert not owner.sink.closed


async def test_what_is_no_record_ends_the_connection() -> None:
    """Bytes that are not encrypted, as from a broken proxy, are never taken for the client's."""
    async with room() as here:
        owner, client = here.connect(want_data=True)
        socket.socket.send(client, b"GET / HTTP/1.1\r\n\r\n")
        await called(owner, FAILED)
        assert owner.calls == [FAILED]


# ---- the end


async def test_a_client_that_ends_tls_is_gone_and_answered() -> None:
    """A close_notify is an end of the client's side (RFC 8446, 6.1), and is answered with ours."""
    async with room() as here:
        owner, client = here.connect(want_data=True)
        assert isinstance(client, ssl.SSLSocket)
        with pytest.raises(ssl.SSLWantReadError):
            client.unwrap()
        await called(owner, GONE)
        client.unwrap()
        assert owner.calls == [GONE]


async def test_the_end_of_the_stream_is_announced() -> None:
    """The client can tell it from a connection that was cut: a reader that insists on close_notify sees a whole stream."""
    async with room() as here:
        owner, client = here.connect()
        assert isinstance(client, ssl.SSLSocket)
        client.suppress_ragged_eofs = False  # type: ignore[attr-defined]
        owner.sink.finish(b"closing")
        assert client.recv(100) == b"closing"
        assert client.recv(1) == b""
        client.unwrap()
        client.close()
        await called(owner, FINISHED)


async def test_a_cut_is_not_announced_as_an_end() -> None:
    """A connection that is aborted with bytes pending ends in the middle of a record, as it is."""
    async with room() as here:
        owner, client = here.connect()
        assert isinstance(client, ssl.SSLSocket)
        client.suppress_ragged_eofs = False  # type: ignore[attr-defined]
        owner.sink.offer(BIG)
        owner.sink.abort()
        with pytest.raises(ssl.SSLEOFError):
            await read_all(client, len(BIG))


async def test_the_end_waits_for_room_as_all_else() -> None:
    """In a full socket even close_notify has to wait; it follows what the kernel has, and then the end."""
    async with room() as here:
        owner, client = here.connect(family=socket.AF_UNIX)  # where it is known how much room there is
        assert isinstance(client, ssl.SSLSocket)
        client.suppress_ragged_eofs = False  # type: ignore[attr-defined]
        sent = fill(owner.sink)
        owner.sink.finish()
        assert not owner.sink.offer(b"refused")
        await turn()
        assert (owner.sink.pending, owner.calls) == (0, [])
        assert await read_all(client, sent) == BIG[:sent]
        await at_end(client)
        client.close()
        await called(owner, FINISHED)
        assert owner.calls == [FINISHED]


def fill(sink: SocketSink) -> int:
    """Send records until the kernel has no room for one more byte, and has taken the last one whole; return how much was sent."""
    sock, sent = sink._socket, 0
    room = sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    while struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))[0] < room:
        sent += sock.send(BIG[sent : sent + 1000])
    return sent


async def test_a_client_that_leaves_before_the_end_was_said_is_gone() -> None:
    """It cannot know that it has everything."""
    async with room() as here:
        owner, client = here.connect(family=socket.AF_UNIX)
        fill(owner.sink)
        owner.sink.finish()
        await turn()
        client.shutdown(socket.SHUT_WR)
        await called(owner, GONE)
        assert owner.calls == [GONE]


async def test_what_a_client_sends_after_the_end_is_not_decrypted() -> None:
    """It is thrown away as on a plain socket, also when it came just before the end and lies unread."""
    async with room() as here:
        owner, client = here.connect(want_data=True)
        client.send(b"unread")
        owner.sink.finish(b"closing")
        client.send(b"too late")
        assert await read_all(client, 7) == b"closing"
        await at_end(client)
        await turn()
        assert owner.calls == []
        client.close()
        await called(owner, FINISHED)
        assert owner.data == b""


# ---- through the application


@pytest.fixture
async def secure(assemble: Assemble, certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> Assembly:
    """An assembly that speaks TLS, to which all clients of tests/handlers/clients.py do as well."""
    monkeypatch.setattr(Wire, "tls", certificate.client())
    return await assemble(**certificate.settings)


async def published(port: int, count: int, size: int) -> None:
    """Publish numbered events of some size."""
    for start in range(0, count, 50):
        batch = [event(number, data={"n": number, "pad": "x" * size}) for number in range(start, min(start + 50, count))]
        assert (await publish(port, batch, PUBLISHER)).status == 202


async def numbers(stream: EventStream, count: int) -> list[int]:
    """Return the numbers of the next events that were published."""
    return [(await stream.next_of("order:placed")).json()["n"] for _ in range(count)]


async def test_requests_are_answered(secure: Assembly) -> None:
    """One after the other on one connection; sent in one piece or several."""
    async with Wire(secure.port) as wire:
        for padding in (0, 10, 5000):
            for line in request_bytes("GET", "/healthz", {"Host": "x", "Padding": "x" * padding}).splitlines(keepends=True):
                wire.send(line)
            assert (await wire.read_response()).status == 200


async def test_a_stream_gets_what_is_published(secure: Assembly) -> None:
    """Live, and with what it missed."""
    async with EventStream(secure.port, token=USER) as stream:
        await stream.welcome()
        await published(secure.port, 3, 10)
        assert await numbers(stream, 3) == [0, 1, 2]
    async with EventStream(secure.port, "?from=earliest", token=USER) as stream:
        await stream.welcome()
        assert await numbers(stream, 3) == [0, 1, 2]


async def test_a_stream_is_closed_in_good_order(secure: Assembly) -> None:
    """`closing`, the end of the answer, and the end of TLS."""
    async with EventStream(secure.port, token=token(seconds=100)) as stream:
        await stream.welcome()
        await secure.pass_seconds(101)
        assert (await stream.next_of("closing")).json()["code"] == 4402
        assert await stream.ends()
    await wait_until(lambda: not len(secure.services.poller), "the sink is closed")


async def test_what_came_behind_a_handshake_reaches_the_websocket(secure: Assembly) -> None:
    """Messages that Tornado has read and decrypted already, more than a record of them, and those that come later (T3)."""
    refs = [str(number) for number in range(50)]
    behind = b"".join(text(json.dumps({"type": "ping", "ref": ref}).encode().ljust(1000)) for ref in refs)
    assert len(behind) > 2 * RECORD_BYTES
    async with websocket(secure.port, USER, behind=behind) as opened:
        assert [(await opened.next("pong"))["ref"] for _ in refs] == refs
        assert (await opened.ask({"type": "ping", "ref": "later"}, "pong"))["ref"] == "later"


async def test_a_client_library_gets_all_of_a_burst_that_it_does_not_read_at_first(secure: Assembly, certificate: Certificate) -> None:
    """Several megabytes over a WebSocket of somebody else's making, in order, each once."""
    headers = {"Authorization": f"Bearer {USER}"}
    url = f"wss://localhost:{secure.port}/ws"
    async with websockets.connect(url, ssl=certificate.client(), additional_headers=headers, max_queue=1) as client:
        await client.send(json.dumps({"type": "subscribe", "topic": "**"}))
        (connection,) = await connections(secure)
        await wait_until(lambda: connection.coverage, "it is subscribed")
        await published(secure.port, 400, 20_000)
        await wait_until(lambda: connection.state is State.BLOCKED, "it has left the live path")
        await published(secure.port, 1, 0)
        seen: list[int] = []
        while len(seen) < 401:
            message = json.loads(await client.recv())
            if message["type"] == "event":
                seen.append(message["data"]["n"])
        assert seen == [*range(400), 0]
        await wait_until(lambda: connection.state is State.ATTACHED, "it is on the live path again")


async def test_a_page_without_tls_is_a_foreign_one(secure: Assembly) -> None:
    """Whoever is between it and its user could have written it, and would have the user's cookies (T8)."""
    for scheme, allowed in (("https", True), ("http", False)):
        headers = (await get(secure.port, "/healthz", headers={"Origin": f"{scheme}://127.0.0.1:{secure.port}"})).headers
        assert ("access-control-allow-credentials" in headers) == allowed


async def test_a_slow_reader_loses_nothing(secure: Assembly) -> None:
    """It leaves the live path with at most one chunk pending, reads on when it can, and comes back to it (L7)."""
    async with EventStream(secure.port, token=USER) as stream:
        await stream.welcome()
        (connection,) = await connections(secure)
        stream.reader._transport.pause_reading()  # type: ignore[attr-defined]
        await published(secure.port, 400, 20_000)
        await caught_up(secure)
        await wait_until(lambda: connection.state is State.BLOCKED, "it has left the live path")
        assert isinstance(connection.sink, SocketSink)
        assert 0 < connection.sink.pending < 2 * secure.settings.chunk_bytes
        await published(secure.port, 100, 20_000)
        await caught_up(secure)
        assert 0 < connection.sink.pending < 2 * secure.settings.chunk_bytes
        stream.reader._transport.resume_reading()  # type: ignore[attr-defined]
        assert await numbers(stream, 500) == [*range(400), *range(100)]
        assert (await stream.next()).type == "live"
        await wait_until(lambda: connection.state is State.ATTACHED, "it is on the live path again")


async def connections(here: Assembly) -> list[Connection]:
    """Return the connections, once there are any."""
    await wait_until(lambda: here.hub.connections, "there is a connection")
    return list(here.hub.connections)


async def test_a_client_that_ends_its_side_is_gone(secure: Assembly) -> None:
    """After TLS is over, and with what it had not read, nothing of it is left."""
    reader, writer = await asyncio.open_connection("127.0.0.1", secure.port, ssl=Wire.tls)
    writer.write(request_bytes("GET", "/v1/stream", {"Host": "x", "Authorization": f"Bearer {USER}"}))
    await reader.readuntil(b"welcome")
    writer.close()
    await writer.wait_closed()
    await wait_until(lambda: not secure.hub.connections and not len(secure.services.poller), "all is forgotten")


# ---- what is no handshake


async def test_plain_http_is_cut_with_one_line_in_the_log(secure: Assembly, caplog: pytest.LogCaptureFixture) -> None:
    """No answer could be understood; anybody can do this, so it is neither a warning nor a traceback."""
    caplog.set_level(logging.INFO, "tailcast")
    reader, writer = await asyncio.open_connection("127.0.0.1", secure.port)
    writer.write(request_bytes("GET", "/healthz", {"Host": "x"}))
    with contextlib.suppress(ConnectionResetError):  # it has sent more than was read
        await reader.read()
    writer.close()
    await wait_until(lambda: caplog.records, "it is logged")
    (record,) = caplog.records
    assert (record.levelname, record.message, record.exc_info) == ("INFO", "TLS handshake failed", None)
    assert record.__dict__["fields"] == {"reason": "HTTP_REQUEST", "address": "127.0.0.1"}


async def test_a_client_that_does_not_trust_the_certificate_is_logged(secure: Assembly, caplog: pytest.LogCaptureFixture) -> None:
    """What its library told the server is what the operator wants to know."""
    caplog.set_level(logging.INFO, "tailcast")
    with socket.create_connection(("127.0.0.1", secure.port)) as client, pytest.raises(ssl.SSLCertVerificationError):
        await asyncio.to_thread(ssl.create_default_context().wrap_socket, client, server_hostname="localhost")
    await wait_until(lambda: caplog.records, "it is logged")
    assert "ALERT_UNKNOWN_CA" in caplog.records[0].__dict__["fields"]["reason"]


@pytest.mark.parametrize("leave", ["end", "reset"])
@pytest.mark.parametrize("said", [0, 1, 5, 100, None])
async def test_a_client_that_vanishes_in_the_handshake_leaves_nothing_behind(
    secure: Assembly, caplog: pytest.LogCaptureFixture, said: int | None, leave: str
) -> None:
    """Before it has said anything, in the middle of its first message, or after it: the connection is closed, and nothing logged."""
    before = secure.http._connections.copy()
    with socket.create_connection(("127.0.0.1", secure.port)) as client:
        client.sendall(client_hello()[:said])
        await wait_until(lambda: secure.http._connections - before, "it is accepted")
        if said is None:
            client.setblocking(False)
            await wait_until(lambda: overhear(client), "the server has answered")
        if leave == "reset":
            reset(client)
    await wait_until(lambda: not secure.http._connections - before, "it is forgotten")
    assert not caplog.records


def overhear(client: socket.socket) -> bool:
    """Tell whether something has come, and read it."""
    try:
        return bool(client.recv(1 << 16))
    except BlockingIOError:
        return False
