"""The whole hub against a model: whatever happens in whatever order, every connection has what it is owed, once, and nothing else."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections.abc import Coroutine
from random import Random
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from hub.connection import Start, State
from hub.formats import SSE, SSE_GZIP, WEBSOCKET, Format
from hub.hub import Hub
from hub.principal import Principal
from hub.subscriptions import Subscription, make_subscription
from hub.terms import Pace, Terms
from storage.entries import HIGH, Entry
from storage.errors import StorageError, UnknownPosition
from storage.positions import RECREATED, PositionCodec
from tests.hub.decoding import Received
from tests.hub.fakes import FIRST_MS, ListLog, ManualClock, connect, make_codec, make_entry, turns

Result = TypeVar("Result")
Place = tuple[int, int]  # which log, counted from 1, and the number in it

CHUNK_BYTES = 400  # two or three events
# Everything that is a size is small here, so that a few dozen entries cross every boundary.
SMALL = {
    "hub.pages.PAGE_ENTRIES": 4,
    "hub.pages.CACHED_PAGES": 2,
    "hub.pages.RETRY_SECONDS": 0,
    "hub.catchup.LOOK_ENTRIES": 3,
    "hub.catchup.PACED_LOOK_ENTRIES": 7,
    "hub.gathering.CONFLATE_ENTRIES": 2,
    "hub.pace.SLICE_SECONDS": 0,
    "hub.window.TRIM_ENTRIES": 2,
    "hub.router.MAX_ROUTES": 3,
    "hub.keeper.SWEEP_SLICE": 2,
    "hub.compression.MOST_HISTORY_BYTES": 300,
    "hub.compression.LEAST_HISTORY_BYTES": 100,
    "hub.compression.MAX_HISTORIES": 2,
    "hub.compression.TABLES_PAY_BYTES": 500,
    "hub.compression.REPEATED_BYTES": 200,
}
WINDOW_BYTES = 6000  # six entries

TOPICS = ("a", "a.b", "a.c", "b.b", "b.b.b")
PATTERNS = (*TOPICS, "*", "a.*", "*.b", "a.**", "b.**", "**")
AUDIENCES = ("public", "user:u1", "org:o1", "org:o2")
MANY_CLIENTS = 4
PACE_SECONDS = 0.1
NEVER = 1e9  # more events than come
PACES = (None, None, Pace(PACE_SECONDS), Pace(PACE_SECONDS, above=50), Pace(PACE_SECONDS, above=NEVER))
MANY_TURNS = 2000

subscriptions = st.builds(
    make_subscription,
    st.sampled_from([*PATTERNS, "**", "**", "b.**"]),
    st.sampled_from([[], [], [], ["x"]]),
    st.sampled_from([[], [], [], ["s"]]),
    st.sampled_from([{}, {}, {}, {"minN": 2, "maxN": 4}]),
    st.just([]),
    st.sampled_from([[], [], [], [], ["k1"], ["k1", "k2"]]),
)
seen_by = st.sets(st.sampled_from(AUDIENCES), min_size=2)
starts = st.one_of(
    st.just(("live", 0)),
    st.tuples(st.sampled_from(["id", "id", "id", "time", "earlier log"]), st.integers(0, 30)),
    st.sampled_from([("earliest", 0), ("unknown", 0)]),
)


def matches(pattern: list[str], topic: list[str]) -> bool:
    """Tell whether a topic is within a pattern, the slow way."""
    if not pattern or not topic:
        return not pattern and not topic
    if pattern == ["**"]:
        return True
    return pattern[0] in ("*", topic[0]) and matches(pattern[1:], topic[1:])


def selects(one: Subscription, entry: Entry) -> bool:
    """Tell whether a subscription selects an entry, the slow way."""
    number = json.loads(entry.data)["n"]
    return (
        matches(one.topic.split("."), entry.topic.split("."))
        and (not one.types or entry.type in one.types)
        and (not one.sources or entry.source in one.sources)
        and (not one.bounds or 2 <= number <= 4)
        and (not one.keys or entry.key in one.keys)
    )


class Held:
    """A subscription that a client holds, or held."""

    def __init__(self, subscription: Subscription, begin: Place, earliest: bool) -> None:
        self.subscription = subscription
        self.begin = begin
        self.earliest = earliest  # it took whatever was there
        self.ended = False

    def wants(self, entry: Entry, place: Place) -> bool:
        return place > self.begin and selects(self.subscription, entry)


class Client:
    """A connection with the model of what it should get."""

    def __init__(self, world: World, format: Format, audiences: set[str], room: int | None, pace: Pace | None) -> None:
        self.world = world
        self.principal = Principal("u1", audiences=frozenset(audiences))
        self.connection, self.sink = connect(world.hub, format, world.clock, principal=self.principal, room=room)
        self.connection.terms = Terms(pace=pace)
        self.sink.on_received = self.check
        self.sse = format is not WEBSOCKET
        self.pace = pace
        self.deliveries: list[tuple[object, float, bool]] = []  # at the head: of which interest, when, and whether one was of high priority
        self.held: list[Held] = []
        self.seen: dict[str, None] = {}
        self.at: Place = (0, 0)  # SSE only: everything up to here was had, or reported as lost
        self.floats = False  # SSE only: from the earliest, and has read nothing yet
        self.replayed = 0  # events since the last `live` that were not pushed
        self.audiences_ever = set(audiences)
        self.audiences_always = set(audiences)

    def hold(self, subscription: Subscription, start: Start | None, begin: int) -> None:
        for old in self.held:
            if not self.sse and old.subscription.topic == subscription.topic:
                old.ended = True
        earliest = start is not None and start.from_earliest
        self.held.append(Held(subscription, (self.world.generation, begin), earliest))

    def active(self) -> list[Held]:
        return [one for one in self.held if not one.ended]

    # What is checked when a message comes

    def check(self, message: Received) -> None:
        if message.kind == "event":
            self._check_event(message)
        elif message.kind == "live":
            assert message.fields["replayed"] == self.replayed
            self.replayed = 0
        if self.sse and message.id is not None:
            self._move(message)

    def _check_event(self, message: Received) -> None:
        assert message.id is not None
        entry, place = self.world.entries[message.id], self.world.place(message.id)
        assert self.connection.principal.audiences & set(entry.audience), "never outside its audience"
        assert any(one.wants(entry, place) for one in self.active()), "only what was subscribed to, after its start"
        if message.id in self.seen:
            assert any(one.ended and selects(one.subscription, entry) for one in self.held), "an event twice, and nothing was rewound"
        if len(self.held) == 1 and self.seen:
            assert self.world.place(next(reversed(self.seen))) < place, "out of order"
        self.seen[message.id] = None
        self.replayed += self.connection.state is State.READING
        if self.connection.state is State.ATTACHED:
            self.deliveries.append((self.connection.interest, self.world.clock.now, entry.priority == HIGH))
            assert entry.priority != HIGH or self.world.receiving, "held back"
        assert self.connection.state in (State.READING, State.ATTACHED)
        assert message.fields["data"] == json.loads(entry.data)
        assert message.fields["event"] == entry.type

    def _move(self, message: Received) -> None:
        """An id on SSE moves the client: behind it nothing may be left that it is owed."""
        assert message.id is not None
        to = self.world.place(message.id)
        assert to >= self.at, "the position went back"
        for place in self._owed(self.at, to):
            is_this = message.kind == "event" and place == to
            lost = message.kind == "gap" or self.floats
            assert is_this or (lost and place in self.world.gone), f"{place} is skipped by {message}"
        if message.kind not in ("welcome", "renewed"):  # which say nothing of what has been read
            self.floats = False
        self.at = to

    def _owed(self, after: Place, to: Place) -> list[Place]:
        audiences = self.audiences_always
        return [
            place
            for place, entry in self.world.by_place.items()
            if after < place <= to and audiences & set(entry.audience) and any(one.wants(entry, place) for one in self.active())
            if not self._superseded(entry, place)
        ]

    def _superseded(self, entry: Entry, place: Place) -> bool:
        """Tell whether a paced client may do without an entry: a newer one with its type and key was for the client at some time."""
        if self.pace is None or self.pace.above == NEVER or entry.key is None or entry.priority == HIGH:
            return False
        return any(
            (other.type, other.key) == (entry.type, entry.key)
            and at[0] == place[0]
            and at > place
            and self.audiences_ever & set(other.audience)
            and any(one.wants(other, at) for one in self.held)
            for at, other in self.world.by_place.items()
        )

    # What is checked at the end

    def check_end(self) -> None:
        assert self.connection.state is State.ATTACHED
        last_live = max((index for index, one in enumerate(self.sink.received) if one.kind == "live"), default=-1)
        assert self.replayed == 0, "a replay that was not ended by `live`"
        if self.connection.start is not None:
            assert last_live > 0
        head = (self.world.generation, self.world.hub.head.seq)
        if self.sse:
            assert not self._owed(self.at, head)
        for one in self.active():
            self._check_complete(one)
        if self.pace is not None:
            self._check_pace()

    def _check_pace(self) -> None:
        """Insist that what one interest delivers comes in ticks, but for what is of high priority."""
        last: dict[object, float] = {}
        for (interest, when), ones in itertools.groupby(self.deliveries, key=lambda one: one[:2]):
            high = any(one[2] for one in ones)
            assert high or when == last.get(interest) or when - last.get(interest, 0.0) >= PACE_SECONDS - 1e-6
            last[interest] = when

    def _check_complete(self, one: Held) -> None:
        for place, entry in self.world.by_place.items():
            if place[0] < self.world.generation or not self.audiences_always & set(entry.audience) or not one.wants(entry, place):
                continue
            if self._superseded(entry, place):
                continue
            if entry.id not in self.seen:
                assert place in self.world.gone, f"{place} was never delivered"
                assert one.earliest or self._reported(place), f"{place} was lost silently"

    def _reported(self, place: Place) -> bool:
        for gap in self.sink.of("gap"):
            try:
                begin = self.world.place(gap.fields["from"])
            except UnknownPosition:
                begin = (0, 0)
            if begin < place <= self.world.place(gap.fields["to"]):
                return True
        return False


class World(RuleBasedStateMachine):
    """A log, this process's hub, and clients."""

    clients = Bundle("clients")

    def __init__(self) -> None:
        super().__init__()
        self.patches = pytest.MonkeyPatch()
        for name, value in SMALL.items():
            self.patches.setattr(name, value)
        logging.disable(logging.CRITICAL)
        self.loop = asyncio.new_event_loop()
        self.clock = ManualClock()
        self.codecs: list[PositionCodec] = []
        self.entries: dict[str, Entry] = {}
        self.by_place: dict[Place, Entry] = {}
        self.gone: set[Place] = set()
        self.last = 1  # what the follower has passed on
        self.next = 1  # what will be published
        self.receiving = False
        self.all: list[Client] = []
        self.log = ListLog()
        self._recreate()
        self.hub = Hub(self.log, self.clock, stale_seconds=0, chunk_bytes=CHUNK_BYTES, window_bytes=WINDOW_BYTES)
        self.task = self.loop.create_task(self.hub.catch_up.run())
        self.hub.start(self.run(self.log.head()))

    @property
    def generation(self) -> int:
        return len(self.codecs)

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self.loop.run_until_complete(work)

    def place(self, id: str) -> Place:
        for generation, codec in enumerate(self.codecs, 1):
            try:
                return generation, codec.decode(id).seq
            except UnknownPosition:
                pass
        raise UnknownPosition(id)

    def _recreate(self) -> None:
        self.gone.update(self.by_place)
        self.codecs.append(make_codec(self.generation + 1))
        self.log.codec = self.codecs[-1]
        self.log.entries = []
        self.next = 1
        self._append(topic="log", type="log:created", audience=(), data='{"n": 0}')

    def _append_any(self, random: Random) -> None:
        self.next += random.choice([0] * 30 + [2])  # now and then numbers are missing
        data = json.dumps({"n": random.randrange(6), "text": "x" * random.choice([0, 90, 600])})
        audience = random.sample(AUDIENCES, random.randint(1, 2))
        source = random.choice([None, "s"])
        key = random.choice([None, "k1", "k2", "k3"])
        priority = random.choice([None] * 7 + [HIGH])
        type, topic = random.choice("xy"), random.choice(TOPICS)
        self._append(topic=topic, type=type, audience=audience, data=data, source=source, key=key, priority=priority)

    def _append(self, **fields: Any) -> None:
        entry = make_entry(self.next, codec=self.log.codec, **fields)
        self.next += 1
        self.log.entries.append(entry)
        self.entries[entry.id] = self.by_place[self.generation, entry.seq] = entry

    # What happens

    @rule(count=st.integers(1, 12), seed=st.integers(0, 1 << 16), followed=st.sampled_from([True, True, False]))
    def publish(self, count: int, seed: int, followed: bool) -> None:
        random = Random(seed)
        for _ in range(count):
            self._append_any(random)
        if followed:
            self.follow(2 * count)

    @rule(count=st.integers(1, 8))
    def follow(self, count: int) -> None:
        """Do what storage.follower does: pass on runs, and report what is gone before them."""
        run: list[Entry] = []
        for entry in [one for one in self.log.entries if one.seq > self.last][:count]:
            if self.last and entry.seq != self.last + 1:
                self._receive(run)
                run = []
                self.hub.lose(entry, "evicted")
            run.append(entry)
            self.last = entry.seq
        self._receive(run)

    def _receive(self, run: list[Entry]) -> None:
        if run:
            self.receiving = True
            self.hub.receive([make_again(entry, self.log.codec) for entry in run])
            self.receiving = False

    @rule(count=st.integers(1, 12))
    def evict(self, count: int) -> None:
        before = {entry.seq for entry in self.log.entries}
        self.log.evict(count)
        self.gone.update((self.generation, seq) for seq in before - {entry.seq for entry in self.log.entries})

    @precondition(lambda self: self.generation < 3)
    @rule(odds=st.integers(0, 5))
    def recreate(self, odds: int) -> None:
        if odds == 0:
            self._recreate()
            self.last = 0
            self.hub.restart(RECREATED)

    @precondition(lambda self: len(self.all) < MANY_CLIENTS)
    @rule(
        target=clients,
        audiences=seen_by,
        chosen=st.sets(subscriptions, min_size=1, max_size=2),
        start=starts,
        room=st.sampled_from([None, 10]),
        format=st.sampled_from([SSE, SSE_GZIP]),
        pace=st.sampled_from(PACES),
    )
    def open_sse(
        self, audiences: set[str], chosen: set[Subscription], start: tuple[str, int], room: int | None, format: Format, pace: Pace | None
    ) -> Client:
        return self._open_sse(audiences, chosen, start, room, format, pace)

    def _open_sse(
        self, audiences: set[str], chosen: set[Subscription], start: tuple[str, int], room: int | None, format: Format, pace: Pace | None
    ) -> Client:
        client = Client(self, format, audiences, room, pace)
        begin = self._locate(start)
        for one in chosen:
            client.hold(one, begin, begin.position.seq if begin else self.hub.head.seq)
        client.at = client.held[0].begin
        client.floats = begin is not None and begin.from_earliest
        self.all.append(client)
        self.hub.open(client.connection, frozenset(chosen), begin)
        return client

    @precondition(lambda self: len(self.all) < MANY_CLIENTS)
    @rule(target=clients, other=clients, start=starts)
    def open_like(self, other: Client, start: tuple[str, int]) -> Client:
        """Open another connection that shares the interest of one, unless its rights have changed."""
        chosen = {one.subscription for one in other.active()} or {Subscription()}
        format = other.connection.format if other.sse else SSE
        return self._open_sse(set(other.principal.audiences), chosen, start, None, format, other.pace)

    @precondition(lambda self: len(self.all) < MANY_CLIENTS)
    @rule(target=clients, audiences=seen_by, room=st.sampled_from([None, None, 10]), pace=st.sampled_from(PACES))
    def open_websocket(self, audiences: set[str], room: int | None, pace: Pace | None) -> Client:
        client = Client(self, WEBSOCKET, audiences, room, pace)
        self.all.append(client)
        self.hub.open(client.connection, frozenset(), None)
        return client

    def _locate(self, start: tuple[str, int]) -> Start | None:
        kind, index = start
        wanted: str | None = kind
        ids = list(self.entries)
        if kind == "live":
            wanted = None
        elif kind == "id":
            current = [entry.id for place, entry in self.by_place.items() if place[0] == self.generation]
            wanted = current[-1 - index % len(current)]
        elif kind == "earlier log":
            wanted = ids[index % len(ids)]
        elif kind == "time":
            wanted = f"2025-06-15T15:06:40.{index:03d}Z"
        try:
            return self.run(self.hub.locate(wanted, field="from"))
        except StorageError:
            return None

    @rule(client=clients, subscription=subscriptions, start=starts)
    def subscribe(self, client: Client, subscription: Subscription, start: tuple[str, int]) -> None:
        """Do what handlers.conversation does."""
        if client.sse or client.connection.state is State.CLOSED:
            return
        located = self._locate(start)
        begin = self.hub.hearing.subscribe(client.connection, subscription, located)
        client.hold(subscription, located, begin.seq)
        self.hub.tell(client.connection, "subscribed", {"topic": subscription.topic, "position": self.hub.id_of(begin)})
        if located is not None:
            self.hub.hearing.replay(client.connection, located)

    @rule(client=clients, index=st.integers(0, 5))
    def unsubscribe(self, client: Client, index: int) -> None:
        active = client.active()
        if client.sse or not active or client.connection.state is State.CLOSED:
            return
        one = active[index % len(active)]
        assert self.hub.hearing.unsubscribe(client.connection, one.subscription.topic)
        one.ended = True

    @rule(client=clients, room=st.sampled_from([0, 50, 700]))
    def stall(self, client: Client, room: int) -> None:
        client.sink.room = room

    @rule(client=clients, room=st.sampled_from([None, None, 0, 700]))
    def drain(self, client: Client, room: int | None) -> None:
        client.sink.drain(room)

    @rule(client=clients)
    def ping(self, client: Client) -> None:
        if not client.sse:
            self.hub.tell(client.connection, "pong", {"position": self.hub.id_of(self.hub.place(client.connection))})

    @rule(client=clients, audiences=seen_by)
    def renew(self, client: Client, audiences: set[str]) -> None:
        if client.connection.state is not State.CLOSED:
            client.audiences_always &= audiences
            client.audiences_ever |= audiences
            self.hub.hearing.renew(client.connection, Principal("u1", audiences=frozenset(audiences)))

    @precondition(lambda self: len(self.all) >= MANY_CLIENTS)
    @rule(client=consumes(clients), odds=st.integers(0, 2))
    def leave(self, client: Client, odds: int) -> None:
        if odds == 0:
            client.sink.leave()
        else:
            self.hub.close(client.connection, 1000, "enough")
        self.all.remove(client)

    @rule(seconds=st.sampled_from([20, 0]))
    def heartbeat(self, seconds: int) -> None:
        self.clock.now += seconds
        for client in self.all:
            client.connection.due = self.clock.now
        self.run(self.hub.keeper.sweep())

    @rule(seconds=st.sampled_from([0.0, 0.03, PACE_SECONDS, 1.0]))
    def tick(self, seconds: float) -> None:
        self.clock.now += seconds
        self.run(self.hub.pacer.tick())

    @rule(failures=st.integers(0, 2))
    def hold_up(self, failures: int) -> None:
        self.log.failures = failures
        self.log.hold_up()

    @rule()
    def go_on(self) -> None:
        self.log.go_on()

    @rule(count=st.integers(1, 30))
    def turn(self, count: int) -> None:
        self.run(turns(count))

    @initialize(count=st.integers(1, 20), seed=st.integers(0, 1 << 16))
    def begin(self, count: int, seed: int) -> None:
        self.publish(count, seed, True)

    # What always holds

    @invariant()
    def states_are_consistent(self) -> None:
        assert not self.task.done(), self.task.exception()
        assert set(self.hub.connections) == {client.connection for client in self.all}
        queued = self.hub.catch_up._queue
        waiting = [one for waiters in self.hub.catch_up.pages._waiting.values() for one in waiters]
        for client in self.all:
            one, sink = client.connection, client.sink
            assert one.interest is not None
            assert (one.state is State.ATTACHED) == (one in one.interest.attached)
            assert (one.state is State.BLOCKED) == (sink.pending > 0)
            assert one.state is not State.AHEAD or one in self.hub._ahead
            assert one.state is not State.READING or one in queued or one in waiting
            assert one.interest.audiences == one.principal.audiences
            assert self.hub.head.seq >= one.covered_to or one.state is not State.ATTACHED
            gathering = one.interest.gathering
            assert (gathering is not None) == (client.pace is not None)
            if gathering is not None:
                assert not gathering.entries or (gathering.queued and one.interest.attached)
                assert self.hub.place(one) <= self.hub.head or one.state is not State.ATTACHED
        assert sum(len(one.attached) for one in self.hub.router._interests.values()) == sum(
            client.connection.state is State.ATTACHED for client in self.all
        )

    @invariant()
    def memory_is_bounded(self) -> None:
        largest = 1200  # an event, or the answers of one turn
        for client in self.all:
            assert client.sink.most_pending <= CHUNK_BYTES + largest
        assert len(self.hub.router._routes) <= SMALL["hub.router.MAX_ROUTES"]

    def teardown(self) -> None:
        try:
            self._settle()
            for client in self.all:
                client.check_end()
            for client in self.all:
                self.hub.close(client.connection, 1000, "enough")
            router = self.hub.router
            assert not any((router._interests, router._by_audience, router._by_topic, router._by_pattern, router._by_key))
            assert not any(route.interests or route.keyed for route in router._routes.values())
        finally:
            self.task.cancel()
            self.run(self.hub.catch_up.pages.close())
            self.run(turns(3))
            self.loop.close()
            logging.disable(logging.NOTSET)
            self.patches.undo()

    def _settle(self) -> None:
        """Let everybody read everything."""
        self.log.failures = 0
        self.log.go_on()
        self.follow(len(self.log.entries))
        for client in self.all:
            client.sink.drain(None)
        for _ in range(MANY_TURNS):
            assert not self.task.done(), self.task.exception()
            if all(client.connection.state is State.ATTACHED for client in self.all):
                break
            self.run(turns(1))
        self.clock.now += PACE_SECONDS
        self.run(self.hub.pacer.tick())
        assert all(self.hub.place(client.connection) == self.hub.head for client in self.all)


def make_again(entry: Entry, codec: PositionCodec) -> Entry:
    """Return another object for the same entry: the follower and the pages read each their own."""
    return make_entry(
        entry.seq, entry.topic, entry.type, entry.audience, entry.data, entry.source, key=entry.key, priority=entry.priority, codec=codec
    )


def test_every_connection_has_what_it_is_owed_whatever_happens() -> None:
    """Each gets the events of its audience and subscriptions after its start, in order, once, or hears of a gap; then `live`."""
    assert FIRST_MS == 1_750_000_000_000  # what the times in `_locate` are made for
    run_state_machine_as_test(
        World,
        settings=settings(max_examples=200, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)),
    )
