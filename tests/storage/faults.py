"""Faults at the edge to MongoDB, and the little that tests of the log have in common. Everything behind the edge is real."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from storage.embedded import EmbeddedMongoDB
from storage.entries import NewEvent
from storage.errors import Unavailable
from storage.log import Log
from storage.mongo import Database, Document, Session
from tests.waiting import PATIENCE_SECONDS, wait_until

FENCE = "(fence)"
Run = Callable[[Document], Awaitable[Document]]
Fault = Callable[[Run, Document], Awaitable[Document]]


class FaultyDatabase(Database):
    """A real database at which chosen commands go wrong; `commands` are all that were asked for."""

    def __init__(self, uri: str, name: str, *, answer_seconds: float = PATIENCE_SECONDS) -> None:
        super().__init__(uri, name, answer_seconds=answer_seconds)
        self.commands: list[Document] = []
        self._faults: list[tuple[str, str, Fault]] = []  # those still to come, each once

    def inject(self, name: str, fault: Fault, having: str = "") -> None:
        """Let the next command of this name, and with this field, go wrong in this way."""
        self._faults.append((name, having or name, fault))

    def injected(self) -> bool:
        """Tell whether every fault has happened."""
        return not self._faults

    def count(self, name: str, collection: str) -> int:
        """Return how often a command was asked for."""
        return sum(command.get(name) == collection for command in self.commands)

    async def command(self, command: Document, session: Session = None) -> Document:
        self.commands.append(command)
        for fault in self._faults:
            name, field, happen = fault
            if next(iter(command)) == name and field in command:
                self._faults.remove(fault)
                return await happen(lambda changed: super(FaultyDatabase, self).command(changed, session), command)
        return await super().command(command, session)


async def not_sent(run: Run, command: Document) -> Document:
    """The command never arrives."""
    raise Unavailable("not sent")


async def answer_lost(run: Run, command: Document) -> Document:
    """The command is carried out, and nobody hears of it."""
    await run(command)
    raise Unavailable("answer lost")


def carried_out_in_part(count: int) -> Fault:
    """MongoDB stops after so many documents of an insert, and the answer is lost."""

    async def fault(run: Run, command: Document) -> Document:
        if count:
            await run({**command, "documents": command["documents"][:count]})
        raise Unavailable("answer lost")

    return fault


async def cursor_killed(run: Run, command: Document) -> Document:
    """The cursor is gone when its next batch is asked for."""
    await run({"killCursors": command["collection"], "cursors": [command["getMore"]]})
    return await run(command)


class Late:
    """A fault: an insert without an answer that reaches MongoDB only when the test lets it, as one that was frozen gets it."""

    def __init__(self) -> None:
        self._run: Run
        self._command: Document = {}

    async def __call__(self, run: Run, command: Document) -> Document:
        self._run = run
        self._command = {**command, "documents": [dict(document) for document in command["documents"]]}
        raise Unavailable("no answer")

    async def arrive(self, count: int | None = None) -> Document:
        """Carry it out, or its first `count` events only, as a MongoDB does that is killed then."""
        return await self._run({**self._command, "documents": self._command["documents"][:count]})


class Held:
    """A fault that holds a command up until it is let go; then it is carried out."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.let_go = asyncio.Event()

    async def __call__(self, run: Run, command: Document) -> Document:
        self.reached.set()
        await self.let_go.wait()
        return await run(command)


class Clock:
    """Time that stands still until it is moved."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def event(data: str = "{}", published: str | None = None) -> NewEvent:
    """Return an event of which only these two matter."""
    return NewEvent("topic", "type", ("public",), data, published=published)


def documents(first: int, times: list[int], data: str = "{}") -> Iterator[Document]:
    """Make the documents of entries from number `first` on, appended at these milliseconds."""
    for seq, ms in enumerate(times, first):
        yield {**event(data).document(), "_id": seq, "ms": ms}


async def numbers(log: Log) -> list[int]:
    """Return the numbers of all entries."""
    return [entry.seq for entry in await log.read(0, 100_000)]


async def contents(log: Log) -> list[tuple[int, str]]:
    """Return number and data of all that is in the log, in the natural order of the collection, but for its first entry.

    An entry that keeps an insert from arriving late has `FENCE` in the place of its data.
    """
    command = {"find": log.name, "sort": {"$natural": 1}, "singleBatch": True, "batchSize": 100_000}
    found = (await log.database.command(command))["cursor"]["firstBatch"]
    types = {"log:fence": FENCE}
    return [(document["_id"], types.get(document["type"], document["data"])) for document in found if document["type"] != "log:created"]


@asynccontextmanager
async def running(coroutine: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.Task[None]]:
    """Run it as a task for as long as the block lasts; a task that failed fails the test."""
    task = asyncio.create_task(coroutine, name="under test")
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def own_mongodb(data_dir: Path) -> AsyncIterator[EmbeddedMongoDB]:
    """A MongoDB that this test alone may stop, kill and hold up."""
    mongodb = EmbeddedMongoDB(data_dir, cache_megabytes=256)
    await mongodb.start()
    try:
        yield mongodb
    finally:
        await mongodb.stop()


async def cursors_of(log: Log) -> int:
    """Return how many cursors on this log MongoDB holds, in use or not."""
    admin = log.database._client["admin"]
    namespace = f"{log.database.name}.{log.name}"
    open_ones = [{"$currentOp": {"idleCursors": True}}, {"$match": {"ns": namespace, "cursor": {"$exists": True}}}]
    return len(await admin.aggregate(open_ones).to_list(None))


async def step_down(database: Database, seconds: int = 1) -> None:
    """Take the only node of a replica set from its office; it is elected again when these seconds are over, or by `elect`."""
    admin = database._client["admin"]
    await admin.command({"replSetStepDown": seconds, "force": True, "secondaryCatchUpPeriodSecs": 0})


async def elect(database: Database) -> None:
    """Let the node that has stepped down be elected again."""
    await database._client["admin"].command({"replSetFreeze": 0})


async def stored(database: Database, collection: str) -> list[Document]:
    """Return all documents of a collection, as they lie in MongoDB."""
    found: list[Document] = (await database.command({"find": collection, "sort": {"_id": 1}}))["cursor"]["firstBatch"]
    return found


async def indexes(database: Database, collection: str) -> dict[str, Document]:
    """Return the indexes of a collection by their names, but for that of `_id`."""
    found = (await database.command({"listIndexes": collection}))["cursor"]["firstBatch"]
    return {index["name"]: index for index in found if index["name"] != "_id_"}


async def plan(database: Database, command: Document) -> str:
    """Return how MongoDB carries a command out, as text: IXSCAN is by index, COLLSCAN by looking at everything."""
    return str((await database.command({"explain": command, "verbosity": "queryPlanner"}))["queryPlanner"]["winningPlan"])


async def until_answered(database: Database) -> None:
    """Wait until MongoDB takes commands again, also those that only a primary takes."""

    async def answered() -> bool:
        try:
            return bool(await database.command({"delete": "anything", "deletes": [{"q": {}, "limit": 0}]}))
        except Unavailable:
            return False

    await wait_until(answered, "MongoDB answers")
