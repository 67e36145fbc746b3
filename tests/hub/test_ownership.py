"""Tests of hub/ownership.py: what has changed lately, and what follows from it for one principal."""

from __future__ import annotations

import pytest

from hub import ownership
from hub.ownership import OwnershipChanges, owned_audiences
from hub.principal import Principal, audience_of
from storage.owned import Owned

ME = Principal("u1", org="o1", entity="e1", audiences=frozenset({"public", "user:u1", "org:o1", "entity:e1", "user:u2"}))


def owned(number: int = 1, *owners: str, version: int = 1) -> Owned:
    """Return a resource with these owners."""
    return Owned(f"stream/{number}", owners, version)


def test_a_principal_owns_by_its_own_names() -> None:
    """Its user, organisation and entity; audiences that were granted beyond own nothing."""
    found = [owned(1, "user:u1"), owned(2, "org:o1"), owned(3, "entity:e1"), owned(4, "user:u2"), owned(5, "org:o2")]
    assert owned_audiences(found, [], ME) == {f"resource:stream/{number}" for number in (1, 2, 3)}


def test_events_about_it_have_its_audience() -> None:
    """What a resource is called, and the audience of its events, are two names of the same."""
    assert audience_of("stream/42") == "resource:stream/42"


def test_a_change_is_noted_unless_a_newer_one_is_known() -> None:
    """The log may tell of two changes in the wrong order, and a process may hear of one twice."""
    changes = OwnershipChanges()
    assert changes.note(owned(1, "user:u1", version=5))
    assert not changes.note(owned(1, "user:u1", version=5))
    assert not changes.note(owned(1, "user:u2", version=4))
    assert changes.note(owned(2, "user:u2", version=4))
    assert changes.note(owned(1, version=6))


def test_what_has_come_since_is_told_in_order() -> None:
    """Whoever asked MongoDB is told what has changed meanwhile, and nothing from before."""
    changes = OwnershipChanges()
    changes.note(owned(1))
    mark = changes.mark()
    assert list(changes.since(mark)) == []
    changes.note(owned(2))
    changes.note(owned(3))
    assert list(changes.since(mark)) == [owned(2), owned(3)]
    assert not changes.forgot(mark)


def test_more_changes_than_are_remembered_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asked so long ago asks again; nobody goes on with half of it."""
    monkeypatch.setattr(ownership, "REMEMBERED_CHANGES", 3)
    changes = OwnershipChanges()
    mark = changes.mark()
    for number in range(3):
        changes.note(owned(number))
    assert not changes.forgot(mark)
    assert [one.resource for one in changes.since(mark)] == ["stream/0", "stream/1", "stream/2"]
    changes.note(owned(3))
    assert changes.forgot(mark)
    assert not changes.forgot(changes.mark())
    assert changes.note(owned(0)), "its version is forgotten by now"


def test_changes_with_many_owners_take_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of such ones fewer are remembered, and who asked before those is told so."""
    monkeypatch.setattr(ownership, "REMEMBERED_OWNERS", 5)
    changes = OwnershipChanges()
    mark = changes.mark()
    changes.note(owned(1, "user:u1", "user:u2", "user:u3"))
    later = changes.mark()
    changes.note(owned(2, "user:u1", "user:u2"))
    assert not changes.forgot(mark)
    changes.note(owned(3, "user:u1"))
    assert changes.forgot(mark)
    assert [one.resource for one in changes.since(later)] == ["stream/2", "stream/3"]
    changes.lose()
    end = changes.mark()
    changes.note(owned(4, "user:u1", "user:u2", "user:u3", "user:u4", "user:u5"))
    assert not changes.forgot(end)


def test_after_a_hole_nobody_knows_enough() -> None:
    """What was asked before a part of the log was lost is worth nothing; what is asked afterwards is."""
    changes = OwnershipChanges()
    mark = changes.mark()
    changes.lose()
    assert changes.forgot(mark)
    after = changes.mark()
    changes.note(owned(1))
    assert not changes.forgot(after)
    assert list(changes.since(after)) == [owned(1)]


def test_found_and_changed_make_what_is_owned() -> None:
    """Of what was found and what has changed since, the higher version of each resource counts."""
    found = [owned(1, "user:u1", version=5), owned(2, "user:u1", version=5), owned(3, "user:u1", version=5)]
    changes = [owned(1, "user:u2", version=6), owned(2, "user:u2", version=4), owned(4, "org:o1"), owned(5, "user:u2")]
    assert owned_audiences(found, changes, ME) == {"resource:stream/2", "resource:stream/3", "resource:stream/4"}
