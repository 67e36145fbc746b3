"""The table of the numbers N1 to N14: what work each one is, what is read off it, what is to be reached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tests.bench import measures
from tests.bench.load import Bench, Outcome, Publishing


@dataclass(frozen=True)
class LimitShape:
    """The work of the limit program that a number is compared with."""

    subscribers: int = 1000
    events: int = 1000
    joined: int = 1
    topics: int = 1
    rate: float = 0


@dataclass(frozen=True)
class Figure:
    """One figure of a workload: its name in the outcome, and what is to be reached."""

    key: str
    name: str
    unit: str
    target: float | None = None  # None: shown, not judged
    higher_is_better: bool = False
    times_the_limit: bool = False  # the target is a multiple of the limit's figure, not a figure
    limit_key: str | None = None  # the limit's figure to compare with, None when it has no like


@dataclass(frozen=True)
class Workload:
    """One number: the work, and its figures."""

    number: str
    title: str
    measure: Callable[[Bench], Outcome]
    figures: tuple[Figure, ...]
    limit: LimitShape | None = None


def _latency(percentile: str, target: float | None, *, suffix: str = "") -> Figure:
    key = f"{percentile}_ms"
    name = f"{percentile}{suffix.replace('_', ' ')}"
    return Figure(key + suffix, name, "ms", target, limit_key=key)


def _deliveries(times: float) -> Figure:
    key = "deliveries_per_second"
    return Figure(key, "deliveries", "/s", times, higher_is_better=True, times_the_limit=True, limit_key=key)


def _per_second(key: str, name: str, target: float, *, limit_key: str | None = None) -> Figure:
    return Figure(key, name, "/s", target, higher_is_better=True, limit_key=limit_key)


AS_FAST_AS_THEY_GO = Publishing(connections=32, seconds=8)
# Many connections, so that one late answer does not hold up the events after it.
STEADY = Publishing(connections=16, rate=50, seconds=20)
FAST = Publishing(connections=64, rate=200, seconds=10)
SPREAD = Publishing(connections=8, rate=5000, seconds=10, batch=50, topics=1000)
SINGLY = Publishing(connections=64, seconds=6)
BATCHED = Publishing(connections=8, seconds=6, batch=100)
ONE_AT_A_TIME = Publishing(connections=1, rate=20, seconds=15)

PACED = (
    Figure("cpu_share", "CPU, of a core", "%"),
    Figure("sends_per_second", "sends", "/s"),
    Figure("events_per_second", "events", "/s", higher_is_better=True),
)

THE_LIMIT = LimitShape()
STEADY_LIMIT = LimitShape(events=200, rate=STEADY.rate)

WORKLOADS = (
    Workload(
        "N1",
        "1,000 SSE subscribers to one topic, 32 publishers as fast as they go",
        partial(measures.fan_out, how=AS_FAST_AS_THEY_GO, subscribers=1000),
        (_deliveries(5),),
        THE_LIMIT,
    ),
    Workload(
        "N2",
        "the same over WebSocket",
        partial(measures.fan_out, how=AS_FAST_AS_THEY_GO, subscribers=1000, transport="websocket"),
        (_deliveries(4),),
        THE_LIMIT,
    ),
    Workload(
        "N3",
        "200 events/s to 1,000",
        partial(measures.fan_out, how=FAST, subscribers=1000),
        (_latency("p50", None), _latency("p99", 50)),
        LimitShape(events=600, rate=FAST.rate),
    ),
    Workload(
        "N4",
        "50 events/s to 1,000",
        partial(measures.fan_out, how=STEADY, subscribers=1000),
        (_latency("p50", 5), _latency("p99", 15)),
        STEADY_LIMIT,
    ),
    Workload(
        "N5",
        "idle, 10,000 SSE connections, each another user's",
        partial(measures.idle_memory, subscribers=10_000),
        (Figure("kib_per_connection", "memory a connection", "KiB", 4),),
    ),
    Workload(
        "N6",
        "the same over WebSocket",
        partial(measures.idle_memory, subscribers=10_000, transport="websocket"),
        (Figure("kib_per_connection", "memory a connection", "KiB", 6),),
    ),
    Workload(
        "N7",
        "1,000 clients return at once, each missing 1,000 events",
        partial(measures.return_at_once, subscribers=1000, missing=1000),
        (Figure("all_done_seconds", "all done", "s", 1.5, limit_key="busy_seconds"),),
        LimitShape(joined=250),
    ),
    Workload(
        "N8",
        "one POST to one delivery, idle",
        partial(measures.fan_out, how=ONE_AT_A_TIME, subscribers=1),
        (_latency("p50", 1.5), _latency("p99", None)),
        LimitShape(subscribers=1, events=60, rate=ONE_AT_A_TIME.rate),
    ),
    Workload(
        "N9",
        "5,000 events/s over 1,000 topics, 5 subscribers each, published in batches of 50",
        partial(measures.fan_out, how=SPREAD, subscribers=5000),
        (_latency("p50", None), _latency("p99", 25)),
        LimitShape(subscribers=5000, events=15_000, topics=1000, rate=SPREAD.rate),
    ),
    Workload(
        "N10",
        "published singly on 64 connections, journaled",
        partial(measures.publish_only, how=SINGLY),
        (_per_second("events_per_second", "events", 2500),),
    ),
    Workload(
        "N10",
        "published in batches of 100 on 8 connections, journaled",
        partial(measures.publish_only, how=BATCHED),
        (_per_second("events_per_second", "events", 25_000),),
    ),
    Workload(
        "N11",
        "10,000 clients connect, each with its own JWT",
        partial(measures.connect, subscribers=10_000),
        (_per_second("connects_per_second", "connects", 3000, limit_key="connects_per_second"),),
        LimitShape(subscribers=10_000, events=1),
    ),
    Workload(
        "N12",
        "10 of 1,000 clients stop reading while N4 runs, then read on",
        partial(measures.stalled, how=STEADY, subscribers=1000, slow=10),
        (
            _latency("p50", 5),
            _latency("p99", 15),
            _latency("p50", None, suffix="_all_reading"),
            _latency("p99", None, suffix="_all_reading"),
            Figure("kib_per_stalled", "memory a stalled client", "KiB", 100),
        ),
        STEADY_LIMIT,
    ),
    Workload(
        "N14",
        "20,000 updates/s of 1,000 symbols, conflated in 100 ms, to 1,000 SSE clients with 10 symbols of their own each",
        partial(measures.paced, clients=1000, symbols=1000, rate=20_000, own=10),
        PACED,
    ),
    Workload(
        "N14",
        "the same to 1,000 SSE clients with all symbols",
        partial(measures.paced, clients=1000, symbols=1000, rate=20_000, own=0),
        PACED,
    ),
)


def soak_for(seconds: float) -> Workload:
    """N13, whose length is not fixed: memory that grows by less than 1 MiB an hour counts as level."""
    how = Publishing(connections=STEADY.connections, rate=STEADY.rate, seconds=seconds)
    return Workload(
        "N13",
        f"N4 for {seconds:g} s",
        partial(measures.soak, how=how, subscribers=1000),
        (
            Figure("mib_per_hour", "memory grows", "MiB/h", 1),
            Figure("resident_mib", "memory in the end", "MiB"),
            _latency("p99", None),
        ),
        STEADY_LIMIT,
    )


def choose(numbers: list[str], soak_seconds: float) -> list[Workload]:
    """Return the workloads of some numbers in the table's order, or all; N13 only when it has a length.

    Raises:
        ValueError: If a number is not in the table, or N13 is wanted without a length.
    """
    table = [*WORKLOADS, *([soak_for(soak_seconds)] if soak_seconds else [])]
    known = list(dict.fromkeys(workload.number for workload in table))
    unknown = [number for number in numbers if number not in known]
    if unknown:
        hint = "; N13 needs --soak-seconds" if "N13" in unknown else ""
        raise ValueError(f"expected some of {' '.join(known)}, got {' '.join(unknown)}{hint}")
    return [workload for workload in table if not numbers or workload.number in numbers]
