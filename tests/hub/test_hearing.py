"""Tests of hub/hearing.py: bounds, and what a role alone lets a connection hear. Subscribing and renewing itself: test_hub.py."""

from __future__ import annotations

import pytest

from hub.connection import Start, State
from hub.errors import Forbidden
from hub.formats import SSE, WEBSOCKET
from hub.hearing import MAX_CLAIMS
from hub.hub import Hub
from hub.principal import Principal
from hub.subscriptions import EVERYTHING, Subscription
from tests.hub.fakes import ListLog, ManualClock, connect, everything, id_of, make_entries, make_entry, place_of


def make_hub() -> tuple[Hub, ManualClock]:
    """Return a hub at entry 10 of its log, in which nobody catches up."""
    clock = ManualClock()
    hub = Hub(ListLog(make_entries(1, 10)), clock)
    hub.start(place_of(10))
    return hub, clock


@pytest.mark.parametrize(("waiting", "ends"), [(MAX_CLAIMS - 1, False), (MAX_CLAIMS, True)])
async def test_positions_that_wait_to_be_looked_at_are_bounded(waiting: int, ends: bool) -> None:
    """A client that subscribes at ever new positions without reading on is closed at the limit, not before."""
    hub, clock = make_hub()
    connection, sink = connect(hub, WEBSOCKET, clock)
    hub.open(connection, frozenset(), None)
    connection.coverage = {}
    connection.start = Start(place_of(3), claims=((place_of(3), id_of(3)),) * waiting)
    connection.detach(State.BLOCKED, place_of(3))
    start = Start(place_of(4), claims=((place_of(4), id_of(4)),))
    hub.hearing.subscribe(connection, Subscription(EVERYTHING), start)
    hub.hearing.replay(connection, start)
    assert connection.closed == ends
    assert ("closing" in [one.kind for one in sink.received]) == ends


async def test_what_a_role_lets_it_hear_is_heard_beside_its_own() -> None:
    """An admin's connection may be granted an audience that its credential does not have."""
    hub, clock = make_hub()
    connection, sink = connect(hub, SSE, clock, principal=Principal("a1", roles=frozenset({"admin"}), audiences=frozenset({"user:a1"})))
    connection.granted = frozenset({"user:u2"})
    hub.open(connection, everything(), None)
    hub.receive([make_entry(11, audience=["user:u1"]), make_entry(12, audience=["user:u2"]), make_entry(13, audience=["user:a1"])])
    assert sink.numbers() == [12, 13]


async def test_it_cannot_go_on_with_a_credential_that_lacks_the_role() -> None:
    """Renewal by the same user without the role is refused, and with it is not."""
    hub, clock = make_hub()
    admin = Principal("a1", roles=frozenset({"admin"}))
    connection, _ = connect(hub, SSE, clock, principal=admin)
    connection.granted = frozenset({"user:u2"})
    hub.open(connection, everything(), None)
    with pytest.raises(Forbidden, match="only an admin may"):
        hub.hearing.renew(connection, Principal("a1"))
    hub.hearing.renew(connection, admin)
    assert connection.principal is admin
