"""Tests of the arithmetic of the measures."""

from __future__ import annotations

import pytest

from tests.bench.measures import slope


def test_the_slope_is_that_of_the_nearest_line() -> None:
    """Noise around a line does not change its slope when it is the same on both sides."""
    assert slope([(0, 1), (1, 3), (2, 5)]) == pytest.approx(2)
    assert slope([(0, 10), (1, 12), (2, 12), (3, 10)]) == pytest.approx(0)


def test_points_without_a_line_have_no_slope() -> None:
    """One sample, or several at the same moment, say nothing about growth."""
    assert slope([]) == 0
    assert slope([(5, 100)]) == 0
    assert slope([(5, 100), (5, 200)]) == 0
