"""A tailable cursor: it begins at an entry, waits at the end, says when it is gone, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from storage import cursor as module
from storage.cursor import Cursor, CursorLost
from storage.errors import CommandFailed, Unavailable
from storage.log import Log
from storage.mongo import Document
from tests.storage.faults import FaultyDatabase, Held, Run, cursor_killed, cursors_of, documents, not_sent
from tests.waiting import wait_until


@asynccontextmanager
async def cursor_on(log: Log) -> AsyncIterator[Cursor]:
    assert log.uuid is not None
    cursor = Cursor(log, log.uuid)
    yield cursor
    await cursor.close()


def database_of(log: Log) -> FaultyDatabase:
    assert isinstance(log.database, FaultyDatabase)
    return log.database


async def test_it_begins_at_an_entry_and_goes_on_at_the_end(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """In batches; an empty one says that nothing came."""
    monkeypatch.setattr(module, "AWAIT_SECONDS", 0.01)
    monkeypatch.setattr(module, "BATCH_ENTRIES", 2)
    await log.insert(list(documents(2, [0] * 4)))
    async with cursor_on(log) as cursor:
        assert not cursor.alive()
        assert [one["_id"] for one in await cursor.open(3)] == [3, 4]
        assert cursor.alive()
        assert [one["_id"] for one in await cursor.next()] == [5]
        assert await cursor.next() == []
        await log.insert(list(documents(6, [0])))
        assert [one["_id"] for one in await cursor.next()] == [6]


async def test_opened_beyond_the_end_it_finds_nothing(log: Log) -> None:
    """And is dead, as MongoDB has it: then it has to be opened anew."""
    async with cursor_on(log) as cursor:
        assert await cursor.open(7) == []


async def test_it_reads_no_other_log_of_the_same_name(log: Log) -> None:
    """One that came in the place of the one that is meant is refused by MongoDB."""
    async with cursor_on(log) as cursor:
        await log.database.command({"drop": "log"})
        await log.open()
        with pytest.raises(CommandFailed):
            await cursor.open(1)


async def test_one_that_mongodb_dropped_is_lost(log: Log) -> None:
    """It stays so."""
    async with cursor_on(log) as cursor:
        await cursor.open(1)
        database_of(log).inject("getMore", cursor_killed)
        for _ in range(2):
            with pytest.raises(CursorLost):
                await cursor.next()
            assert not cursor.alive()


async def test_what_was_rolled_back_is_not_returned(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cursor has read what is not in the log any more: it is of no use."""

    async def rolled_back(document: Document, operation_time: object) -> bool:
        return False

    async with cursor_on(log) as cursor:
        monkeypatch.setattr(log, "confirm", rolled_back)
        with pytest.raises(CursorLost, match="rolled back"):
            await cursor.open(1)
        assert cursor.alive()


async def test_an_error_that_is_not_its_end_is_passed_on(log: Log) -> None:
    """MongoDB's own, and the cursor is there yet."""

    async def refused(run: Run, command: Document) -> Document:
        return await run({**command, "batchSize": -1})

    async with cursor_on(log) as cursor:
        await cursor.open(1)
        database_of(log).inject("getMore", refused)
        with pytest.raises(CommandFailed):
            await cursor.next()
        assert cursor.alive()


async def test_closed_it_is_gone_from_mongodb(log: Log) -> None:
    """Closing twice is closing, and so is closing one that was never opened."""
    async with cursor_on(log) as cursor:
        await cursor.open(1)
        assert await cursors_of(log) == 1
        await cursor.close()
        assert await cursors_of(log) == 0
        await cursor.close()
    async with cursor_on(log):
        pass


async def test_closed_while_it_waits_it_is_gone_too(log: Log) -> None:
    """MongoDB ends what it was waiting for."""
    async with cursor_on(log) as cursor:
        await cursor.open(1)
        waiting = asyncio.create_task(cursor.next(), name="next batch")
        await wait_until(lambda: "getMore" in database_of(log).commands[-1], "it waits")
        await cursor.close()
        with pytest.raises((CursorLost, CommandFailed)):
            await waiting

        async def gone() -> bool:
            return await cursors_of(log) == 0

        await wait_until(gone, "it is gone")


async def test_closing_is_no_error_when_mongodb_is_away(log: Log) -> None:
    """It forgets the cursor by itself after a while."""
    async with cursor_on(log) as cursor:
        await cursor.open(1)
        database_of(log).inject("killCursors", not_sent)
        await cursor.close()
        assert database_of(log).injected()


async def test_opening_one_may_be_interrupted(log: Log) -> None:
    """Whatever was begun is closed."""
    held = Held()
    database_of(log).inject("find", held, having="tailable")
    async with cursor_on(log) as cursor:
        opening = asyncio.create_task(cursor.open(1), name="open")
        await held.reached.wait()
        opening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await opening
    database_of(log).inject("find", not_sent, having="tailable")
    async with cursor_on(log) as cursor:
        with pytest.raises(Unavailable):
            await cursor.open(1)
