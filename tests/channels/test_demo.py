"""Tests of channels/demo.py: the sample events are good events, with something to see for each family of users."""

from __future__ import annotations

import json
from itertools import islice

import msgspec

from channels import demo
from handlers.events import EventIn, accept
from hub.principal import Principal, audiences_of


def test_the_feed_goes_round_and_never_repeats_itself() -> None:
    """One event of each sample, then again with the next number in its data."""
    count = len(demo.SAMPLES)
    events = list(islice(demo.events(), 2 * count))
    assert [event.type for event in events] == [sample.type for sample in demo.SAMPLES] * 2
    assert all("%d" not in event.data for event in events)
    assert any(first.data != second.data for first, second in zip(events[:count], events[count:], strict=True))


def test_sample_events_would_be_taken_from_a_publisher() -> None:
    """The feed is no exception to what publishers are held to."""
    publisher = Principal(demo.PUBLISHER, roles=frozenset({"publisher"}))
    for event in islice(demo.events(), len(demo.SAMPLES)):
        given = EventIn(event.topic, event.type, list(event.audience), msgspec.Raw(event.data.encode()), source=event.source)
        (taken,) = accept([given], publisher, max_event_bytes=1 << 18, correlation_id="c")
        assert taken.data == event.data
        json.loads(taken.data)


def test_the_demo_user_may_see_every_sample() -> None:
    """One token shows all of the feed."""
    audiences = audiences_of(demo.USER, demo.ORG, demo.ENTITY, frozenset())
    assert all(audiences & set(sample.audience) for sample in demo.SAMPLES)
