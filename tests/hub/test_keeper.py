"""Tests of hub/keeper.py: heartbeats, dead clients and credentials that end, with a clock that is moved."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from hub.connection import Connection, State
from hub.errors import TOKEN_EXPIRED
from hub.formats import SSE, SSE_GZIP, WEBSOCKET, Format
from hub.hub import Hub
from hub.keeper import EXPIRY_NOTICE_SECONDS, LINGER_SECONDS, MISSED_PONGS
from hub.subscriptions import Subscription
from tests.hub.fakes import ListLog, ManualClock, RecordingSink, connect, everything, id_of, make_entries, make_principal, place_of, turns
from tests.waiting import wait_until

BEAT, STALE_AFTER = 15.0, 300.0


class Stage:
    """A hub at entry 10 of its log, and a clock."""

    def __init__(self, heartbeat_seconds: float = BEAT, stale_seconds: float = STALE_AFTER) -> None:
        self.clock = ManualClock()
        log = ListLog(make_entries(1, 10))
        self.hub = Hub(log, self.clock, heartbeat_seconds=heartbeat_seconds, stale_seconds=stale_seconds)
        self.hub.start(place_of(10))

    def open(
        self, format: Format = SSE, topic: str = "**", lives: float | None = None, heard: bool = False
    ) -> tuple[Connection, RecordingSink]:
        """Open a connection whose credential lives so many seconds."""
        expires_at = None if lives is None else self.clock.time() + lives
        connection, sink = connect(self.hub, format, self.clock, principal=make_principal(expires_at=expires_at))
        if heard:
            self.hub.heard(connection)
        self.hub.open(connection, everything(topic), None)
        sink.received.clear()
        sink.offers.clear()
        return connection, sink

    async def pass_(self, seconds: float) -> None:
        """Let time pass, sweeping every second."""
        for _ in range(int(seconds)):
            self.clock.now += 1
            await self.hub.keeper.sweep()


def state_of(connection: Connection) -> State:
    """Return where a connection stands now: it may have moved since the last look, which type checkers do not expect."""
    return connection.state


# ---- heartbeats


@pytest.mark.parametrize("format", [SSE, WEBSOCKET])
async def test_quiet_connection_hears_a_heartbeat_in_each_interval(format: Format) -> None:
    """Every client hears something once in an interval, and not more often."""
    stage = Stage()
    _, sink = stage.open(format)
    await stage.pass_(BEAT - 1)
    assert sink.offers == []
    await stage.pass_(1 + 3 * BEAT)
    assert sink.offers == [format.heartbeat(id_of(10), False)] * 4


@pytest.mark.parametrize("format", [SSE, WEBSOCKET])
async def test_heartbeat_moves_a_quiet_subscription(format: Format) -> None:
    """A client that receives nothing keeps its position moving, and is told a position once."""
    stage = Stage()
    _, sink = stage.open(format, topic="nothing")
    stage.hub.receive(make_entries(11, 20))
    await stage.pass_(2 * BEAT)
    assert [one.id for one in sink.of("position")] == [id_of(20)]
    assert len(sink.offers) == 2


async def test_connections_at_one_place_share_a_heartbeats_bytes() -> None:
    """Ten thousand heartbeats are one encoding and no timers."""
    stage = Stage()
    sinks = [stage.open()[1] for _ in range(500)]
    await stage.pass_(BEAT)
    assert len({id(sink.offers[0]) for sink in sinks}) == 1


async def test_compressed_connections_hear_their_heartbeats_together() -> None:
    """Whenever they came: what they are sent afterwards is compressed once for all of them, as before."""
    stage = Stage()
    sinks = []
    for _ in range(3):
        sinks.append(stage.open(SSE_GZIP)[1])
        await stage.pass_(2)
    await stage.pass_(BEAT - 6)
    assert [len(sink.offers) for sink in sinks] == [1, 1, 1]
    stage.hub.receive(make_entries(11, 11))
    assert sinks[0].offers[1] is sinks[1].offers[1] is sinks[2].offers[1]
    await stage.pass_(2 * BEAT)
    assert [len(sink.offers) for sink in sinks] == [4, 4, 4]


async def test_full_connection_hears_no_heartbeat() -> None:
    """Nothing is added behind bytes that the socket did not take."""
    stage = Stage()
    connection, sink = stage.open()
    sink.room = 0
    stage.hub.receive(make_entries(11, 11))
    await stage.pass_(2 * BEAT)
    assert state_of(connection) is State.BLOCKED
    assert len(sink.offers) == 1


async def test_heartbeat_that_fills_the_sink_takes_it_off_the_live_path() -> None:
    """A heartbeat is bytes like others: who does not take it reads on from its position later."""
    stage = Stage()
    connection, sink = stage.open()
    sink.room = 0
    await stage.pass_(BEAT)
    assert state_of(connection) is State.BLOCKED
    sink.drain()
    assert state_of(connection) is State.ATTACHED


async def test_sweep_gives_way_to_others() -> None:
    """Among many connections the sweep lets the loop turn, and one that closes meanwhile is left alone."""
    stage = Stage()
    opened = [stage.open() for _ in range(450)]
    stage.clock.now += BEAT
    sweep = asyncio.create_task(stage.hub.keeper.sweep())
    await turns(1)
    assert sum(bool(sink.offers) for _, sink in opened) == 200
    opened[-1][1].leave()
    await sweep
    assert sum(bool(sink.offers) for _, sink in opened) == 449


# ---- dead clients


async def test_client_that_stops_reading_is_closed_after_the_stale_time() -> None:
    """No progress on a full socket for so long ends the connection without ceremony."""
    stage = Stage()
    connection, sink = stage.open()
    sink.room = 0
    stage.hub.receive(make_entries(11, 11))
    await stage.pass_(STALE_AFTER - 1)
    assert state_of(connection) is State.BLOCKED
    await stage.pass_(BEAT)
    assert (connection.state, sink.aborted) == (State.CLOSED, True)


async def test_client_that_makes_progress_is_not_stale() -> None:
    """A slow reader is not a dead one."""
    stage = Stage()
    connection, sink = stage.open()
    sink.room = 0
    stage.hub.receive(make_entries(11, 11))
    for _ in range(3):
        await stage.pass_(STALE_AFTER - 10)
        sink.stalled_since = stage.clock.now
    assert state_of(connection) is State.BLOCKED


@pytest.mark.parametrize("stale_seconds", [0.0, float("inf")])
async def test_stale_time_can_be_switched_off(stale_seconds: float) -> None:
    """With 0, or for ever, a client that does not read is kept."""
    stage = Stage(stale_seconds=stale_seconds)
    connection, sink = stage.open()
    sink.room = 0
    stage.hub.receive(make_entries(11, 11))
    await stage.pass_(2000)
    assert state_of(connection) is State.BLOCKED


async def test_websocket_client_that_answers_no_ping_is_closed() -> None:
    """So many heartbeats without a sign of life are the end; an answer in time is not."""
    stage = Stage()
    silent, _ = stage.open(WEBSOCKET, heard=True)
    alive, _ = stage.open(WEBSOCKET, heard=True)
    for _ in range(MISSED_PONGS + 1):
        await stage.pass_(BEAT)
        alive.on_data(b"pong")
    assert (silent.state, alive.state) == (State.CLOSED, State.ATTACHED)


async def test_full_websocket_client_need_not_answer() -> None:
    """Who could not read the pings is judged by its progress; once it has, it gets time to answer."""
    stage = Stage()
    connection, sink = stage.open(WEBSOCKET, heard=True)
    sink.room = 0
    stage.hub.receive(make_entries(11, 11))
    await stage.pass_(MISSED_PONGS * BEAT + 2 * BEAT)
    assert state_of(connection) is State.BLOCKED
    sink.drain()
    await stage.pass_(MISSED_PONGS * BEAT)
    assert state_of(connection) is State.ATTACHED
    await stage.pass_(2 * BEAT)
    assert state_of(connection) is State.CLOSED


async def test_heartbeats_can_be_switched_off() -> None:
    """An infinite interval means no heartbeats, and nobody dies of it."""
    stage = Stage(heartbeat_seconds=float("inf"), stale_seconds=float("inf"))
    connection, sink = stage.open(WEBSOCKET, heard=True)
    await stage.pass_(1000)
    assert (connection.state, sink.offers) == (State.ATTACHED, [])


# ---- credentials


async def test_client_is_told_before_its_credential_ends_and_then_closed() -> None:
    """One notice some seconds before, and the end at the second it expires."""
    stage = Stage(heartbeat_seconds=1000)
    connection, sink = stage.open(lives=100)
    await stage.pass_(100 - EXPIRY_NOTICE_SECONDS - 1)
    assert sink.received == []
    await stage.pass_(1)
    assert [(one.kind, one.fields) for one in sink.received] == [("expiring", {"expiresAt": "2025-06-15T15:25:00.000Z"})]
    await stage.pass_(EXPIRY_NOTICE_SECONDS - 1)
    assert state_of(connection) is State.ATTACHED
    await stage.pass_(1)
    assert state_of(connection) is State.CLOSED
    assert sink.kinds() == ["expiring", "closing"]
    assert sink.received[-1].fields == {"code": TOKEN_EXPIRED, "reason": "the credential has expired"}


async def test_credential_that_ends_soon_is_noticed_at_once() -> None:
    """Who opens with some seconds left hears so in the first sweep, and heartbeats go on."""
    stage = Stage(heartbeat_seconds=5)
    connection, sink = stage.open(lives=12)
    await stage.pass_(11)
    assert sink.kinds().count("expiring") == 1
    assert state_of(connection) is State.ATTACHED
    await stage.pass_(1)
    assert state_of(connection) is State.CLOSED


async def test_full_connection_still_ends_with_its_credential() -> None:
    """Not reading does not make a credential last longer; the notice waits behind what is pending."""
    stage = Stage()
    connection, sink = stage.open(lives=100)
    sink.room = 0
    stage.hub.receive(make_entries(11, 11))
    await stage.pass_(90)
    assert connection.outbox is not None
    assert b"expiring" in connection.outbox
    await stage.pass_(10)
    assert state_of(connection) is State.CLOSED
    assert sink.finished is not None


async def test_renewed_credential_ends_later_and_is_announced_again() -> None:
    """A connection goes on with another credential without a break, and its end is announced anew."""
    stage = Stage(heartbeat_seconds=1000)
    connection, sink = stage.open(WEBSOCKET, lives=100)
    await stage.pass_(80)
    stage.hub.hearing.renew(connection, make_principal(expires_at=stage.clock.time() + 100))
    await stage.pass_(60)
    assert (sink.kinds(), connection.state) == (["expiring", "renewed"], State.ATTACHED)
    await stage.pass_(20)
    assert sink.kinds() == ["expiring", "renewed", "expiring"]
    await stage.pass_(20)
    assert state_of(connection) is State.CLOSED


# ---- the end


async def test_closed_connection_may_linger_but_not_for_ever() -> None:
    """The last bytes get some seconds; then the socket is closed whatever its client does."""
    stage = Stage()
    connection, sink = stage.open()
    stage.hub.close(connection, 1000, "enough")
    await stage.pass_(LINGER_SECONDS - 1)
    assert not sink.aborted
    await stage.pass_(1)
    assert sink.aborted


async def test_sweep_runs_until_it_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The task sweeps again and again."""
    monkeypatch.setattr("hub.keeper.SWEEP_SECONDS", 0)
    stage = Stage()
    _, sink = stage.open()
    task = asyncio.create_task(stage.hub.keeper.run())
    await turns(2)
    stage.clock.now += BEAT
    await turns(4)
    assert len(sink.offers) == 1
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_heartbeat_waits_until_the_first_entry_was_read() -> None:
    """Before a connection has found its beginning it has no position to tell."""
    stage = Stage()
    connection, sink = connect(stage.hub, SSE, stage.clock)
    stage.hub.open(connection, frozenset({Subscription()}), await stage.hub.locate("earliest", field="from"))
    await stage.pass_(BEAT)
    assert connection.start is not None
    assert sink.kinds() == ["welcome"]


async def test_heartbeats_more_often_than_sweeps_are_kept() -> None:
    """The sweep runs as often as heartbeats are due, so no client is sent away for not answering a ping that it never got."""
    stage = Stage(heartbeat_seconds=0.01)
    connection, sink = stage.open(WEBSOCKET, heard=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hub.keeper.SWEEP_SECONDS", 3600)
        task = asyncio.create_task(stage.hub.keeper.run())
        stage.clock.now += 0.01
        await wait_until(lambda: sink.received, "a heartbeat")
        assert connection.state is State.ATTACHED
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("blocked", [False, True])
async def test_a_process_that_stood_still_does_not_blame_its_clients(blocked: bool) -> None:
    """It has read nothing of what they answered meanwhile: their time begins anew when it goes on, and then counts as ever."""
    stage = Stage()
    connection, sink = stage.open(WEBSOCKET, heard=True)
    if blocked:
        sink.room = 0
        stage.hub.receive(make_entries(11, 11))
    stage.clock.now += 10 * STALE_AFTER
    await stage.pass_(MISSED_PONGS * BEAT)
    assert state_of(connection) is (State.BLOCKED if blocked else State.ATTACHED)
    await stage.pass_(STALE_AFTER + BEAT if blocked else BEAT + 1)
    assert connection.closed
