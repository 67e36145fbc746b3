"""Tests of hub/hub.py: connections come, are where their positions say, change what they want, and go."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

import pytest

from hub.connection import OUTBOX_BYTES, Connection, Start, State
from hub.errors import POLICY, REPLACED, RESTART, STALE
from hub.formats import SSE, SSE_GZIP, WEBSOCKET, Format
from hub.hub import RETRY_SPREAD_MS, Hub
from hub.principal import Principal
from hub.subscriptions import Subscription
from storage.positions import Position
from tests.hub.fakes import (
    ListLog,
    ManualClock,
    RecordingSink,
    connect,
    everything,
    id_of,
    make_codec,
    make_entries,
    make_entry,
    make_principal,
    place_of,
    turns,
)


class Stage:
    """A hub at the head of its log."""

    def __init__(self, head: int = 10, chunk_bytes: int = 65536, max_connections: int = 0) -> None:
        self.clock = ManualClock()
        self.log = ListLog(make_entries(1, head))
        self.hub = Hub(self.log, self.clock, chunk_bytes=chunk_bytes, max_connections=max_connections)
        self.hub.start(place_of(head))

    def publish(self, *topics: str) -> None:
        """Append an entry to each topic, and let the follower see them."""
        first = self.log.entries[-1].seq + 1
        entries = [make_entry(seq, topic, codec=self.log.codec) for seq, topic in enumerate(topics, first)]
        self.log.entries += entries
        self.hub.receive(entries)

    def open(self, *topics: str, start: Start | None = None, principal: Principal | None = None) -> tuple[Connection, RecordingSink]:
        """Open an SSE connection."""
        connection, sink = connect(self.hub, SSE, self.clock, principal=principal)
        self.hub.open(connection, everything(*topics), start)
        return connection, sink

    def open_websocket(self, *topics: str) -> tuple[Connection, RecordingSink]:
        """Open a WebSocket connection that subscribes to these topics, live."""
        connection, sink = connect(self.hub, WEBSOCKET, self.clock)
        self.hub.open(connection, frozenset(), None)
        for topic in topics:
            self.hub.hearing.subscribe(connection, Subscription(topic), None)
        return connection, sink

    def go_back(self, connection: Connection, topic: str, start: Start) -> Position:
        """Subscribe at a place."""
        begin = self.hub.hearing.subscribe(connection, Subscription(topic), start)
        self.hub.hearing.replay(connection, start)
        return begin

    async def settle(self) -> None:
        """Let everybody read on."""
        await turns(30)


@contextlib.asynccontextmanager
async def stage(head: int = 10, chunk_bytes: int = 65536) -> AsyncIterator[Stage]:
    """Run a hub."""
    opened = Stage(head, chunk_bytes)
    task = asyncio.create_task(opened.hub.catch_up.run())
    try:
        yield opened
    finally:
        task.cancel()
        await opened.hub.catch_up.pages.close()
        await asyncio.gather(task, return_exceptions=True)


# ---- coming


async def test_what_a_connection_gets_first_is_behind_welcome_which_moves_it_nowhere() -> None:
    """A client that broke off in between begins anew; and what comes after its start follows."""
    async with stage() as on:
        connection, sink = connect(on.hub, SSE, on.clock)
        on.hub.open(connection, everything(), Start(on.hub.head), first=SSE.message("snapshot", {}, "p-1"))
        await on.settle()
        assert [(one.kind, one.id) for one in sink.received] == [("welcome", None), ("snapshot", "p-1"), ("live", id_of(10))]


async def test_what_comes_first_is_compressed_apart_from_welcome() -> None:
    """So that its size says nothing of the resume token, whatever others have put into state and last events."""
    async with stage() as on:
        sizes = []
        for text in ("resumeToken", "qpzmwxkvbjf"):
            connection, sink = connect(on.hub, SSE_GZIP, on.clock)
            on.hub.open(connection, everything(), Start(on.hub.head), first=SSE_GZIP.message("snapshot", {"orders": 40 * (text,)}))
            assert [one.kind for one in sink.received[:2]] == ["welcome", "snapshot"]
            sizes.append(len(sink.offers[0]))
        assert sizes[0] == sizes[1]


@pytest.mark.parametrize("format", [SSE, WEBSOCKET])
async def test_welcome_comes_first_and_says_who_and_where(format: Format) -> None:
    """The first message names the client, its position and when its credential ends."""
    on = Stage()
    principal = make_principal(expires_at=on.clock.time() + 60)
    connection, sink = connect(on.hub, format, on.clock, principal=principal, client_id="me")
    on.hub.open(connection, everything(), None)
    [welcome] = sink.received
    assert (welcome.kind, welcome.id) == ("welcome", id_of(10))
    assert welcome.fields == {
        "clientId": "me",
        "position": id_of(10),
        "resumeToken": None,
        "expiresAt": "2025-06-15T15:24:20.000Z",
        "timestamp": "2025-06-15T15:23:20.000Z",
    }
    assert connection.state is State.ATTACHED


async def test_preamble_and_welcome_are_one_send() -> None:
    """The transport's own beginning costs no send of its own, and a credential that never ends says so."""
    on = Stage()
    connection, sink = connect(on.hub, SSE, on.clock)
    on.hub.open(connection, everything(), None, b"0\r\n\r\n"[:0] + SSE.heartbeat("", False))
    assert len(sink.offers) == 1
    assert sink.received[0].fields["expiresAt"] is None


async def test_welcome_that_fills_the_socket_is_not_the_end() -> None:
    """A connection whose socket is full from the beginning reads on when it drains, and misses nothing."""
    async with stage() as on:
        connection, sink = connect(on.hub, SSE, on.clock, room=5)
        on.hub.open(connection, everything(), None)
        assert connection.state is State.BLOCKED
        on.publish("a", "b")
        sink.drain()
        await on.settle()
    assert sink.numbers() == [11, 12]
    assert [one.fields["replayed"] for one in sink.of("live")] == [2]


async def test_start_beyond_what_this_process_has_seen_waits_for_it() -> None:
    """Another process was ahead: nothing before the position comes again, and `live` when it is reached."""
    async with stage() as on:
        connection, sink = on.open(start=Start(place_of(12)))
        assert connection.state is State.AHEAD
        on.publish("a")
        assert connection.state is State.AHEAD
        on.publish("a", "a")
        await on.settle()
    assert sink.numbers() == [13]
    assert sink.kinds() == ["welcome", "event", "live"]


async def test_there_is_room_up_to_the_limit() -> None:
    """A limit of connections counts those that are open, and those that the caller expects; without one there is always room."""
    on = Stage(max_connections=1)
    assert on.hub.has_room()
    assert not on.hub.has_room(1)
    connection, _ = on.open()
    assert not on.hub.has_room()
    on.hub.close(connection, REPLACED, "enough")
    assert on.hub.has_room()
    assert Stage().hub.has_room()


async def test_there_may_be_room_for_some_only() -> None:
    """Within a share of the limit."""
    on = Stage(max_connections=4)
    on.open()
    assert on.hub.has_room(share=0.5)
    on.open()
    assert not on.hub.has_room(share=0.5)
    assert on.hub.has_room()


async def test_ids_can_be_made_before_the_follower_has_begun() -> None:
    """Before the first contact the log itself lends its codec."""
    hub = Hub(ListLog(), ManualClock())
    assert hub.id_of(place_of(1)) == id_of(1)


# ---- live


async def test_new_entries_are_pushed_to_those_at_the_head() -> None:
    """At the head an event takes no turn of the loop."""
    on = Stage()
    _, sink = on.open()
    on.publish("a", "b")
    assert sink.numbers() == [11, 12]
    assert on.hub.head == place_of(12)


async def test_full_socket_leaves_the_live_path_and_comes_back() -> None:
    """It keeps one piece, delays nobody, and reads on from its position when it drains."""
    async with stage(chunk_bytes=1000) as on:
        slow, slow_sink = on.open()
        _, fast_sink = on.open()
        slow_sink.room = 0
        on.publish(*["a"] * 50)
        assert slow.state is State.BLOCKED
        assert fast_sink.numbers() == list(range(11, 61))
        assert slow_sink.most_pending <= 1000
        slow_sink.drain()
        await on.settle()
        on.publish("a")
    assert slow_sink.numbers() == list(range(11, 62))


async def test_socket_that_drains_at_the_head_is_attached_without_ado() -> None:
    """Nothing came meanwhile: there is nothing to replay, and no `live`."""
    on = Stage()
    connection, sink = on.open()
    sink.room = 0
    on.publish("a")
    sink.drain()
    assert connection.state is State.ATTACHED
    assert sink.kinds() == ["welcome", "event"]


async def test_live_that_fills_the_socket_is_said_once() -> None:
    """The message may itself be what does not fit."""
    async with stage() as on:
        connection, sink = on.open(start=Start(place_of(10)))
        assert sink.kinds() == ["welcome", "live"]
        other, other_sink = connect(on.hub, SSE, on.clock)
        on.hub.open(other, everything(), Start(place_of(11)))
        other_sink.room = 0
        on.publish("a")
        assert other.state is State.BLOCKED
        other_sink.drain()
    assert (connection.state, other.state) == (State.ATTACHED, State.ATTACHED)
    assert other_sink.kinds() == ["welcome", "live"]


async def test_broadcast_can_be_followed_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """At level DEBUG each entry leaves a line with its id when it is passed on."""
    on = Stage()
    caplog.set_level(logging.DEBUG, "tailcast.hub")
    on.publish("a")
    [line] = [one for one in caplog.records if one.message == "broadcast"]
    assert vars(line)["fields"] == {"correlationId": None, "id": id_of(11)}


# ---- answers


async def test_answers_wait_behind_what_is_pending() -> None:
    """The server's own messages are kept in order until the socket is empty, and sent before more events."""
    async with stage() as on:
        connection, sink = on.open_websocket("**")
        sink.room = 0
        on.publish("a")
        on.hub.tell(connection, "pong", {"ref": "1"})
        on.hub.tell(connection, "pong", {"ref": "2"})
        on.publish("a")
        assert sink.kinds() == ["welcome", "event"]
        sink.drain()
        await on.settle()
    assert sink.kinds() == ["welcome", "event", "pong", "pong", "event", "live"]


async def test_answers_that_fill_the_socket_again_keep_it_blocked() -> None:
    """Reading on waits for the answers, too."""
    async with stage() as on:
        connection, sink = on.open_websocket("**")
        sink.room = 0
        on.hub.tell(connection, "pong", {})
        on.hub.tell(connection, "pong", {})
        sink.drain(room=0)
        assert connection.state is State.BLOCKED
        on.publish("a")
        sink.drain()
        await on.settle()
    assert sink.numbers() == [11]


async def test_client_that_reads_none_of_its_answers_is_closed() -> None:
    """What waits behind a full socket is bounded."""
    on = Stage()
    connection, sink = on.open_websocket()
    sink.room = 0
    most = 0
    for number in range(10_000):
        on.hub.tell(connection, "pong", {"ref": str(number)})
        if connection.state is State.CLOSED:
            break
        most = max(most, len(connection.outbox or b""))
    assert most <= OUTBOX_BYTES
    assert sink.received[-1].fields["code"] == POLICY
    on.hub.tell(connection, "pong", {})
    assert connection.state is State.CLOSED


# ---- going


async def test_closing_says_why_and_forgets_the_connection() -> None:
    """The client hears the code and the reason; nothing of the connection is left behind; twice is once."""
    on = Stage()
    connection, sink = on.open()
    on.hub.close(connection, REPLACED, "a newer one came")
    on.hub.close(connection, POLICY, "again")
    on.hub.gone(connection, "reset")
    on.publish("a")
    assert [one.fields for one in sink.of("closing")] == [{"code": REPLACED, "reason": "a newer one came"}]
    assert sink.numbers() == []
    assert on.hub.connections == {}
    assert connection.interest is None


async def test_farewell_takes_the_place_of_closing() -> None:
    """A transport may have its own last bytes."""
    on = Stage()
    connection, sink = on.open()
    on.hub.close(connection, 1000, "the client closed", farewell=SSE.heartbeat("", False))
    assert sink.finished == SSE.heartbeat("", False)


async def test_stale_client_is_cut_off_where_nobody_reads() -> None:
    """Behind a full socket nothing more is sent; who only answers no pings hears why."""
    on = Stage()
    full, full_sink = on.open()
    full_sink.room = 0
    on.publish("a")
    silent, silent_sink = on.open()
    on.hub.close(full, STALE, "the client has stopped reading")
    on.hub.close(silent, STALE, "the client does not answer pings")
    assert (full_sink.aborted, full_sink.finished) == (True, None)
    assert silent_sink.received[-1].fields["code"] == STALE


async def test_client_that_left_is_forgotten_and_its_inbox_told() -> None:
    """Whoever read for it hears of the end, once; draining and answers afterwards do nothing."""
    on = Stage()
    connection, sink = on.open_websocket("a")
    told: list[str] = []

    class Inbox:
        def on_data(self, data: bytes) -> None:
            told.append("data")

        def on_closed(self) -> None:
            told.append("closed")

    connection.inbox = Inbox()
    sink.leave()
    on.hub.gone(connection, "again")
    on.hub.drained(connection)
    on.hub.hearing.replay(connection, Start(place_of(1)))
    assert told == ["closed"]
    assert connection.state is State.CLOSED


async def test_stopping_server_spreads_its_clients_over_the_window() -> None:
    """Everybody is told to come back, at moments spread over the drain's seconds."""
    on = Stage()
    sinks = [on.open()[1] for _ in range(101)]
    randoms = iter(index / 100 for index in range(101))
    on.hub.drain(10, lambda: next(randoms))
    said = [sink.received[-1].fields for sink in sinks]
    retries = [one["retryMs"] for one in said]
    assert {one["code"] for one in said} == {RESTART}
    assert retries == [RETRY_SPREAD_MS // 2 + 100 * index for index in range(101)]
    assert on.hub.connections == {}


async def test_stopping_at_once_still_spreads_a_little() -> None:
    """Even without time to drain not everybody returns in one moment."""
    on = Stage()
    sinks = [on.open()[1] for _ in range(2)]
    randoms = iter([0.0, 1.0])
    on.hub.drain(0, lambda: next(randoms))
    assert [sink.received[-1].fields["retryMs"] for sink in sinks] == [RETRY_SPREAD_MS // 2, RETRY_SPREAD_MS * 3 // 2]


async def test_connection_that_was_never_opened_can_be_gone() -> None:
    """A socket that fails before its connection is taken in leaves nothing to undo."""
    on = Stage()
    connection, sink = connect(on.hub, SSE, on.clock)
    sink.leave()
    assert connection.state is State.CLOSED


async def test_connection_that_leaves_while_it_waits_for_the_head_is_forgotten() -> None:
    """When the head moves, only those still there read on."""
    async with stage() as on:
        _, gone = on.open(start=Start(place_of(12)))
        _, there = on.open(start=Start(place_of(12)))
        gone.leave()
        on.publish("a", "a", "a")
        await on.settle()
    assert (gone.numbers(), there.numbers()) == ([], [13])


async def test_drained_socket_counts_as_a_sign_of_life() -> None:
    """A client that can be asked for one has as long to answer after it could read again as any other."""
    on = Stage()
    connection, sink = on.open_websocket("**")
    on.clock.now += 5
    connection.on_data(b"pong")
    assert connection.heard_at == on.clock.now
    sink.room = 0
    on.publish("a")
    on.clock.now += 500
    sink.drain()
    assert connection.heard_at == on.clock.now


async def test_place_is_located_in_the_log_that_is_followed() -> None:
    """What a client names is looked up in the hub's own log, against its own head."""
    on = Stage()
    assert await on.hub.locate(id_of(4), field="from") == Start(place_of(4), claims=((place_of(4), id_of(4)),))
    assert await on.hub.locate(None, field="from") is None


# ---- the log breaks


async def test_hole_at_the_head_is_told_to_everybody_there(expected_logs: list[str]) -> None:
    """What is gone before it was seen is a gap, on every connection, and then it goes on."""
    expected_logs.append("gap reported")
    async with stage() as on:
        connection, sink = on.open()
        full, full_sink = on.open()
        full_sink.room = 0
        on.log.entries = make_entries(15, 16)
        on.hub.lose(on.log.entries[0], "evicted")
        on.hub.receive(on.log.entries)
        assert (connection.state, full.state) == (State.ATTACHED, State.BLOCKED)
        full_sink.drain()
        await on.settle()
    for one in (sink, full_sink):
        [gap] = one.of("gap")
        assert (gap.fields["from"], gap.fields["reason"]) == (id_of(10), "evicted")
        assert one.numbers() == [15, 16]


async def test_log_made_anew_sends_everybody_to_its_beginning(expected_logs: list[str]) -> None:
    """Wherever a connection stood, it is told that its log is gone, and gets all of the new one."""
    expected_logs.append("gap reported")
    async with stage() as on:
        live, live_sink = on.open()
        full, full_sink = on.open()
        lost, lost_sink = on.open(start=Start(Position(0, 0), ("nonsense", "unknown position")))
        socket, socket_sink = on.open_websocket("**")
        full_sink.room = 0
        on.publish("a")
        on.log.codec = make_codec(2)
        on.log.entries = [make_entry(1, codec=on.log.codec)]
        on.hub.restart("log recreated")
        full_sink.drain()
        assert {one.state for one in (live, full, lost, socket)} == {State.AHEAD}
        on.hub.receive(on.log.entries)
        await on.settle()
        assert {one.state for one in (live, full, lost, socket)} == {State.ATTACHED}
        on.publish("a")
    for sink in (live_sink, full_sink, socket_sink):
        [gap] = sink.of("gap")
        assert (gap.fields["from"], gap.fields["reason"]) == (id_of(11), "log recreated")
        assert [make_codec(2).decode(one.id or "").seq for one in sink.of("event")[1:]] == [1, 2]
    assert [one.fields["reason"] for one in lost_sink.of("gap")] == ["unknown position"]


async def test_new_log_whose_beginning_was_evicted_unseen_is_a_gap(expected_logs: list[str]) -> None:
    """Who stands at the beginning of a log of which the first entries were never seen is told so."""
    expected_logs.append("gap reported")
    on = Stage()
    on.hub.restart("log recreated")
    _, sink = on.open()
    on.hub.receive(make_entries(5, 6))
    assert [one.fields["to"] for one in sink.of("gap")] == [on.hub.id_of(Position(4, place_of(5).ms))]
    assert sink.numbers() == [5, 6]


# ---- subscribing on a living connection


async def test_subscription_begins_at_the_head() -> None:
    """Without a position it is live from now on, and the connection hears what any of its subscriptions selects, once."""
    on = Stage()
    connection, sink = on.open_websocket()
    on.publish("a")
    assert on.hub.hearing.subscribe(connection, Subscription("a"), None) == place_of(11)
    on.hub.hearing.subscribe(connection, Subscription("*"), None)
    on.publish("a", "b", "a.b")
    assert sink.numbers() == [12, 13]


async def test_unsubscribed_topic_is_heard_no_more() -> None:
    """Taking one away leaves the others; taking away what is not there is said."""
    on = Stage()
    connection, sink = on.open_websocket("a", "b")
    assert on.hub.hearing.unsubscribe(connection, "a")
    assert not on.hub.hearing.unsubscribe(connection, "a")
    on.publish("a", "b")
    assert sink.numbers() == [12]


async def test_subscription_with_a_position_replays_for_itself() -> None:
    """The connection goes back for it, and what the others have had is not sent again."""
    async with stage() as on:
        connection, sink = on.open_websocket("a")
        on.publish("a", "b", "c", "a", "b")
        assert on.go_back(connection, "b", Start(place_of(10))) == place_of(10)
        await on.settle()
        on.go_back(connection, "*", Start(place_of(10)))
        await on.settle()
        on.publish("a", "b", "c")
    assert sink.numbers() == [11, 14, 12, 15, 13, 16, 17, 18]
    assert [one.fields["replayed"] for one in sink.of("live")] == [2, 1]


async def test_going_back_while_full_waits_for_the_socket() -> None:
    """A connection that is blocked goes back when it has drained."""
    async with stage() as on:
        connection, sink = on.open_websocket("a")
        sink.room = 0
        on.publish("a", "b")
        on.go_back(connection, "b", Start(place_of(10)))
        assert connection.state is State.BLOCKED
        sink.drain()
        await on.settle()
    assert sink.numbers() == [11, 12]


async def test_two_starts_before_the_first_entry_are_one(expected_logs: list[str]) -> None:
    """Going back again before anything was read keeps what the first start reports as lost."""
    expected_logs.append("gap reported")
    async with stage() as on:
        connection, sink = on.open_websocket()
        on.go_back(connection, "a", Start(Position(0, 0), ("nonsense", "unknown position")))
        on.go_back(connection, "a.b", Start(place_of(5)))
        await on.settle()
    assert [one.fields["from"] for one in sink.of("gap")] == ["nonsense"]
    assert sink.numbers() == [6, 7, 8, 9, 10]


async def test_subscription_that_begins_beyond_the_head_gets_nothing_before() -> None:
    """Another process was ahead: the others go on where they are, and this one begins where it was asked to."""
    async with stage() as on:
        connection, sink = on.open_websocket("a")
        on.go_back(connection, "b", Start(place_of(13)))
        on.publish("a", "b")
        await on.settle()
        assert sink.numbers() == [11]
        on.publish("b", "b", "a")
        await on.settle()
        assert connection.state is State.ATTACHED
    assert sink.numbers() == [11, 14, 15]


async def test_earliest_for_one_subscription_hides_no_loss_of_another(expected_logs: list[str]) -> None:
    """One that takes whatever is there does not make the loss of one that had a place silent."""
    expected_logs.append("gap reported")
    async with stage() as on:
        connection, sink = on.open_websocket("a")
        sink.room = 0
        on.publish("a", "a")  # the first push fills the socket
        on.publish(*["a"] * 8)
        on.hub.window.clear()
        on.log.evict(15)
        on.hub.hearing.subscribe(connection, Subscription("b"), None)
        on.go_back(connection, "c", Start(Position(0, 0), from_earliest=True))
        sink.drain()
        await on.settle()
    assert [one.fields["reason"] for one in sink.of("gap")] == ["evicted"]
    assert sink.numbers() == [11, 12, 16, 17, 18, 19, 20]


async def test_earliest_at_ones_own_place_hides_no_loss() -> None:
    """A start that is not behind a connection leaves it as strict as it was."""
    on = Stage()
    connection, _ = on.open_websocket("a")
    connection.detach(State.BLOCKED, place_of(10))
    on.go_back(connection, "b", Start(place_of(12), from_earliest=True))
    assert connection.start is not None
    assert not connection.start.from_earliest


# ---- renewing


async def test_renewed_audiences_count_at_once() -> None:
    """From the moment of renewal a connection sees what its new credential may see, and keeps its subscriptions."""
    on = Stage()
    connection, sink = on.open_websocket("**")
    sse, sse_sink = on.open()
    for one in (connection, sse):
        on.hub.hearing.renew(one, make_principal("u1", "org:o1"))
    on.hub.receive([make_entry(11, audience=["org:o1"])])
    for one in (connection, sse):
        on.hub.hearing.renew(one, make_principal("u1"))
    on.hub.receive([make_entry(12, audience=["org:o1"]), make_entry(13)])
    assert sink.numbers() == sse_sink.numbers() == [11, 13]


@pytest.mark.parametrize(("topics", "rests"), [("aaaa", True), ("abcd", False), ("aaa", False)])
async def test_entries_may_gather_where_a_send_holds_them_all(topics: str, rests: bool) -> None:
    """The more a send holds, the less each entry costs; where everybody gets another one, or few come, waiting would join nothing."""
    stage = Stage()
    for topic in topics:
        stage.open(topic)
    stage.clock.step = 0.5
    rest = stage.hub.receive([make_entry(11 + index, topic, codec=stage.log.codec) for index, topic in enumerate(topics)])
    assert rest == (0.5 if rests else 0.0)
