"""Tests of hub/fanout.py: one encoding, one payload, one send for each who is at the head."""

from __future__ import annotations

import logging

import pytest

from hub.connection import Connection
from hub.fanout import FanOut
from hub.formats import SSE, WEBSOCKET, Format
from hub.gathering import FRAMING_BYTES
from hub.pace import Pacer
from hub.principal import Principal
from hub.router import Router
from hub.subscriptions import Subscription, make_subscription
from storage.entries import HIGH, Entry
from tests.hub.fakes import ManualClock, RecordingSink, make_entries, make_entry, place_of


class Stage:
    """A fan-out, and connections at the head of the log."""

    def __init__(self, chunk_bytes: int = 65536) -> None:
        self.router = Router()
        self.clock = ManualClock()
        self.pacer = Pacer(self.clock.monotonic, chunk_bytes)
        self.fan_out = FanOut(self.router, self.pacer, chunk_bytes)

    def push(self, entries: list[Entry]) -> list[Connection]:
        """Push a piece."""
        return self.fan_out.push(entries, place_of(entries[0].seq - 1))

    def attach(self, subscription: Subscription | None = None, format: Format = SSE, audience: str = "public") -> RecordingSink:
        """Attach a connection with one subscription, and return its sink."""
        sink = RecordingSink(format, ManualClock())
        connection = Connection("c", Principal("u", audiences=frozenset({audience})), format, sink, None)  # type: ignore[arg-type]
        sink.owner = connection
        connection.interest = self.router.intern(connection.principal.audiences, frozenset({subscription or Subscription()}), format)
        connection.attach()
        return sink


def test_batch_reaches_each_connection_in_one_send() -> None:
    """What a batch holds for a connection is joined, in log order."""
    stage = Stage()
    first, second = stage.attach(), stage.attach(format=WEBSOCKET)
    assert stage.push(make_entries(1, 5)) == []
    assert first.numbers() == second.numbers() == [1, 2, 3, 4, 5]
    assert len(first.offers) == len(second.offers) == 1
    assert stage.fan_out.delivered == 10


def test_connection_gets_its_part_and_no_more() -> None:
    """Audience, topic and bounds choose entry by entry; who has no part is not sent anything."""
    stage = Stage()
    public, private, none = stage.attach(Subscription("a")), stage.attach(audience="user:u"), stage.attach(Subscription("z"))
    large = stage.attach(make_subscription("*", [], [], {"minN": 3}))
    entries = [
        make_entry(1, topic="a", data='{"n": 1}'),
        make_entry(2, topic="b", data='{"n": 3}'),
        make_entry(3, topic="a", data='{"n": 5}'),
        make_entry(4, topic="a", audience=["user:u"], data='{"n": 5}'),
    ]
    stage.push(entries)
    assert (public.numbers(), large.numbers(), private.numbers(), none.offers) == ([1, 3], [2, 3], [4], [])


def test_bounds_of_one_kind_are_judged_entry_by_entry() -> None:
    """Entries that are alike but for their payload share a route, and each payload is looked at."""
    stage = Stage()
    sink = stage.attach(make_subscription("*", [], [], {"minN": 3}))
    stage.push([make_entry(n, topic="a", data=f'{{"n": {n}}}') for n in (1, 4, 2, 5)])
    assert sink.numbers() == [4, 5]
    stage.push([make_entry(9, topic="a", data='{"n": 0}')])
    assert len(sink.offers) == 1


def test_equal_parts_are_the_same_bytes() -> None:
    """Connections with one interest, and interests with one part, share the payload."""
    stage = Stage()
    sinks = [stage.attach(Subscription("a")), stage.attach(Subscription("a")), stage.attach(Subscription("*"))]
    stage.push([make_entry(1, topic="a"), make_entry(2, topic="a")])
    assert sinks[0].offers[0] is sinks[1].offers[0] is sinks[2].offers[0]


def test_full_sinks_are_returned() -> None:
    """Who could not take all is named, once; everybody else has all."""
    stage = Stage()
    slow, fast = stage.attach(), stage.attach()
    slow.room = 10
    assert stage.push(make_entries(1, 3)) == [slow.owner]
    assert fast.numbers() == [1, 2, 3]


def test_interest_without_anybody_at_the_head_costs_no_encoding() -> None:
    """Nobody attached, nothing encoded."""
    stage = Stage()
    sink = stage.attach()
    assert sink.owner is not None
    assert sink.owner.interest is not None
    sink.owner.interest.attached.clear()
    [entry] = entries = make_entries(1, 1)
    assert stage.push(entries) == []
    assert entry.sse is None
    assert stage.fan_out.delivered == 0


def test_pieces_are_about_one_chunk() -> None:
    """A batch is cut so that what may stay in memory of one send is about a chunk, and an event that is larger goes alone."""
    chunk = 2000
    entries = [make_entry(seq, data='"' + "x" * size + '"') for seq, size in enumerate([10, 900, 900, 5000, 1, 1, 1999, 1])]
    pieces = list(Stage(chunk).fan_out.pieces(entries))
    assert [entry for piece in pieces for entry in piece] == entries
    for piece in pieces:
        assert len(piece) == 1 or sum(len(entry.data) for entry in piece) + FRAMING_BYTES * (len(piece) - 1) <= chunk


def test_piece_of_entries_in_any_script_is_about_one_chunk() -> None:
    """Bytes count, not characters."""
    entries = [make_entry(seq, data='"' + "語🦊" * 100 + '"') for seq in range(40)]
    stage = Stage(chunk_bytes=4000)
    sink = stage.attach()
    for piece in stage.fan_out.pieces(entries):
        stage.push(piece)
    assert max(map(len, sink.offers)) <= 4000 + len(SSE.event(entries[0]))


def test_small_batch_is_one_piece() -> None:
    """Nothing is cut without need."""
    entries: list[Entry] = make_entries(1, 10)
    assert list(Stage().fan_out.pieces(entries)) == [entries]


def test_keys_select_beside_subscriptions_without_any() -> None:
    """An update reaches those who ask for its key and those who ask for none, each once."""
    stage = Stage()
    keyed, whatever = stage.attach(Subscription(keys=frozenset({"k1", "k3"}))), stage.attach()
    bounded = stage.attach(make_subscription("*", [], [], {"minN": 2}, [], ["k2"]))
    stage.push([make_entry(seq, topic="a", key=f"k{seq}", data=f'{{"n": {seq}}}') for seq in (1, 2, 3)])
    assert (keyed.numbers(), whatever.numbers(), bounded.numbers()) == ([1, 3], [1, 2, 3], [2])


def test_delivery_at_once_is_logged_for_some_types(caplog: pytest.LogCaptureFixture) -> None:
    """With how many clients it was handed to (D5); not of other types, and not without high priority."""
    caplog.set_level(logging.INFO)
    router = Router()
    stage = Stage()
    stage.router = router
    stage.fan_out = FanOut(router, stage.pacer, 65536, logged=["alert"])
    for audience in ("public", "public", "user:u"):
        stage.attach(audience=audience)
    high = [make_entry(seq, type=type) for seq, type in enumerate(("alert", "other"), 1)]
    for entry in high:
        entry.priority = HIGH
    stage.push([*high, make_entry(3, type="alert")])
    logged = [record.__dict__["fields"] for record in caplog.records if record.message == "delivered at once"]
    assert logged == [{"correlationId": None, "id": high[0].id, "type": "alert", "clients": 2}]
