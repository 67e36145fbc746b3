"""gzip over real sockets (T7): who gets it, with which headers, and that clients of every kind read what they would have read without."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from handlers.sockets import SocketSink
from hub.connection import State
from tests.certificates import Certificate
from tests.handlers.asking import caught_up
from tests.handlers.assembly import PUBLISHER, USER, Assembly, token
from tests.handlers.clients import EventStream, SseEvent, Wire, event, publish
from tests.handlers.conftest import Assemble
from tests.programs import needs_curl
from tests.test_guides import program
from tests.waiting import PATIENCE_SECONDS, wait_until

BROWSER = "gzip, deflate, br, zstd"


def stream(port: int, query: str = "", **arguments: Any) -> EventStream:
    """Return a stream as a browser asks for it."""
    return EventStream(port, query, **{"token": USER, "Accept_Encoding": BROWSER, **arguments})


async def numbers(stream: EventStream, count: int) -> list[Any]:
    """Return what `event(n)` was made with, of the next events."""
    return [(await stream.next()).json()["n"] for _ in range(count)]


async def published(port: int, *events: dict[str, Any]) -> list[str]:
    """Publish events, and return their ids."""
    return [one["id"] for one in (await publish(port, list(events), PUBLISHER)).json()["events"]]


async def test_a_browser_gets_gzip_and_reads_each_event_at_once(here: Assembly) -> None:
    """What it accepts, it gets, and the answer says that it depends on that (RFC 9110, 12.5.3 and 12.5.5)."""
    async with stream(here.port) as opened:
        assert opened.head.headers["content-encoding"] == "gzip"
        assert opened.head.headers["vary"] == "Origin, Accept-Encoding"
        assert opened.head.headers["transfer-encoding"] == "chunked"
        await opened.welcome()
        for number in range(3):
            (id,) = await published(here.port, event(number))
            assert await opened.next() == SseEvent("order:placed", json.dumps({"n": number}), id)


@pytest.mark.parametrize(
    ("arguments", "settings", "vary"),
    [
        ({"Accept_Encoding": "br"}, {}, "Origin, Accept-Encoding"),
        ({"Accept_Encoding": "gzip;q=0"}, {}, "Origin, Accept-Encoding"),
        ({"version": "1.0"}, {}, "Origin, Accept-Encoding"),
        ({}, {"gzip": False}, "Origin"),
    ],
)
async def test_others_get_the_stream_as_it_is(assemble: Assemble, arguments: dict[str, str], settings: dict[str, bool], vary: str) -> None:
    """Who does not accept gzip, who speaks HTTP/1.0, and everybody if the setting says so."""
    here = await assemble(**settings)
    async with stream(here.port, **arguments) as opened:
        assert "content-encoding" not in opened.head.headers
        assert opened.head.headers["vary"] == vary
        await opened.welcome()
        await published(here.port, event(1))
        assert await numbers(opened, 1) == [1]


async def test_the_stream_ends_as_a_whole_member(here: Assembly) -> None:
    """After `closing` comes a trailer that is right, whatever the client has had: readers of gzip would complain otherwise."""
    async with stream(here.port, token=token(seconds=100)) as opened:
        await opened.welcome()
        await published(here.port, *map(event, range(20)))
        assert await numbers(opened, 20) == list(range(20))
        await here.pass_seconds(80)
        assert (await opened.next()).type == "expiring"
        await published(here.port, event(20))
        assert await numbers(opened, 1) == [20]
        await here.pass_seconds(21)
        assert (await opened.next()).type == "closing"
        assert await opened.ends()


async def test_clients_that_join_return_and_hear_something_of_their_own_stay_right(here: Assembly) -> None:
    """Beside one that was there from the beginning, and gets the same bytes as they do where it can (L9)."""
    async with stream(here.port) as first:
        await first.welcome()
        ids = await published(here.port, *map(event, range(10)))
        assert await numbers(first, 10) == list(range(10))
        async with stream(here.port, Last_Event_ID=ids[4]) as returned, stream(here.port, token=token("u2")) as joined:
            await joined.welcome()
            await returned.welcome()
            assert await numbers(returned, 5) == list(range(5, 10))
            assert (await returned.next()).type == "live"
            await wait_until(lambda: all(one.state is State.ATTACHED for one in here.hub.connections), "all are at the head")
            for number in range(10, 20):
                await published(here.port, event(number), event("own", audience=["user:u2"]))
                assert await numbers(first, 1) == await numbers(returned, 1) == [number]
                assert await numbers(joined, 2) == [number, "own"]
            await here.pass_seconds(here.settings.heartbeat_seconds)
            await published(here.port, event("end"))
            assert await numbers(first, 1) == await numbers(returned, 1) == await numbers(joined, 1) == ["end"]
            assert first.comments == returned.comments == joined.comments == ["heartbeat"]


@pytest.fixture(params=["plain", "tls"])
async def over(request: pytest.FixtureRequest, assemble: Assemble, certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> Assembly:
    """An assembly without TLS, then one with."""
    if request.param == "plain":
        return await assemble()
    monkeypatch.setattr(Wire, "tls", certificate.client())
    return await assemble(**certificate.settings)


async def test_a_slow_reader_loses_nothing(over: Assembly) -> None:
    """Its socket takes part of a chunk, it reads on from the log later, and is on the live path again, with and without TLS (L7)."""
    padding = [{"n": n, "hex": "".join(f"{(n * 7919 + i) ** 3 % 99991:x}" for i in range(4000))} for n in range(200)]
    async with stream(over.port) as opened:
        await opened.welcome()
        (connection,) = over.hub.connections
        opened.reader._transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(3):
            await publish(over.port, [event(data=data) for data in padding], PUBLISHER)
        await caught_up(over)
        await wait_until(lambda: connection.state is State.BLOCKED, "it has left the live path")
        assert isinstance(connection.sink, SocketSink)
        assert 0 < connection.sink.pending < 2 * over.settings.chunk_bytes
        opened.reader._transport.resume_reading()  # type: ignore[attr-defined]
        assert await numbers(opened, 600) == [*range(200)] * 3
        assert (await opened.next()).type == "live"
        await wait_until(lambda: connection.state is State.ATTACHED, "it is on the live path again")
        await published(over.port, event("end"))
        assert await numbers(opened, 1) == ["end"]


@needs_curl
async def test_curl_reads_it(here: Assembly) -> None:
    """`curl --compressed` prints the events, and ends without a complaint when the server ends the stream."""
    url = f"http://127.0.0.1:{here.port}/v1/stream"
    process = await asyncio.create_subprocess_exec(
        *("curl", "-sSN", "--compressed", "-H", f"Authorization: Bearer {token(seconds=100)}", url),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    await wait_until(lambda: here.hub.connections, "it is connected")
    ids = await published(here.port, event(1), event(2))
    await wait_until(lambda: here.hub.id_of(here.hub.head) == ids[-1], "they were pushed")
    await here.pass_seconds(101)
    output, errors = await process.communicate()
    assert (process.returncode, errors) == (0, b"")
    assert output.count(b"event: order:placed\ndata: ") == 2
    assert b"event: closing\n" in output


async def test_the_program_of_the_guide_reads_it(here: Assembly, tmp_path: Path) -> None:
    """Python's own http.client and zlib: each event at once, and the end."""
    path = tmp_path / "read.py"
    path.write_text(program("gzip.md", "read.py").replace("8080", str(here.port)))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(path)),
        env={**os.environ, "TOKEN": token(seconds=100)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE_SECONDS):
        await process.stdout.readuntil(b"event: welcome\n")
        for number in range(5):
            await published(here.port, event(number))
            await process.stdout.readuntil(b'data: {"n": %d}\n\n' % number)
    (connection,) = here.hub.connections
    assert connection.format.compressed
    await here.pass_seconds(101)
    output, errors = await process.communicate()
    assert (process.returncode, errors) == (0, b"")
    assert b"event: closing\n" in output
