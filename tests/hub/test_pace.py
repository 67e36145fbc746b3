"""Tests of hub/pace.py, and of what the hub does with paced connections: how often they hear, what of, and where they stand meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from functools import partial

import pytest

from hub.connection import Connection, State
from hub.formats import SSE, WEBSOCKET, Format
from hub.gathering import MOST_ENTRIES
from hub.hub import Hub
from hub.principal import Principal
from hub.subscriptions import Subscription
from hub.terms import Pace, Terms
from storage.entries import HIGH
from tests.hub.fakes import (
    ListLog,
    ManualClock,
    RecordingSink,
    connect,
    everything,
    id_of,
    make_entries,
    make_entry,
    make_principal,
    place_of,
    turns,
)
from tests.waiting import wait_until

PACE = Pace(0.1)
HEAD = 10
U1 = make_principal()


def _has(sink: RecordingSink, seq: int) -> bool:
    return seq in sink.numbers()


class Stage:
    """A hub at the head of its log, whose ticker runs when the test says so."""

    def __init__(self, chunk_bytes: int = 65536) -> None:
        self.clock = ManualClock()
        self.log = ListLog(make_entries(1, HEAD))
        self.hub = Hub(self.log, self.clock, chunk_bytes=chunk_bytes, seal=lambda connection, position: position)
        self.hub.start(place_of(HEAD))

    def open(
        self,
        pace: Pace | None = PACE,
        subscriptions: Iterable[Subscription] = everything(),
        format: Format = SSE,
        principal: Principal = U1,
    ) -> tuple[Connection, RecordingSink]:
        """Open a connection with a pace, at the head."""
        connection, sink = connect(self.hub, format, self.clock, principal=principal)
        connection.terms = Terms("prices", pace=pace)
        self.hub.open(connection, frozenset(subscriptions), None)
        sink.offers.clear()
        return connection, sink

    def publish(self, *keys: str | None, high: bool = False, topic: str = "a.b") -> None:
        """Append entries with these keys, and let the follower see them all at once."""
        first = self.log.entries[-1].seq + 1
        priority = HIGH if high else None
        entries = [make_entry(seq, topic, key=key, priority=priority) for seq, key in enumerate(keys, first)]
        self.log.entries += entries
        self.hub.receive(entries)

    async def tick(self, seconds: float = 0.1) -> None:
        """Let time pass, and the ticker look."""
        self.clock.now += seconds
        await self.hub.pacer.tick()


@contextlib.asynccontextmanager
async def stage(chunk_bytes: int = 65536) -> AsyncIterator[Stage]:
    """Run a hub's catching up."""
    opened = Stage(chunk_bytes)
    task = asyncio.create_task(opened.hub.catch_up.run())
    try:
        yield opened
    finally:
        task.cancel()
        await opened.hub.catch_up.pages.close()
        await asyncio.gather(task, return_exceptions=True)


# ---- how often, and what


@pytest.mark.parametrize("format", [SSE, WEBSOCKET])
async def test_first_after_a_quiet_spell_comes_at_once_and_then_one_delivery_for_all(format: Format) -> None:
    """What comes within the pace is joined in one send, in order (T11)."""
    async with stage() as on:
        connection, sink = on.open(format=format, subscriptions=[] if format is WEBSOCKET else everything())
        if format is WEBSOCKET:
            on.hub.hearing.subscribe(connection, Subscription(), None)
        on.publish("a")
        assert sink.numbers() == [11]
        on.publish("b")
        on.publish("c", None)
        await on.tick(0.09)
        assert sink.numbers() == [11]
        await on.tick(0.02)
        assert sink.numbers() == [11, 12, 13, 14]
        assert len(sink.offers) == 2
        on.publish("d")
        assert len(sink.offers) == 2
        await on.tick(1.0)
        await on.tick(1.0)
        on.publish("e")
        assert sink.numbers() == [11, 12, 13, 14, 15, 16]
        assert (on.hub.pacer.delivered, on.hub.pacer.sends, on.hub.pacer.conflated) == (6, 4, 0)


async def test_only_the_newest_of_each_key_is_delivered_and_what_has_none_always() -> None:
    """In the order of the log; how much was left out is counted (T11, D4)."""
    async with stage() as on:
        _, first = on.open()
        _, second = on.open()
        on.publish("a", "b", "a", None)
        assert first.numbers() == second.numbers() == [12, 13, 14]
        on.publish("a", "b", "a")
        on.publish("b", None, "c", "c")
        await on.tick()
        assert first.numbers() == second.numbers() == [12, 13, 14, 17, 18, 19, 21]
        assert on.hub.pacer.conflated == 2 * (1 + 3)


async def test_nothing_is_left_out_below_the_rate() -> None:
    """As many as it allows in a second may come at once; what is beyond is superseded."""
    async with stage() as on:
        _, sink = on.open(Pace(0.1, above=1000))
        on.publish(*["a"] * 100)
        on.publish(*["a"] * 900)
        await on.tick()
        assert sink.numbers() == list(range(11, 1011))
        on.publish(*["a"] * 301)
        await on.tick()
        assert sink.numbers()[1000:] == [1311]


async def test_high_priority_is_never_held_back() -> None:
    """It comes at once, behind what was pending before it, so that ids go forward; the next delivery is again a pace later."""
    async with stage() as on:
        _, sink = on.open()
        on.publish("a")
        on.publish("a", "a", "b")
        assert sink.numbers() == [11]
        on.publish("a", high=True)
        assert sink.numbers() == [11, 14, 15]
        on.publish("a")
        await on.tick(0.05)
        assert sink.numbers() == [11, 14, 15]
        on.publish("b", "b", high=True)
        assert sink.numbers() == [11, 14, 15, 16, 17, 18]
        await on.tick()
        await on.tick()
        assert len(sink.numbers()) == 6


async def test_pace_begins_anew_after_high_priority() -> None:
    """What comes after it waits a whole pace, though something had been due earlier."""
    async with stage() as on:
        _, sink = on.open()
        on.publish("a")
        on.publish("a")
        on.clock.now += 0.05
        on.publish(None, high=True)
        on.publish("b")
        await on.tick(0.06)
        assert sink.numbers() == [11, 12, 13]
        await on.tick(0.05)
        assert sink.numbers() == [11, 12, 13, 14]


async def test_each_interest_is_computed_once_and_has_its_own_pace() -> None:
    """Connections with the same subscription, audiences, format and pace share one; others are not held up by it."""
    async with stage() as on:
        connections = [on.open()[0], on.open()[0], on.open(Pace(1.0))[0], on.open(None)[0]]
        interests = [one.interest for one in connections]
        assert interests[0] is interests[1]
        assert len(set(interests)) == 3
        sinks = [one.sink for one in connections]
        on.publish("a")
        on.publish("a")
        await on.tick(0.5)
        assert [len(sink.numbers()) for sink in sinks if isinstance(sink, RecordingSink)] == [2, 2, 1, 2]
        await on.tick(0.5)
        assert [len(sink.numbers()) for sink in sinks if isinstance(sink, RecordingSink)] == [2, 2, 2, 2]
        assert sinks[0].offers[1] is sinks[1].offers[1]  # type: ignore[attr-defined]


async def test_what_cannot_be_gathered_any_more_is_delivered() -> None:
    """What is pending has a bound, beyond which pace gives way."""
    async with stage() as on:
        _, sink = on.open()
        on.publish("a")
        on.publish(*[None] * MOST_ENTRIES)
        assert len(sink.numbers()) == 1
        on.publish(None)
        assert len(sink.numbers()) == MOST_ENTRIES + 2


# ---- the ticker


async def test_ticker_runs_while_something_is_pending(monkeypatch: pytest.MonkeyPatch) -> None:
    """It wakes when there is something, and sleeps when nothing is pending any more."""
    monkeypatch.setattr("hub.pace.TICK_SECONDS", 0)
    async with stage() as on:
        task = asyncio.create_task(on.hub.pacer.run())
        _, sink = on.open()
        for seq in (12, 14):
            on.publish("a")
            on.publish("a")
            on.clock.now += 0.1
            await wait_until(partial(_has, sink, seq), "delivered")
            on.clock.now += 0.1
        await wait_until(lambda: not on.hub.pacer._wake.is_set(), "asleep")
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_large_deliveries_leave_the_loop_its_turns() -> None:
    """They are cut into pieces; what comes meanwhile waits for the next time, and what is of high priority does not."""
    async with stage(chunk_bytes=600) as on:
        on.clock.step = 0.002  # beyond the slice at every look
        _, sink = on.open()
        on.publish("x")
        on.publish(*"abcdefgh")
        on.clock.now += 0.1
        task = asyncio.create_task(on.hub.pacer.tick())
        await turns(2)
        assert 1 < len(sink.numbers()) < 9
        on.publish("a", "x")
        await task
        assert sink.numbers() == [11, 12, 13, 14, 15, 16, 17, 18, 19]
        await on.tick()
        assert sink.numbers()[9:] == [20, 21]
        on.publish(*"abcdefgh")
        on.clock.now += 0.1
        task = asyncio.create_task(on.hub.pacer.tick())
        await turns(2)
        on.publish(None, high=True)
        assert sink.numbers()[11:] == list(range(22, 31))
        on.publish("z")
        await task
        assert sink.numbers()[20:] == []
        await on.tick(1.0)
        assert sink.numbers()[20:] == [31]


async def test_nobody_is_left_to_hear_what_is_pending() -> None:
    """When the last one of an interest goes, what was pending for it is forgotten."""
    async with stage() as on:
        connection, sink = on.open()
        on.publish("a")
        on.publish("a")
        on.hub.close(connection, 1000, "enough")
        await on.tick()
        assert sink.numbers() == [11]
        assert not on.hub.pacer._queue


# ---- where a paced connection stands


async def test_it_stands_before_what_is_pending_for_it() -> None:
    """Heartbeats and resume tokens say so; once nothing is pending it is at the head, however quiet its subscription."""
    async with stage() as on:
        connection, sink = on.open(subscriptions=everything("a.b"))
        assert on.hub.place(connection) == place_of(10)
        on.publish("a")
        on.publish("a", topic="other")
        assert on.hub.place(connection) == place_of(12)
        on.publish("a")
        on.publish("a")
        assert on.hub.place(connection) == place_of(12)
        assert on.hub.seal(connection) == id_of(12)
        on.clock.now += 20
        await on.hub.keeper.sweep()
        assert sink.of("position")[-1].id == id_of(12)
        await on.tick()
        assert sink.numbers() == [11, 14]
        assert on.hub.place(connection) == place_of(14)


async def test_who_comes_later_gets_only_what_is_after_his_place() -> None:
    """He shares the next delivery with those who were there."""
    async with stage() as on:
        _, first = on.open()
        on.publish("x")
        on.publish("a", "b")
        late, second = on.open()
        assert on.hub.place(late) == place_of(13)
        _, third = on.open()
        on.publish("c", "a")
        late.owner.gone(on.open()[0], "gone")
        await on.tick()
        assert first.numbers() == [11, 13, 14, 15]
        assert second.numbers() == third.numbers() == [14, 15]


async def test_who_comes_after_all_that_is_pending_is_not_sent_anything() -> None:
    """A delivery that holds nothing for him passes him over."""
    async with stage() as on:
        on.open()
        on.publish("a")
        on.publish("a")
        _, late = on.open()
        await on.tick()
        assert late.offers == []


async def test_who_could_not_take_it_is_back_for_the_next_delivery() -> None:
    """A full socket that drains in time costs no reading behind the head, and no `live`."""
    async with stage() as on:
        connection, sink = on.open()
        on.open()
        sink.room = 10
        on.publish("a")
        states = [connection.state]
        on.publish("a", "b")
        sink.drain()
        assert [*states, connection.state] == [State.BLOCKED, State.ATTACHED]
        assert on.hub.place(connection) == place_of(11)
        await on.tick()
        assert sink.numbers() == [11, 12, 13]
        assert sink.kinds() == ["welcome", "event", "event", "event"]


async def test_who_is_too_late_for_that_reads_on_and_gets_the_newest() -> None:
    """Alone with its interest, or behind what others have had: it reads from the log, conflated too."""
    async with stage() as on:
        connection, sink = on.open()
        sink.room = 10
        on.publish("a")
        on.publish("a", "b", "a", None)
        sink.drain()
        await turns()
        assert connection.state is State.ATTACHED
        assert sink.numbers() == [11, 13, 14, 15]
        assert [one.fields["replayed"] for one in sink.of("live")] == [3]
        assert on.hub.catch_up.conflated == 1


async def test_who_is_behind_what_others_have_had_reads_on_too() -> None:
    """What they had while its socket was full is not pending for anybody any more."""
    async with stage() as on:
        _, other = on.open()
        connection, sink = on.open()
        sink.room = 10
        on.publish("a")
        on.publish("b")
        await on.tick()
        on.publish("c")
        sink.drain()
        await turns()
        assert connection.state is State.ATTACHED
        assert (sink.numbers(), other.numbers()) == ([11, 12, 13], [11, 12])
        await on.tick()
        assert sink.numbers() == other.numbers() == [11, 12, 13]


async def test_who_blocks_between_pieces_has_its_place_behind_the_last_one() -> None:
    """And reads on from there, missing nothing."""
    async with stage(chunk_bytes=600) as on:
        connection, sink = on.open()
        on.publish("x")
        on.publish(*"abcdef")
        sink.room = 100
        await on.tick()
        assert connection.state is State.BLOCKED
        assert connection.position == place_of(sink.numbers()[-1])
        assert sink.numbers() == [11, 12, 13, 14]
        sink.drain()
        await turns()
        assert sink.numbers() == [11, 12, 13, 14, 15, 16, 17]


# ---- what may happen meanwhile


async def test_what_is_pending_is_delivered_by_the_rights_of_then() -> None:
    """Rights that are taken away hold for what was not delivered yet; what is still for it comes (L9)."""
    async with stage() as on:
        connection, sink = on.open(principal=make_principal("u1", "org:o1"))
        on.publish("a")
        first = on.log.entries[-1].seq + 1
        entries = [make_entry(first, audience=["org:o1"]), make_entry(first + 1, key="a")]
        on.log.entries += entries
        on.hub.receive(entries)
        on.hub.hearing.renew(connection, make_principal("u1"))
        assert sink.of("renewed")[0].fields["resumeToken"] == id_of(11)
        await turns()
        await on.tick()
        assert sink.numbers() == [11, 13]


async def test_a_subscription_beside_what_is_pending_begins_at_the_head() -> None:
    """What is pending for the others still comes, once, and nothing older for the new one."""
    async with stage() as on:
        connection, sink = on.open(format=WEBSOCKET, subscriptions=[])
        on.hub.hearing.subscribe(connection, Subscription("a.b"), None)
        on.publish("a")
        on.publish("a", "b", topic="c")
        on.publish("b")
        assert on.hub.hearing.subscribe(connection, Subscription("c"), None) == place_of(14)
        await turns()
        on.publish("d", topic="c")
        await on.tick()
        assert sink.numbers() == [11, 14, 15]


async def test_change_with_nothing_pending_leaves_it_at_the_head() -> None:
    """It need not read anything."""
    async with stage() as on:
        connection, sink = on.open(format=WEBSOCKET, subscriptions=[])
        on.hub.hearing.subscribe(connection, Subscription("a.b"), None)
        assert connection.state is State.ATTACHED
        on.publish("a")
        assert sink.numbers() == [11]


async def test_draining_delivers_what_is_pending_first() -> None:
    """Then everybody is sent away."""
    async with stage() as on:
        _, sink = on.open()
        on.publish("a")
        on.publish("a", "b")
        on.hub.drain(1.0, lambda: 0.5)
        assert sink.kinds() == ["welcome", "event", "event", "event", "closing"]


async def test_what_is_pending_comes_before_a_hole_is_reported(expected_logs: list[str]) -> None:
    """And who left the live path before the hole does not come back to it behind the hole."""
    expected_logs.append("gap reported")
    async with stage() as on:
        _, sink = on.open()
        late, blocked = on.open()
        on.publish("a")
        blocked.room = 10
        on.hub.tell(late, "pong", {"text": "x" * 20})
        assert late.state is State.BLOCKED
        on.publish("a")
        on.log.entries.append(make_entry(20, "other", key="a"))
        on.hub.lose(on.log.entries[-1], "evicted")
        assert sink.kinds() == ["welcome", "event", "event", "gap"]
        blocked.drain()
        on.hub.receive(on.log.entries[-1:])
        await turns()
        await on.tick()
        for one in (sink, blocked):
            assert one.numbers() == [11, 12, 20]
            assert len(one.of("gap")) == 1


async def test_who_left_just_before_a_hole_hears_of_it(expected_logs: list[str]) -> None:
    """Though nothing was pending when it left, and what follows the hole is not for it."""
    expected_logs.append("gap reported")
    async with stage() as on:
        on.open(subscriptions=everything("a.b"))
        late, sink = on.open(subscriptions=everything("a.b"))
        on.publish("a")
        sink.room = 10
        on.hub.tell(late, "pong", {"text": "x" * 20})
        on.log.entries.append(make_entry(20, "other", key="a"))
        on.hub.lose(on.log.entries[-1], "evicted")
        on.hub.receive(on.log.entries[-1:])
        sink.drain()
        await turns()
        assert late.state is State.ATTACHED
        assert sink.numbers() == [11]
        assert len(sink.of("gap")) == 1


async def test_another_log_takes_what_is_pending_with_it(expected_logs: list[str]) -> None:
    """It is reported as lost, from before it on."""
    expected_logs.append("gap reported")
    async with stage() as on:
        _, sink = on.open()
        on.publish("a")
        on.publish("a")
        on.log.entries = [make_entry(1, "log", "log:created", ())]
        on.hub.restart("log recreated")
        on.hub.receive(on.log.entries)
        await turns()
        await on.tick()
        assert sink.numbers() == [11]
        assert sink.of("gap")[0].fields["from"] == id_of(11)
