"""Tests of handlers/opening.py: what opens a stream of either kind: credentials for URLs, where it begins, and what stands beside them."""

from __future__ import annotations

import time

import pytest

from handlers.opening import named_by
from hub.subscriptions import Subscription
from tests.handlers.asking import ADMIN, caught_up, heard, own, published, resume_token, resume_token_of_websocket, revoke, session, ticket
from tests.handlers.assembly import Assembly, token
from tests.handlers.clients import EventStream, RawWebSocket, get, request, websocket
from tests.handlers.conftest import Assemble
from tests.waiting import wait_until

MINE = token("u1", org="o1")
R1 = "resource:stream/1"


@pytest.mark.parametrize("kind", ["ticket", "resume"])
async def test_what_one_process_made_opens_on_the_other(assemble: Assemble, kind: str) -> None:
    """SSE and WebSocket alike, for whom it was made and with its end (S1, L11)."""
    one, other = await assemble(), await assemble()
    mine = token("u1", org="o1", seconds=300)

    async def made() -> str:
        return await (ticket if kind == "ticket" else resume_token)(one.port, mine)

    async with EventStream(other.port, f"?{kind}={await made()}") as stream:
        expires_at = (await stream.welcome()).json()["expiresAt"]
        (connection,) = other.hub.connections
        assert (connection.principal.user, connection.principal.org) == ("u1", "o1")
        await published(one, "user:u2", "org:o1")
        assert await heard(stream, "org:o1") == ["org:o1"]
    async with RawWebSocket(other.port, f"?{kind}={await made()}") as opened:
        assert (await opened.next("welcome"))["expiresAt"] == expires_at


async def test_a_resumed_stream_misses_nothing(assemble: Assemble) -> None:
    """It selects as before, and begins where the token was made (S1)."""
    one, other = await assemble(), await assemble()
    resume = await resume_token(one.port, MINE, "?topics=orders.*&types=order:placed")
    await published(one, "public", "user:u1", "user:u2", "org:o1")
    await caught_up(other)
    async with EventStream(other.port, f"?resume={resume}") as stream:
        assert await heard(stream, "org:o1") == ["public", "user:u1", "org:o1"]
        (connection,) = other.hub.connections
        assert connection.subscriptions() == {Subscription("orders.*", frozenset({"order:placed"}))}


@pytest.mark.parametrize("where", ["lastEventId", "Last-Event-ID", "from"])
async def test_whoever_has_read_further_says_so_beside_a_resume_token(here: Assembly, where: str) -> None:
    """What is said beside it is newer than what is sealed in it."""
    resume = await resume_token(here.port, MINE)
    first, _ = await published(here, "public", "user:u1")
    query, headers = (
        (f"?resume={resume}&{where}={first}", {}) if where != "Last-Event-ID" else (f"?resume={resume}", {"Last_Event_ID": first})
    )
    async with EventStream(here.port, query, **headers) as stream:
        assert await heard(stream, "user:u1") == ["user:u1"]


async def test_a_resumed_websocket_has_its_subscriptions_again_and_misses_nothing(assemble: Assemble) -> None:
    """All of them, without being asked, on whichever process; further ones can be added (S1, L6)."""
    one, other = await assemble(), await assemble()
    resume = await resume_token_of_websocket(one.port, MINE, "orders.*", "other")
    await published(one, "public", "user:u2", "user:u1")
    await caught_up(other)
    async with RawWebSocket(other.port, f"?resume={resume}") as opened:
        await opened.next("welcome")
        assert [(await opened.next("event"))["data"]["n"] for _ in range(2)] == ["public", "user:u1"]
        await opened.next("live")
        (connection,) = other.hub.connections
        assert connection.subscriptions() == {Subscription("orders.*"), Subscription("other")}
        await published(one, "org:o1")
        assert (await opened.next("event"))["data"]["n"] == "org:o1"
        await opened.ask({"type": "unsubscribe", "topic": "orders.*"}, "unsubscribed")
        await opened.ask({"type": "unsubscribe", "topic": "other"}, "unsubscribed")
        await opened.ask({"type": "subscribe", "topic": "further"}, "subscribed")


async def test_a_websocket_resumed_without_subscriptions_has_none(here: Assembly) -> None:
    """It was open and had asked for nothing yet."""
    async with RawWebSocket(here.port, token=MINE) as opened:
        resume = (await opened.next("welcome"))["resumeToken"]
    async with RawWebSocket(here.port, f"?resume={resume}") as opened:
        await opened.next("welcome")
        await opened.next("live")
        await published(here, "public")
        await opened.ask({"type": "subscribe", "topic": "**"}, "subscribed")


@pytest.mark.parametrize("parameter", ["topics=a", "types=a", "sources=a", "resources=a/1", "minAmount=1", "topics="])
async def test_a_selection_beside_a_resume_token_is_400(here: Assembly, parameter: str) -> None:
    """It brings its own."""
    resume = await resume_token(here.port, MINE)
    response = await get(here.port, f"/v1/stream?resume={resume}&{parameter}")
    assert response.error() == (400, "invalid_request", parameter.partition("=")[0])


@pytest.mark.parametrize("path", ["/v1/stream", "/ws"])
async def test_anothers_resume_token_is_403(here: Assembly, path: str) -> None:
    """Beside a credential of one's own it must be one's own: same user, organisation and entity (S1)."""
    for theirs in (token("u2", org="o1"), token("u1", org="o2"), token("u1"), token("u1", org="o1", entity="e1")):
        resume = await resume_token(here.port, theirs)
        if path == "/ws":
            async with RawWebSocket(here.port, f"?resume={resume}", token=MINE) as opened:
                response = opened.head
        else:
            response = await get(here.port, f"{path}?resume={resume}", token=MINE)
        assert response.error() == (403, "forbidden", "resume")


async def test_the_credential_beside_a_resume_token_decides_what_may_be_heard(here: Assembly) -> None:
    """A role that was taken away since does not come back with an old token, nor does a longer life."""
    rich = token("u1", audiences=["user:u9"], seconds=900)
    resume = await resume_token(here.port, rich)
    await published(here, "user:u9", "public")
    async with EventStream(here.port, f"?resume={resume}", token=token("u1", seconds=300)) as stream:
        assert await heard(stream, "public") == ["public"]
        (connection,) = here.hub.connections
        assert connection.principal.audiences == {"public", "user:u1"}
        assert connection.principal.expires_at is not None
        assert connection.principal.expires_at < time.time() + 301


@pytest.mark.parametrize("path", ["/v1/stream", "/ws"])
@pytest.mark.parametrize("beside", [None, MINE])
async def test_a_resume_token_that_does_not_hold_is_401(here: Assembly, path: str, beside: str | None) -> None:
    """Altered or too old, alone or beside a good credential."""
    resume = await resume_token(here.port, MINE)

    async def answer(token: str) -> tuple[int, str, str | None]:
        if path == "/v1/stream":
            return (await get(here.port, f"{path}?resume={token}", token=beside)).error()
        async with RawWebSocket(here.port, f"?resume={token}", token=beside) as opened:
            return opened.head.error()

    altered = ("B" if resume[0] != "B" else "C") + resume[1:]
    assert await answer(altered) == (401, "unauthenticated", None)
    here.clock.ahead += here.settings.resume_seconds
    assert await answer(resume) == (401, "token_expired", None)


async def test_a_stream_opened_with_an_old_resume_token_ends_with_its_credential(here: Assembly) -> None:
    """However often it is resumed, nothing of it lives past the expiry of the credential that began it."""
    resume = await resume_token(here.port, token("u1", seconds=60))
    async with EventStream(here.port, f"?resume={resume}") as stream:
        again = (await stream.welcome()).json()["resumeToken"]
        await here.pass_seconds(61)
        assert (await stream.next_of("closing")).json()["code"] == 4402
    for one in (resume, again):
        assert (await get(here.port, f"/v1/stream?resume={one}")).error() == (401, "token_expired", None)


async def test_a_resume_token_of_what_was_revoked_is_401(assemble: Assemble) -> None:
    """On every process; another credential of the same user may use its subscriptions and position."""
    one, other = await assemble(), await assemble()
    resume = await resume_token(one.port, token("u1", org="o1", jti="t1"))
    await revoke(one.port, "token", "t1")
    await caught_up(one, other)
    for here in (one, other):
        assert (await get(here.port, f"/v1/stream?resume={resume}")).error() == (401, "unauthenticated", None)
        async with EventStream(here.port, f"?resume={resume}", token=MINE) as stream:
            await stream.welcome()


async def test_a_resource_that_was_taken_away_does_not_come_back_with_a_resume_token(here: Assembly) -> None:
    """What it names must be its own still; what it does not name it hears of if it is (S4)."""
    await own(here.port, "stream/1", "user:u1")
    naming = await resume_token(here.port, token("u1"), "?resources=stream/1")
    everything = await resume_token(here.port, token("u1"))
    websockets = await resume_token_of_websocket(here.port, token("u1"), "**")
    await own(here.port, "stream/1", "user:u2")
    await published(here, R1, "public")
    await caught_up(here)
    assert (await get(here.port, f"/v1/stream?resume={naming}")).error() == (403, "forbidden", "resources")
    async with EventStream(here.port, f"?resume={everything}") as stream:
        assert await heard(stream, "public") == ["public"]
    async with RawWebSocket(here.port, f"?resume={websockets}") as opened:
        await opened.next("welcome")
        assert (await opened.next("event"))["data"]["n"] == "public"


async def test_tickets_and_resume_tokens_are_good_for_nothing_else(here: Assembly) -> None:
    """Every other route answers as if they were not there."""
    code, resume = await ticket(here.port, ADMIN), await resume_token(here.port, ADMIN)
    for path in ("/v1/sessions?user=u1&", "/v1/resources/stream/1?"):
        for query in (f"ticket={code}", f"resume={resume}"):
            assert (await get(here.port, path + query)).error() == (401, "unauthenticated", None)


async def test_the_first_credential_that_is_there_counts(here: Assembly) -> None:
    """Header, query, ticket, resume token, cookie; one that does not hold is not made up for by the next."""
    code = await ticket(here.port, token("u2"))
    cookie = (await session(here.port, "u3")).cookie
    async with EventStream(here.port, f"?ticket={code}", Cookie=cookie) as stream:
        await stream.welcome()
        assert [one.principal.user for one in here.hub.connections] == ["u2"]
    for query, bearer in (("?token=x", None), ("?ticket=x", None), ("?resume=x", None), ("", "x")):
        async with EventStream(here.port, query, token=bearer, Cookie=cookie) as stream:
            assert stream.head.status == 401


async def test_the_eleventh_connection_of_a_user_closes_the_oldest(here: Assembly, expected_logs: list[str]) -> None:
    """Whatever the transports; it is told why with 4409, and the others live on (S6, D9)."""
    expected_logs.append("too many connections")
    async with EventStream(here.port, token=MINE) as first, websocket(here.port, MINE) as second:
        await first.welcome()
        others = [websocket(here.port, MINE) for _ in range(8)]
        for one in others:
            await one.__aenter__()
        assert len(here.hub.connections) == here.settings.connections_per_user == 10
        async with EventStream(here.port, token=MINE) as eleventh:
            await eleventh.welcome()
            closing = (await first.next_of("closing")).json()
            assert closing["code"] == 4409
            assert "at most 10" in closing["reason"]
            assert "retryMs" not in closing
            assert await first.ends()
            async with websocket(here.port, MINE):
                code, closing = await second.closed_with()
                assert code == 4409
                assert "at most 10" in closing["reason"]
                assert len(here.hub.connections) == 10
        for one in others:
            await one.__aexit__(None, None, None)
    await wait_until(lambda: not here.hub.connections, "all clients are gone")
    async with EventStream(here.port, token=MINE) as again:
        await again.welcome()


@pytest.mark.parametrize("path", ["/v1/stream", "/ws"])
async def test_beyond_its_limit_an_organisation_is_refused_and_told_when_to_come_back(
    assemble: Assemble, path: str, expected_logs: list[str]
) -> None:
    """429 with `Retry-After`; who belongs to another, or to none, comes in (S6)."""
    expected_logs.append("an organisation has as many connections as it may have")
    here = await assemble(connections_per_org=1)
    async with EventStream(here.port, token=MINE) as stream, EventStream(here.port, token=token("u2")) as other:
        await stream.welcome()
        await other.welcome()
        if path == "/ws":
            async with RawWebSocket(here.port, token=token("u2", org="o1")) as opened:
                response = opened.head
        else:
            response = await get(here.port, path, token=token("u2", org="o1"))
        assert response.error() == (429, "too_many_requests", None)
        assert int(response.headers["retry-after"]) > 0


async def test_who_comes_too_often_is_refused_before_anything_is_looked_at(assemble: Assemble, expected_logs: list[str]) -> None:
    """A ticket is still good afterwards; a preflight does not count (S6)."""
    expected_logs.append("refused")
    here = await assemble(connects_per_minute=1, connects_burst=1)
    code = await ticket(here.port, MINE)
    for _ in range(3):
        assert (await request(here.port, "OPTIONS", "/ws")).status == 204
    async with EventStream(here.port, token=MINE) as stream:
        await stream.welcome()
        async with RawWebSocket(here.port, f"?ticket={code}") as opened:
            assert opened.head.error() == (429, "too_many_requests", None)
            assert int(opened.head.headers["retry-after"]) > 0
        assert (await here.state.tickets.redeem(code)) is not None


def test_subscriptions_name_resources_only_if_all_of_them_do() -> None:
    """One that is not limited to some hears of all."""
    limited, other, free = (
        Subscription("a", audiences=frozenset({R1})),
        Subscription("b", audiences=frozenset({"resource:x/2"})),
        Subscription("c"),
    )
    assert named_by([limited, other]) == {R1, "resource:x/2"}
    assert named_by([limited, free]) == named_by([]) == frozenset()
