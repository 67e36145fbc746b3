"""What tests of handlers get: an assembly with a log of its own, a MongoDB that may be stopped, and an issuer of tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from handlers import jwks
from storage.embedded import EmbeddedMongoDB
from tests.certificates import Certificate, make_certificate
from tests.freezing import freeze, thaw
from tests.handlers.assembly import Assembly
from tests.handlers.issuer import Checker, Issuer, checking
from tests.loop_thread import LoopThread
from tests.waiting import PATIENCE_SECONDS

Assemble = Callable[..., Awaitable[Assembly]]


@pytest.fixture
async def assemble(mongodb_uri: str, database_name: str) -> AsyncIterator[Assemble]:
    """A function that starts an assembly with the settings it is given; all are stopped when the test is over."""
    started: list[Assembly] = []

    async def start(uri: str = mongodb_uri, **settings: object) -> Assembly:
        # One that the test stops is given up soon; the one for all may stand still for as long as a busy disk lets it.
        assembly = Assembly(uri, database_name, answer_seconds=PATIENCE_SECONDS if uri == mongodb_uri else 2.0, **settings)
        try:
            await assembly.start()
        except BaseException:
            assembly.database.close()
            raise
        started.append(assembly)
        return assembly

    yield start
    for assembly in reversed(started):
        await assembly.stop()


@pytest.fixture
async def here(assemble: Assemble) -> Assembly:
    """An assembly with the settings' defaults."""
    return await assemble()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate that a server may use; no test changes it."""
    return make_certificate(tmp_path_factory.mktemp("certificate"))


class StoppableMongoDB:
    """A MongoDB that can be made to hang, as one on a machine that swaps or behind a broken network does."""

    def __init__(self, uri: str, pid: int) -> None:
        self.uri = uri
        self._pid = pid

    async def hang(self) -> None:
        """Answer nothing from now on."""
        await freeze(self._pid)

    def go_on(self) -> None:
        """Answer again, also what was asked meanwhile."""
        thaw(self._pid)


@pytest.fixture(scope="session")
def _stoppable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoppableMongoDB]:
    mongodb = EmbeddedMongoDB(tmp_path_factory.mktemp("stoppable"), cache_megabytes=256)
    with LoopThread("stoppable mongodb") as thread:
        uri = thread.run(mongodb.start(), seconds=PATIENCE_SECONDS)
        assert mongodb.pid is not None
        yield StoppableMongoDB(uri, mongodb.pid)
        thread.run(mongodb.stop(), seconds=PATIENCE_SECONDS)


@pytest.fixture
def stoppable_mongodb(_stoppable: StoppableMongoDB) -> Iterator[StoppableMongoDB]:
    """A MongoDB that this test may stop; it goes on when the test is over."""
    yield _stoppable
    _stoppable.go_on()


@pytest.fixture
async def issuer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Issuer]:
    """An issuer of tokens that publishes one key, k1, and is not given up however slow the machine is."""
    for name in ("CONNECT_SECONDS", "ANSWER_SECONDS", "WAIT_SECONDS"):
        monkeypatch.setattr(jwks, name, PATIENCE_SECONDS)
    async with Issuer(tmp_path) as one:
        one.publish("k1")
        yield one


@pytest.fixture
async def checker(issuer: Issuer) -> AsyncIterator[Checker]:
    """One who checks the issuer's tokens, and fetches its keys."""
    async with checking(issuer) as one:
        yield one
