"""`POST /v1/renewals`: a fresh credential for a stream that is open. SSE has no way back to the server, so it comes beside the stream."""

from __future__ import annotations

import msgspec

from handlers.base import Handler
from hub.control import Renewed, control_event
from hub.errors import BadRequest
from hub.formats import rfc3339_of

MAX_ID_LENGTH = 512  # a user, a channel and a time; a user may have 255 characters


class RenewalIn(msgspec.Struct, forbid_unknown_fields=True):
    """Which connection: the `clientId` that its `welcome` told."""

    clientId: str


class Renewals(Handler):
    """Takes a fresh credential for a connection of any server process."""

    CORS_METHODS = "POST"

    async def post(self) -> None:
        """Answer 202 once the credential is with the connection, or on its way to the process that has it; `renewed` comes in the stream.

        A connection of somebody else is not renewed, nor is one that is over; the answer does not tell.
        """
        principal = await self.principal()
        wanted = self.decoded(RenewalIn)
        if not 0 < len(wanted.clientId) <= MAX_ID_LENGTH:
            raise BadRequest(f"expected 1 to {MAX_ID_LENGTH} characters", field="clientId")
        self.services.rates.grant(principal, correlationId=self.correlation_id)
        renewed = Renewed(wanted.clientId, principal)
        if not self.services.hub.rights.renew(renewed):  # then through the log, to whoever has it
            await self.services.appender.append([control_event(renewed, self.correlation_id)])
        self.answer({"clientId": wanted.clientId, "expiresAt": rfc3339_of(principal.expires_at)}, status=202)
