"""The outbox of payment streams: changes that are begun get into the log, whoever began them, and however often he was interrupted.

A change is in MongoDB before anything is told of it (see storage/streams.py). What follows can be repeated: the owners are kept again, and
the event has an identity of its own, under which it is in the log once.
"""

from __future__ import annotations

import asyncio
import logging

import msgspec

from channels.payments import RESOURCE
from channels.streams import parties_of
from channels.validation import VALIDATION
from handlers.resources import give
from handlers.services import Services
from hub.formats import rfc3339_of
from hub.principal import audience_of
from storage.entries import OWN_SOURCE, NewEvent
from storage.errors import CommandFailed, StorageError
from storage.streams import Change, Stream

logger = logging.getLogger("tailcast.handlers")

SOURCE = f"{OWN_SOURCE}.payments"
SWEEP_SECONDS = 2.0
GRACE_SECONDS = 5.0  # for whoever has begun a change to finish it himself
MOST_AT_ONCE = 1000  # changes in one sweep


async def finish(services: Services, stream: Stream, change: Change) -> str:
    """Let a change that is begun get into the log, and return its event's id. The one way to do so.

    When this is cancelled or fails, the change stays begun, and the outbox finishes it.

    Raises:
        Unavailable: If MongoDB is away or did not confirm it.
        Overloaded: If too much waits to be written.
    """
    if change.number == 1:  # before its first event, so that its owners hear that
        await give(services, f"{RESOURCE}/{stream.id}", parties_of(stream.state), change.correlation_id)
    (receipt,) = await services.appender.append([event_of(stream, change)])
    await services.state.streams.finish(stream.id, change, receipt.id)
    return receipt.id


def event_of(stream: Stream, change: Change) -> NewEvent:
    """Return the event of a change: the same one however often it is asked for."""
    event = VALIDATION.event(
        change.type,
        msgspec.json.decode(change.data),
        (audience_of(f"{RESOURCE}/{stream.id}"), *parties_of(stream.state)),
        source=SOURCE,
        published=f"\n{SOURCE}\n{stream.id}/{change.number}",
        correlation_id=change.correlation_id,
    )
    event.time = rfc3339_of(change.at)
    return event


class Outbox:
    """Finishes what others began.

    Args:
        services: The server's parts.
    """

    def __init__(self, services: Services) -> None:
        self._services = services

    async def run(self) -> None:
        """Sweep every two seconds until cancelled."""
        while True:
            try:
                await self.sweep()
            except StorageError as error:
                logger.debug("the outbox was not swept: %s", error)
            await asyncio.sleep(SWEEP_SECONDS)

    async def sweep(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """Finish every change that was begun so long ago; one that MongoDB refuses is left, and keeps no other back.

        Raises:
            Unavailable: If MongoDB is away; what was finished until then is.
            Overloaded: If too much waits to be written.
        """
        for stream in await self._services.state.streams.unfinished(grace_seconds, MOST_AT_ONCE):
            assert stream.begun is not None, "that is what was asked for"
            fields = {"stream": stream.id, "correlationId": stream.begun.correlation_id}
            try:
                fields["id"] = await finish(self._services, stream, stream.begun)
            except CommandFailed as error:
                logger.error("a change of a payment stream cannot be finished: %s", error, extra={"fields": fields})
            else:
                logger.info("finished a change of a payment stream", extra={"fields": fields})
