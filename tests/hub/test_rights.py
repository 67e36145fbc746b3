"""Tests of hub/rights.py: what the log tells of rights takes effect before anything after it, in every state of a connection."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterable

import pytest

from hub.connection import Connection, Coverage, Start, State
from hub.control import CONTROL_TOPIC, Changed, Control, Renewed, Revoked, control_event
from hub.errors import REPLACED, UNAUTHENTICATED, TooMany, Unauthenticated
from hub.formats import SSE, WEBSOCKET
from hub.hub import Hub
from hub.principal import PUBLIC, Principal
from hub.rights import FORGET_REVOCATIONS_SECONDS, ORG_RETRY_SECONDS
from hub.subscriptions import EVERYTHING, Subscription
from storage.entries import Entry
from storage.owned import Owned
from storage.positions import Position
from storage.revoked import Revocation
from tests.hub.fakes import CODEC, FIRST_MS, ListLog, ManualClock, RecordingSink, connect, make_entry, place_of, turns

R1 = "resource:stream/1"
NAMES_R1 = Subscription(EVERYTHING, audiences=frozenset({R1}))


class Stage:
    """A hub at the head of a log of ten public entries, whose processes tell each other things."""

    def __init__(self, *, per_user: int = 0, per_org: int = 0, chunk_bytes: int = 65536) -> None:
        self.clock = ManualClock()
        self.log = ListLog([make_entry(seq) for seq in range(1, 11)])
        self.hub = Hub(self.log, self.clock, connections_per_user=per_user, connections_per_org=per_org, chunk_bytes=chunk_bytes)
        self.hub.start(place_of(10))
        self.rights = self.hub.rights

    def tell(self, *told: Control | str) -> None:
        """Append what processes tell each other, and events for the audiences that are named, in one batch."""
        first = self.log.entries[-1].seq + 1
        entries = [self._entry(seq, one) for seq, one in enumerate(told, first)]
        self.log.entries += entries
        self.hub.receive(entries)

    def _entry(self, seq: int, told: Control | str) -> Entry:
        if isinstance(told, str):
            return make_entry(seq, audience=(told,))
        return Entry.of({**control_event(told).document(), "_id": seq, "ms": FIRST_MS + seq}, CODEC)

    def open(
        self,
        user: str = "u1",
        *,
        org: str | None = None,
        owned: Iterable[str] = (),
        owns_all: bool = True,
        subscription: Subscription = Subscription(),  # noqa: B008  # a value that never changes
        start: Start | None = None,
        **more: float | str | None,
    ) -> tuple[Connection, RecordingSink]:
        """Open an SSE connection."""
        principal = Principal(user, org, audiences=frozenset({PUBLIC, f"user:{user}"}), **more)  # type: ignore[arg-type]
        connection, sink = connect(self.hub, SSE, self.clock, principal=principal, client_id=f"c{len(self.hub.connections)}")
        connection.owned, connection.owns_all = frozenset(owned), owns_all
        self.rights.check(principal)
        self.hub.open(connection, frozenset({subscription}), start)
        return connection, sink


@contextlib.asynccontextmanager
async def reading(stage: Stage) -> AsyncIterator[None]:
    """Let those behind the head read on."""
    task = asyncio.create_task(stage.hub.catch_up.run())
    try:
        yield
    finally:
        task.cancel()
        await stage.hub.catch_up.pages.close()
        await asyncio.gather(task, return_exceptions=True)


def revoked(kind: str, id: str, before: float = 1e12) -> Revoked:
    """Return a revocation that lasts."""
    return Revoked(Revocation(kind, id, before, 2e12))


def changed(*owners: str, version: int = 1) -> Changed:
    """Return that stream/1 belongs to these now."""
    return Changed(Owned("stream/1", owners, version))


# ---- who may connect


async def test_who_is_revoked_may_not_connect() -> None:
    """However good its signature is."""
    stage = Stage()
    stage.tell(revoked("token", "t1"))
    stage.open(token_id="t2")
    with pytest.raises(Unauthenticated, match="revoked"):
        stage.open(token_id="t1")


async def test_an_organisation_has_so_many_connections(expected_logs: list[str]) -> None:
    """The last one is let in, one more is refused with a time to come back; others are not concerned, and who leaves makes room."""
    stage = Stage(per_org=2)
    first, _ = stage.open("u1", org="o1")
    stage.open("u2", org="o1")
    with pytest.raises(TooMany) as caught:
        stage.open("u3", org="o1")
    assert caught.value.retry_after == ORG_RETRY_SECONDS
    stage.open("u3", org="o2")
    stage.open("u3")
    stage.hub.gone(first, "left")
    stage.open("u3", org="o1")


async def test_one_more_of_a_user_closes_the_oldest(expected_logs: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """It is told why, and the log tells whose it was; those of others stay (S6, D9)."""
    expected_logs.append("too many connections")
    stage = Stage(per_user=2)
    (oldest, sink), (second, _), (third, _) = stage.open(), stage.open(), stage.open("u2")
    assert len(stage.hub.connections) == 3
    with caplog.at_level(logging.WARNING):
        newest, _ = stage.open()
    assert oldest.closed
    assert not any(one.closed for one in (second, third, newest))
    (closing,) = sink.of("closing")
    assert closing.fields["code"] == REPLACED
    assert "at most 2" in closing.fields["reason"]
    (record,) = [one for one in caplog.records if one.message == "too many connections"]
    assert record.__dict__["fields"] == {**oldest.describe(), "limit": 2}


# ---- revocations


@pytest.mark.parametrize(("kind", "id"), [("token", "t1"), ("session", "s1"), ("user", "u1"), ("org", "o1")])
async def test_a_revocation_ends_the_connections_concerned(kind: str, id: str) -> None:
    """With 4401, and before the event that comes behind it in the same batch; nobody else notices."""
    stage = Stage()
    concerned, sink = stage.open("u1", org="o1", token_id="t1", session_id="s1")
    other, others = stage.open("u2", org="o2", token_id="t2", session_id="s2")
    stage.tell(PUBLIC, revoked(kind, id), PUBLIC)
    assert concerned.closed
    assert sink.kinds() == ["welcome", "closing"]
    assert sink.of("closing")[0].fields["code"] == UNAUTHENTICATED
    assert not other.closed
    assert others.numbers() == [11, 13]


async def test_a_revocation_ends_a_replay() -> None:
    """A connection that is behind the head gets nothing of what it has not read yet (S3)."""
    stage = Stage()
    connection, sink = stage.open(start=Start(Position(0, 0)))
    assert connection.state is State.READING
    stage.tell(revoked("user", "u1"))
    async with reading(stage):
        await turns(30)
    assert sink.kinds() == ["welcome", "closing"]


async def test_revocations_whose_time_is_over_are_forgotten_now_and_then() -> None:
    """Not at every one, since that looks at all of them."""
    stage = Stage()
    now = stage.clock.time()
    stage.tell(Revoked(Revocation("token", "t1", now, now + 1)))
    stage.clock.now += 2
    stage.tell(revoked("token", "t2"))
    assert len(stage.rights.revocations) == 2
    stage.clock.now += FORGET_REVOCATIONS_SECONDS
    stage.tell(revoked("token", "t3"))
    assert len(stage.rights.revocations) == 2


async def test_nothing_to_revoke_changes_nothing() -> None:
    """As when a process starts and nothing is kept."""
    stage = Stage()
    connection, _ = stage.open()
    stage.rights.revoke([])
    assert not connection.closed


# ---- renewals


async def test_a_renewal_finds_its_connection() -> None:
    """By its id and its user; the client is told until when it holds now."""
    stage = Stage()
    connection, sink = stage.open(expires_at=stage.clock.time() + 10)
    _, others = stage.open()
    renewed = Principal("u1", expires_at=stage.clock.time() + 100)
    stage.tell(Renewed(connection.client_id, renewed))
    assert connection.principal is not None
    assert connection.principal.expires_at == renewed.expires_at
    assert sink.kinds() == ["welcome", "renewed"]
    assert others.kinds() == ["welcome"]


async def test_a_renewal_tells_whether_its_connection_is_here() -> None:
    """If it is not, another process may have it: neither another user's nor one that is over is found."""
    stage = Stage()
    connection, _ = stage.open()
    stage.open()
    assert stage.rights.renew(Renewed(connection.client_id, Principal("u1")))
    assert not stage.rights.renew(Renewed(connection.client_id, Principal("u2")))
    assert not stage.rights.renew(Renewed("another", Principal("u1")))
    stage.hub.gone(connection, "left")
    assert not stage.rights.renew(Renewed(connection.client_id, Principal("u1")))


@pytest.mark.parametrize("principal", [Principal("u2"), Principal("u1", "o2"), Principal("u1", token_id="t1")])
async def test_a_renewal_with_what_does_not_hold_for_it_does_nothing(principal: Principal, expected_logs: list[str]) -> None:
    """Neither another user's, nor another organisation's, nor one that is revoked."""
    expected_logs.append("not renewed")
    stage = Stage()
    connection, sink = stage.open()
    before = connection.principal
    stage.tell(revoked("token", "t1"), Renewed(connection.client_id, principal))
    assert connection.principal is before
    assert sink.kinds() == ["welcome"]


# ---- ownership


async def test_who_is_given_a_resource_hears_of_it_at_once() -> None:
    """By whichever of its names; whoever hears only of what it has named does not, and others never do."""
    stage = Stage()
    _, mine = stage.open("u1")
    _, ours = stage.open("u2", org="o1")
    _, limited = stage.open("u1", owns_all=False, subscription=Subscription("other"))
    _, others = stage.open("u3")
    stage.tell(changed("user:u1", "org:o1"), R1)
    assert mine.numbers() == ours.numbers() == [12]
    assert limited.numbers() == others.numbers() == []


async def test_what_is_taken_away_is_not_heard_of_any_more() -> None:
    """Not even of what came just before it in the same batch."""
    stage = Stage()
    _, old = stage.open("u1", owned=[R1])
    _, new = stage.open("u2")
    stage.tell(R1, changed("user:u2"), R1)
    assert old.numbers() == []
    assert new.numbers() == [11, 13]


async def test_a_named_resource_that_comes_back_is_heard_of_again() -> None:
    """A connection that names it hears of it whenever it is its principal's."""
    stage = Stage()
    connection, sink = stage.open(owned=[R1], owns_all=False, subscription=NAMES_R1)
    stage.tell(changed(version=1), R1)
    assert connection.owned == frozenset()
    stage.tell(changed("user:u1", version=2), R1)
    assert sink.numbers() == [14]


async def test_an_older_change_does_not_undo_a_newer_one() -> None:
    """Two processes may tell of theirs in the wrong order: the version decides."""
    stage = Stage()
    _, sink = stage.open()
    stage.tell(changed(version=2), changed("user:u1", version=1), R1)
    assert sink.numbers() == []


async def test_what_stays_is_left_alone() -> None:
    """A further owner is no change for whoever was one."""
    stage = Stage()
    connection, sink = stage.open(owned=[R1])
    interest = connection.interest
    stage.tell(changed("user:u1", "user:u2"), R1)
    assert connection.interest is interest
    assert sink.numbers() == [12]


@pytest.mark.parametrize("state", [State.ATTACHED, State.READING, State.BLOCKED, State.AHEAD])
async def test_in_no_state_is_an_event_of_a_lost_resource_delivered(state: State) -> None:
    """Live, in a replay, after a slow spell, and while the head has not come yet (L9)."""
    stage = Stage()
    stage.tell(R1, PUBLIC)
    starts = {State.READING: Start(Position(0, 0)), State.AHEAD: Start(place_of(14))}
    connection, sink = stage.open(owned=[R1], start=starts.get(state))
    if state is State.BLOCKED:
        sink.room = 0
        stage.tell(PUBLIC)
    assert connection.state is state
    stage.tell(R1, changed("user:u2"), R1, R1, R1, PUBLIC)
    async with reading(stage):
        sink.drain()
        await turns(50)
        stage.tell(R1, PUBLIC)
        await turns(50)
    assert connection.state is State.ATTACHED
    owned = {entry.seq for entry in stage.log.entries if R1 in entry.audience}
    assert not owned.intersection(sink.numbers())
    assert sink.numbers()[-1] == stage.hub.head.seq


async def test_a_given_resource_is_part_of_a_running_replay() -> None:
    """From the moment it is the principal's, also what the log still has of it."""
    stage = Stage()
    stage.tell(R1)
    _, sink = stage.open(start=Start(Position(0, 0)))
    stage.tell(changed("user:u1"), R1)
    async with reading(stage):
        await turns(30)
    assert sink.numbers() == [*range(1, 12), 13]


async def test_coverage_of_several_subscriptions_knows_no_lost_resource() -> None:
    """A WebSocket that goes back for one of its subscriptions is asked by its coverage, and that by its rights of now."""
    stage = Stage()
    stage.tell(R1, PUBLIC)
    connection, sink = connect(stage.hub, WEBSOCKET, stage.clock, principal=Principal("u1"))
    connection.owned = frozenset({R1})
    connection.coverage = {"a.*": Coverage(Subscription("a.*"), 12)}
    connection.limit_coverage()
    stage.hub.open(connection, frozenset({Subscription("a.*")}), None)
    start = Start(Position(0, 0))
    stage.hub.hearing.subscribe(connection, Subscription(EVERYTHING), start)
    stage.hub.hearing.replay(connection, start)
    stage.tell(changed("user:u2"))
    async with reading(stage):
        await turns(30)
    assert sink.numbers() == [*range(1, 11), 12]


# ---- holes


async def test_after_a_hole_rights_must_be_asked_for(expected_logs: list[str]) -> None:
    """What the lost entries told nobody knows, so whatever was asked before is not enough either."""
    expected_logs.append("gap reported")
    stage = Stage()
    stage.open()
    mark = stage.rights.changes.mark()
    assert not stage.rights.missed.is_set()
    stage.log.entries.append(make_entry(20))
    stage.hub.receive(stage.log.entries[-1:])
    assert stage.rights.missed.is_set()
    assert stage.rights.changes.forgot(mark)


async def test_another_log_is_a_hole() -> None:
    """What was told in the one that is gone must be asked for."""
    stage = Stage()
    stage.hub.restart("log recreated")
    assert stage.rights.missed.is_set()


async def test_nobody_hears_what_processes_tell_each_other() -> None:
    """Whatever is subscribed to."""
    stage = Stage()
    _, sink = stage.open(subscription=Subscription(CONTROL_TOPIC))
    _, all_of_it = stage.open(subscription=Subscription(EVERYTHING))
    stage.tell(revoked("user", "u2"))
    assert sink.numbers() == all_of_it.numbers() == []


async def test_who_comes_to_own_too_much_must_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that hears of all that is its principal's is closed beyond the bound; one that names a few is not concerned."""
    monkeypatch.setattr("hub.rights.MAX_OWNED", 1)
    stage = Stage()
    (every, sink), (naming, _) = stage.open(owned={R1}), stage.open(owned={R1}, owns_all=False, subscription=NAMES_R1)
    stage.tell(changed("user:u1"))
    assert list(stage.hub.connections) == [every, naming]
    stage.tell(Changed(Owned("stream/2", ("user:u1",), 1)))
    assert list(stage.hub.connections) == [naming]
    assert sink.received[-1].fields["code"] == 1008
    assert naming.owned == {R1}
