"""What a client makes of the bytes it is sent: event streams by the rules of WHATWG, chunks and frames by those of the RFCs."""

from __future__ import annotations

import json
import zlib
from typing import Any, NamedTuple

from hub.connection import State
from hub.formats import SERVER_MESSAGES
from hub.frames import CLOSE, PING, TEXT, read_close


class SseEvent(NamedTuple):
    """An event as EventSource dispatches it."""

    type: str
    data: str
    last_event_id: str


class SseReader:
    """The WHATWG rules for an event stream (HTML standard, 9.2.6), letter by letter."""

    def __init__(self) -> None:
        self.events: list[SseEvent] = []
        self.comments: list[str] = []
        self.last_event_id = ""
        self.retry: int | None = None
        self._data: list[str] = []
        self._type = ""
        self._id = ""  # the last event id buffer, which outlives a block

    def feed(self, text: str) -> list[SseEvent]:
        """Take whole blocks, and return the events among them."""
        before = len(self.events)
        lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        assert lines.pop() == "", "a piece ends in the middle of a line"
        for line in lines:
            self._line(line)
        assert not self._data, "a piece ends in the middle of a block"
        return self.events[before:]

    def _line(self, line: str) -> None:
        field, colon, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            self._dispatch()
        elif colon and not field:
            self.comments.append(value)
        elif field == "event":
            self._type = value
        elif field == "data":
            self._data.append(value)
        elif field == "id" and "\0" not in value:
            self._id = value
        elif field == "retry" and value.isascii() and value.isdigit():
            self.retry = int(value)

    def _dispatch(self) -> None:
        self.last_event_id = self._id
        if self._data:
            self.events.append(SseEvent(self._type or "message", "\n".join(self._data), self.last_event_id))
        self._data, self._type = [], ""


def read_chunks(data: bytes) -> tuple[bytes, bool]:
    """Return the content of whole HTTP/1.1 chunks (RFC 9112, 7.1), and whether the last chunk is among them."""
    content = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        assert data[length : length + 2] == b"\r\n", "a chunk is not ended where its size says"
        content += data[:length]
        data = data[length + 2 :]
        if length == 0:
            assert not data, "something follows the last chunk"
            return content, True
    return content, False


def read_frames(data: bytes) -> list[tuple[int, bytes]]:
    """Return opcode and payload of whole, unmasked frames (RFC 6455, 5.2)."""
    frames = []
    while data:
        assert data[0] & 0xF0 == 0x80, "the server sends final frames without extensions"
        length, start = data[1], 2
        assert length < 128, "the server does not mask"
        if length >= 126:
            start = 4 if length == 126 else 10
            length = int.from_bytes(data[2:start], "big")
        assert len(data) >= start + length, "a frame is cut off"
        frames.append((data[0] & 15, data[start : start + length]))
        data = data[start + length :]
    return frames


class Received(NamedTuple):
    """One message as it reached a client: `event` for a published event, else the server's own.

    `id` is where the client stands afterwards, if the message says so; `state` is the connection's when it was sent.
    """

    kind: str
    id: str | None
    fields: dict[str, Any]
    state: State | None = None


class SseDecoder:
    """Turns the bytes of an SSE connection into messages."""

    def __init__(self) -> None:
        self.reader = SseReader()
        self.ended = False

    def feed(self, data: bytes) -> list[Received]:
        assert not self.ended
        content, self.ended = self._content(data)
        before = self.reader.last_event_id
        events = self.reader.feed(content.decode())
        after = self.reader.last_event_id
        if not events and after != before:
            return [Received("position", after, {"position": after})]
        return [_from_sse(event) for event in events]

    def _content(self, data: bytes) -> tuple[bytes, bool]:
        return read_chunks(data)


class GzipDecoder(SseDecoder):
    """Turns the bytes of a compressed SSE connection into messages: each piece is readable at once, and the member is whole in the end."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = b""
        self._inflater = zlib.decompressobj(16 + zlib.MAX_WBITS)

    def _content(self, data: bytes) -> tuple[bytes, bool]:
        compressed, ended = read_chunks(data)
        content = self._inflater.decompress(compressed)
        assert self._inflater.eof == ended, "a member ends with its trailer, and the body with the member"
        assert not self._inflater.unused_data
        self.plain += content
        return content, ended


def _from_sse(event: SseEvent) -> Received:
    data = json.loads(event.data)
    if event.type in SERVER_MESSAGES:
        return Received(event.type, event.last_event_id or None, data)
    return Received("event", event.last_event_id, {"event": event.type, "data": data})


class WebSocketDecoder:
    """Turns the bytes of a WebSocket connection into messages."""

    def __init__(self) -> None:
        self.ended = False

    def feed(self, data: bytes) -> list[Received]:
        assert not self.ended
        received = []
        for opcode, payload in read_frames(data):
            if opcode == TEXT:
                fields = json.loads(payload)
                kind = fields.pop("type")
                place = fields["to"] if kind == "gap" else fields.get("id") or fields.get("position")
                received.append(Received(kind, place, fields))
            elif opcode == PING:
                received.append(Received("ping", payload.decode(), {}))
            else:
                assert opcode == CLOSE
                self.ended = True
                received.append(Received("close", None, {"code": read_close(payload)[0]}))
        return received
