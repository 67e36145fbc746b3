"""Tests of handlers/totals.py: how many are connected, told to anybody who asks (part 7)."""

from __future__ import annotations

from hub.formats import rfc3339_of
from tests.handlers.asking import ADMIN, AGENT
from tests.handlers.assembly import USER, Assembly, token
from tests.handlers.clients import EventStream, get
from tests.handlers.conftest import Assemble
from tests.waiting import wait_until

METRICS = "/api/stream/metrics"
JSON = {"Accept": "application/json"}


async def test_anybody_hears_the_totals_and_an_admin_whose_they_are(here: Assembly) -> None:
    """First at once, then every few seconds; whoever has left is not counted any more."""
    async with EventStream(here.port, path=METRICS) as anybody:
        welcome = (await anybody.welcome()).json()
        assert welcome["clientId"].startswith("anonymous-metrics-")
        first = await anybody.next()
        assert (first.type, first.id) == ("metrics", None)
        assert first.json() == {"timestamp": first.json()["timestamp"], "totalClients": 1, "totalUsers": 0}
        async with EventStream(here.port, path=METRICS, token=ADMIN) as admin, EventStream(here.port, token=USER) as other:
            await admin.welcome()
            await admin.next()
            await other.welcome()
            here.clock.ahead += 1
            await here.services.watchers.tell()
            counted = (await admin.next()).json()
            assert (counted["totalClients"], counted["totalUsers"]) == (3, 2)
            assert counted["clientsPerUser"] == {"root": 1, "u1": 1}
            assert (await anybody.next()).json().keys() == {"timestamp", "totalClients", "totalUsers"}
        await wait_until(lambda: len(here.hub.connections) == 1, "the others have left")
        here.clock.ahead += 1
        await here.services.watchers.tell()
        assert (await anybody.next()).json()["totalClients"] == 1
        assert len(here.services.watchers) == 1


async def test_whoever_accepts_json_gets_one_answer(here: Assembly) -> None:
    """The same in JSON, which opens no connection, and so is not counted among those of its address."""
    async with EventStream(here.port, token=USER) as stream:
        await stream.welcome()
        for who, more in ((None, set()), (USER, set()), (AGENT, set()), (ADMIN, {"clientsPerUser"})):
            response = await get(here.port, METRICS, token=who, headers=JSON)
            assert (response.status, response.json()["totalClients"]) == (200, 1)
            assert response.json().keys() == {"timestamp", "totalClients", "totalUsers", *more}
        assert (await get(here.port, METRICS, token="x", headers=JSON)).error() == (401, "unauthenticated", None)
        assert (await get(here.port, f"{METRICS}?from=earliest", headers=JSON)).error() == (400, "invalid_request", "from")


async def test_asking_does_not_count_as_connecting(assemble: Assemble) -> None:
    """Whoever polls is not one who opens streams too often."""
    here = await assemble(connects_per_minute=1, connects_burst=1)
    async with EventStream(here.port, path=METRICS) as stream:
        await stream.welcome()
        for _ in range(5):
            assert (await get(here.port, METRICS, headers=JSON)).status == 200


async def test_a_count_is_made_once_a_second(here: Assembly) -> None:
    """However many ask: to count users is some work."""
    before = (await get(here.port, METRICS, headers=JSON)).json()
    async with EventStream(here.port, token=USER) as stream:
        await stream.welcome()
        here.services.watchers._time = lambda: here.services.watchers._counted_at + 0.5
        assert (await get(here.port, METRICS, headers=JSON)).json() == before
        here.services.watchers._time = here.clock.time
        here.clock.ahead += 2
        after = (await get(here.port, METRICS, headers=JSON)).json()
        assert (after["totalClients"], after["totalUsers"]) == (1, 1)
        assert after["timestamp"] <= str(rfc3339_of(here.clock.time()))


async def test_what_other_processes_have_is_counted(assemble: Assemble) -> None:
    """As of their last sign of life; a user at both counts once, and no process counts what it cannot hear."""
    one, other = await assemble(), await assemble()
    async with (
        EventStream(one.port, token=USER) as first,
        EventStream(other.port, token=USER) as second,
        EventStream(other.port, path=METRICS) as third,
    ):
        for stream in (first, second, third):
            await stream.welcome()
        for _ in range(3):
            for process in (one, other):
                await process.roll.exchange()
        counted = (await get(one.port, METRICS, token=ADMIN, headers=JSON)).json()
        assert (counted["totalClients"], counted["totalUsers"], counted["clientsPerUser"]) == (3, 1, {"u1": 2})
        await other.roll.leave()
        await one.roll.exchange()
        one.clock.ahead += 1
        assert (await get(one.port, METRICS, headers=JSON)).json()["totalClients"] == 1


async def test_its_connection_is_like_any_other(here: Assembly) -> None:
    """It hears nothing but the totals, can be resumed, and is closed like others."""
    async with EventStream(here.port, path=METRICS, token=token("u2")) as stream:
        resume = (await stream.welcome()).json()["resumeToken"]
    async with EventStream(here.port, f"?resume={resume}", path=METRICS) as stream:
        assert (await stream.welcome()).json()["clientId"].startswith("u2-metrics-")
        await wait_until(lambda: len(here.hub.connections) == 1, "the first one has left")
        (connection,) = here.hub.connections
        here.hub.close(connection, 1012, "over")
        assert (await stream.next_of("closing")).json()["code"] == 1012


async def test_a_full_server_counts_nobody_in(assemble: Assemble, expected_logs: list[str]) -> None:
    """Whoever is turned away watches nothing."""
    expected_logs.append("refused: the server has as many connections")
    here = await assemble(max_connections=1)
    async with EventStream(here.port, token=USER) as stream:
        await stream.welcome()
        assert (await get(here.port, METRICS, headers={"Accept": "text/event-stream"})).status == 200
        assert len(here.services.watchers) == 0


async def test_totals_can_be_compressed(here: Assembly) -> None:
    """As any stream can (T7)."""
    async with EventStream(here.port, path=METRICS, Accept_Encoding="gzip") as stream:
        assert stream.head.headers["content-encoding"] == "gzip"
        await stream.welcome()
        for _ in range(2):
            assert (await stream.next_of("metrics")).json()["totalClients"] == 1
            await here.services.watchers.tell()
