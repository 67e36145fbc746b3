"""Tests of demo.py: what `--demo` makes, shows and publishes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import AsyncIterator, Sequence
from itertools import islice
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

import demo
from channels.demo import ENTITY, FIRST_PRICES, ORG, OWNED, PUBLISHER, USER, events
from channels.families import EVENT_TYPES
from storage.entries import NewEvent
from storage.errors import Unavailable
from storage.owned import Owned
from tests.freezing import frozen
from tests.handlers.assembly import Assembly, token
from tests.handlers.clients import EventStream, event, get, publish
from tests.server_process import ROOT, SECRET, ServerProcess, mongod_of
from tests.waiting import wait_until


class FlakyAppender:
    """An appender that refuses every other event, the first among them."""

    def __init__(self) -> None:
        self.taken: list[NewEvent] = []
        self._asked = 0

    async def append(self, events: Sequence[NewEvent]) -> None:
        self._asked += 1
        if self._asked % 2:
            raise Unavailable("MongoDB is away")
        self.taken += events


def shown_path(path: Path) -> str:
    """Return a path as it is shown by a server that runs in the root of the project."""
    return os.path.relpath(path, ROOT)


async def test_the_demo_shows_where_to_look(tmp_path: Path) -> None:
    """Its tokens work, its feed goes on by itself, and it is not ready while its MongoDB hangs (X1, O2)."""
    arguments = (
        "--demo",
        f"--data_dir={tmp_path}",
        "--log_level=DEBUG",
        "--append_seconds=0.5",
        "--ready_lag_seconds=0.1",
        "--drain_seconds=1",
    )
    directory = shown_path(tmp_path)
    async with ServerProcess(*arguments, environment={}) as process:
        port = await process.port()
        assert (
            f'curl -N -H "Authorization: Bearer $(cat {directory}/demo-user.token)" "http://127.0.0.1:{port}/v1/stream"' in process.output
        )
        assert process.output.endswith(f"listening on http://127.0.0.1:{port}\n")
        user, publisher = ((tmp_path / f"demo-{name}.token").read_text() for name in ("user", "publisher"))
        for name in ("demo.secret", "demo-user.token", "demo-publisher.token"):
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
        async with EventStream(port, "?types=price:update,greeting", token=user) as stream:
            await stream.welcome()
            assert (await stream.next_of("price:update")).json()["symbol"] in FIRST_PRICES
            while (await publish(port, event("hello", type="greeting", id="1"), publisher)).status == 503:
                pass  # its MongoDB is slower than it is given time
            assert (await stream.next_of("greeting")).json() == {"n": "hello"}
        async with frozen(mongod_of(tmp_path)):
            await process.logged("demo event not published")

            async def is_not_ready() -> bool:
                return (await get(port, "/readyz")).status == 503

            await wait_until(is_not_ready, "it is not ready")


@pytest.fixture
async def here(mongodb_uri: str, database_name: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Assembly]:
    """An assembly whose demo feed, once it runs, runs as fast as it can."""
    monkeypatch.setattr(demo, "PAUSE_SECONDS", 0)
    assembly = Assembly(mongodb_uri, database_name)
    await assembly.start()
    yield assembly
    await assembly.stop()


@contextlib.asynccontextmanager
async def feeding(here: Assembly) -> AsyncIterator[None]:
    """Let the demo run, until it has published something of each family and beyond."""
    async with EventStream(here.port, "?types=sync.completed", token=token(USER, entity=ENTITY)) as stream:
        running = asyncio.create_task(demo.run(here.services))
        try:
            await stream.next_of("sync.completed")
            yield
        finally:
            running.cancel()
            await asyncio.wait({running})


async def test_the_demo_user_owns_what_the_samples_are_about(here: Assembly, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may open the streams of these resources; while MongoDB is away the feed waits with giving them to it."""
    asked: list[str] = []
    give = here.services.state.ownership.set_owners

    async def refusing(resource: str, owners: Sequence[str]) -> Owned:
        asked.append(resource)
        if len(asked) == 1:
            raise Unavailable("MongoDB is away")
        return await give(resource, owners)

    monkeypatch.setattr(here.services.state.ownership, "set_owners", refusing)
    async with feeding(here):
        assert asked == [OWNED[0], *OWNED]
    owned = await here.services.state.ownership.owners_of(OWNED)
    assert {name: one.owners for name, one in owned.items()} == dict.fromkeys(OWNED, (f"user:{USER}",))


async def test_every_place_to_look_is_moving(here: Assembly) -> None:
    """Each line that the demo prints shows something of the feed (X1)."""
    user = token(USER, org=ORG, entity=ENTITY)
    async with feeding(here):
        for target, credential in [*((one, user) for one in demo.WATCH), *((one, None) for one in demo.OPEN_TO_ALL)]:
            async with EventStream(here.port, path=target, token=credential) as stream:
                assert stream.head.status == 200, target
                await stream.welcome()
                while (await stream.next()).type not in EVENT_TYPES:
                    pass


async def test_the_feed_goes_on_after_what_could_not_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """While MongoDB is away a sample event is left out; publishers are not so lucky, and must repeat."""
    monkeypatch.setattr(demo, "PAUSE_SECONDS", 0)
    appender = FlakyAppender()
    feeding = asyncio.create_task(demo.feed(appender))  # type: ignore[arg-type]  # all that the feed knows of one
    await wait_until(lambda: len(appender.taken) >= 3, "three events were published")
    feeding.cancel()
    await asyncio.wait({feeding})
    samples = [event.type for event in islice(events(lambda: 0.0), 6)]
    assert [event.type for event in appender.taken[:3]] == samples[1::2]


def test_the_tokens_are_the_demo_users_and_publishers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Signed with the secret, readable by their owner alone, and shown with the commands that use them."""
    demo.show("http://[::1]:8080", tmp_path, SECRET)
    output = capsys.readouterr().out
    assert "http://[::1]:8080/v1/stream" in output
    claims = {}
    for name in ("user", "publisher"):
        path = tmp_path / f"demo-{name}.token"
        assert shown_path(path) in output
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        claims[name] = jwt.decode(path.read_text(), SECRET, algorithms=["HS256"])
    assert (claims["user"]["sub"], claims["user"]["org"], claims["user"]["entity"]) == (USER, ORG, ENTITY)
    assert (claims["publisher"]["sub"], claims["publisher"]["roles"]) == (PUBLISHER, ["publisher"])


def test_the_demos_secret_is_made_once(tmp_path: Path) -> None:
    """The next start uses the same, so that tokens handed out before still hold."""
    data_dir = tmp_path / "data"
    first = demo.with_secret({"A": "b"}, data_dir)
    assert first["A"] == "b"
    assert len(first["TAILCAST_JWT_SECRET"]) >= 32
    assert demo.with_secret({}, data_dir)["TAILCAST_JWT_SECRET"] == first["TAILCAST_JWT_SECRET"]
    assert stat.S_IMODE((data_dir / "demo.secret").stat().st_mode) == 0o600


def test_the_demo_makes_no_tokens_without_a_secret_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the operator's public key only the operator can sign; the demo says so, and writes nothing."""
    demo.show("http://127.0.0.1:1", tmp_path, "")
    assert "make one for user demo" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


async def test_the_demo_takes_the_operators_key(mongodb_uri: str, database_name: str, tmp_path: Path) -> None:
    """A public key among the arguments is the only key: no secret is made beside it."""
    key = ed25519.Ed25519PrivateKey.generate().public_key()
    pem = tmp_path / "key.pem"
    pem.write_bytes(key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    where = (f"--mongodb_uri={mongodb_uri}", f"--database={database_name}", f"--data_dir={tmp_path / 'data'}", "--drain_seconds=1")
    async with ServerProcess("--demo", *where, f"--jwt_public_key={pem}", "--jwt_algorithms=EdDSA", environment={}) as process:
        await process.port()
        assert "checked with your own key" in process.output
        assert not (tmp_path / "data").exists()
