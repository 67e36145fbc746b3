"""Tests of handlers/credentials.py: which tokens hold, whom they speak for, and what is said of those that do not."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import time
from typing import Any

import bson
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from handlers import credentials
from handlers.credentials import LATEST_EXPIRY, MAX_AUDIENCES, MAX_TOKEN_LENGTH, TokenVerifier, claims_of, principal_of
from handlers.jwks import ASK_SECONDS
from handlers.keys import KeyRing, own_key
from hub.errors import TokenExpired, Unauthenticated
from hub.principal import Principal, is_audience
from hub.subscriptions import is_name
from tests.handlers.issuer import Checker, Issuer, jwk_of, key_set
from tests.waiting import wait_until

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
    given_keys = {"HS256": SECRET} if keys is None else keys
    ring = KeyRing(own_key(algorithm, text) for algorithm, text in given_keys.items())
    return TokenVerifier(ring, algorithms=given_keys, time=clock or Clock(), **given)


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
        ("nbf", None),
        ("iat", "soon"),
        ("iat", None),
        ("iat", -1),
        ("iat", NOW * 1000),
        ("exp", None),
        ("exp", -1),
        ("exp", True),
        ("exp", str(NOW + 3600)),
        ("jti", 5),
        ("jti", None),
        ("jti", ["t1"]),
        ("jti", "t" * 257),
        ("jti", "\ud800"),
        ("roles", ["\ud800"]),
        ("aud", {"us": True}),
        ("aud", 5),
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


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (signed({}) + "==", "cannot be read"),  # an HMAC of 32 bytes takes 43 characters, and one of padding
        (signed({})[:-1] + "=", "cannot be read"),
        (signed({}).replace(".", "=."), "cannot be read"),
        (signed({}).replace(".", ".\n"), "cannot be read"),
        (" " + signed({}), "cannot be read"),
        (handmade({"alg": "HS256", "crit": ["exp"]}, {"sub": "u1"}), "cannot be read"),
        (handmade({"alg": "HS256", "crit": []}, {"sub": "u1"}), "cannot be read"),
        (handmade({"alg": "HS256", "b64": False, "crit": ["b64"]}, {"sub": "u1"}), "cannot be read"),
        (handmade({"alg": "HS256", "kid": 5}, {"sub": "u1"}), "cannot be read"),
        (handmade({"alg": "HS256"}, b'{"sub": "u1", "n": NaN}'), "cannot be read"),
    ],
)
def test_a_token_is_written_in_one_way(token: str, reason: str) -> None:
    """What the standards leave no room for is refused, and so is a header that asks for what nobody here understands (RFC 7515, 4.1.11)."""
    for checker in (verifier(), knowing()):
        assert reason in str(refusal(token, checker))


def knowing() -> TokenVerifier:
    """Return a verifier that remembers the header of a token that held."""
    checker = verifier()
    checker.principal(signed({"jti": "another"}))
    return checker


def test_the_last_character_counts_as_well() -> None:
    """A signature whose last character was changed is refused, though its unused bits are no part of it."""
    token = signed({})
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for checker in (verifier(), knowing()):
        for character in alphabet.replace(token[-1], ""):
            refusal(token[:-1] + character, checker)


def test_padding_that_is_right_is_no_harm() -> None:
    """Some issuers pad the parts of their tokens, and sign them so."""
    content = ".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode() for part in ({"alg": "HS256"}, {"sub": "u1", "jti": "1234567"})
    )
    assert "=" in content
    signature = base64.urlsafe_b64encode(hmac.digest(SECRET.encode(), content.encode(), hashlib.sha256)).decode()
    assert verifier().principal(f"{content}.{signature}").user == "u1"


def test_headers_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """All tokens of one issuer begin alike: the header of one that held is remembered, so many of them, and one that was refused never."""
    monkeypatch.setattr(credentials, "REMEMBERED_HEADERS", 2)
    read: list[str] = []
    real = jwt.get_unverified_header

    def get_unverified_header(token: str) -> dict[str, Any]:
        read.append(token)
        return real(token)

    monkeypatch.setattr(jwt, "get_unverified_header", get_unverified_header)
    checker = verifier()
    for _ in range(2):
        refusal(signed({}, "another secret that is long enough, too", kid="k1"), checker)
    assert len(read) == 2
    for name in ("k1", "k1", "k2", "k3", "k3", "k1"):
        checker.principal(signed({"jti": str(len(read)), "name": name}, kid=name))
    assert len(read) == 2 + 4


def test_a_token_tells_what_it_is_called_and_since_when() -> None:
    """`jti` and `iat` are kept, so that a token can be revoked; `sid` in a token is the issuer's business, not a session of ours (S3)."""
    principal = verifier().principal(signed({"jti": "t1", "iat": NOW - 5, "sid": "s1"}))
    assert (principal.token_id, principal.issued_at, principal.session_id) == ("t1", NOW - 5, None)
    principal = verifier().principal(signed({"jti": ""}))
    assert (principal.token_id, principal.issued_at) == (None, None)


def test_a_token_is_not_from_the_future() -> None:
    """One that was issued later than now, by more than the leeway, is refused."""
    assert verifier().principal(signed({"iat": NOW + 4})).issued_at == NOW + 4
    assert "not valid yet" in str(refusal(signed({"iat": NOW + 60})))


def test_times_are_those_of_the_clock() -> None:
    """`exp` is over at its second and the leeway, `nbf` holds from its second less the leeway on (RFC 7519, 4.1.4 and 4.1.5)."""
    clock = Clock()
    token = signed({"exp": NOW + 100, "nbf": NOW + 50})
    holds: list[int] = []
    for second in range(-10, 120):
        clock.now = NOW + second
        with contextlib.suppress(Unauthenticated):
            verifier(clock=clock).principal(token)
            holds.append(second)
    assert holds == list(range(45, 105))


async def test_a_token_is_authenticated_as_it_is_checked() -> None:
    """Without keys that an issuer publishes there is nothing to wait for."""
    assert (await verifier().authenticate(signed({}))).user == "u1"
    with pytest.raises(Unauthenticated, match="signature"):
        await verifier().authenticate(signed({}, "another secret that is long enough, too"))


# ---- keys that an issuer publishes


async def test_a_withdrawn_key_takes_its_tokens_with_it(issuer: Issuer, checker: Checker) -> None:
    """A token that was checked before is refused once its key is no longer published; those of other keys hold (S2)."""
    issuer.publish("k1", "k2")
    old, new, other = issuer.token("k1"), issuer.token("k2"), issuer.token("k3")
    await checker.authenticate(old)
    first = await checker.authenticate(new)
    assert checker.verifier.principal(old) is await checker.authenticate(old)
    issuer.publish("k2", "k3")
    checker.clock.now += ASK_SECONDS
    await checker.authenticate(other)
    assert "a key that is not known" in await checker.refusal(old)
    assert await checker.authenticate(new) == first


async def test_tokens_without_a_kid_are_checked_with_the_keys_that_fit(issuer: Issuer, checker: Checker) -> None:
    """One key or several, named or not; a new one without any name is fetched as well, and a signature of nobody's is refused."""
    first, second, third = PRIVATE["ES256"], PRIVATE["EdDSA"], PRIVATE["RS256"]
    issuer.say(key_set(jwk_of(first, "ES256", kid="a"), jwk_of(second, "EdDSA")))
    assert (await checker.authenticate(signed({}, first, "ES256"))).user == "u1"
    assert (await checker.authenticate(signed({}, second, "EdDSA", kid="whatever"))).user == "u1"
    issuer.say(key_set(jwk_of(third, "RS256")))
    checker.clock.now += ASK_SECONDS
    assert (await checker.authenticate(signed({}, third, "RS256"))).user == "u1"
    assert "a key that is not known" in await checker.refusal(signed({}, first, "ES256"))


async def test_a_known_name_with_a_wrong_signature_asks_for_nothing(issuer: Issuer, checker: Checker) -> None:
    """A forged token that names a key that is here is refused at once, and so is one of another algorithm, by whatever name (RFC 8725)."""
    await checker.authenticate(issuer.token("k1"))
    checker.clock.now += ASK_SECONDS
    assert "signature" in await checker.refusal(signed({}, PRIVATE["ES256"], "ES256", kid="k1"))
    assert "signature" in await checker.refusal(signed({}, "another secret of more than 32 bytes", kid="k9"))
    assert issuer.requests == 1


async def test_a_known_key_is_checked_without_waiting(issuer: Issuer, checker: Checker) -> None:
    """A token whose key is here, remembered or not, is checked in one go: the coroutine never suspends, also while keys are fetched."""
    await checker.authenticate(issuer.token("k1"))
    issuer.gate.clear()
    checker.clock.now += ASK_SECONDS
    stranger = asyncio.create_task(checker.refusal(issuer.token("k2")))
    await wait_until(lambda: issuer.requests == 2, "the keys are asked for again")
    for token in (new := issuer.token("k1", sub="u2"), new):
        with pytest.raises(StopIteration) as ended:
            checker.authenticate(token).send(None)
        assert ended.value.value.user == "u2"
    issuer.gate.set()
    assert "a key that is not known" in await stranger


# ---- claims that we keep ourselves

NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"], exclude_characters="*,"), min_size=1, max_size=20).filter(is_name)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
TIMES = st.integers(0, LATEST_EXPIRY) | st.floats(0, LATEST_EXPIRY)
AUDIENCES = st.just("public") | st.builds("{}:{}".format, st.sampled_from(["user", "org", "entity", "resource:stream/1"]), NAMES)
CLAIMS = st.fixed_dictionaries(
    {"sub": NAMES},
    optional={
        "org": st.none() | st.just("") | NAMES,
        "entity": st.none() | NAMES,
        "roles": st.none() | st.lists(TEXTS, max_size=5),
        "audiences": st.lists(AUDIENCES.filter(is_audience), max_size=5),
        "exp": TIMES,
        "iat": TIMES,
        "jti": TEXTS | st.just(""),
        "sid": TEXTS,
    },
)


@given(CLAIMS)
def test_a_principal_is_kept_as_claims_without_loss(claims: dict[str, Any]) -> None:
    """Whoever a session, ticket or resume token speaks for comes back from its claims the same, by way of JSON and of BSON."""
    principal = principal_of(claims, ours=True)
    kept = claims_of(principal)
    assert principal_of(kept, ours=True) == principal
    assert principal_of(json.loads(json.dumps(kept)), ours=True) == principal
    assert principal_of(bson.decode(bson.encode(kept)), ours=True) == principal
    assert claims_of(principal_of(kept, ours=True)) == kept


def test_kept_claims_say_no_more_than_they_must() -> None:
    """What follows from who one is, is not kept beside it: nobody keeps the audience of an organisation that was taken away."""
    principal = principal_of(
        {"sub": "u1", "org": "o1", "audiences": ["user:u1", "org:o2"], "roles": ["b", "a"], "exp": 5, "sid": "s1"}, ours=True
    )
    assert claims_of(principal) == {"sub": "u1", "org": "o1", "roles": ["a", "b"], "audiences": ["org:o2"], "exp": 5.0, "sid": "s1"}
    assert claims_of(Principal("u1", audiences=frozenset({"public", "user:u1"}))) == {"sub": "u1"}
    assert principal_of({"sub": "u1", "sid": "s1"}).session_id is None


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
