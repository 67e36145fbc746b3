"""Snapshots for clients: state as of the head at the moment of opening, whatever is going on meanwhile, with a real MongoDB under it."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, NamedTuple

import pytest

from channels.declaration import Channel, Snapshot
from hub.connection import Connection
from hub.errors import NotReady
from hub.folding import Folding
from hub.folds import Folds
from hub.formats import SSE
from hub.hub import Hub
from hub.overlay import Overlay
from hub.snapshots import Prepared, Snapshots
from storage.entries import Entry
from storage.errors import Unavailable
from storage.leases import Lease
from storage.snapshots import SnapshotStore
from tests.hub.decoding import Received, SseDecoder
from tests.hub.fakes import CODEC, ListLog, ManualClock, RecordingSink, connect, everything, make_codec, make_entry, make_principal
from tests.storage.faults import Clock, FaultyDatabase, Held, answer_lost, not_sent
from tests.waiting import wait_until

TOTAL = "sum"
LONG_SECONDS = 600.0  # longer than any test stands still


def is_gone(payload: Mapping[str, Any]) -> bool:
    """Tell whether nothing is left of it."""
    return bool(payload["gone"])


def total(payloads: list[Mapping[str, Any]]) -> dict[str, int]:
    """Add up."""
    return {TOTAL: sum(payload["n"] for payload in payloads)}


def channel(snapshot: Snapshot) -> Channel:
    """Return a channel of which only the snapshot matters."""
    return Channel("c", "A channel.", snapshot=snapshot)


ORDERS = channel(Snapshot("orders", "user", ("order:update", "order:fill"), limit=5, gone=is_gone, total=total))
PRICES = channel(Snapshot("prices", "public", ("price:update",), limit=100, keep_seconds=1e9, each=True))
ALL = channel(Snapshot("all orders", "user", ("order:update",), limit=1000, gone=is_gone))
FOLDS = [one.snapshot for one in (ORDERS, PRICES, ALL) if one.snapshot]


def order(seq: int, key: str, *, user: str = "u1", gone: bool = False, type: str = "order:update") -> Entry:
    """Return an entry about an order."""
    data = json.dumps({"key": key, "n": seq, "gone": gone})
    return make_entry(seq, type=type, key=key, audience=[f"user:{user}"], data=data)


def price(seq: int, key: str, data: str | None = None) -> Entry:
    """Return an entry about a price."""
    return make_entry(seq, type="price:update", key=key, data=data or json.dumps({"key": key, "n": seq}))


class Process:
    """One server process as far as state goes: a hub, its overlay, what makes snapshots, and what folds."""

    def __init__(self, log: ListLog, database: FaultyDatabase, name: str, most: int = 50_000) -> None:
        self.clock = ManualClock()
        self.log = log
        self.overlay = Overlay(Folds(FOLDS), most=most)
        self.hub = Hub(log, self.clock, overlay=self.overlay)
        self.store = SnapshotStore(database, clock=Clock(2e9))
        self.snapshots = Snapshots(self.hub, self.overlay, self.store, log, self.clock.time)
        self.lease = Lease(database, "snapshots", holder=name, seconds=LONG_SECONDS)
        self.folding = Folding(self.overlay, log, self.store, self.lease)

    async def start(self) -> None:
        """Begin at the head of the log."""
        await self.store.open()
        self.hub.start(await self.log.head())

    def follow(self) -> None:
        """See what is new in the log."""
        new = [entry for entry in self.log.entries if entry.seq > self.hub.head.seq]
        if new:
            self.hub.receive(new)

    def append(self, *entries: Entry) -> None:
        """Append to the log, and see it."""
        self.log.entries += entries
        self.follow()

    def open(self, prepared: Prepared, user: str = "u1") -> RecordingSink:
        """Open a connection with its snapshot, with nothing awaited in between, as a handler does."""
        first = prepared.now(SSE)
        connection: Connection
        connection, sink = connect(self.hub, SSE, self.clock, principal=make_principal(user))
        self.hub.open(connection, everything(), None)
        if first:
            self.hub.send(connection, first)
        return sink

    async def close(self) -> None:
        """Leave no task behind."""
        await self.snapshots.close()
        await self.store.close()


@pytest.fixture
async def database(mongodb_uri: str, database_name: str) -> AsyncIterator[FaultyDatabase]:
    database = FaultyDatabase(mongodb_uri, database_name)
    yield database
    database.close()


Start = Callable[..., Any]


@pytest.fixture
async def log() -> ListLog:
    return ListLog([make_entry(1)])


@pytest.fixture
async def start(log: ListLog, database: FaultyDatabase, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    """A function that starts one more process on the same log and MongoDB."""
    monkeypatch.setattr("hub.snapshots.REACH_SECONDS", LONG_SECONDS)
    started: list[Process] = []

    async def start_one(name: str = "a", **bounds: int) -> Process:
        process = Process(log, database, name, **bounds)
        await process.start()
        started.append(process)
        return process

    yield start_one
    for one in started:
        await one.close()


@pytest.fixture
async def here(start: Start) -> Process:
    """A process that has folded what there is."""
    process: Process = await start()
    await process.folding.turn()
    return process


class State(NamedTuple):
    """What a snapshot says: its position's number, and its items' numbers by key, in their order."""

    seq: int
    numbers: dict[str, int]
    total: int


def decoded(data: bytes) -> list[Received]:
    """Return the messages in bytes of a stream that was begun before."""
    decoder = SseDecoder()
    return list(decoder.feed(data))


def state_in(message: Received) -> State:
    """Return what a message says."""
    fields = message.fields
    numbers = {item["key"]: item["n"] for item in fields["orders"]}
    return State(CODEC.decode(fields["position"]).seq, numbers, fields[TOTAL])


async def read(process: Process, *, user: str = "u1", keys: tuple[str, ...] | None = None) -> State:
    """Return a user's orders as a new client gets them."""
    prepared = await process.snapshots.prepare(ORDERS, f"user:{user}", keys)
    (message,) = decoded(prepared.now(SSE))
    return state_in(message)


async def read_prices(process: Process, *keys: str) -> list[dict[str, Any]]:
    """Return the payloads of the prices that a new client gets first."""
    prepared = await process.snapshots.prepare(PRICES, "public", keys or None)
    messages = decoded(prepared.now(SSE))
    assert all((one.kind, one.id, one.fields["event"]) == ("event", "", "price:update") for one in messages)
    return [one.fields["data"] for one in messages]


def independent(entries: list[Entry], user: str = "u1", limit: int = 5) -> dict[str, int]:
    """Return a user's orders by key, newest first, worked out from all entries in another way than the code does."""
    newest: dict[str, tuple[int, bool]] = {}
    for entry in entries:
        if entry.type.startswith("order:") and f"user:{user}" in entry.audience:
            newest[str(entry.key)] = entry.seq, json.loads(entry.data)["gone"]
    live = sorted(((seq, key) for key, (seq, gone) in newest.items() if not gone), reverse=True)
    return {key: seq for seq, key in live[:limit]}


def outcome(sink: RecordingSink, entries: list[Entry], user: str = "u1") -> dict[str, int]:
    """Return what a client has that got a snapshot of all orders and then events, each one after it once and in order."""
    welcome, snapshot, *rest = [one for one in sink.received if one.kind != "live"]
    assert (welcome.kind, snapshot.kind, snapshot.id) == ("welcome", "snapshot", welcome.id)
    begin = CODEC.decode(snapshot.fields["position"]).seq
    assert begin == CODEC.decode(str(welcome.id)).seq
    state = {item["key"]: item["n"] for item in snapshot.fields["all orders"]}
    assert state == independent([one for one in entries if one.seq <= begin], user, 1000), "as of its position"
    numbers = [CODEC.decode(str(one.id)).seq for one in rest]
    assert numbers == [one.seq for one in entries if one.seq > begin and set(one.audience) & {"public", f"user:{user}"}]
    for one in rest:
        payload = one.fields["data"]
        if one.fields["event"] == "order:update":
            state.pop(payload["key"], None)
            state |= {} if payload["gone"] else {payload["key"]: payload["n"]}
    return state


async def test_nothing_yet(here: Process) -> None:
    """A list with nothing in it, as of the head; where every item is an event of its own, there is none."""
    assert await read(here) == State(1, {}, 0)
    assert (await here.snapshots.prepare(PRICES, "public")).now(SSE) == b""


async def test_before_anything_is_folded(here: Process) -> None:
    """The overlay has it all: as of the head, newest first, with what is computed from the list."""
    here.append(order(2, "a"), order(3, "b"), order(4, "a", type="order:fill"), order(5, "c", user="u2"), order(6, "d", gone=True))
    assert await read(here) == State(6, {"a": 4, "b": 3}, 7)


async def test_after_everything_is_folded(here: Process, start: Start) -> None:
    """MongoDB has it all, for this process as for one that has just begun."""
    here.append(order(2, "a"), order(3, "b"), order(4, "a"), order(5, "b", gone=True))
    await here.folding.turn()
    assert len(here.overlay) == 0
    assert await read(here) == await read(await start("b")) == State(5, {"a": 4}, 4)


async def test_partly_folded(here: Process) -> None:
    """What is newer is over what is older, also where it says that something is gone, or is back."""
    here.append(order(2, "a"), order(3, "b"), order(4, "c", gone=True))
    await here.folding.turn()
    here.append(order(5, "a"), order(6, "b", gone=True), order(7, "c"))
    assert await read(here) == State(7, {"c": 7, "a": 5}, 12)


async def test_payloads_are_as_they_were_published(here: Process) -> None:
    """Character for character, from memory and from MongoDB."""
    text = '{ "key":"a",\n "n":1, "gone":false, "amount": 1.500, "big": 123456789012345678901234567890 }'
    here.append(make_entry(2, type="order:update", key="a", audience=["user:u1"], data=text))
    for _ in range(2):
        data = (await here.snapshots.prepare(ORDERS, "user:u1")).now(SSE).decode()
        assert '"orders":[' + text.replace("\n", "\ndata: ") + "]" in data
        await here.folding.turn()


async def test_at_most_so_many_keys(here: Process) -> None:
    """The newest ones. Where some of those in MongoDB are gone by now, older ones take their places."""
    here.append(*(order(seq, f"k{seq}") for seq in range(2, 42)))
    await here.folding.turn()
    here.append(*(order(seq, f"k{key}", gone=True) for seq, key in zip(range(42, 67), range(41, 16, -1), strict=True)), order(67, "k2"))
    assert (await read(here)).numbers == {"k2": 67, "k16": 16, "k15": 15, "k14": 14, "k13": 13} == independent(here.log.entries)


async def test_some_keys_only(here: Process) -> None:
    """From MongoDB as from the overlay."""
    here.append(order(2, "a"), order(3, "b"), order(4, "c"))
    await here.folding.turn()
    here.append(order(5, "b"), order(6, "d"), order(7, "e"))
    assert (await read(here, keys=("a", "b", "d", "x"))).numbers == {"d": 6, "b": 5, "a": 2}


async def test_initial_prices(here: Process) -> None:
    """Events of their own type that say so first, newest first; some symbols or all. They have no id: the client stays where it was."""
    here.append(price(2, "x"), price(3, "y", " { } "), price(4, "z"), price(5, "x"))
    assert await read_prices(here) == [
        {"initializing": True, "key": "x", "n": 5},
        {"initializing": True, "key": "z", "n": 4},
        {"initializing": True},
    ]
    assert [one["n"] for one in await read_prices(here, "z", "no", "x")] == [5, 4]
    here.append(price(6, "w", '{"n": 6, "initializing": false}'))
    assert (await read_prices(here, "w")) == [{"n": 6, "initializing": True}]
    sink = here.open(await here.snapshots.prepare(PRICES, "public", ("z",)))
    assert [one.id for one in sink.received] == [sink.received[0].id] * 2


async def test_public_state_is_read_once(here: Process, database: FaultyDatabase) -> None:
    """After that it is in memory, and goes on with every event."""
    here.append(price(2, "x"), price(3, "y"))
    await here.folding.turn()
    here.append(price(4, "z"))
    assert [one["n"] for one in await read_prices(here)] == [4, 3, 2]
    await here.folding.turn()
    before = len(database.commands)
    here.append(price(5, "x"))
    assert [one["n"] for one in await read_prices(here)] == [5, 4, 3]
    assert [one["n"] for one in await read_prices(here, "y", "x")] == [5, 3]
    assert len(database.commands) == before


async def test_many_ask_for_public_state_at_once(here: Process, database: FaultyDatabase) -> None:
    """That is one reading too, and everybody has what came meanwhile."""
    here.append(price(2, "x"))
    await here.folding.turn()
    before = len(database.commands)
    asking = [asyncio.create_task(read_prices(here)) for _ in range(50)]
    await asyncio.sleep(0)  # all have asked
    here.append(price(3, "y"))
    assert [[one["n"] for one in answer] for answer in await asyncio.gather(*asking)] == [[3, 2]] * 50
    assert len(database.commands) - before <= 4


async def test_what_nothing_was_heard_of_for_long_is_left_out(here: Process) -> None:
    """From the moment on in which its time is over."""
    here.append(price(2, "x"))
    assert len(await read_prices(here)) == 1
    here.clock.now += 2e9
    assert await read_prices(here) == []


async def test_a_thousand_owners_at_once(here: Process, database: FaultyDatabase) -> None:
    """A few queries for all of them, and each gets what is his own."""
    here.append(*(order(2 + n, "a", user=f"u{n}") for n in range(1000)))
    await here.folding.turn()
    before = len(database.commands)
    states = await asyncio.gather(*(read(here, user=f"u{n}") for n in range(1000)))
    assert [state.numbers for state in states] == [{"a": 2 + n} for n in range(1000)]
    assert len(database.commands) - before < 20


async def test_events_pour_in_while_it_is_read(here: Process, database: FaultyDatabase) -> None:
    """Also when they are folded meanwhile: the snapshot is as of the moment of opening, and every event after it comes once."""
    here.append(order(2, "a"), order(3, "b"), order(4, "c"))
    await here.folding.turn()
    for name in ("find", "aggregate"):
        held = Held()
        database.inject(name, held)
        preparing = asyncio.create_task(here.snapshots.prepare(ALL, "user:u1"))
        await held.reached.wait()
        seq = here.hub.head.seq
        here.append(order(seq + 1, "a"), order(seq + 2, "b", gone=True), order(seq + 3, "d"))
        await here.folding.turn()
        here.append(order(seq + 4, "d", gone=True), order(seq + 5, "e"))
        held.let_go.set()
        prepared = await preparing
        here.append(order(seq + 6, "b"), order(seq + 7, "a", gone=True))
        sink = here.open(prepared)
        here.append(order(seq + 8, "f"), order(seq + 9, "e"), order(seq + 10, "f", gone=True))
        assert outcome(sink, here.log.entries) == independent(here.log.entries, limit=1000)


async def test_another_process_is_ahead(here: Process, start: Start) -> None:
    """What it has folded may be newer than what was seen here: that is waited for, so that nothing is missing and nothing comes twice."""
    here.append(order(2, "a"), order(3, "b"))
    await here.folding.turn()
    other = await start("b")
    await here.lease.release()
    other.append(order(4, "a"), order(5, "b", gone=True))
    await other.folding.turn()
    preparing = asyncio.create_task(here.snapshots.prepare(ALL, "user:u1"))
    await wait_until(lambda: here.overlay._waiting, "it waits for the head")
    assert not preparing.done()
    here.follow()
    sink = here.open(await preparing)
    here.append(order(6, "c"))
    assert outcome(sink, here.log.entries) == {"a": 4, "c": 6}


async def test_the_tail_does_not_come_after(here: Process, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then there is no snapshot now, rather than one with something missing."""
    monkeypatch.setattr("hub.snapshots.REACH_SECONDS", 0)
    here.log.entries.append(order(2, "a"))
    with pytest.raises(NotReady, match="tail"):
        await here.snapshots.prepare(ORDERS, "user:u1")


async def test_a_process_that_has_just_begun(here: Process, start: Start, log: ListLog) -> None:
    """What is not folded yet it has not followed: that is read from the log, once for all who need it."""
    here.append(*(order(seq, "ab"[seq % 2]) for seq in range(2, 10)))
    other = await start("b")
    other.append(order(10, "c"))
    states = await asyncio.gather(*(read(other) for _ in range(10)))
    assert states == [State(10, {"c": 10, "b": 9, "a": 8}, 27)] * 10
    assert log.reads.count((1, 1000)) == 1


async def test_too_much_is_not_folded_yet(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Just after a start for instance: the client is told to come back; once it is folded, it gets what it wants."""
    monkeypatch.setattr("hub.snapshots.PAUSE_SECONDS", 0)
    process: Process = await start(most=2)
    await process.folding.turn()
    process.append(*(order(seq, f"k{seq}") for seq in range(2, 12)))
    with pytest.raises(NotReady):
        await process.snapshots.prepare(ORDERS, "user:u1")
    monkeypatch.setattr("hub.snapshots.BRIDGED_ENTRIES", 3)
    with pytest.raises(NotReady):
        await process.snapshots.prepare(ORDERS, "user:u1")
    await process.folding.turn()
    assert (await read(process)).numbers == independent(process.log.entries)


async def test_a_hole_while_the_log_is_read(here: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read of it is of no use then: everything is read again."""
    monkeypatch.setattr("hub.snapshots.PAUSE_SECONDS", 0)
    monkeypatch.setattr(here.overlay, "_most", 2)
    here.append(*(order(seq, "abc"[seq % 3]) for seq in range(2, 7)))
    assert here.overlay.floor > 1, "it had to let something go that is not folded"
    monkeypatch.setattr(here.overlay, "_most", 20)
    here.log.hold_up()
    preparing = asyncio.create_task(here.snapshots.prepare(ORDERS, "user:u1"))
    await wait_until(lambda: (1, 1000) in here.log.reads, "the log is read")
    here.hub.lose(make_entry(8), "evicted")
    here.log.entries += [make_entry(7), make_entry(8)]
    here.hub.receive([make_entry(8)])
    here.log.go_on()
    prepared = await preparing
    assert state_in(decoded(prepared.now(SSE))[0]).numbers == {"a": 6, "c": 5, "b": 4}


async def test_a_hole_while_items_are_read(here: Process, database: FaultyDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever had begun to read before it begins again."""
    monkeypatch.setattr("hub.snapshots.PAUSE_SECONDS", 0)
    here.append(order(2, "a"))
    await here.folding.turn()
    held = Held()
    database.inject("aggregate", held)
    preparing = asyncio.create_task(here.snapshots.prepare(ORDERS, "user:u1"))
    await held.reached.wait()
    here.hub.lose(make_entry(3), "evicted")
    held.let_go.set()
    prepared = await preparing
    here.append(order(3, "b"))
    assert state_in(decoded(prepared.now(SSE))[0]) == State(3, {"b": 3, "a": 2}, 5)


async def test_a_hole_after_it_was_prepared(here: Process) -> None:
    """It does not hold any more, and is refused instead of leaving something out."""
    here.append(order(2, "a"), price(3, "x"))
    prepared = [await here.snapshots.prepare(ORDERS, "user:u1"), await here.snapshots.prepare(PRICES, "public")]
    here.hub.lose(make_entry(5), "evicted")
    for one in prepared:
        with pytest.raises(NotReady):
            one.now(SSE)


async def test_it_holds_while_everything_is_folded(here: Process) -> None:
    """Whoever prepares may take his time: what he needs stays in the overlay, and is let go of when he is done."""
    here.append(order(2, "a"), order(3, "b"))
    prepared = await here.snapshots.prepare(ALL, "user:u1")
    for seq in range(4, 30, 3):
        here.append(order(seq, "a"), order(seq + 1, "c"), order(seq + 2, "c", gone=seq % 2 == 0))
        await here.folding.turn()
    sink = here.open(prepared)
    assert outcome(sink, here.log.entries) == independent(here.log.entries, limit=1000)
    del prepared
    await here.folding.turn()
    assert len(here.overlay) == 0


async def test_the_log_is_made_anew(here: Process, start: Start) -> None:
    """State stays as it was until the new log says otherwise, however small its numbers are."""
    here.append(order(2, "a"), order(3, "b"), order(4, "b"), price(5, "x"))
    await here.folding.turn()
    assert len(await read_prices(here)) == 1
    here.log.codec = make_codec(2)
    here.log.entries = [make_entry(1, codec=here.log.codec)]
    here.hub.restart("log recreated")
    here.follow()
    await here.folding.turn()
    here.append(order(2, "a"))
    for process in (here, await start("b")):
        prepared = await process.snapshots.prepare(ALL, "user:u1")
        (message,) = decoded(prepared.now(SSE))
        assert {item["key"]: item["n"] for item in message.fields["all orders"]} == {"a": 2, "b": 4}
        assert len(await read_prices(process)) == 1
        await here.folding.turn()


async def test_another_log_is_noted_than_the_one_that_is_followed(here: Process, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its progress says nothing of this one: there is no snapshot until this one is noted, rather than one with something missing."""
    monkeypatch.setattr("hub.snapshots.PAUSE_SECONDS", 0)
    here.append(*(order(seq, "x") for seq in range(2, 10)))
    await here.folding.turn()
    here.log.codec = make_codec(2)
    here.log.entries = [make_entry(1, codec=here.log.codec), order(2, "a")]
    other: Process = await start("b")
    with pytest.raises(NotReady):
        await other.snapshots.prepare(ORDERS, "user:u1")
    for _ in range(2):
        await other.folding.turn()
    prepared = await other.snapshots.prepare(ORDERS, "user:u1")
    (message,) = decoded(prepared.now(SSE))
    assert {item["key"]: item["n"] for item in message.fields["orders"]} == {"x": 9, "a": 2}


async def test_the_log_is_made_anew_while_it_is_read(here: Process, database: FaultyDatabase) -> None:
    """Then it is read again."""
    here.append(order(2, "a"))
    await here.folding.turn()
    held = Held()
    database.inject("aggregate", held)
    preparing = asyncio.create_task(here.snapshots.prepare(ORDERS, "user:u1"))
    await held.reached.wait()
    here.log.codec = make_codec(2)
    here.log.entries = [make_entry(1, codec=here.log.codec)]
    here.hub.restart("log recreated")
    here.follow()
    await here.folding.turn()
    held.let_go.set()
    (message,) = decoded((await preparing).now(SSE))
    assert message.fields["position"] == here.log.entries[0].id
    assert message.fields["orders"] == [{"key": "a", "n": 2, "gone": False}]


async def test_mongodb_is_away(here: Process, database: FaultyDatabase) -> None:
    """Whoever asks hears it; the next one gets what he wants."""
    here.append(order(2, "a"))
    database.inject("find", not_sent)
    with pytest.raises(Unavailable):
        await here.snapshots.prepare(ORDERS, "user:u1")
    assert (await read(here)).numbers == {"a": 2}


@pytest.mark.parametrize("seed", range(12))
async def test_random_histories(seed: int, start: Start, database: FaultyDatabase, expected_logs: list[str]) -> None:
    """Two processes see the log at different times, fold at random, fail in the middle of it, and are replaced by new ones; whoever opens
    has the state as of his head, and then every event once."""
    expected_logs.append("snapshots are not folded")
    dice = random.Random(seed)
    a, b = processes = [await start("a"), await start("b")]
    log: ListLog = a.log
    sinks: list[RecordingSink] = []
    await a.folding.turn()

    def happen() -> None:
        seq = log.entries[-1].seq + 1
        for number in range(seq, seq + dice.randrange(1, 6)):
            log.entries.append(order(number, dice.choice("abcdefgh"), user=dice.choice(("u1", "u2")), gone=dice.random() < 0.25))

    async def fold(process: Process) -> None:
        if dice.random() < 0.3:
            database.inject("update", dice.choice((not_sent, answer_lost)))
        if dice.random() < 0.5:
            await dice.choice((a, b)).lease.release()
        await process.folding.turn()

    for number in range(40):
        happen()
        if number % 15 == 14:
            b = await start(f"b{number}")
            processes.append(b)
        process = dice.choice((a, b))
        if dice.random() < 0.6:
            process.follow()
        if dice.random() < 0.3:
            await fold(process)
        if dice.random() < 0.3:
            preparing = asyncio.create_task(process.snapshots.prepare(ALL, "user:u1"))
            for _ in range(dice.randrange(3)):
                await asyncio.sleep(0)  # it gets somewhere
                happen()
            await fold(dice.choice((a, b)))
            process.follow()
            prepared = await preparing
            happen()
            process.follow()
            sinks.append(process.open(prepared))
    for process in processes:
        process.follow()
    expected = independent(log.entries, limit=1000)
    for sink in sinks:
        assert outcome(sink, log.entries) == expected
