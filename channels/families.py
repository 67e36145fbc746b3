"""All channels there are, and what follows from them together: which types are declared, and which topics are claimed.

A further family is a module beside this one and its name in `FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

from channels import entities, monitoring, payments, trading
from channels.declaration import Channel, EventType
from hub.formats import RESERVED_TYPES
from hub.principal import audience_of
from hub.subscriptions import is_name, is_pattern, topic_matches

FAMILIES = (payments, monitoring, trading, entities)
CHANNEL = "channel"  # the kind of resource that stands for all events of a channel
MAX_REMEMBERED_TOPICS = 4096


class Selection(NamedTuple):
    """A part of what a channel shows: events of these types, from these sources (none: from any)."""

    types: frozenset[str]
    sources: frozenset[str]


class Catalogue:
    """Channels by name, and their event types by name.

    Args:
        channels: What there is.

    Raises:
        ValueError: If two have one name, path or type, or one shows a type that none declares.
    """

    def __init__(self, channels: Iterable[Channel]) -> None:
        self.channels: dict[str, Channel] = {}
        self.types: dict[str, EventType] = {}
        self._all_of: dict[str, tuple[str, ...]] = {}
        for channel in channels:
            self._add(channel)
        self.claims = tuple(claim for channel in self.channels.values() for claim in channel.claims)
        self._check()
        self.is_claimed = lru_cache(MAX_REMEMBERED_TOPICS)(self._is_claimed)

    def _add(self, channel: Channel) -> None:
        if channel.name in self.channels or not is_name(channel.name):
            raise ValueError(f"channel {channel.name!r}: expected a name, and one that no other channel has")
        self.channels[channel.name] = channel
        for one in channel.events:
            if one.name in self.types or one.name in RESERVED_TYPES or not is_name(one.name):
                raise ValueError(f"channel {channel.name!r}: expected a name that no other type has, not {one.name!r}")
            self.types[one.name] = one

    def _check(self) -> None:
        paths = [channel.path for channel in self.channels.values() if channel.path is not None]
        if len(paths) != len(set(paths)):
            raise ValueError(f"expected a path of its own for each channel, not {paths}")
        unknown = [name for channel in self.channels.values() for name in channel.also if name not in self.types]
        if unknown:
            raise ValueError(f"types that channels show and none declares: {unknown}")
        patterns = [claim for claim in self.claims if not is_pattern(claim)]
        if patterns:
            raise ValueError(f"claims that are no patterns of topics: {patterns}")
        for channel in self.channels.values():
            if channel.all:
                for name in channel.types:
                    self._all_of[name] = (*self._all_of.get(name, ()), all_of(channel))

    def _is_claimed(self, topic: str) -> bool:
        """Tell whether a channel claims a topic, so that only declared types may be published under it."""
        return any(topic_matches(claim, topic) for claim in self.claims)

    @property
    def recent_types(self) -> frozenset[str]:
        """Names of the types of which a new client may get the last events."""
        return frozenset(name for channel in self if channel.recent for name in channel.types)

    def further_audience(self, type: str) -> tuple[str, ...]:
        """Return for whom events of a type are beyond the audience that they are published for: who may have all of a channel."""
        return self._all_of.get(type, ())

    def selections(self, channel: Channel) -> list[Selection]:
        """Return what a channel shows, in as few parts as can be: a type that is only shown from some sources is a part of its own."""
        own = {one.name for one in channel.events}
        parts: dict[tuple[str, ...], list[str]] = {}
        for name in channel.types:
            sources = channel.sources if name in own else ()
            parts.setdefault(sources or self.types[name].sources, []).append(name)
        return [Selection(frozenset(names), frozenset(sources)) for sources, names in parts.items()]

    def __iter__(self) -> Iterator[Channel]:
        return iter(self.channels.values())


def all_of(channel: Channel) -> str:
    """Return the audience that stands for all events of a channel."""
    return audience_of(f"{CHANNEL}/{channel.name}")


CHANNELS: tuple[Channel, ...] = tuple(channel for family in FAMILIES for channel in family.CHANNELS)
CATALOGUE = Catalogue(CHANNELS)
EVENT_TYPES = CATALOGUE.types
