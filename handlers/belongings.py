"""Belongings: which resources' events a principal may hear of besides what its credential says. Asks MongoDB; knows no request."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from hub.errors import BadRequest, Forbidden
from hub.ownership import MAX_OWNED, OwnershipChanges, owned_audiences
from hub.principal import RESOURCE, Principal
from storage.owned import Owned
from storage.ownership import MAX_RESOURCES, Ownership


class Belongings(NamedTuple):
    """Audiences of resources; `all` tells whether a connection also hears of those that it comes to own later."""

    audiences: frozenset[str] = frozenset()
    all: bool = True


NOTHING = Belongings(all=False)  # what a connection without subscriptions needs to hear of


class Belonging:
    """Answers what belongs to whom, by what is kept in MongoDB and what the log has told meanwhile.

    What it returns holds until the next `await`: whoever opens a connection asks last.

    Args:
        ownership: What is kept.
        changes: What the log has told this process.
    """

    def __init__(self, ownership: Ownership, changes: OwnershipChanges) -> None:
        self._ownership = ownership
        self._changes = changes
        self._noticed = 0  # where the changes stood when the ownership was told of them last

    async def of(self, principal: Principal, named: Collection[str]) -> Belongings:
        """Return what a connection with these subscriptions hears of.

        Args:
            principal: Whose.
            named: The audiences that its subscriptions are limited to; empty: they are not.

        Raises:
            Forbidden: If a named one is not the principal's, or does not exist.
            BadRequest: If there are too many to hear of all without naming them.
            Unavailable: If MongoDB is away.
        """
        if named:
            return Belongings(await self.require(principal, named), all=False)
        found = await self.everything(principal)
        if found is None:
            raise BadRequest(f"more than {MAX_OWNED} resources are yours: name those you want to hear of", field="resources")
        return Belongings(found)

    def nothing_to_own(self) -> bool:
        """Tell, without asking, whether it is certain that there are no resources."""
        self._mark()
        return self._ownership.is_empty

    async def everything(self, principal: Principal) -> frozenset[str] | None:
        """Return the audiences of all resources of a principal; None if there are more than `MAX_OWNED`."""
        while True:
            mark = self._mark()
            found = await self._ownership.owned_by(list(principal.names()), MAX_OWNED)
            if len(found) > MAX_OWNED:
                return None
            if not self._changes.forgot(mark):
                return owned_audiences(found, self._changes.since(mark), principal)

    async def require(self, principal: Principal, named: Collection[str]) -> frozenset[str]:
        """Return those of the named audiences that are resources of a principal's, once it is clear that it may hear all of them.

        Raises:
            Forbidden: If not, in the same words and after the same question to MongoDB whether it is another's or nobody's.
        """
        asked = frozenset(named) - principal.audiences
        owned = await self.among(principal, asked) if asked else asked
        if owned != asked:
            raise Forbidden("not every one of these resources is yours", field="resources")
        return owned

    async def among(self, principal: Principal, audiences: frozenset[str]) -> frozenset[str]:
        """Return those of some audiences that are resources of a principal's."""
        names = [audience.removeprefix(RESOURCE) for audience in audiences]
        while True:
            mark = self._mark()
            found: list[Owned] = []
            for first in range(0, len(names), MAX_RESOURCES):
                found += (await self._ownership.owners_of(names[first : first + MAX_RESOURCES])).values()
            if not self._changes.forgot(mark):
                return owned_audiences(found, self._changes.since(mark), principal) & audiences

    def _mark(self) -> int:
        """Return where the changes stand; if there were any, no answer from before is good for what is asked next."""
        mark = self._changes.mark()
        if mark != self._noticed:
            self._noticed = mark
            self._ownership.noticed()
        return mark
