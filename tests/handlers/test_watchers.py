"""Tests of handlers/watchers.py: one task tells all who watch the totals."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from handlers import watchers as module
from hub.formats import SSE
from hub.principal import ANONYMOUS
from tests.handlers.assembly import Assembly
from tests.hub.fakes import ManualClock, connect
from tests.waiting import wait_until


async def test_it_tells_again_and_again(here: Assembly, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it is cancelled; many are told in slices, with one message made for all who hear the same."""
    monkeypatch.setattr(module, "TELL_SECONDS", 0.0)
    monkeypatch.setattr(module, "SLICE", 2)
    sinks = []
    for _ in range(3):
        connection, sink = connect(here.hub, SSE, ManualClock(), principal=ANONYMOUS)
        here.hub.open(connection, frozenset(), None)
        here.services.watchers.watch(connection)
        sinks.append(sink)
    task = asyncio.create_task(here.services.watchers.run())
    await wait_until(lambda: all(len(sink.received) > 4 for sink in sinks), "each was told several times")
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert {one.kind for sink in sinks for one in sink.received} == {"welcome", "metrics"}
