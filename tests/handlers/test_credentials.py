"""Tests of handlers/credentials.py: which tokens hold, whom they speak for, and what is said of those that do not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from handlers import credentials
from handlers.credentials import MAX_AUDIENCES, MAX_TOKEN_LENGTH, TokenVerifier
from hub.errors import TokenExpired, Unauthenticated

SECRET = "a secret for HS256, of more than 32 bytes"
PRIVATE: dict[str, Any] = {
    "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
NOW = int(time.time())


def public_pem(algorithm: str) -> str:
    """Return the public key of an algorithm in PEM."""
    key = PRIVATE[algorithm].public_key()
    return str(key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo), "ascii")


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


def verifier(keys: dict[str, str] | None = None, *, clock: Clock | None = None, **options: Any) -> TokenVerifier:
    """Return a verifier for HS256 with our secret, unless told otherwise."""
    given = {"issuer": "", "audience": "", "leeway_seconds": 5.0, **options}
    return TokenVerifier({"HS256": SECRET} if keys is None else keys, time=clock or Clock(), **given)


def signed(claims: dict[str, Any], key: Any = SECRET, algorithm: str = "HS256", **headers: Any) -> str:
    """Return a token with these claims."""
    return jwt.encode({"sub": "u1", **claims}, key, algorithm=algorithm, headers=headers or None)


def handmade(header: Any, claims: Any, secret: bytes = SECRET.encode()) -> str:
    """Return a token signed with HMAC whatever its header says, as no library would make it."""

    def part(value: Any) -> bytes:
        text = value if isinstance(value, bytes) else json.dumps(value).encode()
        return base64.urlsafe_b64encode(text).rstrip(b"=")

    content = part(header) + b"." + part(claims)
    return (content + b"." + part(hmac.digest(secret, content, hashlib.sha256))).decode()


def refusal(token: str, checker: TokenVerifier | None = None) -> Unauthenticated:
    """Return the error with which a token is refused; it never repeats the token (S7)."""
    with pytest.raises(Unauthenticated) as caught:
        (checker or verifier()).principal(token)
    parts = [part for part in token.split(".") if len(part) > 3]
    assert not any(part in str(caught.value) for part in parts)
    assert caught.value.__cause__ is None
    return caught.value


def test_a_token_tells_who_somebody_is() -> None:
    """User, organisation, entity, roles and further audiences come from the claims (X3, S2)."""
    claims = {"org": "o1", "entity": "e1", "roles": ["publisher"], "audiences": ["resource:stream/42"], "exp": NOW + 3600}
    principal = verifier().principal(signed(claims))
    assert (principal.user, principal.org, principal.entity) == ("u1", "o1", "e1")
    assert principal.roles == {"publisher"}
    assert principal.audiences == {"public", "user:u1", "org:o1", "entity:e1", "resource:stream/42"}
    assert principal.expires_at == NOW + 3600


def test_a_token_may_say_no_more_than_a_name() -> None:
    """Without further claims there is a user who hears what is public or addressed to that one, for ever."""
    principal = verifier().principal(signed({"org": "", "roles": None, "audiences": []}))
    assert (principal.org, principal.roles, principal.expires_at) == (None, frozenset(), None)
    assert principal.audiences == {"public", "user:u1"}


@pytest.mark.parametrize("algorithm", PRIVATE)
def test_public_key_algorithms_are_understood(algorithm: str) -> None:
    """RS256, ES256 and EdDSA tokens hold with the public key (S2)."""
    token = signed({}, PRIVATE[algorithm], algorithm)
    assert verifier({algorithm: public_pem(algorithm)}).principal(token).user == "u1"


@pytest.mark.parametrize("algorithm", PRIVATE)
def test_a_signature_of_another_key_does_not_hold(algorithm: str) -> None:
    """A token signed with a key of the same kind that is not ours is refused."""
    others: dict[str, Any] = {
        "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
        "ES256": ec.generate_private_key(ec.SECP256R1()),
        "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    }
    token = signed({}, others[algorithm], algorithm)
    assert "signature" in str(refusal(token, verifier({algorithm: public_pem(algorithm)})))


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", "HS384", "RS256", "", None, 5, ["HS256"]])
def test_only_allowed_algorithms_are_taken(name: Any) -> None:
    """A token that names another algorithm, `none` in any spelling, or nonsense is refused, well signed or not (S2)."""
    header = {"typ": "JWT", "alg": name}
    unsigned = handmade(header, {"sub": "u1"}).rpartition(".")[0] + "."
    for token in (handmade(header, {"sub": "u1"}), unsigned):
        assert "HS256" in str(refusal(token)) or "cannot be read" in str(refusal(token))


@pytest.mark.parametrize("algorithm", PRIVATE)
def test_a_public_key_is_never_taken_for_a_secret(algorithm: str) -> None:
    """A token signed by HMAC with the text of the public key is refused, whichever algorithm it names (RFC 8725, 2.1)."""
    pem = public_pem(algorithm)
    for name in ("HS256", algorithm):
        refusal(handmade({"alg": name}, {"sub": "u1"}, pem.encode()), verifier({algorithm: pem}))


def test_with_two_algorithms_each_has_its_own_key() -> None:
    """With HS256 and RS256 both allowed, HMAC with the public key still does not hold."""
    both = verifier({"HS256": SECRET, "RS256": public_pem("RS256")})
    assert both.principal(signed({})).user == "u1"
    assert both.principal(signed({}, PRIVATE["RS256"], "RS256")).user == "u1"
    assert "signature" in str(refusal(handmade({"alg": "HS256"}, {"sub": "u1"}, public_pem("RS256").encode()), both))


def test_without_a_key_every_token_is_refused() -> None:
    """With nothing configured the answer says so."""
    assert "none is configured" in str(refusal(signed({}), verifier({})))


def test_a_secret_that_is_too_short_checks_nothing() -> None:
    """A secret shorter than the hash is no key for HS256 (RFC 7518, 3.2)."""
    token = handmade({"alg": "HS256"}, {"sub": "u1"}, b"short")
    refusal(token, verifier({"HS256": "short"}))


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_token_that_was_changed_is_refused(part: int) -> None:
    """A changed header, claim or signature does not hold."""
    parts = signed({}).split(".")
    middle = len(parts[part]) // 2
    parts[part] = parts[part][:middle] + ("A" if parts[part][middle] != "A" else "B") + parts[part][middle + 1 :]
    refusal(".".join(parts))


@pytest.mark.parametrize(
    "token", ["x", "a.b", "a.b.c", "...", "a.b.c.d", "é.è.à", "\ud800.a.b", "eyJ.eyJ.", " ", "[]", signed({}) + "." + "x", signed({})[:-9]]
)
def test_nonsense_is_refused(token: str) -> None:
    """Whatever is no token gets one sentence, and no traceback."""
    refusal(token)


def test_a_token_that_is_too_long_is_refused_unread() -> None:
    """Beyond the stated length nothing is decoded."""
    assert str(MAX_TOKEN_LENGTH) in str(refusal("x" * (MAX_TOKEN_LENGTH + 1)))


@pytest.mark.parametrize("header", [[], "x", 5, {}, b"{", b"\xff", b'{"alg":' + b"[" * 3000 + b"]" * 3000 + b"}"])
def test_a_header_that_is_no_object_is_refused(header: Any) -> None:
    """A well signed token with a header that makes no sense is refused."""
    refusal(handmade(header, {"sub": "u1"}))


@pytest.mark.parametrize("claims", [[], "x", 5, None, b"{", b"\xff", b"[" * 3000])
def test_claims_that_are_no_object_are_refused(claims: Any) -> None:
    """A well signed token with claims that make no sense is refused."""
    refusal(handmade({"alg": "HS256"}, claims))


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("sub", None),
        ("sub", ""),
        ("sub", 5),
        ("sub", ["u1"]),
        ("sub", "u 1"),
        ("sub", "u1,u2"),
        ("sub", "u*"),
        ("sub", "u1\n"),
        ("sub", "x" * 256),
        ("org", 5),
        ("org", "o 1"),
        ("entity", {"id": "e1"}),
        ("entity", "e\x001"),
        ("roles", "admin"),
        ("roles", {"admin": True}),
        ("roles", ["admin", 5]),
        ("audiences", "user:u2"),
        ("audiences", [5]),
        ("audiences", ["everybody"]),
        ("audiences", ["user:"]),
        ("audiences", [f"user:u{number}" for number in range(MAX_AUDIENCES + 1)]),
        ("exp", "soon"),
        ("exp", [NOW + 3600]),
        ("exp", {}),
        ("exp", (NOW + 3600) * 1000),
        ("exp", 10**400),
        ("exp", float("inf")),
        ("nbf", "soon"),
        ("nbf", float("inf")),
        ("iat", "soon"),
    ],
)
def test_claims_of_wrong_types_are_refused(claim: str, value: Any) -> None:
    """A claim that cannot be meant makes the whole token no good: it never speaks for somebody half."""
    refusal(handmade({"alg": "HS256"}, {"sub": "u1", claim: value}))


def test_a_subject_is_needed() -> None:
    """A token without `sub` names nobody."""
    refusal(handmade({"alg": "HS256"}, {"exp": NOW + 3600}))


def test_an_expired_token_is_told_from_a_bad_one() -> None:
    """A token whose time is over is refused as expired, which tells the client to get another (S3)."""
    assert isinstance(refusal(signed({"exp": NOW - 60})), TokenExpired)


def test_clocks_may_differ_by_the_leeway() -> None:
    """A token that expired, or begins, within the leeway holds (S2)."""
    checker = verifier(leeway_seconds=7200)
    assert checker.principal(signed({"exp": NOW - 60})).user == "u1"
    assert checker.principal(signed({"nbf": NOW + 3600})).user == "u1"


def test_a_token_does_not_hold_before_its_time() -> None:
    """`nbf` in the future is refused (S2)."""
    assert "not valid yet" in str(refusal(signed({"nbf": NOW + 7200})))


@pytest.mark.parametrize("claims", [{}, {"iss": "other"}, {"iss": 5}, {"iss": ["us"]}, {"iss": None}])
def test_the_issuer_must_be_ours_where_one_is_set(claims: dict[str, Any]) -> None:
    """Another issuer, or none, is refused; without the setting any will do (S2)."""
    checker = verifier(issuer="us")
    assert checker.principal(signed({"iss": "us"})).user == "u1"
    refusal(handmade({"alg": "HS256"}, {"sub": "u1", **claims}), checker)
    assert verifier().principal(signed({"iss": "anybody"})).user == "u1"


@pytest.mark.parametrize("claims", [{}, {"aud": "other"}, {"aud": []}, {"aud": 5}, {"aud": ["other", 5]}, {"aud": None}])
def test_the_audience_must_be_ours_where_one_is_set(claims: dict[str, Any]) -> None:
    """A token for somebody else, or for nobody, is refused; one for several, ours among them, holds (S2)."""
    checker = verifier(audience="us")
    assert checker.principal(signed({"aud": ["them", "us"]})).user == "u1"
    refusal(handmade({"alg": "HS256"}, {"sub": "u1", **claims}), checker)


def test_a_token_for_another_server_is_refused_where_no_audience_is_set() -> None:
    """A token that names an audience is not taken by a server that is none (RFC 7519, 4.1.3)."""
    assert "not for this server" in str(refusal(signed({"aud": "them"})))


def test_a_remembered_token_does_not_outlive_its_time() -> None:
    """A token that was checked before is refused once its time and the leeway are over (S3)."""
    clock = Clock()
    checker = verifier(clock=clock)
    token = signed({"exp": NOW + 3600})
    first = checker.principal(token)
    clock.now += 3604
    assert checker.principal(token) is first
    clock.now += 1
    assert isinstance(refusal(token, checker), TokenExpired)


def test_only_so_many_tokens_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory for tokens is bounded: the oldest is forgotten, and checked anew when it comes back."""
    monkeypatch.setattr(credentials, "REMEMBERED_TOKENS", 2)
    checker = verifier()
    tokens = [signed({"org": f"o{number}"}) for number in range(3)]
    first = [checker.principal(token) for token in tokens]
    assert checker.principal(tokens[2]) is first[2]
    again = checker.principal(tokens[0])
    assert again is not first[0]
    assert again == first[0]


def test_a_refused_token_is_not_remembered() -> None:
    """What was refused once is refused again."""
    checker = verifier()
    token = signed({}, "another secret that is long enough, too")
    refusal(token, checker)
    refusal(token, checker)
