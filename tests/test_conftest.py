"""Tests of tests/conftest.py, tests/waiting.py and tests/loop_thread.py: what every other test relies on."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator

import pymongo
import pytest
from tornado.ioloop import IOLoop

from tests.loop_thread import LoopThread
from tests.waiting import PATIENCE_SECONDS, wait_until


@pytest.fixture
async def plain() -> asyncio.AbstractEventLoop:
    """The loop that an async fixture runs on."""
    return asyncio.get_running_loop()


@pytest.fixture
async def with_end(plain: asyncio.AbstractEventLoop) -> AsyncIterator[asyncio.Task[object]]:
    """A task that lasts as long as the test."""
    task: asyncio.Task[object] = asyncio.ensure_future(asyncio.Event().wait())
    yield task
    assert asyncio.get_running_loop() is plain
    task.cancel()


async def test_async_fixtures_run_on_the_loop_of_the_test(
    plain: asyncio.AbstractEventLoop, with_end: asyncio.Task[object], io_loop: IOLoop
) -> None:
    """A coroutine fixture, with an end or without, runs on the one loop that its test runs on."""
    assert asyncio.get_running_loop() is plain is with_end.get_loop()
    assert IOLoop.current() is io_loop


async def test_declared_logs_are_allowed(expected_logs: list[str]) -> None:
    """A test may log what it has declared."""
    expected_logs.append("as declared")
    logging.getLogger("tailcast.tests").warning("just as declared")


async def test_waiting_ends_when_the_condition_holds() -> None:
    """Waiting returns what the condition returned once that is true, whether it is a coroutine or not."""
    steps = iter([0, "", 3])
    assert await wait_until(lambda: next(steps), "the third step") == 3

    async def condition() -> bool:
        return True

    assert await wait_until(condition, "what holds at once") is True


async def test_waiting_in_vain_names_the_condition() -> None:
    """A condition that does not hold in time fails the test by its name."""
    with pytest.raises(AssertionError, match=r"^after 0 seconds still not: the moon is full$"):
        await wait_until(lambda: False, "the moon is full", seconds=0)


def test_loop_thread_runs_coroutines_and_cancels_late_ones() -> None:
    """A loop in a thread returns what a coroutine returns, and cancels one that takes too long."""
    cancelled = []

    async def late() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(True)

    async def early() -> int:
        return 3

    with LoopThread("of a test") as thread:
        assert thread.run(early(), seconds=PATIENCE_SECONDS) == 3
        with pytest.raises(TimeoutError):
            thread.run(late(), seconds=0.01)
    assert cancelled


async def test_loop_thread_works_for_a_loop_that_goes_on() -> None:
    """A test awaits what is done in the thread; when it gives up waiting, the work there is cancelled as well."""
    begun, cancelled = asyncio.Event(), []
    here = asyncio.get_running_loop()

    async def late() -> None:
        here.call_soon_threadsafe(begun.set)
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(True)

    async def early() -> int:
        return threading.get_ident()

    with LoopThread("of a test") as thread:
        assert await thread.call(early()) != threading.get_ident()
        waiting = asyncio.create_task(thread.call(late()))
        await begun.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await wait_until(lambda: cancelled, "it is cancelled there")


async def test_database_is_real_and_new(mongodb_uri: str, database_name: str) -> None:
    """Each test that asks for a database gets one of a real MongoDB, with nothing in it."""
    with pymongo.MongoClient[dict[str, object]](mongodb_uri) as client:
        assert client[database_name].list_collection_names() == []
        client[database_name].anything.insert_one({"_id": 1})
        assert client.admin.command("hello")["isWritablePrimary"] is True
