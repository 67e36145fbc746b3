"""Tests of handlers/authentication.py: each kind of credential speaks for whom it was made for, until it is revoked."""

from __future__ import annotations

import asyncio
import time

import pytest

from handlers.authentication import RESUME, SESSION, TICKET, TOKEN, Credential
from handlers.credentials import claims_of
from hub.errors import TokenExpired, Unauthenticated
from hub.principal import Principal
from storage.revoked import Revocation
from tests.handlers.asking import resume_token
from tests.handlers.assembly import Assembly, token
from tests.handlers.conftest import Assemble

KINDS = (TOKEN, SESSION, TICKET, RESUME)


async def shown(here: Assembly, kind: str) -> Credential:
    """Return a credential of this kind for u1 of o1, issued now; a token named t1, or what was made with it."""
    mine = token("u1", org="o1", jti="t1", iat=int(time.time()), roles=["user"])
    principal = here.services.authenticator.of_token(mine)
    if kind == SESSION:
        return Credential(kind, (await here.state.sessions.create({"sub": "u1", "org": "o1", "roles": ["user"]}, 60)).secret)
    if kind == TICKET:
        return Credential(kind, (await here.state.tickets.issue(claims_of(principal), 60))[0])
    return Credential(kind, mine if kind == TOKEN else await resume_token(here.port, mine))


@pytest.mark.parametrize("kind", KINDS)
async def test_each_kind_speaks_for_whom_it_was_made_for(here: Assembly, kind: str) -> None:
    """With its organisation, its roles and the audiences that follow, and an end."""
    principal = await here.services.authenticator.principal(await shown(here, kind))
    assert (principal.user, principal.org, principal.roles) == ("u1", "o1", frozenset({"user"}))
    assert principal.audiences == {"public", "user:u1", "org:o1"}
    assert principal.expires_at is not None
    assert principal.token_id == ("t1" if kind != SESSION else None)
    assert (principal.session_id is not None) == (kind == SESSION)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("what", "id"), [("user", "u1"), ("org", "o1"), ("token", "t1"), ("session", "")])
async def test_none_holds_once_it_is_revoked(here: Assembly, kind: str, what: str, id: str) -> None:
    """Tickets and resume tokens fall with the credential that they were made from."""
    credential = await shown(here, kind)
    if what == "session":
        (session,) = await here.state.sessions.of_user("u1") if kind == SESSION else [None]
        id = session.id if session is not None else "another"
    concerned = {"user": True, "org": True, "token": kind != SESSION, "session": kind == SESSION}[what]
    here.hub.rights.revocations.add(Revocation(what, id, time.time() + 1, time.time() + 60))
    if not concerned:
        assert (await here.services.authenticator.principal(credential)).user == "u1"
        return
    with pytest.raises(Unauthenticated, match="revoked"):
        await here.services.authenticator.principal(credential)


async def test_a_token_is_refused_without_a_question_too(here: Assembly) -> None:
    """Where there is no time to wait for an answer."""
    authenticator = here.services.authenticator
    assert authenticator.of_token(token(jti="t1")).user == "u1"
    authenticator._revocations.add(Revocation("token", "t1", 0, time.time() + 60))
    with pytest.raises(Unauthenticated, match="revoked"):
        authenticator.of_token(token(jti="t1"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("secret", ["x", "A" * 43, "ü", "\ud800", "A" * 10_000])
async def test_what_was_never_handed_out_speaks_for_nobody(here: Assembly, kind: str, secret: str) -> None:
    """Whatever it looks like."""
    with pytest.raises(Unauthenticated):
        await here.services.authenticator.principal(Credential(kind, secret))


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_good_as_one_kind_is_not_as_another(here: Assembly, kind: str) -> None:
    """A session's secret is no ticket, a ticket no token, and so on."""
    credential = await shown(here, kind)
    for other in set(KINDS) - {kind}:
        with pytest.raises(Unauthenticated):
            await here.services.authenticator.principal(Credential(other, credential.secret))


async def test_a_ticket_is_good_once_on_whichever_process(assemble: Assemble) -> None:
    """Of many who use it at once on two processes exactly one gets in (S1)."""
    both = [await assemble(), await assemble()]
    credential = await shown(both[0], TICKET)
    asked = [one.services.authenticator.principal(credential) for one in both for _ in range(10)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(one) for one in answers if not isinstance(one, Unauthenticated)] == [Principal]


async def test_a_session_is_no_longer_one_after_its_time_or_its_end(here: Assembly, monkeypatch: pytest.MonkeyPatch) -> None:
    """MongoDB deletes it minutes later; it does not count until then."""
    sessions = here.state.sessions
    long, short = await sessions.create({"sub": "u1"}, 60), await sessions.create({"sub": "u1"}, 30)
    await sessions.revoke(long.id)
    monkeypatch.setattr(sessions, "_clock", lambda: time.time() + 31)
    for secret in (long.secret, short.secret):
        with pytest.raises(Unauthenticated, match="no such session"):
            await here.services.authenticator.principal(Credential(SESSION, secret))


async def test_a_resume_token_is_called_expired(here: Assembly) -> None:
    """So that its client gets a new credential, and does not look for a mistake."""
    credential = await shown(here, RESUME)
    here.clock.ahead += here.settings.resume_seconds
    with pytest.raises(TokenExpired):
        await here.services.authenticator.principal(credential)


def test_a_credential_does_not_show_its_secret() -> None:
    """It may stand in a traceback (S7)."""
    assert repr(Credential(TICKET, "secret")) == "Credential(ticket)"
