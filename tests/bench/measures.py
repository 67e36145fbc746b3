"""How each kind of figure is measured on one running server; how much of what, `workloads` says."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from tests.bench.errors import BenchError
from tests.bench.load import (
    AS_MANY_AS_IT_TAKES,
    Bench,
    Outcome,
    Publishing,
    find_faults,
    find_remarks,
    find_slowness,
)
from tests.bench.machine import ROOT, pinned_to

SETTLE_SECONDS = 20  # long enough for a round of heartbeats, which is part of being idle
LOST_SECONDS = 60  # what has not come this long after the last event was accepted counts as lost
LATE_SECONDS = 5  # how long after its time a publisher may still send what it has to send
WARM_EVENTS = 50
ENTRY_BYTES = 500  # what an event costs in memory beside its data, about
FILL_BYTES = 2 * 64 * 2**20  # twice the default of `window_bytes`: the heap goes on growing for a while after that


def _warm_up(bench: Bench, *, transport: str = "sse") -> None:
    """Let a few clients come and go, so that what the server makes once is made before measuring."""
    with bench.subscribers(100, transport=transport) as generator:
        generator.ready()
        bench.publish(WARM_EVENTS, Publishing())
        generator.wait_for(WARM_EVENTS)


def fan_out(bench: Bench, how: Publishing, *, subscribers: int, transport: str = "sse") -> Outcome:
    """Publish, and count what arrives; with several topics each has its own subscribers and numbers."""
    topic = f"{how.topic}.%d" if how.topics > 1 else how.topic
    warm = WARM_EVENTS if how.topics == 1 else 1
    with bench.subscribers(subscribers, transport=transport, topic=topic, topics=how.topics) as generator:
        generator.ready()
        # the first events pay for what is made once: they are checked, but not in the figures
        bench.publish(warm * how.topics, replace(how, rate=WARM_EVENTS * how.topics, connections=4))
        faults = find_faults(generator.wait_for(warm), warm)
        events = int(how.rate * how.seconds) or AS_MANY_AS_IT_TAKES
        late = LATE_SECONDS if how.rate else 0
        published = bench.publish(events, replace(how, seconds=how.seconds + late))
        expected = int(published["accepted"]) // how.topics
        report = generator.wait_for(expected, seconds=LOST_SECONDS)
    faults += find_faults(report, expected) + find_slowness(published, how)
    more = {name: published[name] for name in ("events_per_second", "post_p50_ms", "post_p99_ms")}
    return Outcome({**report, **more}, faults, find_remarks(report))


def publish_only(bench: Bench, how: Publishing) -> Outcome:
    """Publish with nobody listening; a 202 is given when the event is journaled."""
    bench.publish(WARM_EVENTS * how.batch, how)
    return Outcome({**bench.publish(AS_MANY_AS_IT_TAKES, how)})


def idle_memory(bench: Bench, *, subscribers: int, transport: str = "sse") -> Outcome:
    """Connect users, one connection each, let them rest, and divide what the server's process grew by."""
    _warm_up(bench, transport=transport)
    time.sleep(2)
    tokens = bench.server.token_file(subscribers)
    before = bench.server.resident_kib()
    with bench.subscribers(subscribers, transport=transport, topic="idle", tokens=tokens) as generator:
        generator.ready()
        connected = bench.server.resident_kib()
        time.sleep(SETTLE_SECONDS)
        after = bench.server.resident_kib()
        faults = find_faults(generator.wait_for(0), 0)
    growth = max(connected, after) - before
    figures = {"kib_per_connection": growth / subscribers, "before_kib": before, "after_kib": after}
    return Outcome(figures, faults)


def return_at_once(bench: Bench, *, subscribers: int, missing: int) -> Outcome:
    """Clients come back together with one position, timed from the first connect to the last event."""
    _warm_up(bench)
    event: dict[str, object] = {"topic": "bench", "type": "bench", "audience": ["public"], "data": {}}
    query = f"&lastEventId={quote(bench.server.publish_one(event))}"
    bench.publish(missing, Publishing(connections=1, batch=100))
    with bench.subscribers(subscribers, query=query, options=("-i", subscribers)) as generator:
        generator.tell(f"wait {missing} 0 {LOST_SECONDS}")
        connected = generator.ready()
        report = generator.report(LOST_SECONDS + 10)
    return Outcome({**report, **connected}, find_faults(report, missing), find_remarks(report))


def connect(bench: Bench, *, subscribers: int) -> Outcome:
    """Connect users, each with a token of its own, timed from the first connect to the last one's welcome."""
    _warm_up(bench)
    tokens = bench.server.token_file(subscribers)
    with bench.subscribers(subscribers, tokens=tokens) as generator:
        took = generator.ready()["connect_seconds"]
        faults = find_faults(generator.wait_for(0), 0)
    return Outcome({"connects_per_second": subscribers / took}, faults)


def fill_memory(bench: Bench, *, size: int) -> None:
    """Publish to one reader more than the server keeps in memory, so that this is full and grows no more.

    The events have the size of those to come: others would leave holes of another size when they make room.
    """
    how = Publishing(batch=50, topic="fill", size=size)
    step = 100 * how.batch
    with bench.subscribers(1, topic=how.topic) as generator:
        generator.ready()
        for _ in range(FILL_BYTES // ((size + ENTRY_BYTES) * step)):
            bench.publish(step, how)
            generator.wait_for(step)


def stalled(bench: Bench, how: Publishing, *, subscribers: int, slow: int) -> Outcome:
    """The same work twice: with everybody reading, then while some have stopped, who then read on.

    The slow ones also subscribe to a second topic, on which more is published than the kernel keeps for a
    socket: only then has the server itself to do with clients that do not read.
    """
    count = int(how.rate * how.seconds)
    stuffing = Publishing(connections=1, batch=50, topic="stuffing", size=2000)
    stuffed = (_kernel_buffer_bytes() + 2 * 1024 * 1024) // stuffing.size
    steady = replace(how, seconds=how.seconds + LATE_SECONDS)
    fill_memory(bench, size=stuffing.size)
    options = ("-s", slow, "-U", f"/v1/stream?topics={how.topic},{stuffing.topic}")
    with bench.subscribers(subscribers, options=options) as generator:
        generator.ready()
        faults: list[str] = []
        for _ in range(2):  # what reading this much costs is not to be counted as the cost of not reading it
            bench.publish(stuffed, stuffing)
            faults += find_faults(generator.wait_for(0, slow_events=stuffed), 0, by_slow=stuffed)
        published = bench.publish(count, steady)
        reading = generator.wait_for(count, slow_events=count)
        faults += find_faults(reading, count) + find_slowness(published, how)
        before = bench.server.resident_kib()

        generator.tell("stall")
        bench.publish(stuffed, stuffing)
        full = bench.server.resident_kib()
        published = bench.publish(count, steady)
        report = generator.wait_for(count)
        faults += find_faults(report, count, by_slow=0) + find_slowness(published, how)
        after = bench.server.resident_kib()

        generator.tell("resume")
        late = generator.wait_for(0, slow_events=stuffed + count, seconds=LOST_SECONDS)
        faults += find_faults(late, 0, by_slow=stuffed + count)
    figures = {**report, "p50_ms_all_reading": reading["p50_ms"], "p99_ms_all_reading": reading["p99_ms"]}
    figures["kib_per_stalled"] = max(0, full - before, after - before) / slow
    return Outcome(figures, faults, find_remarks(report))


def _kernel_buffer_bytes() -> int:
    """Return what the kernel keeps at most for a socket whose reader has stopped."""
    return int(Path("/proc/sys/net/ipv4/tcp_wmem").read_text().split()[2])


def paced(bench: Bench, *, clients: int, symbols: int, rate: float, own: int) -> Outcome:
    """Feed a hub without a log, on the server's core, whose clients all have a pace; the bench's own server rests meanwhile."""
    options = {"clients": clients, "symbols": symbols, "rate": rate, "own": own, "core": bench.cores.load}
    arguments = [f"--{name}={value}" for name, value in options.items()]
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.paced", *arguments],
        cwd=ROOT,
        preexec_fn=pinned_to(bench.cores.server),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BenchError(f"the paced hub ended: {done.returncode}\n{done.stderr}")
    return Outcome(json.loads(done.stdout))


def soak(bench: Bench, how: Publishing, *, subscribers: int) -> Outcome:
    """The same work for long: how fast the server's memory grows once its bounded parts are full."""
    events = int(how.rate * how.seconds)
    fill_memory(bench, size=how.size)
    with bench.subscribers(subscribers) as generator:
        generator.ready()
        with bench.publisher(events, replace(how, seconds=how.seconds + LATE_SECONDS)) as publisher:
            samples = _sample_memory(bench, how.seconds)
            published = publisher.report(60)
        report = generator.wait_for(int(published["accepted"]), seconds=LOST_SECONDS)
    faults = find_faults(report, events) + find_slowness(published, how)
    # in the first fifth the clients come and settle
    settled = [sample for sample in samples if sample[0] > how.seconds / 5]
    figures = {**report, "mib_per_hour": slope(settled) * 3600 / 1024, "resident_mib": samples[-1][1] / 1024}
    return Outcome(figures, faults, find_remarks(report))


def _sample_memory(bench: Bench, seconds: float) -> list[tuple[float, float]]:
    """Return (seconds passed, KiB) pairs, a second apart."""
    samples: list[tuple[float, float]] = []
    start = time.monotonic()
    while not samples or samples[-1][0] < seconds:
        samples.append((time.monotonic() - start, bench.server.resident_kib()))
        time.sleep(1)
    return samples


def slope(samples: list[tuple[float, float]]) -> float:
    """Return the slope of the straight line nearest to some points, 0 when there are fewer than two."""
    if len(samples) < 2:
        return 0.0
    middle_x = sum(x for x, _ in samples) / len(samples)
    middle_y = sum(y for _, y in samples) / len(samples)
    spread = sum((x - middle_x) ** 2 for x, _ in samples)
    return sum((x - middle_x) * (y - middle_y) for x, y in samples) / spread if spread else 0.0
