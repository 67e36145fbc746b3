"""Tests of channels/values.py: numbers stay exact."""

from __future__ import annotations

import pytest

from channels.values import decimal_of, exact_sum


@pytest.mark.parametrize(
    ("numbers", "total"),
    [
        ([], "0"),
        (["0.1", "0.2"], "0.3"),
        ([0.1, 0.2, 1], "1.3"),
        (["1" + "0" * 60, "0." + "0" * 59 + "1"], "1" + "0" * 60 + "." + "0" * 59 + "1"),
        (["-5.50", "5.5"], "0.00"),
        ([1e21], "1000000000000000000000"),
    ],
)
def test_a_sum_loses_no_digit(numbers: list[str | int | float], total: str) -> None:
    """However far apart they are, and never as a power of ten."""
    assert exact_sum(numbers) == total


def test_a_float_is_what_was_written() -> None:
    """A number of JSON is the shortest text that makes it, not its binary neighbour."""
    assert str(decimal_of(0.1)) == "0.1"
