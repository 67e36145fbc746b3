"""Tests of what is read from a server's output and from its process status."""

from __future__ import annotations

import pytest

from tests.bench.errors import BenchError
from tests.bench.server_process import find_port, read_kib


def test_the_port_is_read_from_the_end_of_a_line() -> None:
    """Whatever stands before it, in text or as a JSON line's neighbour."""
    output = "starting\n12:00:01 INFO server listening on http://127.0.0.1:43817\nmore\n"
    assert find_port(output) == 43817


@pytest.mark.parametrize(
    "output",
    ["", "starting\n", "listening on http://127.0.0.1:", "listening on http://127.0.0.1:80 soon\n"],
)
def test_there_is_no_port_before_the_line_is_complete(output: str) -> None:
    """Other lines, and the beginning of the right one, are not taken for it."""
    assert find_port(output) is None


def test_memory_is_read_in_kib() -> None:
    """The line of the size that was asked for, not of another whose name begins alike."""
    assert read_kib("VmRSS2:\t  7 kB\nVmHWM:\t   9000 kB\nVmRSS:\t   8432 kB\n", "VmRSS") == 8432


def test_a_status_without_the_size_is_an_error() -> None:
    """A process that is ending has no memory any more; that must not count as 0."""
    with pytest.raises(BenchError, match="VmRSS"):
        read_kib("State:\tZ (zombie)\n", "VmRSS")
