"""`POST /api/stream/test`: an event for everybody, to see whether streams work."""

from __future__ import annotations

import msgspec

from channels.families import EVENT_TYPES
from handlers.events import EventIn
from handlers.publish import Publishing
from hub.errors import BadRequest
from hub.formats import rfc3339_of
from hub.principal import PUBLIC

TEST = EVENT_TYPES["test"]
_json = msgspec.json.Encoder()


class Broadcast(Publishing):
    """Takes a test from an admin, and publishes it to everybody like any other event."""

    ROLES = ("admin",)

    async def post(self) -> None:
        """Answer 202 with the event's id. The body is its payload; without one it has a message and the time."""
        (receipt,) = await self.take([EventIn(TEST.topic, TEST.name, [PUBLIC], msgspec.Raw(self._payload()))])
        self.answer({"id": receipt.id, "type": TEST.name}, status=202)

    def _payload(self) -> bytes:
        if not self.body:
            return _json.encode({**TEST.sample, "timestamp": rfc3339_of(self.services.time())})
        try:
            return bytes(msgspec.json.decode(self.body, type=msgspec.Raw))
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            raise BadRequest("the body is not JSON") from None
