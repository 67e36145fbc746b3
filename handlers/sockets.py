"""All subscribers' sockets behind one epoll: bytes out, bytes in, the end; knows no HTTP and no WebSocket.

A connection costs one small object here: no task, no timer, no stream and no handle in the event loop, which
sees only the one epoll. A socket is a plain one, or one of tls.py, which behaves alike.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import select
import socket
import struct
import time
from collections.abc import Callable
from typing import Final, Protocol

BATCH_EVENTS: Final = 256  # handled in one turn of the loop; what is left over is reported again in the next
READ_BYTES: Final = 65536  # read from one socket in one turn
# Bytes not yet sent that the kernel takes for one client. Left alone, it took 4.2 MB for one that had stopped
# reading, and reported room only when that client had read 1.4 MB: a slow reader looked like a dead one.
UNSENT_BYTES: Final = 65536

GONE: Final = "gone"  # the client ended its side, or all of the connection
FINISHED: Final = "finished"  # the same after `finish`: it has read everything
RESET: Final = "reset"
TIMED_OUT: Final = "timed out"
FAILED: Final = "failed"  # any other error of the socket, or of its owner
_REASONS: Final = {errno.EPIPE: RESET, errno.ECONNRESET: RESET, errno.ETIMEDOUT: TIMED_OUT}

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 seconds: drop what is unsent, and send RST

log = logging.getLogger("tailcast.handlers")


class SinkOwner(Protocol):
    """Who is called back by a sink; never from inside a call it makes to that sink."""

    def on_drained(self) -> None:
        """All that was pending is with the kernel: `offer` may be called again."""

    def on_data(self, data: bytes) -> None:
        """The client sent these bytes; only of a sink that wants data, and not after `finish`."""

    def on_closed(self, reason: str) -> None:
        """The socket is closed, for one of this module's reasons; the last call; not made after `abort`."""


class _Nobody:
    """Owns the sinks that have no owner yet, or no longer: closed ones keep no connection alive."""

    def on_drained(self) -> None: ...
    def on_data(self, data: bytes) -> None: ...
    def on_closed(self, reason: str) -> None: ...


_NOBODY: Final = _Nobody()


class Poller:
    """Waits for all sinks' sockets in one epoll, which the event loop watches like any other descriptor.

    Args:
        loop: where everything is called; an epoll is itself pollable.
        clock: seconds, never going back.
        unsent_bytes: what the kernel may hold unsent for one client; 0 leaves it to the system.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        clock: Callable[[], float] = time.monotonic,
        unsent_bytes: int = UNSENT_BYTES,
    ) -> None:
        self.loop = loop
        self.clock = clock
        self.unsent_bytes = unsent_bytes
        self.scratch = memoryview(bytearray(READ_BYTES))  # what sinks read into: one for all, as none waits
        self._epoll = select.epoll()
        self._sinks: dict[int, SocketSink] = {}  # by descriptor; exactly those registered in the epoll
        loop.add_reader(self._epoll.fileno(), self._dispatch)

    def __len__(self) -> int:
        return len(self._sinks)

    def close(self) -> None:
        """Abort all sinks and stop waiting, while the loop is open; may be called twice or in a callback."""
        if self._epoll.closed:
            return
        self.loop.remove_reader(self._epoll.fileno())
        for sink in list(self._sinks.values()):
            sink.abort()
        self._epoll.close()

    def add(self, descriptor: int, sink: SocketSink) -> None:
        """Begin to wait for data, or the end (only sinks call this)."""
        self._epoll.register(descriptor, select.EPOLLIN)
        self._sinks[descriptor] = sink

    def change(self, descriptor: int, events: int) -> None:
        """Wait for these events instead (only sinks call this)."""
        self._epoll.modify(descriptor, events)

    def remove(self, descriptor: int) -> None:
        """Forget a descriptor that is about to be closed (only sinks call this)."""
        self._epoll.unregister(descriptor)
        del self._sinks[descriptor]

    def _dispatch(self) -> None:
        # Looked up before any callback runs: a callback may close a socket, and its number be given to a new
        # one, which must not get the old one's event. The old sink knows that it is closed.
        batch = [(self._sinks[number], events) for number, events in self._epoll.poll(0, BATCH_EVENTS)]
        for sink, events in batch:
            try:
                sink._handle(events)
            except Exception:  # a fault in one owner must not take the others' events away
                log.exception("the owner of a connection failed")
                self.loop.call_soon(sink._close, FAILED)


class SocketSink:
    """One client's socket: takes bytes while the kernel does, keeps at most the rest of one `offer`.

    A client that ends its side of the connection (a half-close, as `nc -q` and some pipes do) is treated as
    gone: one that still listens cannot be told from one that has left without sending to it.

    Args:
        poller: waits for this socket from now on, until it is closed.
        sock: belongs to the sink from now on; made non-blocking.
        want_data: whether the owner gets what the client sends; otherwise it is read and thrown away, because
            a socket closed with unread bytes resets the connection, and the end of the stream may be lost.

    Raises:
        ValueError: If the poller is closed; the socket is then still the caller's.
    """

    __slots__ = (
        "_finishing",
        "_offset",
        "_poller",
        "_rest",
        "_socket",
        "_writing",
        "owner",
        "stalled_since",
        "want_data",
    )

    def __init__(self, poller: Poller, sock: socket.socket, *, want_data: bool = False) -> None:
        self.owner: SinkOwner = _NOBODY  # to be set in the same turn of the loop
        self.want_data = want_data
        self.stalled_since: float | None = None  # when bytes last went out; None while nothing is pending
        self._poller = poller
        self._socket = sock
        self._rest: bytes | None = None  # what was offered last, while not all of it is out
        self._offset = 0  # how much of `_rest` is out
        self._writing = False  # whether the epoll waits for room in the socket
        self._finishing = False  # True for ever after `finish`
        sock.setblocking(False)
        _tune(sock, poller.unsent_bytes)
        poller.add(sock.fileno(), self)

    @property
    def closed(self) -> bool:
        """Whether the socket is closed, for whatever reason."""
        return self._socket.fileno() < 0

    @property
    def pending(self) -> int:
        """How many bytes wait for room in the socket."""
        return 0 if self._rest is None else len(self._rest) - self._offset

    def offer(self, data: bytes) -> bool:
        """Send at once what the kernel takes; nothing may be pending.

        Returns:
            True if all is with the kernel. False if some is pending: `on_drained` tells when it is out. Also
            False if the socket failed: `on_closed` tells, never before this returns. And after the end.
        """
        if self._rest is not None or self._finishing:
            return self._refuse()
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._close_soon(error)
            return False
        if sent == len(data):
            return True
        self._rest = data
        self._offset = sent
        self.stalled_since = self._poller.clock()
        self._wait_for_room(True)
        return False

    def finish(self, data: bytes = b"") -> None:
        """End in good order: send what is pending, then `data`, then the end of the stream.

        The sink stays until the client ends its side, too, and then calls `on_closed`. One that never does
        is the caller's to `abort` after a while. What the client still sends is thrown away.
        """
        if self.closed or self._finishing:
            return
        if self._rest is not None:
            self._rest = self._rest[self._offset :] + data
            self._offset = 0
        elif not data or self.offer(data):
            self._end_stream()
        self._finishing = True

    def abort(self, *, reset: bool = False) -> None:
        """Close at once, without a call back; may be called twice.

        Args:
            reset: also drop what the kernel has not sent yet, instead of leaving it to try for minutes.
        """
        if self.closed:
            return
        self._poller.remove(self._socket.fileno())
        if reset:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._socket.close()
        self._rest = None
        self.stalled_since = None
        self.owner = _NOBODY

    def _close(self, reason: str) -> None:
        """Close at once and tell the owner why; nothing if it is closed already."""
        owner = self.owner
        if not self.closed:
            self.abort()
            owner.on_closed(reason)

    def _handle(self, events: int) -> None:
        """Do what the epoll says is possible now."""
        if self.closed:
            return
        if events & ~select.EPOLLOUT:  # data, or an end or an error, which reading tells apart
            self._receive()
        if events & select.EPOLLOUT and self._rest is not None:
            self._send_rest(self._rest)

    def _receive(self) -> None:
        scratch = self._poller.scratch
        try:
            count = self._socket.recv_into(scratch)
        except BlockingIOError:
            return
        except OSError as error:
            self._close(_reason(error.errno))
            return
        if count == 0:
            all_sent = self._finishing and self._rest is None
            self._close(FINISHED if all_sent else GONE)
        elif self.want_data and not self._finishing:
            self.owner.on_data(bytes(scratch[:count]))

    def _send_rest(self, rest: bytes) -> None:
        try:
            self._offset += self._socket.send(memoryview(rest)[self._offset :])
        except BlockingIOError:
            return
        except OSError as error:
            self._close(_reason(error.errno))
            return
        if self._offset < len(rest):
            self.stalled_since = self._poller.clock()
            return
        self._rest = None
        self.stalled_since = None
        if self._finishing:
            self._end_stream()
        else:
            self.owner.on_drained()
        # Only now: a client that catches up fills its socket chunk by chunk, and goes on waiting in between.
        if self._rest is None and not self.closed:
            self._wait_for_room(False)

    def _refuse(self) -> bool:
        assert self._finishing, "offered while an earlier offer is pending"
        return False

    def _end_stream(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except BlockingIOError:  # only of TLS, which has a last word to say
            self._rest, self._offset = b"", 0  # nothing is to be sent, and then the end: as any other remainder
            self._wait_for_room(True)
        except OSError as error:
            self._close_soon(error)

    def _close_soon(self, error: OSError) -> None:
        """Close in the next turn: the owner is in the middle of a call, perhaps of a fan-out to many."""
        if not self.closed:
            self._poller.loop.call_soon(self._close, _reason(error.errno))

    def _wait_for_room(self, writing: bool) -> None:
        if self._writing != writing:
            self._writing = writing
            events = select.EPOLLIN | select.EPOLLOUT if writing else select.EPOLLIN
            self._poller.change(self._socket.fileno(), events)


def _reason(number: int | None) -> str:
    return FAILED if number is None else _REASONS.get(number, FAILED)


def _tune(sock: socket.socket, unsent_bytes: int) -> None:
    """Send small events without delay, and keep the kernel's queue short; only TCP has these options."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if unsent_bytes:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, unsent_bytes)
