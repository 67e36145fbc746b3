"""Folds: which events belong to which state, and what they say of it. Pure functions of their arguments; no I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

from hub.principal import PUBLIC
from hub.subscriptions import parse_payload
from storage.entries import Entry
from storage.items import Item


class Snapshot(Protocol):
    """State as a channel declares it; channels.declaration says what each of these means."""

    @property
    def name(self) -> str: ...
    @property
    def owner(self) -> str: ...
    @property
    def types(self) -> tuple[str, ...]: ...
    @property
    def sources(self) -> tuple[str, ...]: ...
    @property
    def limit(self) -> int: ...
    @property
    def gone(self) -> Callable[[Mapping[str, Any]], bool] | None: ...
    @property
    def keep_seconds(self) -> float | None: ...
    @property
    def each(self) -> bool: ...
    @property
    def total(self) -> Callable[[list[Mapping[str, Any]]], Mapping[str, Any]] | None: ...


class Folds:
    """All state that there is.

    Channels that show the same state declare it alike. What is folded under a name stays the same for good: other types or sources are
    another state, and have another name.

    Args:
        snapshots: As channels declare them.

    Raises:
        ValueError: If two are called the same and are not, or a name has a slash in it.
    """

    def __init__(self, snapshots: Iterable[Snapshot] = ()) -> None:
        by_name: dict[str, Snapshot] = {}
        for one in snapshots:
            if not one.name or "/" in one.name:
                raise ValueError(f"expected the name of a snapshot without a slash, not {one.name!r}")
            if by_name.setdefault(one.name, one) != one:
                raise ValueError(f"two different snapshots are called {one.name!r}")
        self.names = tuple(by_name)
        self.types = frozenset(type for one in by_name.values() for type in one.types)
        self._by_type: dict[str, list[Snapshot]] = {}
        for one in by_name.values():
            for type in dict.fromkeys(one.types):
                self._by_type.setdefault(type, []).append(one)

    def items(self, entries: Iterable[Entry]) -> Iterator[Item]:
        """Return what entries say of state, in their order.

        Two entries with equal type, key, audience and source say something of the same items: only the later one counts.
        """
        for entry in entries:
            if entry.key is not None:
                for snapshot in self._by_type.get(entry.type, ()):
                    if not snapshot.sources or entry.source in snapshot.sources:
                        yield from _items(snapshot, entry, entry.key)


def _items(snapshot: Snapshot, entry: Entry, key: str) -> Iterator[Item]:
    """Return what an entry says of one state: one item for each of its owners."""
    owners = [token for token in entry.audience if _is_owner(token, snapshot.owner)]
    if not owners:
        return
    gone = _is_gone(snapshot, entry)
    expires = None if snapshot.keep_seconds is None else entry.ms / 1000 + snapshot.keep_seconds
    for owner in owners:
        yield Item(snapshot.name, owner, key, entry.seq, entry.ms, entry.type, entry.id, entry.data, expires, gone)


def _is_owner(token: str, kind: str) -> bool:
    return token == PUBLIC if kind == PUBLIC else token.startswith(f"{kind}:")


def _is_gone(snapshot: Snapshot, entry: Entry) -> bool:
    """Tell whether there is nothing of the key any more.

    A payload that is not of the shape that is declared now, as the log can have from before its type was declared, says nothing of it.
    """
    if not entry.data.lstrip().startswith("{"):
        return True
    if snapshot.gone is None:
        return False
    try:
        return snapshot.gone(parse_payload(entry.data))
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError):
        return True
