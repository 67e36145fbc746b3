"""Tests of hub/principal.py: what an audience is, and who is in which."""

from __future__ import annotations

import pytest

from hub.principal import MAX_AUDIENCE_LENGTH, Principal, audiences_of, is_audience


@pytest.mark.parametrize(
    "token",
    ["public", "user:u1", "org:o:1", "entity:é", "resource:stream/42", "resource:a/b/c", "user:" + "x" * (MAX_AUDIENCE_LENGTH - 5)],
)
def test_five_kinds_of_audience_are_accepted(token: str) -> None:
    """Everybody, a user, an organisation, an entity and a resource are audiences."""
    assert is_audience(token)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "publi",
        "public:x",
        "user:",
        "user",
        "team:x",
        "user:a b",
        "user:a,b",
        "resource:stream",
        "resource:/42",
        "resource:a/",
        "user:a\n",
    ],
)
def test_anything_else_is_no_audience(token: str) -> None:
    """A kind that is unknown, a name that is missing, and white space or commas in one are refused."""
    assert not is_audience(token)


def test_audience_has_a_greatest_length() -> None:
    """An audience longer than the limit is refused."""
    assert not is_audience("user:" + "x" * (MAX_AUDIENCE_LENGTH - 4))


def test_principal_is_in_its_own_audiences_and_those_granted() -> None:
    """User, organisation, entity and `public` follow from who one is; further ones are added."""
    everything = audiences_of("u", "o", "e", frozenset({"resource:stream/1"}))
    assert everything == {"public", "user:u", "org:o", "entity:e", "resource:stream/1"}
    assert audiences_of("u", None, "", frozenset()) == {"public", "user:u"}


def test_principal_has_a_role_if_it_has_one_of_them() -> None:
    """One of the roles asked for is enough."""
    principal = Principal("u", roles=frozenset({"publisher"}))
    assert principal.has_role("admin", "publisher")
    assert not principal.has_role("admin")
