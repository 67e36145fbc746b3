"""The examples of feeding events in: nothing is lost and nothing doubled, whoever is killed in the middle."""

from __future__ import annotations

import json
import signal
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from storage.log import Log
from storage.mongo import Database
from tests.handlers.assembly import token
from tests.server_process import ServerProcess
from tests.waiting import PATIENCE_SECONDS, wait_until

COUNT = 60  # events of each example: more than can be published before somebody is killed
FIRST = 5  # events that are waited for before


class Example(NamedTuple):
    """One of the examples: how it is filled, with what its state is kept, and which amounts its events have."""

    name: str
    fill: str
    state: str
    confirmations: int = 0

    @property
    def script(self) -> str:
        """Its file, as the docs name it."""
        return f"examples/{self.name}.py"

    def amounts(self) -> list[str]:
        """Return what its events say, in order."""
        if self.name == "job_queue":
            return [f"{number}.25" for number in range(1, COUNT + 1)]
        if self.name == "outbox_relay":
            return ["0.01"] * COUNT
        return [f"{number}000000000000000001" for number in range(1, COUNT + 1 - self.confirmations)]


EXAMPLES = [
    Example("job_queue", "--add", "--queue"),
    Example("outbox_relay", "--top-up", "--database"),
    Example("chain_indexer", "--mine", "--chain", 2),
]


class Feeding:
    """An example in a directory of its own, and a server to feed.

    Args:
        directory: For the files.
        log: The server's.
        arguments: The server's command line.
    """

    def __init__(self, directory: Path, log: Log, arguments: list[str]) -> None:
        self.directory = directory
        self._log = log
        self._arguments = arguments
        self.port = 0
        self.token = directory / "publisher.token"
        self.token.write_text(token("feeder", roles=["publisher"]))

    def server(self) -> ServerProcess:
        """Return a server that is not started yet, at the same port as the one before."""
        return ServerProcess(*self._arguments, *([f"--port={self.port}"] if self.port else []))

    def run(self, example: Example, *arguments: str) -> ServerProcess:
        """Return an example with these arguments, which is not started yet."""
        files = [f"{example.state}={self.directory / 'state'}"]
        if example.name == "chain_indexer":
            files.append(f"--cursor={self.directory / 'cursor'}")
        return ServerProcess(
            f"--url=http://127.0.0.1:{self.port}", f"--token-file={self.token}", *files, *arguments, start=(example.script,)
        )

    async def ends(self, example: Example, *arguments: str) -> None:
        """Run an example to its end."""
        async with self.run(example, *arguments) as process:
            assert (await process.ended(), process.log) == (0, "")

    async def events(self) -> list[dict[str, Any]]:
        """Return the payloads of all events of the feeder's that are in the log."""
        return [json.loads(entry.data) for entry in await self._log.read(0, 10_000) if entry.source in ("feeder", "chain")]

    async def begun(self) -> None:
        """Wait until some events are in the log."""

        async def some() -> bool:
            return len(await self.events()) >= FIRST

        await wait_until(some, "events are in the log")


@pytest.fixture
async def feeding(tmp_path: Path, mongodb_uri: str, database_name: str) -> AsyncIterator[Feeding]:
    """An example's surroundings, with a log that is there."""
    database = Database(mongodb_uri, database_name, answer_seconds=PATIENCE_SECONDS)
    log = Log(database, clock=time.time, size_bytes=16 << 20)
    await log.open()
    yield Feeding(
        tmp_path, log, [f"--mongodb_uri={mongodb_uri}", f"--database={database_name}", "--log_bytes=16777216", "--drain_seconds=1"]
    )
    database.close()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda one: one.name)
async def test_a_feeder_that_is_killed_loses_and_doubles_nothing(feeding: Feeding, example: Example) -> None:
    """Started again it goes on where it was; its events are in order (A6)."""
    async with feeding.server() as server:
        feeding.port = await server.port()
        await feeding.ends(example, f"{example.fill}={COUNT}")
        async with feeding.run(example) as feeder:
            await feeding.begun()
            await feeder.end(signal.SIGKILL)
        await feeding.ends(example, "--once")
        assert [event["amount"] for event in await feeding.events()] == example.amounts()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda one: one.name)
async def test_a_feeder_outlives_its_server(feeding: Feeding, example: Example) -> None:
    """It repeats what was not answered until there is a server again."""
    async with feeding.server() as server:
        feeding.port = await server.port()
        await feeding.ends(example, f"{example.fill}={COUNT}")
        async with feeding.run(example, "--once") as feeder:
            await feeding.begun()
            await server.end(signal.SIGKILL)
            async with feeding.server() as another:
                assert await another.port() == feeding.port
                assert (await feeder.ended(), feeder.log) == (0, "")
                assert [event["amount"] for event in await feeding.events()] == example.amounts()


async def test_what_was_published_and_not_noted_is_known(feeding: Feeding) -> None:
    """A worker that died between the two publishes again, and nothing is doubled."""
    example = EXAMPLES[0]
    async with feeding.server() as server:
        feeding.port = await server.port()
        await feeding.ends(example, "--add=3")
        await feeding.ends(example, "--once")
        queue = sqlite3.connect(feeding.directory / "state")
        queue.execute("UPDATE jobs SET told = 0")
        queue.commit()
        queue.close()
        await feeding.ends(example, "--once")
        assert [event["settlementId"] for event in await feeding.events()] == [f"settlement-{number}" for number in (1, 2, 3)]


@pytest.mark.parametrize("depth", [1, 5])
async def test_a_reorganised_chain_shows_nothing_twice(feeding: Feeding, depth: int) -> None:
    """Also where blocks are taken back that were read: transactions are known by what they are, not by where they are."""
    example = EXAMPLES[2]
    async with feeding.server() as server:
        feeding.port = await server.port()
        for arguments in (["--mine=10"], ["--once"], [f"--reorganise={depth}"], ["--once"], ["--mine=2"], ["--once"]):
            await feeding.ends(example, *arguments)
        assert [event["amount"] for event in await feeding.events()] == [f"{number}000000000000000001" for number in range(1, 11)]


async def test_what_is_refused_for_good_is_told(feeding: Feeding) -> None:
    """A token without the role cannot publish, and never will: the example ends with what was said."""
    feeding.token.write_text(token("feeder"))
    async with feeding.server() as server:
        feeding.port = await server.port()
        await feeding.ends(EXAMPLES[0], "--add=1")
        async with feeding.run(EXAMPLES[0], "--once") as process:
            assert await process.ended() == 1
            assert "publisher" in process.log
