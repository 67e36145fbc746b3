"""Tests of storage/owned.py: to whom a resource belongs."""

from __future__ import annotations

import pytest

from storage.owned import Owned


@pytest.mark.parametrize(
    ("names", "owner"),
    [(["user:u1"], True), (["user:u3", "org:o1"], True), (["user:o1", "org:u1"], False), (["user:u"], False), ([], False)],
)
def test_a_resource_belongs_to_whoever_has_the_name_of_an_owner(names: list[str], owner: bool) -> None:
    """One of several names is enough; a part of a name is none."""
    assert Owned("stream/1", ("user:u1", "org:o1"), 1).belongs_to(iter(names)) is owner
    assert not Owned("stream/1", (), 2).belongs_to(names)
