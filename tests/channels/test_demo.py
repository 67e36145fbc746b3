"""Tests of channels/demo.py: the feed is made of the samples of all declared types, with something to see for each family of users."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice

import msgspec

from channels import demo
from channels.families import EVENT_TYPES
from handlers.events import EventIn, accept
from hub.principal import Principal, audience_of, audiences_of
from storage.entries import NewEvent

NOON = 1_795_176_000.0  # 2026-11-20T12:00:00Z
EVENTS = 2000


def feed(count: int = EVENTS) -> list[NewEvent]:
    """Return the first events of the feed."""
    return list(islice(demo.events(lambda: NOON), count))


def payloads(type: str) -> list[dict[str, object]]:
    """Return the payloads of the first events of a type."""
    return [json.loads(event.data) for event in feed() if event.type == type]


def test_the_feed_has_every_declared_type() -> None:
    """A type that is declared is in the feed, again and again; prices come all the time, since they move everything else."""
    assert sorted([*demo.MOVES, demo.PRICE]) == sorted(EVENT_TYPES)
    counts = Counter(event.type for event in feed())
    assert all(counts[type] > 1 for type in EVENT_TYPES)
    assert [event.type == demo.PRICE for event in feed(6)] == [False, True] * 3


def test_each_family_has_its_turn() -> None:
    """Whoever watches one family does not wait for long."""
    assert len(demo.TURNS) == 5
    shown = [event.type for event in feed() if event.type != demo.PRICE]
    for place, types in enumerate(demo.TURNS):
        assert set(shown[place :: len(demo.TURNS)]) == set(types)


def test_the_feed_never_stands_still() -> None:
    """Two events of one type, one after the other, differ, and say when they were made."""
    for type in EVENT_TYPES:
        first, second, *_ = payloads(type)
        assert first != second, type
        assert {one.get("timestamp", "2026-11-20T12:00:00.000Z") for one in (first, second)} == {"2026-11-20T12:00:00.000Z"}


def test_the_feed_is_what_publishers_may_publish() -> None:
    """The feed is no exception to what publishers are held to, and says of its events what would be said of theirs."""
    publisher = Principal(demo.PUBLISHER, roles=frozenset({"publisher"}))
    for event in feed():
        audience = [token for token in event.audience if not token.startswith("resource:channel/")]
        given = EventIn(event.topic, event.type, audience, msgspec.Raw(event.data.encode()), source=event.source)
        (taken,) = accept([given], publisher, max_event_bytes=1 << 18, correlation_id="c")
        assert {**taken.document(), "correlationId": None} == {**event.document(), "correlationId": None}


def test_the_demo_user_may_see_everything() -> None:
    """One token shows all of the feed, and of its resources it shows what a stream about one of them shows."""
    audiences = audiences_of(demo.USER, demo.ORG, demo.ENTITY, frozenset())
    assert all(audiences & set(event.audience) for event in feed())
    seen = {token for event in feed() for token in event.audience}
    assert {audience_of(resource) for resource in demo.OWNED} < seen


def test_positions_open_change_and_close() -> None:
    """The portfolio has something to do: what is held goes up, and back to nothing."""
    held = {one["quantity"] for one in payloads("position:update")}
    assert len(held) > 1
    assert "0" in held
