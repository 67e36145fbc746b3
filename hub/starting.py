"""Where to begin: what a client's `from`, `lastEventId` or `position` means in this log."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from hub.connection import Start
from hub.errors import BadRequest
from hub.pages import EntryLog
from storage.errors import UnknownPosition
from storage.positions import UNKNOWN, Position, PositionCodec

EARLIEST = "earliest"
SHOWN_ID_LENGTH = 128  # how much of a nonsense id a `gap` repeats


class HubLog(EntryLog, Protocol):
    """What the hub needs of the log."""

    @property
    def codec(self) -> PositionCodec:
        """Makes and reads ids."""

    async def head(self) -> Position:
        """Return the newest place."""

    async def before_time(self, ms: int) -> Position:
        """Return the place after which everything is at least as new as `ms`."""


async def locate(log: HubLog, head: Position, wanted: str | None, *, field: str) -> Start | None:
    """Return where a client wants to begin: an id, `earliest`, or an RFC 3339 time; None: live from now.

    Args:
        log: Whose ids they are.
        head: As far as this process has seen the log.
        wanted: What the client gave; None or empty: nothing.
        field: What the client calls it.

    Raises:
        BadRequest: If it looks like a time and is none. An id that this log does not know is no error, but a gap.
        Unavailable: If the log must be asked and cannot be.
    """
    if not wanted:
        return None
    if wanted == EARLIEST:
        return Start(Position(0, 0), from_earliest=True)
    moment = _parse_time(wanted, field)
    if moment is not None:
        return Start(await log.before_time(moment), from_earliest=True)
    try:
        position = log.codec.decode(wanted)
        if position.seq <= head.seq or position.seq <= (await log.head()).seq:
            return Start(position, claims=((position, wanted),))  # whether it names the entry there is seen when that is read
        reason = UNKNOWN
    except UnknownPosition as unknown:
        reason = unknown.reason
    return Start(Position(0, 0), (wanted[:SHOWN_ID_LENGTH], reason))


def _parse_time(text: str, field: str) -> int | None:
    """Return an RFC 3339 time in milliseconds since 1970; None if the text does not look like one."""
    if len(text) < 11 or text[4] != "-" or text[10] not in "Tt ":
        return None
    try:
        moment = datetime.fromisoformat(text[:10] + "T" + text[11:].replace(" ", "+"))  # a `+` in a URL arrives as a space
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise BadRequest("expected an RFC 3339 time with its zone, like 2026-01-31T12:00:00Z", field=field)
    return max(0, round(moment.timestamp() * 1000))
