"""`POST /v1/events`: from a request to entries in the log."""

from __future__ import annotations

import logging
from typing import ClassVar

from handlers import cloudevents, events
from handlers.base import Handler
from handlers.refusals import REFUSED_FIELD
from hub.errors import BadRequest, InvalidEvent, TooLarge, UnsupportedMedia
from storage.entries import NewEvent, Receipt

logger = logging.getLogger("tailcast.handlers")

JSON = "application/json"


class Publishing(Handler):
    """The base of handlers that take events. A request is taken whole or refused whole, with everything that is wrong with it."""

    CORS_METHODS = "POST"
    ROLES: ClassVar[tuple[str, ...]] = ("publisher", "admin")

    async def prepare(self) -> None:  # type: ignore[override]  # Tornado awaits what comes back
        """Know who is asking before the body is read."""
        super().prepare()
        if self.request.method == "POST":
            self.publisher = await self.principal(*self.ROLES)

    async def take(self, given: list[events.EventIn | InvalidEvent]) -> list[Receipt]:
        """Append all events or none, and return their receipts once they are journaled.

        Raises:
            TooLarge: If there are too many, or the payload of one is too large.
            TooMany: If the publisher publishes too much.
            InvalidEvent: If one of them cannot be taken.
            Unavailable: If MongoDB is away: what became of them is unknown.
        """
        limits = self.services.limits
        if len(given) > limits.max_batch_events:
            raise TooLarge(f"at most {limits.max_batch_events} events a request, not {len(given)}")
        self.services.rates.publish(self.publisher, len(given), correlationId=self.correlation_id)
        accepted = self._accepted(given)
        receipts = await self.services.appender.append(accepted)
        if logger.isEnabledFor(logging.DEBUG):
            for one in receipts:
                fields = {"correlationId": self.correlation_id, "id": one.id, "duplicate": one.duplicate}
                logger.debug("published", extra={"fields": fields})
        return receipts

    def _accepted(self, given: list[events.EventIn | InvalidEvent]) -> list[NewEvent]:
        services = self.services
        try:
            return events.accept(
                given,
                self.publisher,
                max_event_bytes=services.limits.max_event_bytes,
                correlation_id=self.correlation_id,
                refused_fields=services.refused_fields,
            )
        except events.RefusedField as error:
            fields = {"field": error.field, "correlationId": self.correlation_id}
            services.rates.refusals.count(REFUSED_FIELD, self.publisher.user, **fields)
            raise


class Publish(Publishing):
    """Takes events from publishers and admins."""

    async def post(self) -> None:
        """Answer 202 with the events' ids."""
        receipts = await self.take(parse(self.body, self.request.headers.get("Content-Type", JSON)))
        self.answer({"events": [{"id": one.id, "duplicate": one.duplicate} for one in receipts]}, status=202)


def parse(body: bytes, content_type: str) -> list[events.EventIn | InvalidEvent]:
    """Return the events of a body by its media type; in the place of one that is none, what is wrong with it.

    Raises:
        UnsupportedMedia: If that is none that is understood.
        BadRequest: If the body is not JSON in UTF-8.
        InvalidEvent: If it is an array where the media type says one event, or the other way round.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise BadRequest(f"the body is not UTF-8: byte {error.start}") from None
    if media_type in cloudevents.MEDIA_TYPES:
        return cloudevents.parse(body, batch=media_type == cloudevents.BATCH)
    if media_type == JSON:
        return events.parse(body)
    raise UnsupportedMedia(f"expected {JSON}, {cloudevents.STRUCTURED} or {cloudevents.BATCH} as Content-Type, not {media_type[:80]!r}")
