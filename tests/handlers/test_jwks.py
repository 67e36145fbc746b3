"""Tests of handlers/jwks.py, with a real HTTPS endpoint: when keys are fetched, how often, and what holds when they cannot be."""

from __future__ import annotations

import asyncio

import pytest

from handlers import jwks
from handlers.jwks import ASK_SECONDS, LONGEST_RETRY_SECONDS, MAX_SET_BYTES, pause_seconds
from tests.handlers.assembly import SECRET
from tests.handlers.issuer import NEW_KEY, Checker, Issuer, checking, signed
from tests.waiting import wait_until

PRIVATE = {algorithm: make() for algorithm, make in NEW_KEY.items()}
FAILURE = "cannot fetch the keys"


# ---- rotation


async def test_the_issuers_tokens_hold(issuer: Issuer, checker: Checker) -> None:
    """A token signed with a published key holds, with the first fetch on its way still; the operator's own keys count beside it (S2)."""
    assert (await checker.authenticate(issuer.token("k1"))).user == "u1"
    assert (await checker.authenticate(signed(SECRET, "HS256", None, sub="u2"))).user == "u2"
    assert issuer.requests == 1


@pytest.mark.parametrize("algorithm", PRIVATE)
async def test_a_new_key_is_fetched_when_a_token_needs_it(issuer: Issuer, checker: Checker, algorithm: str) -> None:
    """The issuer adds a key and signs with it at once: nobody is refused, nothing has to be restarted (S2)."""
    await checker.authenticate(issuer.token("k1"))
    issuer.publish("k2", algorithm=algorithm)
    checker.clock.now += ASK_SECONDS
    assert (await checker.authenticate(issuer.token("k2", algorithm))).user == "u1"
    assert issuer.requests == 2


async def test_a_set_that_is_written_otherwise_is_the_same(issuer: Issuer, checker: Checker) -> None:
    """Spaces, order, and members that do not matter change nothing, so that tokens stay remembered."""
    await checker.authenticate(issuer.token("k1"))
    version = checker.ring.version
    issuer.publish("k1", pretty=True)
    checker.clock.now += ASK_SECONDS
    await checker.refusal(issuer.token("k2"))
    assert issuer.requests == 2
    assert checker.ring.version == version


async def test_keys_are_fetched_again_in_the_background(issuer: Issuer) -> None:
    """Nobody has to ask: when they get old, they are fetched anew, and what was withdrawn is gone."""
    async with checking(issuer, seconds=0.005) as checker:
        await checker.authenticate(issuer.token("k1"))
        issuer.publish("k2")
        await wait_until(lambda: checker.ring.has("ES256", "k2"), "the new key is there")
        assert not checker.ring.has("ES256", "k1")


# ---- how often


async def test_many_wait_for_one_fetch(issuer: Issuer) -> None:
    """A thousand clients with a token of a new key are one request to the issuer; one that gives up harms no other (S2)."""
    issuer.gate.clear()
    async with checking(issuer) as checker:
        waiting = [asyncio.create_task(checker.authenticate(issuer.token("k1", sub=f"u{number}"))) for number in range(1000)]
        await wait_until(lambda: issuer.requests, "the keys were asked for")
        waiting.pop().cancel()
        await asyncio.sleep(0)  # so that it is gone before the answer comes
        issuer.gate.set()
        assert [one.user for one in await asyncio.gather(*waiting)] == [f"u{number}" for number in range(999)]
        assert issuer.requests == 1


async def test_unknown_names_are_asked_for_every_few_seconds_at_most(issuer: Issuer, checker: Checker) -> None:
    """Anybody can make up names of keys: that must not become a flood for the issuer (S2)."""
    await checker.authenticate(issuer.token("k1"))
    forged = [signed(PRIVATE["ES256"], "ES256", f"forged{number}") for number in range(20)]
    for step in range(3):
        for token in forged:
            assert "a key that is not known" in await checker.refusal(token)
        checker.clock.now += ASK_SECONDS / 2
        assert issuer.requests == 1 + step // 2
    await checker.refusal(forged[0])
    assert issuer.requests == 2


# ---- when the issuer fails


async def test_without_any_keys_yet_the_client_is_to_come_back(
    issuer: Issuer, expected_logs: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """With the endpoint down at the start, tokens are neither good nor bad: 503 with Retry-After; when it is up, they hold (S2)."""
    expected_logs.append(FAILURE)
    await issuer.go_away()
    async with checking(issuer) as checker:
        assert await checker.unavailable(issuer.token("k1")) == ASK_SECONDS
        assert await checker.unavailable(issuer.token("k1")) == ASK_SECONDS
        assert (await checker.authenticate(signed(SECRET, "HS256", None))).user == "u1"
        checker.clock.now += ASK_SECONDS
        assert await checker.unavailable(issuer.token("k1")) == ASK_SECONDS
        await issuer.listen()
        checker.clock.now += ASK_SECONDS
        assert (await checker.authenticate(issuer.token("k1"))).user == "u1"
    assert caplog.text.count(FAILURE) == 1
    assert "answered 503" in caplog.text


async def test_the_last_good_keys_are_kept_when_the_issuer_fails(
    issuer: Issuer, checker: Checker, expected_logs: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """With the endpoint down later, everything goes on but for keys that nobody knows; each outage is reported once (S2)."""
    expected_logs.append(FAILURE)
    await checker.authenticate(issuer.token("k1"))
    for outage in (1, 2):
        await issuer.go_away()
        for _ in range(3):
            checker.clock.now += ASK_SECONDS
            assert "a key that is not known" in await checker.refusal(issuer.token("k2"))
        assert (await checker.authenticate(issuer.token("k1", sub=f"u{outage}"))).user == f"u{outage}"
        assert caplog.text.count(FAILURE) == outage
        await issuer.listen()
        checker.clock.now += ASK_SECONDS
        await checker.refusal(issuer.token("k2"))
    assert "those of before are used meanwhile" in caplog.text
    issuer.publish("k2")
    checker.clock.now += ASK_SECONDS
    assert (await checker.authenticate(issuer.token("k2"))).user == "u1"


async def test_an_issuer_that_is_down_is_tried_again_without_being_asked(issuer: Issuer, expected_logs: list[str]) -> None:
    """Nobody has to come with a token before the keys are there."""
    expected_logs.append(FAILURE)
    await issuer.go_away()
    async with checking(issuer, seconds=0.005) as checker:
        await checker.unavailable(issuer.token("k1"))
        await issuer.listen()
        await wait_until(lambda: checker.ring.has("ES256", "k1"), "the keys were fetched")


async def test_a_slow_issuer_holds_up_nobody_for_long(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client waits some seconds and is told to come back; the fetch goes on, and the next one finds the keys."""
    monkeypatch.setattr(jwks, "WAIT_SECONDS", 0.01)
    issuer.gate.clear()
    async with checking(issuer) as checker:
        assert await checker.unavailable(issuer.token("k1")) == ASK_SECONDS
        issuer.gate.set()
        await wait_until(lambda: checker.ring.has("ES256", "k1"), "the keys were fetched")
        assert (await checker.authenticate(issuer.token("k1"))).user == "u1"
    assert issuer.requests == 1


async def test_a_fetch_that_takes_too_long_is_given_up(
    issuer: Issuer, expected_logs: list[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An issuer that takes the request and never answers is an outage like any other."""
    expected_logs.append(FAILURE)
    monkeypatch.setattr(jwks, "ANSWER_SECONDS", 0.05)
    issuer.gate.clear()
    async with checking(issuer) as checker:
        await checker.unavailable(issuer.token("k1"))
        assert "Timeout" in caplog.text


CHUNK = b"8000\r\n" + b" " * 0x8000 + b"\r\n"
BAD_ANSWERS = {
    "an error": (b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n", "status 500"),
    "not found": (b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}", "status 404"),
    "nothing new": (b"HTTP/1.1 304 Not Modified\r\n\r\n", "status 304"),
    "a redirection": (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n", "status 302"),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", "it is no JSON object"),
    "a page": (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>", "it is no JSON object"),
    "an empty set": (b'HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{"keys":[]}', "none of its keys"),
    "compressed": (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08", "it is no JSON object"),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "the connection was closed"),
    "a head without end": (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, "not found within 65536 bytes"),
    "two lengths": (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}", "the connection was closed"),
    "nothing": (b"", "the connection was closed"),
    "half an answer": (b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"keys": [', "the connection was closed"),
    "too large": (
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (MAX_SET_BYTES + 1) + b" " * (MAX_SET_BYTES + 1),
        "at most 1048576 bytes",
    ),
    "too large, in chunks": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNK * (MAX_SET_BYTES // 0x8000 + 1) + b"0\r\n\r\n",
        "at most 1048576 bytes",
    ),
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
async def test_an_answer_that_is_no_key_set_changes_nothing(
    issuer: Issuer, checker: Checker, name: str, expected_logs: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever comes instead of keys, those of before are kept, the reason is reported, and the next good answer counts again."""
    expected_logs.append(FAILURE)
    await checker.authenticate(issuer.token("k1"))
    issuer.answer, reason = BAD_ANSWERS[name]
    checker.clock.now += ASK_SECONDS
    assert "a key that is not known" in await checker.refusal(issuer.token("k2"))
    assert reason in caplog.text
    assert (await checker.authenticate(issuer.token("k1", sub="u2"))).user == "u2"
    issuer.publish("k2")
    checker.clock.now += ASK_SECONDS
    assert (await checker.authenticate(issuer.token("k2"))).user == "u1"


async def test_an_endpoint_that_cannot_prove_who_it_is_is_not_believed(
    issuer: Issuer, expected_logs: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A certificate that the system does not trust is an outage: nobody in between can bring in keys of their own."""
    expected_logs += [FAILURE, "SSL Error"]
    async with checking(issuer, ssl_context=None) as checker:
        await checker.unavailable(issuer.token("k1"))
        assert issuer.requests == 0
    assert "certificate verify failed" in caplog.text.lower()


# ---- its end


async def test_stopping_in_the_middle_of_a_fetch_leaves_nobody_waiting(issuer: Issuer) -> None:
    """Who waits for keys when the server stops is told to come back; stopping twice is stopping once."""
    issuer.gate.clear()
    async with checking(issuer) as checker:
        waiting = asyncio.create_task(checker.unavailable(issuer.token("k1")))
        await wait_until(lambda: issuer.requests, "the keys were asked for")
        await checker.stop()
        assert await waiting == ASK_SECONDS
    await issuer.go_away()  # what comes of the fetch now is nobody's business, and nothing is logged


@pytest.mark.parametrize(
    ("failures", "seconds", "pause"),
    [
        (0, 300, 300),
        (1, 300, 1),
        (2, 300, 2),
        (3, 300, 4),
        (7, 300, LONGEST_RETRY_SECONDS),
        (10_000, 300, LONGEST_RETRY_SECONDS),
        (9, 2, 2),
    ],
)
def test_pauses_grow_with_failures(failures: int, seconds: float, pause: float) -> None:
    """After a success, as long as keys are good; after failures, longer each time within bounds."""
    assert pause_seconds(failures, seconds) == pause
