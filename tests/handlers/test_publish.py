"""Tests of handlers/publish.py: what publishers are answered, and what of it reaches the log."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from typing import Any

import pytest

from handlers.publish import parse
from hub.errors import UnsupportedMedia
from storage.entries import Entry
from tests.handlers.assembly import PUBLISHER, USER, Assembly, token
from tests.handlers.clients import EventStream, Wire, event, get, publish, request_bytes
from tests.handlers.conftest import Assemble, StoppableMongoDB


async def entries(here: Assembly) -> list[Entry]:
    """Return what was published, without the log's own first entry."""
    return [entry for entry in await here.log.read(0, 1000) if entry.audience]


# ---- what is taken


async def test_one_event_is_answered_with_its_id(here: Assembly) -> None:
    """202, and the id under which every subscriber will see it (X4, T12)."""
    response = await publish(here.port, event(), PUBLISHER)
    (entry,) = await entries(here)
    assert (response.status, response.json()) == (202, {"events": [{"id": entry.id, "duplicate": False}]})
    assert (entry.topic, entry.type, entry.audience, entry.data, entry.source) == (
        "orders.eu",
        "order:placed",
        ("public",),
        '{"n": 1}',
        "p1",
    )


async def test_an_array_is_answered_in_order(here: Assembly) -> None:
    """Each event of an array gets its id, in order, and they follow each other in the log (X4)."""
    response = await publish(here.port, [event(number) for number in range(20)], PUBLISHER)
    stored = await entries(here)
    assert [one["id"] for one in response.json()["events"]] == [entry.id for entry in stored]
    assert [json.loads(entry.data)["n"] for entry in stored] == list(range(20))


async def test_a_retry_gets_the_first_events_id(here: Assembly) -> None:
    """The publisher's id makes a retry known, alone and within an array; nothing is appended twice (L4)."""
    first = (await publish(here.port, event(1, id="a"), PUBLISHER)).json()["events"][0]
    again = (await publish(here.port, [event(2, id="b"), event(1, id="a"), event(2, id="b")], PUBLISHER)).json()["events"]
    assert again[1] == {"id": first["id"], "duplicate": True}
    assert [one["duplicate"] for one in again] == [False, True, True]
    assert again[2]["id"] == again[0]["id"] != first["id"]
    assert len(await entries(here)) == 2


async def test_a_retry_of_another_source_is_another_event(here: Assembly) -> None:
    """(source, id) is unique, not the id alone (L4)."""
    answers = [(await publish(here.port, event(id="a", source=source), PUBLISHER)).json()["events"][0] for source in ("x", "y", "x")]
    assert [one["duplicate"] for one in answers] == [False, False, True]


async def test_numbers_reach_subscribers_unchanged(here: Assembly) -> None:
    """What JSON readers would round, shorten or refuse goes through as it was written (L1)."""
    data = '{"a":1.10,"b":1e400,"c":12345678901234567890,"d":-0.0,"e":1E-7}'
    async with EventStream(here.port, token=USER) as stream:
        await stream.welcome()
        body = json.dumps(event()).replace('{"n": 1}', data).encode()
        assert (await publish(here.port, body, PUBLISHER)).status == 202
        assert (await stream.next()).data == data


async def test_line_ends_in_data_cannot_forge_an_event(here: Assembly) -> None:
    """Payload text over several lines stays one event with the same JSON (T1)."""
    body = json.dumps(event()).replace('{"n": 1}', '{"n":\r\n\r\n"id: 5",\n\n"m":\r2}').encode()
    async with EventStream(here.port, token=USER) as stream:
        await stream.welcome()
        assert (await publish(here.port, body, PUBLISHER)).status == 202
        received = await stream.next()
        assert (received.type, received.json()) == ("order:placed", {"n": "id: 5", "m": 2})


@pytest.mark.parametrize("roles", [["publisher"], ["admin"], ["user", "publisher"]])
async def test_publishers_and_admins_may_publish(here: Assembly, roles: list[str]) -> None:
    """Each of the two roles will do (X4, S5)."""
    assert (await publish(here.port, event(), token(roles=roles))).status == 202


@pytest.mark.parametrize("roles", [[], ["user"], ["agent"], ["Publisher"], ["publisher "]])
async def test_nobody_else_may_publish(here: Assembly, roles: list[str]) -> None:
    """A good credential without the role is 403, before the body is looked at (S5)."""
    assert (await publish(here.port, b"no json", token(roles=roles))).error() == (403, "forbidden", None)
    assert not await entries(here)


async def test_a_publisher_needs_a_credential(here: Assembly) -> None:
    """Without one it is 401, before the body is looked at."""
    assert (await publish(here.port, b"no json", None)).error() == (401, "unauthenticated", None)


# ---- what is refused


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "invalid_request"),
        (b"{", 400, "invalid_request"),
        (b"\xff\xfe", 400, "invalid_request"),
        (json.dumps(event()).encode().replace(b"orders.eu", b"orders.\xc3\x28"), 400, "invalid_request"),
        (b"[" * 10_000, 400, "invalid_request"),
        (b'{"topic":"a","type":"b","audience":["public"],"data":' + b"[" * 10_000 + b"]" * 10_000 + b"}", 400, "invalid_request"),
        (b"[]", 422, "invalid_event"),
        (b"5", 422, "invalid_event"),
    ],
)
async def test_a_body_that_cannot_be_understood_is_refused(here: Assembly, body: bytes, status: int, code: str) -> None:
    """No JSON, no UTF-8, nested beyond measure, or no event at all."""
    assert (await publish(here.port, body, PUBLISHER)).error() == (status, code, None)
    assert not await entries(here)


async def test_a_wrong_field_is_422(here: Assembly) -> None:
    """The answer names the field (X6); see test_events.py for all of them."""
    assert (await publish(here.port, event(audience=["everybody"]), PUBLISHER)).error() == (422, "invalid_event", "audience[0]")
    assert (await publish(here.port, event(type="welcome"), PUBLISHER)).error() == (422, "invalid_event", "type")


async def test_of_an_array_with_a_bad_event_nothing_is_taken(here: Assembly) -> None:
    """The answer says of each bad event which it is and why; the good ones are not appended either (T12)."""
    response = await publish(here.port, [event(1), event(2, topic=""), event(3), event(4, type=5)], PUBLISHER)
    assert response.error() == (422, "invalid_event", "[1].topic")
    assert [(one["index"], one["field"]) for one in response.json()["errors"]] == [(1, "topic"), (3, "type")]
    assert not await entries(here)


async def test_an_event_that_is_too_large_is_413(assemble: Assemble) -> None:
    """The limit of one event, alone or in an array, of which nothing is taken (T5)."""
    here = await assemble(max_event_bytes=1024)
    large = event("x" * 1024)
    assert (await publish(here.port, large, PUBLISHER)).error() == (413, "too_large", "data")
    response = await publish(here.port, [event(), large], PUBLISHER)
    assert response.error() == (413, "too_large", "[1].data")
    assert "1024" in response.json()["message"]
    assert not await entries(here)


async def test_an_array_that_is_too_long_is_413(assemble: Assemble) -> None:
    """The limit of events in one request (T5)."""
    here = await assemble(max_batch_events=3)
    assert (await publish(here.port, [event()] * 3, PUBLISHER)).status == 202
    response = await publish(here.port, [event()] * 4, PUBLISHER)
    assert response.error() == (413, "too_large", None)
    assert "3" in response.json()["message"]


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "application/xml", "", "json"])
async def test_another_media_type_is_415(here: Assembly, media_type: str) -> None:
    """The answer names those that are understood. A form could be sent by any page without a preflight."""
    response = await publish(here.port, event(), PUBLISHER, Content_Type=media_type)
    assert response.error() == (415, "unsupported_media_type", None)
    assert "application/cloudevents+json" in response.json()["message"]


@pytest.mark.parametrize("media_type", ["application/json", "application/json; charset=utf-8", "Application/JSON ;x"])
def test_a_media_type_may_have_parameters(media_type: str) -> None:
    """Case and parameters of the media type do not matter (RFC 9110, 8.3.1)."""
    assert len(parse(json.dumps(event()).encode(), media_type)) == 1


def test_an_unknown_media_type_is_shown_in_part() -> None:
    """What the client sent is repeated only so far."""
    with pytest.raises(UnsupportedMedia) as caught:
        parse(b"", "x" * 5000)
    assert len(str(caught.value)) < 300


# ---- CloudEvents


CLOUD_EVENT = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "order.filled", "audience": "public"}


async def test_a_cloudevent_is_taken(here: Assembly) -> None:
    """Structured content mode; a retry is known by source and id (T12)."""
    for duplicate in (False, True):
        response = await publish(
            here.port, {**CLOUD_EVENT, "data": {"n": 1}}, PUBLISHER, Content_Type="application/cloudevents+json; charset=utf-8"
        )
        assert (response.status, response.json()["events"][0]["duplicate"]) == (202, duplicate)
    (entry,) = await entries(here)
    assert (entry.topic, entry.type, entry.source, entry.data) == ("order.filled", "order.filled", "/shop", '{"n": 1}')


async def test_a_batch_of_cloudevents_is_taken(here: Assembly) -> None:
    """Batched content mode, also with `data_base64` (T12)."""
    encoded = base64.b64encode(b'{"n": 1.10}').decode()
    batch: list[Any] = [{**CLOUD_EVENT, "data": 1}, {**CLOUD_EVENT, "id": "2", "data_base64": encoded}, {**CLOUD_EVENT, "id": "3"}]
    response = await publish(here.port, batch, PUBLISHER, Content_Type="application/cloudevents-batch+json")
    assert response.status == 202
    assert [entry.data for entry in await entries(here)] == ["1", '{"n": 1.10}', "null"]


@pytest.mark.parametrize("media_type", ["application/cloudevents+json", "application/cloudevents-batch+json"])
async def test_a_cloudevent_without_an_audience_is_422(here: Assembly, media_type: str) -> None:
    """Nobody is told what was not addressed to them; the field is named."""
    bare = {name: value for name, value in CLOUD_EVENT.items() if name != "audience"}
    batch = "batch" in media_type
    response = await publish(here.port, [CLOUD_EVENT, bare] if batch else bare, PUBLISHER, Content_Type=media_type)
    assert response.error() == (422, "invalid_event", "[1].audience" if batch else "audience")


# ---- MongoDB is away


async def test_while_mongodb_hangs_a_publish_is_503_and_a_retry_is_safe(
    assemble: Assemble, stoppable_mongodb: StoppableMongoDB, expected_logs: list[str]
) -> None:
    """503 with `Retry-After`; whether or not the events arrived after all, after the retry each is there once and in order (T12, L4)."""
    expected_logs += ["tail interrupted", "append in doubt", "append settled"]
    here = await assemble(stoppable_mongodb.uri, append_seconds=0.3)
    batch = [event(number, id=str(number)) for number in range(5)]
    await stoppable_mongodb.hang()
    response = await publish(here.port, batch, PUBLISHER)
    assert response.error() == (503, "unavailable", None)
    assert int(response.headers["retry-after"]) > 0
    stoppable_mongodb.go_on()
    answer = None
    while answer is None or answer.status == 503:  # its end is asserted by the time a test may take
        answer = await publish(here.port, batch, PUBLISHER)
    stored = await entries(here)
    assert [json.loads(entry.data)["n"] for entry in stored] == [0, 1, 2, 3, 4]
    assert [one["id"] for one in answer.json()["events"]] == [entry.id for entry in stored]


async def test_a_publish_that_waits_for_mongodb_is_answered_when_it_is_back(
    assemble: Assemble, stoppable_mongodb: StoppableMongoDB, expected_logs: list[str]
) -> None:
    """A short break costs a publisher time and nothing else."""
    expected_logs += ["tail interrupted", "append in doubt", "append settled"]
    here = await assemble(stoppable_mongodb.uri)
    await stoppable_mongodb.hang()
    waiting = asyncio.ensure_future(publish(here.port, event(), PUBLISHER))
    assert (await get(here.port, "/healthz")).status == 200
    assert not waiting.done()
    stoppable_mongodb.go_on()
    assert (await waiting).status == 202


async def test_a_publisher_that_leaves_does_not_disturb(here: Assembly) -> None:
    """A client that hangs up in the middle of its body, or before its answer, costs nobody anything."""
    text = json.dumps(event()).encode()
    headers = {"Host": "x", "Authorization": f"Bearer {PUBLISHER}", "Content-Length": str(len(text))}
    for part in (text[:5], text):
        async with Wire(here.port) as wire:
            wire.send(request_bytes("POST", "/v1/events", headers, part))
    assert (await publish(here.port, event(), PUBLISHER)).status == 202


async def test_what_was_published_is_logged_with_its_correlation_id(here: Assembly, caplog: pytest.LogCaptureFixture) -> None:
    """At level DEBUG, each event with its id, so that it can be followed from there (S9, S10)."""
    caplog.set_level(logging.DEBUG, "tailcast")
    response = await publish(here.port, [event(1), event(2)], PUBLISHER, X_Correlation_ID="c1")
    fields = [record.__dict__["fields"] for record in caplog.records if record.message == "published"]
    assert [one["id"] for one in fields] == [one["id"] for one in response.json()["events"]]
    assert {one["correlationId"] for one in fields} == {"c1"}
