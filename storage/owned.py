"""A resource and its owners, as they are kept and as they are told. Names are strings here, and mean nothing. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Owned(NamedTuple):
    """A resource like `stream/42`, and its owners like `user:u1`.

    `version` grows with every change of the same resource, so that of two changes that arrive in the wrong order the last is known.
    """

    resource: str
    owners: tuple[str, ...]
    version: int

    def belongs_to(self, names: Iterable[str]) -> bool:
        """Tell whether one of these names is an owner."""
        return any(name in self.owners for name in names)
