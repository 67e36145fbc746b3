"""What every test gets: a fresh event loop, one real MongoDB for all, and silence unless declared."""

from __future__ import annotations

import asyncio
import inspect
import logging
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from typing import Any

import pymongo
import pytest
from hypothesis import settings
from tornado.ioloop import IOLoop

from tests.loop_thread import LoopThread
from tests.waiting import PATIENCE_SECONDS

# How long an example takes says something of the machine only, and no timing decides whether a test passes.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# A cancelled task needs a few turns of the loop until it has ended, one for each `finally` that awaits.
_TURNS_TO_SETTLE = 20
CHECKPOINT_SECONDS = 5.0  # of the MongoDB that all tests share


# --- the event loop of a test -------------------------------------------------------------------------


@pytest.fixture
def io_loop() -> Iterator[IOLoop]:
    """A fresh asyncio loop under Tornado's, on which pytest-tornasync runs the test.

    It takes the place of pytest-tornasync's own, which uses calls that Tornado has deprecated. A task that
    outlives its test has no owner that awaits its end, and fails the test.
    """
    loop = IOLoop(make_current=False)
    yield loop
    forgotten = loop.run_sync(_end_forgotten_tasks, timeout=PATIENCE_SECONDS)
    loop.close(all_fds=True)
    assert not forgotten, f"still running when the test was over: {forgotten}"


async def _end_forgotten_tasks() -> list[str]:
    """Let what is about to end do so, cancel what then still runs, and return its names."""
    myself = asyncio.current_task()
    for _ in range(_TURNS_TO_SETTLE):
        await asyncio.sleep(0)  # no time passes: only what is ready runs
    forgotten = [task for task in asyncio.all_tasks() if task is not myself]
    for task in forgotten:
        task.cancel()
    await asyncio.gather(*forgotten, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()
    return sorted(f"{task.get_name()}: {task.get_coro()!r}" for task in forgotten)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Give each coroutine test the loop, asked for or not: pytest-tornasync looks for it there."""
    if not isinstance(item, pytest.Function) or not inspect.iscoroutinefunction(item.obj):
        return
    if "io_loop" not in item.fixturenames:
        item.fixturenames.append("io_loop")


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> Generator[None, object, object]:
    """Run async fixtures, with `yield` or without, on the loop of their test; pytest sees plain ones."""
    function = fixturedef.func
    if inspect.isasyncgenfunction(function):
        plain: Callable[..., Any] = _as_plain_generator(_loop_for(fixturedef, request), function)
    elif inspect.iscoroutinefunction(function):
        plain = _as_plain_function(_loop_for(fixturedef, request), function)
    else:
        return (yield)
    fixturedef.func = plain  # type: ignore[misc]  # back again below: the next test has another loop
    try:
        return (yield)
    finally:
        fixturedef.func = function  # type: ignore[misc]


def _loop_for(fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> IOLoop:
    """Return the test's loop, set up before the fixture and so closed after it."""
    if fixturedef.scope != "function":
        pytest.fail(f"async fixture {fixturedef.argname!r}: its loop lives for one test, so must the fixture")
    loop: IOLoop = request.getfixturevalue("io_loop")
    return loop


def _as_plain_function(loop: IOLoop, function: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
    def plain(**arguments: Any) -> Any:
        return loop.run_sync(lambda: function(**arguments), timeout=PATIENCE_SECONDS)

    return plain


def _as_plain_generator(loop: IOLoop, function: Callable[..., AsyncIterator[Any]]) -> Callable[..., Iterator[Any]]:
    def plain(**arguments: Any) -> Iterator[Any]:
        steps = function(**arguments)

        async def step() -> Any:
            return await anext(steps)

        yield loop.run_sync(step, timeout=PATIENCE_SECONDS)
        with pytest.raises(StopAsyncIteration):
            loop.run_sync(step, timeout=PATIENCE_SECONDS)

    return plain


# --- MongoDB ------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def mongodb_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URI of a real MongoDB, started once for the session in a directory of its own.

    Its supervisor needs a loop that outlives those of the tests, so it has a thread with one. The same thread
    forks `mongod`, which is told to die with its parent: to the kernel that is the thread, not the process,
    so the thread lives as long as the session. A test that stops or breaks MongoDB starts one for itself.
    """
    from storage.embedded import EmbeddedMongoDB

    mongodb = EmbeddedMongoDB(tmp_path_factory.mktemp("mongodb"))
    with LoopThread("mongodb of the tests") as thread:
        yield thread.run(mongodb.start(), seconds=PATIENCE_SECONDS)
        thread.run(mongodb.stop(), seconds=PATIENCE_SECONDS)


@pytest.fixture(scope="session")
def _mongodb_client(mongodb_uri: str) -> Iterator[pymongo.MongoClient[dict[str, Any]]]:
    client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(mongodb_uri)
    # A file of a database that was dropped stays open until it can be in no snapshot any more, and a checkpoint was made: by default for
    # five minutes and one. So many tests would open more files than a process may.
    for parameter in ({"minSnapshotHistoryWindowInSeconds": 0}, {"syncdelay": CHECKPOINT_SECONDS}):
        client.admin.command({"setParameter": 1, **parameter})
    yield client
    client.close()


@pytest.fixture
def database_name(_mongodb_client: pymongo.MongoClient[dict[str, Any]]) -> Iterator[str]:
    """The name of a database that is this test's alone, dropped when the test is over."""
    name = f"test_{uuid.uuid4().hex}"
    yield name
    _mongodb_client.drop_database(name)


# --- silence ------------------------------------------------------------------------------------------


class _Listener(logging.Handler):
    """Keep every record from WARNING up, of any logger: what Tornado or asyncio complain of, we have done."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.levelname} {record.name}: {self.format(record)}")


@pytest.fixture
def expected_logs() -> list[str]:
    """Parts of the lines from WARNING up that this test may log: append them before it does."""
    return []


@pytest.fixture(autouse=True)
def _no_unexpected_logs(expected_logs: list[str]) -> Iterator[None]:
    """Fail a test that logs a line of level WARNING or above without having declared it."""
    listener = _Listener()
    logging.getLogger().addHandler(listener)
    yield
    logging.getLogger().removeHandler(listener)
    unexpected = [line for line in listener.lines if not any(part in line for part in expected_logs)]
    assert not unexpected, "not declared with `expected_logs`:\n" + "\n".join(unexpected)
