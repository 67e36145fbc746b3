"""The last events for somebody: the newest entries of some audiences and types, found by an index of their own.

Only entries of the types for which somebody may ask are in that index, so others cost nothing to append. It is named after these types: a
server that asks for others makes another, and drops the one there was.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Sequence
from typing import NamedTuple

from storage.capped import OPTIONAL
from storage.entries import Entry
from storage.errors import CommandFailed
from storage.log import Log
from storage.mongo import BAD_VALUE, CANNOT_ROLL_BACK, Document
from storage.positions import Position

logger = logging.getLogger("tailcast.storage")


class Wanted(NamedTuple):
    """Which entries are asked for.

    Args:
        audiences: For one of these.
        selections: Types, and sources (none: any); entries of one of these selections.
        keys: About one of these; empty: about whatever.
        since_ms: Appended then or later, in milliseconds since 1970.
        limit: How many at the most, the newest ones.
    """

    audiences: frozenset[str]
    selections: Sequence[tuple[frozenset[str], frozenset[str]]]
    keys: frozenset[str]
    since_ms: int
    limit: int


def recent_index(types: Collection[str]) -> Document:
    """Return the index by which the last events of these types are found."""
    of_types = {"type": {"$in": sorted(types)}}
    name = OPTIONAL + hashlib.sha256(repr(of_types).encode()).hexdigest()[:12]
    return {"key": {"audience": 1, "ms": 1, "_id": 1, "type": 1}, "name": name, "partialFilterExpression": of_types}


class RecentEvents:
    """Finds them in one log, which was made with the index of these types.

    Args:
        log: Where they are.
        types: Those for which somebody may ask.
    """

    def __init__(self, log: Log, types: Collection[str]) -> None:
        self._log = log
        self._index = recent_index(types)

    async def events(self, wanted: Wanted, up_to: Position) -> list[Entry]:
        """Return the newest entries that are wanted, oldest first, and none after a position.

        Without the index, which a server that asks for other types has dropped, there are none: the whole log is never read for them.

        Raises:
            Unavailable: If MongoDB is away.
        """
        command: Document = {
            "find": self._log.name,
            "filter": self._filter(wanted, up_to),
            "sort": {"ms": -1, "_id": -1},
            "limit": wanted.limit,
            "batchSize": wanted.limit,
            "singleBatch": True,
            "hint": self._index["name"],
            "readConcern": CANNOT_ROLL_BACK,
        }
        try:
            reply = await self._log.database.command(command)
        except CommandFailed as error:
            if error.code != BAD_VALUE:
                raise
            logger.warning("last events cannot be found: the index %s is gone", self._index["name"])
            return []
        return self._log.entries(reply["cursor"]["firstBatch"][::-1])

    def _filter(self, wanted: Wanted, up_to: Position) -> Document:
        selections = [
            {"type": {"$in": sorted(types)}, **({"source": {"$in": sorted(sources)}} if sources else {})}
            for types, sources in wanted.selections
        ]
        # The index's own condition word for word, and what is wanted beside it: MongoDB 6.0 does not see that one list is within another.
        found = {
            **self._index["partialFilterExpression"],
            "$or": selections,
            "audience": {"$in": sorted(wanted.audiences)},
            "ms": {"$gte": wanted.since_ms},
            "_id": {"$lte": up_to.seq},
        }
        return {**found, "key": {"$in": sorted(wanted.keys)}} if wanted.keys else found
