"""The terms on which a connection is served: what its channel declares of them. No I/O."""

from __future__ import annotations

from typing import NamedTuple


class Pace(NamedTuple):
    """At most one delivery every `seconds`. While more than `above` events a second come, each holds only the newest event of each key."""

    seconds: float
    above: float = 0.0


class Terms(NamedTuple):
    """What one kind of connection is promised; connections of a channel share one value."""

    channel: str = "stream"
    heartbeat_seconds: float | None = None  # None: as the server's setting says
    pace: Pace | None = None  # None: every event at once


PLAIN = Terms()
