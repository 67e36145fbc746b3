"""The real application within the test's own process: the parts as server.py makes them, on the test's loop, with a log of their own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import jwt
from tornado.netutil import bind_sockets

import server
from assembly import LOG_INDEXES, assemble
from handlers.application import http_server
from settings import UNLIMITED, Settings
from storage.errors import Unavailable
from storage.log import Log
from storage.mongo import Database
from storage.state import State
from tests.waiting import PATIENCE_SECONDS, wait_until

SECRET = "a secret for HS256, of more than 32 bytes"
TOKEN_SECONDS = 7200  # longer than the whole run takes, on however slow a machine
UNHURRIED = {"connects_per_minute": UNLIMITED, "append_seconds": PATIENCE_SECONDS, "auth_seconds": PATIENCE_SECONDS}


class Clock:
    """Real time, which a test can put forward for the hub, and stop."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self._stopped: tuple[float, float] | None = None  # what it showed when it was stopped; None: it runs

    def monotonic(self) -> float:
        return (self._stopped[0] if self._stopped else time.monotonic()) + self.ahead

    def time(self) -> float:
        return (self._stopped[1] if self._stopped else time.time()) + self.ahead

    def stop(self) -> None:
        """Let time pass only when a test puts the clock forward from now on."""
        self._stopped = time.monotonic(), time.time()


class Assembly:
    """One server without its process: start it, talk to `port`, stop it.

    Args:
        uri: The MongoDB.
        database: A database of the test's own.
        answer_seconds: How long MongoDB may take.
        settings: Settings that are not as they would be by default. Unless they say so, how often an address connects is not limited, since
            all of a test's clients have one, and neither MongoDB nor a client that has to say who it is can be too slow.
    """

    def __init__(self, uri: str, database: str, answer_seconds: float = PATIENCE_SECONDS, **settings: Any) -> None:
        self.settings = Settings(jwt_secret=SECRET, jwt_algorithms=("HS256",), port=0, **{**UNHURRIED, **settings})
        self.clock = Clock()
        self.database = Database(uri, database, answer_seconds=answer_seconds)
        self.log = Log(self.database, clock=time.time, size_bytes=self.settings.log_bytes, indexes=LOG_INDEXES)
        self.state = State(self.database, clock=time.time)
        self.tasks: list[asyncio.Task[None]] = []
        self.port = 0  # where it listens, once started

    async def start(self) -> None:
        """Serve; the sweep runs only when a test calls `pass_seconds`, the roll is called only by `roll.exchange()`, the
        outbox is looked at only by `outbox.sweep()`, totals are told only by `services.watchers.tell()`,
        snapshots are folded only by `folding.turn()`, and positions are valued only by `portfolio.run()`."""
        key = await self._open()
        parts = assemble(self.settings, self.log, self.state, key, self.clock, self.settings.max_connections)
        self.services, self.follower, self.revision, self.roll = parts.services, parts.follower, parts.revision, parts.roll
        self.outbox, self.folding, self.portfolio = parts.outbox, parts.folding, parts.portfolio
        self.services.jitter_ms = lambda: 1234
        self.hub, self.appender = self.services.hub, self.services.appender
        for name, work in parts.work().items():
            if name in ("sweep", "roll", "totals", "outbox", "folding", "portfolio"):
                work.close()
            else:
                self.tasks.append(asyncio.create_task(work, name=name))
        await wait_until(lambda: self.follower.at_head_since is not None, "the head of the log was seen")
        await self.revision.revise()
        await self.folding.turn()
        self.http = http_server(self.services, server.make_tls(self.settings))
        sockets = bind_sockets(0, "127.0.0.1")
        self.http.add_sockets(sockets)
        self.port = sockets[0].getsockname()[1]

    async def _open(self) -> bytes:
        """Open what is kept in MongoDB, though that may be slower than it is given time."""

        async def opened() -> bytes | None:
            try:
                await self.log.open()
                return await self.state.open()
            except Unavailable:
                return None

        key = await wait_until(opened, "the log is open")
        assert isinstance(key, bytes)
        return key

    async def stop(self) -> None:
        """End everything, in the order of server.py."""
        self.http.stop()
        self.services.poller.close()
        self.services.rates.refusals.close()
        await self.http.close_all_connections()
        await self.hub.catch_up.pages.close()
        await self.services.snapshots.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.state.close()
        self.database.close()

    async def pass_seconds(self, seconds: float) -> None:
        """Put the hub's clock forward, and let it look after its connections."""
        self.clock.ahead += seconds
        await self.hub.keeper.sweep()


def token(user: str = "u1", *, roles: Sequence[str] = (), secret: str = SECRET, seconds: float = TOKEN_SECONDS, **claims: Any) -> str:
    """Return a token that holds for an assembly; a claim that is None is left out."""
    every = {"sub": user, "roles": list(roles), "exp": int(time.time() + seconds), **claims}
    return jwt.encode({name: value for name, value in every.items() if value is not None}, secret, algorithm="HS256")


PUBLISHER = token("p1", roles=["publisher"])
USER = token("u1")
