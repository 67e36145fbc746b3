"""Tests of handlers/subscribe.py: the life of payment streams, by stream, by user, or all of it; and how much is going on."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from tests.handlers.asking import ADMIN, AGENT, PUBLISHER, ask, caught_up, new_stream, own
from tests.handlers.assembly import Assembly, token
from tests.handlers.clients import EventStream, get, publish, websocket
from tests.handlers.conftest import Assemble

ALICE, BOB, EVE = token("GALICE"), token("GBOB"), token("GEVE")
PATH = "/events/subscribe"


def subscribed(here: Assembly, query: str, token: str, **headers: str) -> EventStream:
    """Open the subscription API."""
    return EventStream(here.port, query, token=token, path=PATH, **headers)


async def make(here: Assembly, id: str, sender: str = "GALICE", recipient: str = "GBOB") -> None:
    """Make a stream of this id."""
    response = await ask(here.port, "POST", "/streams", new_stream(sender, recipient, id=id), token=PUBLISHER)
    assert response.status == 201, response


async def top_up(here: Assembly, *ids: str) -> None:
    """Let something happen to streams, one after the other."""
    for id in ids:
        assert (await ask(here.port, "POST", f"/streams/{id}/top-up", {"amount": "1"}, token=PUBLISHER)).status == 200


async def heard(stream: EventStream, until: str) -> list[str]:
    """Return which streams the events that come are of, up to this one."""
    found: list[str] = []
    while not found or found[-1] != until:
        event = await stream.next()
        if event.type.startswith("stream."):
            found.append(event.json()["streamId"])
    return found


async def streams(here: Assembly) -> None:
    """Make the streams a1, b2 and c3: of Alice's with Bob, Bob's with Carol, and Carol's with Dave."""
    await make(here, "a1")
    await make(here, "b2", "GBOB", "GCAROL")
    await make(here, "c3", "GCAROL", "GDAVE")
    await make(here, "last", "GALICE", "GBOB")
    await caught_up(here)


@pytest.mark.parametrize(
    ("query", "who", "wanted"),
    [
        ("?streams=a1&streams=last", ALICE, ["a1", "last"]),
        ("?streams=a1,last", BOB, ["a1", "last"]),
        ("?streams=last", BOB, ["last"]),
        ("?users=GBOB", BOB, ["a1", "b2", "last"]),
        ("?users=GALICE&streams=last", ALICE, ["a1", "last"]),
        ("", BOB, ["a1", "b2", "last"]),
        ("", AGENT, []),
        ("?all=false", ALICE, ["a1", "last"]),
        ("?all=true", ADMIN, ["a1", "b2", "c3", "last"]),
        ("?streams=c3&streams=last", ADMIN, ["c3", "last"]),
        ("?users=GCAROL&streams=last", ADMIN, ["b2", "c3", "last"]),
        ("?all=1&streams=a1&users=GALICE", ADMIN, ["a1", "b2", "c3", "last"]),
    ],
)
async def test_what_is_named_is_heard(here: Assembly, query: str, who: str, wanted: list[str]) -> None:
    """Together it is a union, and each event comes once; without names it is everything of one's own (C1)."""
    await streams(here)
    async with subscribed(here, query, who) as stream:
        await stream.welcome()
        await top_up(here, "a1", "b2", "c3", "last")
        if wanted:
            assert await heard(stream, "last") == wanted
        else:
            await caught_up(here)
            (connection,) = here.hub.connections
            assert here.hub.place(connection) == here.hub.head


async def test_every_change_is_an_event(here: Assembly) -> None:
    """In order, with ids to come back by (C3)."""
    async with subscribed(here, "?users=GBOB", BOB) as stream:
        await stream.welcome()
        await make(here, "a1")
        for step, value in (("top-up", {"amount": "5"}), ("withdraw", {"amount": "105"}), ("complete", None)):
            await ask(here.port, "POST", f"/streams/a1/{step}", value, token=PUBLISHER)
        await make(here, "a2")
        await ask(here.port, "POST", "/streams/a2/cancel", token=ALICE)
        events = [await stream.next() for _ in range(6)]
        types = ["created", "topped_up", "withdrawn", "completed", "created", "cancelled"]
        assert [event.type for event in events] == [f"stream.{name}" for name in types]
    async with subscribed(here, "?users=GBOB", BOB, Last_Event_ID=str(events[2].id)) as stream:
        await stream.welcome()
        assert [(await stream.next()).id for _ in range(3)] == [event.id for event in events[3:]]


async def test_what_others_publish_is_heard_too(here: Assembly) -> None:
    """A backend that has its own streams publishes the same events, and admins hear all of them; other types are not shown."""
    async with subscribed(here, "?all=true", ADMIN) as stream, subscribed(here, "", token("u7")) as others:
        await stream.welcome()
        await others.welcome()
        completed = {"topic": "payments.streams", "type": "stream.completed", "audience": ["user:u7"], "data": {"streamId": "x1"}}
        plain = {"topic": "elsewhere", "type": "order:seen", "audience": ["user:u7", "public"], "data": {"streamId": "x0"}}
        assert (await publish(here.port, [plain, completed], PUBLISHER)).status == 202
        for one in (stream, others):
            event = await one.next()
            assert (event.type, event.json()) == ("stream.completed", {"streamId": "x1"})


@pytest.mark.parametrize(
    ("query", "who", "field"),
    [
        ("?streams=c3", ALICE, "streams"),
        ("?streams=unknown", ALICE, "streams"),
        ("?streams=a1&streams=c3", ALICE, "streams"),
        ("?streams=c3", PUBLISHER, "streams"),
        ("?streams=c3", AGENT, "streams"),
        ("?users=GBOB", ALICE, "users"),
        ("?users=GALICE,GBOB", ALICE, "users"),
        ("?users=nobody", PUBLISHER, "users"),
        ("?all=true", ALICE, "all"),
        ("?all=true", PUBLISHER, "all"),
        ("?all=true&streams=a1", ALICE, "all"),
    ],
)
async def test_what_is_somebody_elses_is_403(here: Assembly, query: str, who: str, field: str) -> None:
    """Whether it is there or not, in the same words (A2, S4); all of it is for admins."""
    await streams(here)
    assert (await get(here.port, f"{PATH}{query}", token=who)).error() == (403, "forbidden", field)


async def test_foreign_and_unknown_streams_are_the_same(here: Assembly) -> None:
    """Word by word."""
    await streams(here)
    found = [await get(here.port, f"{PATH}?streams={id}", token=ALICE) for id in ("c3", "unknown")]
    assert found[0].json()["message"] == found[1].json()["message"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("?stream=1", "stream"),
        ("?topics=**", "topics"),
        ("?all=yes", "all"),
        ("?all=true,true", "all"),
        (f"?streams={quote('a b')}", "streams[0]"),
        (f"?streams=1&streams={quote('a b')}", "streams[1]"),
        (f"?users={'x' * 300}", "users[0]"),
        ("?streams=" + ",".join(str(number) for number in range(101)), "streams"),
    ],
)
async def test_what_cannot_be_meant_is_400(here: Assembly, query: str, field: str) -> None:
    """With the parameter that is wrong."""
    assert (await get(here.port, f"{PATH}{query}", token=ADMIN)).error() == (400, "invalid_request", field)


async def test_who_owns_too_much_has_to_name_it(here: Assembly, monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams are called streams here, also in what is wrong."""
    monkeypatch.setattr("handlers.belongings.MAX_OWNED", 1)
    await streams(here)
    assert (await get(here.port, PATH, token=BOB)).error() == (400, "invalid_request", "streams")
    async with subscribed(here, "?streams=a1", BOB) as stream:
        assert stream.head.status == 200


# --- coming back


@pytest.mark.parametrize("query", ["?all=true", "?streams=c3", "?users=GCAROL&streams=b2"])
async def test_an_admin_comes_back_to_what_it_named(here: Assembly, query: str) -> None:
    """With the resume token alone, or beside its credential; a credential without the role opens nothing of it (S1)."""
    await streams(here)
    async with subscribed(here, query, ADMIN) as stream:
        resume = (await stream.welcome()).json()["resumeToken"]
    await top_up(here, "c3")
    await caught_up(here)
    for who in (None, ADMIN):
        async with EventStream(here.port, f"?resume={resume}", token=who, path=PATH) as stream:
            assert (await stream.welcome()).type == "welcome"
            assert await heard(stream, "c3") == ["c3"]
            assert (await stream.next()).type == "live"
    former = token("root")
    assert (await get(here.port, f"{PATH}?resume={resume}", token=former)).error() == (403, "forbidden", "streams")
    assert (await get(here.port, f"{PATH}?resume={resume}", token=ALICE)).error() == (403, "forbidden", "resume")
    assert (await get(here.port, f"{PATH}?resume={resume}&all=true", token=ADMIN)).error() == (400, "invalid_request", "all")
    assert (await get(here.port, f"/v1/stream?resume={resume}", token=ADMIN)).error() == (400, "invalid_request", "resume")


async def test_a_user_comes_back_to_what_is_still_its_own(here: Assembly) -> None:
    """What was taken away meanwhile is refused."""
    await streams(here)
    async with subscribed(here, "?streams=a1", ALICE) as stream:
        resume = (await stream.welcome()).json()["resumeToken"]
    async with subscribed(here, f"?resume={resume}", ALICE) as stream:
        assert (await stream.welcome()).type == "welcome"
    await own(here.port, "stream/a1", "user:GBOB")
    await caught_up(here)
    assert (await get(here.port, f"{PATH}?resume={resume}", token=ALICE)).error() == (403, "forbidden", "streams")


async def test_an_admin_that_is_none_any_more_is_not_renewed(here: Assembly, expected_logs: list[str]) -> None:
    """It goes on with the old credential until that ends, and not longer (S3)."""
    expected_logs.append("not renewed")
    await streams(here)
    async with subscribed(here, "?all=true", ADMIN) as stream:
        client = (await stream.welcome()).json()["clientId"]
        for who in (token("root"), ADMIN):
            assert (await ask(here.port, "POST", "/v1/renewals", {"clientId": client}, token=who)).status == 202
        assert (await stream.next()).type == "renewed"
        (connection,) = here.hub.connections
        assert connection.principal.has_role("admin")


async def test_a_channel_belongs_to_nobody(here: Assembly) -> None:
    """So that nobody but an admin hears all of it, whatever a publisher says."""
    response = await ask(here.port, "PUT", "/v1/resources/channel/subscriptions", {"owners": ["user:GEVE"]}, token=PUBLISHER)
    assert response.error() == (400, "invalid_request", None)
    assert (await get(here.port, "/v1/stream?resources=channel/subscriptions", token=EVE)).status == 403


# --- the status channel


@pytest.mark.parametrize("transport", ["sse", "websocket"])
async def test_a_streams_status_is_heard_by_its_parties(here: Assembly, transport: str) -> None:
    """`stream:updated` and `settle:finished` of one stream, over either transport; guessing another's id is 403 (A1, A2)."""
    await streams(here)
    audience = ["resource:stream/a1"]
    updated = {"topic": "payments.streams", "type": "stream:updated", "audience": audience, "data": {"streamId": "a1", "status": "active"}}
    finished = {"topic": "payments.settlements", "type": "settle:finished", "audience": audience, "data": {"streamId": "a1"}}
    if transport == "sse":
        async with EventStream(here.port, "?resources=stream/a1&types=stream:updated,settle:finished", token=BOB) as stream:
            await stream.welcome()
            await publish(here.port, [updated, finished], PUBLISHER)
            assert [(await stream.next()).type for _ in range(2)] == ["stream:updated", "settle:finished"]
        for id in ("c3", "unknown"):
            assert (await get(here.port, f"/v1/stream?resources=stream/{id}", token=ALICE)).error() == (403, "forbidden", "resources")
        return
    async with websocket(here.port, BOB) as socket:
        ask = {"type": "subscribe", "topic": "payments.**", "filters": {"resources": ["stream/a1"]}}
        await socket.ask(ask, "subscribed")
        await publish(here.port, [updated, finished], PUBLISHER)
        assert [(await socket.next("event"))["event"] for _ in range(2)] == ["stream:updated", "settle:finished"]
        for id in ("c3", "unknown"):
            foreign = {"type": "subscribe", "topic": "**", "filters": {"resources": [f"stream/{id}"]}}
            assert (await socket.ask(foreign, "error"))["code"] == "forbidden"


# --- how much is going on


async def test_connections_and_subscriptions_are_counted(here: Assembly) -> None:
    """Now, for everybody who is signed in (C2)."""
    assert (await get(here.port, "/events/stats", token=EVE)).json() == {
        "connections": 0,
        "subscriptions": 0,
        "servers": 1,
        "here": {"connections": 0, "subscriptions": 0},
    }
    async with subscribed(here, "", ALICE) as stream, websocket(here.port, BOB) as socket:
        await stream.welcome()
        for topic in ("a.*", "b.*"):
            await socket.ask({"type": "subscribe", "topic": topic}, "subscribed")
        found = (await get(here.port, "/events/stats", token=EVE)).json()
        assert (found["connections"], found["subscriptions"]) == (2, 3)


async def test_other_processes_count_too(assemble: Assemble) -> None:
    """As far as they have told; those of this one are told apart."""
    one, other = await assemble(), await assemble()
    async with subscribed(one, "", ALICE) as stream, subscribed(other, "", BOB) as second:
        await stream.welcome()
        await second.welcome()
        for _ in range(2):
            await one.roll.exchange()
            await other.roll.exchange()
        expected = {"connections": 2, "subscriptions": 2, "servers": 2, "here": {"connections": 1, "subscriptions": 1}}
        assert (await get(one.port, "/events/stats", token=EVE)).json() == expected
        await other.roll.leave()
        await one.roll.exchange()
        assert (await get(one.port, "/events/stats", token=EVE)).json()["connections"] == 1
