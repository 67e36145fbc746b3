"""Runs the workloads: each run on a new server, with the limit measured before each and after the last."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tests.bench.errors import BenchError
from tests.bench.load import SOURCES, Bench, Outcome
from tests.bench.machine import Cores, Usage
from tests.bench.programs import Generator, Limit, Report
from tests.bench.results import Result
from tests.bench.server_process import Server
from tests.bench.workloads import LimitShape, Workload

DISTURBING = 0.1  # of a core: what other programs may use before a run is remarked on


def measure_limit(shape: LimitShape, cores: Cores) -> Report:
    """Measure what the limit program reaches with a work of some shape."""
    work = ["-c", "-n", shape.subscribers, "-m", shape.events, "-j", shape.joined]
    work += ["-k", shape.topics, "-r", shape.rate]
    with Limit(work, core=cores.server) as limit:
        clients = ["-p", limit.port, "-n", shape.subscribers, "-a", SOURCES, "-y", "event: welcome"]
        with Generator(clients, core=cores.load) as generator:
            took = generator.ready()["connect_seconds"]
            report = generator.wait_for(shape.events // shape.topics, seconds=120)
    if not report["complete"]:
        raise BenchError(f"the limit program reached {report['done']:.0f} of {shape.subscribers} clients")
    return {**report, "connects_per_second": shape.subscribers / took}


def run(
    workload: Workload,
    *,
    command: Sequence[str],
    settings: Sequence[str],
    runs: int,
    cores: Cores,
    say: Callable[[str], None],
) -> Result:
    """Measure one workload several times; a run that fails is a fault of the result, and the others go on.

    Args:
        workload: What to measure.
        command: How to start a server.
        settings: Settings it gets on top of the benchmarks' own.
        runs: How often.
        cores: Which core runs what.
        say: Called with a line about everything that was measured.
    """
    result = Result(workload)
    for number in range(1, runs + 1):
        _compare(result, cores, say)
        before = Usage.now()
        try:
            with Server(command, core=cores.server, settings=settings) as server:
                outcome = _measure(workload, Bench(server, cores))
        except BenchError as error:
            result.faults.append(f"run {number}: {error}")
            say(f"{workload.number} run {number}: {error}")
            continue
        outcome.remarks += _find_disturbance(before)
        result.runs.append(outcome.figures)
        result.faults += [f"run {number}: {fault}" for fault in outcome.faults]
        result.remarks += [f"run {number}: {remark}" for remark in outcome.remarks]
        figures = ", ".join(f"{name} {value:g}" for name, value in outcome.figures.items())
        notes = "".join(f"; {note}" for note in [*outcome.faults, *outcome.remarks])
        say(f"{workload.number} run {number}: {figures}{notes}")
    _compare(result, cores, say)
    return result


def _compare(result: Result, cores: Cores, say: Callable[[str], None]) -> None:
    """Measure the limit that a workload is compared with, if there is one; failing is a fault of the result."""
    if result.workload.limit is None:
        return
    before = Usage.now()
    try:
        limit = measure_limit(result.workload.limit, cores)
    except BenchError as error:
        result.faults.append(f"limit: {error}")
        say(f"{result.workload.number} limit: {error}")
        return
    result.limits.append(limit)
    remarks = _find_disturbance(before)
    result.remarks += [f"limit {len(result.limits)}: {remark}" for remark in remarks]
    figures = ", ".join(f"{name} {value:g}" for name, value in limit.items())
    say(f"{result.workload.number} limit: {figures}{''.join(f'; {remark}' for remark in remarks)}")


def _find_disturbance(before: Usage) -> list[str]:
    """Say whether others were at work on this machine, which then measured them, too."""
    others = Usage.now().others_since(before)
    return [f"other programs used {others:.0%} of a core"] if others > DISTURBING else []


def _measure(workload: Workload, bench: Bench) -> Outcome:
    """Measure, and say with an error what the server printed last: it is gone afterwards."""
    try:
        return workload.measure(bench)
    except BenchError as error:
        raise BenchError(f"{error}\n{bench.server.last_output()}") from error
