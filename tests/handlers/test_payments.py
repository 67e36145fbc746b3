"""Tests of handlers/payments.py: payment streams are made, changed and looked at, by those who may; their events reach their parties."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from channels.streams import MAX_AMOUNT_DIGITS
from handlers import payments
from handlers.parties import Parties
from hub import rights
from storage.streams import Change, Stream, Streams
from tests.handlers.asking import ADMIN, AGENT, PUBLISHER, ask, caught_up, new_stream, own
from tests.handlers.assembly import Assembly, token
from tests.handlers.clients import EventStream, Response, SseEvent, get, request
from tests.handlers.conftest import Assemble

ALICE, BOB, EVE = token("GALICE"), token("GBOB"), token("GEVE")
HUGE = "1" + "0" * 300 + "1." + "0" * 300 + "7"


async def create(here: Assembly, token: str = ALICE, key: str | None = None, **fields: Any) -> Response:
    """Ask for a stream from Alice to Bob."""
    headers = {} if key is None else {"Idempotency_Key": key}
    return await ask(here.port, "POST", "/streams", {**new_stream("GALICE", "GBOB"), **fields}, token=token, **headers)


async def made(here: Assembly, **fields: Any) -> str:
    """Return the id of a new stream from Alice to Bob."""
    response = await create(here, **fields)
    assert response.status == 201, response
    return str(response.json()["stream"]["streamId"])


async def change(here: Assembly, id: str, step: str, amount: str | None = None, token: str = ALICE, key: str | None = None) -> Response:
    """Ask for a step of a stream."""
    headers = {} if key is None else {"Idempotency_Key": key}
    value = None if amount is None else {"amount": amount}
    return await ask(here.port, "POST", f"/streams/{id}/{step}", value, token=token, **headers)


async def told(here: Assembly, token: str, query: str = "") -> list[SseEvent]:
    """Return all events that are in the log for somebody."""
    await caught_up(here)
    async with EventStream(here.port, f"?from=earliest{query}", token=token) as stream:
        found = []
        while (one := await stream.next()).type != "live":
            found.append(one)
        return found[1:]


# --- making


async def test_a_stream_is_made_and_told_of(here: Assembly) -> None:
    """Its answer has the stream and the event's id; both parties get that, with every amount as it was written, nobody else does (C4)."""
    response = await create(here, depositedAmount=HUGE, ratePerSecond="0.0000001000")
    assert response.status == 201
    state = response.json()["stream"]
    given = new_stream("GALICE", "GBOB", depositedAmount=HUGE, ratePerSecond="0.0000001000")
    assert state == {**given, "streamId": state["streamId"], "withdrawnAmount": "0", "status": "active"}
    assert response.headers["location"] == f"/streams/{state['streamId']}"
    for party in (ALICE, BOB):
        (event,) = await told(here, party)
        assert (event.type, event.id) == ("stream.created", response.json()["eventId"])
        assert event.json() == {**given, "streamId": state["streamId"]}
        assert (await get(here.port, f"/streams/{state['streamId']}", token=party)).json() == {"stream": state}
    assert await told(here, EVE) == []


async def test_nobody_is_cut_off_by_streams_that_others_make_for_him(assemble: Assemble, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user can give another one only so many: whoever owns too much is closed. A retry needs no room, and a publisher may give more."""
    monkeypatch.setattr(rights, "MAX_OWNED", 4)
    here = await assemble()
    here.services.parties = Parties(here.services.belonging, most=2)
    async with EventStream(here.port, token=BOB) as stream:
        await stream.welcome()
        answers = [await create(here, key=str(number)) for number in range(5)]
        assert [answer.status for answer in answers] == [201, 201, 409, 409, 409]
        assert (await create(here, key="1")).json()["duplicate"]
        assert (await create(here, PUBLISHER)).status == 201
        assert [(await stream.next()).type for _ in range(3)] == 3 * ["stream.created"]
        assert [one.principal.user for one in here.hub.connections] == ["GBOB"]


async def test_a_retry_shows_nothing_of_what_was_taken_away(here: Assembly) -> None:
    """Whoever made a stream that is somebody else's by now is told what everybody else is, also when he asks for it again (S4)."""
    id = (await create(here, key="k")).json()["stream"]["streamId"]
    await own(here.port, f"stream/{id}", "user:GBOB")
    assert (await create(here, key="k")).error() == (403, "forbidden", None)


async def test_its_owners_are_its_parties(here: Assembly) -> None:
    """So that they can subscribe to it as a resource."""
    id = await made(here)
    assert (await get(here.port, f"/v1/resources/stream/{id}", token=ADMIN)).json()["owners"] == ["user:GALICE", "user:GBOB"]
    assert [event.type for event in await told(here, BOB, f"&resources=stream/{id}")] == ["stream.created"]


async def test_the_event_has_the_requests_correlation_id(here: Assembly) -> None:
    """So it can be followed from here to delivery (S9)."""
    await ask(here.port, "POST", "/streams", new_stream("GALICE", "GBOB"), token=ALICE, X_Correlation_ID="from-here")
    (entry,) = [entry for entry in await here.log.read(0, 100) if entry.type == "stream.created"]
    assert (entry.correlation_id, entry.source, entry.topic) == ("from-here", "tailcast.payments", "payments.streams")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sender", 5),
        ("recipient", "GALICE"),
        ("tokenAddress", "a b"),
        ("ratePerSecond", 0.5),
        ("ratePerSecond", "0"),
        ("depositedAmount", 100),
        ("depositedAmount", "1e9"),
        ("depositedAmount", "-5"),
        ("depositedAmount", "9" * (MAX_AMOUNT_DIGITS + 2)),
        ("startTime", "soon"),
        ("memo", "x"),
        ("id", "a/b"),
        ("id", -5.5),
    ],
)
async def test_a_bad_field_is_named(here: Assembly, field: str, value: Any) -> None:
    """With 422; amounts are strings, since numbers of JSON do not stay exact."""
    assert (await create(here, token=PUBLISHER, **{field: value})).error() == (422, "invalid_event", field)


@pytest.mark.parametrize("field", ["sender", "recipient", "tokenAddress", "ratePerSecond", "depositedAmount", "startTime"])
async def test_a_missing_field_is_named(here: Assembly, field: str) -> None:
    """All six are needed."""
    value = {name: value for name, value in new_stream("GALICE", "GBOB").items() if name != field}
    assert (await ask(here.port, "POST", "/streams", value, token=ALICE)).error() == (422, "invalid_event", field)


@pytest.mark.parametrize("body", [b"{", b"no", b'{"sender": "\xff"}'])
async def test_what_is_no_json_is_400(here: Assembly, body: bytes) -> None:
    """Before anything else is said of it."""
    assert (await request(here.port, "POST", "/streams", token=ALICE, body=body)).error() == (400, "invalid_request", None)


async def test_only_its_sender_or_a_keeper_makes_a_stream(here: Assembly) -> None:
    """A recipient cannot take, and an agent may only subscribe, whatever its other roles (S5)."""
    for who, status in ((BOB, 403), (EVE, 403), (AGENT, 403), (token("GALICE", roles=["agent"]), 403), (PUBLISHER, 201), (ADMIN, 201)):
        assert (await create(here, token=who)).status == status


async def test_ids_are_given_by_keepers(here: Assembly) -> None:
    """Others could find out which there are; for them there is a key."""
    assert (await create(here, id="77")).error() == (403, "forbidden", "id")
    for id in ("77", 78):
        assert (await create(here, token=PUBLISHER, id=id)).json()["stream"]["streamId"] == str(id)


async def test_what_comes_too_often_waits(assemble: Assemble, expected_logs: list[str]) -> None:
    """Streams and their changes count as what their sender publishes (S6)."""
    expected_logs.append("refused")
    here = await assemble(events_per_second=1)
    here.clock.stop()
    found = [await create(here) for _ in range(4)]
    assert found[0].status == 201
    assert found[-1].error() == (429, "too_many_requests", None)


async def test_what_cannot_be_told_of_does_not_happen(here: Assembly, monkeypatch: pytest.MonkeyPatch) -> None:
    """An event that its type does not allow would never get into the log, and so nothing is kept."""
    id = await made(here)
    monkeypatch.setattr(payments, "payload", lambda *_: {"streamId": id, "amount": 5})
    assert (await create(here, key="k1")).error() == (422, "invalid_event", "amount")
    assert (await change(here, id, "top-up", "1")).error() == (422, "invalid_event", "amount")
    assert (await get(here.port, f"/streams/{id}", token=ALICE)).json()["stream"]["depositedAmount"] == "100"


async def test_a_page_may_send_a_key(here: Assembly) -> None:
    """The preflight, which has no credential, says so."""
    origin = {"Origin": f"http://127.0.0.1:{here.port}"}
    response = await request(here.port, "OPTIONS", "/streams", headers=origin)
    assert response.status == 204
    assert "Idempotency-Key" in response.headers["access-control-allow-headers"]


# --- retries


@pytest.mark.parametrize("way", ["key", "id"])
async def test_a_retried_creation_makes_one_stream(here: Assembly, way: str) -> None:
    """Under its key, or its id: the same answer, and one event."""
    fields = {"token": ALICE, "key": "k1"} if way == "key" else {"token": PUBLISHER, "id": "77"}
    first, second = await create(here, **fields), await create(here, **fields)
    assert (first.status, second.status) == (201, 201)
    assert second.json() == {**first.json(), "duplicate": True}
    assert len(await told(here, BOB)) == 1


async def test_creations_at_the_same_time_make_one_stream(here: Assembly) -> None:
    """Each is answered with it."""
    found = await asyncio.gather(*(create(here, key="k1") for _ in range(5)))
    assert {one.json()["eventId"] for one in found} == {found[0].json()["eventId"]}
    assert [one.json()["duplicate"] for one in found].count(False) == 1
    assert len(await told(here, BOB)) == 1


@pytest.mark.parametrize(("way", "field"), [("key", "Idempotency-Key"), ("id", "id")])
async def test_another_stream_under_the_same_name_is_refused(here: Assembly, way: str, field: str) -> None:
    """409: which one was meant is not known."""
    fields = {"token": ALICE, "key": "k1"} if way == "key" else {"token": PUBLISHER, "id": "77"}
    await create(here, **fields)
    assert (await create(here, **fields, depositedAmount="101")).error() == (409, "conflict", field)


async def test_a_key_is_its_users_own(here: Assembly) -> None:
    """The same word of another user, or of a namesake in another organisation, is another key."""
    ids = [(await create(here, token=who, key="k1")).json()["stream"]["streamId"] for who in (ALICE, PUBLISHER, token("GALICE", org="o1"))]
    assert len(set(ids)) == 3


@pytest.mark.parametrize("key", ["a b", "x" * 257])
async def test_a_key_is_a_word(here: Assembly, key: str) -> None:
    """Of up to 256 characters."""
    assert (await create(here, key=key)).error() == (400, "invalid_request", "Idempotency-Key")


async def test_a_retry_long_after_has_the_first_event(here: Assembly, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although the stream has changed since."""
    first = await create(here, key="k1")
    await change(here, first.json()["stream"]["streamId"], "cancel")
    again = (await create(here, key="k1")).json()
    assert (again["eventId"], again["stream"]["status"]) == (first.json()["eventId"], "cancelled")


# --- changing


async def test_each_step_is_told_of(here: Assembly) -> None:
    """With exact sums, in order, to both parties (C3)."""
    id = await made(here, depositedAmount="100.50")
    steps = [("top-up", "0.0001", ALICE), ("withdraw", "100.5001", BOB), ("cancel", None, BOB)]
    found = [await change(here, id, step, amount, token=who) for step, amount, who in steps]
    assert [one.status for one in found] == [200] * 3
    expected = {"depositedAmount": "100.5001", "withdrawnAmount": "100.5001", "status": "cancelled"}
    assert found[-1].json()["stream"].items() >= expected.items()
    for party in (ALICE, BOB):
        events = (await told(here, party))[1:]
        assert [event.id for event in events] == [one.json()["eventId"] for one in found]
        assert [(event.type, event.json()) for event in events] == [
            ("stream.topped_up", {"streamId": id, "amount": "0.0001", "depositedAmount": "100.5001"}),
            ("stream.withdrawn", {"streamId": id, "amount": "100.5001", "withdrawnAmount": "100.5001", "recipient": "GBOB"}),
            ("stream.cancelled", {"streamId": id, "withdrawnAmount": "100.5001"}),
        ]


@pytest.mark.parametrize(
    ("step", "allowed"),
    [("top-up", "alice publisher"), ("withdraw", "bob publisher"), ("cancel", "alice bob publisher"), ("complete", "publisher")],
)
async def test_each_step_is_its_partys(here: Assembly, step: str, allowed: str) -> None:
    """The sender adds, the recipient takes, either ends it early; keepers may everything, an agent nothing."""
    who = {"alice": ALICE, "bob": BOB, "eve": EVE, "agent": AGENT, "publisher": PUBLISHER}
    amount = "1" if step in ("top-up", "withdraw") else None
    found = {name: (await change(here, await made(here), step, amount, token=shown)).status for name, shown in who.items()}
    assert found == {name: 200 if name in allowed.split() else 403 for name in who}


@pytest.mark.parametrize("target", ["", "/top-up"])
async def test_foreign_and_unknown_are_the_same(here: Assembly, target: str) -> None:
    """403 for whoever guesses; 404 for keepers, who may know (S4)."""
    id = await made(here)
    method, value = ("POST", {"amount": "1"}) if target else ("GET", None)
    foreign = await ask(here.port, method, f"/streams/{id}{target}", value, token=EVE)
    unknown = await ask(here.port, method, f"/streams/unknown{target}", value, token=EVE)
    assert foreign.error() == unknown.error() == (403, "forbidden", None)
    assert foreign.json()["message"] == unknown.json()["message"]
    for keeper in (PUBLISHER, ADMIN):
        assert (await ask(here.port, method, f"/streams/unknown{target}", value, token=keeper)).error() == (404, "not_found", None)
        assert (await ask(here.port, method, f"/streams/{id}{target}", value, token=keeper)).status == 200


async def test_a_stream_that_was_taken_away_is_not_changed(here: Assembly) -> None:
    """Ownership counts, and not only the names that the stream was made with."""
    id = await made(here)
    await own(here.port, f"stream/{id}", "user:GBOB")
    assert (await change(here, id, "top-up", "1")).status == 403
    assert (await get(here.port, f"/streams/{id}", token=ALICE)).status == 403
    assert (await change(here, id, "withdraw", "1", token=BOB)).status == 200


async def test_what_the_state_does_not_allow_is_409(here: Assembly) -> None:
    """Nothing is told of it."""
    id = await made(here)
    assert (await change(here, id, "withdraw", "100.01", token=BOB)).error() == (409, "conflict", "amount")
    assert (await change(here, id, "complete", token=PUBLISHER)).status == 200
    for step, amount in (("top-up", "1"), ("withdraw", "1"), ("cancel", None), ("complete", None)):
        assert (await change(here, id, step, amount, token=PUBLISHER)).error() == (409, "conflict", None)
    assert [event.type for event in await told(here, BOB)] == ["stream.created", "stream.completed"]


@pytest.mark.parametrize(
    ("step", "value", "field"),
    [
        ("top-up", None, "amount"),
        ("top-up", {"amount": 5}, "amount"),
        ("withdraw", {"amount": "0"}, "amount"),
        ("cancel", {"amount": "5"}, "amount"),
        ("complete", {"reason": "x"}, "reason"),
    ],
)
async def test_a_steps_bad_field_is_named(here: Assembly, step: str, value: Any, field: str) -> None:
    """What moves money has an amount, and nothing else has."""
    id = await made(here)
    assert (await ask(here.port, "POST", f"/streams/{id}/{step}", value, token=PUBLISHER)).error() == (422, "invalid_event", field)


async def test_a_step_that_does_not_exist_is_404(here: Assembly) -> None:
    """There is nothing at that path."""
    assert (await change(here, "s1", "destroy", token=ADMIN)).error() == (404, "not_found", None)


async def test_a_retried_step_happens_once(here: Assembly) -> None:
    """Under its key: the same event, the state as it is now; also when the stream is over by then."""
    id = await made(here)
    first, second = [await change(here, id, "top-up", "5", key="k1") for _ in range(2)]
    assert second.json() == {**first.json(), "duplicate": True}
    await change(here, id, "cancel")
    third = (await change(here, id, "top-up", "5", key="k1")).json()
    assert (third["eventId"], third["stream"]["depositedAmount"]) == (first.json()["eventId"], "105")
    assert (await change(here, id, "top-up", "6", key="k1")).error() == (409, "conflict", "Idempotency-Key")
    assert (await change(here, id, "top-up", "5", token=PUBLISHER, key="k1")).error() == (409, "conflict", None)


async def test_steps_at_the_same_time_all_count(assemble: Assemble) -> None:
    """On several processes; one after the other, each told of once."""
    one, other = await assemble(), await assemble()
    id = await made(one)
    await caught_up(one, other)
    found = await asyncio.gather(*(change(where, id, "top-up", "0.1") for where in (one, other) * 4))
    assert [response.status for response in found] == [200] * 8
    events = (await told(one, BOB))[1:]
    assert [event.json()["depositedAmount"] for event in events] == [f"100.{digit}" for digit in range(1, 9)]
    assert sorted(response.json()["eventId"] for response in found) == sorted(str(event.id) for event in events)


async def test_whoever_never_comes_to_change_it_is_told_to_come_back(here: Assembly, monkeypatch: pytest.MonkeyPatch) -> None:
    """After so many attempts; nothing was done."""
    id = await made(here)

    async def beaten(self: Streams, stream: Stream, state: object, change: Change) -> None:
        """Somebody else was first."""

    monkeypatch.setattr(Streams, "begin", beaten)
    monkeypatch.setattr(payments, "ATTEMPTS", 2)
    response = await change(here, id, "top-up", "1")
    assert response.error() == (503, "unavailable", None)
    assert response.headers["retry-after"] == "1"


async def test_another_process_need_not_have_heard_of_it(assemble: Assemble, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has the answer of one process may go on with any other at once, also if it is the first resource that there is (L11)."""
    one, other = await assemble(), await assemble()
    assert other.state.ownership.is_empty
    monkeypatch.setattr(other.hub, "receive", lambda entries: 0.0)  # nothing of the log arrives there
    id = await made(one)
    assert (await change(other, id, "top-up", "1")).status == 200
    assert (await get(other.port, f"/streams/{id}", token=BOB)).json()["stream"]["depositedAmount"] == "101"
