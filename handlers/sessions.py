"""`/v1/sessions`: what a login service does over HTTP: open a session for somebody, list somebody's sessions, and end one."""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from handlers.base import Handler
from handlers.credentials import claims_of, principal_of
from handlers.revocations import revoke
from hub.errors import BadRequest, Forbidden, NotFound, Unauthenticated
from hub.formats import rfc3339_of
from storage.sessions import is_session_id

logger = logging.getLogger("tailcast.handlers")

MAX_LISTED = 100


class SessionIn(msgspec.Struct, forbid_unknown_fields=True):
    """For whom a session is; the fields mean what the claims of the same names mean in a token."""

    sub: str
    org: str | None = None
    entity: str | None = None
    roles: list[str] = []
    audiences: list[str] = []
    seconds: float | None = None


class Sessions(Handler):
    """Opens and lists sessions, for admins."""

    CORS_METHODS = "GET, POST"

    async def post(self) -> None:
        """Answer 201 with a new session: `session` is the cookie's value, `id` what it is called everywhere else."""
        await self.principal("admin")
        wanted = self.decoded(SessionIn)
        seconds = self._life(wanted.seconds)
        claims = {name: value for name, value in msgspec.to_builtins(wanted).items() if value and name != "seconds"}
        try:
            principal = principal_of({**claims, "iat": self.services.time()})
        except Unauthenticated as error:
            raise BadRequest(str(error)) from None
        new = await self.services.state.sessions.create(claims_of(principal), seconds)
        logger.info("session opened", extra={"fields": {"correlationId": self.correlation_id, "id": new.id, "user": principal.user}})
        self.set_header("Cache-Control", "no-store")
        self.answer({"session": new.secret, "id": new.id, "expiresAt": rfc3339_of(new.expires_at)}, status=201)

    def _life(self, wanted: float | None) -> float:
        longest = self.services.limits.session_seconds
        if wanted is not None and not 0 < wanted <= longest:
            raise BadRequest(f"expected a time above 0 and up to {longest:g} seconds, not {wanted:g}", field="seconds")
        return longest if wanted is None else wanted

    async def get(self) -> None:
        """Answer with the sessions of `?user=` that hold, newest first: 100 at the most."""
        await self.principal("admin")
        user = self.get_query_argument("user", "")
        if not user:
            raise BadRequest("expected the name of a user", field="user")
        found = await self.services.state.sessions.of_user(user, MAX_LISTED)
        self.answer({"sessions": [_shown(one.id, one.claims, one.expires_at) for one in found]})


class Session(Handler):
    """Ends a session, for admins and for whoever has signed in with it."""

    CORS_METHODS = "DELETE"

    async def delete(self, id: str) -> None:
        """Answer 204 once the session opens nothing any more, and every server process is told to end its connections."""
        principal = await self.principal()
        if not principal.has_role("admin") and principal.session_id != id:
            raise Forbidden("this needs the role admin, unless the session is your own")
        if not is_session_id(id):  # it may be the secret, given by mistake, and a revocation is kept
            raise NotFound("there is no such session")
        await revoke(self.services, "session", id, self.correlation_id)
        if await self.services.state.sessions.revoke(id) is None and principal.has_role("admin"):
            raise NotFound("there is no such session")
        self.set_status(204)
        self.finish()


def _shown(id: str, claims: dict[str, Any], expires_at: float) -> dict[str, Any]:
    kept: dict[str, Any] = {name: claims[name] for name in ("sub", "org", "entity", "roles", "audiences") if name in claims}
    return {"id": id, **kept, "expiresAt": rfc3339_of(expires_at)}
