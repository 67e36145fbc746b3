"""Who a connection or a request acts for, and which audiences that one is in. No I/O, no tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

PUBLIC = "public"
RESOURCE = "resource:"
AGENT = "agent"
ADMIN = "admin"
AUDIENCE_KINDS = ("public", "user:<id>", "org:<id>", "entity:<id>", "resource:<kind>/<id>")
MAX_AUDIENCE_LENGTH = 256
_ID = r"[^\s,\x00-\x1f\x7f\ud800-\udfff]+"
_NAMED = re.compile(rf"(?:user|org|entity):{_ID}|resource:[^\s,/\x00-\x1f\x7f\ud800-\udfff]+/{_ID}")


def audience_of(resource: str) -> str:
    """Return the audience of events about a resource, which is called `<kind>/<id>`."""
    return f"{RESOURCE}{resource}"


def is_audience(token: str) -> bool:
    """Tell whether this is one of the five kinds of audience, with a name where the kind needs one."""
    return len(token) <= MAX_AUDIENCE_LENGTH and (token == PUBLIC or _NAMED.fullmatch(token) is not None)


@dataclass(frozen=True, slots=True)
class Principal:
    """Whom a credential speaks for.

    `audiences` is everything this one may receive from, its own user, organisation and entity included. `expires_at` and `issued_at` are
    in seconds since 1970; None means that the credential does not expire, or does not say since when there is one. `token_id` and
    `session_id` name the credential itself, so that it can be revoked; None: it has no such name.
    """

    user: str
    org: str | None = None
    entity: str | None = None
    roles: frozenset[str] = frozenset()
    audiences: frozenset[str] = frozenset({PUBLIC})
    expires_at: float | None = None
    issued_at: float | None = None
    token_id: str | None = None
    session_id: str | None = None

    @property
    def is_anonymous(self) -> bool:
        """Whether nobody is known by it: whoever comes without a credential where none is needed."""
        return not self.user

    def has_role(self, *roles: str) -> bool:
        """Tell whether it has one of these roles, to use it: an agent may only subscribe, whatever other roles it has."""
        return AGENT in roles if AGENT in self.roles else not self.roles.isdisjoint(roles)

    def names(self) -> Iterator[str]:
        """Return the audiences that it is itself: its user, organisation and entity, and nothing it was granted beyond."""
        if self.user:
            yield f"user:{self.user}"
        if self.org is not None:
            yield f"org:{self.org}"
        if self.entity is not None:
            yield f"entity:{self.entity}"

    def is_same_as(self, other: Principal) -> bool:
        """Tell whether another credential speaks for the same one, so that a connection may go on with it.

        An agent that acts for a user is not that user: with a credential that is soon over it could end the user's connections.
        """
        return self._identity() == other._identity()

    def _identity(self) -> tuple[object, ...]:
        return self.user, self.org, self.entity, AGENT in self.roles


ANONYMOUS = Principal("")


def audiences_of(user: str, org: str | None, entity: str | None, further: frozenset[str]) -> frozenset[str]:
    """Return the audiences that follow from who one is, and those that were granted beyond."""
    named = {f"user:{user}"}
    if org:
        named.add(f"org:{org}")
    if entity:
        named.add(f"entity:{entity}")
    return frozenset({PUBLIC, *named, *further})
