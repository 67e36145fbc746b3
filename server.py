"""The server: reads the settings, assembles the parts, starts them, and stops them in order. See `python server.py --help`."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import resource
import signal
import socket
import ssl
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

import demo
import logs
from assembly import LOG_INDEXES, assemble
from handlers.application import RESERVED_FILES, http_server
from handlers.certificates import CertificateError, make_context
from handlers.services import Services
from hub.errors import NotReady
from settings import Settings, SettingsError, help_requested, help_text, read_settings
from storage.embedded import EmbeddedMongoDB, EmbeddedMongoDBError
from storage.errors import StorageError, Unavailable
from storage.follower import Follower
from storage.log import Log
from storage.mongo import Database
from storage.state import State

logger = logging.getLogger("tailcast.server")
Answer = TypeVar("Answer")

BACKLOG = 4096  # connections that wait to be accepted: all clients of another server may come at once
# Clients speak first, plain or with TLS: the kernel keeps a connection back until there is something to read, or this has passed. So one
# that is accepted is read at once, instead of being waited for.
SILENT_SECONDS = 1
PROBE_SECONDS = 1.0  # how long readyz believes that the log could be appended to
FLUSH_SECONDS = 0.02  # between looks at what is still to be sent when stopping
# Hardly anything here is garbage that only the cyclic collector finds, and ten thousand connections are much to go through: at Python's
# default of 700 allocations it did so during a tenth of the time in which clients connect.
GC_THRESHOLDS = (50_000, 100, 100)


class Server:
    """One server process: its parts, its start and its end.

    Args:
        settings: What the operator chose.
        tls: What connections are encrypted with; None: not at all.
    """

    def __init__(self, settings: Settings, tls: ssl.SSLContext | None) -> None:
        self.settings = settings
        self.port = 0  # where it listens, once started
        self._tls = tls  # replaced when the certificate is read again
        self._stop_wanted = asyncio.Event()
        self._mongodb: EmbeddedMongoDB | None = None  # None with a MongoDB of the operator's
        self._database: Database | None = None
        self._state: State | None = None
        self._http: HTTPServer | None = None
        self._services: Services | None = None
        self._follower: Follower | None = None
        self._tasks: set[asyncio.Task[None]] = set()  # what runs as long as the server does
        self._probed_at = -PROBE_SECONDS  # when the log was appended to last, to see whether it can be

    @property
    def url(self) -> str:
        """Where it listens; an IPv6 address stands in brackets (RFC 3986 section 3.2.2)."""
        address = self.settings.address
        scheme = "https" if self._tls else "http"
        return f"{scheme}://[{address}]:{self.port}" if ":" in address else f"{scheme}://{address}:{self.port}"

    async def run(self) -> int:
        """Serve until SIGTERM, SIGINT, or a defect; return the exit status."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop_wanted.set)
        loop.add_signal_handler(signal.SIGHUP, self._read_certificate_again)
        try:
            if not await self._start():
                return 0
            print(f"listening on {self.url}", flush=True)
            return await self._serve()
        except (EmbeddedMongoDBError, StorageError, OSError) as error:
            print(f"tailcast: {error}", file=sys.stderr)
            return 1
        finally:
            await self._stop()

    async def _serve(self) -> int:
        """Wait until somebody wants the server to stop, or one of its parts fails, which must never go unseen."""
        stop = asyncio.create_task(self._stop_wanted.wait(), name="stop wanted")
        ended, _ = await asyncio.wait({stop, *self._tasks}, return_when=asyncio.FIRST_COMPLETED)
        if stop in ended:
            return 0
        stop.cancel()
        for task in ended:
            logger.critical("%s failed", task.get_name(), exc_info=task.exception())
        return 1

    def _read_certificate_again(self) -> None:
        """Encrypt new connections with what is in the files now; those that are there go on with what they have."""
        if self._tls is None:
            logger.info("SIGHUP: there is nothing to read again without TLS")
            return
        try:
            self._tls = make_tls(self.settings)
        except CertificateError as error:
            logger.error("the certificate stays as it was: %s", error)
            return
        if self._http is not None:
            self._http.ssl_options = self._tls  # Tornado looks here at every connection that it accepts
        logger.info("the certificate was read again")

    # Starting

    async def _start(self) -> bool:
        """Start everything, and return once it can serve; False if it was stopped before."""
        settings = self.settings
        sockets = _listen(settings.address, settings.port)
        uri = settings.mongodb_uri or await self._start_mongodb()
        self._database = Database(uri, settings.database, answer_seconds=max(settings.append_seconds, 2.0))
        log = Log(
            self._database,
            clock=time.time,
            size_bytes=settings.log_bytes,
            max_documents=settings.log_documents,
            indexes=LOG_INDEXES,
        )
        state = self._state = State(self._database, clock=time.time)
        key = await self._first_contact(log, state)
        if key is None:
            return False
        parts = assemble(settings, log, state, key, _Clock(), _files_allowed() - RESERVED_FILES)
        self._follower = parts.follower
        for name, work in parts.work().items():
            self._run(name, work)
        if not await self._at_head() or not await self._patiently(parts.revision.revise):
            return False
        services = parts.services
        services.ready = lambda: self._ready(log)
        self._http = http_server(services, self._tls)
        self._services = services
        self._http.add_sockets(sockets)
        self.port = sockets[0].getsockname()[1]
        if settings.demo:
            self._run("demo feed", demo.run(services))
            demo.show(self.url, settings.data_dir, settings.jwt_secret if "HS256" in settings.jwt_algorithms else "")
        gc.collect()
        gc.freeze()  # what is here now stays: the collector need not look at it again
        gc.set_threshold(*GC_THRESHOLDS)
        return True

    async def _start_mongodb(self) -> str:
        self._mongodb = EmbeddedMongoDB(self.settings.data_dir)
        return await self._mongodb.start()

    async def _first_contact(self, log: Log, state: State) -> bytes | None:
        """Wait until MongoDB has what is needed, and return the key of resume tokens; None if the server is stopped meanwhile."""

        async def open_both() -> bytes:
            await log.open()
            return await state.open()

        return await self._patiently(open_both)

    async def _at_head(self) -> bool:
        """Wait until the head of the log has been seen; False if the server is stopped meanwhile."""
        assert self._follower is not None
        while self._follower.at_head_since is None and not self._stop_wanted.is_set():  # noqa: ASYNC110  # it tells nobody
            await asyncio.sleep(FLUSH_SECONDS)
        return not self._stop_wanted.is_set()

    async def _patiently(self, ask: Callable[[], Awaitable[Answer]]) -> Answer | None:
        """Ask MongoDB until it answers; None if the server is stopped meanwhile."""
        warned = False
        while not self._stop_wanted.is_set():
            try:
                return await ask()
            except Unavailable as error:
                if not warned:
                    logger.warning("waits for MongoDB: %s", error)
                warned = True
            await asyncio.sleep(FLUSH_SECONDS)
        return None

    def _run(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.add(asyncio.create_task(work, name=name))

    async def _ready(self, log: Log) -> None:
        """Raise NotReady unless this process reads at the head of the log and can append to it."""
        assert self._follower is not None
        if self._stop_wanted.is_set():
            raise NotReady("the server is stopping")
        lag = self._follower.lag()
        if lag > self.settings.ready_lag_seconds:
            raise NotReady(f"the tail has not been at the head of the log for {lag:.1f} seconds", retry_after=1)
        if time.monotonic() - self._probed_at >= PROBE_SECONDS:
            await log.barrier()
            self._probed_at = time.monotonic()

    # Stopping

    async def _stop(self) -> None:
        """Stop: whoever is connected is sent away in order, what was accepted is written, and nothing is left behind."""
        services, http = self._services, self._http
        if services is not None and http is not None:
            # Take nothing new; a request that is being read or written is finished.
            services.stopping = True
            http.stop()
            # Publishers still waiting for their receipts get them before their connections go.
            services.appender.close()
            await self._within(services.appender.drained)
            # Tell every client to come back, at moments spread over the window, and let the last bytes leave.
            for conversation in list(services.waiting):
                conversation.send_away()
            services.hub.drain(self.settings.drain_seconds, random.random)
            await self._within(lambda: not len(services.poller))
            await http.close_all_connections()
            services.poller.close()
            services.rates.refusals.close()
            await services.hub.catch_up.pages.close()
            await services.snapshots.close()
        # The parts end, each awaited; then MongoDB, which they used.
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._state is not None:
            await self._state.close()
        if self._database is not None:
            self._database.close()
        if self._mongodb is not None:
            await self._mongodb.stop()

    async def _within(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds, but not longer than the drain may take."""
        deadline = time.monotonic() + self.settings.drain_seconds
        while not condition() and time.monotonic() < deadline:  # noqa: ASYNC110  # of sockets, which tell nobody
            await asyncio.sleep(FLUSH_SECONDS)


class _Clock:
    """The real time."""

    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)


def _listen(address: str, port: int) -> list[socket.socket]:
    try:
        sockets = bind_sockets(port, address, backlog=BACKLOG)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise OSError(f"cannot listen on {address}:{port}: {reason}; choose another with --address and --port") from error
    for one in sockets:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, SILENT_SECONDS)
    return sockets


def _files_allowed() -> int:
    """Raise the limit of open files as far as it goes, and return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def make_tls(settings: Settings) -> ssl.SSLContext | None:
    """Return what connections are encrypted with; None without TLS.

    Raises:
        CertificateError: If the certificate or its key cannot be used.
    """
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    return make_context(settings.tls_certificate, settings.tls_key, time.time())


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run a server with these arguments; return the exit status: 0 after an ordered stop, 2 if a setting is wrong, else 1."""
    if help_requested(argv):
        print(help_text())
        return 0
    try:
        settings = read_settings(argv, environ)
        if settings.demo and not settings.jwt_algorithms:
            settings = read_settings(argv, demo.with_secret(environ, settings.data_dir))
        tls = make_tls(settings)
    except (SettingsError, CertificateError) as error:
        print(f"tailcast: {error}", file=sys.stderr)
        return 2
    logs.configure(settings.log_level, settings.log_format)
    return asyncio.run(_run(settings, tls))


async def _run(settings: Settings, tls: ssl.SSLContext | None) -> int:
    return await Server(settings, tls).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
