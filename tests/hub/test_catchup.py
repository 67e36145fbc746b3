"""Tests of hub/catchup.py: reading on from any place, chunk by chunk, in turn, and what is said of entries that are gone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from hub.catchup import SLICE_SECONDS
from hub.connection import Connection, State
from hub.formats import SSE, WEBSOCKET, Format
from hub.hub import Hub
from hub.pages import PAGE_ENTRIES
from hub.principal import Principal
from hub.subscriptions import Subscription
from hub.terms import Pace, Terms
from storage.entries import Entry
from storage.positions import Position
from tests.hub.fakes import (
    CODEC,
    ListLog,
    ManualClock,
    RecordingSink,
    connect,
    everything,
    id_of,
    make_entries,
    make_entry,
    place_of,
    turns,
)


class Stage:
    """A hub whose log is longer than its window, which holds what was received after the start."""

    def __init__(self, entries: list[Entry], head: int, chunk_bytes: int = 65536, step: float = 0.0) -> None:
        self.clock = ManualClock(step)
        self.log = ListLog(entries)
        self.hub = Hub(self.log, self.clock, chunk_bytes=chunk_bytes)
        self.hub.start(place_of(head))

    def publish(self, first: int, last: int) -> None:
        """Append entries, and let the follower see them."""
        entries = make_entries(first, last)
        self.log.entries += entries
        self.hub.receive(entries)

    async def open(self, start: str | None, format: Format = SSE, room: int | None = None) -> tuple[Connection, RecordingSink]:
        """Open a connection to everything at a place."""
        connection, sink = connect(self.hub, format, self.clock, room=room)
        self.hub.open(connection, everything(), await self.hub.locate(start, field="from"))
        return connection, sink


@contextlib.asynccontextmanager
async def stage(entries: list[Entry], head: int, chunk_bytes: int = 65536, step: float = 0.0) -> AsyncIterator[Stage]:
    """Run the catching up of a hub."""
    opened = Stage(entries, head, chunk_bytes, step)
    task = asyncio.create_task(opened.hub.catch_up.run())
    try:
        yield opened
    finally:
        task.cancel()
        await opened.hub.catch_up.pages.close()
        await asyncio.gather(task, return_exceptions=True)


async def turn_until(condition: Callable[[], object], most: int = 5000) -> None:
    """Let the loop turn until a condition holds; no time passes."""
    for _ in range(most):
        if condition():
            return
        await turns(1)
    raise AssertionError("never came")


# ---- reading


@pytest.mark.parametrize("format", [SSE, WEBSOCKET])
async def test_old_position_is_read_from_the_log_up_to_the_head(format: Format) -> None:
    """Everything after the position comes in order, then `live` with how much that was, then what is new."""
    async with stage(make_entries(1, 1300), 1300) as on:
        connection, sink = await on.open(id_of(10), format)
        await turn_until(lambda: connection.state is State.ATTACHED)
        on.publish(1301, 1302)
    assert sink.numbers() == list(range(11, 1303))
    assert [one.fields["replayed"] for one in sink.of("live")] == [1290]
    assert on.hub.catch_up.replayed == 1290


async def test_recent_position_is_read_from_memory() -> None:
    """What the window holds costs MongoDB nothing."""
    async with stage(make_entries(1, 10), 10) as on:
        on.publish(11, 700)
        connection, sink = await on.open(id_of(20))
        await turn_until(lambda: connection.state is State.ATTACHED)
    assert sink.numbers() == list(range(21, 701))
    assert on.log.reads == []


async def test_thousand_connections_returning_at_once_share_their_reads() -> None:
    """However many return at one old position, the log is read once for each page of what they missed."""
    entries = [make_entry(seq, audience=["user:other" if seq % 100 else "public"]) for seq in range(1, 2001)]
    async with stage(entries, 2000) as on:
        opened = [await on.open(id_of(1000)) for _ in range(1000)]
        await turn_until(lambda: all(connection.state is State.ATTACHED for connection, _ in opened))
    assert all(sink.numbers() == list(range(1100, 2001, 100)) for _, sink in opened)
    assert on.hub.catch_up.replayed == 10_000
    assert len(on.log.reads) <= 1000 // PAGE_ENTRIES + 2


async def test_entries_that_mongodb_has_before_the_follower_are_not_replayed() -> None:
    """A page may reach beyond the head of this process: what lies there is pushed when it is received, and only then."""
    async with stage(make_entries(1, 30), 20) as on:
        connection, sink = await on.open(id_of(5))
        await turn_until(lambda: connection.state is State.ATTACHED)
        assert sink.numbers() == list(range(6, 21))
        on.hub.receive(make_entries(21, 30))
    assert sink.numbers() == list(range(6, 31))


async def test_connection_whose_next_entry_is_beyond_the_head_waits_for_it(expected_logs: list[str]) -> None:
    """When all up to the head was evicted, and MongoDB has newer ones, the gap is told once the head has moved."""
    expected_logs.append("gap reported")
    async with stage(make_entries(15, 20), 10) as on:
        connection, sink = await on.open(id_of(5))
        await turn_until(lambda: connection.state is State.AHEAD)
        assert sink.kinds() == ["welcome"]
        on.hub.lose(on.log.entries[0], "evicted")
        on.hub.receive(on.log.entries)
        await turn_until(lambda: connection.state is State.ATTACHED)
    assert sink.numbers() == list(range(15, 21))
    assert sink.kinds()[1] == "gap"
    assert sink.kinds()[-1] == "live"


async def test_entries_for_others_are_passed_over() -> None:
    """What is not for a connection costs it no bytes, and it arrives at the head all the same."""
    entries = [make_entry(seq, audience=["user:other" if seq % 100 else "public"]) for seq in range(1, 1001)]
    async with stage(entries, 1000) as on:
        connection, sink = await on.open("earliest")
        await turn_until(lambda: connection.state is State.ATTACHED)
    assert sink.numbers() == list(range(100, 1001, 100))


async def test_outage_of_the_log_delays_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads old entries waits while MongoDB is away; live events go on."""
    monkeypatch.setattr("hub.pages.RETRY_SECONDS", 0)
    async with stage(make_entries(1, 600), 600) as on:
        _, live = await on.open(None)
        connection, sink = await on.open(id_of(1))
        on.log.failures = 5
        on.publish(601, 601)
        await turns(3)
        assert live.numbers() == [601]
        await turn_until(lambda: connection.state is State.ATTACHED)
    assert sink.numbers() == list(range(2, 602))


async def test_connection_that_is_at_the_head_when_its_turn_comes_arrives() -> None:
    """Whoever has nothing left to read is attached, without another look at the log."""
    async with stage(make_entries(1, 10), 10) as on:
        connection, sink = await on.open(None)
        connection.detach(State.READING, place_of(10))
        on.hub.catch_up.enqueue(connection)
        await turn_until(lambda: connection.state is State.ATTACHED)
    assert (sink.kinds(), on.log.reads) == (["welcome"], [])


# ---- chunks and full sockets


@pytest.mark.parametrize("chunk_bytes", [1, 500, 5000])
async def test_stride_is_a_chunk_or_one_event(chunk_bytes: int) -> None:
    """What is offered at a time, and so may stay in memory, is a chunk at most, or a single event that is larger."""
    entries = [make_entry(seq, data='"' + "é" * (seq * 37 % 900) + '"') for seq in range(1, 200)]
    async with stage(entries, 199, chunk_bytes) as on:
        connection, sink = await on.open("earliest")
        await turn_until(lambda: connection.state is State.ATTACHED)
    assert sink.numbers() == list(range(1, 200))
    framing = 16  # the chunk of HTTP around it
    largest = max(len(SSE.event(entry)) for entry in entries)
    assert max(map(len, sink.offers[1:-1])) <= max(chunk_bytes, largest) + framing


async def test_stalled_connection_holds_one_chunk_and_loses_nothing() -> None:
    """A socket that takes nothing leaves one chunk pending however much is published; when it drains, reading goes on."""
    chunk = 2000
    async with stage(make_entries(1, 500), 500, chunk) as on:
        connection, sink = await on.open("earliest")
        await turns(1)
        sink.room = 0
        await turn_until(lambda: connection.state is State.BLOCKED)
        for first in range(501, 1500, 100):
            on.publish(first, first + 99)
            await turns(2)
        assert sink.pending == sink.most_pending <= chunk + 100
        while connection.state is not State.ATTACHED:
            sink.drain(3 * chunk)
            await turns(3)
    assert sink.numbers() == list(range(1, 1501))
    assert sink.most_pending <= chunk + 100


async def test_connection_that_closes_while_it_waits_is_forgotten() -> None:
    """Gone in the queue, or while its page is read: nothing is offered to it any more."""
    async with stage(make_entries(1, 600), 600) as on:
        queued, queued_sink = await on.open(id_of(1))
        queued_sink.leave()
        waiting, waiting_sink = await on.open(id_of(1))
        on.log.hold_up()
        await turn_until(lambda: on.log.reads)
        waiting_sink.leave()
        on.log.go_on()
        await turns(20)
    assert queued.state is waiting.state is State.CLOSED
    assert queued_sink.kinds() == waiting_sink.kinds() == ["welcome"]


async def test_connection_that_blocks_while_its_page_is_read_comes_back_when_drained() -> None:
    """An answer that fills the socket while a page is under way neither loses the turn nor doubles it."""
    async with stage(make_entries(1, 600), 600) as on:
        connection, sink = await on.open(id_of(1), WEBSOCKET)
        on.log.hold_up()
        await turn_until(lambda: on.log.reads)
        for _ in range(3):
            sink.room = 0
            on.hub.tell(connection, "pong", {})
            sink.drain()
            await turns(3)
        on.log.go_on()
        await turn_until(lambda: connection.state is State.ATTACHED)
    assert sink.numbers() == list(range(2, 601))


# ---- fairness


async def test_long_replay_does_not_keep_live_pushes_waiting() -> None:
    """Catching up works in slices: in between the loop turns, and what is new reaches those at the head at once."""
    async with stage(make_entries(1, 20_000), 20_000, step=SLICE_SECONDS / 4) as on:
        _, live = await on.open(None)
        old = [(await on.open("earliest"))[0] for _ in range(5)]
        head = 20_000
        while not all(connection.state is State.ATTACHED for connection in old):
            steps = on.hub.catch_up.replayed
            await turns(1)
            assert on.hub.catch_up.replayed - steps <= 5 * PAGE_ENTRIES, "more than a slice in one turn"
            head += 1
            on.publish(head, head)
            assert live.numbers()[-1] == head
            live.received.clear()


async def test_connections_that_read_take_turns() -> None:
    """Nobody waits until another's long replay is over."""
    async with stage(make_entries(1, 20_000), 20_000) as on:
        first, _ = await on.open("earliest")
        second, _ = await on.open("earliest")
        await turn_until(lambda: second.position.seq > 5000)
    assert abs(first.position.seq - second.position.seq) <= 2 * PAGE_ENTRIES


# ---- gaps


async def gap_after(entries: list[Entry], head: int, start: str) -> tuple[list[dict[str, object]], list[int]]:
    """Return what a connection that begins at `start` is told to be lost, and the events it gets."""
    async with stage(entries, head) as on:
        connection, sink = await on.open(start)
        await turn_until(lambda: connection.state is State.ATTACHED)
        assert on.hub.catch_up.gaps == len(sink.of("gap"))
    return [one.fields for one in sink.of("gap")], sink.numbers()


async def test_evicted_position_is_a_gap(expected_logs: list[str]) -> None:
    """What left the log is reported with both ids, both times and the reason, and then comes everything still there."""
    expected_logs.append("gap reported")
    gaps, numbers = await gap_after(make_entries(8, 12), 12, id_of(3))
    assert numbers == [8, 9, 10, 11, 12]
    assert [gap["reason"] for gap in gaps] == ["evicted"]
    assert gaps[0]["from"] == id_of(3)
    assert gaps[0]["fromTime"] == "2025-06-15T15:06:40.003Z"
    assert gaps[0]["toTime"] == "2025-06-15T15:06:40.008Z"


async def test_unknown_position_is_a_gap_and_then_everything(expected_logs: list[str]) -> None:
    """An id that means nothing here is repeated, without a time that is none."""
    expected_logs.append("gap reported")
    gaps, numbers = await gap_after(make_entries(8, 12), 12, "nonsense-id")
    assert numbers == [8, 9, 10, 11, 12]
    assert [(gap["from"], gap["reason"], gap["fromTime"]) for gap in gaps] == [("nonsense-id", "unknown position", None)]


async def test_an_unknown_position_is_not_logged(expected_logs: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """It may be anything that a client has sent in the place of an id, a token too (S7); an id of this log is logged."""
    expected_logs.append("gap reported")
    await gap_after(make_entries(8, 12), 12, "a-token-in-the-wrong-place")
    await gap_after(make_entries(8, 12), 12, id_of(3))
    logged = [record.__dict__["fields"]["from"] for record in caplog.records if record.message == "gap reported"]
    assert logged == [None, id_of(3)]


async def test_hole_in_the_middle_is_a_gap(expected_logs: list[str]) -> None:
    """Numbers that are missing without having been evicted are reported as such."""
    expected_logs.append("gap reported")
    gaps, numbers = await gap_after(make_entries(1, 5) + make_entries(9, 12), 12, id_of(2))
    assert numbers == [3, 4, 5, 9, 10, 11, 12]
    assert [(gap["from"], gap["reason"]) for gap in gaps] == [(id_of(5), "missing")]


async def test_hole_at_the_beginning_of_a_page_is_missing_too(expected_logs: list[str]) -> None:
    """It was not evicted: the log has older entries."""
    expected_logs.append("gap reported")
    first = PAGE_ENTRIES + 1
    gaps, numbers = await gap_after(make_entries(1, PAGE_ENTRIES) + make_entries(first + 2, first + 9), first + 9, id_of(PAGE_ENTRIES - 2))
    assert numbers == [PAGE_ENTRIES - 1, PAGE_ENTRIES, *range(first + 2, first + 10)]
    assert [(gap["from"], gap["reason"]) for gap in gaps] == [(id_of(PAGE_ENTRIES), "missing")]


async def test_large_entries_are_read_from_any_place() -> None:
    """Also where one answer of the log does not reach from the beginning of the page to there."""
    async with stage(make_entries(1, 60), 60) as on:
        on.log.most = 7
        connection, sink = await on.open(id_of(30))
        await turn_until(lambda: connection.state is State.ATTACHED)
    assert sink.numbers() == list(range(31, 61))


async def test_defect_in_reading_closes_those_who_wait(expected_logs: list[str]) -> None:
    """They are told to come back, and the log says what it was; whoever is at the head lives on."""
    expected_logs.append("cannot be read")
    async with stage(make_entries(1, 60), 60) as on:
        live, _ = await on.open(None)
        on.log.defect = ZeroDivisionError("a defect")
        behind, sink = await on.open(id_of(30))
        left, _ = await on.open(id_of(30))
        await turns(1)  # both wait for the page now
        left.on_closed("gone")
        await turn_until(lambda: behind.state is State.CLOSED)
        assert live.state is State.ATTACHED
    [closing] = sink.of("closing")
    assert (closing.fields["code"], closing.fields["retryMs"]) == (1011, 1000)


# ---- an older copy of the log was put back


def other(entries: list[Entry]) -> list[Entry]:
    """Return entries with these numbers that were appended later."""
    for entry in entries:
        entry.ms += 1000
        entry.id = CODEC.encode(entry.seq, entry.ms)
    return entries


@pytest.mark.parametrize("head", [600, 512, 501, 500])
@pytest.mark.parametrize("seen", [True, False], ids=["in memory", "in the log"])
async def test_id_whose_number_another_entry_has_now_is_a_gap(expected_logs: list[str], seen: bool, head: int) -> None:
    """The copy ended with entry 480: what came after it is not what its client had."""
    expected_logs.append("gap reported")
    entries = make_entries(470, 480) + other(make_entries(481, head))
    async with stage([] if seen else entries, 469 if seen else head) as on:
        if seen:
            on.log.entries += entries
            on.hub.receive(entries)
        else:
            on.hub.start(Position(head, entries[-1].ms))
        connection, sink = await on.open(id_of(500))
        await turn_until(lambda: connection.state is State.ATTACHED)
    assert [(gap.fields["from"], gap.fields["reason"]) for gap in sink.of("gap")] == [(id_of(500), "log recreated")]
    assert [CODEC.decode(one.id or "").seq for one in sink.of("event")] == list(range(470, head + 1))


@pytest.mark.parametrize("position", [475, 480, 512, 513])
async def test_id_from_before_the_copy_goes_on(position: int) -> None:
    """Wherever it lies, with one read for what comes next, and one more where it ends a page."""
    async with stage(make_entries(1, 600), 600) as on:
        connection, sink = await on.open(id_of(position))
        await turn_until(lambda: connection.state is State.ATTACHED)
    assert sink.of("gap") == []
    assert sink.numbers() == list(range(position + 1, 601))
    pages = {(position - 1) // PAGE_ENTRIES, position // PAGE_ENTRIES, 599 // PAGE_ENTRIES}
    assert sorted(after for after, _ in on.log.reads) == sorted(page * PAGE_ENTRIES for page in pages)


async def test_id_that_this_process_has_not_seen_yet_is_looked_at_when_it_has(expected_logs: list[str]) -> None:
    """Another process may be ahead; until then the client waits."""
    expected_logs.append("gap reported")
    entries = make_entries(1, 10)
    async with stage(entries[:8], 8) as on:
        on.log.entries = [*entries[:8], *other(entries[8:])]
        wrong, told = await on.open(id_of(10))
        right, silent = await on.open(CODEC.encode(entries[9].seq, entries[9].ms))
        assert (wrong.state, right.state) == (State.AHEAD, State.AHEAD)
        on.hub.receive(entries[8:])
        await turn_until(lambda: wrong.state is right.state is State.ATTACHED)
    assert [gap.fields["reason"] for gap in told.of("gap")] == ["log recreated"]
    assert silent.of("gap") == []


async def test_of_several_ids_those_beyond_what_this_process_has_seen_wait() -> None:
    """They do not hold up the others."""
    entries = make_entries(1, 10)
    async with stage(entries[:8], 8) as on:
        on.log.entries = entries
        connection, sink = connect(on.hub, WEBSOCKET, on.clock, principal=Principal("u"))
        on.hub.open(connection, frozenset(), None)
        for topic, position in (("a.b", 10), ("a.*", 3)):
            start = await on.hub.locate(id_of(position), field="position")
            assert start is not None
            [one] = everything(topic)
            on.hub.hearing.subscribe(connection, one, start)
            on.hub.hearing.replay(connection, start)
        await turns(20)
        on.hub.receive(entries[8:])
        await turn_until(lambda: connection.state is State.ATTACHED)
    assert sink.of("gap") == []
    assert sink.numbers() == [4, 5, 6, 7, 8, 9, 10]


async def test_thousand_ids_of_one_place_cost_no_read_of_their_own() -> None:
    """They are looked at in the page that is read anyway."""
    async with stage(make_entries(1, 1000), 1000) as on:
        connections = [(await on.open(id_of(520 + number % 400)))[0] for number in range(1000)]
        await turn_until(lambda: all(connection.state is State.ATTACHED for connection in connections), 20_000)
    assert len(on.log.reads) <= 3


async def test_subscription_whose_id_is_another_entrys_begins_anew_and_the_others_do_not(expected_logs: list[str]) -> None:
    """On one connection, each gets what it has not had."""
    expected_logs.append("gap reported")
    async with stage(make_entries(1, 5) + other(make_entries(6, 10)), 10) as on:
        connection, sink = connect(on.hub, WEBSOCKET, on.clock, principal=Principal("u"))
        on.hub.open(connection, frozenset(), None)
        for topic, position in (("a.b", CODEC.encode(8, place_of(8).ms + 1000)), ("a.*", id_of(7))):
            start = await on.hub.locate(position, field="position")
            assert start is not None
            [one] = everything(topic)
            on.hub.hearing.subscribe(connection, one, start)
            on.hub.hearing.replay(connection, start)
        await turn_until(lambda: connection.state is State.ATTACHED)
    assert [gap.fields["reason"] for gap in sink.of("gap")] == ["log recreated"]
    assert [CODEC.decode(one.id or "").seq for one in sink.of("event")] == list(range(1, 11))


async def test_earliest_reports_nothing() -> None:
    """Who takes whatever is there has lost nothing."""
    assert await gap_after(make_entries(8, 12), 12, "earliest") == ([], [8, 9, 10, 11, 12])


async def test_position_just_before_the_oldest_entry_lost_nothing() -> None:
    """The place after an evicted entry is a good one while the next entry is there."""
    assert await gap_after(make_entries(8, 12), 12, id_of(7)) == ([], [8, 9, 10, 11, 12])


async def test_gap_that_fills_the_socket_is_followed_by_the_rest(expected_logs: list[str]) -> None:
    """The gap itself may be what does not fit: reading goes on after it."""
    expected_logs.append("gap reported")
    async with stage(make_entries(8, 12), 12) as on:
        connection, sink = await on.open(id_of(3))
        sink.room = 0
        await turn_until(lambda: connection.state is State.BLOCKED)
        assert sink.kinds() == ["welcome", "gap"]
        sink.drain()
        await turn_until(lambda: connection.state is State.ATTACHED)
    assert sink.numbers() == [8, 9, 10, 11, 12]
    assert sink.kinds().count("gap") == 1


async def test_page_that_was_asked_for_is_of_no_use_after_going_back() -> None:
    """A connection that goes back while its page is read does not take that page's beginning for the oldest entry there is."""
    async with stage(make_entries(1, 2000), 2000) as on:
        connection, sink = connect(on.hub, WEBSOCKET, on.clock, principal=Principal("u"))
        on.hub.open(connection, frozenset(), None)
        on.log.hold_up()
        for topic, position in (("a.*", 1500), ("a.b", 100)):
            start = await on.hub.locate(id_of(position), field="position")
            assert start is not None
            [one] = everything(topic)
            on.hub.hearing.subscribe(connection, one, start)
            on.hub.hearing.replay(connection, start)
            await turns(3)
        on.log.go_on()
        await turn_until(lambda: connection.state is State.ATTACHED)
    assert sink.of("gap") == []
    assert sink.numbers() == list(range(101, 2001))


async def test_restart_takes_everybody_out_of_the_queue() -> None:
    """What was read of a log that is gone is given to nobody."""
    async with stage(make_entries(1, 600), 600) as on:
        connection, sink = await on.open(id_of(1))
        on.log.hold_up()
        await turn_until(lambda: on.log.reads)
        on.hub.restart("log recreated")
        on.log.go_on()
        await turns(20)
    assert (connection.state, sink.numbers()) == (State.AHEAD, [])


async def test_more_places_than_pages_are_kept_are_looked_at_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is seen once to name the entry there, whatever is forgotten meanwhile: else the reading would go round for ever."""
    monkeypatch.setattr("hub.pages.PAGE_ENTRIES", 10)
    monkeypatch.setattr("hub.pages.CACHED_PAGES", 1)
    async with stage(make_entries(1, 100), 100) as on:
        start = await on.hub.locate(id_of(5), field="from")
        assert start is not None
        for place in (35, 65, 95):
            other = await on.hub.locate(id_of(place), field="from")
            assert other is not None
            start = start.merge(other)
        connection, sink = connect(on.hub, SSE, on.clock)
        on.hub.open(connection, everything(), start)
        await turns(300)
        assert connection.state is State.ATTACHED
        assert sink.numbers() == list(range(6, 101))
        assert len(on.log.reads) < 30


# ---- paced connections


async def open_paced(on: Stage, pace: Pace, start: str, format: Format = SSE) -> tuple[Connection, RecordingSink]:
    """Open a connection with a pace at a place."""
    connection, sink = connect(on.hub, format, on.clock)
    connection.terms = Terms(pace=pace)
    on.hub.open(connection, everything(), await on.hub.locate(start, field="from"))
    return connection, sink


def keyed(first: int, last: int, keys: int) -> list[Entry]:
    """Return entries with so many keys in turn, a millisecond apart."""
    return [make_entry(seq, key=f"k{seq % keys}") for seq in range(first, last + 1)]


async def test_paced_connection_gets_the_newest_of_each_key_of_what_it_has_missed() -> None:
    """However much that is: it looks at all that is in memory, and what was superseded is counted, not sent (T11)."""
    async with stage(make_entries(1, 10), 10) as on:
        on.hub.receive(keyed(11, 5000, 10))
        connection, sink = await open_paced(on, Pace(0.1), id_of(10))
        await turn_until(lambda: connection.state is State.ATTACHED)
    assert sink.numbers() == list(range(4991, 5001))
    assert [one.fields["replayed"] for one in sink.of("live")] == [10]
    assert (on.hub.catch_up.replayed, on.hub.catch_up.conflated) == (10, 4980)


async def test_what_does_not_fit_into_a_chunk_is_looked_at_again() -> None:
    """Its place is behind what it got, and what was superseded is counted once."""
    async with stage(make_entries(1, 10), 10, chunk_bytes=300) as on:
        on.hub.receive(keyed(11, 500, 10))
        connection, sink = await open_paced(on, Pace(0.1), id_of(10))
        await turn_until(lambda: connection.state is State.ATTACHED)
    assert sink.numbers() == list(range(491, 501))
    assert len(sink.offers) > 4
    assert (on.hub.catch_up.replayed, on.hub.catch_up.conflated) == (10, 480)


async def test_paced_connection_gets_everything_if_that_is_no_more_than_its_pace_allows() -> None:
    """Which is what may come in a second, if it came within one."""
    async with stage(make_entries(1, 10), 10) as on:
        on.hub.receive(keyed(11, 500, 10))
        _, sink = await open_paced(on, Pace(0.1, above=490), id_of(10))
        _, less = await open_paced(on, Pace(0.1, above=489), id_of(10))
        await turn_until(lambda: len(less.of("live")) == 1)
    assert sink.numbers() == list(range(11, 501))
    assert less.numbers() == list(range(491, 501))


async def test_paced_connection_reads_older_entries_page_by_page(expected_logs: list[str]) -> None:
    """What is not in memory any more is conflated as far as one page reaches; a hole is reported all the same."""
    expected_logs.append("gap reported")
    entries = [*keyed(1, 600, 1), *keyed(603, 700, 1)]
    async with stage(entries, 700) as on:
        connection, sink = await open_paced(on, Pace(0.1), id_of(10))
        await turn_until(lambda: connection.state is State.ATTACHED)
    assert sink.numbers() == [PAGE_ENTRIES, 600, 700]
    assert [one.fields["to"] for one in sink.of("gap")] == [CODEC.encode(602, make_entry(603).ms)]


async def test_paced_connection_with_several_subscriptions_gets_nothing_twice() -> None:
    """When it goes back for one of them, what the others have had stays out."""
    async with stage(make_entries(1, 10), 10) as on:
        connection, sink = connect(on.hub, WEBSOCKET, on.clock)
        connection.terms = Terms(pace=Pace(0.1))
        on.hub.open(connection, frozenset(), None)
        on.hub.hearing.subscribe(connection, Subscription("a.*"), None)
        on.hub.receive(keyed(11, 11, 1))
        start = await on.hub.locate(id_of(8), field="position")
        assert start is not None
        on.hub.hearing.subscribe(connection, Subscription("a.b"), start)
        on.hub.hearing.replay(connection, start)
        await turn_until(lambda: connection.state is State.ATTACHED)
    assert sink.numbers() == [11, 9, 10]
