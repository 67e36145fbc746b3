"""Tests of hub/revocations.py: which credentials hold no longer."""

from __future__ import annotations

import pytest

from hub.principal import Principal
from hub.revocations import Revocations
from storage.revoked import KINDS, Revocation


def revoked(*every: Revocation) -> Revocations:
    """Return these revocations, in force."""
    found = Revocations()
    for one in every:
        found.add(one)
    return found


@pytest.mark.parametrize(
    ("kind", "id", "principal"),
    [
        ("token", "t1", Principal("u1", token_id="t1")),
        ("session", "s1", Principal("u1", session_id="s1")),
        ("user", "u1", Principal("u1", issued_at=50.0)),
        ("org", "o1", Principal("u1", org="o1", issued_at=50.0)),
    ],
)
def test_each_kind_covers_what_it_names(kind: str, id: str, principal: Principal) -> None:
    """A token by its `jti`, a session by its id, and what was issued to a user or an organisation; nothing of the same name otherwise."""
    assert revoked(Revocation(kind, id, 100.0, 200.0)).cover(principal)
    assert not revoked(Revocation(kind, "other", 100.0, 200.0)).cover(principal)
    others = revoked(*(Revocation(other, id, 100.0, 200.0) for other in KINDS if other != kind))
    assert not others.cover(principal)
    assert not others.cover(Principal("somebody"))


@pytest.mark.parametrize("kind", ["user", "org"])
@pytest.mark.parametrize(("issued_at", "covered"), [(99.0, True), (100.0, True), (100.5, False), (None, True)])
def test_what_was_issued_later_holds(kind: str, issued_at: float | None, covered: bool) -> None:
    """A user that signs in again is welcome; a credential that does not say when it was issued is taken for an old one."""
    principal = Principal("x", org="x", issued_at=issued_at)
    assert revoked(Revocation(kind, "x", 100.0, 200.0)).cover(principal) is covered


def test_of_two_revocations_both_count() -> None:
    """In whatever order they come, neither time goes back."""
    late, early = Revocation("user", "u1", 100.0, 300.0), Revocation("user", "u1", 90.0, 400.0)
    for order in ((late, early), (early, late)):
        both = revoked(*order)
        assert len(both) == 1
        assert both.cover(Principal("u1", issued_at=100.0))
        both.forget(350.0)
        assert both.cover(Principal("u1", issued_at=100.0))


def test_what_is_over_is_forgotten() -> None:
    """After `until` no credential can be concerned, so nothing is kept of it."""
    known = revoked(Revocation("token", "t1", 0.0, 200.0), Revocation("session", "s1", 0.0, 201.0))
    known.forget(200.0)
    assert len(known) == 1
    assert not known.cover(Principal("u1", token_id="t1"))
    assert known.cover(Principal("u1", session_id="s1"))


def test_a_kind_of_a_newer_version_means_nothing() -> None:
    """A process that is older than another is not stopped by what only that one understands."""
    known = revoked(Revocation("device", "d1", 0.0, 200.0))
    assert len(known) == 0
