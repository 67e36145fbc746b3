"""How entries and the server's own messages look on the wire, for each transport. Pure functions of their arguments; no I/O.

SSE is the event stream format of the WHATWG HTML standard, section 9.2, in HTTP/1.1 chunks (RFC 9112 section 7.1); WebSocket messages are
JSON in text frames (RFC 6455). An entry is encoded once for each, whoever receives it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache, lru_cache
from typing import Any, Protocol

import msgspec

from hub.frames import PING, TEXT, close_frame, frame
from storage.entries import Entry

RETRY_MS = 3000  # what EventSource waits before it comes back, unless it is told otherwise
HEARTBEAT = "heartbeat"  # the text of a comment, unless a channel has one of its own

# The server's own messages; no event type of a publisher may be one of them, nor a name that EventSource uses for its own events.
SERVER_MESSAGES = (
    "welcome",
    "subscribed",
    "unsubscribed",
    "gap",
    "live",
    "snapshot",
    "position",
    "expiring",
    "closing",
    "pong",
    "renewed",
    "metrics",
    "error",
)
RESERVED_TYPES = frozenset({*SERVER_MESSAGES, "open", "event"})

_json = msgspec.json.Encoder()
_string = json.JSONEncoder(ensure_ascii=False).encode  # of one string; the C encoder


def rfc3339(ms: int) -> str:
    """Return a time in milliseconds since 1970 as RFC 3339 text in UTC."""
    return f"{_whole_second(ms // 1000)}.{ms % 1000:03d}Z"


@lru_cache(maxsize=1024)
def _whole_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def rfc3339_of(seconds: float | None) -> str | None:
    """Return a time in seconds since 1970 as RFC 3339 text in UTC; None, as of what never ends, stays None."""
    return None if seconds is None else rfc3339(int(seconds * 1000))


def timestamp_of(entry: Entry) -> str:
    """Return when it happened: the publisher's time, else when it was appended."""
    return entry.time or rfc3339(entry.ms)


class Format(Protocol):
    """One transport's way of writing."""

    name: str
    compressed: bool  # what it makes is plain, and packed for each connection by hub.compression

    def event(self, entry: Entry) -> bytes:
        """Return an entry's encoded form, made at the first call."""

    def join(self, parts: Sequence[bytes]) -> bytes:
        """Return encoded events as the bytes of one send."""

    def message(self, type: str, fields: Mapping[str, Any], position: str | None = None) -> bytes:
        """Return one of the server's own messages, ready to send; on SSE it also moves the client to `position`."""

    def heartbeat(self, position: str, moved: bool) -> bytes:
        """Return a sign of life that carries the position; `moved`: it is another one than in the last."""

    def closing(self, code: int, reason: str, retry_ms: int | None) -> bytes:
        """Return the last message and the transport's own end."""


class SseFormat:
    """Server-Sent Events.

    Connections can share what is computed for them only if they have the same object: see `sse_format`.

    Args:
        chunked: False for a client that speaks HTTP/1.0: the stream then ends with the connection.
        heartbeat: The text of its comments, as it stands behind the colon.
        retry_ms: What a browser waits before it comes back.
        compressed: True for a client that takes gzip. The chunks are then made around compressed bytes, and this makes none.
    """

    name = "sse"

    def __init__(self, *, chunked: bool, heartbeat: str = HEARTBEAT, retry_ms: int = RETRY_MS, compressed: bool = False) -> None:
        assert chunked or not compressed, "a stream is compressed for clients of HTTP/1.1 only"
        self.compressed = compressed
        self._chunked = chunked and not compressed
        self._retry_ms = retry_ms
        self._heartbeat = f":{heartbeat}\n".encode()
        self._still = self._chunk(self._heartbeat + b"\n")

    def event(self, entry: Entry) -> bytes:
        """`id`, `event` and `data`; payload text with line breaks becomes several `data` lines, which the client joins again."""
        encoded = entry.sse
        if encoded is None:
            encoded = entry.sse = sse_event(entry.type, entry.data, entry.id)
        return encoded

    def join(self, parts: Sequence[bytes]) -> bytes:
        """One chunk for all."""
        return self._chunk(b"".join(parts))

    def _chunk(self, body: bytes) -> bytes:
        return chunk(body) if self._chunked else body

    def message(self, type: str, fields: Mapping[str, Any], position: str | None = None) -> bytes:
        """A named event. `retry` rides on the first one: a block of nothing but `retry` is reported as an event by some clients."""
        retry = self._retry_ms if type == "welcome" else None
        return self._chunk(sse_event(type, _json.encode(fields).decode(), position, retry))

    def heartbeat(self, position: str, moved: bool) -> bytes:
        """A comment; with an `id` line when there is news, since a comment alone moves no client's last event id (9.2.6)."""
        return self._chunk(b"%bid: %b\n\n" % (self._heartbeat, position.encode())) if moved else self._still

    def closing(self, code: int, reason: str, retry_ms: int | None) -> bytes:
        """`closing` with `retry`, and the chunk that ends the body."""
        fields = closing_fields(code, reason, retry_ms)
        event = self._chunk(sse_event("closing", _json.encode(fields).decode(), None, retry_ms))
        return event + b"0\r\n\r\n" if self._chunked else event


class WebSocketFormat:
    """JSON messages in text frames."""

    name = "websocket"
    compressed = False

    def event(self, entry: Entry) -> bytes:
        """The payload's text goes in as it was published."""
        encoded = entry.websocket
        if encoded is None:
            text = (
                f'{{"type":"event","topic":{_string(entry.topic)},"id":"{entry.id}","event":{_string(entry.type)},'
                f'"data":{entry.data},"timestamp":"{timestamp_of(entry)}"}}'
            )
            encoded = entry.websocket = frame(TEXT, text.encode())
        return encoded

    def join(self, parts: Sequence[bytes]) -> bytes:
        """Frames follow each other as they are."""
        return b"".join(parts)

    def message(self, type: str, fields: Mapping[str, Any], position: str | None = None) -> bytes:
        """The fields with `type` before them; a WebSocket client takes the position from them."""
        return frame(TEXT, _json.encode({"type": type, **fields}))

    def heartbeat(self, position: str, moved: bool) -> bytes:
        """A ping frame, which the client must answer; when there is news also a message, since scripts in browsers see no pings."""
        ping = frame(PING, position.encode())
        return self.message("position", {"position": position}) + ping if moved else ping

    def closing(self, code: int, reason: str, retry_ms: int | None) -> bytes:
        """`closing`, then the close frame with the same code."""
        return self.message("closing", closing_fields(code, reason, retry_ms)) + close_frame(code, reason)


def chunk(body: bytes) -> bytes:
    """Return some bytes, at least one, as a chunk of HTTP/1.1."""
    return b"%x\r\n%b\r\n" % (len(body), body)


def closing_fields(code: int, reason: str, retry_ms: int | None) -> dict[str, Any]:
    """Return what `closing` says; without `retryMs` the client should not come back by itself."""
    fields: dict[str, Any] = {"code": code, "reason": reason}
    if retry_ms is not None:
        fields["retryMs"] = retry_ms
    return fields


def sse_event(type: str, data: str, id: str | None, retry_ms: int | None = None) -> bytes:
    """Return one event of an event stream. `type` and `id` were checked to hold no line break; `data` may."""
    head = f"retry: {retry_ms}\n" if retry_ms is not None else ""
    if id is not None:
        head += f"id: {id}\n"
    if "\n" in data or "\r" in data:  # the standard ends lines at CR, LF and CR LF (9.2.5), and at nothing else
        data = data.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\ndata: ")
    return f"{head}event: {type}\ndata: {data}\n\n".encode()


@cache  # as many as channels declare
def sse_format(*, chunked: bool, heartbeat: str, retry_ms: int, compressed: bool = False) -> SseFormat:
    """Return the one format with these properties."""
    return SseFormat(chunked=chunked, heartbeat=heartbeat, retry_ms=retry_ms, compressed=compressed)


SSE = sse_format(chunked=True, heartbeat=HEARTBEAT, retry_ms=RETRY_MS)
SSE_GZIP = sse_format(chunked=True, heartbeat=HEARTBEAT, retry_ms=RETRY_MS, compressed=True)
SSE_UNCHUNKED = sse_format(chunked=False, heartbeat=HEARTBEAT, retry_ms=RETRY_MS)
WEBSOCKET = WebSocketFormat()
