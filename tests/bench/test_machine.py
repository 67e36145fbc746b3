"""Tests of the choice of cores and of what is said about the machine."""

from __future__ import annotations

from tests.bench.machine import Cores, Usage, busy_ticks, choose_cores, describe


def test_the_server_gets_the_first_core_and_the_load_the_second() -> None:
    """The server and what puts load on it do not take each other's time."""
    assert choose_cores({3, 1, 2}) == Cores(server=1, load=2)
    assert not choose_cores({0, 1}).shared


def test_one_core_is_shared_and_the_page_says_so() -> None:
    """Figures from a machine with one core are marked as such."""
    cores = choose_cores({5})
    assert cores == Cores(server=5, load=5)
    assert any("one core only" in line for line in describe(cores))


def test_the_machine_is_described_without_gaps() -> None:
    """Commit, date, cores, memory, kernel and Python are all found."""
    commit, hardware, software, load = describe(Cores(server=0, load=1))
    assert commit.startswith("commit ")
    assert "kB of memory, Linux " in hardware
    assert software.startswith("Python 3.")
    assert load.startswith("load average")


def test_a_core_is_busy_when_it_is_not_idle_and_not_waiting() -> None:
    """Time that the host gave to others counts as busy: it was not ours."""
    assert busy_ticks("cpu  1 2 4 1000 2000 8 16 32 64 128\ncpu0 9 9 9 9 9 9 9 9 9 9\n") == 63


def test_what_others_used_is_what_was_not_ours() -> None:
    """Half a core for ten seconds, next to ours; never less than nothing, as clocks tick coarsely."""
    before = Usage(at=100, everybody=1000, ourselves=50)
    assert Usage(at=110, everybody=1020, ourselves=65).others_since(before) == 0.5
    assert Usage(at=110, everybody=1015, ourselves=65.1).others_since(before) == 0


def test_usage_is_read_from_the_machine() -> None:
    """Everybody has used at least as much as we have, give or take the coarse ticks of the clock."""
    usage = Usage.now()
    assert usage.everybody >= usage.ourselves - 1
