"""`python -m tests.bench.paced`: a hub with paced clients on real sockets, fed at a rate; prints what CPU that takes, as one JSON line.

No MongoDB and no publisher: at 20,000 updates a second these would take the core for themselves, and what is asked is what pace costs. The
entries are made as the follower makes them. The clients are a process of its own that reads and throws away. Time is the hub's clock, which
is moved on when the work of a step is done: so a busy machine makes it take longer, and the CPU seconds for a second of the clock stay.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import resource
import select
import socket
import time
from dataclasses import dataclass

from handlers.sockets import Poller, SocketSink
from hub.connection import Connection, State
from hub.formats import SSE
from hub.hub import Hub
from hub.pace import TICK_SECONDS
from hub.principal import PUBLIC, Principal
from hub.subscriptions import Subscription
from hub.terms import Pace, Terms
from storage.entries import Entry
from storage.positions import Position
from tests.hub.fakes import CODEC, ListLog

STEP_SECONDS = 0.005  # between batches, about as the follower's cursor brings them
STEPS_A_TICK = round(TICK_SECONDS / STEP_SECONDS)
WARM_SECONDS = 1.0  # in which memory and sockets' buffers come to their size
READ_BYTES = 1 << 18
BUFFER_BYTES = 1 << 20  # of a client's socket, as far as the system allows: a reader whose turn comes late is not a slow client
LATE_SECONDS = 0.002  # until it is looked again whether a client has read
HERE = "127.0.0.1"
TOPIC, TYPE = "trading.prices", "price:update"


@dataclass(frozen=True)
class Work:
    """How much of what: `own` symbols for each client, 0: all for everybody; `pace` of 0: none."""

    clients: int
    symbols: int
    rate: float
    own: int
    pace: float
    seconds: float


class Clock:
    """Time, moved on by the feed."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        """Return how far it was moved."""
        return self.now

    def time(self) -> float:
        """Return the time of day."""
        return time.time()


def read_away(port: int, count: int, core: int) -> None:
    """Connect so many clients, and read whatever comes until the last one's stream ends."""
    os.sched_setaffinity(0, {core})
    epoll = select.epoll()
    clients = {}
    for _ in range(count):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        client.connect((HERE, port))
        client.setblocking(False)
        clients[client.fileno()] = client
        epoll.register(client, select.EPOLLIN)
    buffer = memoryview(bytearray(READ_BYTES))
    while clients:
        for number, _ in epoll.poll():
            try:
                ended = not clients[number].recv_into(buffer)
            except ConnectionError:
                ended = True
            if ended:
                epoll.unregister(number)
                clients.pop(number).close()


class Feed:
    """Price updates of all symbols in turn, as they come off the log."""

    def __init__(self, symbols: int) -> None:
        prices = '"price":"187.42","bid":"187.40","ask":"187.44"'
        keys = [f"S{number:04d}" for number in range(symbols)]
        self._updates = [(key, f'{{"symbol":"{key}",{prices},"timestamp":"2026-11-20T12:00:00.000Z"}}') for key in keys]
        self.seq = 0

    def take(self, count: int) -> list[Entry]:
        """Return the next ones."""
        return [self._next() for _ in range(count)]

    def _next(self) -> Entry:
        self.seq += 1
        symbol, data = self._updates[self.seq % len(self._updates)]
        document = {
            "_id": self.seq,
            "ms": int(time.time() * 1000),
            "topic": TOPIC,
            "type": TYPE,
            "audience": [PUBLIC],
            "data": data,
            "source": "market",
            "key": symbol,
        }
        return Entry.of(document, CODEC)


def cpu_seconds() -> float:
    """Return what this process has used so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def counts(hub: Hub) -> dict[str, float]:
    """Return what is counted so far."""
    return {
        "cpu": cpu_seconds(),
        "events": hub.pacer.delivered + hub.fan_out.delivered + hub.catch_up.replayed,
        "sends": hub.pacer.sends,
        "read_behind": hub.catch_up.replayed,
    }


async def measure(work: Work, core: int) -> dict[str, float]:
    """Run the work, and return rates by second."""
    clock = Clock()
    hub = Hub(ListLog(), clock, heartbeat_seconds=3600, stale_seconds=0)
    hub.start(Position(0, 0))
    poller = Poller(asyncio.get_running_loop())
    with socket.create_server((HERE, 0), backlog=4096) as listener:
        reader = multiprocessing.Process(target=read_away, args=(listener.getsockname()[1], work.clients, core))
        reader.start()
        for number in range(work.clients):
            open_client(hub, SocketSink(poller, listener.accept()[0]), number, work)
    task = asyncio.create_task(hub.catch_up.run())
    feed = Feed(work.symbols)
    await run_feed(hub, clock, feed, work.rate, WARM_SECONDS)
    before = counts(hub)
    await run_feed(hub, clock, feed, work.rate, work.seconds)
    figures = {f"{name}_per_second": (value - before[name]) / work.seconds for name, value in counts(hub).items()}
    figures["cpu_share"] = 100 * figures.pop("cpu_per_second")
    task.cancel()
    poller.close()
    reader.join()
    return figures


def open_client(hub: Hub, sink: SocketSink, number: int, work: Work) -> None:
    """Open a connection for one client."""
    connection = Connection(f"c{number}", Principal(f"u{number}", audiences=frozenset({PUBLIC})), SSE, sink, hub)
    connection.terms = Terms("prices", pace=Pace(work.pace, above=1000) if work.pace else None)
    sink.owner = connection
    own = frozenset(f"S{(number * work.own + index) % work.symbols:04d}" for index in range(work.own))
    hub.open(connection, frozenset({Subscription(TOPIC, frozenset({TYPE}), keys=own)}), None)


async def run_feed(hub: Hub, clock: Clock, feed: Feed, rate: float, seconds: float) -> None:
    """Feed so many entries a second, for so many seconds of the clock, and wait for clients that are late."""
    for step in range(round(seconds / STEP_SECONDS)):
        clock.now += STEP_SECONDS
        hub.receive(feed.take(round(rate * STEP_SECONDS)))
        await asyncio.sleep(0)
        if step % STEPS_A_TICK:
            continue
        await hub.pacer.tick()
        while any(one.state is not State.ATTACHED for one in hub.connections):  # noqa: ASYNC110  # sockets tell only their owners
            await asyncio.sleep(LATE_SECONDS)


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.paced")
    for name, kind, default in (
        ("clients", int, 1000),
        ("symbols", int, 1000),
        ("rate", float, 20_000),
        ("own", int, 0),
        ("pace", float, 0.1),
        ("seconds", float, 10),
    ):
        parser.add_argument(f"--{name}", type=kind, default=default)
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)), help="of the clients")
    arguments = vars(parser.parse_args())
    core = arguments.pop("core")
    print(json.dumps(asyncio.run(measure(Work(**arguments), core))))


if __name__ == "__main__":
    main()
