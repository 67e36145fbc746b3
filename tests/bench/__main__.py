"""`python -m tests.bench`: reads the arguments, measures what they name, and writes the table."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from pathlib import Path

from tests.bench import machine, programs, results, runner, workloads
from tests.bench.errors import BenchError

PAGE = machine.ROOT / "docs" / "reference" / "benchmarks.md"


def read_arguments() -> argparse.Namespace:
    """Read the command line; a wrong one ends the program with a line that says why."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure the numbers N1 to N14.")
    parser.add_argument("numbers", nargs="*", metavar="N", help="which to measure, such as N1 N4 (default: all but N13)")
    parser.add_argument("--runs", type=int, default=3, help="how often, each on a new server (default: 3)")
    parser.add_argument("--soak-seconds", type=float, default=0, metavar="S", help="measure N13 too, for S seconds")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the page here too")
    parser.add_argument("--write-docs", action="store_true", help=f"write {PAGE.relative_to(machine.ROOT)}")
    parser.add_argument("--command", default=f"{sys.executable} server.py", help="how to start the server")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the server")
    arguments = parser.parse_args()
    if arguments.runs < 1:
        parser.error("--runs: expected at least 1")
    try:
        arguments.workloads = workloads.choose([name.upper() for name in arguments.numbers], arguments.soak_seconds)
    except ValueError as error:
        parser.error(str(error))
    if arguments.write_docs and arguments.numbers:
        parser.error("--write-docs: the page holds all numbers of one session, so name none")
    return arguments


def main() -> int:
    """Measure, write, and return the exit status: 1 when anything was lost or could not be measured."""
    arguments = read_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers are ended, as with an interrupt
    try:
        programs.build()
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    cores = machine.choose_cores(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores.load})
    about = machine.describe(cores)
    done = [
        runner.run(
            workload,
            command=shlex.split(arguments.command),
            settings=[f"--{setting}" for setting in arguments.set],
            runs=arguments.runs,
            cores=cores,
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )
        for workload in arguments.workloads
    ]
    page = results.page(done, about, arguments.runs)
    print("\n".join(about), results.table(done), sep="\n\n")
    for path in [
        *([arguments.output] if arguments.output else []),
        *([PAGE] if arguments.write_docs else []),
    ]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page)
    return 1 if any(result.faults for result in done) else 0


if __name__ == "__main__":
    sys.exit(main())
