"""Who is connected: connections by user, organisation, entity and resource, and how many one of them may have. No I/O."""

from __future__ import annotations

from collections.abc import Iterator

from hub.connection import Connection
from hub.principal import Principal

USER, ORG, ENTITY = "user", "org", "entity"


class _Index:
    """Connections by a name. Most names have one connection, which then needs no dictionary of its own."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: dict[str, Connection | dict[Connection, None]] = {}

    def add(self, name: str, connection: Connection) -> None:
        held = self._held.get(name)
        if held is None:
            self._held[name] = connection
        elif isinstance(held, dict):
            held[connection] = None
        else:
            self._held[name] = {held: None, connection: None}

    def remove(self, name: str, connection: Connection) -> None:
        held = self._held.get(name)
        if held is connection:
            del self._held[name]
        elif isinstance(held, dict):
            held.pop(connection, None)
            if not held:
                del self._held[name]

    def get(self, name: str) -> list[Connection]:
        held = self._held.get(name)
        if held is None:
            return []
        return list(held) if isinstance(held, dict) else [held]

    def count(self, name: str) -> int:
        held = self._held.get(name)
        if held is None:
            return 0
        return len(held) if isinstance(held, dict) else 1

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)


class Census:
    """All connections of this process by those whom they act for, and by the resources they own; in the order in which they came."""

    def __init__(self) -> None:
        self._by_kind = {USER: _Index(), ORG: _Index(), ENTITY: _Index()}
        self._by_resource = _Index()

    def enter(self, connection: Connection) -> None:
        """Count a connection in."""
        for kind, name in names_of(connection.principal):
            self._by_kind[kind].add(name, connection)
        for audience in connection.owned:
            self._by_resource.add(audience, connection)

    def leave(self, connection: Connection) -> None:
        """Count a connection out."""
        for kind, name in names_of(connection.principal):
            self._by_kind[kind].remove(name, connection)
        for audience in connection.owned:
            self._by_resource.remove(audience, connection)

    def of(self, kind: str, name: str) -> list[Connection]:
        """Return the connections of a user, an organisation or an entity, oldest first."""
        return self._by_kind[kind].get(name)

    def count(self, kind: str, name: str) -> int:
        """Return how many connections a user, an organisation or an entity has."""
        return self._by_kind[kind].count(name)

    def names(self, kind: str) -> Iterator[str]:
        """Return which users, organisations or entities are connected."""
        return iter(self._by_kind[kind])

    def users(self) -> int:
        """Return how many users are connected."""
        return len(self._by_kind[USER])

    def owning(self, audience: str) -> list[Connection]:
        """Return the connections that own the resource with this audience."""
        return self._by_resource.get(audience)

    def named(self, audience: str) -> list[Connection]:
        """Return the connections of those whom an owner's audience names, like `org:o1`."""
        kind, _, name = audience.partition(":")
        return self.of(kind, name) if kind in self._by_kind else []

    def own(self, connection: Connection, owned: frozenset[str]) -> None:
        """Note which resources a connection owns from now on."""
        for audience in connection.owned - owned:
            self._by_resource.remove(audience, connection)
        for audience in owned - connection.owned:
            self._by_resource.add(audience, connection)
        connection.owned = owned


def names_of(principal: Principal) -> Iterator[tuple[str, str]]:
    """Return under which kinds and names a principal's connections are counted; an anonymous one's under none."""
    if principal.user:
        yield USER, principal.user
    if principal.org is not None:
        yield ORG, principal.org
    if principal.entity is not None:
        yield ENTITY, principal.entity
