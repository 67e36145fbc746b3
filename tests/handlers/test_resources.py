"""Tests of handlers/resources.py: who owns what reaches every connection on every process, live and in replays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from handlers.resources import MAX_OWNERS
from storage.owned import Owned
from tests.handlers.asking import ADMIN, AGENT, PUBLISHER, ask, caught_up, heard, own, published
from tests.handlers.assembly import Assembly, token
from tests.handlers.clients import EventStream, get, websocket
from tests.handlers.conftest import Assemble

R1, R2 = "resource:stream/1", "resource:stream/2"
PATH = "/v1/resources/stream/1"


@pytest.mark.parametrize("query", ["", "?resources=stream/1", "?topics=orders.*&resources=stream/1,stream/2"])
async def test_what_is_given_and_taken_reaches_living_connections_of_other_processes(assemble: Assemble, query: str) -> None:
    """From that place in the log on, for whoever hears of all and for whoever names it (S4)."""
    one, other = await assemble(), await assemble()
    await own(one.port, "stream/1", "user:u1")
    await own(one.port, "stream/2", "user:u1")
    await caught_up(other)
    async with EventStream(other.port, query, token=token("u1")) as stream:
        await stream.welcome()
        await published(one, R1)
        assert await heard(stream, R1) == [R1]
        await own(one.port, "stream/1", "user:u2")
        await published(one, R1, R2)
        if query != "?resources=stream/1":
            assert await heard(stream, R2) == [R2]
        await own(one.port, "stream/1", "org:o9", "user:u1")
        await published(one, R1)
        assert await heard(stream, R1) == [R1]
        await ask(one.port, "DELETE", PATH, token=ADMIN)
        ids = await published(one, R1, R2, "user:u1")
        await caught_up(other)
        (connection,) = other.hub.connections
        assert connection.owned == {R2} - ({R2} if query == "?resources=stream/1" else set())
        assert other.hub.id_of(other.hub.place(connection)) == ids[-1]


async def test_what_is_given_to_whoever_is_connected_already_is_heard(assemble: Assemble) -> None:
    """By its user, organisation or entity; on SSE and WebSocket, and not by others nor by those who have named something else."""
    one, other = await assemble(), await assemble()
    me = token("u1", org="o1", entity="e1")
    async with (
        EventStream(other.port, token=me) as stream,
        EventStream(other.port, token=token("u2")) as others,
        websocket(other.port, me) as socket,
    ):
        await stream.welcome()
        await others.welcome()
        await socket.ask({"type": "subscribe", "topic": "**"}, "subscribed")
        for number, owner in enumerate(("user:u1", "org:o1", "entity:e1"), 1):
            await own(one.port, f"stream/{number}", owner)
        names = [f"resource:stream/{number}" for number in (1, 2, 3)]
        await published(one, *names, "public")
        assert await heard(stream, "public") == [*names, "public"]
        assert await heard(others, "public") == ["public"]
        assert [(await socket.next("event"))["data"]["n"] for _ in range(4)] == [*names, "public"]


@pytest.mark.parametrize("way", ["earliest", "resume", "websocket"])
async def test_a_replay_knows_the_rights_of_now(assemble: Assemble, way: str) -> None:
    """What was taken away is not replayed, although it could be heard when it was new; what was given is (S4, L9)."""
    one, other = await assemble(), await assemble()
    await own(one.port, "stream/1", "user:u1")
    async with EventStream(other.port, token=token("u1")) as stream:
        resume = (await stream.welcome()).json()["resumeToken"]
        await published(one, R1, R2, "public")
        assert await heard(stream, "public") == [R1, "public"]
    await own(one.port, "stream/1", "user:u2")
    await own(one.port, "stream/2", "user:u1")
    await caught_up(other)
    if way == "websocket":
        async with websocket(other.port, token("u1")) as socket:
            await socket.ask({"type": "subscribe", "topic": "**", "from": "earliest"}, "subscribed")
            assert [(await socket.next("event"))["data"]["n"] for _ in range(2)] == [R2, "public"]
    else:
        query = "?from=earliest" if way == "earliest" else f"?resume={resume}"
        async with EventStream(other.port, query, token=token("u1")) as stream:
            assert await heard(stream, "public") == [R2, "public"]


@pytest.mark.parametrize("resource", ["stream/taken", "stream/unknown", "stream/nobodys"])
async def test_a_websocket_is_refused_what_is_not_its_own(here: Assembly, resource: str) -> None:
    """In the same words, whether it is another's, was somebody's, or never was (S4)."""
    await own(here.port, "stream/taken", "user:u2")
    await own(here.port, "stream/nobodys", "user:u2")
    await own(here.port, "stream/nobodys")
    async with websocket(here.port, token("u1")) as socket:
        answer = await socket.ask({"type": "subscribe", "ref": "1", "topic": "**", "filters": {"resources": [resource]}}, "error")
        assert answer == {
            "type": "error",
            "ref": "1",
            "code": "forbidden",
            "message": "not every one of these resources is yours",
            "field": "resources",
        }


async def test_owners_are_told_and_replaced(here: Assembly) -> None:
    """Each once; to a keeper, and to whoever is one of them."""
    response = await ask(here.port, "PUT", PATH, {"owners": ["user:u1", "org:o1", "user:u1"]}, token=PUBLISHER)
    assert (response.status, response.json()) == (200, {"resource": "stream/1", "owners": ["user:u1", "org:o1"]})
    for mine in (PUBLISHER, ADMIN, token("u1"), token("u5", org="o1")):
        assert (await get(here.port, PATH, token=mine)).json() == response.json()
    await own(here.port, "stream/1", "entity:e1")
    assert (await get(here.port, PATH, token=ADMIN)).json()["owners"] == ["entity:e1"]
    assert (await get(here.port, PATH, token=token("u1"))).status == 403
    assert (await ask(here.port, "DELETE", PATH, token=PUBLISHER)).status == 204
    assert (await get(here.port, PATH, token=ADMIN)).error() == (404, "not_found", None)


async def test_whoever_may_not_know_gets_the_same_answer_in_the_same_way(here: Assembly, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another's, nobody's and an unknown one, after the same question to MongoDB; an agent has no use of its other roles (S4, S5)."""
    await own(here.port, "stream/taken", "user:u2")
    asked: list[str] = []
    owners_of = here.state.ownership.owners_of

    async def recorded(names: Sequence[str]) -> dict[str, Owned]:
        asked.append(f"{len(names)} resource")
        return await owners_of(names)

    monkeypatch.setattr(here.state.ownership, "owners_of", recorded)
    mine = token("u1", audiences=["resource:stream/taken", "user:u2"])
    for id in ("taken", "unknown"):
        response = await get(here.port, f"/v1/resources/stream/{id}", token=mine)
        assert (response.error(), response.json()["message"]) == ((403, "forbidden", None), "the resource is not yours")
    assert asked == ["1 resource"] * 2
    for id in ("taken", "unknown"):
        assert (await get(here.port, f"/v1/resources/stream/{id}", token=AGENT)).error() == (403, "forbidden", None)


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({}, "owners"),
        ({"owners": []}, "owners"),
        ({"owners": [f"user:u{number}" for number in range(MAX_OWNERS + 1)]}, "owners"),
        ({"owners": ["user:u1", "public"]}, "owners[1]"),
        ({"owners": ["resource:stream/2"]}, "owners[0]"),
        ({"owners": ["user:"]}, "owners[0]"),
        ({"owners": ["user:a b"]}, "owners[0]"),
        ({"owners": [5]}, "owners[0]"),
        ({"owners": ["user:u1"], "resource": "x"}, "resource"),
    ],
)
async def test_owners_must_be_somebody(here: Assembly, value: Any, field: str) -> None:
    """1 to 100 users, organisations and entities."""
    assert (await ask(here.port, "PUT", PATH, value, token=PUBLISHER)).error() == (400, "invalid_request", field)


async def test_as_many_owners_as_the_limit_are_taken(here: Assembly) -> None:
    """All of them are kept."""
    owners = [f"user:u{number}" for number in range(MAX_OWNERS)]
    await own(here.port, "stream/1", *owners)
    assert (await get(here.port, PATH, token=token("u99"))).json()["owners"] == owners


@pytest.mark.parametrize(
    "path", ["/v1/resources/a%20b/1", "/v1/resources/stream/a%2Cb", "/v1/resources/a%2Fb/%20", f"/v1/resources/stream/{'x' * 256}"]
)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_what_cannot_be_a_resource_is_400(here: Assembly, method: str, path: str) -> None:
    """For whoever may ask at all."""
    value = {"owners": ["user:u1"]} if method == "PUT" else None
    assert (await ask(here.port, method, path, value, token=PUBLISHER)).error() == (400, "invalid_request", None)
