"""Interests: everything that decides what a connection gets. Connections with equal interests share one object."""

from __future__ import annotations

from typing import Generic, TypeVar

from hub.formats import Format
from hub.subscriptions import Subscription

Attached = TypeVar("Attached")  # what stands at the head of the log: connections

EntryKind = tuple[str, str, str | None, tuple[str, ...]]  # topic, type, source and audience: all that routing looks at, payloads apart


class Interest(Generic[Attached]):
    """What a connection may see and wants to see. Made by `Router.intern` only.

    `attached` are the connections at the head of the log, in the order in which they came; `users` counts all connections that share it.
    """

    __slots__ = ("attached", "audiences", "format", "subscriptions", "users")

    def __init__(self, audiences: frozenset[str], subscriptions: frozenset[Subscription], format: Format) -> None:
        self.audiences = audiences
        self.subscriptions = subscriptions
        self.format = format
        self.attached: dict[Attached, None] = {}
        self.users = 0

    def conditions(self, kind: EntryKind) -> tuple[Subscription, ...] | None:
        """Return the subscriptions that select entries of this kind: None if there is none, empty if one does so whatever the payload."""
        topic, type, source, audience = kind
        if self.audiences.isdisjoint(audience):
            return None
        selecting = [one for one in self.subscriptions if one.selects(topic, type, source, audience)]
        if not selecting:
            return None
        return () if any(not one.bounds for one in selecting) else tuple(selecting)
