"""WebSocket framing for a server (RFC 6455, 5 and 7.4): bytes in, messages out; knows no socket, no HTTP.

Written here, and not taken from the web server's library, because there a frame reader comes with a request,
a handler, a task and a stream for each connection; this one costs an idle connection 80 bytes in all.
No extension is ever agreed, so every reserved bit is an error.
"""

from __future__ import annotations

from typing import Final, NamedTuple

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA
_OPCODES: Final = frozenset({CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG})

PROTOCOL_ERROR: Final = 1002
NO_CODE: Final = 1005  # what `read_close` says when a close frame carries none; never sent (7.4.1)
INVALID_DATA: Final = 1007
TOO_BIG: Final = 1009

# 7.4.1, and from the IANA registry (11.7) 1012 to 1014; 1004 is reserved, 1005, 1006 and 1015 are never sent.
_REGISTERED_CODES: Final = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015)})
_PRIVATE_CODES: Final = range(3000, 5000)  # 7.4.2: 3000-3999 libraries, 4000-4999 applications
_MAX_CONTROL_BYTES: Final = 125  # 5.5
_MAX_REASON_BYTES: Final = _MAX_CONTROL_BYTES - 2


class FrameError(Exception):
    """The client broke the protocol: the connection must be closed with this code and reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason
        self.messages: list[Message] = []  # complete before the error in the same `feed`; they still count


class Message(NamedTuple):
    """A whole message: TEXT (valid UTF-8), BINARY, CLOSE (a valid body, see `read_close`), PING or PONG."""

    opcode: int
    payload: bytes


class _Header(NamedTuple):
    final: bool
    opcode: int
    length: int
    key_at: int  # where the masking key begins; the payload follows it


def frame(opcode: int, payload: bytes) -> bytes:
    """Build one final, unmasked frame, as servers send them (5.1, 5.2)."""
    length = len(payload)
    if length <= 125:
        return bytes((0x80 | opcode, length)) + payload
    if length < 1 << 16:
        return bytes((0x80 | opcode, 126)) + length.to_bytes(2, "big") + payload
    return bytes((0x80 | opcode, 127)) + length.to_bytes(8, "big") + payload


def close_frame(code: int, reason: str) -> bytes:
    """Build a close frame; a reason of more than 123 bytes is cut between two characters."""
    assert _may_be_sent(code), f"close code {code} may not be sent"
    text = reason.encode("utf-8", "replace")[:_MAX_REASON_BYTES].decode("utf-8", "ignore")
    return frame(CLOSE, code.to_bytes(2, "big") + text.encode())


def read_close(payload: bytes) -> tuple[int, str]:
    """Read the code and the reason in a close frame's payload; an empty one is (1005, "").

    Raises:
        FrameError: If it is one byte, or the code may not be sent (1002), or the reason is no UTF-8 (1007).
    """
    if not payload:
        return NO_CODE, ""
    if len(payload) == 1:
        raise FrameError(PROTOCOL_ERROR, "a close frame needs two bytes of code, one came")
    code = int.from_bytes(payload[:2], "big")
    if not _may_be_sent(code):
        raise FrameError(PROTOCOL_ERROR, f"close code {code} may not be sent")
    return code, _decoded(payload[2:], "the reason of a close frame")


class FrameReader:
    """Reads what one client sends, in pieces of any size, and gives back whole messages.

    Between messages it holds nothing; within one, at most `max_message_bytes` and the piece fed last.
    After a close frame, or an error, whatever else comes is thrown away (5.5.1, 7.1.7).

    Args:
        max_message_bytes: what a message may hold over all its fragments; also how many of them it may have.
    """

    __slots__ = ("_buffer", "_ended", "_fragment_count", "_fragments", "_max_message_bytes", "_opcode")

    def __init__(self, max_message_bytes: int = 65536) -> None:
        self._max_message_bytes = max_message_bytes
        self._buffer: bytearray | None = None  # the beginning of a frame; None between frames
        self._fragments: bytearray | None = None  # payload of an unfinished message; None between messages
        self._fragment_count = 0  # frames of the unfinished message so far
        self._opcode = 0  # TEXT or BINARY while a message is unfinished
        self._ended = False  # True for ever after a close frame or an error

    def feed(self, data: bytes) -> list[Message]:
        """Take the next bytes from the client and return the messages they complete, in order.

        Text is checked when its message is complete; one too big is refused as soon as a header says so.

        Raises:
            FrameError: If the client broke the protocol; its `messages` are those completed before.
        """
        messages: list[Message] = []
        if self._ended:
            return messages
        unread: bytes | bytearray = data
        if self._buffer is not None:
            self._buffer += data
            unread = self._buffer
        try:
            used = self._read_frames(unread, messages)
        except FrameError as error:
            self._end()
            error.messages = messages
            raise
        self._keep(unread, used)
        return messages

    def _read_frames(self, data: bytes | bytearray, messages: list[Message]) -> int:
        """Read all whole frames; return where the first unfinished one begins."""
        at = 0
        while not self._ended:
            header = _read_header(data, at)
            if header is None:
                break
            self._check_order_and_size(header)
            payload_at = header.key_at + 4
            end = payload_at + header.length
            if len(data) < end:
                break
            payload = _unmask(data[header.key_at : payload_at], data[payload_at:end])
            message = self._take(header, payload)
            if message is not None:
                messages.append(message)
            at = end
        return at

    def _check_order_and_size(self, header: _Header) -> None:
        """Refuse a frame by its header alone, before its payload is waited for."""
        if header.opcode >= CLOSE:
            return  # 5.4: control frames may come between fragments; their size is checked with the header
        within = self._fragments is not None
        if within != (header.opcode == CONTINUATION):
            expected = "a continuation" if within else "the beginning of a message"
            raise FrameError(PROTOCOL_ERROR, f"expected {expected}, got opcode {header.opcode}")
        before = 0 if self._fragments is None else len(self._fragments)
        if before + header.length > self._max_message_bytes:
            raise FrameError(TOO_BIG, f"a message may have at most {self._max_message_bytes} bytes")
        # Empty fragments add no bytes, so that without a count of their own a message need never end.
        if self._fragment_count > self._max_message_bytes:
            raise FrameError(TOO_BIG, f"a message may have at most {self._max_message_bytes} fragments")

    def _take(self, header: _Header, payload: bytes) -> Message | None:
        """Take one whole frame; return the message it is, or completes."""
        if header.opcode >= CLOSE:
            if header.opcode == CLOSE:
                read_close(payload)
                self._end()
            return Message(header.opcode, payload)
        if self._fragments is None and header.final:
            return _checked(header.opcode, payload)
        if self._fragments is None:
            self._fragments = bytearray()
            self._opcode = header.opcode
        self._fragments += payload
        self._fragment_count += 1
        return self._finish_message() if header.final else None

    def _finish_message(self) -> Message:
        assert self._fragments is not None
        payload = bytes(self._fragments)
        self._fragments = None
        self._fragment_count = 0
        return _checked(self._opcode, payload)

    def _keep(self, unread: bytes | bytearray, used: int) -> None:
        if self._ended or used == len(unread):
            self._buffer = None
        elif self._buffer is None:
            self._buffer = bytearray(unread[used:])
        else:
            del self._buffer[:used]

    def _end(self) -> None:
        self._ended = True
        self._buffer = None
        self._fragments = None


def _read_header(data: bytes | bytearray, at: int) -> _Header | None:
    """Read the header that begins at `at`, up to its masking key (5.2); None if it is not all there yet."""
    if len(data) < at + 2:
        return None
    first, second = data[at], data[at + 1]
    opcode, final, length = first & 0x0F, bool(first & 0x80), second & 0x7F
    if first & 0x70:
        raise FrameError(PROTOCOL_ERROR, "reserved bits are set, but no extension was agreed")
    if opcode not in _OPCODES:
        raise FrameError(PROTOCOL_ERROR, f"unknown opcode {opcode}")
    if not second & 0x80:
        raise FrameError(PROTOCOL_ERROR, "a client's frames must be masked")
    if opcode >= CLOSE and not final:
        raise FrameError(PROTOCOL_ERROR, "a control frame may not be fragmented")
    if opcode >= CLOSE and length > _MAX_CONTROL_BYTES:
        raise FrameError(PROTOCOL_ERROR, f"a control frame may have at most {_MAX_CONTROL_BYTES} bytes")
    if length <= 125:
        return _Header(final, opcode, length, at + 2)
    key_at = at + 2 + (2 if length == 126 else 8)
    if len(data) < key_at:
        return None
    return _Header(final, opcode, _read_long_length(data[at + 2 : key_at]), key_at)


def _read_long_length(field: bytes | bytearray) -> int:
    """Read a length of 16 or 64 bits: it must not fit a shorter form, nor have the highest of 64 bits set."""
    length = int.from_bytes(field, "big")
    if length < (126 if len(field) == 2 else 1 << 16):
        raise FrameError(PROTOCOL_ERROR, f"length {length} is not in its shortest form")
    if length >> 63:
        raise FrameError(PROTOCOL_ERROR, "a length must be less than 2 to the power of 63")
    return length


def _unmask(key: bytes | bytearray, masked: bytes | bytearray) -> bytes:
    """Undo the mask (5.3) as one XOR of two long numbers: 0.5 us for 100 bytes, 0.2 ms for 64 KiB."""
    length = len(masked)
    mask = (key * (length // 4 + 1))[:length]
    return (int.from_bytes(masked, "little") ^ int.from_bytes(mask, "little")).to_bytes(length, "little")


def _checked(opcode: int, payload: bytes) -> Message:
    if opcode == TEXT:
        _decoded(payload, "a text message")
    return Message(opcode, payload)


def _decoded(payload: bytes, what: str) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError as error:
        raise FrameError(INVALID_DATA, f"{what} is not UTF-8 at byte {error.start}") from error


def _may_be_sent(code: int) -> bool:
    return code in _REGISTERED_CODES or code in _PRIVATE_CODES
