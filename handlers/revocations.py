"""`POST /v1/revocations`: credentials that hold no longer, on every server process."""

from __future__ import annotations

import logging
from typing import Literal

import msgspec

from handlers.base import Handler
from handlers.services import Services
from hub.control import Revoked, control_event
from hub.errors import BadRequest
from hub.formats import rfc3339_of
from storage.revoked import Revocation
from storage.sessions import is_session_id

logger = logging.getLogger("tailcast.handlers")

MAX_ID_LENGTH = 256


class RevocationIn(msgspec.Struct, forbid_unknown_fields=True):
    """What is revoked: a token by its `jti`, a session by its id, or all that a user or an organisation has been given until now."""

    kind: Literal["token", "session", "user", "org"]
    id: str


class Revocations(Handler):
    """Takes credentials back, for admins."""

    CORS_METHODS = "POST"

    async def post(self) -> None:
        """Answer 202 once it is kept and in the log: every server process ends the connections concerned as soon as it reads that."""
        await self.principal("admin")
        wanted = self.decoded(RevocationIn)
        if not 0 < len(wanted.id) <= MAX_ID_LENGTH:
            raise BadRequest(f"expected 1 to {MAX_ID_LENGTH} characters", field="id")
        if wanted.kind == "session" and not is_session_id(wanted.id):
            raise BadRequest("expected the id of a session, which is not its secret", field="id")
        revocation = await revoke(self.services, wanted.kind, wanted.id, self.correlation_id)
        times = {"before": rfc3339_of(revocation.before), "until": rfc3339_of(revocation.until)}
        self.answer({"kind": wanted.kind, "id": wanted.id, **times}, status=202)


async def revoke(services: Services, kind: str, id: str, correlation_id: str) -> Revocation:
    """Revoke credentials: keep it in MongoDB, for processes that start later, and tell those that run through the log.

    When this is cancelled or fails the credentials may be revoked or not; do it again.

    Raises:
        Unavailable: If MongoDB is away or did not confirm it.
        Overloaded: If too much waits to be written.
    """
    now = services.time()
    revocation = Revocation(kind, id, now, now + services.limits.revocation_seconds)
    await services.state.revocations.add(revocation)
    await services.appender.append([control_event(Revoked(revocation), correlation_id)])
    logger.info("revoked", extra={"fields": {"correlationId": correlation_id, "kind": kind, "id": id}})
    return revocation
