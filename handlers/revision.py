"""Revision: when part of the log was lost, what it told of rights is asked of MongoDB. Knows no request."""

from __future__ import annotations

import asyncio
import logging

from handlers.belongings import Belonging
from hub.connection import Connection
from hub.hub import Hub
from storage.errors import StorageError
from storage.state import State

logger = logging.getLogger("tailcast.handlers")

RETRY_SECONDS = 0.5
SLICE = 100  # connections looked at before the event loop gets a turn


class Revision:
    """Brings what this process knows of rights up to date: once when it starts, and after every hole in what it read.

    Args:
        hub: Whose connections they are.
        state: What is kept.
        belonging: Who owns what.
    """

    def __init__(self, hub: Hub, state: State, belonging: Belonging) -> None:
        self._hub = hub
        self._state = state
        self._belonging = belonging

    async def run(self) -> None:
        """Revise whenever something was missed, until cancelled."""
        missed = self._hub.rights.missed
        while True:
            await missed.wait()
            missed.clear()
            try:
                await self.revise()
                logger.warning("rights were read anew, since a part of the log was not seen")
            except StorageError as error:
                logger.debug("rights could not be read: %s", error)
                missed.set()
                await asyncio.sleep(RETRY_SECONDS)

    async def revise(self) -> bool:
        """Take all revocations into force, look at every connection's resources again, and return True.

        Raises:
            Unavailable: If MongoDB is away; what was revised until then is in force.
        """
        self._hub.rights.revoke(await self._state.revocations.in_force())
        await self._state.ownership.open()  # not before now, when changes are heard of: it remembers whether there is any resource
        for index, connection in enumerate(list(self._hub.connections), 1):
            await self._revise(connection)
            if index % SLICE == 0:
                await asyncio.sleep(0)
        return True

    async def _revise(self, connection: Connection) -> None:
        owned = await self._belonging.everything(connection.principal) if connection.owns_all else None
        if owned is None:  # it has named what it hears of, or has come to own more than can be asked for
            asked = connection.owned | connection.named()
            if not asked:
                return
            found = await self._belonging.among(connection.principal, asked)
            owned = connection.owned - asked | found  # what it has come to hear of meanwhile stays
        if not connection.closed:
            self._hub.hearing.change_rights(connection, owned)
