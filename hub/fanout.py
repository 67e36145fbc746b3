"""Fan-out: the fast path from new entries to everybody who is at the head of the log. Nothing here waits."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator

from hub.connection import Connection, offer_all
from hub.formats import Format
from hub.gathering import chunk_of
from hub.interest import Interest
from hub.pace import Pacer
from hub.router import Route, Router, meets
from hub.subscriptions import Subscription, parse_payload
from storage.entries import HIGH, Entry
from storage.positions import Position

logger = logging.getLogger("tailcast.hub")


class FanOut:
    """Pushes batches.

    Args:
        router: Says what is for whom.
        pacer: Gathers what is for paced connections.
        chunk_bytes: About how much one send may hold: what a socket does not take of it stays in memory.
        logged: Types of events whose delivery is logged where they are of high priority.
    """

    def __init__(self, router: Router, pacer: Pacer, chunk_bytes: int, logged: Collection[str] = ()) -> None:
        self._logged = frozenset(logged)
        self._router = router
        self._pacer = pacer
        self._chunk_bytes = chunk_bytes
        self.delivered = 0  # entries handed to sinks, since the start
        self.possible = 0  # what that would be if every send had held its whole piece

    def pieces(self, entries: list[Entry]) -> Iterator[list[Entry]]:
        """Cut a batch into pieces of about one chunk."""
        begin = 0
        while begin < len(entries):
            end = chunk_of(entries, begin, self._chunk_bytes)
            yield entries[begin:end]
            begin = end

    def push(self, entries: list[Entry], before: Position) -> list[Connection]:
        """Offer each attached connection its part of a piece, joined, and return those whose sink is full now.

        Connections that share an interest get the same bytes, and so do interests that get the same part. Those with a pace are left to the
        pacer.

        Args:
            entries: The piece.
            before: The place right before it.
        """
        parts: dict[tuple[Format, int], list[Connection]] = {}
        for interest, mask in self._masks(entries).items():
            if not interest.attached:
                continue
            if interest.gathering is not None:
                first, *_ = chosen = list(_bits(mask))
                place = Position(entries[first - 1].seq, entries[first - 1].ms) if first else before
                self._pacer.receive(interest, [entries[index] for index in chosen], place)
                continue
            parts.setdefault((interest.format, mask), []).extend(interest.attached)
        blocked: list[Connection] = []
        for (format, mask), connections in parts.items():
            self.delivered += mask.bit_count() * len(connections)
            self.possible += len(entries) * len(connections)
            blocked += offer_all(format.join([format.event(entries[index]) for index in _bits(mask)]), connections)
        for entry in entries:
            if entry.priority == HIGH and entry.type in self._logged:
                self._log(entry)
        return blocked

    def _log(self, entry: Entry) -> None:
        clients = sum(len(interest.attached) for interest in self._masks([entry]))
        fields = {"correlationId": entry.correlation_id, "id": entry.id, "type": entry.type, "clients": clients}
        logger.info("delivered at once", extra={"fields": fields})

    def _masks(self, entries: list[Entry]) -> dict[Interest[Connection], int]:
        """Return for each interest concerned which of the entries are for it, as bits."""
        kinds: dict[Route, int] = {}
        for index, entry in enumerate(entries):
            route = self._router.route(entry)
            kinds[route] = kinds.get(route, 0) | 1 << index
            if route.keyed and (keyed := self._router.keyed_route(entry)) is not None:
                kinds[keyed] = kinds.get(keyed, 0) | 1 << index
        masks: dict[Interest[Connection], int] = {}
        for route, mask in kinds.items():
            for interest, conditions in route.interests.items():
                chosen = _choose(entries, mask, conditions) if conditions else mask
                if chosen:
                    masks[interest] = masks.get(interest, 0) | chosen
        return masks


def _choose(entries: list[Entry], mask: int, conditions: tuple[Subscription, ...]) -> int:
    """Return those bits of a mask whose entries' payloads meet one of the conditions."""
    return sum(1 << index for index in _bits(mask) if meets(conditions, parse_payload(entries[index].data)))


def _bits(mask: int) -> Iterator[int]:
    """Return the numbers of the bits that are set, lowest first: mostly one of many, where topics have subscribers of their own."""
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest
