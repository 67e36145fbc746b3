"""Tests of all limits in force (S6), from outside: each at the limit and one beyond it, through every door, and what is told of it."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from ipaddress import ip_network
from typing import Any

import pytest

from handlers import refusals
from handlers.refusals import REASONS
from hub.errors import POLICY, TRY_LATER
from settings import UNLIMITED
from tests.handlers.asking import ask, new_stream
from tests.handlers.assembly import PUBLISHER, USER, Assembly, token
from tests.handlers.clients import CLOSE, PING, EventStream, RawWebSocket, Response, event, frame, get, publish, request, websocket
from tests.handlers.conftest import Assemble
from tests.waiting import wait_until

FORGED = token("u1", secret="another secret for HS256, of 32 bytes")
EXPIRED = token("u1", seconds=-60)
AGENT = token("bot", roles=["agent"])


@pytest.fixture(autouse=True)
def _refusals_are_logged(expected_logs: list[str]) -> None:
    """Every test here refuses something, and that is logged."""
    expected_logs.extend(REASONS.values())


@pytest.fixture
async def assemble(assemble: Assemble) -> Assemble:
    """A function that starts an assembly whose time stands still: however long a test takes, nothing more is allowed meanwhile."""

    async def start(**settings: Any) -> Assembly:
        here = await assemble(**settings)
        here.clock.stop()
        return here

    return start


def counted(here: Assembly) -> dict[str, int]:
    """Return the reasons for which something was refused, and how often."""
    return {reason: count for reason, count in here.services.rates.refusals.counts.items() if count}


def too_many(response: Response, retry_after: int) -> bool:
    """Tell whether an answer is a 429 in the one envelope that says when to come back."""
    assert response.error() == (429, "too_many_requests", None)
    assert response.headers["retry-after"] == str(retry_after)
    return True


# ---- connecting


async def opens(here: Assembly, times: int, **headers: str) -> list[int]:
    """Open streams as a script does, without `Accept`; return the statuses."""
    statuses = []
    for _ in range(times):
        async with EventStream(here.port, token=USER, Accept="*/*", **headers) as stream:
            statuses.append(stream.head.status)
    return statuses


async def test_an_address_that_connects_too_often_is_refused_and_told_when_to_come_back(assemble: Assemble) -> None:
    """The burst is allowed at once; one more is a 429, until the time that it tells has passed."""
    here = await assemble(connects_per_minute=5, connects_burst=3)
    assert await opens(here, 3) == [200, 200, 200]
    assert too_many(await get(here.port, "/v1/stream", token=USER), 12)
    assert counted(here) == {refusals.CONNECTS: 1}
    here.clock.ahead += 12
    assert await opens(here, 2) == [200, 429]


async def test_streams_and_websockets_count_together_whoever_asks(assemble: Assemble) -> None:
    """An attempt counts before anything is known of it: with a bad credential, with none, and over either transport."""
    here = await assemble(connects_per_minute=1, connects_burst=4)
    assert (await get(here.port, "/v1/stream")).status == 401
    assert (await get(here.port, "/ws")).status == 426
    assert await opens(here, 1) == [200]
    async with websocket(here.port, USER):
        pass
    assert too_many(await get(here.port, "/v1/stream"), 60)
    async with RawWebSocket(here.port, token=USER) as refused:
        assert too_many(refused.head, 60)


async def test_eventsource_is_told_to_come_back_in_its_own_language(assemble: Assemble) -> None:
    """A browser gives up at any status but 200: it gets `closing`, and a `retry` that is the wait and some seconds more."""
    here = await assemble(connects_per_minute=5, connects_burst=1)
    await opens(here, 1)
    async with EventStream(here.port, token=USER) as stream:
        assert (stream.head.status, stream.head.headers["retry-after"]) == (200, "12")
        stream._text = (await stream.read_rest()).decode()
        closing = await stream.next()
    assert (closing.type, closing.retry) == ("closing", 12_000 + 1234)
    assert closing.json() == {"code": TRY_LATER, "reason": "this address connects too often", "retryMs": 12_000 + 1234}


async def test_an_organisation_that_is_full_sends_eventsource_away_likewise(assemble: Assemble) -> None:
    """Also where the organisation has as many connections as it may have, a browser can come back."""
    here = await assemble(connections_per_org=1)
    mine = token("u1", org="o1")
    async with websocket(here.port, mine):
        response = await get(here.port, "/v1/stream", token=mine, headers={"Accept": "text/event-stream"})
        assert (response.status, response.headers["retry-after"]) == (200, "10")
        assert too_many(await get(here.port, "/v1/stream", token=mine), 10)
    assert counted(here) == {refusals.ORG_CONNECTIONS: 2}


async def test_what_opens_nothing_does_not_count(assemble: Assemble) -> None:
    """Publishing, preflights and health checks are as frequent as they are."""
    here = await assemble(connects_per_minute=1, connects_burst=1)
    for _ in range(5):
        assert (await publish(here.port, event(), PUBLISHER)).status == 202
        assert (await request(here.port, "OPTIONS", "/v1/stream")).status == 204
        assert (await get(here.port, "/healthz")).status == 200
    assert await opens(here, 1) == [200]


async def test_behind_a_trusted_proxy_each_client_counts_by_its_own_address(assemble: Assemble) -> None:
    """The proxy's clients do not share its bucket, and what they write into the header themselves changes nothing."""
    here = await assemble(connects_per_minute=1, connects_burst=1, trusted_proxies=(ip_network("127.0.0.0/8"),))
    assert await opens(here, 2, X_Forwarded_For="203.0.113.1") == [200, 429]
    assert await opens(here, 1, X_Forwarded_For="203.0.113.2") == [200]
    assert await opens(here, 1, X_Forwarded_For="198.51.100.77, 203.0.113.1") == [429]
    assert await opens(here, 1, Forwarded="for=203.0.113.1") == [429]
    assert await opens(here, 1, Forwarded='for="[2001:db8::1]"') == [200]


async def test_without_a_trusted_proxy_headers_do_not_change_the_address(assemble: Assemble) -> None:
    """Nobody gets a bucket of his own by writing a header."""
    here = await assemble(connects_per_minute=1, connects_burst=1)
    assert await opens(here, 1, X_Forwarded_For="203.0.113.1") == [200]
    assert await opens(here, 1, X_Forwarded_For="203.0.113.2", Forwarded="for=203.0.113.3") == [429]


# ---- failed logins


async def _header(port: int, secret: str) -> Response:
    return await get(port, "/v1/stream", token=secret)


async def _query(port: int, secret: str) -> Response:
    return await get(port, f"/v1/stream?token={secret}")


async def _ticket(port: int, secret: str) -> Response:
    return await get(port, f"/v1/stream?ticket={secret}")


async def _resume(port: int, secret: str) -> Response:
    return await get(port, f"/v1/stream?resume={secret}")


async def _resume_beside_a_token(port: int, secret: str) -> Response:
    return await get(port, f"/v1/stream?resume={secret}", token=USER)


async def _cookie(port: int, secret: str) -> Response:
    return await get(port, "/v1/stream", headers={"Cookie": f"session={secret}"})


async def _publish(port: int, secret: str) -> Response:
    return await publish(port, event(), secret)


async def _subprotocol(port: int, secret: str) -> Response:
    async with RawWebSocket(port, headers={"Sec-WebSocket-Protocol": f"bearer.{secret}"}) as refused:
        return refused.head


async def _message(port: int, secret: str) -> Response:
    """Send a credential in the first message; what it is answered has the form of a response."""
    async with RawWebSocket(port) as opened:
        opened.say({"type": "auth", "token": secret})
        error = await opened.next("error")
        await opened.closed_with()
    status = {"unauthenticated": 401, "too_many_requests": 429}[error["code"]]
    return Response(status, {"retry-after": str(error.get("retryMs", 0) // 1000)})


DOORS = [_header, _query, _ticket, _resume, _resume_beside_a_token, _cookie, _publish, _subprotocol, _message]
Door = Callable[[int, str], Awaitable[Response]]


@pytest.mark.parametrize("door", DOORS)
async def test_credentials_that_do_not_hold_are_counted_through_every_door(assemble: Assemble, door: Door) -> None:
    """As many are looked at as there may be failures; then none is, wherever it comes, and the answer says for how long."""
    here = await assemble(failed_logins_per_minute=2)
    assert [(await door(here.port, FORGED)).status for _ in range(2)] == [401, 401]
    refused = await door(here.port, FORGED)
    assert (refused.status, refused.headers["retry-after"]) == (429, "30")
    assert too_many(await get(here.port, "/v1/stream", token=USER), 30)
    assert counted(here) == {refusals.FAILED_LOGINS: 2}
    here.clock.ahead += 30
    assert await opens(here, 1) == [200]


async def test_no_credential_and_one_that_did_hold_once_do_not_count(assemble: Assemble) -> None:
    """Clients whose token has just expired, and those that were never given one, attack nobody."""
    here = await assemble(failed_logins_per_minute=1)
    for _ in range(5):
        assert (await get(here.port, "/v1/stream")).status == 401
        assert (await get(here.port, "/v1/stream", token=EXPIRED)).status == 401
    assert await opens(here, 1) == [200]
    assert counted(here) == {}


# ---- messages


async def test_a_websocket_that_sends_too_much_is_told_and_lives_on(assemble: Assemble) -> None:
    """Messages beyond the rate are not acted on; the answer repeats their `ref`, and says when to send them again."""
    here = await assemble(messages_per_second=5)
    async with websocket(here.port, USER) as opened:
        opened.say(*({"type": "ping", "ref": str(number)} for number in range(21)))
        for number in range(20):
            assert (await opened.next("pong"))["ref"] == str(number)
        error = await opened.next("error")
        assert error["message"] == "at most 5 messages a second"
        assert (error["ref"], error["code"], error["retryMs"]) == ("20", "too_many_requests", 1000)
        here.clock.ahead += 1
        for number in range(5):
            await opened.ask({"type": "ping", "ref": str(number)}, "pong")
    assert counted(here) == {refusals.MESSAGES: 1}


async def test_a_websocket_that_goes_on_sending_too_much_is_closed(assemble: Assemble) -> None:
    """Being told ten times is enough."""
    here = await assemble(messages_per_second=1)
    async with websocket(here.port, USER) as opened:
        opened.say(*({"type": "ping"} for _ in range(100)))
        for _ in range(4):
            await opened.next("pong")
        for _ in range(11):
            assert (await opened.next("error"))["code"] == "too_many_requests"
        assert await opened.closed_with() == (POLICY, {"type": "closing", "code": POLICY, "reason": "too many messages"})
    assert counted(here) == {refusals.MESSAGES: 11}


async def test_ping_frames_count_as_messages_and_a_farewell_does_not(assemble: Assemble) -> None:
    """Frames of the protocol's own are work too; but that a client goes is heard at any rate."""
    here = await assemble(messages_per_second=1)
    async with websocket(here.port, USER) as opened:
        opened.send(frame(PING, b"x") * 5 + frame(CLOSE, (1000).to_bytes(2, "big")))
        assert [(await opened.next_frame())[0] for _ in range(4)] == [10] * 4
        assert (await opened.next("error"))["code"] == "too_many_requests"
        assert await opened.close_code() == 1000


async def test_before_a_credential_there_is_a_rate_too(assemble: Assemble) -> None:
    """A client that has not said who it is gets no more patience than others."""
    here = await assemble(messages_per_second=1)
    async with RawWebSocket(here.port) as opened:
        opened.send(frame(PING, b"x") * 5)
        assert [(await opened.next_frame())[0] for _ in range(4)] == [10] * 4
        assert (await opened.next("error"))["code"] == "too_many_requests"
        assert (await opened.closed_with())[0] == TRY_LATER


async def test_subscriptions_beyond_the_limit_are_counted(assemble: Assemble) -> None:
    """What the protocol refuses is in the metrics too."""
    here = await assemble(subscriptions_per_connection=1)
    async with websocket(here.port, USER) as opened:
        await opened.ask({"type": "subscribe", "topic": "a"}, "subscribed")
        assert (await opened.ask({"type": "subscribe", "topic": "b"}, "error"))["code"] == "too_many_requests"
    assert counted(here) == {refusals.SUBSCRIPTIONS: 1}


# ---- publishing


async def head(here: Assembly) -> int:
    """Return the number of the log's newest entry."""
    return (await here.log.head()).seq


async def test_a_publisher_that_publishes_too_much_is_refused_whole(assemble: Assemble) -> None:
    """A batch counts by its events; of one beyond the limit nothing is appended, and later it is taken."""
    here = await assemble(events_per_second=10)
    assert (await publish(here.port, [event(n) for n in range(20)], PUBLISHER)).status == 202
    before = await head(here)
    assert too_many(await publish(here.port, [event(), event()], PUBLISHER), 1)
    assert too_many(await publish(here.port, event(), PUBLISHER), 1)
    assert await head(here) == before
    assert (await publish(here.port, event(), token("p2", roles=["publisher"]))).status == 202
    assert counted(here) == {refusals.EVENTS: 2}
    here.clock.ahead += 1
    assert (await publish(here.port, [event(n) for n in range(10)], PUBLISHER)).status == 202


async def test_an_organisation_publishes_no_more_than_it_may(assemble: Assemble) -> None:
    """However many publishers it has; other organisations do not notice."""
    here = await assemble(org_events_per_second=10)
    first, second, other = (token(user, org=org, roles=["publisher"]) for user, org in (("p1", "o1"), ("p2", "o1"), ("p1", "o2")))
    assert (await publish(here.port, [event(n) for n in range(20)], first)).status == 202
    assert too_many(await publish(here.port, event(), second), 1)
    assert (await publish(here.port, event(), other)).status == 202
    assert counted(here) == {refusals.ORG_EVENTS: 1}


SECRET = {"user": {"cards": [{"cardNumber": "4711 4711"}]}}


@pytest.mark.parametrize(
    ("media_type", "body", "field"),
    [
        ("application/json", event(data=SECRET), "data.user.cards[0].cardNumber"),
        ("application/json", [event(), event(data={"api_key": 1})], "[1].data.api_key"),
        ("application/cloudevents+json", {"data": SECRET}, "data.user.cards[0].cardNumber"),
        ("application/cloudevents-batch+json", [{"data": 1}, {"data": {"PassWord": 1}}], "[1].data.PassWord"),
        (
            "application/cloudevents+json",
            {"data_base64": base64.b64encode(json.dumps(SECRET).encode()).decode()},
            "data.user.cards[0].cardNumber",
        ),
    ],
)
async def test_payloads_with_fields_named_like_secrets_are_refused(here: Assembly, media_type: str, body: Any, field: str) -> None:
    """In every form in which events are taken; nothing is appended, and neither answer nor log shows the value (S7)."""

    def completed(one: dict[str, Any]) -> dict[str, Any]:
        return {"specversion": "1.0", "id": "1", "source": "s", "type": "t", "audience": "public", **one} if "cloud" in media_type else one

    before = await head(here)
    body = [completed(one) for one in body] if isinstance(body, list) else completed(body)
    response = await publish(here.port, body, PUBLISHER, Content_Type=media_type)
    assert response.error() == (422, "invalid_event", field)
    assert b"4711" not in response.body
    assert await head(here) == before
    assert counted(here) == {refusals.REFUSED_FIELD: 1}


async def test_the_operator_says_which_fields_are_refused(assemble: Assemble) -> None:
    """Other names instead of the usual ones, or none."""
    here = await assemble(refused_fields=("token",))
    assert (await publish(here.port, event(data={"Token": "x"}), PUBLISHER)).status == 422
    assert (await publish(here.port, event(data={"password": "x"}), PUBLISHER)).status == 202
    none = await assemble(refused_fields=())
    assert (await publish(none.port, event(data={"token": "x", "password": "x"}), PUBLISHER)).status == 202


# ---- tickets and renewals


async def test_tickets_and_renewals_are_counted_together(assemble: Assemble, expected_logs: list[str]) -> None:
    """One more than allowed is refused with the time to wait, and nobody else's are (S6)."""
    expected_logs.append(REASONS[refusals.GRANTS])
    here = await assemble(grants_per_minute=2)

    async def ask(path: str, body: bytes, who: str) -> Response:
        return await request(here.port, "POST", path, headers={"Authorization": f"Bearer {who}"}, body=body)

    assert (await ask("/v1/tickets", b"", USER)).status == 201
    assert (await ask("/v1/renewals", b'{"clientId": "none"}', USER)).status == 202
    for path, body in (("/v1/tickets", b""), ("/v1/renewals", b'{"clientId": "none"}')):
        refused = await ask(path, body, USER)
        assert refused.error() == (429, "too_many_requests", None)
        assert 0 < int(refused.headers["retry-after"]) <= 30
    assert (await ask("/v1/tickets", b"", token("u2"))).status == 201
    assert counted(here) == {refusals.GRANTS: 2}


# ---- payment streams


async def test_payment_streams_made_and_changed_are_counted_together(assemble: Assemble, expected_logs: list[str]) -> None:
    """One more than allowed is refused with the time to wait, and nothing happens; a publisher's are not counted (S6)."""
    expected_logs.append(REASONS[refusals.PAYMENTS])
    here = await assemble(payments_per_minute=2)
    made = await ask(here.port, "POST", "/streams", new_stream("u1", "u2"), token=USER)
    path = f"/streams/{made.json()['stream']['streamId']}"
    assert (await ask(here.port, "POST", f"{path}/top-up", {"amount": "1"}, token=USER)).status == 200
    for target, body in ((f"{path}/top-up", {"amount": "1"}), ("/streams", new_stream("u1", "u2"))):
        refused = await ask(here.port, "POST", target, body, token=USER)
        assert refused.error() == (429, "too_many_requests", None)
        assert 0 < int(refused.headers["retry-after"]) <= 30
    assert (await ask(here.port, "POST", f"{path}/top-up", {"amount": "1"}, token=PUBLISHER)).json()["stream"]["depositedAmount"] == "102"
    assert counted(here) == {refusals.PAYMENTS: 2}


# ---- agents


async def test_an_agent_that_subscribes_too_often_is_reported_and_served(assemble: Assemble, caplog: pytest.LogCaptureFixture) -> None:
    """Streams and subscriptions count alike; the log names the agent, and nothing is refused (S5)."""
    here = await assemble(agent_subscriptions_per_minute=2)
    async with EventStream(here.port, token=AGENT) as stream:
        await stream.welcome()
    async with websocket(here.port, AGENT) as opened:
        for topic in ("a", "b", "c"):
            await opened.ask({"type": "subscribe", "topic": topic}, "subscribed")
    assert counted(here) == {refusals.AGENT_SUBSCRIPTIONS: 2}
    [line] = [one for one in caplog.records if one.getMessage() == REASONS[refusals.AGENT_SUBSCRIPTIONS]]
    assert getattr(line, "fields", {})["who"] == "bot"


# ---- all of them


async def test_with_0_nothing_is_limited(assemble: Assemble) -> None:
    """Each limit can be switched off."""
    names = ("connects_per_minute", "failed_logins_per_minute", "messages_per_second", "events_per_second", "org_events_per_second")
    here = await assemble(connects_burst=1, agent_subscriptions_per_minute=UNLIMITED, **dict.fromkeys(names, UNLIMITED))
    for _ in range(30):
        assert (await get(here.port, "/v1/stream", token=FORGED)).status == 401
    assert await opens(here, 30) == [200] * 30
    assert (await publish(here.port, [event(n) for n in range(500)], token("p", org="o", roles=["publisher"]))).status == 202
    async with websocket(here.port, AGENT) as opened:
        opened.say(*({"type": "ping"} for _ in range(90)))
        for _ in range(90):
            await opened.next("pong")
    await wait_until(lambda: not here.hub.connections, "all are gone")
    assert counted(here) == {}
