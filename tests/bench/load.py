"""Putting load on one server: its subscribers, its publishers, and what their reports say was wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.errors import BenchError
from tests.bench.machine import Cores
from tests.bench.programs import Generator, Program, Report
from tests.bench.server_process import Server

SOURCES = 8  # source addresses, so that ten thousand clients do not need the ports of one
AS_MANY_AS_IT_TAKES = 10_000_000
AT_THE_GENERATORS_LIMIT = 0.95


@dataclass
class Outcome:
    """What one run gave: figures by name, what was wrong with it, and what makes it doubtful."""

    figures: dict[str, float]
    faults: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Publishing:
    """How to publish: connections, events a second (0: as fast as the connections go), events a request."""

    connections: int = 4
    rate: float = 0
    seconds: float = 60
    batch: int = 1
    topic: str = "bench"
    topics: int = 1  # more than 1: the topic gets a number behind it, in turn
    size: int = 200  # bytes of `data`


@dataclass
class Bench:
    """A server and the core from which it is put under load."""

    server: Server
    cores: Cores
    sources: int = 0  # how many connections have published: the number of the next one

    def subscribers(
        self,
        count: int,
        *,
        transport: str = "sse",
        topic: str = "bench",
        topics: int = 1,
        query: str = "",
        tokens: Path | None = None,
        options: tuple[object, ...] = (),
    ) -> Generator:
        """Start clients of one transport; `%d` in the topic is the client's number modulo `topics`."""
        arguments: list[object] = ["-p", self.server.port, "-n", count, "-k", topics, "-a", SOURCES]
        arguments += ["-f", tokens or self.server.token_file()]
        if transport == "websocket":
            arguments += ["-u", "/ws", "-y", '"subscribed"']
            arguments += ["-m", f'{{"type":"subscribe","ref":"1","topic":"{topic}"}}']
        else:
            arguments += ["-u", f"/v1/stream?topics={topic}{query}", "-y", "event: welcome"]
        return Generator([*arguments, *options], core=self.cores.load)

    def publisher(self, events: int, how: Publishing) -> Program:
        """Start a publisher whose connections are new sources of numbers; it prints one report when done."""
        source, self.sources = self.sources, self.sources + how.connections
        arguments: list[object] = ["-p", self.server.port, "-f", self.server.token_file(role="publisher")]
        arguments += ["-n", events, "-c", how.connections, "-t", how.seconds, "-g", how.batch]
        arguments += ["-T", how.topic, "-z", how.size, "-k", how.topics, "-s", source]
        arguments += ["-r", how.rate] if how.rate else []
        return Program("publisher", arguments, core=self.cores.load)

    def publish(self, events: int, how: Publishing) -> Report:
        """Publish and return the publisher's report.

        Raises:
            BenchError: If anything was refused or failed.
        """
        with self.publisher(events, how) as publisher:
            report = publisher.report(how.seconds + 60)
        if report["refused"] or report["errors"]:
            raise BenchError(
                f"{report['refused']:.0f} requests were refused, the first with "
                f"{report['first_refusal']:.0f}, and {report['errors']:.0f} failed"
            )
        return report


def find_faults(report: Report, expected: int, *, by_slow: int | None = None) -> list[str]:
    """Say what a report of the generator shows to be lost, doubled, out of order, or closed.

    Args:
        report: What the generator counted.
        expected: How many events every client must have received.
        by_slow: How many the slow ones must have received, None for as many.
    """
    fewest, most = sorted([expected, expected if by_slow is None else by_slow])
    checks = [
        (not report["complete"], f"{report['done']:.0f} of {report['clients']:.0f} clients got everything"),
        (report["fewest"] < fewest, f"a client received {report['fewest']:.0f} events of {fewest}"),
        (report["most"] > most, f"a client received {report['most']:.0f} events instead of {most}"),
        (report["holes"], f"{report['holes']:.0f} events passed over"),
        (report["repeats"], f"{report['repeats']:.0f} events repeated or late"),
        (report["gaps"], f"{report['gaps']:.0f} gaps reported"),
        (report["closed"], f"{report['closed']:.0f} clients disconnected"),
    ]
    return [fault for wrong, fault in checks if wrong]


def find_slowness(published: Report, how: Publishing) -> list[str]:
    """Say whether publishing fell behind the rate it was to have."""
    held = published["events_per_second"]
    return [f"published {held:.0f}/s instead of {how.rate:g}/s"] if held < 0.97 * how.rate else []


def find_remarks(report: Report) -> list[str]:
    """Say what makes the figures of a report doubtful without making them wrong."""
    busy = report["cpu_share"] >= AT_THE_GENERATORS_LIMIT
    return [f"the generator used {report['cpu_share']:.0%} of its core"] if busy else []
