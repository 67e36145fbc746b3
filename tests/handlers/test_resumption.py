"""Tests of handlers/resumption.py: what is sealed is what is opened, and nothing else opens."""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

import pytest

from handlers.resumption import KEY_BYTES, MAX_LENGTH, NONCE_BYTES, Resumption, Sealer
from hub.connection import Connection
from hub.errors import TokenExpired, Unauthenticated
from hub.formats import SSE
from hub.interest import Interest
from hub.principal import ANONYMOUS, PUBLIC, Principal
from hub.subscriptions import Bound, Subscription, make_subscription
from hub.terms import Terms
from tests.hub.fakes import ManualClock, RecordingSink
from tests.hub.test_connection import Owner

KEY = bytes(range(KEY_BYTES))
SECONDS = 100.0
RICH = frozenset(
    {
        make_subscription(
            "orders.*", ["order:placed"], ["s1"], {"minAmount": "10.5", "maxAmount": 1 << 70}, ["stream/1"], ["k1", "a key, of any text"]
        ),
        make_subscription("ä.**", [], [], {}),
    }
)


def connection(principal: Principal, subscriptions: frozenset[Subscription] = RICH) -> Connection:
    """Return a connection with these subscriptions."""
    one = Connection("c1", principal, SSE, RecordingSink(SSE, ManualClock()), Owner())
    one.interest = Interest(principal.audiences, subscriptions, SSE)
    return one


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def sealer(clock: ManualClock) -> Sealer:
    return Sealer(KEY, seconds=SECONDS, time=clock.time)


def sealed(sealer: Sealer, principal: Principal, subscriptions: frozenset[Subscription] = RICH) -> str:
    """Return a token, which there must be."""
    token = sealer.seal(connection(principal, subscriptions), "5-abc")
    assert token is not None
    return token


def test_what_is_opened_is_what_was_sealed(sealer: Sealer) -> None:
    """Whom it is for with all that is known of the credential, every filter, and the position (S1)."""
    audiences = frozenset({PUBLIC, "user:u1", "org:o1", "entity:e1", "resource:stream/9"})
    principal = Principal("u1", "o1", "e1", frozenset({"user", "x"}), audiences, 4e9, 1.5, "t1", "s1")
    assert sealer.open(sealed(sealer, principal)) == Resumption(principal, RICH, "5-abc", "stream")


def test_it_names_the_channel_of_its_connection(sealer: Sealer) -> None:
    """So that it does not open another one."""
    one = connection(Principal("u1"))
    one.terms = Terms("orders")
    token = sealer.seal(one, "5-abc")
    assert token is not None
    assert sealer.open(token).channel == "orders"


def test_nobody_comes_back_as_nobody(sealer: Sealer) -> None:
    """Whoever came without a credential has a token, too, and it makes nobody known."""
    opened = sealer.open(sealed(sealer, ANONYMOUS))
    assert (opened.principal, opened.subscriptions) == (ANONYMOUS, RICH)


def test_tokens_from_before_keys_could_be_asked_for_stay_good(sealer: Sealer) -> None:
    """They say nothing of keys, and select whatever the key."""

    class Old(NamedTuple):
        topic: str
        types: frozenset[str] = frozenset()
        sources: frozenset[str] = frozenset()
        bounds: tuple[Bound, ...] = ()
        audiences: frozenset[str] = frozenset()

    old = Old("a.*", frozenset({"x"}), bounds=(Bound("n", Decimal(1), None),))
    token = sealed(sealer, Principal("u1"), frozenset({old}))  # type: ignore[arg-type]
    assert sealer.open(token).subscriptions == {Subscription("a.*", frozenset({"x"}), bounds=(Bound("n", Decimal(1), None),))}


def test_it_can_stand_in_a_url_and_tells_nothing(sealer: Sealer) -> None:
    """Letters, digits, `-` and `_`; and no two are alike."""
    principal = Principal("somebody", audiences=frozenset({PUBLIC, "user:somebody"}))
    first, second = sealed(sealer, principal), sealed(sealer, principal)
    assert first != second
    assert first.replace("-", "").replace("_", "").isalnum()
    assert "somebody" not in first


def test_no_altered_token_opens(sealer: Sealer) -> None:
    """Whatever character is changed, added or left out, also where only its spare bits differ."""
    for user in ("u", "uu", "uuu"):  # three lengths: the last character has two, four or no spare bits
        token = sealed(sealer, Principal(user), frozenset())
        altered = [token[:index] + other + token[index + 1 :] for index, old in enumerate(token) for other in "AB_!ä" if other != old]
        last = [token[:-1] + chr(code) for code in range(33, 127) if chr(code) != token[-1]]
        for one in (*altered, *last, token + "=", token + "A", token + "!", "!" + token, token[1:], token[:-1], " " + token):
            with pytest.raises(Unauthenticated):
                sealer.open(one)
        assert sealer.open(token).principal.user == user


@pytest.mark.parametrize("token", ["", "x", "AAAA", "A" * MAX_LENGTH, "A" * 100_000, "é", "\ud800", "=", "." * 40])
def test_what_never_was_a_token_does_not_open(sealer: Sealer, token: str) -> None:
    """However long or odd."""
    with pytest.raises(Unauthenticated, match="does not hold"):
        sealer.open(token)


def test_what_was_sealed_elsewhere_does_not_open(sealer: Sealer, clock: ManualClock) -> None:
    """Another key is another installation."""
    foreign = Sealer(bytes(KEY_BYTES), seconds=SECONDS, time=clock.time)
    with pytest.raises(Unauthenticated):
        sealer.open(sealed(foreign, Principal("u1")))
    same = Sealer(KEY, seconds=1.0, time=clock.time)
    assert same.open(sealed(sealer, Principal("u1"))).principal.user == "u1"


@pytest.mark.parametrize("ends_in", [None, 40.0, 1000.0, -1.0])
def test_it_is_good_for_its_time_and_no_longer_than_its_credential(sealer: Sealer, clock: ManualClock, ends_in: float | None) -> None:
    """It gives no minute more than the credential had (S1)."""
    expires_at = clock.time() + ends_in if ends_in is not None else None
    token = sealed(sealer, Principal("u1", expires_at=expires_at))
    life = SECONDS if ends_in is None else min(SECONDS, ends_in)
    clock.now += life - 0.001
    if life > 0:
        assert sealer.open(token).principal.expires_at == expires_at
    clock.now += 0.001
    with pytest.raises(TokenExpired):
        sealer.open(token)


def test_one_that_would_be_too_long_for_a_url_is_not_made(sealer: Sealer) -> None:
    """The connection goes on without; up to the limit there is one, and it opens."""
    made = []
    for count in range(1, 500, 3):
        token = sealer.seal(connection(Principal("u1"), frozenset(Subscription(f"topic{number}") for number in range(count))), "5-abc")
        if token is None:
            break
        assert len(sealer.open(token).subscriptions) == count
        made.append(len(token))
    assert token is None
    assert MAX_LENGTH - 200 < made[-1] <= MAX_LENGTH


def test_a_nonce_is_asked_for_each_token(clock: ManualClock) -> None:
    """As many random bytes as the cipher needs."""
    asked = []

    def nonce(size: int) -> bytes:
        asked.append(size)
        return bytes(size)

    sealer = Sealer(KEY, seconds=SECONDS, time=clock.time, make_nonce=nonce)
    sealed(sealer, Principal("u1"))
    sealed(sealer, Principal("u1"))
    assert asked == [NONCE_BYTES, NONCE_BYTES]
