"""The life of an embedded MongoDB: one `mongod` of the server's own, kept running, and ended with it. Knows
nothing of the log.

It is a replica set of one node, so that the rest of the project has one way of writing and tailing. It
listens on a socket file only. Who runs it holds an flock in the data directory, and mongod inherits it: the
lock is free when both are gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from pathlib import Path
from urllib.parse import quote

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from storage.data_directory import lock, socket_directory
from storage.mongod import (
    REPLICA_SET,
    SOCKET_NAME,
    EmbeddedMongoDBError,
    command,
    environment,
    explain_end,
    explain_os_error,
    find_mongod,
)

__all__ = ["EmbeddedMongoDB", "EmbeddedMongoDBError"]

logger = logging.getLogger("tailcast.storage")

URI_NAME = "mongodb.uri"
LOG_NAME = "mongod.log"
LOG_BYTES = 16 << 20  # beyond this the log is emptied; a quiet mongod writes some 300 KB a day
LOG_CHECK_SECONDS = 60.0

_POLL_SECONDS = 0.01
# Between attempts to start it again; the last one repeats.
_BACKOFF_SECONDS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0)


class EmbeddedMongoDB:
    """Run one mongod in a data directory, which is created for this user alone when it is missing.

    Args:
        data_dir: Where its files, its log, its socket and `mongodb.uri` are.
        cache_megabytes: Size of mongod's cache.
        start_seconds: How long the first start may take. After a kill under full load, recovery takes some
        seconds of it.
            Starting it again later has no such limit, since giving up would only begin the recovery anew.
        stop_seconds: How long an orderly end may take before mongod is killed.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        cache_megabytes: int = 256,
        start_seconds: float = 30.0,
        stop_seconds: float = 10.0,
    ) -> None:
        self.uri = ""  # empty until started; then the same for as long as this object lives
        self._data_dir = data_dir.absolute()
        self._cache_megabytes = cache_megabytes
        self._start_seconds = start_seconds
        self._stop_seconds = stop_seconds
        self._mongod = Path()  # set by start
        self._socket_dir = self._data_dir  # another one when a socket cannot be made there; set by start
        self._lock: int | None = None  # descriptor of the locked file; None while stopped
        self._process: asyncio.subprocess.Process | None = None  # the latest mongod; None before the first
        self._supervisor: asyncio.Task[None] | None = None  # runs from the end of start until stop

    @property
    def pid(self) -> int | None:
        """The process id of mongod; None while none runs."""
        if self._process is None or self._process.returncode is not None:
            return None
        return self._process.pid

    async def start(self) -> str:
        """Start mongod and return its URI once it takes writes.

        The kernel kills it when the thread that called this ends, so call it from a thread that lives as long
        as the server: the main one. When cancelled or failed, nothing is left running.

        Raises:
            EmbeddedMongoDBError: If it cannot run.
        """
        if self._lock is not None:
            raise AssertionError("started already")
        try:
            await self._prepare()
            await self._launch(self._start_seconds)
            _write(self._data_dir / URI_NAME, self.uri + "\n")
        except OSError as error:
            await self.stop()
            raise EmbeddedMongoDBError(explain_os_error(self._data_dir, error)) from error
        except BaseException:
            await self.stop()
            raise
        self._supervisor = asyncio.create_task(self._supervise(), name="embedded mongod supervisor")
        return self.uri

    async def stop(self) -> None:
        """End mongod, in good order if it can, and release the data directory.

        May be called again, and before start. When cancelled, mongod ends nevertheless: killed, if it was
        already waited for; what was journaled is safe.
        """
        supervisor, self._supervisor = self._supervisor, None
        try:
            if supervisor is not None:
                supervisor.cancel()
                await asyncio.wait({supervisor})
        finally:
            try:
                await self._end()
            finally:
                self._release()

    # --- start ---

    async def _prepare(self) -> None:
        self._mongod = find_mongod()
        self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = await lock(self._data_dir)
        (self._data_dir / URI_NAME).unlink(missing_ok=True)
        (self._data_dir / "db").mkdir(mode=0o700, exist_ok=True)
        self._socket_dir = socket_directory(self._data_dir)
        # Percent-encoded, since the path may hold anything that means something in a URI.
        self.uri = f"mongodb://{quote(str(self._socket_dir / SOCKET_NAME), safe='')}/?directConnection=true"

    async def _launch(self, seconds: float | None) -> None:
        """Start mongod and wait until it takes writes; on any failure it is ended again."""
        try:
            process = self._process = await self._spawn()
            ended = asyncio.create_task(process.wait(), name="embedded mongod's end")
            ready = asyncio.create_task(self._become_primary(), name="embedded mongod's readiness")
            try:
                await asyncio.wait({ended, ready}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
                if not ended.done() and ready.done() and ready.exception() is None:
                    return
                # A connection that broke says less than the end of mongod that broke it, which may be seen a
                # moment later.
                await asyncio.wait({ended}, timeout=1.0 if ready.done() else 0.0)
                raise EmbeddedMongoDBError(self._why_not_ready(seconds, ready))
            finally:
                ended.cancel()
                ready.cancel()
                await asyncio.gather(ended, ready, return_exceptions=True)
        except BaseException:
            await self._end()
            raise

    async def _spawn(self) -> asyncio.subprocess.Process:
        assert self._lock is not None, "mongod inherits the lock"
        (self._socket_dir / SOCKET_NAME).unlink(missing_ok=True)
        log = self._data_dir / LOG_NAME
        if log.exists():
            log.replace(log.with_name(LOG_NAME + ".1"))
        # Opened for appending, so that it can be emptied while mongod writes to it.
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            return await asyncio.create_subprocess_exec(
                *command(self._mongod, self._data_dir / "db", self._cache_megabytes),
                cwd=self._socket_dir,
                env=environment(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                pass_fds=(self._lock,),
                # Ctrl-C on a terminal goes to a whole session: mongod must outlive the draining of the
                # server.
                start_new_session=True,
            )
        finally:
            os.close(descriptor)

    async def _become_primary(self) -> None:
        """Wait for the socket, which opens when recovery is over, then make the replica set if there is none
        yet."""
        while not _listens(self._socket_dir / SOCKET_NAME):  # noqa: ASYNC110 - nobody in here could tell
            await asyncio.sleep(_POLL_SECONDS)
        await asyncio.to_thread(_make_primary, self.uri, self._start_seconds)

    def _why_not_ready(self, seconds: float | None, ready: asyncio.Task[None]) -> str:
        assert self._process is not None
        log = self._data_dir / LOG_NAME
        if self._process.returncode is not None:
            text = log.read_text(errors="replace")
            return explain_end(self._mongod, self._data_dir, text, self._process.returncode)
        if ready.done():
            return f"mongod does not become primary ({ready.exception()}): see {log}, or set mongodb_uri"
        return f"mongod was not ready within {seconds} seconds: see {log}, try again, or set mongodb_uri"

    # --- while it runs ---

    async def _supervise(self) -> None:
        """Start mongod again whenever it ends, until cancelled. One that is merely stopped (SIGSTOP) is left
        alone."""
        while True:
            returncode = await self._wait_for_end()
            logger.warning("embedded mongod ended unexpectedly (status %d), starting it again", returncode)
            attempts = 0
            while self.pid is None:
                await asyncio.sleep(_BACKOFF_SECONDS[min(attempts, len(_BACKOFF_SECONDS) - 1)])
                attempts += 1
                try:
                    await self._launch(None)
                except EmbeddedMongoDBError as error:
                    logger.warning("embedded mongod does not start: %s", error)
                except OSError as error:
                    logger.warning("embedded mongod does not start: %s", explain_os_error(self._data_dir, error))

    async def _wait_for_end(self) -> int:
        """Return mongod's exit status once it has one; until then its log is kept within bounds."""
        assert self._process is not None
        log = self._data_dir / LOG_NAME
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOG_CHECK_SECONDS):
                    return await self._process.wait()
            with contextlib.suppress(OSError):
                if log.stat().st_size > LOG_BYTES:
                    os.truncate(log, 0)

    # --- stop ---

    async def _end(self) -> None:
        process = self._process
        if process is None:
            return
        try:
            with contextlib.suppress(TimeoutError, ProcessLookupError):
                async with asyncio.timeout(self._stop_seconds):
                    process.terminate()
                    process.send_signal(signal.SIGCONT)  # one that was stopped would not see the other
                    await process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def _release(self) -> None:
        """Leave the data directory to whoever comes next. Its lock goes last."""
        if self._lock is None:
            return
        with contextlib.suppress(OSError):
            (self._data_dir / URI_NAME).unlink(missing_ok=True)
            (self._socket_dir / SOCKET_NAME).unlink(missing_ok=True)
            if self._socket_dir != self._data_dir:
                self._socket_dir.rmdir()
        descriptor, self._lock = self._lock, None
        os.close(descriptor)


def _listens(path: Path) -> bool:
    """Tell whether somebody accepts connections there: mongod makes the file long before it does, when it
    recovers."""
    with socket.socket(socket.AF_UNIX) as probe:
        # Non-blocking, as the loop runs here: a mongod that is stopped with a full backlog would hold it up.
        probe.setblocking(False)
        return probe.connect_ex(str(path)) == 0


def _make_primary(uri: str, seconds: float) -> None:
    """Make a new node the primary of its own replica set, or wait until an old one is it again. Blocks: for a
    thread."""
    deadline = time.monotonic() + seconds
    milliseconds = round(seconds * 1000)
    with MongoClient[dict[str, object]](uri, serverSelectionTimeoutMS=milliseconds, socketTimeoutMS=milliseconds) as client:
        while True:
            hello = client.admin.command("hello")
            if hello["isWritablePrimary"]:
                return
            if time.monotonic() > deadline:
                raise PyMongoError(str(hello.get("info", "it does not say why")))
            if "setName" not in hello:
                _initiate(client)
            time.sleep(_POLL_SECONDS)


def _initiate(client: MongoClient[dict[str, object]]) -> None:
    member = {"_id": 0, "host": f"./{SOCKET_NAME}"}
    # Refused while the node still reads a configuration that it has; what is wrong otherwise shows as not
    # becoming primary.
    with contextlib.suppress(OperationFailure):
        client.admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": [member]})


def _write(path: Path, text: str) -> None:
    """Write a file in one step: whoever reads it sees all of it or none."""
    partial = path.with_name(path.name + ".new")
    partial.write_text(text)
    partial.replace(path)
