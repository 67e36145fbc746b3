"""Tests of handlers/conversation.py: what is said on a WebSocket, in order, and how it ends."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from typing import Any

import pytest

from handlers import conversation
from handlers.conversation import ANSWERING, MAX_BACKLOG_BYTES, MAX_FAULTS
from handlers.sockets import SocketSink
from hub.frames import FrameReader
from hub.keeper import MISSED_PONGS
from settings import UNLIMITED
from tests.handlers.assembly import USER, Assembly, token
from tests.handlers.clients import (
    BINARY,
    CLOSE,
    HANDSHAKE,
    PING,
    PONG,
    TEXT,
    RawWebSocket,
    event,
    frame,
    get,
    request_bytes,
    text,
    websocket,
)
from tests.handlers.conftest import Assemble, StoppableMongoDB
from tests.handlers.issuer import Checker, Issuer
from tests.handlers.test_stream import published
from tests.waiting import wait_until


async def events(opened: RawWebSocket, count: int) -> list[Any]:
    """Return what `event(n)` was made with, of the next messages, which must be events."""
    return [(await opened.next("event"))["data"]["n"] for _ in range(count)]


# ---- the credential


async def test_a_credential_comes_in_the_first_message(here: Assembly) -> None:
    """Then the connection is opened and `welcome` said (S1)."""
    async with RawWebSocket(here.port) as opened:
        opened.say({"type": "auth", "token": USER})
        assert (await opened.next("welcome"))["clientId"]
        assert len(here.hub.connections) == 1


@pytest.mark.parametrize(
    ("message", "code", "error"),
    [
        ({"type": "subscribe", "topic": "a", "ref": "1"}, 4401, {"ref": "1", "code": "unauthenticated"}),
        ({"type": "ping"}, 4401, {"code": "unauthenticated"}),
        ({"type": "auth", "token": "x.y.z", "ref": "1"}, 4401, {"ref": "1", "code": "unauthenticated"}),
        ({"type": "auth", "token": token(seconds=-60)}, 4402, {"code": "token_expired"}),
        ({"type": "auth", "token": 5, "ref": "1"}, 1008, {"ref": "1", "code": "invalid_message", "field": "token"}),
        (b"no json", 1008, {"code": "invalid_message"}),
    ],
)
async def test_anything_but_a_good_credential_ends_it(here: Assembly, message: Any, code: int, error: dict[str, str]) -> None:
    """Before there is a credential nothing else is answered: an error, `closing`, and the close code that tells what was wrong (T9)."""
    async with RawWebSocket(here.port) as opened:
        opened.say(message)
        answer = await opened.next("error")
        assert error.items() <= answer.items()
        assert (await opened.closed_with())[0] == code
    assert not here.hub.connections


async def test_what_is_said_behind_a_refusal_is_not_heard(here: Assembly) -> None:
    """A good credential in the same breath comes too late: no connection is opened on a socket that is being closed."""
    async with RawWebSocket(here.port) as opened:
        opened.say({"type": "ping"}, {"type": "auth", "token": USER}, {"type": "subscribe", "topic": "a"})
        await opened.next("error")
        assert (await opened.closed_with())[0] == 4401
    await wait_until(lambda: not len(here.services.poller), "the socket is gone")
    assert not here.hub.connections


async def test_silence_is_not_waited_for_long(assemble: Assemble) -> None:
    """Without a credential in time the connection is closed with 4401 (S1)."""
    here = await assemble(auth_seconds=0.01)
    async with RawWebSocket(here.port) as opened:
        assert (await opened.closed_with())[0] == 4401


async def test_without_a_deadline_a_credential_may_come_whenever(assemble: Assemble) -> None:
    """A deadline of 0 is none; and with a credential there is none any more."""
    here = await assemble(auth_seconds=float("inf"))
    async with RawWebSocket(here.port) as opened:
        opened.say({"type": "auth", "token": USER})
        await opened.next("welcome")


async def test_whoever_has_not_said_who_it_is_takes_a_place(assemble: Assemble, expected_logs: list[str]) -> None:
    """The limit of connections counts it, and it gets in with the place it has; gone, it leaves the place to others (S6)."""
    expected_logs.append("refused: the server has as many connections")
    here = await assemble(max_connections=1)
    async with RawWebSocket(here.port) as first:
        for late in (None, USER):
            async with RawWebSocket(here.port, token=late) as refused:
                assert refused.head.error() == (503, "unavailable", None)
        assert (await get(here.port, "/v1/stream", token=USER)).error() == (503, "unavailable", None)
        first.say({"type": "auth", "token": USER})
        await first.next("welcome")
        assert not here.services.waiting
    await wait_until(lambda: not here.hub.connections, "the place is free")
    async with RawWebSocket(here.port) as silent:
        silent.say({"type": "ping"})
        await silent.next("error")
        async with websocket(here.port, USER):  # while the refused one lingers
            pass


async def test_whoever_says_who_it_is_while_the_server_stops_is_refused(here: Assembly) -> None:
    """It is told 1013: nothing new is taken (T10)."""
    async with RawWebSocket(here.port) as late:
        here.services.stopping = True
        late.say({"type": "auth", "token": USER})
        assert (await late.next("error"))["code"] == "unavailable"
        assert (await late.closed_with())[0] == 1013
    assert not here.hub.connections


async def test_whoever_has_not_said_who_it_is_is_sent_away(here: Assembly) -> None:
    """When the server restarts it is told 1012 and when to come back, as all others; what it says afterwards is not heard (T10)."""
    async with RawWebSocket(here.port) as opened:
        (waiting,) = here.services.waiting
        waiting.send_away()
        opened.say({"type": "auth", "token": USER})
        code, said = await opened.closed_with()
        assert (code, said["retryMs"]) == (1012, 1234)
        assert not here.services.waiting
    await wait_until(lambda: not len(here.services.poller), "the socket is gone")
    assert not here.hub.connections


async def test_a_ping_is_answered_before_there_is_a_credential(here: Assembly) -> None:
    """Libraries ping as they like (RFC 6455, 5.5.2)."""
    async with RawWebSocket(here.port) as opened:
        opened.send(frame(PING, b"early"))
        assert await opened.next_frame() == (PONG, b"early")


async def test_pings_are_not_answered_before_earlier_answers_are_read(here: Assembly, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a credential nothing is kept for a client that does not read."""
    async with RawWebSocket(here.port) as opened:
        with monkeypatch.context() as patched:
            patched.setattr(SocketSink, "pending", 1)
            opened.send(frame(PING, b"one"))
            async with RawWebSocket(here.port) as other:  # asked later, answered: so the ping was read
                assert other.head.status == 101
        opened.send(frame(PING, b"two"))
        assert await opened.next_frame() == (PONG, b"two")


async def test_a_client_that_is_gone_before_the_handshake_is_answered_is_forgotten(here: Assembly, monkeypatch: pytest.MonkeyPatch) -> None:
    """No deadline is kept for it."""
    client = socket.create_connection(("127.0.0.1", here.port))

    def reset(limit: int) -> FrameReader:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        return FrameReader(limit)

    monkeypatch.setattr(conversation, "FrameReader", reset)
    client.sendall(request_bytes("GET", "/ws", {"Host": "x", **HANDSHAKE}))
    await wait_until(lambda: client.fileno() < 0 and not len(here.services.poller), "the socket is gone")


async def test_a_client_may_leave_before_it_has_said_who_it_is(here: Assembly) -> None:
    """By the close handshake, by breaking the protocol, or by hanging up."""
    async with RawWebSocket(here.port) as opened:
        opened.send(frame(CLOSE, b"\x03\xe8"))
        assert await opened.close_code() == 1000
    async with RawWebSocket(here.port) as opened:
        opened.send(frame(TEXT, b"{}", masked=False))
        assert (await opened.closed_with())[0] == 1002
    async with RawWebSocket(here.port):
        pass
    await wait_until(lambda: not len(here.services.poller), "all sockets are gone")
    assert not here.services.waiting


async def test_a_refused_client_that_does_not_leave_is_cut_off(here: Assembly, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has some seconds to read its last message."""
    monkeypatch.setattr(conversation, "LINGER_SECONDS", 0.01)
    async with RawWebSocket(here.port) as opened:
        opened.say({"type": "ping"})
        await wait_until(lambda: not len(here.services.poller), "the socket is gone")


# ---- the messages


async def test_a_subscription_delivers(here: Assembly) -> None:
    """`subscribed` with the position from which on nothing is missed, then events with all their fields (T3, X7)."""
    async with websocket(here.port, USER) as opened:
        answer = await opened.ask({"type": "subscribe", "ref": "1", "topic": "orders.*"}, "subscribed")
        assert answer.pop("resumeToken")
        assert answer == {"type": "subscribed", "ref": "1", "topic": "orders.*", "position": here.hub.id_of(here.hub.head)}
        (id,) = await published(here, event(1, time="2026-01-31T12:00:00Z"))
        received = await opened.next("event")
        assert received == {
            "type": "event",
            "topic": "orders.eu",
            "id": id,
            "event": "order:placed",
            "data": {"n": 1},
            "timestamp": "2026-01-31T12:00:00Z",
        }


async def test_without_a_subscription_nothing_comes(here: Assembly) -> None:
    """A WebSocket hears what it asked for, and no more after it unsubscribed (T3)."""
    async with websocket(here.port, USER) as opened:
        await published(here, event(1))
        await opened.ask({"type": "subscribe", "topic": "orders.eu"}, "subscribed")
        await published(here, event(2))
        assert await events(opened, 1) == [2]
        answer = await opened.ask({"type": "unsubscribe", "ref": "2", "topic": "orders.eu"}, "unsubscribed")
        assert answer.pop("resumeToken")
        assert answer == {"type": "unsubscribed", "ref": "2", "topic": "orders.eu"}
        await published(here, event(3))
        await opened.ask({"type": "ping"}, "pong")


async def test_a_ping_tells_the_position(here: Assembly) -> None:
    """`pong` repeats the `ref`; without one there is none in it (T3)."""
    async with websocket(here.port, USER) as opened:
        position = here.hub.id_of(here.hub.head)
        assert await opened.ask({"type": "ping", "ref": "3"}, "pong") == {"type": "pong", "ref": "3", "position": position}
        assert await opened.ask({"type": "ping"}, "pong") == {"type": "pong", "position": position}


async def test_an_ack_is_taken_without_an_answer(here: Assembly) -> None:
    """It is part of the protocol already (X7)."""
    async with websocket(here.port, USER) as opened:
        opened.say({"type": "ack", "id": "x"})
        await opened.ask({"type": "ping"}, "pong")


async def test_filters_select(here: Assembly) -> None:
    """By type, source and bounds, as over SSE (T4)."""
    async with websocket(here.port, USER) as opened:
        filters = {"types": ["order:placed"], "sources": [], "minAmount": 10}
        await opened.ask({"type": "subscribe", "topic": "**", "filters": filters}, "subscribed")
        await published(here, *(event(data={"n": number, "amount": amount}) for number, amount in enumerate((5, 10, "11", None))))
        assert await events(opened, 2) == [1, 2]


async def test_an_event_that_several_subscriptions_select_comes_once(here: Assembly) -> None:
    """One connection, one delivery (T4, L9)."""
    async with websocket(here.port, USER) as opened:
        for topic in ("orders.eu", "orders.*", "**"):
            await opened.ask({"type": "subscribe", "topic": topic}, "subscribed")
        await published(here, event(1), event(2))
        assert await events(opened, 2) == [1, 2]
        await opened.ask({"type": "ping"}, "pong")


@pytest.mark.parametrize(
    ("message", "code", "field"),
    [
        ({"type": "publish", "ref": "1"}, "invalid_message", "type"),
        ({"type": "subscribe", "ref": "1"}, "invalid_message", "topic"),
        ({"type": "subscribe", "ref": "1", "topic": "a..b"}, "invalid_message", "topic"),
        ({"type": "subscribe", "ref": "1", "topic": "a", "filters": {"types": [5]}}, "invalid_message", "filters.types[0]"),
        ({"type": "subscribe", "ref": "1", "topic": "a", "filters": {"types": ["a b"]}}, "invalid_message", "filters.types[0]"),
        ({"type": "subscribe", "ref": "1", "topic": "a", "filters": {"minAmount": "x"}}, "invalid_message", "filters.minAmount"),
        ({"type": "subscribe", "ref": "1", "topic": "a", "from": "2026-02-30T00:00:00Z"}, "invalid_message", "from"),
        ({"type": "subscribe", "ref": "1", "topic": "a", "position": "2026-02-30T00:00:00Z"}, "invalid_message", "position"),
        ({"type": "unsubscribe", "ref": "1", "topic": "a"}, "invalid_message", "topic"),
        ({"type": "auth", "ref": "1", "token": "x.y.z"}, "unauthenticated", None),
        ({"type": "auth", "ref": "1", "token": token("u2")}, "forbidden", "token"),
    ],
)
async def test_an_error_names_the_field_and_the_connection_lives_on(here: Assembly, message: Any, code: str, field: str | None) -> None:
    """`error` with `ref`, code, a sentence and the field; the next message is answered as if nothing had been (T3)."""
    async with websocket(here.port, USER) as opened:
        answer = await opened.ask(message, "error")
        assert (answer["ref"], answer["code"], answer.get("field")) == ("1", code, field)
        assert answer["message"]
        await opened.ask({"type": "ping"}, "pong")


async def test_binary_messages_are_refused(here: Assembly) -> None:
    """The protocol is JSON in text; the connection lives on."""
    async with websocket(here.port, USER) as opened:
        opened.send(frame(BINARY, b"{}"))
        assert (await opened.next("error"))["code"] == "invalid_message"
        await opened.ask({"type": "ping"}, "pong")


async def test_repeated_abuse_ends_the_connection(here: Assembly) -> None:
    """So many errors are answered, then it is closed with 1008, and what was said behind is not heard (T3)."""
    async with websocket(here.port, USER) as opened:
        opened.say(*[{"type": "nothing"}] * (MAX_FAULTS + 5), {"type": "subscribe", "topic": "a"}, {"type": "auth", "token": USER})
        for _ in range(MAX_FAULTS + 1):
            await opened.next("error")
        assert (await opened.closed_with())[0] == 1008
    assert not here.hub.connections


async def test_good_messages_make_up_for_bad_ones(here: Assembly) -> None:
    """A client that errs now and then is no abuser."""
    async with websocket(here.port, USER) as opened:
        for _ in range(3 * MAX_FAULTS):
            opened.say({"type": "nothing"}, {"type": "ping"}, {"type": "ping"})
            assert [(await opened.next())["type"] for _ in range(3)] == ["error", "pong", "pong"]


async def test_subscriptions_are_limited(assemble: Assemble, expected_logs: list[str]) -> None:
    """Beyond the limit `too_many_requests`; the same topic again replaces, and unsubscribing makes room (T4, S6)."""
    expected_logs.append("refused: a connection has as many subscriptions")
    here = await assemble(subscriptions_per_connection=2)
    async with websocket(here.port, USER) as opened:
        for topic in ("a", "b", "a"):
            await opened.ask({"type": "subscribe", "topic": topic}, "subscribed")
        answer = await opened.ask({"type": "subscribe", "topic": "c"}, "error")
        assert (answer["code"], answer["field"]) == ("too_many_requests", "topic")
        await opened.ask({"type": "unsubscribe", "topic": "a"}, "unsubscribed")
        await opened.ask({"type": "subscribe", "topic": "c", "from": "earliest"}, "subscribed")


# ---- replay


@pytest.mark.parametrize("how", ["position", "from"])
async def test_a_subscription_with_a_position_replays_first(here: Assembly, how: str) -> None:
    """`subscribed` with that position, what came after it, `live`, and then what is new (T4, X5)."""
    ids = await published(here, *(event(number) for number in range(3)))
    async with websocket(here.port, USER) as opened:
        answer = await opened.ask({"type": "subscribe", "ref": "1", "topic": "orders.*", how: ids[0]}, "subscribed")
        assert answer["position"] == ids[0]
        assert await events(opened, 2) == [1, 2]
        assert await opened.next("live") == {"type": "live", "position": ids[-1], "replayed": 2}
        await published(here, event(3))
        assert await events(opened, 1) == [3]


async def test_messages_behind_a_replay_are_answered_in_order(here: Assembly) -> None:
    """While a position is looked up, further messages wait: answers come in the order of the questions."""
    await published(here, *(event(number) for number in range(3)))
    async with websocket(here.port, USER) as opened:
        opened.say(
            {"type": "subscribe", "ref": "1", "topic": "none", "from": "2026-01-31T12:00:00Z"},
            {"type": "ping", "ref": "2"},
            {"type": "subscribe", "ref": "3", "topic": "orders.*", "from": "earliest"},
            {"type": "subscribe", "ref": "4", "topic": "orders.eu"},
            {"type": "nothing", "ref": "5"},
        )
        answers: list[tuple[str, str]] = []
        while len(answers) < 5:
            message = await opened.next()
            if "ref" in message:
                answers.append((message["ref"], message["type"]))
        assert answers == [("1", "subscribed"), ("2", "pong"), ("3", "subscribed"), ("4", "subscribed"), ("5", "error")]


async def test_a_replay_does_not_repeat_what_others_had(here: Assembly) -> None:
    """A second subscription goes back in the log for itself alone (T4, L9)."""
    async with websocket(here.port, USER) as opened:
        await opened.ask({"type": "subscribe", "topic": "orders.eu"}, "subscribed")
        await published(here, event("eu"), event("us", topic="orders.us"))
        assert await events(opened, 1) == ["eu"]
        await opened.ask({"type": "subscribe", "topic": "orders.*", "from": "earliest"}, "subscribed")
        assert await events(opened, 1) == ["us"]
        assert (await opened.next("live"))["replayed"] == 1


async def test_an_unknown_position_is_a_gap(here: Assembly, expected_logs: list[str]) -> None:
    """The same as over SSE: `gap` in band, then everything that is there (L8)."""
    expected_logs.append("gap reported")
    await published(here, event(1))
    async with websocket(here.port, USER) as opened:
        await opened.ask({"type": "subscribe", "topic": "**", "position": "garbage"}, "subscribed")
        gap = await opened.next("gap")
        assert (gap["from"], gap["reason"], gap["fromTime"]) == ("garbage", "unknown position", None)
        assert await events(opened, 1) == [1]


async def test_too_many_messages_behind_a_replay_end_the_connection(
    assemble: Assemble, stoppable_mongodb: StoppableMongoDB, expected_logs: list[str]
) -> None:
    """What waits is bounded, also while MongoDB hangs."""
    expected_logs.append("tail interrupted")
    here = await assemble(stoppable_mongodb.uri, messages_per_second=UNLIMITED)
    async with websocket(here.port, USER) as opened:
        await stoppable_mongodb.hang()
        opened.say({"type": "subscribe", "topic": "a", "from": "2026-01-31T12:00:00Z"}, *[{"type": "ping"}] * (MAX_BACKLOG_BYTES // 100))
        assert (await opened.closed_with())[0] == 1008
    assert not here.hub.connections


async def test_a_position_that_cannot_be_looked_up_is_an_error(
    assemble: Assemble, stoppable_mongodb: StoppableMongoDB, expected_logs: list[str]
) -> None:
    """While MongoDB hangs the subscription is refused, and what was said behind is answered."""
    expected_logs.append("tail interrupted")
    here = await assemble(stoppable_mongodb.uri)
    async with websocket(here.port, USER) as opened:
        await stoppable_mongodb.hang()
        opened.say({"type": "subscribe", "ref": "1", "topic": "a", "from": "2026-01-31T12:00:00Z"}, {"type": "ping"})
        answer = await opened.next("error")
        assert (answer["ref"], answer["code"]) == ("1", "unavailable")
        await opened.next("pong")


async def test_a_client_may_leave_while_its_position_is_looked_up(here: Assembly) -> None:
    """The look-up ends with the connection."""
    async with websocket(here.port, USER) as opened:
        opened.say({"type": "subscribe", "topic": "a", "from": "2026-01-31T12:00:00Z"})
        opened.send(frame(CLOSE, b""))
    await wait_until(lambda: not here.hub.connections, "the connection is forgotten")


async def test_a_client_may_hang_up_while_mongodb_hangs(
    assemble: Assemble, stoppable_mongodb: StoppableMongoDB, expected_logs: list[str]
) -> None:
    """The look-up is given up, and its task ends."""
    expected_logs.append("tail interrupted")
    here = await assemble(stoppable_mongodb.uri)
    async with websocket(here.port, USER) as opened:
        await stoppable_mongodb.hang()
        opened.say({"type": "subscribe", "topic": "a", "from": "2026-01-31T12:00:00Z"})
        await wait_until(lambda: any(task.get_name() == ANSWERING for task in asyncio.all_tasks()), "the look-up has begun")
    await wait_until(lambda: not here.hub.connections, "the connection is forgotten")
    await wait_until(lambda: all(task.get_name() != ANSWERING for task in asyncio.all_tasks()), "the look-up has ended")


async def test_a_defect_behind_a_message_ends_the_connection(
    here: Assembly, monkeypatch: pytest.MonkeyPatch, expected_logs: list[str]
) -> None:
    """It is logged, and the client told to come back (1011): it must not wait for an answer for ever."""
    expected_logs.append("a message could not be answered")

    async def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(here.hub, "locate", fail)
    async with websocket(here.port, USER) as opened:
        opened.say({"type": "subscribe", "topic": "a", "from": "earliest"}, {"type": "ping"})
        assert (await opened.closed_with())[0] == 1011


async def test_a_token_whose_key_is_fetched_first_opens_it(here: Assembly, checker: Checker, issuer: Issuer) -> None:
    """What was said behind it waits, and is answered in order (S2)."""
    here.services.authenticator.verifier = checker.verifier
    issuer.publish("k1", "k2")
    async with RawWebSocket(here.port) as opened:
        opened.say({"type": "auth", "token": issuer.token("k2")}, {"type": "ping", "ref": "1"})
        await opened.next("welcome")
        assert (await opened.next("pong"))["ref"] == "1"


# ---- frames


async def test_pings_are_answered_with_their_payload(here: Assembly) -> None:
    """Also between the fragments of a message; pongs nobody asked for are fine (RFC 6455, 5.4, 5.5.3)."""
    async with websocket(here.port, USER) as opened:
        whole = json.dumps({"type": "ping"}).encode()
        opened.send(frame(PONG, b"") + frame(TEXT, whole[:5], final=False) + frame(PING, b"between") + frame(0, whole[5:]))
        assert await opened.next_frame() == (PONG, b"between")
        await opened.next("pong")


@pytest.mark.parametrize(("sent", "answered"), [(b"\x03\xe8bye", 1000), (b"\x0f\xa0", 4000), (b"", 1000)])
async def test_the_close_handshake_is_answered(here: Assembly, sent: bytes, answered: int) -> None:
    """With the client's own code, and nothing else before the end (RFC 6455, 5.5.1)."""
    async with websocket(here.port, USER) as opened:
        opened.send(frame(CLOSE, sent) + text({"type": "ping"}))
        assert await opened.close_code() == answered
    assert not here.hub.connections


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(TEXT, b"{}", masked=False), 1002),
        (frame(3, b""), 1002),
        (frame(0, b"x"), 1002),
        (frame(PING, b"x" * 126), 1002),
        (frame(CLOSE, b"\x03"), 1002),
        (frame(CLOSE, b"\x03\xed"), 1002),
        (bytes([0xC1, 0x80, 0, 0, 0, 0]), 1002),
        (frame(TEXT, b"\xff"), 1007),
        (frame(TEXT, b'"\xed\xa0\x80"'), 1007),
        (frame(TEXT, b" " * 65537), 1009),
        (frame(TEXT, b" " * 40_000, final=False) + frame(0, b" " * 40_000), 1009),
        (b"\x81\xff\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00\x00", 1009),
    ],
)
async def test_a_client_that_breaks_the_protocol_is_closed_with_the_reason(here: Assembly, sent: bytes, code: int) -> None:
    """Unmasked and malformed frames 1002, text that is no UTF-8 1007, messages over the cap 1009 with the limit (T5, T9)."""
    async with websocket(here.port, USER) as opened:
        opened.send(text({"type": "ping"}) + sent)
        await opened.next("pong")
        closed, closing = await opened.closed_with()
        assert closed == code
        assert code != 1009 or "65536" in closing["reason"]
    assert not here.hub.connections


async def test_a_message_may_have_as_many_bytes_as_the_cap(here: Assembly) -> None:
    """Exactly the cap is not over it (T5)."""
    async with websocket(here.port, USER) as opened:
        message = json.dumps({"type": "ping"}).encode()
        opened.say(message + b" " * (65536 - len(message)))
        await opened.next("pong")


# ---- the credential ends


async def test_it_is_told_then_closed_when_its_credential_ends(here: Assembly) -> None:
    """`expiring` some seconds before, then `closing` and 4402 (S3)."""
    async with RawWebSocket(here.port, token=token(seconds=70)) as opened:
        welcome = await opened.next("welcome")
        await here.pass_seconds(45)
        assert await opened.next("expiring") == {"type": "expiring", "expiresAt": welcome["expiresAt"]}
        await here.pass_seconds(26)
        assert (await opened.closed_with())[0] == 4402


async def test_a_fresh_token_renews_it_without_a_break(here: Assembly) -> None:
    """Its subscriptions stay, its rights are those of the new token, and it lives as long as that (S3)."""
    async with websocket(here.port, token(seconds=70, audiences=["org:o1"])) as opened:
        await opened.ask({"type": "subscribe", "topic": "**"}, "subscribed")
        await here.pass_seconds(45)
        await opened.next("expiring")
        answer = await opened.ask({"type": "auth", "ref": "1", "token": token(seconds=1000, audiences=["org:o2"])}, "renewed")
        assert answer["ref"] == "1"
        assert answer["expiresAt"]
        await here.pass_seconds(30)
        await published(here, event(1, audience=["org:o1"]), event(2, audience=["org:o2"]))
        opcode, payload = await opened.next_frame()
        while b'"type":"event"' not in payload:  # heartbeats came meanwhile
            opcode, payload = await opened.next_frame()
        assert (opcode, json.loads(payload)["data"]) == (TEXT, {"n": 2})


async def test_a_token_without_an_end_renews_it_for_good(here: Assembly) -> None:
    """`expiresAt` is null then."""
    async with websocket(here.port, token(seconds=100)) as opened:
        assert (await opened.ask({"type": "auth", "token": token(exp=None)}, "renewed"))["expiresAt"] is None


async def test_another_users_token_changes_nothing(here: Assembly) -> None:
    """A connection stays its user's until it ends (S3)."""
    async with websocket(here.port, USER) as opened:
        await opened.ask({"type": "subscribe", "topic": "**"}, "subscribed")
        await opened.ask({"type": "auth", "token": token("u2")}, "error")
        await published(here, event(1, audience=["user:u2"]), event(2, audience=["user:u1"]))
        assert await events(opened, 1) == [2]


async def pass_a_heartbeat(here: Assembly) -> None:
    """Let so much time pass that a ping is due, in steps in which the server does not seem to have stood still."""
    for _ in range(2):
        await here.pass_seconds((here.settings.heartbeat_seconds + 1) / 2)


async def test_clients_that_answer_no_pings_are_closed(here: Assembly) -> None:
    """Pings go out; after some without any sign of life the connection is closed with 4408, which whoever still reads is told (T6, T9)."""
    async with websocket(here.port, USER) as opened:
        for _ in range(MISSED_PONGS):
            assert here.hub.connections
            await pass_a_heartbeat(here)
        assert not here.hub.connections
        for _ in range(MISSED_PONGS - 1):
            assert (await opened.next_frame())[0] == PING
        assert (await opened.closed_with())[0] == 4408


async def test_clients_that_answer_pings_stay(here: Assembly) -> None:
    """Whatever they send is a sign of life (T6)."""
    async with websocket(here.port, USER) as opened:
        for _ in range(6):
            await pass_a_heartbeat(here)
            opcode, payload = await opened.next_frame()
            assert opcode == PING
            opened.send(frame(PONG, payload))
            await opened.ask({"type": "ping"}, "pong")  # so the pong before it was read
        assert here.hub.connections
