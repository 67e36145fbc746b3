"""Routing: which interests an entry concerns. Decided once for each kind of entry and kept up to date as interests come and go.

The key of an entry is looked at only where somebody asks for it: else ever new keys would be ever new kinds. A kind with a key has a route
of its own for those who ask for that key, beside the route of all others.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from hub.connection import Connection
from hub.formats import Format
from hub.interest import EntryKind, Interest
from hub.principal import PUBLIC
from hub.subscriptions import Subscription, is_exact, parse_payload
from hub.terms import Pace
from storage.entries import Entry

_Values = tuple[Format, frozenset[str], frozenset[Subscription], Pace | None]  # what makes interests equal
Place = TypeVar("Place")
Member = TypeVar("Member")

MAX_ROUTES = 4096  # kinds of entries that are remembered; the oldest is forgotten and decided again when it comes back


class Route:
    """What is known of one kind of entry: for each interest it concerns, the conditions that its payload must still meet.

    Without a key in its kind it is for those who ask for no key; `keyed` counts the interests that select some entries by their key.
    """

    __slots__ = ("interests", "keyed", "kind")

    def __init__(self, kind: EntryKind) -> None:
        self.kind = kind
        self.interests: dict[Interest[Connection], tuple[Subscription, ...]] = {}
        self.keyed = 0

    def concerns(self, interest: Interest[Connection], entry: Entry) -> bool:
        """Tell whether this entry, which is of this kind, is for that interest."""
        conditions = self.interests.get(interest)
        if conditions is None:
            return False
        return not conditions or meets(conditions, parse_payload(entry.data))


def meets(conditions: Iterable[Subscription], payload: Any) -> bool:
    """Tell whether a payload is within the bounds of one of these subscriptions."""
    return any(one.holds(payload) for one in conditions)


class Router:
    """All interests, and the routes decided so far."""

    def __init__(self) -> None:
        self._interests: dict[_Values, Interest[Connection]] = {}
        self._by_audience: dict[str, dict[Interest[Connection], None]] = {}  # every interest under each of its audiences
        self._by_topic: dict[str, dict[Interest[Connection], None]] = {}  # interests that name exact topics only, under each of them
        self._by_pattern: dict[Interest[Connection], None] = {}  # the others
        self._by_key: dict[str, dict[Interest[Connection], None]] = {}  # interests that ask for keys, under each of them
        self._routes: dict[EntryKind, Route] = {}  # oldest first
        self._routes_by_topic: dict[str, dict[Route, None]] = {}
        self._routes_by_key: dict[str | None, dict[Route, None]] = {}

    def intern(
        self, audiences: frozenset[str], subscriptions: frozenset[Subscription], format: Format, pace: Pace | None = None
    ) -> Interest[Connection]:
        """Return the one interest with these values, for one more connection; each call needs a `release`."""
        values = (format, audiences, subscriptions, pace)
        interest = self._interests.get(values)
        if interest is None:
            interest = self._interests[values] = Interest(audiences, subscriptions, format, pace)
            self._index(interest)
        interest.users += 1
        return interest

    def subscriptions(self) -> int:
        """Return how many subscriptions all connections have together."""
        return sum(len(interest.subscriptions) * interest.users for interest in self._interests.values())

    def release(self, interest: Interest[Connection]) -> None:
        """Take back one `intern`; the last one forgets the interest."""
        interest.users -= 1
        if not interest.users:
            pace = interest.gathering.pace if interest.gathering is not None else None
            del self._interests[interest.format, interest.audiences, interest.subscriptions, pace]
            self._unindex(interest)

    def _index(self, interest: Interest[Connection]) -> None:
        for audience in interest.audiences:
            self._by_audience.setdefault(audience, {})[interest] = None
        for key in interest.asked_keys():
            self._by_key.setdefault(key, {})[interest] = None
        for bucket in self._topic_buckets(interest):
            bucket[interest] = None
        for route in self._routes_concerned(interest):
            _connect(route, interest)

    def _unindex(self, interest: Interest[Connection]) -> None:
        for audience in interest.audiences:
            _take_out(self._by_audience, audience, interest)
        for key in interest.asked_keys():
            _take_out(self._by_key, key, interest)
        for bucket in self._topic_buckets(interest):
            del bucket[interest]
        for one in interest.subscriptions:
            if not self._by_topic.get(one.topic, True):
                del self._by_topic[one.topic]
        for route in self._routes_concerned(interest):
            route.interests.pop(interest, None)
            route.keyed -= _counts(route, interest)

    def _topic_buckets(self, interest: Interest[Connection]) -> list[dict[Interest[Connection], None]]:
        topics = {one.topic for one in interest.subscriptions}
        if all(is_exact(topic) for topic in topics):
            return [self._by_topic.setdefault(topic, {}) for topic in topics]
        return [self._by_pattern]

    def _routes_concerned(self, interest: Interest[Connection]) -> list[Route]:
        """Return a superset of the routes in which an interest may stand."""
        topics = {one.topic for one in interest.subscriptions}
        keys = {None, *interest.asked_keys()}
        if all(is_exact(topic) for topic in topics):
            return [route for topic in topics for route in self._routes_by_topic.get(topic, ()) if route.kind[4] in keys]
        return [route for key in keys for route in self._routes_by_key.get(key, ())]

    def route(self, entry: Entry) -> Route:
        """Return the route of an entry for those who ask for no key, decided now if it is the first of its kind."""
        kind = (entry.topic, entry.type, entry.source, entry.audience, None)
        route = self._routes.get(kind)
        if route is None:
            route = self._decide(kind)
        return route

    def keyed_route(self, entry: Entry) -> Route | None:
        """Return the route of an entry for those who ask for its key, or None; to be asked only if `keyed` of the other is not 0."""
        if entry.key not in self._by_key:
            return None
        kind = (entry.topic, entry.type, entry.source, entry.audience, entry.key)
        route = self._routes.get(kind)
        if route is None:
            route = self._decide(kind)
        return route

    def concerns(self, interest: Interest[Connection], entry: Entry) -> bool:
        """Tell whether an entry is for an interest."""
        route = self.route(entry)
        if route.concerns(interest, entry):
            return True
        keyed = self.keyed_route(entry) if route.keyed else None
        return keyed is not None and keyed.concerns(interest, entry)

    def _decide(self, kind: EntryKind) -> Route:
        if len(self._routes) >= MAX_ROUTES:
            self._forget(next(iter(self._routes.values())))
        route = self._routes[kind] = Route(kind)
        self._routes_by_topic.setdefault(kind[0], {})[route] = None
        self._routes_by_key.setdefault(kind[4], {})[route] = None
        for interest in self._candidates(kind):
            _connect(route, interest)
        return route

    def _forget(self, route: Route) -> None:
        del self._routes[route.kind]
        _take_out(self._routes_by_topic, route.kind[0], route)
        _take_out(self._routes_by_key, route.kind[4], route)

    def _candidates(self, kind: EntryKind) -> Iterable[Interest[Connection]]:
        """Return a superset of the interests concerned: by key, or else by topic or by audience, whichever is smaller."""
        topic, _, _, audience, key = kind
        if key is not None:
            return self._by_key[key]
        by_topic = self._by_topic.get(topic, {})
        by_audience = [self._by_audience.get(one, {}) for one in audience]
        if PUBLIC in audience or len(by_topic) + len(self._by_pattern) <= sum(map(len, by_audience)):
            return [*by_topic, *self._by_pattern]
        return list(dict.fromkeys(interest for bucket in by_audience for interest in bucket))


def _connect(route: Route, interest: Interest[Connection]) -> None:
    conditions = interest.conditions(route.kind)
    if conditions is not None:
        route.interests[interest] = conditions
    route.keyed += _counts(route, interest)


def _counts(route: Route, interest: Interest[Connection]) -> bool:
    """Tell whether a route without a key counts this interest as one that asks for keys."""
    return route.kind[4] is None and interest.asks_for_keys_of(route.kind)


def _take_out(index: dict[Place, dict[Member, None]], place: Place, member: Member) -> None:
    """Take a member out of an index, and its place with the last one."""
    bucket = index[place]
    del bucket[member]
    if not bucket:
        del index[place]
