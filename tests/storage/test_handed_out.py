"""Secrets and their hashes, claims and their text."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.handed_out import MAX_CLAIMS_LENGTH, claims_of, hash_of, new_secret, require_life, text_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def test_secrets_are_long_random_and_safe_in_urls() -> None:
    """256 bits each, and no two alike."""
    secrets = {new_secret() for _ in range(1000)}
    assert len(secrets) == 1000
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}", secret) for secret in secrets)


def test_a_secret_is_known_by_its_sha256() -> None:
    """So that other programs can look it up as well."""
    secret = new_secret()
    assert hash_of(secret) == hashlib.sha256(secret.encode("ascii")).digest()


@pytest.mark.parametrize(
    "text", ["", "x" * 42, "x" * 44, "x" * 42 + "=", "x" * 42 + "\n", "x" * 42 + "é", "x" * 42 + "\ud800", "x" * 43 + "\n"]
)
def test_what_cannot_be_a_secret_has_no_hash(text: str) -> None:
    """Whatever clients send, it needs no question to MongoDB."""
    assert hash_of(text) is None


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_claims_come_back_as_they_were(claims: dict[str, Any]) -> None:
    """Large numbers, names with dots and dollars, and broken Unicode too."""
    assert claims_of(text_of(claims)) == claims


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"bytes", {1}, object()], ids=str)
def test_claims_that_json_cannot_hold_are_refused(value: object) -> None:
    """Before anything is written."""
    with pytest.raises(ValueError, match="claims as JSON can hold them"):
        text_of({"sub": "u1", "value": value})


def test_claims_that_contain_themselves_are_refused() -> None:
    """They have no text."""
    claims: dict[str, Any] = {}
    claims["self"] = claims
    with pytest.raises(ValueError, match="claims as JSON can hold them"):
        text_of(claims)


def test_claims_have_a_limit() -> None:
    """As long as the longest token, and not one character more."""
    longest = {"a": "x" * (MAX_CLAIMS_LENGTH - len('{"a":""}'))}
    assert len(text_of(longest)) == MAX_CLAIMS_LENGTH
    with pytest.raises(ValueError, match="at most 8192 characters of JSON, not 8193"):
        text_of({"a": longest["a"] + "x"})


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan")])
def test_a_life_is_longer_than_nothing_and_ends(seconds: float) -> None:
    """Anything else is a mistake of the caller's."""
    with pytest.raises(ValueError, match="seconds above 0"):
        require_life(seconds)
    assert require_life(0.5) == 0.5
