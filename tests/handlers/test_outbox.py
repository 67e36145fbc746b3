"""Tests of handlers/outbox.py: state, owners and event of a payment stream come together, whoever is interrupted wherever."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from handlers import outbox
from storage.errors import CommandFailed, Unavailable
from storage.streams import Change
from tests.handlers.asking import ADMIN, ask, caught_up, new_stream
from tests.handlers.assembly import Assembly, token
from tests.handlers.clients import EventStream, Response, get

ALICE, BOB = token("GALICE"), token("GBOB")
CREATION = ["give", "append", "finish"]


def interrupt(here: Assembly, monkeypatch: pytest.MonkeyPatch, step: str, error: Exception, *, after: bool) -> None:
    """Let one step of a change go wrong once, before or after it was carried out."""
    holder, name = {
        "give": (here.state.ownership, "set_owners"),
        "append": (here.appender, "append"),
        "finish": (here.state.streams, "finish"),
    }[step]
    real = getattr(holder, name)

    async def fails(*arguments: Any) -> None:
        monkeypatch.setattr(holder, name, real)
        if after:
            await real(*arguments)
        raise error

    monkeypatch.setattr(holder, name, fails)


async def create(here: Assembly, key: str = "k1") -> Response:
    """Ask for a stream from Alice to Bob."""
    return await ask(here.port, "POST", "/streams", new_stream("GALICE", "GBOB"), token=ALICE, Idempotency_Key=key)


async def told(here: Assembly) -> list[str]:
    """Return the types of all events that are in the log for Bob, as an owner."""
    await caught_up(here)
    async with EventStream(here.port, "?from=earliest", token=BOB) as stream:
        found = []
        while (one := await stream.next()).type != "live":
            found.append(one.type)
        return found[1:]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", CREATION)
@pytest.mark.parametrize("way", ["retry", "sweep"])
async def test_an_interrupted_creation_is_finished(
    here: Assembly, monkeypatch: pytest.MonkeyPatch, way: str, step: str, after: bool
) -> None:
    """By a retry or by the sweep: one stream, its owners, one event."""
    interrupt(here, monkeypatch, step, Unavailable("MongoDB is away"), after=after)
    refused = await create(here)
    assert refused.error() == (503, "unavailable", None)
    assert "retry-after" in refused.headers
    if way == "sweep":
        await here.outbox.sweep(grace_seconds=-60)
    again = await create(here)
    assert again.status == 201
    assert again.json()["duplicate"] is True
    id = again.json()["stream"]["streamId"]
    assert await told(here) == ["stream.created"]
    assert (await get(here.port, f"/v1/resources/stream/{id}", token=ADMIN)).json()["owners"] == ["user:GALICE", "user:GBOB"]
    assert await here.state.streams.unfinished(-60, 10) == []


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", ["append", "finish"])
@pytest.mark.parametrize("way", ["retry", "sweep", "next"])
async def test_an_interrupted_change_is_finished(here: Assembly, monkeypatch: pytest.MonkeyPatch, way: str, step: str, after: bool) -> None:
    """By a retry, by the sweep, or before the next change: it happens once, and its event is before the next one's."""
    id = (await create(here)).json()["stream"]["streamId"]
    interrupt(here, monkeypatch, step, Unavailable("MongoDB is away"), after=after)
    path, value = f"/streams/{id}/top-up", {"amount": "5"}
    assert (await ask(here.port, "POST", path, value, token=ALICE, Idempotency_Key="k2")).status == 503
    if way == "sweep":
        await here.outbox.sweep(grace_seconds=-60)
    if way == "next":
        assert (await ask(here.port, "POST", f"/streams/{id}/cancel", token=BOB)).status == 200
    else:
        again = await ask(here.port, "POST", path, value, token=ALICE, Idempotency_Key="k2")
        assert (again.status, again.json()["duplicate"]) == (200, True)
        assert again.json()["stream"]["depositedAmount"] == "105"
    assert await told(here) == ["stream.created", "stream.topped_up", *(["stream.cancelled"] if way == "next" else [])]


async def test_everybody_who_finishes_tells_the_same(here: Assembly) -> None:
    """Two processes that finish one change at the same time bring one event into the log."""
    interrupted = Change(1, "stream.completed", '{"streamId": "s1"}', None, "d", "c1")
    state = {"sender": "GALICE", "recipient": "GBOB"}
    stream = await here.state.streams.create("s1", state, interrupted)
    assert stream is not None
    assert stream.begun is not None
    ids = await asyncio.gather(*(outbox.finish(here.services, stream, stream.begun) for _ in range(3)))
    assert len(set(ids)) == 1
    assert await told(here) == ["stream.completed"]


async def test_what_somebody_has_begun_just_now_is_left_to_him(here: Assembly, monkeypatch: pytest.MonkeyPatch) -> None:
    """For some seconds."""
    interrupt(here, monkeypatch, "append", Unavailable("MongoDB is away"), after=False)
    await create(here)
    await here.outbox.sweep()
    assert len(await here.state.streams.unfinished(-60, 10)) == 1


async def test_one_that_cannot_be_finished_keeps_nobody_back(
    here: Assembly, monkeypatch: pytest.MonkeyPatch, expected_logs: list[str]
) -> None:
    """It is logged, and tried again at the next sweep."""
    expected_logs.append("cannot be finished")
    for key in ("k1", "k2"):
        interrupt(here, monkeypatch, "append", Unavailable("MongoDB is away"), after=False)
        await create(here, key)
    interrupt(here, monkeypatch, "append", CommandFailed("too large"), after=False)
    await here.outbox.sweep(grace_seconds=-60)
    assert len(await here.state.streams.unfinished(-60, 10)) == 1
    await here.outbox.sweep(grace_seconds=-60)
    assert await told(here) == ["stream.created"] * 2


async def test_the_outbox_sweeps_on(here: Assembly, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after MongoDB was away, until it is cancelled."""
    sweeps: list[int] = []

    async def sweep() -> None:
        sweeps.append(len(sweeps))
        if len(sweeps) == 1:
            raise Unavailable("MongoDB is away")
        if len(sweeps) == 3:
            raise asyncio.CancelledError

    monkeypatch.setattr(outbox, "SWEEP_SECONDS", 0)
    monkeypatch.setattr(here.outbox, "sweep", sweep)
    with pytest.raises(asyncio.CancelledError):
        await here.outbox.run()
    assert sweeps == [0, 1, 2]
