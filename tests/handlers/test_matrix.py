"""The tables of matrix.py hold, and nothing that can be called is missing from them."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import pytest
from tornado.web import RequestHandler

from handlers.credentials import claims_of
from handlers.messages import CLIENT_MESSAGES
from handlers.resumption import Sealer
from handlers.routes import ROUTES, template
from hub.connection import Connection
from hub.errors import CLOSE_CODES
from hub.formats import SSE
from hub.principal import Principal
from hub.subscriptions import Subscription
from settings import UNLIMITED
from storage.handed_out import new_secret
from tests.handlers import matrix
from tests.handlers.asking import ask, caught_up, heard, new_stream, own, published, session
from tests.handlers.assembly import Assembly, token
from tests.handlers.clients import EventStream, RawWebSocket, Response, event, request
from tests.handlers.conftest import Assemble
from tests.handlers.matrix import BAD, EVERYBODY, GOOD, rows
from tests.hub.fakes import ManualClock, RecordingSink
from tests.waiting import wait_until

CLAIMS: dict[str, dict[str, Any]] = {
    "other-tenant": {"user": "u7", "org": "o2", "entity": "e2"},
    "agent": {"user": "a1", "org": "o1", "entity": "e1", "roles": ["agent", "publisher", "admin"]},
    "user": {"user": "u1", "org": "o1", "entity": "e1", "roles": ["user"]},
    "publisher": {"user": "p1", "org": "o1", "roles": ["publisher"]},
    "admin": {"user": "root", "roles": ["admin"]},
}
STREAMS = {template(pattern): handler for pattern, handler in ROUTES if handler.OPENS_STREAM}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
FORMS = {row["form"]: row for row in rows(matrix.FORMS)}
PATHS = {
    ("/v1/sessions", "GET"): "/v1/sessions?user=u1",
    ("/v1/resources/<kind>/<id>", "GET"): "/v1/resources/stream/1",
    ("/v1/resources/<kind>/<id>", "PUT"): "/v1/resources/stream/2",
    ("/v1/resources/<kind>/<id>", "DELETE"): "/v1/resources/stream/2",
    ("/streams/<id>", "GET"): "/streams/s1",
    ("/streams/<id>/<step>", "POST"): "/streams/s1/top-up",
    ("/api/stream/strategies/<id>", "GET"): "/api/stream/strategies/1",
}
LIMITS = {  # the audiences that channels are limited to
    "/api/stream/prices": "public",
    "/api/stream/strategies/<id>": "resource:strategy/1",
    "/events": "entity:{principal.entity}",
}
BODIES: dict[tuple[str, str], Any] = {
    ("/v1/events", "POST"): event(),
    ("/v1/renewals", "POST"): {"clientId": "nobody"},
    ("/v1/sessions", "POST"): {"sub": "u5"},
    ("/v1/revocations", "POST"): {"kind": "token", "id": "nothing"},
    ("/v1/resources/<kind>/<id>", "PUT"): {"owners": ["user:u5"]},
    ("/streams", "POST"): new_stream("u1", "u9"),
    ("/streams/<id>/<step>", "POST"): {"amount": "1"},
}
MESSAGES: dict[str, dict[str, Any]] = {
    "subscribe": {"type": "subscribe", "topic": "a"},
    "unsubscribe": {"type": "unsubscribe", "topic": "a"},
    "ping": {"type": "ping"},
    "ack": {"type": "ack", "id": "x"},
}


@pytest.fixture
async def unlimited(assemble: Assemble) -> Assembly:
    """A server that counts nothing, since everybody comes from one address."""
    here = await assemble(
        failed_logins_per_minute=UNLIMITED, grants_per_minute=UNLIMITED, payments_per_minute=UNLIMITED, connections_per_user=UNLIMITED
    )
    await own(here.port, "stream/1", "user:u1")
    await own(here.port, "stream/9", "user:u9")
    made = await ask(here.port, "POST", "/streams", new_stream("u1", "u9", id="s1"), token=token_of("publisher"))
    assert made.status == 201
    await own(here.port, "strategy/1", "user:u1")
    return here


# ---- credentials


def token_of(who: str) -> str:
    """Return a token of somebody's; of those whose does not hold, one that would be an admin's."""
    if who in GOOD:
        return token(**CLAIMS[who])
    spoiled: dict[str, dict[str, Any]] = {
        "expired": {"seconds": -60},
        "wrong-key": {"secret": "another secret for HS256, of more than 32 bytes"},
        "wrong-audience": {"aud": "another server"},
    }
    return "x" if who == "malformed" else token(**CLAIMS["admin"], **spoiled[who])


async def secret_of(here: Assembly, form: str, who: str, route: str = "/v1/stream") -> str:
    """Return what somebody shows in this form, on this route."""
    if who == "none":
        return ""
    if form in ("header", "query", "subprotocol"):
        return token_of(who)
    if who == "malformed":
        return "x"
    principal = here.services.authenticator.of_token(token_of(who if who in GOOD else "admin"))
    if form == "resume":
        return await sealed(here, principal, who, route)
    if who == "wrong-key":
        return new_secret()
    seconds = 0.001 if who == "expired" else 600
    if form == "ticket":
        secret, ends = await here.state.tickets.issue(claims_of(principal), seconds)
    else:
        claims = {name: value for name, value in claims_of(principal).items() if name != "exp"}
        secret, _, ends = await here.state.sessions.create(claims, seconds)
    await wait_until(lambda: who != "expired" or time.time() > ends, "its time is over")
    return secret


async def sealed(here: Assembly, principal: Principal, who: str, route: str) -> str:
    """Return a resume token of a connection of this route that stood at the head, on `/v1/stream` and `/ws` without subscriptions."""
    key = os.urandom(32) if who == "wrong-key" else await here.state.open()
    sealer = Sealer(key, seconds=-1 if who == "expired" else 600, time=time.time)
    connection = Connection("c1", principal, SSE, RecordingSink(SSE, ManualClock()), here.hub)
    handler = STREAMS.get(route)
    channel = getattr(handler, "CHANNEL", None)
    if channel is not None:
        limits = LIMITS.get(route, "").format(principal=principal)
        subscription = Subscription(audiences=frozenset({limits} if limits else ()))
        connection.terms = channel.terms
        connection.interest = here.hub.router.intern(principal.audiences, frozenset({subscription}), SSE)
    found = sealer.seal(connection, here.hub.id_of(here.hub.head))
    assert found is not None
    return found


def shown(here: Assembly, form: str, secret: str) -> tuple[str, dict[str, str]]:
    """Return a query and headers that show a secret in this form."""
    if not secret:
        return "", {}
    if form == "header":
        return "", {"Authorization": f"Bearer {secret}"}
    if form == "subprotocol":
        return "", {"Sec-WebSocket-Protocol": f"tailcast, bearer.{secret}"}
    if form == "cookie":
        return "", {"Cookie": f"session={secret}", "Origin": f"http://127.0.0.1:{here.port}"}
    return f"{'token' if form == 'query' else form}={quote(secret)}", {}


# ---- routes


async def answered(here: Assembly, route: str, method: str, form: str, who: str) -> Response:
    """Return the head of what a route answers."""
    query, headers = shown(here, form, await secret_of(here, form, who, route))
    if route == "/ws":
        async with RawWebSocket(here.port, f"?{query}", headers=headers) as opened:
            return opened.head
    path = PATHS.get((route, method), route)
    if route == "/v1/sessions/<id>":
        path = f"/v1/sessions/{(await session(here.port, 'victim')).id}"
    target = path + ("&" if "?" in path else "?") + query
    named = {name.replace("-", "_"): text for name, text in headers.items()}
    if route in STREAMS:
        async with EventStream(here.port, f"?{query}", path=path, **named) as stream:
            stream.head.body = (
                b"" if stream.head.status == 200 else await stream.reader.readexactly(int(stream.head.headers["content-length"]))
            )
            return stream.head
    value = BODIES.get((route, method))
    return await ask(here.port, method, target, value, **named)


def said(response: Response) -> str:
    """Return an answer as `expected` writes it; every refusal must be in the one envelope."""
    return f"{response.status}" if response.status < 400 else f"{response.status} {response.error()[1]}"


def expected(row: Mapping[str, str], form: str, who: str) -> str:
    """Return what the tables say."""
    good_for = FORMS[form]["good-for"]
    counts = good_for == "everything" or row["route"] == "/ws" or (good_for == "streams" and row["route"] in STREAMS)
    if not counts:
        who = "none"
    status = row[who]
    codes = {"401": FORMS[form].get(who, "unauthenticated"), "403": "forbidden"}
    return f"{status} {codes[status]}" if status in codes else status


def everybody_in(form: str) -> list[str]:
    """Return those who can show something in this form."""
    return [who for who in EVERYBODY if FORMS[form].get(who) != "-"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("row", rows(matrix.ROUTES), ids=lambda row: f"{row['method']} {row['route']}")
async def test_each_route_answers_everybody_as_the_table_says(unlimited: Assembly, row: dict[str, str], form: str) -> None:
    """For everybody, in each form a credential can have; a refusal is in the one envelope (S1, S5, S8)."""
    everybody = everybody_in(form)
    found = {who: said(await answered(unlimited, row["route"], row["method"], form, who)) for who in everybody}
    assert found == {who: expected(row, form, who) for who in everybody}


async def test_a_preflight_needs_no_credential(unlimited: Assembly) -> None:
    """Browsers send none with it, whatever the route."""
    for pattern, _ in ROUTES:
        target = template(pattern).replace("<", "").replace(">", "")
        assert (await request(unlimited.port, "OPTIONS", target)).status == 204


# ---- messages


async def answer_to(opened: RawWebSocket, message: dict[str, Any]) -> str:
    """Return what a message is answered, as the table writes it."""
    opened.say(message)
    if message["type"] == "ack":
        opened.say({"type": "ping", "ref": "behind"})
    answer = await opened.next()
    if answer.get("ref") == "behind" and answer["type"] == "pong":
        return "silence"
    return str(answer["code"] if answer["type"] == "error" else answer["type"])


@pytest.mark.parametrize("row", [row for row in rows(matrix.MESSAGES) if row["when"] == "first"], ids=lambda row: row["message"])
async def test_the_first_message_must_be_a_credential_that_holds(unlimited: Assembly, row: dict[str, str]) -> None:
    """Anything else is the end, with a code that says why (S1, T9)."""
    for who in [who for who in EVERYBODY if row[who] != "-"]:
        message = MESSAGES[row["message"]] if who == "none" else {"type": "auth", "token": token_of(who)}
        async with RawWebSocket(unlimited.port) as opened:
            found = await answer_to(opened, message)
            if who not in GOOD:
                found = str((await opened.closed_with())[0])
            assert (who, found) == (who, row[who])


@pytest.mark.parametrize("row", [row for row in rows(matrix.MESSAGES) if row["when"] == "open"], ids=lambda row: row["message"])
async def test_an_open_connection_goes_on_with_its_own_users_credential_only(unlimited: Assembly, row: dict[str, str]) -> None:
    """Whatever else is shown, it lives on as whose it was (S3)."""
    async with RawWebSocket(unlimited.port, token=token_of("user")) as opened:
        await opened.next("welcome")
        (connection,) = unlimited.hub.connections
        for who in [who for who in EVERYBODY if row[who] != "-"]:
            assert (who, await answer_to(opened, {"type": "auth", "token": token_of(who)})) == (who, row[who])
            assert (connection.principal.user, connection.principal.org) == ("u1", "o1")


@pytest.mark.parametrize("form", FORMS)
async def test_each_message_is_answered_as_the_table_says(unlimited: Assembly, form: str) -> None:
    """For everybody whose credential holds, whatever form it was shown in."""
    for who in GOOD:
        query, headers = shown(unlimited, form, await secret_of(unlimited, form, who))
        async with RawWebSocket(unlimited.port, f"?{query}", headers=headers) as opened:
            await opened.next("welcome")
            if form == "resume":
                await opened.next("live")
            for row in [row for row in rows(matrix.MESSAGES) if row["when"] == "own"]:
                assert (who, row["message"], await answer_to(opened, MESSAGES[row["message"]])) == (who, row["message"], row[who])


# ---- what is heard


@pytest.mark.parametrize("form", [form for form in FORMS if form != "subprotocol"])
@pytest.mark.parametrize("replayed", [False, True])
async def test_everybody_hears_what_the_table_says(unlimited: Assembly, form: str, replayed: bool) -> None:
    """The same in whatever form the credential was shown, live and replayed; also an admin hears no more than its audiences (L9)."""
    table = rows(matrix.HEARS)
    audiences = [row["audience"] for row in table]
    if replayed:
        await published(unlimited, *audiences, "public")
        await caught_up(unlimited)
    for who in GOOD:
        query, headers = shown(unlimited, form, await secret_of(unlimited, form, who))
        everything = "&topics=**" if form != "resume" else ""
        if form == "resume":  # one that had subscribed to everything
            async with EventStream(unlimited.port, token=token_of(who)) as stream:
                query = f"resume={(await stream.welcome()).json()['resumeToken']}"
        begin = "&from=earliest" if replayed else ""
        named = {name.replace("-", "_"): text for name, text in headers.items()}
        async with EventStream(unlimited.port, f"?{query}{everything}{begin}", **named) as stream:
            await stream.welcome()
            if not replayed:
                await published(unlimited, *audiences, "public")
            wanted = [row["audience"] for row in table if row[who] == "yes"]
            assert (who, await heard(stream, "public")) == (who, ["public"])
            assert (who, await heard(stream, "public")) == (who, [*wanted[1:], "public"])


# ---- nothing is missing


def test_every_route_and_method_is_in_the_table() -> None:
    """A handler that takes a method says so by having it; each has one row."""
    served = {
        (template(pattern), method)
        for pattern, handler in ROUTES
        for method in METHODS
        if getattr(handler, method.lower()) is not getattr(RequestHandler, method.lower())
    }
    listed = [(row["route"], row["method"]) for row in rows(matrix.ROUTES)]
    assert len(set(listed)) == len(listed)
    assert set(listed) == served


def test_every_message_is_in_the_table() -> None:
    """As the first one, and on an open connection."""
    listed = {(row["message"], row["when"] == "first") for row in rows(matrix.MESSAGES)}
    assert listed == {(name, first) for name in CLIENT_MESSAGES for first in (True, False)}
    assert MESSAGES.keys() == CLIENT_MESSAGES.keys() - {"auth"}


def test_every_credential_is_in_each_table() -> None:
    """Columns are complete, and what a table says is something that can be said."""
    for row in rows(matrix.ROUTES) + rows(matrix.MESSAGES):
        assert set(EVERYBODY) < row.keys()
    for row in rows(matrix.FORMS):
        assert set(BAD) < row.keys()
    for row in rows(matrix.HEARS):
        assert set(GOOD) < row.keys()
    numbers = {cell for row in rows(matrix.MESSAGES) for cell in row.values() if cell.isdigit()}
    assert {int(number) for number in numbers} <= CLOSE_CODES.keys()
