"""Tests of the table of the numbers and of choosing from it."""

from __future__ import annotations

import pytest

from tests.bench.workloads import WORKLOADS, Workload, choose


def test_the_table_holds_every_number() -> None:
    """All but the soak are there, in order."""
    numbers = list(dict.fromkeys(workload.number for workload in WORKLOADS))
    assert numbers == [f"N{number}" for number in range(1, 15) if number != 13]


@pytest.mark.parametrize("workload", choose([], soak_seconds=60), ids=lambda workload: workload.number)
def test_what_is_compared_with_the_limit_has_one(workload: Workload) -> None:
    """A figure that is judged by the limit, or shown beside it, comes from a workload that measures it."""
    judged = [figure for figure in workload.figures if figure.times_the_limit]
    compared = [figure for figure in workload.figures if figure.limit_key]
    assert all(figure in compared for figure in judged)
    assert workload.limit or not compared


def test_without_names_everything_but_the_soak_is_chosen() -> None:
    """N13 takes as long as it is told to, and without that it is left out."""
    assert choose([], soak_seconds=0) == list(WORKLOADS)
    assert choose([], soak_seconds=3600)[-1].title == "N4 for 3600 s"


def test_names_choose_in_the_order_of_the_table() -> None:
    """A number with two workloads chooses both."""
    assert [workload.number for workload in choose(["N10", "N2"], 0)] == ["N2", "N10", "N10"]


def test_unknown_names_are_refused() -> None:
    """The message says which there are, and what N13 needs."""
    with pytest.raises(ValueError, match=r"expected some of N1 .* N14, got N99$"):
        choose(["N1", "N99"], 0)
    with pytest.raises(ValueError, match="N13 needs --soak-seconds"):
        choose(["N13"], 0)
