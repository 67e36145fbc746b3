"""Parties of payment streams: how many streams users may have made among themselves. Asks MongoDB; knows no request.

A stream belongs to its recipient, too, who was not asked; and whoever owns too much must name what it wants to hear of, and is cut off
where it does not (see hub/ownership.py). So what users can give each other stays well below that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from handlers.belongings import Belonging
from hub.errors import Conflict
from hub.ownership import MAX_OWNED
from hub.principal import Principal

MOST_OF_A_USER = MAX_OWNED // 2  # resources that are a user's own; the rest is for what publishers give, also to organisation and entity


class Parties:
    """Knows whether there is room for one more stream.

    Args:
        belonging: Says what belongs to whom.
        most: How many resources a user may have, with the new one.
    """

    def __init__(self, belonging: Belonging, most: int = MOST_OF_A_USER) -> None:
        self._belonging = belonging
        self._most = most
        self._making: Counter[str] = Counter()  # by user, streams on their way that may not be counted as owned yet

    @asynccontextmanager
    async def room(self, users: Collection[str]) -> AsyncIterator[None]:
        """Keep room for one more stream of each of these users, until it is theirs.

        Those who do so at the same moment count each other, in this process: on several the limit may be passed by a few.

        Raises:
            Conflict: If one of them has as many as users may make.
            Unavailable: If MongoDB is away.
        """
        self._making.update(users)
        try:
            for user in users:
                owned = await self._belonging.everything(Principal(user))
                if owned is None or len(owned) + self._making[user] > self._most:
                    raise Conflict(f"sender or recipient has {self._most} resources: only a publisher may give them more")
            yield
        finally:
            self._making.subtract(users)
            for user in users:
                if not self._making[user]:
                    del self._making[user]
