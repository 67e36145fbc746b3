"""The keys that tokens are checked with, by algorithm and name (kid). Knows no token, and not where keys come from.

A key is of one algorithm, decided by its own kind and never by a token (RFC 8725, 2.1), and is made ready once: reading a PEM for every
token would take longer than checking its signature.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import jwt
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm

logger = logging.getLogger("tailcast.handlers")

MAX_SET_KEYS = 100  # in one JWKS: those of large issuers hold about ten
MAX_TRIED_KEYS = 16  # for one token: each costs a check of its signature
MAX_NAME_LENGTH = 256
RSA_BITS = range(2048, 8193)  # at least: RFC 7518, 3.3; at most: so that a check stays short

_Group = TypeVar("_Group")


class UnusableSetError(ValueError):
    """A JWKS from which no key can be taken; the text says why."""


class UnusableKeyError(ValueError):
    """A key of a JWKS that checks no token here; the text says why, and `level` how much an operator should care."""

    def __init__(self, reason: str, level: int = logging.DEBUG) -> None:
        super().__init__(reason)
        self.level = level


@dataclass(frozen=True, slots=True)
class Key:
    """A key, ready to check signatures of one algorithm with.

    `name` is its kid; None: it has none, and fits tokens of any. `material` is what makes two keys the same.
    """

    algorithm: str
    name: str | None
    material: str = field(repr=False)
    prepared: Any = field(compare=False, repr=False)  # as its algorithm in PyJWT takes it

    def signed(self, content: bytes, signature: bytes) -> bool:
        """Tell whether this signature of a content is one of this key."""
        return _ALGORITHMS[self.algorithm].verify(content, self.prepared, signature)


class KeyRing:
    """All keys: those of the operator, which stay, and those that an issuer publishes, which change.

    Args:
        own: The operator's.
    """

    def __init__(self, own: Iterable[Key] = ()) -> None:
        self._own = tuple(own)
        self._published: tuple[Key, ...] = ()
        self._named: dict[tuple[str, str], tuple[Key, ...]] = {}  # by algorithm and name
        self._unnamed: dict[str, tuple[Key, ...]] = {}  # by algorithm, those without a name
        self._all: dict[str, tuple[Key, ...]] = {}  # by algorithm
        self.version = 0  # one more whenever a key came or went
        self._sort()

    def fitting(self, algorithm: str, name: str | None) -> tuple[Key, ...]:
        """Return the few keys that may have signed a token whose header says this, likeliest first.

        A key without a name fits all tokens of its algorithm, and a token without one all keys.
        """
        if name is None:
            return self._all.get(algorithm, ())
        return self._named.get((algorithm, name), ()) + self._unnamed.get(algorithm, ())

    def has(self, algorithm: str, name: str | None) -> bool:
        """Tell whether a key of just this name is there."""
        return name is not None and (algorithm, name) in self._named

    def publish(self, keys: Iterable[Key]) -> bool:
        """Put the keys that the issuer publishes now in the place of those before; tell whether that changed anything."""
        published = tuple(keys)
        if set(published) == set(self._published):
            return False
        self._published = published
        self.version += 1
        self._sort()
        return True

    def _sort(self) -> None:
        every = (*self._own, *self._published)
        self._named = _grouped(((key.algorithm, key.name), key) for key in every if key.name is not None)
        self._unnamed = _grouped((key.algorithm, key) for key in every if key.name is None)
        self._all = _grouped((key.algorithm, key) for key in every)


def _grouped(pairs: Iterable[tuple[_Group, Key]]) -> dict[_Group, tuple[Key, ...]]:
    groups: dict[_Group, tuple[Key, ...]] = {}
    for group, key in pairs:
        groups[group] = (*groups.get(group, ()), key)[:MAX_TRIED_KEYS]
    return groups


_ALGORITHMS = {name: jwt.get_algorithm_by_name(name) for name in ("HS256", "RS256", "ES256", "EdDSA")}


def own_key(algorithm: str, text: str) -> Key:
    """Return a key of the operator's.

    Args:
        algorithm: One of HS256, RS256, ES256, EdDSA.
        text: The secret, or the public key in PEM.

    Raises:
        ValueError: If it is no key for this algorithm, or too short for it.
    """
    kind = _ALGORITHMS[algorithm]
    try:
        prepared = kind.prepare_key(text)
        material = json.dumps(kind.to_jwk(prepared, as_dict=True), sort_keys=True)
    except (jwt.PyJWTError, TypeError, ValueError) as error:
        raise ValueError(f"this is no key for {algorithm}") from error
    if kind.check_key_length(prepared) is not None:
        raise ValueError(f"this key is too short for {algorithm}")
    return Key(algorithm, None, material, prepared)


# Keys that an issuer publishes (RFC 7517)


@dataclass(frozen=True, slots=True)
class _Kind:
    """One kind of published key: the algorithm it is for, the members it is made of, and the one curve there may be."""

    algorithm: str
    members: tuple[str, ...]
    curve: str | None


# By `kty`. Symmetric keys ("oct") are not here: what everybody can read proves nothing.
_KINDS = {
    "RSA": _Kind("RS256", ("n", "e"), None),
    "EC": _Kind("ES256", ("crv", "x", "y"), "P-256"),
    "OKP": _Kind("EdDSA", ("crv", "x"), "Ed25519"),
}


def published_keys(text: bytes, algorithms: Iterable[str]) -> list[Key]:
    """Return the keys of a JWKS that can check tokens here. Others are left out: a set may hold keys for other purposes.

    Args:
        text: The JWKS, as it was fetched.
        algorithms: Those that the operator allows.

    Raises:
        UnusableSetError: If it is no JWKS, has too many keys, or none that can be used.
    """
    try:
        found = msgspec.json.decode(text, type=dict[str, Any]).get("keys")
    except (msgspec.DecodeError, RecursionError):
        raise UnusableSetError("it is no JSON object") from None
    if not isinstance(found, list):
        raise UnusableSetError("it has no list named keys")
    if len(found) > MAX_SET_KEYS:
        raise UnusableSetError(f"it has more than {MAX_SET_KEYS} keys")
    allowed, keys = frozenset(algorithms), []
    for jwk in found:
        try:
            keys.append(_published_key(jwk, allowed))
        except UnusableKeyError as error:
            name = jwk.get("kid") if isinstance(jwk, dict) else None
            logger.log(error.level, "a published key is not used: %s", error, extra={"fields": {"kid": name}})
    if not keys:
        raise UnusableSetError("none of its keys can be used")
    return keys


def _published_key(jwk: Any, allowed: frozenset[str]) -> Key:
    kind, name = _kind_of(jwk), jwk.get("kid")
    if kind.algorithm not in allowed:
        raise UnusableKeyError("its algorithm is not allowed by jwt_algorithms")
    if name is not None and (not isinstance(name, str) or len(name) > MAX_NAME_LENGTH):
        raise UnusableKeyError(f"its kid is no text of at most {MAX_NAME_LENGTH} characters")
    public = {"kty": jwk["kty"], **{member: jwk.get(member) for member in kind.members}}
    try:
        prepared = _ALGORITHMS[kind.algorithm].from_jwk(public)
    except (jwt.PyJWTError, ValueError, TypeError, UnsupportedAlgorithm):
        raise UnusableKeyError("it cannot be read") from None
    if kind.curve is None and prepared.key_size not in RSA_BITS:
        reason = f"it is an RSA key of {prepared.key_size} bits, where {RSA_BITS[0]} to {RSA_BITS[-1]} are expected"
        raise UnusableKeyError(reason, logging.WARNING)
    return Key(kind.algorithm, name, json.dumps(public, sort_keys=True), prepared)


def _kind_of(jwk: Any) -> _Kind:
    """Return the kind of a key that is for checking signatures, as far as it says what it is for (RFC 7517, 4.2 to 4.4)."""
    kind = _KINDS.get(jwk["kty"]) if isinstance(jwk, dict) and isinstance(jwk.get("kty"), str) else None
    if kind is None or jwk.get("crv") != kind.curve:
        raise UnusableKeyError("it is of a kind that no allowed algorithm uses")
    if jwk.get("alg", kind.algorithm) != kind.algorithm:
        raise UnusableKeyError("it is for another algorithm")
    operations = jwk.get("key_ops", ["verify"])
    if jwk.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        raise UnusableKeyError("it is for another use")
    return kind
