"""Credentials: from a JSON Web Token to the principal it speaks for. Knows no request.

Tokens are checked as RFC 7519 and RFC 8725 say: the algorithm must be one that the operator allowed and has a key of its own kind, so a
token can neither choose `none` nor have a public key taken for a secret. Headers are read and signatures checked by PyJWT; claims here,
since its road through a whole token costs four times as much, and clients may connect by the thousand a second.

    Unauthenticated (hub/errors.py)
    └── KeyUnknown    the issuer may have published the key since its keys were fetched last
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jwt
import msgspec

from handlers.jwks import PublishedKeys
from handlers.keys import KeyRing
from hub.errors import TokenExpired, Unauthenticated
from hub.principal import Principal, audiences_of, is_audience
from hub.subscriptions import is_name

MAX_TOKEN_LENGTH = 8192
MAX_AUDIENCES = 200
MAX_ID_LENGTH = 256  # of a token or a session
LATEST_EXPIRY = 253_402_300_799  # the end of the year 9999, the last that RFC 3339 can write
REMEMBERED_TOKENS = 1024  # that were checked lately: publishers send the same one with every request
REMEMBERED_HEADERS = 64  # of tokens that held: all tokens that an issuer signs with one key begin alike

# Three parts in base64url (RFC 7515, 3.1); some issuers pad them.
_TOKEN = re.compile(r"([A-Za-z0-9_-]+={0,2})\.([A-Za-z0-9_-]+={0,2})\.([A-Za-z0-9_-]+={0,2})")
_claims = msgspec.json.Decoder(dict[str, Any])


class KeyUnknown(Unauthenticated):
    """A token signed with a key that is not here, and that the issuer may have published meanwhile."""


class TokenVerifier:
    """Checks tokens.

    Args:
        keys: What signatures are checked with.
        algorithms: Those that tokens may be signed with.
        published: Brings more keys of an issuer when there is a token that needs one; None: there are no others.
        issuer: What `iss` must be; empty: anything, or nothing.
        audience: What `aud` must name; empty: there must be none.
        leeway_seconds: How far clocks may differ.
        time: Returns seconds since 1970.
    """

    def __init__(
        self,
        keys: KeyRing,
        *,
        algorithms: Iterable[str],
        published: PublishedKeys | None = None,
        issuer: str,
        audience: str,
        leeway_seconds: float,
        time: Callable[[], float],
    ) -> None:
        self.published = published
        self._keys = keys
        self._algorithms = tuple(algorithms)
        self._issuer = issuer or None
        self._audience = audience or None
        self._leeway_seconds = leeway_seconds
        self._time = time
        self._remembered: dict[str, Principal] = {}  # first checked first; all of them signed with keys that are in the ring
        self._version = keys.version  # of the ring, when they were checked
        self._headers: dict[str, tuple[str, str | None]] = {}  # algorithm and kid, of headers of tokens that held

    async def authenticate(self, token: str) -> Principal:
        """Return whom a token speaks for; wait some seconds for keys of the issuer if none that is here signed it.

        Does not suspend unless it has to wait for a key. Cancelling it changes nothing.

        Raises:
            TokenExpired: If its time is over.
            Unauthenticated: If it does not hold for any other reason; the message says which, and never repeats the token.
            NotReady: If the issuer's keys could not be fetched ever since the start.
        """
        try:
            return self.principal(token)
        except KeyUnknown:
            assert self.published is not None, "a key is unknown only where somebody can bring it"
        await self.published.ask()
        return self.principal(token)

    def principal(self, token: str) -> Principal:
        """Return whom a token speaks for, by the keys that are here.

        Raises:
            KeyUnknown: If none of them signed it, and the issuer may have published another.
            TokenExpired: If its time is over.
            Unauthenticated: If it does not hold for any other reason; the message says which, and never repeats the token.
        """
        if self._version != self._keys.version:  # a token must not outlive the key that it was signed with
            self._remembered.clear()
            self._version = self._keys.version
        principal = self._remembered.get(token)
        if principal is None:
            principal = self._checked(token)
            self._remembered[token] = principal
            if len(self._remembered) > REMEMBERED_TOKENS:
                del self._remembered[next(iter(self._remembered))]
        elif principal.expires_at is not None and self._time() >= principal.expires_at + self._leeway_seconds:
            del self._remembered[token]
            raise TokenExpired("the token has expired")
        return principal

    def _checked(self, token: str) -> Principal:
        if len(token) > MAX_TOKEN_LENGTH:
            raise Unauthenticated(f"the token is longer than {MAX_TOKEN_LENGTH} characters")
        parts = _TOKEN.fullmatch(token)
        if parts is None:
            raise Unauthenticated("the token cannot be read")
        algorithm, name = self._headers.get(parts[1]) or self._header(token)
        try:
            self._check_signature(algorithm, name, token[: parts.end(2)].encode(), _decoded(parts[3]))
            claims = _claims.decode(_decoded(parts[2]))
        except (ValueError, msgspec.DecodeError, RecursionError):
            raise Unauthenticated("the token cannot be read") from None
        self._headers[parts[1]] = algorithm, name
        if len(self._headers) > REMEMBERED_HEADERS:
            del self._headers[next(iter(self._headers))]
        principal = principal_of(claims)
        self._check_times(claims, principal)
        self._check_parties(claims)
        return principal

    def _header(self, token: str) -> tuple[str, str | None]:
        """Return the algorithm and the kid that a token names; also refuses headers that ask for what nobody here understands."""
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise Unauthenticated("the token cannot be read") from None
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            raise Unauthenticated(f"tokens must be signed with one of: {', '.join(self._algorithms) or 'none is configured'}")
        return algorithm, header.get("kid")

    def _check_signature(self, algorithm: str, name: str | None, content: bytes, signature: bytes) -> None:
        if any(key.signed(content, signature) for key in self._keys.fitting(algorithm, name)):
            return
        if self.published is not None and algorithm != "HS256" and not self._keys.has(algorithm, name):
            raise KeyUnknown("the token is signed with a key that is not known")
        raise Unauthenticated("the token's signature does not hold")

    def _check_times(self, claims: Mapping[str, Any], principal: Principal) -> None:
        """Check `exp`, `nbf` and `iat` (RFC 7519, 4.1.4 to 4.1.6)."""
        now, leeway = self._time(), self._leeway_seconds
        if principal.expires_at is not None and now >= principal.expires_at + leeway:
            raise TokenExpired("the token has expired")
        for begin in (_seconds(claims, "nbf"), principal.issued_at):
            if begin is not None and begin > now + leeway:
                raise Unauthenticated("the token is not valid yet")

    def _check_parties(self, claims: Mapping[str, Any]) -> None:
        """Check `iss` and `aud` (RFC 7519, 4.1.1 and 4.1.3)."""
        if self._issuer is not None and claims.get("iss") != self._issuer:
            raise Unauthenticated("the token is from another issuer")
        audience = claims.get("aud") or []
        named = [audience] if isinstance(audience, str) else audience
        if not isinstance(named, list) or not all(isinstance(one, str) for one in named):
            raise Unauthenticated("the token's claim aud is neither a text nor a list of them")
        if (self._audience not in named) if self._audience is not None else named:
            raise Unauthenticated("the token is not for this server: its claim aud names another, or none where there must be one")


def _decoded(part: str) -> bytes:
    """Return the content of a part of a token.

    Raises:
        ValueError: If it is not written in the one way there is (RFC 4648, 3.5): else a token could be changed, and still hold.
    """
    bare = part.rstrip("=")
    if len(part) != len(bare) and len(part) % 4:
        raise ValueError("the padding is wrong")
    content = binascii.a2b_base64(bare.replace("-", "+").replace("_", "/") + "=" * (-len(bare) % 4))
    if base64.urlsafe_b64encode(content).rstrip(b"=").decode() != bare:
        raise ValueError("the last character is wrong")
    return content


# Claims


def principal_of(claims: Mapping[str, Any], *, ours: bool = False) -> Principal:
    """Return whom claims speak for (SPEC X3), be they of a token, or of something of our own that keeps them.

    Args:
        claims: What is said of somebody; unknown claims mean nothing.
        ours: They are kept by this server itself, and may name a session (`sid`): in a token that is the issuer's own business.

    Raises:
        Unauthenticated: If a claim cannot be meant; times are read, but not compared with the clock.
    """
    user = _name(claims, "sub")
    if user is None:
        raise Unauthenticated("the token names no subject (sub)")
    org, entity = _name(claims, "org"), _name(claims, "entity")
    further = frozenset(_names(claims, "audiences"))
    for audience in further:
        if not is_audience(audience):
            raise Unauthenticated("the token's claim audiences holds something that is no audience")
    return Principal(
        user=user,
        org=org,
        entity=entity,
        roles=frozenset(_names(claims, "roles")),
        audiences=audiences_of(user, org, entity, further),
        expires_at=_seconds(claims, "exp"),
        issued_at=_seconds(claims, "iat"),
        token_id=_id(claims, "jti"),
        session_id=_id(claims, "sid") if ours else None,
    )


def claims_of(principal: Principal) -> dict[str, Any]:
    """Return the claims that speak for a principal: `principal_of(claims_of(one), ours=True) == one`, also by way of JSON or BSON."""
    granted = principal.audiences - audiences_of(principal.user, principal.org, principal.entity, frozenset())
    claims = {
        "sub": principal.user,
        "org": principal.org,
        "entity": principal.entity,
        "roles": sorted(principal.roles),
        "audiences": sorted(granted),
        "exp": principal.expires_at,
        "iat": principal.issued_at,
        "jti": principal.token_id,
        "sid": principal.session_id,
    }
    return {name: value for name, value in claims.items() if value is not None and value != []}


def _seconds(claims: Mapping[str, Any], claim: str) -> float | None:
    """Return a time; one in milliseconds, a frequent mistake, is no time that can be written down."""
    if claim not in claims:
        return None
    value = claims[claim]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= LATEST_EXPIRY:
        raise Unauthenticated(f"the token's claim {claim} is not a time in seconds since 1970")
    return float(value)


def _id(claims: Mapping[str, Any], claim: str) -> str | None:
    value = claims.get(claim, "")
    if not isinstance(value, str) or len(value) > MAX_ID_LENGTH or not _is_text(value):
        raise Unauthenticated(f"the token's claim {claim} is no text of at most {MAX_ID_LENGTH} characters")
    return value or None


def _is_text(value: str) -> bool:
    """Tell whether this can be written in UTF-8; JSON can hold halves of characters, which cannot."""
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)


def _name(claims: Mapping[str, Any], claim: str) -> str | None:
    value = claims.get(claim)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not is_name(value):
        raise Unauthenticated(f"the token's claim {claim} is not a name without spaces and commas")
    return value


def _names(claims: Mapping[str, Any], claim: str) -> Sequence[str]:
    values = claims.get(claim) or []
    if (
        not isinstance(values, list)
        or len(values) > MAX_AUDIENCES
        or not all(isinstance(value, str) and _is_text(value) for value in values)
    ):
        raise Unauthenticated(f"the token's claim {claim} is not a list of at most {MAX_AUDIENCES} strings")
    return values
