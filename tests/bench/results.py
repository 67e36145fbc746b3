"""What the runs gave, as a table: medians, ranges, ratios to the limit, target reached or not; no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from tests.bench.workloads import Figure, Workload

HEAD = ("", "work", "figure", "to reach", "median", "lowest to highest", "the limit", "ratio", "reached")


@dataclass
class Result:
    """All runs of one workload, with the limit's runs before, between and after them."""

    workload: Workload
    runs: list[dict[str, float]] = field(default_factory=list)
    limits: list[dict[str, float]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Judged:
    """One figure over all runs."""

    figure: Figure
    values: tuple[float, ...]
    limit: float | None  # the median of the limit's own figure, None when there is none to compare with

    @property
    def median(self) -> float:
        return median(self.values)

    @property
    def ratio(self) -> float | None:
        """Return the median as a multiple of the limit's, None without a limit."""
        return self.median / self.limit if self.limit else None

    @property
    def reached(self) -> bool | None:
        """Whether the median is as good as the target, None without a target or a limit to compare with."""
        value = self.ratio if self.figure.times_the_limit else self.median
        if self.figure.target is None or value is None:
            return None
        return value >= self.figure.target if self.figure.higher_is_better else value <= self.figure.target


def judge(result: Result) -> list[Judged]:
    """Put the runs of a workload together, figure by figure; no runs give no figures."""
    if not result.runs:
        return []
    judged = []
    for figure in result.workload.figures:
        limits = [limit[figure.limit_key] for limit in result.limits] if figure.limit_key else []
        values = tuple(run[figure.key] for run in result.runs)
        judged.append(Judged(figure, values, median(limits) if limits else None))
    return judged


def show(value: float) -> str:
    """Write a number with three significant digits, and its thousands apart."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f}"


def table(results: Sequence[Result]) -> str:
    """Write the results as a Markdown table, and under it what was wrong or doubtful."""
    lines = [_line(HEAD), _line(["---"] * len(HEAD))]
    notes = []
    for result in results:
        number, title = result.workload.number, result.workload.title
        for judged in judge(result):
            lines.append(_line([number, title, *_cells(judged, result)]))
            number = title = ""  # said once for all figures of a workload
        if not result.runs:
            lines.append(_line([number, title, "", "", "not measured", "", "", "", "no"]))
        # the first line only: the others are a server's output, which may name paths of this machine
        said = dict.fromkeys(note.split("\n", 1)[0] for note in [*result.faults, *result.remarks])
        notes += [f"- {result.workload.number}: {note}" for note in said]
    return "\n".join(lines + (["", "What was wrong or doubtful:", "", *notes] if notes else [])) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(judged: Judged, result: Result) -> list[str]:
    figure, unit = judged.figure, judged.figure.unit
    reached = {None: "", True: "yes", False: "no"}[judged.reached]
    if reached and result.faults:
        reached = "no: see below"
    elif reached and result.remarks:
        reached += ", but see below"
    return [
        figure.name,
        _target(figure),
        f"{show(judged.median)} {unit}",
        f"{show(min(judged.values))} to {show(max(judged.values))}",
        "" if judged.limit is None else f"{show(judged.limit)} {unit}",
        "" if judged.ratio is None else f"{show(judged.ratio)} x",
        reached,
    ]


def _target(figure: Figure) -> str:
    if figure.target is None:
        return ""
    bound = "at least" if figure.higher_is_better else "at most"
    return f"{bound} {figure.target:,g} {'x the limit' if figure.times_the_limit else figure.unit}"


PAGE = """# Benchmarks

This page is written by `make bench`; do not edit it. Every figure is the median of {runs}, each with a
server and a MongoDB of its own that were started for it; the range is that of the runs.

{machine}

{table}
## How to read it

- An event carries 200 bytes of `data`, and is journaled by MongoDB before it is delivered. The audience is
  `public`.
- Nothing may be lost, doubled or out of order: what a publishing connection sends is numbered, and each
  client's numbers are checked. A run in which anything was missing does not count as reached, however fast
  it was.
- *The limit* is a C program that does nothing but `send` ready events of the same size to each socket in
  turn, measured before, between and after the runs of the same number: one event a send for N1 and N2 (more
  than 1 x is possible by joining the events of a batch), 250 a send for N7, and at the same rate where a
  latency is compared. For N11 it is that program accepting as many clients, without looking at who they
  are. Memory and publishing have no such limit.
- Latency runs from the making of the POST to the return of the `recv` that completed the event, in one
  clock (`CLOCK_MONOTONIC`); the waiting inside the load generator is part of it.
- Memory is the resident memory (`VmRSS`) of the server's Python process, without MongoDB and without the
  kernel's buffers. N5 and N6 divide its growth by the connections, every one of another user; N12 by the
  clients that stopped reading, after so much was sent to them that the kernel's buffers were full.
- N14 is a hub in a process of its own, fed with ready entries at a rate, with real sockets but neither MongoDB nor publishers. Its clock is
  moved on when the work of each step is done: CPU is CPU seconds for a second of that clock, whatever else the machine does.
- The generator and the publishers are the C programs in `tests/bench/c`; `python -m tests.bench --help`
  says how to run some of the numbers only.
"""


def page(results: Sequence[Result], machine: Sequence[str], runs: int) -> str:
    """Write the page of the reference that holds the results."""
    listed = "\n".join(f"- {line}" for line in machine)
    return PAGE.format(runs="one run" if runs == 1 else f"{runs} runs", machine=listed, table=table(results))
