"""The one error of the benchmarks."""

from __future__ import annotations


class BenchError(Exception):
    """A measurement that could not be made; the message says what was expected and what came."""
