"""Tests of hub/principal.py: what an audience is, and who is in which."""

from __future__ import annotations

import pytest

from hub.principal import ANONYMOUS, MAX_AUDIENCE_LENGTH, PUBLIC, Principal, audiences_of, is_audience


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


def test_an_agent_has_no_use_of_its_other_roles() -> None:
    """It may only subscribe, so wherever a role is asked for, it has none but its own (S5)."""
    agent = Principal("u", roles=frozenset({"agent", "admin", "publisher"}))
    assert agent.has_role("agent")
    assert agent.has_role("admin", "agent")
    assert not agent.has_role("admin", "publisher")


def test_a_principal_is_its_user_organisation_and_entity_and_nothing_it_was_granted() -> None:
    """By these names it owns resources."""
    granted = frozenset({"public", "user:u", "user:v", "resource:r/1"})
    assert list(Principal("u", audiences=granted).names()) == ["user:u"]
    assert list(Principal("u", "o", "e", audiences=granted).names()) == ["user:u", "org:o", "entity:e"]


def test_a_credential_of_the_same_one_may_differ_in_everything_else() -> None:
    """User, organisation and entity make who one is; other roles than agent, times and what was granted do not."""
    one = Principal("u", "o", "e", frozenset({"user"}), expires_at=1.0, token_id="t1")
    assert one.is_same_as(Principal("u", "o", "e", frozenset({"admin"}), expires_at=2.0))
    for other in (Principal("v", "o", "e"), Principal("u", "p", "e"), Principal("u", "o", None), Principal("u", None, "e")):
        assert not one.is_same_as(other)


def test_an_agent_is_not_the_user_it_acts_for() -> None:
    """Neither goes on with the other's credential: an agent may disconnect nobody, and does not become more than one (S5)."""
    user, agent = Principal("u", "o"), Principal("u", "o", roles=frozenset({"agent"}))
    assert not user.is_same_as(agent)
    assert not agent.is_same_as(user)
    assert agent.is_same_as(Principal("u", "o", roles=frozenset({"agent", "user"})))


def test_whoever_is_nobody_is_in_the_audience_of_everybody_only() -> None:
    """Without a credential there is no name, and nothing that could be owned by it."""
    assert ANONYMOUS.is_anonymous
    assert not Principal("u1").is_anonymous
    assert ANONYMOUS.audiences == {PUBLIC}
    assert list(ANONYMOUS.names()) == []
    assert not ANONYMOUS.has_role("admin")
