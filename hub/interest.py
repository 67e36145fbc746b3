"""Interests: everything that decides what a connection gets. Connections with equal interests share one object."""

from __future__ import annotations

from typing import Generic, TypeVar

from hub.formats import Format
from hub.gathering import Gathering
from hub.subscriptions import Subscription
from hub.terms import Pace

Attached = TypeVar("Attached")  # what stands at the head of the log: connections

# Topic, type, source, audience and key: all that routing looks at, payloads apart. The key is None where nobody asks for it.
EntryKind = tuple[str, str, str | None, tuple[str, ...], str | None]


class Interest(Generic[Attached]):
    """What a connection may see and wants to see. Made by `Router.intern` only.

    `attached` are the connections at the head of the log, in the order in which they came; `users` counts all connections that share it.
    `gathering` is what is pending for those at the head; None: they have no pace, and get everything at once.
    """

    __slots__ = ("attached", "audiences", "format", "gathering", "subscriptions", "users")

    def __init__(self, audiences: frozenset[str], subscriptions: frozenset[Subscription], format: Format, pace: Pace | None = None) -> None:
        self.audiences = audiences
        self.subscriptions = subscriptions
        self.format = format
        self.attached: dict[Attached, None] = {}
        self.gathering = Gathering(pace) if pace is not None else None
        self.users = 0

    def conditions(self, kind: EntryKind) -> tuple[Subscription, ...] | None:
        """Return the subscriptions that select entries of this kind: None if there is none, empty if one does so whatever the payload.

        With a key it is those that ask for it, without one those that ask for none: an entry with a key is for the interest if it meets
        either.
        """
        if self.audiences.isdisjoint(kind[3]):
            return None
        keyed = kind[4] is not None
        selecting = [one for one in self.subscriptions if bool(one.keys) is keyed and one.selects(*kind)]
        if not selecting:
            return None
        return () if any(not one.bounds for one in selecting) else tuple(selecting)

    def asks_for_keys_of(self, kind: EntryKind) -> bool:
        """Tell whether a subscription selects some entries of this kind by their key."""
        topic, type, source, audience, _ = kind
        if self.audiences.isdisjoint(audience):
            return False
        return any(one.keys and one.selects_some(topic, type, source, audience) for one in self.subscriptions)

    def asked_keys(self) -> frozenset[str]:
        """Return all keys that its subscriptions ask for."""
        return frozenset(key for one in self.subscriptions for key in one.keys)
