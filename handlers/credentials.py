"""Credentials: from a JSON Web Token to the principal it speaks for. Knows no request.

Tokens are checked as RFC 7519 and RFC 8725 say: the algorithm must be one that the operator allowed and has a key of its own kind, so a
token can neither choose `none` nor have a public key taken for a secret.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jwt

from hub.errors import TokenExpired, Unauthenticated
from hub.principal import Principal, audiences_of, is_audience
from hub.subscriptions import is_name

MAX_TOKEN_LENGTH = 8192
MAX_AUDIENCES = 200
LATEST_EXPIRY = 253_402_300_799  # the end of the year 9999, the last that RFC 3339 can write
REMEMBERED_TOKENS = 1024  # that were checked lately: publishers send the same one with every request


class TokenVerifier:
    """Checks tokens.

    Args:
        keys: For each allowed algorithm the key that its signatures are checked with: a secret, or a public key in PEM.
        issuer: What `iss` must be; empty: anything, or nothing.
        audience: What `aud` must name; empty: there must be none.
        leeway_seconds: How far clocks may differ.
        time: Returns seconds since 1970.
    """

    def __init__(
        self,
        keys: Mapping[str, str],
        *,
        issuer: str,
        audience: str,
        leeway_seconds: float,
        time: Callable[[], float],
    ) -> None:
        self._keys = {algorithm: _prepared(algorithm, key) for algorithm, key in keys.items()}
        self._issuer = issuer or None
        self._audience = audience or None
        self._leeway_seconds = leeway_seconds
        self._time = time
        self._jwt = jwt.PyJWT(options={"enforce_minimum_key_length": True})
        self._remembered: dict[str, Principal] = {}  # least recently checked first

    def principal(self, token: str) -> Principal:
        """Return whom a token speaks for.

        Raises:
            TokenExpired: If its time is over.
            Unauthenticated: If it does not hold for any other reason; the message says which, and never repeats the token.
        """
        principal = self._remembered.get(token)
        if principal is None:
            principal = _principal_of(self._claims(token))
            self._remembered[token] = principal
            if len(self._remembered) > REMEMBERED_TOKENS:
                del self._remembered[next(iter(self._remembered))]
        elif principal.expires_at is not None and self._time() >= principal.expires_at + self._leeway_seconds:
            del self._remembered[token]
            raise TokenExpired("the token has expired")
        return principal

    def _claims(self, token: str) -> dict[str, Any]:
        if len(token) > MAX_TOKEN_LENGTH:
            raise Unauthenticated(f"the token is longer than {MAX_TOKEN_LENGTH} characters")
        try:
            algorithm = jwt.get_unverified_header(token).get("alg")
            if not isinstance(algorithm, str) or algorithm not in self._keys:
                raise Unauthenticated(f"tokens must be signed with one of: {', '.join(self._keys) or 'none is configured'}")
            claims: dict[str, Any] = self._jwt.decode(
                token,
                self._keys[algorithm],
                algorithms=[algorithm],
                issuer=self._issuer,
                audience=self._audience,
                leeway=self._leeway_seconds,
                options={"require": ["sub"]},
            )
        except jwt.ExpiredSignatureError:
            raise TokenExpired("the token has expired") from None
        except jwt.ImmatureSignatureError:
            raise Unauthenticated("the token is not valid yet") from None
        except jwt.InvalidIssuerError:
            raise Unauthenticated("the token is from another issuer") from None
        except (jwt.InvalidAudienceError, jwt.MissingRequiredClaimError) as error:
            raise Unauthenticated(f"the token is not for this server: {error}") from None
        except jwt.InvalidSignatureError:
            raise Unauthenticated("the token's signature does not hold") from None
        except (jwt.PyJWTError, ValueError, OverflowError, RecursionError):
            raise Unauthenticated("the token cannot be read") from None
        return claims


def _prepared(algorithm: str, key: str) -> jwt.PyJWK:
    """Return a key as it is used: reading a PEM for every token would take longer than checking its signature."""
    kind = jwt.get_algorithm_by_name(algorithm)
    return jwt.PyJWK(kind.to_jwk(kind.prepare_key(key), as_dict=True), algorithm)


def _principal_of(claims: Mapping[str, Any]) -> Principal:
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
        expires_at=_expiry(claims),
    )


def _expiry(claims: Mapping[str, Any]) -> float | None:
    """Return when the token's time is over; one in milliseconds, a frequent mistake, is no time that can be written down."""
    value = claims.get("exp")
    if value is not None and int(value) > LATEST_EXPIRY:
        raise Unauthenticated("the token's claim exp is not a time in seconds since 1970")
    return None if value is None else float(value)


def _name(claims: Mapping[str, Any], claim: str) -> str | None:
    value = claims.get(claim)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not is_name(value):
        raise Unauthenticated(f"the token's claim {claim} is not a name without spaces and commas")
    return value


def _names(claims: Mapping[str, Any], claim: str) -> Sequence[str]:
    values = claims.get(claim) or []
    if not isinstance(values, list) or len(values) > MAX_AUDIENCES or not all(isinstance(value, str) for value in values):
        raise Unauthenticated(f"the token's claim {claim} is not a list of at most {MAX_AUDIENCES} strings")
    return values
