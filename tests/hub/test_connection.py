"""Tests of hub/connection.py: states, starts that are merged, and what several subscriptions have had."""

from __future__ import annotations

from typing import Any

import pytest

from hub.connection import Connection, Coverage, Start, State, offer_all
from hub.formats import SSE, SSE_GZIP, WEBSOCKET, Format
from hub.interest import Interest
from hub.subscriptions import Subscription, make_subscription
from storage.positions import Position
from tests.hub.fakes import ManualClock, RecordingSink, make_entry, make_principal, place_of


class Owner:
    """Remembers what a connection tells."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def drained(self, connection: Connection) -> None:
        self.calls.append(("drained", connection))

    def gone(self, connection: Connection, reason: str) -> None:
        self.calls.append(("gone", connection, reason))

    def heard(self, connection: Connection) -> None:
        self.calls.append(("heard", connection))


class Inbox:
    """Remembers what the client said."""

    def __init__(self) -> None:
        self.data = b""

    def on_data(self, data: bytes) -> None:
        self.data += data

    def on_closed(self) -> None:
        """Nothing to do."""


def make(*held: Coverage) -> Connection:
    """Return a connection that holds these subscriptions."""
    connection = Connection("c1", make_principal(), WEBSOCKET, RecordingSink(WEBSOCKET, ManualClock()), Owner())
    connection.coverage = {one.subscription.topic: one for one in held}
    connection.interest = Interest(connection.principal.audiences, connection.subscriptions(), WEBSOCKET)
    connection.limit_coverage()
    return connection


def held(topic: str, start: int, done: int | None = None, **bounds: Any) -> Coverage:
    """Return a subscription that begins after `start` and has had what is up to `done`."""
    one = Coverage(make_subscription(topic, [], [], bounds), start)
    one.done = start if done is None else done
    return one


def test_connection_passes_on_what_its_sink_tells() -> None:
    """Drained, data and the end go to the owner, and data to whoever reads it."""
    owner, inbox = Owner(), Inbox()
    connection = Connection("c1", make_principal(), SSE, RecordingSink(SSE, ManualClock()), owner)
    connection.on_drained()
    connection.on_data(b"nobody reads this")
    connection.inbox = inbox
    connection.on_data(b"hello")
    connection.on_closed("reset")
    assert owner.calls == [("drained", connection), ("heard", connection), ("heard", connection), ("gone", connection, "reset")]
    assert inbox.data == b"hello"


def test_attached_connection_is_in_its_interest_until_it_is_detached() -> None:
    """Being ATTACHED and being pushed to are one thing; detaching notes where it stands."""
    connection = make()
    assert connection.interest is not None
    connection.attach()
    assert (connection.state, list(connection.interest.attached)) == (State.ATTACHED, [connection])
    connection.detach(State.BLOCKED, place_of(7))
    assert (connection.state, connection.position, list(connection.interest.attached)) == (State.BLOCKED, place_of(7), [])
    connection.detach(State.CLOSED, place_of(8))
    assert (connection.state, connection.position) == (State.CLOSED, place_of(8))


def test_connection_describes_itself_without_secrets() -> None:
    """Log lines say who and how."""
    assert make().describe() == {"clientId": "c1", "correlationId": "c1", "user": "u1", "transport": "websocket", "channel": "stream"}
    sink = RecordingSink(SSE, ManualClock())
    assert Connection("c1", make_principal(), SSE, sink, Owner(), "r9").describe()["correlationId"] == "r9"


def test_merged_start_leaves_out_nothing() -> None:
    """The earlier place counts, what either lost is reported, and only two from the earliest are one."""
    lost = ("x", "unknown position")
    assert Start(place_of(5)).merge(Start(place_of(3))) == Start(place_of(3))
    assert Start(place_of(5)).merge(Start(Position(0, 0), lost)) == Start(Position(0, 0), lost)
    assert Start(Position(0, 0), lost).merge(Start(place_of(5))) == Start(Position(0, 0), lost)
    earliest = Start(Position(0, 0), from_earliest=True)
    assert earliest.merge(earliest).from_earliest
    assert not earliest.merge(Start(place_of(5))).from_earliest


def test_entry_before_every_start_is_not_wanted() -> None:
    """A subscription wants what comes after its start."""
    connection = make(held("**", 10))
    assert not connection.wants(make_entry(10))
    assert connection.wants(make_entry(11))


def test_entry_that_one_subscription_had_is_not_sent_for_another() -> None:
    """When the connection goes back for a new subscription, the others' entries are not repeated."""
    connection = make(held("a.*", 10, done=50), held("**", 5))
    assert not connection.wants(make_entry(30, topic="a.b"))
    assert connection.wants(make_entry(30, topic="b"))
    assert connection.wants(make_entry(8, topic="a.b"))
    assert connection.wants(make_entry(51, topic="a.b"))


def test_entry_outside_audience_or_bounds_is_not_wanted() -> None:
    """Going back in the log shows nobody more than being live did."""
    connection = make(held("**", 0, minN=5))
    assert not connection.wants(make_entry(1, audience=["user:u2"], data='{"n": 9}'))
    assert not connection.wants(make_entry(1, data='{"n": 1}'))
    assert connection.wants(make_entry(1, data='{"n": 9}'))


def test_connection_without_changing_subscriptions_wants_nothing_by_coverage() -> None:
    """On SSE, and when it is closed, the interest says all."""
    connection = make(held("**", 0))
    connection.interest = None
    assert not connection.wants(make_entry(1))
    connection = make()
    connection.coverage = None
    assert not connection.wants(make_entry(1))
    assert connection.subscriptions() == frozenset()
    assert not connection.missed(100)


def test_coverage_is_asked_up_to_the_furthest_place() -> None:
    """Beyond every start and everything had, the interest alone decides."""
    assert make().covered_to == 0
    assert make(held("a", 10), held("b", 5, done=30)).covered_to == 30


def test_covering_never_goes_back() -> None:
    """A second rewind in the middle of a first forgets nothing of what was had."""
    connection = make(held("a", 10, done=50), held("b", 5))
    connection.cover(place_of(20))
    assert {topic: one.done for topic, one in (connection.coverage or {}).items()} == {"a": 50, "b": 20}
    assert connection.subscriptions() == {Subscription("a"), Subscription("b")}


def test_subscription_with_a_place_of_its_own_misses_what_is_gone_behind_it() -> None:
    """Going back to the earliest entry, only those who had come further before can lose something."""
    connection = make(held("a", 10, done=40), held("b", 0), held("c", 90))
    connection.position = Position(0, 0)
    assert not connection.missed(41)
    assert connection.missed(42)


def test_connection_hears_of_the_resources_that_it_names_unless_it_hears_of_all() -> None:
    """Without a name of its own for a resource, it hears of it only if it wants to hear of everything that is its principal's."""
    connection = make(Coverage(Subscription("a", audiences=frozenset({"resource:r/1"})), 0), held("b", 0))
    assert connection.hears_of("resource:r/2")
    connection.owns_all = False
    assert connection.named() == {"resource:r/1"}
    assert connection.hears_of("resource:r/1")
    assert not connection.hears_of("resource:r/2")


def test_connection_may_receive_what_it_owns_besides_its_credentials_audiences() -> None:
    """What it owns changes while it lives; what its credential says is not touched by that."""
    connection = make()
    assert connection.audiences() == connection.principal.audiences
    connection.owned = frozenset({"resource:r/1"})
    assert connection.audiences() == {*connection.principal.audiences, "resource:r/1"}


def test_connection_is_over_once_it_is_closed() -> None:
    """And in no other state."""
    connection = make()
    assert not connection.closed
    connection.detach(State.CLOSED, place_of(1))
    assert connection.closed is True


def test_connection_whose_place_is_another_one_starts_over() -> None:
    """So do those of its subscriptions that begin there; the others begin where they did."""
    connection = make(held("a", 5), held("b", 3))
    start = Start(place_of(2))
    connection.start_over(5, start)
    assert connection.start is start
    assert connection.position == place_of(2)
    assert {one.subscription.topic: (one.start, one.done) for one in (connection.coverage or {}).values()} == {"a": (2, 2), "b": (3, 3)}
    assert connection.covered_to == 3


@pytest.mark.parametrize("format", [SSE, SSE_GZIP, WEBSOCKET])
def test_what_several_get_is_made_once_and_who_cannot_take_it_is_named(format: Format) -> None:
    """Each reads the same, compressed or not, and all who had the same before are offered the same bytes."""
    sinks = [RecordingSink(format, ManualClock()) for _ in range(3)]
    connections = [Connection("c1", make_principal(), format, sink, Owner()) for sink in sinks]
    for one in connections:
        assert one.offer(format.message("live", {"position": "p" * 100}))
    sinks[1].room = 10
    assert offer_all(format.join([format.event(make_entry(1))]), connections) == [connections[1]]
    assert sinks[0].offers[1] is sinks[1].offers[1] is sinks[2].offers[1]
    assert [sink.numbers() for sink in sinks] == [[1], [1], [1]]
    sinks[1].drain()
    for one, sink in zip(connections, sinks, strict=True):
        one.finish(format.closing(1000, "over", None))
        assert sink.decoder.ended
