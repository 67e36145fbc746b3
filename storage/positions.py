"""Event ids on the wire, and the sequence numbers sealed into them. No I/O.

An id is `<milliseconds since 1970>-<suffix>`. The suffix is the log's epoch (4 bytes, made anew with the log) and one AES-128 block over
the sequence number and the time. So an id is stable and unique, leads to its entry by index, tells nobody how many events lie between
two ids, and cannot be made up: whatever does not open to its own time part was never issued here.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode
from binascii import Error as Base64Error
from binascii import b2a_base64
from struct import Struct
from typing import NamedTuple

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES128
from cryptography.hazmat.primitives.ciphers.modes import ECB

from storage.errors import UnknownPosition

EPOCH_BYTES = 4
KEY_BYTES = 16
MAX_ID_LENGTH = 64
UNKNOWN = "unknown position"
RECREATED = "log recreated"
_BLOCK = Struct(">QQ")  # sequence number and time
_URLSAFE = bytes.maketrans(b"+/", b"-_")  # what urlsafe_b64encode does, without its detours: two ids are made for each event


class Position(NamedTuple):
    """A place in the log: just after entry `seq`, which was appended at `ms`. `seq` 0 is before everything."""

    seq: int
    ms: int


class PositionCodec:
    """Turn places in one log into ids and back.

    ECB is right here: every block is distinct (a sequence number occurs once) and stands alone.

    Args:
        epoch: 4 random bytes, public, one value for the life of a log.
        key: 16 random bytes, kept with the log, never shown.
    """

    def __init__(self, epoch: bytes, key: bytes) -> None:
        cipher = Cipher(AES128(key), ECB())
        self.epoch = epoch
        self._seal = cipher.encryptor().update
        self._open = cipher.decryptor().update

    def encode(self, seq: int, ms: int) -> str:
        """Return the id of entry `seq`, appended `ms` milliseconds after 1970."""
        sealed = b2a_base64(self.epoch + self._seal(_BLOCK.pack(seq, ms)), newline=False)
        return f"{ms}-{sealed[:-1].translate(_URLSAFE).decode()}"

    def decode(self, text: str) -> Position:
        """Return the place that an id names.

        Raises:
            UnknownPosition: If this log never issued the id; its `reason` tells a recreated log from nonsense.
        """
        time_part, _, suffix = text[: MAX_ID_LENGTH + 1].partition("-")
        try:
            raw = urlsafe_b64decode(suffix.encode("ascii") + b"=")
        except (Base64Error, UnicodeEncodeError, ValueError):
            raise UnknownPosition(UNKNOWN) from None
        if len(raw) != EPOCH_BYTES + KEY_BYTES:
            raise UnknownPosition(UNKNOWN)
        block = self._open(raw[EPOCH_BYTES:])
        position = Position(*_BLOCK.unpack(block))
        if self.encode(*position) == text:  # the only spelling that was issued
            return position
        foreign = raw[:EPOCH_BYTES] != self.epoch and time_part.isascii() and time_part.isdigit()
        raise UnknownPosition(RECREATED if foreign else UNKNOWN)
