"""Tests of the C programs: what they count is right, and they see what is wrong."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench import programs
from tests.bench.errors import BenchError
from tests.bench.programs import Generator, Limit, Program

pytestmark = pytest.mark.skipif(not (shutil.which("gcc") or shutil.which("cc")), reason="there is no C compiler")

CORE = min(os.sched_getaffinity(0))
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
SECONDS = 20.0  # how long anything may take before the test fails


@pytest.fixture(autouse=True, scope="module")
def built() -> None:
    """Compile the programs."""
    programs.build()


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """A socket that a program under test can connect to."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(SECONDS)
        yield server


def port_of(server: socket.socket) -> int:
    """Return the port a socket listens on."""
    port: int = server.getsockname()[1]
    return port


def accept(server: socket.socket) -> tuple[socket.socket, bytes]:
    """Accept a connection and read the head of its request, and what came with it."""
    peer, _ = server.accept()
    peer.settimeout(SECONDS)
    request = b""
    while b"\r\n\r\n" not in request:
        request += peer.recv(65536)
    return peer, request


def event(number: int, *, source: int = 0) -> bytes:
    """Return an SSE event of the benchmarks."""
    return b'id: 1-1\nevent: bench\ndata: {"t":1,"s":%d,"n":%d,"pad":""}\n\n' % (source, number)


def chunk(content: bytes) -> bytes:
    """Return an HTTP chunk."""
    return b"%x\r\n%s\r\n" % (len(content), content)


def frame(content: bytes, opcode: int = 1) -> bytes:
    """Return a WebSocket frame as a server sends it."""
    return bytes([0x80 | opcode, len(content)]) + content


def test_the_limit_reaches_every_subscriber() -> None:
    """Each of its events arrives at each client, once and in order."""
    with (
        Limit(["-c", "-n", 3, "-m", 7], core=CORE) as limit,
        Generator(["-p", limit.port, "-n", 3, "-y", "event: welcome"], core=CORE) as generator,
    ):
        generator.ready()
        report = generator.wait_for(7, seconds=SECONDS)
        sent = limit.report(SECONDS)
    assert (report["complete"], report["events"], report["holes"], report["repeats"]) == (1, 21, 0, 0)
    assert sent["sends"] == 21


def test_the_limit_spreads_its_subscribers_over_topics() -> None:
    """With as many topics as clients, each gets every so manieth event, numbered without a hole."""
    with (
        Limit(["-n", 2, "-k", 2, "-m", 8], core=CORE) as limit,
        Generator(["-p", limit.port, "-n", 2, "-y", "event: welcome"], core=CORE) as generator,
    ):
        generator.ready()
        report = generator.wait_for(4, seconds=SECONDS)
    assert (report["complete"], report["events"], report["holes"]) == (1, 8, 0)


def test_the_generator_sees_what_is_lost_and_doubled(listening: socket.socket) -> None:
    """Numbers passed over or come again, and gaps, are counted; sources do not mix; a comment is no event."""
    with Generator(["-p", port_of(listening), "-y", "event: welcome"], core=CORE) as generator:
        peer, request = accept(listening)
        with peer:
            assert request.startswith(b"GET / HTTP/1.1\r\n")
            peer.sendall(HEAD + chunk(b"event: welcome\ndata: {}\n\n"))
            generator.ready()
            peer.sendall(chunk(event(0) + event(0, source=7) + event(3)))
            peer.sendall(chunk(b": heartbeat\n\nevent: gap\ndata: {}\n\n" + event(3) + event(1, source=7)))
            report = generator.wait_for(5, seconds=SECONDS)
    assert (report["events"], report["holes"], report["repeats"]) == (5, 2, 1)
    assert (report["gaps"], report["others"]) == (1, 3)


def test_the_generator_puts_together_what_comes_in_pieces(listening: socket.socket) -> None:
    """Wherever the bytes are cut, in a chunk's head or in a number, the event is the same."""
    with Generator(["-p", port_of(listening), "-y", "event: welcome"], core=CORE) as generator:
        peer, _ = accept(listening)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        content = chunk(b"event: welcome\ndata: {}\n\n") + chunk(event(0)[:30]) + chunk(event(0)[30:] + event(1))
        with peer:
            for byte in HEAD + content:
                peer.sendall(bytes([byte]))
            generator.ready()
            report = generator.wait_for(2, seconds=SECONDS)
    assert (report["complete"], report["holes"], report["repeats"]) == (1, 0, 0)


def test_the_generator_speaks_websocket(listening: socket.socket) -> None:
    """It subscribes by its first message, answers a ping, and counts the events of frames."""
    subscribe = '{"type":"subscribe"}'
    options = ["-p", port_of(listening), "-u", "/ws", "-m", subscribe, "-y", '"subscribed"']
    with Generator(options, core=CORE) as generator:
        peer, request = accept(listening)
        with peer:
            assert b"Upgrade: websocket\r\n" in request
            peer.sendall(SWITCHED + frame(b'{"type":"welcome"}'))
            assert unmask(peer) == (1, subscribe.encode())
            peer.sendall(frame(b'{"type":"subscribed"}') + frame(b"x", opcode=9))
            assert unmask(peer) == (10, b"x")
            generator.ready()
            peer.sendall(frame(b'{"type":"event","data":{"t":1,"s":0,"n":0}}') + frame(b'{"type":"gap"}'))
            report = generator.wait_for(1, seconds=SECONDS)
            peer.sendall(frame(b"", opcode=8))
            closed = generator.wait_for(1, seconds=SECONDS)
    assert (report["complete"], report["events"]) == (1, 1)
    assert (closed["complete"], closed["closed"]) == (0, 1)


def unmask(peer: socket.socket) -> tuple[int, bytes]:
    """Read one short frame of a client: its opcode and its content."""
    opcode, length, *mask = peer.recv(6, socket.MSG_WAITALL)
    content = peer.recv(length & 127, socket.MSG_WAITALL)
    return opcode & 15, bytes(byte ^ mask[place % 4] for place, byte in enumerate(content))


def test_a_slow_client_reads_on_when_it_is_told_to(listening: socket.socket) -> None:
    """While it is stalled nothing arrives; afterwards everything does."""
    with Generator(["-p", port_of(listening), "-s", 1, "-y", "event: welcome"], core=CORE) as generator:
        peer, _ = accept(listening)
        with peer:
            peer.sendall(HEAD + chunk(b"event: welcome\ndata: {}\n\n"))
            generator.ready()
            generator.tell("stall")
            generator.wait_for(0, seconds=SECONDS)  # it has obeyed
            peer.sendall(chunk(event(0)))
            stalled = generator.wait_for(0, seconds=SECONDS)
            generator.tell("resume")
            resumed = generator.wait_for(0, slow_events=1, seconds=SECONDS)
    assert stalled["events"] == 0
    assert (resumed["complete"], resumed["events"]) == (1, 1)


def test_a_refused_client_is_an_error(listening: socket.socket) -> None:
    """The message says with which status."""
    with Generator(["-p", port_of(listening)], core=CORE) as generator:
        peer, _ = accept(listening)
        with peer:
            peer.sendall(b"HTTP/1.1 401 Unauthorized\r\n\r\n")
            with pytest.raises(BenchError, match="status was 401"):
                generator.ready()


def test_the_publisher_makes_the_events_of_the_benchmarks(listening: socket.socket, tmp_path: Path) -> None:
    """A batch is an array, `data` has the size that was asked for, and numbers run within a topic."""
    token = tmp_path / "token"
    token.write_text("secret\n")
    options = ["-p", port_of(listening), "-f", token, "-n", 3, "-g", 3, "-k", 2, "-s", 10, "-z", 80]
    with Program("publisher", options, core=CORE) as publisher:
        peer, request = accept(listening)
        with peer:
            head, _, body = request.partition(b"\r\n\r\n")
            while not body.endswith(b"}]"):
                body += peer.recv(65536)
            peer.sendall(b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}")
            report = publisher.report(SECONDS)
    events = json.loads(body)
    assert b"\r\nAuthorization: Bearer secret" in head
    numbered = [(made["topic"], made["data"]["s"], made["data"]["n"]) for made in events]
    assert numbered == [("bench.0", 10, 0), ("bench.1", 10, 0), ("bench.0", 10, 1)]
    assert {len(json.dumps(made["data"], separators=(",", ":"))) for made in events} == {80}
    assert (report["events"], report["accepted"], report["refused"]) == (3, 3, 0)


def test_a_program_that_ends_early_is_an_error() -> None:
    """Whoever waits for its report is told, and does not wait for ever."""
    with (
        Program("limit", ["-k", 0], core=CORE) as limit,
        pytest.raises(BenchError, match="expected a report"),
    ):
        limit.report(SECONDS)
