"""Tests of handlers/services.py: what it makes by itself."""

from __future__ import annotations

import re

from handlers.services import Services
from tests.handlers.assembly import USER, Assembly
from tests.handlers.clients import RawWebSocket, websocket
from tests.handlers.conftest import Assemble
from tests.waiting import wait_until


async def test_ids_are_unique_and_safe(here: Assembly, assemble: Assemble) -> None:
    """Connection and correlation ids never meet, in one process or several, and may stand in any header."""
    other = await assemble()
    ids = [make() for _ in range(1000) for make in (here.services.make_id, other.services.make_id)]
    assert len(set(ids)) == 2000
    assert all(re.fullmatch(r"[A-Za-z0-9._-]{8,64}", one) for one in ids)


async def test_there_is_room_for_as_many_as_are_connected_or_about_to_be(assemble: Assemble) -> None:
    """Those without a credential yet count as well, and a stopping server has no room at all (S6, T10)."""
    here = await assemble(max_connections=2)
    async with RawWebSocket(here.port):
        assert here.services.has_room()
        async with websocket(here.port, USER):
            assert not here.services.has_room()
    await wait_until(lambda: not here.hub.connections and not here.services.waiting, "both are gone")
    assert here.services.has_room()
    here.services.stopping = True
    assert not here.services.has_room()


async def test_clients_do_not_come_back_all_at_once(here: Assembly) -> None:
    """The time after which a refused client comes back differs, within bounds."""
    services = Services(
        hub=here.hub,
        appender=here.appender,
        authenticator=here.services.authenticator,
        belonging=here.services.belonging,
        state=here.services.state,
        poller=here.services.poller,
        limits=here.services.limits,
        ready=here.services.ready,
    )
    waits = [services.jitter_ms() for _ in range(200)]
    assert 1000 <= min(waits) < max(waits) < 5000
