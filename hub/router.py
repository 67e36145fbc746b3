"""Routing: which interests an entry concerns. Decided once for each kind of entry and kept up to date as interests come and go."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hub.connection import Connection
from hub.formats import Format
from hub.interest import EntryKind, Interest
from hub.principal import PUBLIC
from hub.subscriptions import Subscription, is_exact, parse_payload
from storage.entries import Entry

MAX_ROUTES = 4096  # kinds of entries that are remembered; the oldest is forgotten and decided again when it comes back


class Route:
    """What is known of one kind of entry: for each interest it concerns, the conditions that its payload must still meet."""

    __slots__ = ("interests", "key")

    def __init__(self, key: EntryKind) -> None:
        self.key = key
        self.interests: dict[Interest[Connection], tuple[Subscription, ...]] = {}

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
        self._interests: dict[tuple[Format, frozenset[str], frozenset[Subscription]], Interest[Connection]] = {}
        self._by_audience: dict[str, dict[Interest[Connection], None]] = {}  # every interest under each of its audiences
        self._by_topic: dict[str, dict[Interest[Connection], None]] = {}  # interests that name exact topics only, under each of them
        self._by_pattern: dict[Interest[Connection], None] = {}  # the others
        self._routes: dict[EntryKind, Route] = {}  # oldest first
        self._routes_by_topic: dict[str, dict[Route, None]] = {}

    def intern(self, audiences: frozenset[str], subscriptions: frozenset[Subscription], format: Format) -> Interest[Connection]:
        """Return the one interest with these values, for one more connection; each call needs a `release`."""
        key = (format, audiences, subscriptions)
        interest = self._interests.get(key)
        if interest is None:
            interest = self._interests[key] = Interest(audiences, subscriptions, format)
            self._index(interest)
        interest.users += 1
        return interest

    def release(self, interest: Interest[Connection]) -> None:
        """Take back one `intern`; the last one forgets the interest."""
        interest.users -= 1
        if not interest.users:
            del self._interests[interest.format, interest.audiences, interest.subscriptions]
            self._unindex(interest)

    def _index(self, interest: Interest[Connection]) -> None:
        for audience in interest.audiences:
            self._by_audience.setdefault(audience, {})[interest] = None
        for bucket in self._topic_buckets(interest):
            bucket[interest] = None
        for route in self._routes_concerned(interest):
            _connect(route, interest)

    def _unindex(self, interest: Interest[Connection]) -> None:
        for audience in interest.audiences:
            bucket = self._by_audience[audience]
            del bucket[interest]
            if not bucket:
                del self._by_audience[audience]
        for bucket in self._topic_buckets(interest):
            del bucket[interest]
        for one in interest.subscriptions:
            if not self._by_topic.get(one.topic, True):
                del self._by_topic[one.topic]
        for route in self._routes_concerned(interest):
            route.interests.pop(interest, None)

    def _topic_buckets(self, interest: Interest[Connection]) -> list[dict[Interest[Connection], None]]:
        topics = {one.topic for one in interest.subscriptions}
        if all(is_exact(topic) for topic in topics):
            return [self._by_topic.setdefault(topic, {}) for topic in topics]
        return [self._by_pattern]

    def _routes_concerned(self, interest: Interest[Connection]) -> list[Route]:
        topics = {one.topic for one in interest.subscriptions}
        if all(is_exact(topic) for topic in topics):
            return [route for topic in topics for route in self._routes_by_topic.get(topic, ())]
        return list(self._routes.values())

    def route(self, entry: Entry) -> Route:
        """Return the route of an entry, decided now if it is the first of its kind."""
        key = (entry.topic, entry.type, entry.source, entry.audience)
        route = self._routes.get(key)
        if route is None:
            route = self._decide(key)
        return route

    def _decide(self, key: EntryKind) -> Route:
        if len(self._routes) >= MAX_ROUTES:
            self._forget(next(iter(self._routes.values())))
        route = self._routes[key] = Route(key)
        self._routes_by_topic.setdefault(key[0], {})[route] = None
        for interest in self._candidates(key):
            _connect(route, interest)
        return route

    def _forget(self, route: Route) -> None:
        del self._routes[route.key]
        bucket = self._routes_by_topic[route.key[0]]
        del bucket[route]
        if not bucket:
            del self._routes_by_topic[route.key[0]]

    def _candidates(self, key: EntryKind) -> list[Interest[Connection]]:
        """Return a superset of the interests concerned, by topic or by audience, whichever is smaller."""
        topic, _, _, audience = key
        by_topic = self._by_topic.get(topic, {})
        by_audience = [self._by_audience.get(one, {}) for one in audience]
        if PUBLIC in audience or len(by_topic) + len(self._by_pattern) <= sum(map(len, by_audience)):
            return [*by_topic, *self._by_pattern]
        return list(dict.fromkeys(interest for bucket in by_audience for interest in bucket))


def _connect(route: Route, interest: Interest[Connection]) -> None:
    conditions = interest.conditions(route.key)
    if conditions is not None:
        route.interests[interest] = conditions
