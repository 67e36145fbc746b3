"""The server: reads the settings, assembles the parts, starts them, and stops them in order. See `python server.py --help`."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import resource
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

import jwt
from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream
from tornado.netutil import bind_sockets
from tornado.web import Application

import logs
from channels import demo
from handlers.base import DISCARDED_BYTES, Unknown
from handlers.credentials import TokenVerifier
from handlers.routes import ROUTES
from handlers.services import Limits, Services
from handlers.sockets import Poller
from hub.errors import NotReady
from hub.hub import Hub
from settings import Settings, SettingsError, help_requested, help_text, read_settings
from storage.appender import Appender
from storage.embedded import EmbeddedMongoDB, EmbeddedMongoDBError
from storage.errors import StorageError, Unavailable
from storage.follower import Follower
from storage.log import Log
from storage.mongo import Database

logger = logging.getLogger("tailcast.server")

BACKLOG = 4096  # connections that wait to be accepted: all clients of another server may come at once
IDLE_SECONDS = 75  # a keep-alive connection without a request, or a request that does not arrive
MAX_HEADERS_BYTES = 64 << 10  # beyond this the connection is cut; the handlers refuse less than that with an answer
PROBE_SECONDS = 1.0  # how long readyz believes that the log could be appended to
FLUSH_SECONDS = 0.02  # between looks at what is still to be sent when stopping
DEMO_SECONDS = 1.0  # between sample events
DEMO_TOKEN_SECONDS = 30 * 86400
RESERVED_FILES = 256  # descriptors that are not connections: MongoDB, the log, the listening sockets
# Handlers and requests refer to each other, so every request is garbage that only the cyclic collector finds. At its default of 700
# allocations it ran through 10 to 28 % of the samples of a plain Tornado server.
GC_THRESHOLDS = (20_000, 20, 50)


class Server:
    """One server process: its parts, its start and its end.

    Args:
        settings: What the operator chose.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.port = 0  # where it listens, once started
        self._stop_wanted = asyncio.Event()
        self._mongodb: EmbeddedMongoDB | None = None  # None with a MongoDB of the operator's
        self._database: Database | None = None
        self._http: HTTPServer | None = None
        self._services: Services | None = None
        self._follower: Follower | None = None
        self._tasks: dict[asyncio.Task[None], str] = {}  # what runs as long as the server does
        self._probed_at = -PROBE_SECONDS  # when the log was appended to last, to see whether it can be

    async def run(self) -> int:
        """Serve until SIGTERM, SIGINT, or a defect; return the exit status."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop_wanted.set)
        try:
            if not await self._start():
                return 0
            print(f"listening on http://{self.settings.address}:{self.port}", flush=True)
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
        )
        hub = Hub(
            log,
            _Clock(),
            heartbeat_seconds=settings.heartbeat_seconds,
            stale_seconds=settings.stale_seconds,
            chunk_bytes=settings.chunk_bytes,
            window_bytes=settings.window_bytes,
            max_connections=min(settings.max_connections, _files_allowed() - RESERVED_FILES),
        )
        appender = Appender(log, seconds=settings.append_seconds)
        self._follower = Follower(log, hub)
        self._run("appender", appender.run())
        self._run("follower", self._follower.run())
        self._run("catching up", hub.catch_up.run())
        self._run("sweep", hub.keeper.run())
        if not await self._first_contact(log):
            return False
        services = Services(
            hub=hub,
            appender=appender,
            verifier=_verifier(settings),
            poller=Poller(asyncio.get_running_loop()),
            limits=_limits(settings),
            ready=lambda: self._ready(log),
            allowed_origins=frozenset(settings.allowed_origins),
        )
        self._http = _http_server(services)
        self._services = services
        self._http.add_sockets(sockets)
        self.port = sockets[0].getsockname()[1]
        if settings.demo:
            self._run("demo feed", _feed(appender))
            _show_demo(f"http://{settings.address}:{self.port}", settings)
        gc.collect()
        gc.freeze()  # what is here now stays: the collector need not look at it again
        gc.set_threshold(*GC_THRESHOLDS)
        return True

    async def _start_mongodb(self) -> str:
        self._mongodb = EmbeddedMongoDB(self.settings.data_dir)
        return await self._mongodb.start()

    async def _first_contact(self, log: Log) -> bool:
        """Wait until the head of the log has been seen; False if the server is stopped meanwhile."""
        assert self._follower is not None
        warned = False
        while self._follower.at_head_since is None and not self._stop_wanted.is_set():
            try:
                await log.open()
            except Unavailable as error:
                if not warned:
                    logger.warning("waits for MongoDB: %s", error)
                warned = True
            await asyncio.sleep(FLUSH_SECONDS)
        return not self._stop_wanted.is_set()

    def _run(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        self._tasks[asyncio.create_task(work, name=name)] = name

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
            services.hub.drain(self.settings.drain_seconds, random.random)
            await self._within(lambda: not len(services.poller))
            await http.close_all_connections()
            services.poller.close()
            await services.hub.catch_up.pages.close()
        # The parts end, each awaited; then MongoDB, which they used.
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
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
        return bind_sockets(port, address, backlog=BACKLOG)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise OSError(f"cannot listen on {address}:{port}: {reason}; choose another with --address and --port") from error


def _files_allowed() -> int:
    """Raise the limit of open files as far as it goes, and return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def _verifier(settings: Settings) -> TokenVerifier:
    keys = {name: settings.jwt_secret if name == "HS256" else settings.jwt_public_key for name in settings.jwt_algorithms}
    if not keys:
        logger.warning("no key is set to check tokens with: every token will be refused; see jwt_secret and jwt_public_key")
    return TokenVerifier(
        keys,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        leeway_seconds=settings.jwt_leeway_seconds,
        time=time.time,
    )


def _limits(settings: Settings) -> Limits:
    return Limits(
        max_body_bytes=settings.max_body_bytes,
        max_event_bytes=min(settings.max_event_bytes, settings.log_bytes // 2),  # the log must be able to hold it
        max_batch_events=settings.max_batch_events,
        max_frame_bytes=settings.max_frame_bytes,
        subscriptions_per_connection=settings.subscriptions_per_connection,
        auth_seconds=settings.auth_seconds,
    )


class _HTTPServer(HTTPServer):
    """Tornado's server, which keeps some descriptors free: without any it could not even refuse, and would try again without a pause."""

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        """Close a connection for which there is no room; the kernel gives out the lowest number that is free."""
        _, allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
        if stream.socket.fileno() >= allowed - RESERVED_FILES // 2:
            stream.close()
        else:
            super().handle_stream(stream, address)


def _http_server(services: Services) -> HTTPServer:
    application = Application(list(ROUTES), services=services, default_handler_class=Unknown, log_function=lambda handler: None)
    return _HTTPServer(
        application,
        idle_connection_timeout=IDLE_SECONDS,
        body_timeout=IDLE_SECONDS,
        max_header_size=MAX_HEADERS_BYTES,
        max_body_size=1 << 40,  # handlers know their own limits, and answer with 413 where Tornado would cut the connection
        max_buffer_size=services.limits.max_body_bytes + DISCARDED_BYTES,
    )


# The demo


async def _feed(appender: Appender) -> None:
    """Publish a sample event a second."""
    for event in demo.events():
        try:
            await appender.append([event])
        except StorageError as error:
            logger.debug("demo event not published: %s", error)
        await asyncio.sleep(DEMO_SECONDS)


def with_demo_secret(settings: Mapping[str, str], data_dir: Path) -> dict[str, str]:
    """Return the environment with a secret for the demo's tokens, kept in the data directory."""
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = data_dir / "demo.secret"
    if not path.exists():
        _write_private(path, secrets.token_urlsafe(48))
    return {**settings, "TAILCAST_JWT_SECRET": path.read_text()}


def _show_demo(url: str, settings: Settings) -> None:
    """Make tokens to look around with, and print where to look."""
    if "HS256" not in settings.jwt_algorithms:
        print("The demo feed runs. Tokens are checked with your own key, so make one for user demo of org demo.")
        return
    user = {"sub": demo.USER, "org": demo.ORG, "entity": demo.ENTITY}
    publisher = {"sub": demo.PUBLISHER, "roles": ["publisher"]}
    for name, claims in (("user", user), ("publisher", publisher)):
        token = jwt.encode({**claims, "exp": int(time.time()) + DEMO_TOKEN_SECONDS}, settings.jwt_secret, algorithm="HS256")
        _write_private(settings.data_dir / f"demo-{name}.token", token)
    directory = os.path.relpath(settings.data_dir)
    print(
        "A demo feed publishes sample events of every family. Watch it, and add to it, from another terminal:\n"
        f'  curl -N -H "Authorization: Bearer $(cat {directory}/demo-user.token)" {url}/v1/stream\n'
        f'  curl -H "Authorization: Bearer $(cat {directory}/demo-publisher.token)" -H "Content-Type: application/json" \\\n'
        '    -d \'{"topic": "hello", "type": "greeting", "audience": ["public"], "data": {"text": "hello"}}\' \\\n'
        f"    {url}/v1/events"
    )


def _write_private(path: Path, text: str) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run a server with these arguments; return the exit status: 0 after an ordered stop, 2 if a setting is wrong, else 1."""
    if help_requested(argv):
        print(help_text())
        return 0
    try:
        settings = read_settings(argv, environ)
        if settings.demo and not settings.jwt_algorithms:
            settings = read_settings(argv, with_demo_secret(environ, settings.data_dir))
    except SettingsError as error:
        print(f"tailcast: {error}", file=sys.stderr)
        return 2
    logs.configure(settings.log_level, settings.log_format)
    return asyncio.run(_run(settings))


async def _run(settings: Settings) -> int:
    return await Server(settings).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
