"""Authentication: from a credential of any kind to the principal it speaks for. Knows no request."""

from __future__ import annotations

from typing import NamedTuple

from handlers.credentials import TokenVerifier, principal_of
from handlers.resumption import Resumption, Sealer
from hub.errors import Unauthenticated
from hub.principal import Principal
from hub.revocations import Revocations
from storage.sessions import Sessions
from storage.tickets import Tickets

TOKEN, SESSION, TICKET, RESUME = "token", "session", "ticket", "resume"


class Credential(NamedTuple):
    """What somebody shows: a JSON Web Token, a session's secret, a ticket, or a resume token."""

    kind: str
    secret: str

    def __repr__(self) -> str:
        return f"Credential({self.kind})"


class Authenticator:
    """Finds out whom a credential speaks for.

    Args:
        verifier: Checks tokens.
        sessions: Those that are open.
        tickets: Those that were not used yet.
        sealer: Opens resume tokens.
        revocations: Those in force.
    """

    def __init__(self, *, verifier: TokenVerifier, sessions: Sessions, tickets: Tickets, sealer: Sealer, revocations: Revocations) -> None:
        self.verifier = verifier
        self._sessions = sessions
        self._tickets = tickets
        self._sealer = sealer
        self._revocations = revocations

    async def principal(self, credential: Credential) -> Principal:
        """Return whom a credential speaks for. A ticket is used up by this.

        When this is cancelled, a ticket may be used up; nothing else changes.

        Raises:
            TokenExpired: If its time is over.
            Unauthenticated: If it does not hold for any other reason.
            NotReady: If the keys to check it with cannot be fetched.
            Unavailable: If MongoDB is needed to know it, and away.
        """
        principal = await self._holder(credential)
        if self._revocations.cover(principal):
            raise Unauthenticated("the credential was revoked")
        return principal

    def of_token(self, token: str) -> Principal:
        """Return whom a token speaks for, by the keys that are here.

        Raises:
            KeyUnknown: If a key must be fetched first: `principal` does that.
            TokenExpired: If its time is over.
            Unauthenticated: If it does not hold for any other reason.
        """
        principal = self.verifier.principal(token)
        if self._revocations.cover(principal):
            raise Unauthenticated("the credential was revoked")
        return principal

    async def _holder(self, credential: Credential) -> Principal:
        if credential.kind == TOKEN:
            return await self.verifier.authenticate(credential.secret)
        if credential.kind == SESSION:
            return await self._of_session(credential.secret)
        if credential.kind == TICKET:
            return await self._of_ticket(credential.secret)
        return self.resumption(credential.secret).principal

    async def _of_session(self, secret: str) -> Principal:
        session = await self._sessions.find(secret)
        if session is None:
            raise Unauthenticated("there is no such session, or its time is over")
        return principal_of({**session.claims, "exp": session.expires_at, "sid": session.id}, ours=True)

    async def _of_ticket(self, code: str) -> Principal:
        claims = await self._tickets.redeem(code)
        if claims is None:
            raise Unauthenticated("there is no such ticket: it was used, or its time is over")
        return principal_of(claims, ours=True)

    def resumption(self, token: str) -> Resumption:
        """Return what a resume token opens; see `Sealer.open`."""
        return self._sealer.open(token)
