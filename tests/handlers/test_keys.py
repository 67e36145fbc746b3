"""Tests of handlers/keys.py: which keys are taken, and which of them a token is checked with."""

from __future__ import annotations

import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa

from handlers.keys import MAX_SET_KEYS, MAX_TRIED_KEYS, Key, KeyRing, UnusableSetError, own_key, published_keys
from tests.handlers.assembly import SECRET
from tests.handlers.issuer import ALL_ALGORITHMS as ALL
from tests.handlers.issuer import NEW_KEY, jwk_of, key_set

PRIVATE = {algorithm: make() for algorithm, make in NEW_KEY.items()}
GOOD = jwk_of(PRIVATE["ES256"], "ES256", kid="good")


def pem_of(private_key: Any) -> str:
    """Return the public half of a key in PEM."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return str(private_key.public_key().public_bytes(serialization.Encoding.PEM, form), "ascii")


def published(algorithm: str = "ES256", name: str | None = None) -> Key:
    """Return a new key as an issuer publishes it."""
    (key,) = published_keys(key_set(jwk_of(NEW_KEY[algorithm](), algorithm, kid=name)), ALL)
    return key


# ---- the operator's keys


@pytest.mark.parametrize(
    ("algorithm", "text"),
    [
        ("HS256", ""),
        ("HS256", "x" * 31),
        ("HS256", pem_of(PRIVATE["RS256"])),
        ("RS256", pem_of(PRIVATE["ES256"])),
        ("RS256", pem_of(rsa.generate_private_key(public_exponent=65537, key_size=1024))),
        ("ES256", pem_of(PRIVATE["EdDSA"])),
        ("ES256", "nonsense"),
        ("EdDSA", pem_of(PRIVATE["RS256"])),
    ],
)
def test_a_key_is_of_the_kind_of_its_algorithm(algorithm: str, text: str) -> None:
    """A key that is none, is for another algorithm, or too short for it (RFC 7518, 3.2 and 3.3) is refused; a public key is no secret."""
    with pytest.raises(ValueError, match=f"this (is no key|key is too short) for {algorithm}"):
        own_key(algorithm, text)


@pytest.mark.parametrize("algorithm", PRIVATE)
def test_a_key_knows_its_own_signatures(algorithm: str) -> None:
    """A signature of the key's own private half over the content, and nothing else, whatever its length."""
    key, signer = own_key(algorithm, pem_of(PRIVATE[algorithm])), jwt.get_algorithm_by_name(algorithm)
    signature = signer.sign(b"content", PRIVATE[algorithm])
    assert key.signed(b"content", signature)
    for content, other in ((b"Content", signature), (b"content", signature[:-1]), (b"content", signature[::-1]), (b"content", b"")):
        assert not key.signed(content, other)


def test_a_key_does_not_show_what_is_secret() -> None:
    """Neither the secret nor what is made of it stands in `repr`."""
    shown = repr(own_key("HS256", SECRET))
    assert "HS256" in shown
    assert "secret" not in shown


# ---- keys that an issuer publishes


@pytest.mark.parametrize("algorithm", PRIVATE)
def test_published_keys_are_of_the_algorithm_of_their_kind(algorithm: str) -> None:
    """RSA keys are for RS256, P-256 keys for ES256, Ed25519 keys for EdDSA, whether the JWK says so or not."""
    for alg in (algorithm, None):
        (key,) = published_keys(key_set(jwk_of(PRIVATE[algorithm], algorithm, kid="k1", alg=alg, use="sig", key_ops=["verify"])), ALL)
        assert (key.algorithm, key.name) == (algorithm, "k1")


UNUSABLE: list[Any] = [
    None,
    "x",
    5,
    [],
    {},
    {"kty": 5},
    {"kty": ["RSA"]},
    {"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "alg": "HS256"},
    {**GOOD, "use": "enc"},
    {**GOOD, "use": None},
    {**GOOD, "key_ops": ["sign"]},
    {**GOOD, "key_ops": "verify"},
    {**GOOD, "alg": "ES384"},
    {**GOOD, "alg": "HS256"},
    {**GOOD, "alg": None},
    {**GOOD, "kid": 5},
    {**GOOD, "kid": "k" * 257},
    {**GOOD, "crv": "P-384"},
    {**GOOD, "crv": "Ed25519"},
    {**GOOD, "x": None},
    {**GOOD, "x": "!"},
    {**GOOD, "x": 5},
    {**GOOD, "x": GOOD["y"]},
    {"kty": "EC", "crv": "P-256"},
    {"kty": "RSA"},
    {"kty": "RSA", "n": "AQAB", "e": []},
    {"kty": "RSA", "n": "", "e": ""},
    {**GOOD, "kty": "RSA"},
    {**jwk_of(PRIVATE["RS256"], "RS256"), "alg": "PS256"},
    {**jwk_of(PRIVATE["EdDSA"], "EdDSA"), "x": "AAAA"},
    jwk_of(ec.generate_private_key(ec.SECP384R1()), "ES384", alg=None),
    jwk_of(ed448.Ed448PrivateKey.generate(), "EdDSA", alg=None),
]


@pytest.mark.parametrize("jwk", UNUSABLE, ids=lambda jwk: str(jwk)[:60])
def test_keys_for_something_else_are_left_out(jwk: Any) -> None:
    """Symmetric keys, keys for encryption or another algorithm, and nonsense check no token, and do not spoil the set they are in."""
    assert [key.name for key in published_keys(key_set(jwk, GOOD), ALL)] == ["good"]
    with pytest.raises(UnusableSetError, match="none of its keys can be used"):
        published_keys(key_set(jwk), ALL)


def test_keys_of_algorithms_that_are_not_allowed_are_left_out() -> None:
    """What the operator did not allow, no issuer can bring in."""
    every = key_set(*(jwk_of(PRIVATE[algorithm], algorithm) for algorithm in PRIVATE))
    assert [key.algorithm for key in published_keys(every, ("HS256", "EdDSA"))] == ["EdDSA"]


@pytest.mark.parametrize("bits", [1024, 2047])
def test_a_short_rsa_key_is_left_out_and_reported(bits: int, expected_logs: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """RSA keys of less than 2048 bits can be broken: the operator is told, since the issuer's tokens will be refused (RFC 7518, 3.3)."""
    expected_logs.append("a published key is not used")
    short = jwk_of(rsa.generate_private_key(public_exponent=65537, key_size=bits), "RS256", kid="short")
    assert [key.name for key in published_keys(key_set(short, GOOD), ALL)] == ["good"]
    assert f"it is an RSA key of {bits} bits, where 2048 to 8192 are expected" in caplog.text


def test_private_members_are_not_kept() -> None:
    """An issuer that publishes its private key by mistake gets its tokens checked with the public half."""
    private = json.loads(json.dumps({**GOOD, "d": "c2VjcmV0"}))
    assert published_keys(key_set(private), ALL) == published_keys(key_set(GOOD), ALL)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "no JSON object"),
        (b"<html>", "no JSON object"),
        (b"\xff", "no JSON object"),
        (b"[]", "no JSON object"),
        (b"[" * 100_000, "no JSON object"),
        (b"{}", "no list named keys"),
        (b'{"keys": {}}', "no list named keys"),
        (b'{"keys": []}', "none of its keys"),
        (key_set(*[GOOD] * (MAX_SET_KEYS + 1)), "more than 100 keys"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_no_key_set_is_refused(text: bytes, reason: str) -> None:
    """An error page, a truncated answer, an empty set, or a set beyond all measure."""
    with pytest.raises(UnusableSetError, match=reason):
        published_keys(text, ALL)


# ---- the ring


def test_a_token_is_checked_with_the_key_it_names() -> None:
    """And with keys that have no name, which may be it; never with a key of another name or algorithm."""
    own, first, second, nameless = own_key("ES256", pem_of(PRIVATE["ES256"])), published(name="k1"), published(name="k2"), published()
    ring = KeyRing([own, own_key("HS256", SECRET)])
    ring.publish([first, second, nameless, published("RS256", "k1")])
    assert ring.fitting("ES256", "k1") == (first, own, nameless)
    assert ring.fitting("ES256", "k3") == (own, nameless)
    assert ring.fitting("EdDSA", "k1") == ()
    assert (ring.has("ES256", "k2"), ring.has("ES256", "k3"), ring.has("EdDSA", "k1"), ring.has("ES256", None)) == (
        True,
        False,
        False,
        False,
    )


def test_a_token_without_a_name_is_checked_with_all_keys_of_its_algorithm() -> None:
    """The operator's first, but never with more than so many: each costs a check."""
    own = own_key("EdDSA", pem_of(PRIVATE["EdDSA"]))
    ring = KeyRing([own])
    assert ring.fitting("EdDSA", None) == (own,)
    more = [published("EdDSA", f"k{number}") for number in range(MAX_TRIED_KEYS + 1)]
    ring.publish(more)
    assert ring.fitting("EdDSA", None) == (own, *more[: MAX_TRIED_KEYS - 1])
    assert ring.fitting("EdDSA", more[-1].name) == (more[-1], own)


def test_published_keys_replace_those_before() -> None:
    """What the issuer no longer publishes is gone; the operator's keys stay. The version tells whether anything changed."""
    own, first, second = own_key("ES256", pem_of(PRIVATE["ES256"])), published(name="k1"), published(name="k2")
    ring = KeyRing([own])
    before = ring.version
    assert ring.publish([first, second])
    assert ring.version == before + 1
    assert not ring.publish([second, first])
    assert ring.version == before + 1
    assert ring.publish([second])
    assert ring.fitting("ES256", None) == (own, second)
    assert not ring.has("ES256", "k1")


def test_another_key_of_the_same_name_is_another_key() -> None:
    """An issuer that changes a key and keeps its name has changed it."""
    ring = KeyRing()
    assert ring.publish([published(name="k1")])
    assert ring.publish([published(name="k1")])
