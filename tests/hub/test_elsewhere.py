"""Tests of hub/elsewhere.py: what others have is remembered as it was heard last, and only of those who matter here."""

from __future__ import annotations

import pytest

from hub.elsewhere import Elsewhere

TOLD = {"a": 100, "b": 100, "c": 100}  # everything was told by all


@pytest.fixture
def elsewhere() -> Elsewhere:
    one = Elsewhere()
    one.know("u1")
    return one


@pytest.mark.parametrize(
    ("here", "there", "limit", "surplus"),
    [
        ([1, 2, 3], [], 3, 0),
        ([1, 2, 3], [], 2, 1),
        ([1, 2, 3], [4], 3, 1),
        ([1, 2, 3], [4, 5, 6], 3, 3),
        ([4, 5, 6], [1, 2, 3], 3, 0),
        ([1, 3, 5], [2, 4, 6], 3, 2),
        ([1], [2], 3, 0),
        ([], [1, 2, 3], 2, 0),
    ],
)
def test_the_newest_stay(elsewhere: Elsewhere, here: list[int], there: list[int], limit: int, surplus: int) -> None:
    """As many as a user may have, over all servers."""
    elsewhere.hear_user("u1", "b", there)
    assert elsewhere.surplus("u1", "a", here, limit, TOLD) == surplus
    assert elsewhere.user("u1") == len(there)


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5])
def test_of_those_opened_at_once_everybody_keeps_the_same(limit: int) -> None:
    """Three servers with two connections each of one millisecond: together they keep exactly as many as may stay."""
    surplus = 0
    for own in ("a", "b", "c"):
        elsewhere = Elsewhere()
        elsewhere.know("u1")
        for other in {"a", "b", "c"} - {own}:
            elsewhere.hear_user("u1", other, [7, 7])
        surplus += elsewhere.surplus("u1", own, [7, 7], limit, TOLD)
    assert surplus == 6 - limit


@pytest.mark.parametrize(("told_at", "surplus"), [(5, 0), (6, 0), (7, 1), (100, 1)])
def test_what_came_after_another_server_told_is_judged_later(elsewhere: Elsewhere, told_at: int, surplus: int) -> None:
    """Until then a connection there may have ended, and be the one that was opened here again at 7."""
    elsewhere.hear_user("u1", "b", [5])
    assert elsewhere.surplus("u1", "a", [1, 2, 7], 3, {"b": told_at}) == surplus


def test_only_servers_where_the_user_is_are_waited_for(elsewhere: Elsewhere) -> None:
    """One that has told nothing for long holds nobody else up."""
    elsewhere.hear_user("u1", "b", [5])
    assert elsewhere.surplus("u1", "a", [1], 1, {"b": 9, "c": 0}) == 1


def test_the_last_that_was_heard_counts(elsewhere: Elsewhere) -> None:
    """A server's numbers take the place of those before, and none is none."""
    elsewhere.hear_user("u1", "b", [5, 6])
    elsewhere.hear_user("u1", "b", [7])
    assert elsewhere.surplus("u1", "a", [1, 2], 2, TOLD) == 1
    elsewhere.hear_user("u1", "b", [])
    elsewhere.hear_user("u1", "c", [])
    assert elsewhere.surplus("u1", "a", [1, 2], 2, TOLD) == 0


def test_only_users_that_are_known_are_remembered(elsewhere: Elsewhere) -> None:
    """What others have of somebody who is not here costs no memory."""
    elsewhere.hear_user("u2", "b", [1])
    assert (elsewhere.knows("u1"), elsewhere.knows("u2"), len(elsewhere)) == (True, False, 1)
    elsewhere.drop("u1")
    elsewhere.drop("u2")
    assert len(elsewhere) == 0


def test_knowing_a_user_twice_forgets_nothing(elsewhere: Elsewhere) -> None:
    """A second connection of the same user is no reason to ask again."""
    elsewhere.hear_user("u1", "b", [5])
    elsewhere.know("u1")
    assert elsewhere.surplus("u1", "a", [1], 1, TOLD) == 1


def test_organisations_are_summed_over_servers(elsewhere: Elsewhere) -> None:
    """Those that have none left anywhere cost no memory."""
    elsewhere.hear_org("o1", "b", 3)
    elsewhere.hear_org("o1", "c", 4)
    elsewhere.hear_org("o1", "b", 2)
    assert (elsewhere.org("o1"), elsewhere.org("o2")) == (6, 0)
    elsewhere.hear_org("o1", "b", 0)
    elsewhere.hear_org("o1", "c", 0)
    assert (elsewhere.org("o1"), len(elsewhere)) == (0, 1)


def test_servers_that_are_gone_do_not_count(elsewhere: Elsewhere) -> None:
    """Neither for users nor for organisations; the others go on counting."""
    for server in ("b", "c"):
        elsewhere.hear_user("u1", server, [5])
        elsewhere.hear_org("o1", server, 5)
    elsewhere.know("u2")
    elsewhere.hear_user("u2", "c", [5])
    elsewhere.keep({"c", "d"})
    assert elsewhere.surplus("u2", "a", [1], 1, TOLD) == 1
    assert elsewhere.surplus("u1", "a", [1, 2], 2, TOLD) == 1
    assert elsewhere.org("o1") == 5
    elsewhere.keep(set())
    assert elsewhere.surplus("u1", "a", [1, 2], 2, TOLD) == 0
    assert (elsewhere.org("o1"), elsewhere.knows("u1")) == (0, True)
    assert elsewhere.surplus("u2", "a", [1], 1, TOLD) == 0
    elsewhere.clear()
    assert len(elsewhere) == 0
