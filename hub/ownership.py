"""Who owns which resource, as far as this process has seen it change. What was so before is asked of MongoDB. No I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from hub.principal import Principal, audience_of
from storage.owned import Owned

REMEMBERED_CHANGES = 10_000  # far more than come while one question is put to MongoDB
REMEMBERED_OWNERS = 100_000  # of all of them together: one change may have a hundred owners, with names of 25 KB
MAX_OWNED = 1000  # resources that a connection hears of without naming them


class OwnershipChanges:
    """The last changes, in the order in which the log told of them."""

    def __init__(self) -> None:
        self._changes: deque[Owned] = deque()
        self._owners = 0  # that these name
        self._count = 0  # since the start
        self._versions: dict[str, int] = {}  # of the resources that changed lately, oldest first

    def note(self, change: Owned) -> bool:
        """Remember a change; False if a newer one of the same resource is known already."""
        if self._versions.get(change.resource, -1) >= change.version:
            return False
        self._versions.pop(change.resource, None)
        self._versions[change.resource] = change.version
        if len(self._versions) > REMEMBERED_CHANGES:
            del self._versions[next(iter(self._versions))]
        self._changes.append(change)
        self._owners += len(change.owners)
        self._count += 1
        while len(self._changes) > REMEMBERED_CHANGES or self._owners > REMEMBERED_OWNERS:
            self._owners -= len(self._changes.popleft().owners)
        return True

    def lose(self) -> None:
        """Learn that changes were missed: whoever asked before does not know enough any more."""
        self._changes.clear()
        self._owners = 0
        self._count += REMEMBERED_CHANGES + 1

    def mark(self) -> int:
        """Return where the changes stand, to ask later what has come since."""
        return self._count

    def forgot(self, mark: int) -> bool:
        """Tell whether more has come since `mark` than is remembered."""
        return self._count - mark > len(self._changes)

    def since(self, mark: int) -> Iterator[Owned]:
        """Return what has come since `mark`, oldest first; `forgot` tells whether that is all of it."""
        missing = self._count - mark
        return (change for index, change in enumerate(self._changes, missing - len(self._changes)) if index >= 0)


def owned_audiences(found: Iterable[Owned], changes: Iterable[Owned], principal: Principal) -> frozenset[str]:
    """Return the audiences of those resources that belong to a principal, by what was found and by what has changed since."""
    latest = {one.resource: one for one in found}
    for change in changes:
        known = latest.get(change.resource)
        if known is None or known.version < change.version:
            latest[change.resource] = change
    return frozenset(audience_of(one.resource) for one in latest.values() if one.belongs_to(principal.names()))
