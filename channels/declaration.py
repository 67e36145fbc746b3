"""How a channel is declared: which events it has, who may open it, and on which terms it is served. Values only; nothing here runs.

A family of users is one module beside this one, with a tuple of channels. Everything else follows from that: validation of what is
published, routes, rights, heartbeats, snapshots, pace, the reference, and the demo feed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import Any, NamedTuple

import msgspec

from hub.formats import HEARTBEAT, RETRY_MS
from hub.terms import PLAIN, Terms


class Access(Enum):
    """Who may open a channel."""

    ANYONE = auto()  # also without a credential; one that is given must hold
    SIGNED_IN = auto()  # anybody with a credential
    ENTITY = auto()  # whose credential names a current entity
    OWNER = auto()  # of the resource that the path names


class Scope(Enum):
    """For whom the events are that a channel shows."""

    EVERYTHING = auto()  # all that its principal may see
    PUBLIC = auto()  # everybody
    ENTITY = auto()  # the principal's current entity, and nobody else
    RESOURCE = auto()  # the resource that the path names


class EventType(NamedTuple):
    """A declared type of events.

    Args:
        name: On the wire.
        shape: What the payload must be; it forbids what it does not name.
        sample: A payload of this shape, which tests, docs and the demo feed use.
        audience: A sample audience.
        topic: Under which it is published by convention.
        key: The field of the payload that says what it is about: of several events about the same, the newest is what counts. None: it is
            a fact of its own, which no other replaces.
        high: Says by the payload whether an event is of high priority; None: as the publisher says.
        check: Says what is wrong with a payload, or its audience, beyond its shape: the field, like `audience` or `data.price`, and what is
            expected there; None: nothing.
        sources: Channels show events of this type from these sources only; empty: from all.
        shown: The shape of those, where the server makes them of what is published; None: they are as they were published.
        shown_sample: A payload of that shape.
    """

    name: str
    shape: type[msgspec.Struct]
    sample: Mapping[str, Any]
    audience: tuple[str, ...]
    topic: str
    key: str | None = None
    high: Callable[[Any], bool] | None = None
    check: Callable[[Any, tuple[str, ...]], tuple[str, str] | None] | None = None
    sources: tuple[str, ...] = ()
    shown: type[msgspec.Struct] | None = None
    shown_sample: Mapping[str, Any] | None = None


class Snapshot(NamedTuple):
    """State that a new client gets first: the newest event of each key, as of a position, and then every event after it.

    Args:
        name: What the list is called in the snapshot, like `orders`.
        owner: Kind of audience to which state belongs, like `user`, or `public`.
        types: Of the events that are folded.
        sources: Only events of these sources are folded; empty: of all.
        limit: How many keys one client gets at the most, the newest ones.
        gone: Says by the payload that there is nothing of this key any more; None: a key never goes.
        keep_seconds: How long what nothing is heard of is kept; None: until it is gone.
        each: Send every one as an event of its own with `"initializing": true`, instead of one list.
    """

    name: str
    owner: str
    types: tuple[str, ...]
    sources: tuple[str, ...] = ()
    limit: int = 100
    gone: Callable[[Mapping[str, Any]], bool] | None = None
    keep_seconds: float | None = None
    each: bool = False
    total: Callable[[list[Mapping[str, Any]]], Mapping[str, Any]] | None = None  # what stands beside the list, computed from it


class Recent(NamedTuple):
    """What a new client without a position gets of the past: its last events, up to so many, and none older than so."""

    events: int
    seconds: float


class Channel(NamedTuple):
    """A named selection of events with its rules.

    Args:
        name: Short; stands in client ids, logs and metrics.
        title: One sentence for the reference.
        events: The types that it declares.
        also: Names of types, declared by other channels, that it shows too.
        path: Where it is opened over SSE, as a route's pattern; None: with `/v1/stream` and `/ws` only.
        access: Who may open it.
        scope: For whom its events are.
        resource: The kind of resource that the path names as `id`; None: it names none.
        claims: Patterns of topics under which only declared types may be published.
        sources: Events that it declares are shown from these sources only; empty: as their types say.
        parameters: Names of query parameters that it understands beside those of every stream: `symbols` selects keys, `userId` a user.
        heartbeat: The text of its heartbeat comments, as it stands behind the colon.
        retry_ms: What a browser waits before it comes back.
        snapshot: What a new client gets first.
        recent: What a new client without a position gets of the past.
        terms: How it is served.
        all: Events are also for an audience of their own that stands for the whole channel, so that somebody may be let hear all of it.
        own_handler: Its path has a handler of its own; False: the one that all channels share.
    """

    name: str
    title: str
    events: tuple[EventType, ...] = ()
    also: tuple[str, ...] = ()
    path: str | None = None
    access: Access = Access.SIGNED_IN
    scope: Scope = Scope.EVERYTHING
    resource: str | None = None
    claims: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    heartbeat: str = HEARTBEAT
    retry_ms: int = RETRY_MS
    snapshot: Snapshot | None = None
    recent: Recent | None = None
    terms: Terms = PLAIN
    all: bool = False
    own_handler: bool = False

    @property
    def types(self) -> tuple[str, ...]:
        """Names of all types that it shows."""
        return (*(one.name for one in self.events), *self.also)
