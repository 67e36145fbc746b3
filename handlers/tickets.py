"""`POST /v1/tickets`: a good credential becomes a code for a URL, good once and for seconds."""

from __future__ import annotations

from handlers.base import Handler
from handlers.credentials import claims_of
from hub.errors import TokenExpired
from hub.formats import rfc3339_of


class TicketIssue(Handler):
    """Gives tickets to whoever has a credential, so that no long-lived one must stand in a URL, where logs and histories keep it."""

    CORS_METHODS = "POST"

    async def post(self) -> None:
        """Answer 201 with a ticket. It opens one stream or WebSocket with exactly the rights, and the end, of the credential shown here."""
        principal = await self.principal()
        self.services.rates.grant(principal, correlationId=self.correlation_id)
        seconds = self.services.limits.ticket_seconds
        if principal.expires_at is not None:
            seconds = min(seconds, principal.expires_at - self.services.time())
        if seconds <= 0:  # `jwt_leeway_seconds` let it pass
            raise TokenExpired("the credential has expired")
        code, expires_at = await self.services.state.tickets.issue(claims_of(principal), seconds)
        self.set_header("Cache-Control", "no-store")
        self.answer({"ticket": code, "expiresAt": rfc3339_of(expires_at)}, status=201)
