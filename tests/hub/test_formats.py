"""Tests of hub/formats.py: what a client that follows the standards reads back from the bytes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.formats import RESERVED_TYPES, RETRY_MS, SERVER_MESSAGES, SSE, SSE_UNCHUNKED, WEBSOCKET, rfc3339, sse_format, timestamp_of
from hub.frames import CLOSE, PING, TEXT, read_close
from tests.hub.decoding import SseReader, read_chunks, read_frames
from tests.hub.fakes import id_of, make_entry

LINE_ENDS = ["\n", "\r", "\r\n", "\u2028", "\x85", "\\u0000", "\\n"]
json_texts = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
).map(lambda value: json.dumps(value, ensure_ascii=False, indent=1))


def read_sse(data: bytes) -> SseReader:
    """Read one chunk as EventSource does."""
    content, _ = read_chunks(data)
    reader = SseReader()
    reader.feed(content.decode())
    return reader


# ---- SSE


def test_sse_event_has_id_type_and_payload() -> None:
    """An entry becomes an event of its own type with its id, and its payload alone as data."""
    entry = make_entry(7, type="order:fill", data='{"a":1}')
    block = b"id: %b\nevent: order:fill\ndata: " % id_of(7).encode() + b'{"a":1}\n\n'
    assert SSE.join([SSE.event(entry)]) == b"%x\r\n" % len(block) + block + b"\r\n"


@settings(deadline=None)
@given(json_texts, st.lists(st.sampled_from(LINE_ENDS), max_size=4).map("".join))
def test_sse_payload_survives_any_line_breaks(text: str, ends: str) -> None:
    """JSON with LF, CR, CR LF, U+2028 or emoji in it means the same after the client has put its lines together."""
    data = (
        '{"a":' + ends.replace("\u2028", "").replace("\x85", "").replace("\\u0000", "").replace("\\n", "") + text.replace("\n", "\r") + "}"
    )
    [event] = read_sse(SSE.join([SSE.event(make_entry(1, data=data))])).events
    assert json.loads(event.data) == json.loads(data)


@pytest.mark.parametrize("inside", ["a\u2028b", "\\u0000", "🦊", "\\n", "\x85", "data: x", ":", " "])
def test_sse_payload_without_line_breaks_is_left_alone(inside: str) -> None:
    """Only CR and LF end a line: everything else is data, byte for byte."""
    data = f'"{inside}"'
    [event] = read_sse(SSE.join([SSE.event(make_entry(1, data=data))])).events
    assert event.data == data


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_sse_line_break_in_a_payload_cannot_make_a_field(end: str) -> None:
    """A payload that looks like fields of the stream stays one payload."""
    data = f'{{{end}"a":1,{end}{end}"id": 5{end}}}'
    reader = read_sse(SSE.join([SSE.event(make_entry(3, data=data))]))
    assert [(one.type, one.last_event_id) for one in reader.events] == [("thing", id_of(3))]
    assert json.loads(reader.events[0].data) == {"a": 1, "id": 5}


def test_sse_joins_events_in_one_chunk() -> None:
    """However many events leave together, they are one chunk."""
    entries = [make_entry(seq) for seq in (1, 2, 3)]
    joined = SSE.join([SSE.event(entry) for entry in entries])
    assert joined.count(b"\r\n") == 2
    assert [one.last_event_id for one in read_sse(joined).events] == [id_of(1), id_of(2), id_of(3)]


def test_unchunked_sse_is_the_bare_stream() -> None:
    """A client of HTTP/1.0 gets the same blocks without chunks."""
    entry = make_entry(1)
    assert SSE_UNCHUNKED.join([SSE_UNCHUNKED.event(entry)]) == read_chunks(SSE.join([SSE.event(entry)]))[0]
    assert SSE_UNCHUNKED.heartbeat("p", True) == read_chunks(SSE.heartbeat("p", True))[0]
    assert SSE_UNCHUNKED.closing(1012, "r", 5) == read_chunks(SSE.closing(1012, "r", 5))[0]


def test_entry_is_encoded_once_for_each_transport() -> None:
    """Whoever receives an entry gets the same bytes object."""
    entry = make_entry(1)
    assert SSE.event(entry) is SSE.event(entry) is SSE_UNCHUNKED.event(entry)
    assert WEBSOCKET.event(entry) is WEBSOCKET.event(entry)


def test_sse_retry_rides_on_the_first_event_only() -> None:
    """`welcome` sets how long EventSource waits; nothing after it does."""
    assert read_sse(SSE.message("welcome", {}, "p")).retry == RETRY_MS
    assert read_sse(SSE.message("live", {}, "p")).retry is None
    assert b"retry" not in SSE.event(make_entry(1))


def test_sse_message_moves_the_client_when_it_names_a_position() -> None:
    """With a position a message of the server's own has an id, without one it leaves the client where it is."""
    assert read_sse(SSE.message("live", {"replayed": 3}, "p-1")).events == [("live", '{"replayed":3}', "p-1")]
    assert b"id:" not in SSE.message("expiring", {})


def test_sse_heartbeat_is_a_comment_that_can_move_the_client() -> None:
    """A heartbeat is no event; with news it moves the last event id, which a comment alone cannot."""
    quiet, moved = read_sse(SSE.heartbeat("p-1", False)), read_sse(SSE.heartbeat("p-1", True))
    assert (quiet.events, quiet.comments, quiet.last_event_id) == ([], ["heartbeat"], "")
    assert (moved.events, moved.comments, moved.last_event_id) == ([], ["heartbeat"], "p-1")


def test_sse_closing_ends_the_body_and_sets_retry() -> None:
    """The last event says why and when to come back, and the last chunk follows it."""
    content, ended = read_chunks(SSE.closing(1012, "the server restarts", 4200))
    reader = SseReader()
    [event] = reader.feed(content.decode())
    assert ended
    assert (event.type, json.loads(event.data)) == ("closing", {"code": 1012, "reason": "the server restarts", "retryMs": 4200})
    assert reader.retry == 4200


def test_closing_without_retry_does_not_say_when_to_come_back() -> None:
    """A client that should not come back by itself is told no time."""
    content, _ = read_chunks(SSE.closing(4409, "replaced", None))
    assert b"retry" not in content


# ---- WebSocket


def test_websocket_event_has_all_fields_and_the_payload_as_published() -> None:
    """The payload's text goes in as it came, numbers and escapes untouched."""
    entry = make_entry(7, topic='or"ders', type="order:fill", data='{"n": 1.10, "s": "\\u0000\u2028🦊"}')
    [(opcode, payload)] = read_frames(WEBSOCKET.join([WEBSOCKET.event(entry)]))
    assert opcode == TEXT
    assert b'"data":{"n": 1.10, "s": "\\u0000\xe2\x80\xa8\xf0\x9f\xa6\x8a"}' in payload
    assert json.loads(payload) == {
        "type": "event",
        "topic": 'or"ders',
        "id": id_of(7),
        "event": "order:fill",
        "data": {"n": 1.1, "s": "\0\u2028🦊"},
        "timestamp": "2025-06-15T15:06:40.007Z",
    }


@settings(deadline=None)
@given(json_texts)
def test_websocket_event_is_valid_json_for_any_payload(text: str) -> None:
    """Whatever JSON was published, with whatever white space, the message is JSON around it."""
    [(_, payload)] = read_frames(WEBSOCKET.event(make_entry(1, data=text)))
    assert json.loads(payload)["data"] == json.loads(text)


def test_websocket_joins_events_frame_by_frame() -> None:
    """Each event keeps a message of its own."""
    entries = [make_entry(seq, data=json.dumps("x" * seq * 100)) for seq in (1, 2, 700)]
    frames = read_frames(WEBSOCKET.join([WEBSOCKET.event(entry) for entry in entries]))
    assert [json.loads(payload)["id"] for _, payload in frames] == [entry.id for entry in entries]


def test_websocket_message_has_its_type_first() -> None:
    """The server's own messages are objects that begin with their type."""
    assert read_frames(WEBSOCKET.message("pong", {"ref": "1"}, "p")) == [(TEXT, b'{"type":"pong","ref":"1"}')]


def test_a_channel_has_its_own_heartbeat_and_time_to_come_back() -> None:
    """The text as it is declared, behind the colon; and one object for all who share these, chunked or not."""
    format = sse_format(chunked=False, heartbeat=" keepalive", retry_ms=5000)
    assert format is sse_format(chunked=False, heartbeat=" keepalive", retry_ms=5000)
    assert format.heartbeat("p-1", False) == b": keepalive\n\n"
    assert format.heartbeat("p-1", True) == b": keepalive\nid: p-1\n\n"
    assert format.message("welcome", {}).startswith(b"retry: 5000\nevent: welcome\n")


def test_websocket_heartbeat_is_a_ping_and_a_message_when_there_is_news() -> None:
    """Scripts in browsers see no pings, so a position that moved comes as a message, too."""
    assert read_frames(WEBSOCKET.heartbeat("p-1", False)) == [(PING, b"p-1")]
    assert read_frames(WEBSOCKET.heartbeat("p-1", True)) == [(TEXT, b'{"type":"position","position":"p-1"}'), (PING, b"p-1")]


def test_websocket_closing_says_why_before_the_close_frame() -> None:
    """The message carries when to come back, and the close frame the same code."""
    (_, said), (opcode, close) = read_frames(WEBSOCKET.closing(1012, "the server restarts", 4200))
    assert json.loads(said) == {"type": "closing", "code": 1012, "reason": "the server restarts", "retryMs": 4200}
    assert (opcode, read_close(close)) == (CLOSE, (1012, "the server restarts"))


# ---- both


def test_publishers_time_is_the_timestamp() -> None:
    """When it happened is what the publisher said, else when it was appended."""
    assert timestamp_of(make_entry(1, time="2026-01-01T00:00:00+01:00")) == "2026-01-01T00:00:00+01:00"
    assert timestamp_of(make_entry(1)) == "2025-06-15T15:06:40.001Z"


def test_times_keep_their_milliseconds() -> None:
    """Milliseconds are written in full, zeros included."""
    assert rfc3339(0) == "1970-01-01T00:00:00.000Z"
    assert rfc3339(1_750_000_000_070) == "2025-06-15T15:06:40.070Z"


def test_no_event_type_can_be_taken_for_a_message_of_the_server() -> None:
    """Every message of the server's own, and every event of EventSource's own, is reserved."""
    assert {*SERVER_MESSAGES, "open", "error"} <= RESERVED_TYPES
