"""Tests of handlers/services.py: what it makes by itself."""

from __future__ import annotations

import contextlib
import re

from handlers.refusals import CONNECTIONS, ORG_CONNECTIONS, REASONS
from handlers.services import Services
from hub.errors import TailcastError
from hub.principal import ANONYMOUS, Principal
from tests.handlers.assembly import USER, Assembly, token
from tests.handlers.clients import EventStream, RawWebSocket, websocket
from tests.handlers.conftest import Assemble
from tests.waiting import wait_until


async def test_ids_are_unique_and_safe(here: Assembly, assemble: Assemble) -> None:
    """Connection and correlation ids never meet, in one process or several, and may stand in any header."""
    other = await assemble()
    ids = [make() for _ in range(1000) for make in (here.services.make_id, other.services.make_id)]
    assert len(set(ids)) == 2000
    assert all(re.fullmatch(r"[A-Za-z0-9._-]{8,64}", one) for one in ids)


def refusal(here: Assembly, principal: Principal | None = None) -> str | None:
    """Return why one more client may not connect now; None: it may."""
    try:
        here.services.require_room(principal, "203.0.113.9", "k1")
    except TailcastError as error:
        return error.code
    return None


def counted(here: Assembly) -> dict[str, int]:
    """Return the reasons for which somebody was refused, and how often."""
    return {reason: count for reason, count in here.services.rates.refusals.counts.items() if count}


async def test_there_is_room_for_as_many_as_are_connected_or_about_to_be(assemble: Assemble, expected_logs: list[str]) -> None:
    """Those without a credential yet count as well, and a stopping server has no room at all (S6, T10)."""
    expected_logs.append(REASONS[CONNECTIONS])
    here = await assemble(max_connections=2)
    async with RawWebSocket(here.port):
        assert refusal(here) is None
        async with websocket(here.port, USER):
            assert refusal(here) == "unavailable"
            assert counted(here) == {CONNECTIONS: 1}
    await wait_until(lambda: not here.hub.connections and not here.services.waiting, "both are gone")
    assert refusal(here) is None
    here.services.stopping = True
    assert refusal(here) == "unavailable"
    assert counted(here) == {CONNECTIONS: 1}


async def test_the_last_room_is_for_those_who_show_a_credential(assemble: Assemble, expected_logs: list[str]) -> None:
    """Whoever has none can open as many connections as he finds addresses: they must not keep users out (S6)."""
    expected_logs.append(REASONS[CONNECTIONS])
    here = await assemble(max_connections=5)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(4):
            assert refusal(here, ANONYMOUS) is None
            await stack.enter_async_context(EventStream(here.port, path="/api/stream/prices"))
        assert refusal(here, ANONYMOUS) == "unavailable"
        assert refusal(here, Principal("u1")) is None
        assert counted(here) == {CONNECTIONS: 1}


async def test_an_organisation_has_room_of_its_own(assemble: Assemble, expected_logs: list[str]) -> None:
    """One that has as many connections as it may have is refused one more, which is counted; others are not (S6)."""
    expected_logs.append(REASONS[ORG_CONNECTIONS])
    here = await assemble(connections_per_org=1)
    async with websocket(here.port, token("u1", org="o1")):
        assert refusal(here, Principal("u2", org="o1")) == "too_many_requests"
        assert refusal(here, Principal("u2", org="o2")) is None
        assert refusal(here, Principal("u2")) is None
    assert counted(here) == {ORG_CONNECTIONS: 1}


async def test_clients_do_not_come_back_all_at_once(here: Assembly) -> None:
    """The time after which a refused client comes back differs, within bounds."""
    services = Services(
        hub=here.hub,
        appender=here.appender,
        authenticator=here.services.authenticator,
        belonging=here.services.belonging,
        parties=here.services.parties,
        state=here.services.state,
        recent=here.services.recent,
        snapshots=here.services.snapshots,
        poller=here.services.poller,
        roll=here.services.roll,
        limits=here.services.limits,
        rates=here.services.rates,
        watchers=here.services.watchers,
        refused_fields=here.services.refused_fields,
        ready=here.services.ready,
    )
    waits = [services.jitter_ms() for _ in range(200)]
    assert 1000 <= min(waits) < max(waits) < 5000
