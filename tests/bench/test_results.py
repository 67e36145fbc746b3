"""Tests of medians, ratios, verdicts and the table."""

from __future__ import annotations

import pytest

from tests.bench.load import Outcome
from tests.bench.results import Result, judge, page, show, table
from tests.bench.workloads import Figure, Workload

SPEED = Figure("speed", "speed", "/s", 5, higher_is_better=True, times_the_limit=True, limit_key="speed")
DELAY = Figure("delay", "delay", "ms", 15)
SEEN = Figure("seen", "seen", "")
WORK = Workload("N0", "a work", lambda bench: Outcome({}), (SPEED, DELAY, SEEN))


def result(*runs: tuple[float, float], faults: tuple[str, ...] = ()) -> Result:
    """Return a result of runs with some speed and delay, and a limit of 100 before and 300 after them."""
    given = [{"speed": speed, "delay": delay, "seen": 1} for speed, delay in runs]
    return Result(WORK, given, [{"speed": 100}, {"speed": 300}], list(faults))


def test_the_median_counts_not_the_best_run() -> None:
    """One lucky run, or one unlucky one, decides nothing."""
    speed, delay, _ = judge(result((10, 3), (1000, 1), (20, 99)))
    assert speed.median == 20
    assert delay.median == 3


def test_the_limit_is_the_median_of_before_and_after() -> None:
    """A figure that is judged by the limit is judged by its multiple of it."""
    speed, delay, _ = judge(result((1000, 1)))
    assert speed.limit == 200
    assert speed.ratio == 5
    assert delay.ratio is None


def test_a_target_is_reached_from_its_better_side() -> None:
    """Speed from above, delay from below, the target itself included."""
    assert [judged.reached for judged in judge(result((1000, 15)))] == [True, True, None]
    assert [judged.reached for judged in judge(result((999, 15.1)))] == [False, False, None]


def test_without_a_limit_a_multiple_of_it_is_not_judged() -> None:
    """A ratio to nothing is neither reached nor missed."""
    missing = Figure("speed", "speed", "/s", 5, times_the_limit=True)
    workload = Workload("N0", "a work", lambda bench: Outcome({}), (missing,))
    assert judge(Result(workload, [{"speed": 7}]))[0].reached is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234567.8, "1,234,568"),
        (123.4, "123"),
        (12.34, "12.3"),
        (1.234, "1.23"),
        (0, "0.00"),
        (-14.28, "-14.3"),
    ],
)
def test_numbers_have_three_digits_that_mean_something(value: float, text: str) -> None:
    """More digits than the runs agree in would only look exact."""
    assert show(value) == text


def test_the_table_has_a_row_for_each_figure() -> None:
    """The work is named once; the limit and the ratio are left empty where there are none."""
    lines = table([result((1000, 20))]).splitlines()
    assert lines[2] == ("| N0 | a work | speed | at least 5 x the limit | 1,000 /s | 1,000 to 1,000 | 200 /s | 5.00 x | yes |")
    assert lines[3] == "|  |  | delay | at most 15 ms | 20.0 ms | 20.0 to 20.0 |  |  | no |"
    assert lines[4] == "|  |  | seen |  | 1.00  | 1.00 to 1.00 |  |  |  |"


def test_a_run_with_a_fault_reaches_nothing() -> None:
    """However fast it was, what lost an event did not do the work; the fault stands under the table."""
    text = table([result((1000, 15), faults=("run 1: 3 events passed over",))])
    assert text.count("no: see below") == 2
    assert "- N0: run 1: 3 events passed over\n" in text


def test_what_makes_a_verdict_doubtful_is_said_beside_it() -> None:
    """A limit or a run that was disturbed by other programs proves little in either direction."""
    doubtful = result((1000, 20))
    doubtful.remarks.append("limit 1: other programs used 90% of a core")
    text = table([doubtful])
    assert "| yes, but see below |" in text
    assert "| no, but see below |" in text
    assert "- N0: limit 1: other programs used 90% of a core\n" in text


def test_what_could_not_be_measured_is_said() -> None:
    """A workload without a run has a row that says so; what the server printed stays out of it."""
    failed = Result(WORK, faults=["run 1: the server ended\nin /some/where"])
    text = table([failed])
    assert "| N0 | a work |  |  | not measured |  |  |  | no |" in text
    assert text.endswith("- N0: run 1: the server ended\n")


def test_the_page_holds_machine_and_table() -> None:
    """Figures without the machine they come from mean nothing."""
    text = page([result((1000, 15))], ["commit abc", "2 cores"], runs=3)
    assert "median of 3 runs" in text
    assert "- commit abc\n- 2 cores\n" in text
    assert "| N0 | a work |" in text
