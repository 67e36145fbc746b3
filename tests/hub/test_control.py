"""Tests of hub/control.py: what processes tell each other arrives as it was said, and nothing else is taken for it."""

from __future__ import annotations

import pytest

from hub.control import CONTROL_TOPIC, Changed, Control, Renewed, Revoked, control_event, read_control
from hub.principal import PUBLIC, Principal
from storage.entries import Entry, NewEvent
from storage.owned import Owned
from storage.revoked import Revocation
from tests.hub.fakes import CODEC, make_entry

CONTROLS: list[Control] = [
    Revoked(Revocation("user", "u1", 100.25, 200.5)),
    Changed(Owned("stream/1", ("user:u1", "org:ö1"), 1 << 41)),
    Changed(Owned("stream/1", (), 3)),
    Renewed("c1", Principal("u1")),
    Renewed("c1", Principal("u1", "o1", "e1", frozenset({"user", "x"}), frozenset({PUBLIC, "user:u1"}), 2.5, 1.0, "t1", "s1")),
]


def appended(event: NewEvent) -> Entry:
    """Return an event as it is read from the log."""
    return Entry.of({**event.document(), "_id": 1, "ms": 5}, CODEC)


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: type(control).__name__)
def test_what_is_said_is_what_is_read(control: Control) -> None:
    """Every field survives the log, times and versions exactly."""
    assert read_control(appended(control_event(control, "r1"))) == control


def test_nobody_can_be_sent_it() -> None:
    """Its audience is empty and its topic is the server's own; it is followed by its correlation id like any event."""
    event = control_event(CONTROLS[0], "r1")
    assert (event.topic, event.type, event.audience, event.correlation_id) == (CONTROL_TOPIC, "control:revoked", (), "r1")


@pytest.mark.parametrize(
    "entry",
    [
        make_entry(1, "orders.eu", audience=(), data='{"what":"revoked","revocation":["user","u1",1,2]}'),
        make_entry(1, CONTROL_TOPIC, audience=(PUBLIC,), data='{"what":"revoked","revocation":["user","u1",1,2]}'),
        make_entry(1, CONTROL_TOPIC, audience=(), data='{"what":"something new"}'),
        make_entry(1, CONTROL_TOPIC, audience=(), data='{"what":"revoked"}'),
        make_entry(1, CONTROL_TOPIC, audience=(), data="no JSON"),
    ],
)
def test_anything_else_is_not_heeded(entry: Entry) -> None:
    """Not another topic, not what has an audience, and not what this version does not know."""
    assert read_control(entry) is None
