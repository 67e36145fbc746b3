"""gzip for event streams: each client's stream is one gzip member (RFC 1952) in HTTP/1.1 chunks, made of pieces that many clients share.

No connection has a compressor. What it takes to go on with a client's stream is what the client has had last: DEFLATE (RFC 1951) refers
back to that by distance only. So a piece is compressed with the last plain bytes of the stream as its dictionary, and fits every stream
that ends with these bytes. Each piece begins and ends at a byte. zlib only; no I/O, no clock.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import ClassVar, Final, NamedTuple

from hub.formats import chunk

# A few types need little: 2 KiB are as good as all. The samples of all 27 declared types in turn are 5 KiB: with 4 KiB of history they get
# 51 % smaller, with 8 KiB 69 %; in the demo feed, where prices come between them, 57 and 58 %, and with 12 KiB 66 %.
MOST_HISTORY_BYTES: Final = 12 << 10
LEAST_HISTORY_BYTES: Final = 4 << 10
HISTORIES_BYTES: Final = 32 << 20  # if each client had one of its own: they get shorter beyond some 2,700 clients, up to 8,192
MAX_HISTORIES: Final = 8  # for which one body is compressed; clients with other ones get it without, and have a common history then
SHARED_LEVEL: Final = 6
ALONE_LEVEL: Final = 1  # 64 KiB in 0.4 ms and 66 % smaller, at level 6 in 0.9 ms and 71 %
SHORT_BYTES: Final = 100  # heartbeats, mostly: not worth compressing, and no reason to forget what was before
# From here on it pays to look whether the same was compressed just now: for others that come back from the same place, or who get the same
# at the same pace without being known to.
REPEATED_BYTES: Final = 4096
SMALL_BYTES: Final = 1 << 14  # of body and history together; a compressor for more of them takes longer to set up
TABLES_PAY_BYTES: Final = 1 << 20  # of all clients together; a CRC takes 17 us for 64 KiB, and the tables are made in about 150

HEADER: Final = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"  # no name, no time, unknown system (2.3)
FINAL_BLOCK: Final = b"\x03\0"  # the last one, of fixed codes, with nothing in it (RFC 1951, 3.2.6)


class GzipStream:
    """What one client has had, as far as it matters for going on."""

    __slots__ = ("crc", "history", "size")

    living: ClassVar[int] = 0  # how many there are

    def __init__(self) -> None:
        GzipStream.living += 1
        self.history = b""  # the last bytes that it had, which what follows may refer to; clients that had the same share it
        self.crc = 0  # of all it had
        self.size = 0  # of all it had; 0: not even the header

    def __del__(self) -> None:
        GzipStream.living -= 1

    def pack(self, body: bytes) -> bytes:
        """Return what goes over the wire for a body that is for this client alone.

        Nothing in it refers to what was before, and nothing refers to it later: sizes tell nothing of what is secret in a `welcome`.
        """
        begin = self._take(zlib.crc32(body, self.crc), len(body))
        if len(body) <= SHORT_BYTES:
            self.history = _advanced(self.history, body, _reach())
            return begin + chunk(_stored(body))
        self.history = b""
        return begin + chunk(_deflated(body, ALONE_LEVEL))

    def end(self, body: bytes) -> bytes:
        """Return the same for the last body, with the trailer that makes the member whole (RFC 1952, 2.3.1), and the last chunk."""
        packed = self.pack(body)
        trailer = self.crc.to_bytes(4, "little") + (self.size & 0xFFFFFFFF).to_bytes(4, "little")
        return packed + chunk(FINAL_BLOCK + trailer) + b"0\r\n\r\n"

    def follow(self, piece: Piece, crc: int, size: int) -> bytes:
        """Return what goes over the wire for a piece that others get, too."""
        self.history = piece.then
        return self._take(crc, size) + piece.data

    def _take(self, crc: int, size: int) -> bytes:
        begin = b"" if self.size else chunk(HEADER)
        self.crc = crc
        self.size += size
        return begin


class Piece(NamedTuple):
    """A compressed body in its chunk, for clients with one history, and what their history is then."""

    data: bytes
    then: bytes


class Shared:
    """A body for many clients, compressed once for all who have the same history.

    Histories that end alike become one: clients that get the same for a while share everything again, whatever they had before.

    Args:
        body: Plain bytes.
        streams: Of all clients who will get it; each is packed for once.
    """

    def __init__(self, body: bytes, streams: Iterable[GzipStream]) -> None:
        counts = Counter(stream.history for stream in streams)
        reach = _reach()
        self._size = len(body)
        self._crc = _crc_after(body, counts.total())
        thens: dict[bytes, bytes] = {}  # equal bytes are one object
        self._pieces: dict[bytes, Piece] = {}
        for history, _ in counts.most_common(MAX_HISTORIES) if len(counts) > MAX_HISTORIES else counts.items():
            self._pieces[history] = _piece(body, history, thens, reach)
        if len(self._pieces) < len(counts):
            self._pieces.setdefault(b"", _piece(body, b"", thens, reach))
        self._fresh = self._pieces.get(b"")

    def pack(self, stream: GzipStream) -> bytes:
        """Return what goes over the wire for one of the clients."""
        piece = self._pieces.get(stream.history) or self._fresh
        assert piece is not None, "one of those it was made for"
        return stream.follow(piece, self._crc(stream.crc), self._size)


def _reach() -> int:
    """Return how many bytes a history may have."""
    return max(LEAST_HISTORY_BYTES, min(MOST_HISTORY_BYTES, HISTORIES_BYTES // max(1, GzipStream.living)))


def _piece(body: bytes, history: bytes, thens: dict[bytes, bytes], reach: int) -> Piece:
    then = _tail(history, body, reach)
    return Piece(chunk(_deflated(body, SHARED_LEVEL, history)), thens.setdefault(then, then))


def _tail(history: bytes, body: bytes, reach: int) -> bytes:
    return (history + body)[-reach:] if len(body) < reach else body[-reach:]


@lru_cache(maxsize=16)  # all who have the same history and get the same heartbeat have the same afterwards, as one object
def _advanced(history: bytes, body: bytes, reach: int) -> bytes:
    return _tail(history, body, reach)


def _deflated(body: bytes, level: int, history: bytes = b"") -> bytes:
    """Return blocks that end at a byte, after which everything is there: the last one is empty (RFC 1951, 3.2.4)."""
    return (_deflate if len(body) < REPEATED_BYTES else _deflate_once)(body, level, history)


def _deflate(body: bytes, level: int, history: bytes) -> bytes:
    small = len(body) + len(history) <= SMALL_BYTES
    window, memory = (14, 7) if small else (zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL)
    if history:
        deflater = zlib.compressobj(level, zlib.DEFLATED, -window, memory, zlib.Z_DEFAULT_STRATEGY, history)
    else:
        deflater = zlib.compressobj(level, zlib.DEFLATED, -window, memory)
    return deflater.compress(body) + deflater.flush(zlib.Z_SYNC_FLUSH)


_deflate_once = lru_cache(maxsize=32)(_deflate)  # of a chunk each, 2 MiB


def _stored(body: bytes) -> bytes:
    """Return a block of bytes as they are (RFC 1951, 3.2.4)."""
    size = len(body)
    return b"\0" + size.to_bytes(2, "little") + (size ^ 0xFFFF).to_bytes(2, "little") + body


def _crc_after(body: bytes, count: int) -> Callable[[int], int]:
    """Return a function from the CRC of what was before a body to that of both, to be called `count` times."""
    if len(body) * count < TABLES_PAY_BYTES:
        return lambda before: zlib.crc32(body, before)
    # What a CRC becomes by `len(body)` further bytes depends on each of its bits alone, whatever these bytes are: it is linear.
    own = zlib.crc32(body)
    image = zlib.crc32(body, 1 << 31) ^ own  # of the highest bit; that of each lower one is this one, a bit further
    tables: list[list[int]] = []
    for _ in range(4):
        images = []
        for _ in range(8):
            images.append(image)
            image = image >> 1 ^ (0xEDB88320 if image & 1 else 0)  # RFC 1952, 8
        table = [own if not tables else 0]
        for one in reversed(images):
            table += [value ^ one for value in table]
        tables.append(table)
    first, second, third, fourth = tables
    return lambda before: first[before >> 24] ^ second[before >> 16 & 255] ^ third[before >> 8 & 255] ^ fourth[before & 255]
