"""Tests of handlers/buckets.py: nobody gets more than rate and burst allow, everybody gets that much, and memory is bounded."""

from __future__ import annotations

import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from handlers.buckets import FULL, Allowance, Buckets

SLACK = 1e-4  # tokens, for what rounding does to times


class ManualClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still until the test moves it."""
    return ManualClock()


def test_the_burst_is_allowed_and_one_more_is_not(clock: ManualClock) -> None:
    """A new name may take the whole burst at once; one more is told when the next token is there."""
    buckets = Buckets(2.0, 3, clock)
    assert [buckets.take("a") for _ in range(3)] == [0.0, 0.0, 0.0]
    assert buckets.take("a") == pytest.approx(0.5)


def test_coming_back_when_told_to_is_allowed(clock: ManualClock) -> None:
    """After the wait that was told there is exactly one token, and then a wait again."""
    buckets = Buckets(5 / 60, 20, clock)
    for _ in range(20):
        assert buckets.take("a") == 0.0
    for _ in range(50):
        wait = buckets.take("a")
        assert wait > 0
        clock.now += wait
        assert buckets.take("a") == 0.0


def test_a_refusal_costs_nothing(clock: ManualClock) -> None:
    """Whoever is refused a hundred times waits no longer than who was refused once."""
    buckets = Buckets(1.0, 1, clock)
    buckets.take("a")
    assert {buckets.take("a") for _ in range(100)} == {1.0}


def test_names_do_not_touch_each_other(clock: ManualClock) -> None:
    """One name's empty bucket leaves all others theirs."""
    buckets = Buckets(1.0, 1, clock)
    buckets.take("a")
    assert buckets.take("b") == 0.0
    assert buckets.take("a") > 0


def test_looking_takes_nothing(clock: ManualClock) -> None:
    """Asking how long to wait changes nothing, also for a name that was never seen."""
    buckets = Buckets(1.0, 1, clock)
    assert (buckets.wait("a"), len(buckets)) == (0.0, 0)
    buckets.take("a")
    assert buckets.wait("a") == buckets.wait("a") == 1.0
    assert buckets.wait("b", 3) == 0.0


def test_what_costs_more_than_the_burst_is_taken_from_a_full_bucket_and_owed(clock: ManualClock) -> None:
    """A batch larger than the burst is possible, but only from a full bucket, and it is paid for afterwards."""
    buckets = Buckets(10.0, 20, clock)
    buckets.take("a")
    assert buckets.take("a", 100) == pytest.approx(0.1)
    clock.now += 0.1
    assert buckets.take("a", 100) == 0.0
    assert buckets.take("a") == pytest.approx((100 + 1 - 20) / 10)


@pytest.mark.parametrize(("rate", "burst"), [(0, 5), (5, 0), (sys.maxsize / 60, 20), (5, sys.maxsize), (-1, 1)])
def test_without_a_limit_all_is_allowed_and_nothing_remembered(rate: float, burst: float, clock: ManualClock) -> None:
    """A rate or burst of 0, or the number that stands for no limit, allows everything."""
    buckets = Buckets(rate, burst, clock)
    assert {buckets.take("a", 1e9) for _ in range(100)} == {0.0}
    assert buckets.wait("a") == 0.0
    assert len(buckets) == 0


def test_a_burst_below_one_still_lets_one_through(clock: ManualClock) -> None:
    """A bucket that could not even hold one token would refuse everything for ever."""
    buckets = Buckets(1.0, 0.5, clock)
    assert buckets.take("a") == 0.0
    assert buckets.take("a") == pytest.approx(1.0)


steps = st.lists(st.tuples(st.floats(0, 30), st.sampled_from([1.0, 1.0, 2.0, 7.5])), max_size=60)


@given(steps, st.floats(0.01, 1000), st.floats(1, 50))
@example([(0.0, 1.0)] * 30, 1 / 12, 20.0)
def test_an_allowance_is_a_bucket_of_tokens(steps: list[tuple[float, float]], rate: float, burst: float) -> None:
    """What is allowed, and how long is to be waited, is what counting tokens one by one gives."""
    allowance, full_at = Allowance(rate, burst), FULL
    now, tokens = 1000.0, burst
    for seconds, cost in steps:
        now += seconds
        tokens = min(burst, tokens + seconds * rate)
        wait, full_at = allowance.spend(full_at, now, cost)
        missing = min(cost, burst) - tokens
        if wait == 0.0:
            assert missing <= SLACK * rate + SLACK
            tokens -= cost
        else:
            assert wait == pytest.approx(missing / rate, abs=SLACK + SLACK / rate)


@given(st.lists(st.tuples(st.floats(0, 3), st.sampled_from("abcdefgh")), max_size=200), st.integers(1, 4))
def test_forgetting_the_full_is_never_noticed(steps: list[tuple[float, str]], burst: int) -> None:
    """With room for all names, a bucket that was forgotten gives what one that is kept for ever would."""
    clock = ManualClock()
    buckets, allowance = Buckets(1.0, burst, clock), Allowance(1.0, burst)
    kept: dict[str, float] = {}
    for seconds, name in steps:
        clock.now += seconds
        wait, kept[name] = allowance.spend(kept.get(name, FULL), clock.now)
        assert buckets.take(name) == wait


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(0, 40)), max_size=300), st.integers(1, 10))
def test_memory_is_bounded(steps: list[tuple[float, int]], most: int) -> None:
    """However many names there are, no more than `most` are remembered, and each is remembered once."""
    clock = ManualClock()
    buckets = Buckets(0.5, 5, clock, most=most)
    for seconds, name in steps:
        clock.now += seconds
        buckets.take(str(name))
        assert len(buckets) == len(buckets._heap) <= most


def test_full_buckets_are_forgotten(clock: ManualClock) -> None:
    """Once all are full again, a few calls later only the callers' own are left."""
    buckets = Buckets(1.0, 5, clock)
    for number in range(1000):
        buckets.take(str(number))
    clock.now += 10
    for _ in range(500):
        buckets.take("a")
    assert len(buckets) == 1


def test_a_flood_of_new_names_drives_out_itself(clock: ManualClock) -> None:
    """Whoever has used up his tokens stays refused, however many new names come by."""
    buckets = Buckets(0.001, 5, clock, most=100)
    for _ in range(5):
        buckets.take("greedy")
    for number in range(10_000):
        buckets.take(f"new {number}")
    assert buckets.take("greedy") > 0
    assert len(buckets) == 100


def test_among_many_that_are_not_what_was_noted_one_still_goes(clock: ManualClock) -> None:
    """When all buckets were used since they came, the search for the fullest ends after some tries, and room is made."""
    buckets = Buckets(0.001, 5, clock, most=50)
    for _ in range(2):
        for number in range(50):
            buckets.take(str(number))
    buckets.take("one more")
    assert len(buckets) == 50
    assert [buckets.take("one more") == 0.0 for _ in range(5)].count(True) == 4
