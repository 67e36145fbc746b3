"""Parts of the state that something computes from the log, as they are kept. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Part(NamedTuple):
    """One part of it.

    Args:
        kind: What it is.
        key: Which of its kind.
        seq: Number of the entry that changed it last.
        fields: What it is now; None: there is nothing of it any more.
    """

    kind: str
    key: str
    seq: int
    fields: Mapping[str, Any] | None


class Progress(NamedTuple):
    """Up to which entry a log was processed. `log` names the log: numbers mean nothing in another one."""

    log: str
    seq: int
