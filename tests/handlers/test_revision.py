"""Tests of handlers/revision.py: what was told in a part of the log that nobody saw is asked of MongoDB."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from handlers import belongings, revision
from handlers.belongings import Belonging
from handlers.revision import Revision
from hub.connection import Connection
from hub.connection import State as Standing
from storage.revoked import Revocation
from storage.state import State
from tests.handlers.asking import caught_up, heard, own, published, resume_token, ticket
from tests.handlers.assembly import Assembly, token
from tests.handlers.clients import EventStream, get, websocket
from tests.handlers.conftest import Assemble
from tests.storage.faults import FaultyDatabase, Held, documents, not_sent, running
from tests.waiting import wait_until

R1 = "resource:stream/1"
ANEW = "rights were read anew"


@pytest.fixture
async def faulty(mongodb_uri: str, database_name: str) -> AsyncIterator[FaultyDatabase]:
    database = FaultyDatabase(mongodb_uri, database_name)
    yield database
    database.close()


async def own_unseen(here: Assembly, resource: str, *owners: str) -> None:
    """Change who owns a resource as another process does whose word of it is lost."""
    await here.state.ownership.set_owners(resource, owners)


async def passed(here: Assembly, connection: Connection, id: str) -> None:
    """Wait until a connection has gone past an event, heard or not."""
    await caught_up(here)
    await wait_until(lambda: connection.state is Standing.ATTACHED, "it is at the head of the log")
    assert here.hub.id_of(here.hub.head) == id


async def miss(here: Assembly) -> None:
    """Lose a part of the log, and wait until rights were read anew."""
    here.hub.rights.lose()
    await wait_until(lambda: not here.hub.rights.missed.is_set(), "the revision has begun")
    await here.revision.revise()


async def test_what_was_revoked_unseen_is_in_force_afterwards(here: Assembly, expected_logs: list[str]) -> None:
    """The connection ends, and no other is opened with it."""
    expected_logs.append(ANEW)
    mine = token(jti="t1")
    async with EventStream(here.port, token=mine) as stream, EventStream(here.port, token=token("u2")) as other:
        await stream.welcome()
        await other.welcome()
        await here.state.revocations.add(Revocation("token", "t1", time.time(), time.time() + 600))
        await miss(here)
        assert (await stream.next_of("closing")).json()["code"] == 4401
        assert await stream.ends()
        await published(here, "public")
        assert await heard(other, "public") == ["public"]
    assert (await get(here.port, "/v1/stream", token=mine)).status == 401


@pytest.mark.parametrize("query", ["", "?resources=stream/1"])
async def test_what_was_taken_unseen_is_not_heard_of_afterwards(here: Assembly, expected_logs: list[str], query: str) -> None:
    """Whether all is heard of or what was named; and what comes back unseen is heard of again."""
    expected_logs.append(ANEW)
    await own(here.port, "stream/1", "user:u1")
    await caught_up(here)
    async with EventStream(here.port, query, token=token()) as stream:
        await stream.welcome()
        await own_unseen(here, "stream/1", "user:u2")
        await miss(here)
        (connection,) = here.hub.connections
        assert connection.owned == frozenset()
        await passed(here, connection, *await published(here, R1))
        await own_unseen(here, "stream/1", "user:u1")
        await miss(here)
        assert connection.owned == {R1}
        ids = await published(here, R1)
        assert (await stream.next_of("order:placed")).id == ids[0]


async def test_a_connection_that_hears_of_no_resource_is_left_alone(here: Assembly, faulty: FaultyDatabase) -> None:
    """A WebSocket without subscriptions has nothing to be asked for."""
    await own(here.port, "stream/1", "user:u2")
    await caught_up(here)
    async with websocket(here.port, token()):
        (connection,) = here.hub.connections
        state = State(faulty, clock=time.time)
        await Revision(here.hub, state, Belonging(state.ownership, here.hub.rights.changes)).revise()
        assert not connection.owned
        assert faulty.count("find", "ownership") == 1, "whether there is any resource"
        await state.close()


async def test_who_owns_too_many_to_ask_for_keeps_only_its_own(here: Assembly, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it does not own any more goes, however many others there are."""
    monkeypatch.setattr(belongings, "MAX_OWNED", 3)
    for number in range(3):
        await own(here.port, f"stream/{number}", "user:u1")
        await caught_up(here)
    async with EventStream(here.port, token=token()) as stream:
        await stream.welcome()
        (connection,) = here.hub.connections
        await own(here.port, "stream/3", "user:u1")
        await caught_up(here)
        assert len(connection.owned) == 4
        await own_unseen(here, "stream/1", "user:u2")
        await own_unseen(here, "stream/4", "user:u1")
        here.hub.rights.changes.lose()
        await here.revision.revise()
        assert connection.owned == {"resource:stream/0", "resource:stream/2", "resource:stream/3"}


async def test_what_is_subscribed_to_meanwhile_stays(here: Assembly, faulty: FaultyDatabase) -> None:
    """The question was put before; its answer does not take away what it did not ask for."""
    await own(here.port, "stream/1", "user:u1")
    await caught_up(here)
    await own(here.port, "stream/2", "user:u1")
    await caught_up(here)
    async with websocket(here.port, token()) as opened:
        await opened.ask({"type": "subscribe", "topic": "a", "filters": {"resources": ["stream/1"]}}, "subscribed")
        state = State(faulty, clock=time.time)
        own_revision = Revision(here.hub, state, Belonging(state.ownership, here.hub.rights.changes))
        await state.open()
        held = Held()
        faulty.inject("find", not_held := Held())
        faulty.inject("find", not_held)
        faulty.inject("find", held)
        not_held.let_go.set()
        revising = asyncio.create_task(own_revision.revise())
        await held.reached.wait()
        await opened.ask({"type": "subscribe", "topic": "b", "filters": {"resources": ["stream/2"]}}, "subscribed")
        held.let_go.set()
        await revising
        (connection,) = here.hub.connections
        assert connection.owned == {"resource:stream/1", "resource:stream/2"}
        await state.close()


async def test_a_connection_that_closes_meanwhile_is_left_alone(here: Assembly, faulty: FaultyDatabase) -> None:
    """The answer comes too late for it."""
    await own(here.port, "stream/1", "user:u1")
    await caught_up(here)
    state = State(faulty, clock=time.time)
    await state.open()
    held = Held()
    async with EventStream(here.port, token=token()) as stream:
        await stream.welcome()
        faulty.inject("find", let := Held())
        faulty.inject("find", let)
        faulty.inject("find", held)
        let.let_go.set()
        revising = asyncio.create_task(Revision(here.hub, state, Belonging(state.ownership, here.hub.rights.changes)).revise())
        await held.reached.wait()
        (connection,) = here.hub.connections
    await wait_until(lambda: connection.closed, "the client is gone")
    held.let_go.set()
    assert await revising
    assert connection.owned == {R1}
    await state.close()


async def test_many_connections_do_not_hold_up_the_loop(here: Assembly, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others have their turn in between."""
    monkeypatch.setattr(revision, "SLICE", 1)
    async with EventStream(here.port, token=token()) as one, EventStream(here.port, token=token("u2")) as other:
        await one.welcome()
        await other.welcome()
        assert await here.revision.revise()


async def test_it_goes_on_until_mongodb_answers(
    here: Assembly, faulty: FaultyDatabase, monkeypatch: pytest.MonkeyPatch, expected_logs: list[str]
) -> None:
    """What was missed stays missed until it was asked for."""
    expected_logs.append(ANEW)
    monkeypatch.setattr(revision, "RETRY_SECONDS", 0.0)
    state = State(faulty, clock=time.time)
    await state.open()
    await here.state.revocations.add(Revocation("token", "t1", time.time(), time.time() + 600))
    for task in here.tasks:
        if task.get_name() == "revision of rights":
            task.cancel()
    faulty.inject("find", not_sent)
    faulty.inject("find", not_sent)
    async with running(Revision(here.hub, state, Belonging(state.ownership, here.hub.rights.changes)).run()):
        here.hub.rights.lose()
        await wait_until(lambda: len(here.hub.rights.revocations) == 1, "it was read")
    assert faulty.injected()
    await state.close()


async def test_a_process_that_starts_later_knows_what_was_revoked_before(assemble: Assemble) -> None:
    """Every kind of credential is refused there too, before it has read a word of the log (S3)."""
    first = await assemble()
    mine = token("u1", org="o1", jti="t1", iat=int(time.time()))
    code, resume = await ticket(first.port, mine), await resume_token(first.port, mine)
    for revoked in (Revocation("token", "t1", 0.0, time.time() + 60), Revocation("org", "o2", time.time() + 5, time.time() + 60)):
        await first.state.revocations.add(revoked)
    later = await assemble()
    refused = [
        await get(later.port, "/v1/stream", token=mine),
        await get(later.port, f"/v1/stream?ticket={code}"),
        await get(later.port, f"/v1/stream?resume={resume}"),
        await get(later.port, "/v1/stream", token=token("u2", org="o2", iat=int(time.time()))),
    ]
    assert [one.error() for one in refused] == [(401, "unauthenticated", None)] * 4
    async with EventStream(later.port, token=token("u1", org="o1", jti="t2")) as stream:
        await stream.welcome()


async def test_after_the_log_was_dropped_rights_are_read_anew(assemble: Assemble, expected_logs: list[str]) -> None:
    """What was told in the log that is gone, on every process, and what is told in the new one (L8, S3)."""
    expected_logs += [ANEW, "tail interrupted", "gap reported", "log"]
    one, other = await assemble(), await assemble()
    await own(one.port, "stream/1", "user:u1")
    await caught_up(one, other)
    async with EventStream(other.port, token=token(jti="t1")) as revoked, EventStream(other.port, token=token()) as owner:
        await revoked.welcome()
        await owner.welcome()
        await one.state.revocations.add(Revocation("token", "t1", time.time(), time.time() + 600))
        await own_unseen(one, "stream/1", "user:u2")
        await own_unseen(one, "stream/2", "user:u1")
        await one.log.database.command({"drop": one.log.name})
        assert (await revoked.next_of("closing")).json()["code"] == 4401
        (connection,) = other.hub.connections
        await wait_until(lambda: connection.owned == {"resource:stream/2"}, "what belongs to whom was read anew")
        await own(one.port, "stream/3", "user:u1")
        await wait_until(lambda: "resource:stream/3" in connection.owned, "the new log tells of changes")
        await published(one, R1, "resource:stream/2", "resource:stream/3")
        assert await heard(owner, "resource:stream/3") == ["resource:stream/2", "resource:stream/3"]


async def test_after_a_hole_in_the_log_rights_are_read_anew(here: Assembly, expected_logs: list[str]) -> None:
    """Entries that are not there any more when they are looked for may have told something (L5, S3)."""
    expected_logs += [ANEW, "tail interrupted", "gap reported", "were not seen"]
    async with EventStream(here.port, token=token(jti="t1")) as stream:
        await stream.welcome()
        await here.state.revocations.add(Revocation("token", "t1", time.time(), time.time() + 600))
        head = await here.log.head()
        (document,) = documents(head.seq + 5, [head.ms])
        await here.log.database.command({"insert": here.log.name, "documents": [document]})
        assert (await stream.next_of("closing")).json()["code"] == 4401
