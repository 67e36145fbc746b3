"""Tests of server.py, as processes of their own: how it starts, what it prints, how it stops, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pymongo
import pytest

import server
from settings import DECLARATIONS
from tests.certificates import make_certificate
from tests.freezing import frozen
from tests.handlers.assembly import PUBLISHER, USER, token
from tests.handlers.clients import EventStream, RawWebSocket, Response, Wire, event, get, publish, request_bytes, websocket
from tests.handlers.issuer import Issuer
from tests.server_process import SECRET, ServerProcess, mongod_of, runs
from tests.waiting import PATIENCE_SECONDS, wait_until

PATIENT = (f"--append_seconds={PATIENCE_SECONDS}", f"--ready_lag_seconds={PATIENCE_SECONDS}")  # with a MongoDB that stands still


@pytest.fixture
def on_mongodb(mongodb_uri: str, database_name: str) -> tuple[str, ...]:
    """The settings of a server on the session's MongoDB, in a database of its own."""
    return (f"--mongodb_uri={mongodb_uri}", f"--database={database_name}", "--drain_seconds=1", "--log_level=DEBUG", *PATIENT)


@pytest.fixture
async def running(on_mongodb: tuple[str, ...]) -> AsyncIterator[tuple[ServerProcess, int]]:
    """A server that listens, and its port."""
    async with ServerProcess(*on_mongodb) as process:
        yield process, await process.port()


# ---- starting


def test_clients_that_say_nothing_are_kept_back_by_the_kernel() -> None:
    """A connection is only accepted when there is something to read, or after a moment; one that was accepted can be read at once."""
    for sock in server._listen("127.0.0.1", 0):
        with sock:
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT) >= server.SILENT_SECONDS


def test_help_lists_all_settings_and_starts_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` prints every setting, and the exit status is 0 (X2)."""
    assert server.main(["--help"], {}) == 0
    output = capsys.readouterr().out
    assert all(f"  {one.name} =" in output for one in DECLARATIONS)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--prot=8080"], "prot"),
        (["--port=eighty"], "port"),
        (["--jwt_secret=" + SECRET], "secret"),
        (["nonsense"], "nonsense"),
        (["--demo", "--jwt_secret=" + SECRET], "secret"),
        (["--tls_certificate=server.pem"], "tls_key"),
        (["--tls_certificate=/no/such.pem", "--tls_key=/no/such.key"], "tls_certificate: cannot read '/no/such.pem': No such file"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    """On standard error, without a secret in it, and with exit status 2 (X2)."""
    assert server.main(arguments, {}) == 2
    output = capsys.readouterr()
    assert re.fullmatch(rf"tailcast: .*{named}.*\n", output.err)
    assert SECRET not in output.err
    assert output.out == ""


async def test_a_wrong_setting_ends_the_process_at_once() -> None:
    """One line, exit status 2, nothing else (X2)."""
    async with ServerProcess("--prot=8080") as process:
        assert await process.ended() == 2
        assert (process.output, process.log.count("\n")) == ("", 1)


async def test_a_port_in_use_ends_the_start_with_one_line(on_mongodb: tuple[str, ...]) -> None:
    """Exit status 1 and a sentence that says what to do, no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with ServerProcess(*on_mongodb, f"--port={port}") as process:
            assert await process.ended() == 1
            assert re.fullmatch(rf"tailcast: cannot listen on 127\.0\.0\.1:{port}: Address already in use; .*\n", process.log)


async def test_an_address_that_is_none_ends_the_start_with_one_line(on_mongodb: tuple[str, ...]) -> None:
    """The same for a name that cannot be resolved."""
    async with ServerProcess(*on_mongodb, "--address=no-such-host.invalid") as process:
        assert await process.ended() == 1
        assert re.fullmatch(r"tailcast: cannot listen on no-such-host\.invalid.*\n", process.log)


async def test_a_log_that_cannot_be_used_ends_the_start_with_one_line(
    on_mongodb: tuple[str, ...], mongodb_uri: str, database_name: str
) -> None:
    """A collection of that name that is not capped is somebody else's."""
    with pymongo.MongoClient[dict[str, Any]](mongodb_uri) as client:
        client[database_name].create_collection("log")
    async with ServerProcess(*on_mongodb, "--log_level=ERROR") as process:
        assert await process.ended() == 1
        assert re.fullmatch(r"tailcast: .*not capped.*\n", process.log)


async def test_it_waits_for_mongodb_and_can_be_stopped_meanwhile(tmp_path: Path) -> None:
    """Without MongoDB it says what it waits for, once, does not claim to listen, and a SIGTERM ends it with 0."""
    uri = f"mongodb://{str(tmp_path / 'nobody.sock').replace('/', '%2F')}/?directConnection=true&serverSelectionTimeoutMS=100"
    async with ServerProcess(f"--mongodb_uri={uri}", "--append_seconds=0.1") as process:
        await process.logged("waits for MongoDB")
        process.terminate()
        assert await process.ended() == 0
        assert process.output == ""
        assert process.log.count("waits for MongoDB") == 1


async def test_without_a_key_it_says_that_no_token_will_hold(on_mongodb: tuple[str, ...]) -> None:
    """The server starts, warns, and refuses every token."""
    async with ServerProcess(*on_mongodb, environment={}) as process:
        port = await process.port()
        assert "every token will be refused" in process.log
        assert (await get(port, "/v1/stream", token=USER)).error() == (401, "unauthenticated", None)


# ---- serving


async def test_it_prints_one_line_when_it_can_serve(running: tuple[ServerProcess, int]) -> None:
    """The line ends in the address, and from then on events are taken and delivered (X2)."""
    process, port = running
    assert process.output == f"listening on http://127.0.0.1:{port}\n"
    assert (await get(port, "/readyz")).status == 200
    assert (await get(port, "/readyz")).status == 200
    async with EventStream(port, token=USER) as stream:
        await stream.welcome()
        assert (await publish(port, event(1), PUBLISHER)).status == 202
        assert (await stream.next()).json() == {"n": 1}


def has_ipv6() -> bool:
    """Tell whether this machine can listen on IPv6; some containers cannot."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.skipif(not has_ipv6(), reason="there is no IPv6 here")
async def test_an_ipv6_address_stands_in_brackets(on_mongodb: tuple[str, ...]) -> None:
    """The line holds a URL that programs understand (RFC 3986, 3.2.2)."""
    async with ServerProcess(*on_mongodb, "--address=::1") as process:
        port = await process.port(r"\[::1\]")
        assert process.output == f"listening on http://[::1]:{port}\n"
        with socket.create_connection(("::1", port)):
            pass


async def test_two_servers_on_one_mongodb_are_one_system(running: tuple[ServerProcess, int], on_mongodb: tuple[str, ...]) -> None:
    """Publish on one, receive on the other, and resume on any (L11)."""
    _, first = running
    async with ServerProcess(*on_mongodb) as process:
        second = await process.port()
        async with EventStream(second, token=USER) as stream:
            await stream.welcome()
            for number in range(3):
                assert (await publish((first, second)[number % 2], event(number), PUBLISHER)).status == 202
            received = [await stream.next() for _ in range(3)]
            assert [one.json()["n"] for one in received] == [0, 1, 2]
        for port in (first, second):
            async with EventStream(port, token=USER, Last_Event_ID=received[0].id or "") as stream:
                await stream.welcome()
                # One server may have `live` between them: what the other took is behind its own head for a moment.
                assert [(await stream.next_of("order:placed")).json()["n"] for _ in range(2)] == [1, 2]
        async with RawWebSocket(first, token=USER) as opened:
            await opened.next("welcome")
            await opened.ask({"type": "subscribe", "topic": "**", "position": received[1].id}, "subscribed")
            assert (await opened.next("event"))["data"] == {"n": 2}


async def test_nothing_of_a_token_is_logged(running: tuple[ServerProcess, int]) -> None:
    """Whichever way a token came, good or bad, with everything logged that can be (S7)."""
    process, port = running
    good, bad = token("u1", org="o1"), token("u1", org="o2", secret="another secret that is long enough, too")
    for one in (good, bad):
        await get(port, f"/healthz?token={one}")
        await get(port, f"/nothing?token={one}", token=one)
        await publish(port, event(), one)
        for query, header in ((f"?token={one}", None), ("", one)):
            async with EventStream(port, query, token=header):
                pass
            async with RawWebSocket(port, query, token=header):
                pass
        async with RawWebSocket(port, headers={"Sec-WebSocket-Protocol": f"bearer.{one}"}):
            pass
        async with RawWebSocket(port) as opened:
            opened.say({"type": "auth", "token": one}, {"type": "auth", "token": one, "oops": one}, {"type": "subscribe", "topic": one})
            await opened.next()
    await get(port, "/healthz", headers={"X-Correlation-ID": "the-last"})
    await process.logged("the-last")
    lines = [json.loads(line) for line in process.log.splitlines()]
    assert {"request", "connected", "refused"} <= {line["message"] for line in lines}
    for one in (good, bad):
        assert not any(part in process.log for part in one.split("."))
    assert SECRET not in process.log


async def test_it_takes_the_keys_that_an_issuer_publishes(on_mongodb: tuple[str, ...], tmp_path: Path) -> None:
    """From `jwks_url`, trusting the authority in SSL_CERT_FILE; a stop in the middle of a fetch is clean (S2)."""
    async with Issuer(tmp_path) as issuer:
        issuer.publish("k1")
        options = (f"--jwks_url={issuer.url}", "--jwks_seconds=1")
        async with ServerProcess(*on_mongodb, *options, environment={"SSL_CERT_FILE": str(issuer.certificate)}) as process:
            port = await process.port()
            await process.logged("published keys")
            async with EventStream(port, token=issuer.token("k1")) as stream:
                await stream.welcome()
                answer = await get(port, "/v1/stream", token=issuer.token("k2"))
                assert answer.error() == (401, "unauthenticated", None)
                issuer.publish("k2")
                await wait_until(lambda: process.log.count("published keys") == 2, "the new key is there")
                assert (await publish(port, event(1), issuer.token("k2", roles=["publisher"]))).status == 202
                assert (await stream.next()).json() == {"n": 1}
            issuer.gate.clear()
            asked = issuer.requests
            await wait_until(lambda: issuer.requests > asked, "the keys are being fetched")
            process.terminate()
            assert await process.ended() == 0
            levels = {json.loads(line)["level"] for line in process.log.splitlines()}
            assert levels <= {"DEBUG", "INFO"}


# ---- TLS


async def test_over_tls_it_says_so_and_serves(on_mongodb: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line has https, clients that trust the certificate are served, and a stop ends streams in good order (S11, X2)."""
    certificate = make_certificate(tmp_path)
    async with ServerProcess(*on_mongodb, *certificate.arguments) as process:
        port = await process.port()
        assert process.output == f"listening on https://127.0.0.1:{port}\n"
        monkeypatch.setattr(Wire, "tls", certificate.client())
        async with EventStream(port, token=USER) as stream:
            await stream.welcome()
            assert (await publish(port, event(1), PUBLISHER)).status == 202
            assert (await stream.next()).json() == {"n": 1}
            process.terminate()
            assert (await stream.next_of("closing")).json()["code"] == 1012
            assert await stream.ends()
        assert await process.ended() == 0


@pytest.mark.parametrize("broken", ["tls_certificate", "tls_key"])
async def test_a_certificate_that_cannot_be_used_ends_the_start(tmp_path: Path, broken: str) -> None:
    """One line that names the setting, and exit status 2 (S11)."""
    certificate = make_certificate(tmp_path)
    certificate.settings[broken].write_text("none")
    async with ServerProcess(*certificate.arguments) as process:
        assert await process.ended() == 2
        assert re.fullmatch(rf"tailcast: {broken}: .*\n", process.log)


async def test_sighup_reads_the_certificate_again(on_mongodb: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """New connections get the new one, a stream that is open goes on; with a file that cannot be used nothing changes (S11)."""
    first = make_certificate(tmp_path)
    trusts_first = first.client()
    async with ServerProcess(*on_mongodb, *first.arguments) as process:
        port = await process.port()
        monkeypatch.setattr(Wire, "tls", trusts_first)
        async with EventStream(port, token=USER) as stream:
            await stream.welcome()
            second = make_certificate(tmp_path)  # the same files
            trusts_second = second.client()
            assert await get(port, "/healthz")
            process.process.send_signal(signal.SIGHUP)
            await process.logged("the certificate was read again")
            with pytest.raises(ssl.SSLCertVerificationError):
                await get(port, "/healthz")
            monkeypatch.setattr(Wire, "tls", trusts_second)
            first.key.write_text("none")
            process.process.send_signal(signal.SIGHUP)
            await process.logged("the certificate stays as it was: tls_key: ")
            lines = [json.loads(line) for line in process.log.splitlines()]
            assert [line["level"] for line in lines if "stays as it was" in line["message"]] == ["ERROR"]
            assert (await publish(port, event(1), PUBLISHER)).status == 202
            assert (await stream.next()).json() == {"n": 1}


async def test_sighup_without_tls_changes_nothing(running: tuple[ServerProcess, int]) -> None:
    """It is logged, and the server goes on."""
    process, port = running
    process.process.send_signal(signal.SIGHUP)
    await process.logged("SIGHUP: there is nothing to read again")
    assert (await get(port, "/healthz")).status == 200


# ---- stopping


async def test_sigterm_sends_everybody_away_in_order(running: tuple[ServerProcess, int]) -> None:
    """`closing` 1012 with the time to come back, on both transports, to whoever has not sent its credential yet as well; the ends are
    clean, and the status is 0 (T9, T10)."""
    process, port = running
    async with EventStream(port, token=USER) as stream, websocket(port, USER) as opened, RawWebSocket(port) as unknown:
        await stream.welcome()
        process.terminate()
        closing = await stream.next_of("closing")
        assert closing.json()["code"] == 1012
        assert closing.retry == closing.json()["retryMs"]
        assert 0 < closing.json()["retryMs"] <= 3000
        assert await stream.ends()
        code, said = await opened.closed_with()
        assert code == 1012
        assert 0 < said["retryMs"] <= 3000
        code, said = await unknown.closed_with()
        assert code == 1012
        assert 0 < said["retryMs"] <= 5000
    assert await process.ended() == 0
    with pytest.raises(ConnectionRefusedError):
        await get(port, "/healthz")


async def test_sigint_stops_it_as_well(running: tuple[ServerProcess, int]) -> None:
    """Ctrl-C on a terminal; a second one changes nothing."""
    process, _ = running
    process.process.send_signal(signal.SIGINT)
    process.process.send_signal(signal.SIGINT)
    assert await process.ended() == 0


async def test_while_it_stops_it_takes_nothing_new(on_mongodb: tuple[str, ...]) -> None:
    """Who is still connected is told 503, as long as somebody has not left (T10)."""
    async with ServerProcess(*on_mongodb, f"--drain_seconds={PATIENCE_SECONDS}") as process:
        port = await process.port()
        async with EventStream(port, token=USER) as stream, Wire(port) as wire:
            await stream.welcome()
            wire.send(request_bytes("GET", "/healthz", {"Host": "x"}))
            assert (await wire.read_response()).status == 200
            process.terminate()
            await stream.next_of("closing")  # and does not leave
            body = json.dumps(event()).encode()
            headers = {"Host": "x", "Authorization": f"Bearer {PUBLISHER}", "Content-Length": str(len(body))}
            answers: list[Response] = []
            for request in (request_bytes("GET", "/readyz", {"Host": "x"}), request_bytes("POST", "/v1/events", headers, body)):
                wire.send(request)
                answers.append(await wire.read_response())
            assert [answer.error() for answer in answers] == [(503, "unavailable", None)] * 2
        assert await process.ended() == 0


async def test_a_client_that_does_not_leave_is_cut_off(running: tuple[ServerProcess, int]) -> None:
    """When the time for draining is over the server ends, whoever is still there (T10)."""
    process, port = running
    async with EventStream(port, token=USER) as stream:
        await stream.welcome()
        process.terminate()
        await stream.next_of("closing")
        assert await process.ended() == 0


async def test_a_part_that_fails_ends_the_server(on_mongodb: tuple[str, ...]) -> None:
    """A defect never goes unseen: it is logged, everybody is sent away, and the status is 1."""
    script = """
import sys
import assembly
import server
async def fail(appender):
    raise ZeroDivisionError("a defect")
assembly.Appender.run = fail
sys.exit(server.main(sys.argv[1:], {}))
"""
    async with ServerProcess("--port=0", *on_mongodb, start=("-c", script)) as process:
        assert await process.ended() == 1
        assert "appender failed" in process.log
        assert "ZeroDivisionError: a defect" in process.log


# ---- its own MongoDB


async def test_its_own_mongodb_lives_and_ends_with_it(tmp_path: Path) -> None:
    """Killed, mongod is started again and everything goes on; a publish under way at SIGTERM is answered; no process is left (X1, L5)."""
    async with ServerProcess(f"--data_dir={tmp_path}", f"--drain_seconds={PATIENCE_SECONDS}", *PATIENT) as process:
        port = await process.port()
        first = mongod_of(tmp_path)
        async with EventStream(port, token=USER) as stream:
            await stream.welcome()
            assert (await publish(port, event(1), PUBLISHER)).status == 202
            os.kill(first, signal.SIGKILL)
            while (await publish(port, event(2, id="2"), PUBLISHER)).status == 503:
                pass
            assert [(await stream.next()).json()["n"] for _ in range(2)] == [1, 2]
            second = mongod_of(tmp_path)
            assert second != first
            async with frozen(second):
                under_way = asyncio.ensure_future(publish(port, event(3), PUBLISHER))
                for _ in range(2):  # asked later, answered: so the publish was read
                    await get(port, "/healthz")
                process.terminate()
                await wait_until(lambda: _refuses(port), "it accepts no more connections")
            assert (await under_way).status == 202
            assert (await stream.next_of("closing")).json()["code"] == 1012
        assert await process.ended() == 0
        assert not runs(second)


def _refuses(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


async def test_killed_it_leaves_no_process_behind(tmp_path: Path) -> None:
    """After kill -9 its mongod ends as well, and the next server finds the log as it was (X1)."""
    async with ServerProcess(f"--data_dir={tmp_path}", *PATIENT) as process:
        port = await process.port()
        mongod = mongod_of(tmp_path)
        assert (await publish(port, event(1), PUBLISHER)).status == 202
        process.process.kill()
        assert await process.ended() == -signal.SIGKILL
    await wait_until(lambda: not runs(mongod), "its mongod has ended")
    async with ServerProcess(f"--data_dir={tmp_path}") as process:
        async with EventStream(await process.port(), "?from=earliest", token=USER) as stream:
            await stream.welcome()
            assert (await stream.next()).json() == {"n": 1}
        process.terminate()
        assert await process.ended() == 0


async def test_a_data_directory_that_cannot_be_used_ends_the_start_with_one_line(tmp_path: Path) -> None:
    """One line that says which, and exit status 1."""
    (tmp_path / "file").write_text("")
    async with ServerProcess(f"--data_dir={tmp_path / 'file'}") as process:
        assert await process.ended() == 1
        assert re.fullmatch(r"tailcast: [^\n]*file[^\n]*\n", process.log)
