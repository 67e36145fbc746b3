"""Clients written by hand on raw sockets, since they must be able to send what no library would: HTTP, event streams and WebSockets."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import ssl
import struct
import zlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from tests.waiting import PATIENCE_SECONDS


@dataclass
class Response:
    """An answer: its status, its headers with their names in lower case, and its body."""

    status: int
    headers: dict[str, str]
    body: bytes = b""

    def json(self) -> Any:
        """Return the body as JSON."""
        assert self.headers["content-type"] == "application/json"
        return json.loads(self.body)

    def error(self) -> tuple[int, str, str | None]:
        """Return the status, code and field of an error in the one envelope, which is checked (S8)."""
        body = self.json()
        assert {"error", "message", "statusCode", "correlationId"} <= body.keys()
        assert body["statusCode"] == self.status
        assert body["correlationId"] == self.headers["x-correlation-id"]
        return self.status, body["error"], body.get("field")


def request_bytes(method: str, target: str, headers: Mapping[str, str], body: bytes = b"", version: str = "1.1") -> bytes:
    """Return a request as it goes over the wire."""
    lines = [f"{method} {target} HTTP/{version}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Wire:
    """One TCP connection to a server, used as a context."""

    tls: ClassVar[ssl.SSLContext | None] = None  # a test that speaks TLS sets it, for all connections

    def __init__(self, port: int) -> None:
        self.port = port

    async def __aenter__(self) -> Self:
        # The limit holds for single lines, and headers are sent that are larger than most.
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 24, ssl=self.tls)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self.writer.write(data)

    def end(self) -> None:
        """End this side of the connection, and go on reading."""
        self.writer.write_eof()

    async def read_head(self) -> Response:
        """Return a status and headers."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.rstrip().split("\r\n")
        pairs = (line.partition(": ") for line in lines)
        return Response(int(first.split(" ")[1]), {name.lower(): value for name, _, value in pairs})

    async def read_response(self) -> Response:
        """Return an answer with a length."""
        response = await self.read_head()
        async with asyncio.timeout(PATIENCE_SECONDS):
            response.body = await self.reader.readexactly(int(response.headers.get("content-length", "0")))
        return response

    async def read_rest(self) -> bytes:
        """Return everything up to the server's end of the connection."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.reader.read()


async def request(
    port: int,
    method: str,
    target: str,
    *,
    token: str | None = None,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> Response:
    """Make one request on a connection of its own."""
    every = {"Host": f"127.0.0.1:{port}", **(headers or {})}
    if token is not None:
        every["Authorization"] = f"Bearer {token}"
    if body is not None:
        every.setdefault("Content-Length", str(len(body)))
    async with Wire(port) as wire:
        wire.send(request_bytes(method, target, every, body or b""))
        response = await wire.read_head()
        if method != "HEAD":
            async with asyncio.timeout(PATIENCE_SECONDS):
                response.body = await wire.reader.readexactly(int(response.headers.get("content-length", "0")))
        return response


async def get(port: int, target: str, **arguments: Any) -> Response:
    """Make a GET request."""
    return await request(port, "GET", target, **arguments)


async def publish(port: int, events: Any, token: str | None, **headers: str) -> Response:
    """Publish what is given: JSON as it stands when it is bytes, else made of it."""
    body = events if isinstance(events, bytes) else json.dumps(events).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await request(port, "POST", "/v1/events", token=token, headers={"Content-Type": "application/json", **named}, body=body)


def event(number: object = 1, **fields: Any) -> dict[str, Any]:
    """Return an event to be published, to everybody unless told otherwise."""
    return {"topic": "orders.eu", "type": "order:placed", "audience": ["public"], "data": {"n": number}, **fields}


@dataclass
class SseEvent:
    """One event of a stream; comments are in `comments` of the next one."""

    type: str = "message"
    data: str = ""
    id: str | None = None
    retry: int | None = None

    def json(self) -> Any:
        """Return the data as JSON."""
        return json.loads(self.data)


class EventStream(Wire):
    """One SSE connection, used as a context; whatever the answer is, `head` has it."""

    def __init__(
        self, port: int, query: str = "", *, token: str | None = None, version: str = "1.1", path: str = "/v1/stream", **headers: str
    ) -> None:
        super().__init__(port)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        every = {"Host": f"127.0.0.1:{port}", "Accept": "text/event-stream", **named}
        if token is not None:
            every["Authorization"] = f"Bearer {token}"
        self._request = request_bytes("GET", f"{path}{query}", every, version=version)
        self.comments: list[str] = []
        self.last_id: str | None = None  # the position, of an event or a heartbeat; None: none has come
        self.compressed = b""  # what came, if it was
        self._text = ""
        self._inflater = zlib.decompressobj(16 + zlib.MAX_WBITS)

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self.send(self._request)
        self.head = await self.read_head()
        return self

    async def welcome(self) -> SseEvent:
        """Return the first event, which must be `welcome` (X5)."""
        first = await self.next()
        assert first.type == "welcome"
        return first

    async def next(self) -> SseEvent:
        """Return the next event."""
        while True:
            block = await self._next_block()
            found = SseEvent()
            for line in block.split("\n"):
                name, _, value = line.partition(":")
                self._apply(found, name, value.removeprefix(" "))
            if found.type != "message" or found.data:
                return found

    async def next_of(self, type: str) -> SseEvent:
        """Return the next event of a type, past all others."""
        while (one := await self.next()).type != type:
            pass
        return one

    def _apply(self, found: SseEvent, name: str, value: str) -> None:
        if name == "":
            self.comments.append(value)
        elif name == "data":
            found.data += ("\n" if found.data else "") + value
        elif name == "event":
            found.type = value
        elif name == "id":
            found.id = self.last_id = value
        elif name == "retry":
            found.retry = int(value)

    async def _next_block(self) -> str:
        while "\n\n" not in self._text:
            piece = await self._next_piece()
            assert piece, f"the stream has ended after {self._text!r}"
            self._text += self._decompressed(piece).decode()
        block, _, self._text = self._text.partition("\n\n")
        return block

    async def _next_piece(self) -> bytes:
        async with asyncio.timeout(PATIENCE_SECONDS):
            if self.head.headers.get("transfer-encoding") != "chunked":
                return await self.reader.read(65536)
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            piece = await self.reader.readexactly(size + 2)
            return piece[:-2]

    def _decompressed(self, piece: bytes) -> bytes:
        if self.head.headers.get("content-encoding") != "gzip":
            return piece
        self.compressed += piece
        return self._inflater.decompress(piece)

    async def ends(self) -> bool:
        """Tell whether the stream ends here, in good order; a compressed one with a trailer that is right."""
        if "content-encoding" in self.head.headers:
            self._decompressed(await self._next_piece())
            assert self._inflater.eof
        return not self._text and not await self._next_piece() and not await self.read_rest()


TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
KEY = base64.b64encode(b"sixteen bytes ..").decode()
HANDSHAKE = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": KEY}


def frame(opcode: int, payload: bytes, *, masked: bool = True, final: bool = True) -> bytes:
    """Return one frame as a client sends it, or must not."""
    head = bytes([opcode | (0x80 if final else 0)])
    bit = 0x80 if masked else 0
    if len(payload) < 126:
        head += bytes([bit | len(payload)])
    elif len(payload) < 65536:
        head += bytes([bit | 126]) + struct.pack(">H", len(payload))
    else:
        head += bytes([bit | 127]) + struct.pack(">Q", len(payload))
    if not masked:
        return head + payload
    key = os.urandom(4)
    return head + key + bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))


def text(message: Any) -> bytes:
    """Return a text frame with a message; bytes go as they are."""
    return frame(TEXT, message if isinstance(message, bytes) else json.dumps(message).encode())


class RawWebSocket(Wire):
    """One WebSocket, used as a context; whatever the answer to the handshake is, `head` has it.

    Args:
        behind: Bytes that are sent with the handshake, before it is answered.
        headers: Of the handshake, those named here in place of the usual ones; None leaves one out.
    """

    def __init__(
        self,
        port: int,
        query: str = "",
        *,
        token: str | None = None,
        behind: bytes = b"",
        headers: Mapping[str, str | None] | None = None,
        version: str = "1.1",
    ) -> None:
        super().__init__(port)
        wanted: dict[str, str | None] = {"Host": f"127.0.0.1:{port}", **HANDSHAKE}
        if token is not None:
            wanted["Authorization"] = f"Bearer {token}"
        wanted |= headers or {}
        every = {name: value for name, value in wanted.items() if value is not None}
        self._request = request_bytes("GET", f"/ws{query}", every, version=version) + behind

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self.send(self._request)
        self.head = await self.read_head()
        if self.head.status != 101:
            async with asyncio.timeout(PATIENCE_SECONDS):
                self.head.body = await self.reader.readexactly(int(self.head.headers.get("content-length", "0")))
        return self

    def say(self, *messages: Any) -> None:
        """Send messages, in one piece."""
        self.send(b"".join(map(text, messages)))

    async def next_frame(self) -> tuple[int, bytes]:
        """Return the opcode and payload of the next frame; servers never mask nor, here, fragment (5.1)."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            first, length = await self.reader.readexactly(2)
            assert first & 0xF0 == 0x80
            if length == 126:
                (length,) = struct.unpack(">H", await self.reader.readexactly(2))
            elif length == 127:
                (length,) = struct.unpack(">Q", await self.reader.readexactly(8))
            return first & 0x0F, await self.reader.readexactly(length)

    async def next(self, type: str | None = None) -> Any:
        """Return the next message, which must be of this type if one is given."""
        opcode, payload = await self.next_frame()
        assert opcode == TEXT, f"expected a message, got a frame {opcode} with {payload!r}"
        message = json.loads(payload)
        assert type is None or message["type"] == type, message
        return message

    async def ask(self, message: Mapping[str, Any], type: str) -> Any:
        """Send a message and return the next one, which must be of this type."""
        self.say(message)
        return await self.next(type)

    async def closed_with(self) -> tuple[int, dict[str, Any]]:
        """Return the code of the close frame and the `closing` message before it, which must agree (T9)."""
        closing = await self.next("closing")
        code = await self.close_code()
        assert closing["code"] == code
        return code, closing

    async def close_code(self) -> int:
        """Return the code of the close frame, which must be next, and after which the server must end."""
        opcode, payload = await self.next_frame()
        assert opcode == CLOSE, payload
        assert await self.read_rest() == b""
        return int.from_bytes(payload[:2], "big")


@contextlib.asynccontextmanager
async def websocket(port: int, token: str | None = None, **arguments: Any) -> AsyncIterator[RawWebSocket]:
    """Open a WebSocket with a token, past its `welcome`."""
    async with RawWebSocket(port, token=token, **arguments) as opened:
        assert opened.head.status == 101, opened.head
        await opened.next("welcome")
        yield opened
