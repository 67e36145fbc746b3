"""What tests in a browser get: the browser and an origin for all of them, pages, a server for all, and servers of their own."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pymongo
import pytest

from tests.browser.chromium import Chromium, Page, find_chromium
from tests.browser.origin import Origin
from tests.faults.world import Server
from tests.loop_thread import LoopThread
from tests.waiting import PATIENCE_SECONDS

Serve = Callable[..., Awaitable[Server]]
NO_LIMITS = (  # all pages have one address and user, and the MongoDB of all tests may stand still for a while
    "--connects_per_minute=0",
    "--connections_per_user=0",
    "--failed_logins_per_minute=0",
    f"--append_seconds={PATIENCE_SECONDS}",
)


@pytest.fixture(scope="session")
def thread() -> Iterator[LoopThread]:
    """The loop of what outlives single tests, whose own loops end with them."""
    with LoopThread("browser tests") as running:
        yield running


@pytest.fixture(scope="session")
def chromium(thread: LoopThread) -> Iterator[Chromium]:
    """The browser, started once."""
    executable = find_chromium(os.environ)
    browser = Chromium(thread)
    thread.run(browser.start(executable), PATIENCE_SECONDS)
    yield browser
    thread.run(browser.stop(), PATIENCE_SECONDS)


@pytest.fixture(scope="session")
def origin(thread: LoopThread) -> Iterator[Origin]:
    """Where pages come from; all servers here allow it."""
    here = Origin()
    thread.run(here.start(), PATIENCE_SECONDS)
    yield here
    thread.run(here.stop(), PATIENCE_SECONDS)


@pytest.fixture
async def page(chromium: Chromium, origin: Origin) -> AsyncIterator[Page]:
    """An empty page, which must be over without an uncaught exception in its scripts."""
    opened = await chromium.open(origin.url)
    yield opened
    await opened.close()
    assert opened.errors == []


@pytest.fixture(scope="session")
def server(thread: LoopThread, origin: Origin, mongodb_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server process, started once: tests that share it hear of their own topics only."""
    database = f"test_{uuid.uuid4().hex}"
    settings = (f"--database={database}", f"--allowed_origins={origin.url}", *NO_LIMITS)
    shared = Server(tmp_path_factory.mktemp("server"), *settings, mongodb_uri=mongodb_uri)
    thread.run(shared.start(), PATIENCE_SECONDS)
    yield shared
    assert thread.run(shared.end(), PATIENCE_SECONDS) == 0
    with pymongo.MongoClient[dict[str, object]](mongodb_uri) as client:
        client.drop_database(database)


@pytest.fixture
async def serve(mongodb_uri: str, database_name: str, origin: Origin, tmp_path: Path) -> AsyncIterator[Serve]:
    """A function that starts a server process of the test's own, with further settings, on any port or a given one; all of a
    test have one database."""
    started: list[Server] = []

    async def start(*settings: str, port: int = 0) -> Server:
        common = (f"--database={database_name}", f"--allowed_origins={origin.url}", *NO_LIMITS)
        one = Server(tmp_path, *common, *settings, mongodb_uri=mongodb_uri)
        one.port = port
        started.append(one)
        await one.start()
        return one

    yield start
    for one in started:
        await one.end(signal.SIGKILL)  # how servers stop in order is tested elsewhere
