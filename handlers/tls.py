"""A TLS connection that behaves as a plain non-blocking socket does, so that streams and sinks need not know which they have.

Knows nothing of certificates, HTTP and sinks. Tornado makes the handshake on it, and a sink takes it over as it takes a plain socket.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import ssl
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

RECORD_BYTES = 16 << 10  # what a record holds at the most (RFC 8446, 5.1)

logger = logging.getLogger("tailcast.handlers")


class TlsSocket(ssl.SSLSocket):
    """The server's end, non-blocking; made by a context whose `sslsocket_class` it is.

    Where a plain socket raises BlockingIOError, so does this one. After it, the next `send` must begin with the same bytes: a part of them
    may be encrypted already. A failure of TLS is an `ssl.SSLError`, whose `errno` is none of the system's.
    """

    def do_handshake(self, block: bool = False) -> None:
        """Go on with the handshake.

        Raises:
            SSLWantReadError: If the client's next message is not there yet.
            SSLWantWriteError: If there is no room for ours.
            ConnectionResetError: If the client speaks something else, or the two cannot agree; anybody can do this to a server, so it is
                logged in one line that is no warning.
        """
        try:
            super().do_handshake(block)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError, ssl.SSLEOFError):
            raise
        except ssl.SSLError as error:
            logger.info("TLS handshake failed", extra={"fields": {"reason": error.reason, "address": self._address()}})
            raise ConnectionResetError(errno.ECONNRESET, "TLS handshake failed") from error

    def send(self, data: ReadableBuffer, flags: int = 0) -> int:
        """Send as much as the kernel takes, and return how much that is.

        Raises:
            BlockingIOError: If not even one record has gone out as a whole.
            ConnectionResetError: If the client is gone.
        """
        with memoryview(data) as view:
            sent = 0
            try:
                while sent < len(view):
                    # Record by record: of more, OpenSSL would tell only when all is out, and there would be no progress to be seen.
                    with view[sent : sent + RECORD_BYTES] as record:
                        sent += super().send(record)
            # Not SSLWantReadError: nothing is negotiated after the handshake. If it came all the same, who waited for room would do so
            # without a pause, as there is some; as an error it only ends the connection.
            except ssl.SSLWantWriteError:
                if sent == 0:
                    _block()
            except ssl.SSLEOFError:  # what older Pythons make of EPIPE and ECONNRESET (CPython issue 115627)
                raise ConnectionResetError(errno.ECONNRESET, "the client is gone") from None
            return sent

    def recv_into(self, buffer: WriteableBuffer, nbytes: int | None = None, flags: int = 0) -> int:
        """Read one record, and return its length; 0 at the end of the client's side, whether it was announced (RFC 8446, 6.1) or not.

        The buffer must be no smaller than a record. Then nothing that is decrypted stays behind in here, where no epoll sees it: OpenSSL
        reads no further than to the end of a record.

        Raises:
            BlockingIOError: If there is no whole record, or one that held no data.
            ConnectionResetError: If the client has cut the connection.
        """
        try:
            count = super().recv_into(buffer, nbytes, flags)
        except (
            ssl.SSLWantReadError,
            ssl.SSLWantWriteError,
        ):  # the latter for an answer of OpenSSL's own, which the next `send` takes along
            _block()
        if count == 0 and self.version() is not None:
            self._answer_end()
        return count

    def _answer_end(self) -> None:
        """End our side as well: a client that has ended its own waits for this. It cannot be done to a connection that was cut."""
        try:
            self.getpeername()  # what older Pythons take for an end may be a reset, after which there is no other side
        except OSError:
            raise ConnectionResetError(errno.ECONNRESET, "the client has cut the connection") from None
        with contextlib.suppress(OSError):
            self.shutdown(socket.SHUT_WR)

    def shutdown(self, how: int) -> None:
        """Say that nothing more follows (close_notify), then end this side as a plain socket; what still comes is not decrypted any more.

        Raises:
            BlockingIOError: If there is no room to say it: to be called again, with nothing sent in between.
        """
        try:
            self.unwrap()
        except ssl.SSLWantWriteError:
            _block()
        except ssl.SSLError:
            pass  # it is said; the client's own end is not there yet, or it went on sending
        super().shutdown(how)

    def _address(self) -> str:
        try:
            return str(self.getpeername()[0])
        except OSError:
            return ""


def _block() -> NoReturn:
    raise BlockingIOError(errno.EAGAIN, "no room, or no data") from None
