"""What can go wrong below the hub. Drivers' own exceptions stop here.

StorageError
├── Unavailable        MongoDB cannot be reached, is electing, or did not answer in time: try again
├── CommandFailed      MongoDB answered with an error: a defect or a misconfiguration
├── Overloaded         more is waiting to be appended than the queue may hold: try again later
└── UnknownPosition    an event id that this log never issued
"""

from __future__ import annotations


class StorageError(Exception):
    """The root of this layer's errors."""


class Unavailable(StorageError):
    """MongoDB cannot be reached, has no primary, or did not answer in time."""


class CommandFailed(StorageError):
    """MongoDB refused a command; `code` is its numeric error code (0 when it gave none)."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class Overloaded(StorageError):
    """The appender's queue is full."""


class UnknownPosition(StorageError):
    """An id that this log never issued; `reason` is what a `gap` message says of it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
