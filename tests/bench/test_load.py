"""Tests of what the reports of generator and publisher are taken to mean."""

from __future__ import annotations

from tests.bench.load import Publishing, find_faults, find_remarks, find_slowness
from tests.bench.programs import Report


def report(**changes: float) -> Report:
    """Return the report of two clients that received ten events each, with some members changed."""
    sound = {"clients": 2, "complete": 1, "done": 2, "closed": 0, "fewest": 10, "most": 10}
    return {**sound, "holes": 0, "repeats": 0, "gaps": 0, "cpu_share": 0.5, **changes}


def test_a_sound_report_has_no_faults() -> None:
    """Everybody received everything, once and in order."""
    assert find_faults(report(), 10) == []


def test_what_is_lost_is_a_fault() -> None:
    """A client that did not get everything is seen by its count, and by the number of those that are done."""
    assert find_faults(report(complete=0, done=1, fewest=9), 10) == [
        "1 of 2 clients got everything",
        "a client received 9 events of 10",
    ]


def test_what_comes_twice_or_out_of_order_is_a_fault() -> None:
    """Holes, repeats, reported gaps and disconnected clients are each named."""
    faults = find_faults(report(most=11, holes=1, repeats=2, gaps=3, closed=4), 10)
    assert faults == [
        "a client received 11 events instead of 10",
        "1 events passed over",
        "2 events repeated or late",
        "3 gaps reported",
        "4 clients disconnected",
    ]


def test_slow_clients_may_have_another_count() -> None:
    """Whoever has stopped reading has received nothing, and that is no fault."""
    assert find_faults(report(fewest=0), 10, by_slow=0) == []
    assert find_faults(report(fewest=0, most=12), 10, by_slow=0)


def test_a_rate_that_was_not_held_is_a_fault() -> None:
    """A latency at half the rate is not the latency that was asked for."""
    assert find_slowness({"events_per_second": 99.0}, Publishing(rate=100)) == []
    assert find_slowness({"events_per_second": 50.0}, Publishing(rate=100)) == ["published 50/s instead of 100/s"]
    assert find_slowness({"events_per_second": 50.0}, Publishing(rate=0)) == []


def test_a_generator_at_its_limit_is_remarked() -> None:
    """A figure that the generator may have bounded is marked as doubtful."""
    assert find_remarks(report()) == []
    assert find_remarks(report(cpu_share=0.99)) == ["the generator used 99% of its core"]
