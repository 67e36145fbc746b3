"""Sessions: made, found by their secret, revoked, over; and what of them lies in MongoDB."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from storage.errors import Unavailable
from storage.sessions import NewSession, Session, Sessions, is_session_id
from tests.storage.faults import Clock, FaultyDatabase, answer_lost, indexes, not_sent, plan, stored

CLAIMS = {
    "sub": "u1",
    "iat": 1_700_000_000,
    "org": "o1",
    "roles": ["user"],
    "audiences": ["resource:stream/1"],
    "big": 1 << 80,
    "$ref": {"a.b": 1.5},
}


@pytest.fixture
async def sessions(database: FaultyDatabase, present: Clock) -> Sessions:
    sessions = Sessions(database, clock=present)
    await sessions.open()
    database.commands.clear()
    return sessions


# --- making and finding ---


async def test_a_session_is_found_by_its_secret(sessions: Sessions, present: Clock) -> None:
    """With its claims exactly as they were given."""
    made = await sessions.create(CLAIMS, 60)
    assert made.expires_at == present.now + 60
    assert await sessions.find(made.secret) == Session(made.id, CLAIMS, made.expires_at)


async def test_a_session_says_when_it_was_issued(sessions: Sessions, present: Clock) -> None:
    """Now, if the claims do not say it: revoking all that a user had before must not concern what he gets afterwards."""
    made = await sessions.create({"sub": "u1"}, 60)
    session = await sessions.find(made.secret)
    assert session is not None
    assert session.claims == {"sub": "u1", "iat": present.now}


async def test_another_process_finds_it_as_well(sessions: Sessions, other_database: FaultyDatabase, present: Clock) -> None:
    """As soon as it is made."""
    made = await sessions.create(CLAIMS, 60)
    assert await Sessions(other_database, clock=present).find(made.secret) == Session(made.id, CLAIMS, made.expires_at)


async def test_each_session_is_another(sessions: Sessions) -> None:
    """Also of the same user with the same claims."""
    first, second = await sessions.create(CLAIMS, 60), await sessions.create(CLAIMS, 60)
    assert first.secret != second.secret
    assert first.id != second.id


async def test_the_secret_is_nowhere_but_at_the_client(sessions: Sessions, database: FaultyDatabase) -> None:
    """MongoDB has its hash, the id is the first half of that, and neither opens anything."""
    made = await sessions.create(CLAIMS, 60)
    (document,) = await stored(database, "sessions")
    hashed = hashlib.sha256(made.secret.encode()).digest()
    assert document["hash"] == hashed
    assert document["_id"] == made.id == hashed.hex()[:32]
    assert made.secret not in str(document)
    assert made.secret not in repr(made)
    assert repr(made) == f"NewSession(id={made.id!r}, expires_at={made.expires_at!r})"
    for stolen in (made.id, hashed.hex(), made.id + "x" * 11):
        assert await sessions.find(stolen) is None


async def test_an_id_is_told_from_a_secret(sessions: Sessions) -> None:
    """By its form: who names a secret where an id is asked for must not have it kept."""
    made = await sessions.create(CLAIMS, 60)
    assert is_session_id(made.id)
    assert not any(map(is_session_id, (made.secret, "", made.id[:-1], made.id + "0", made.id.upper().replace("0", "G"), made.id + "\n")))


async def test_half_of_the_hash_opens_nothing(sessions: Sessions, database: FaultyDatabase) -> None:
    """A document under the right id with another hash is another session's."""
    made = await sessions.create(CLAIMS, 60)
    await database.command({"update": "sessions", "updates": [{"q": {"_id": made.id}, "u": {"$set": {"hash": b"\0" * 32}}}]})
    assert await sessions.find(made.secret) is None


@pytest.mark.parametrize("secret", ["", "x" * 42, "é" * 43, '{"$ne": null}', "x" * 1_000_000])
async def test_what_cannot_be_a_secret_is_not_asked_for(sessions: Sessions, database: FaultyDatabase, secret: str) -> None:
    """Garbage costs MongoDB nothing."""
    assert await sessions.find(secret) is None
    assert database.commands == []


async def test_a_secret_that_nobody_was_given_finds_nothing(sessions: Sessions) -> None:
    """It looks like one."""
    assert await sessions.find("x" * 43) is None


@pytest.mark.parametrize("claims", [{}, {"sub": ""}, {"sub": 7}, {"sub": None}])
async def test_a_session_is_somebodys(sessions: Sessions, database: FaultyDatabase, claims: dict[str, object]) -> None:
    """Without a user's name none is made."""
    with pytest.raises(ValueError, match="claim sub"):
        await sessions.create(claims, 60)
    assert database.commands == []


async def test_a_session_ends(sessions: Sessions) -> None:
    """One that would be over at once, or never, is a mistake."""
    for seconds in (0, float("inf")):
        with pytest.raises(ValueError, match="seconds above 0"):
            await sessions.create(CLAIMS, seconds)


@pytest.mark.parametrize("fault", [not_sent, answer_lost])
async def test_a_session_that_is_not_confirmed_is_not_handed_out(sessions: Sessions, database: FaultyDatabase, fault: object) -> None:
    """Whoever wanted it tries again."""
    database.inject("insert", fault)  # type: ignore[arg-type]
    with pytest.raises(Unavailable):
        await sessions.create(CLAIMS, 60)
    made = await sessions.create(CLAIMS, 60)
    assert await sessions.find(made.secret) is not None


# --- its end ---


async def test_it_is_over_to_the_millisecond(sessions: Sessions, present: Clock) -> None:
    """However long MongoDB takes to delete it."""
    made = await sessions.create(CLAIMS, 60)
    present.now = made.expires_at - 0.001
    assert await sessions.find(made.secret) is not None
    present.now = made.expires_at
    assert await sessions.find(made.secret) is None
    assert await sessions.revoke(made.id) is None


async def test_a_revoked_one_is_gone_everywhere(sessions: Sessions, other_database: FaultyDatabase, present: Clock) -> None:
    """At once, in every process; who revoked it learns whose it was."""
    made = await sessions.create(CLAIMS, 60)
    assert await sessions.revoke(made.id) == Session(made.id, CLAIMS, made.expires_at)
    assert await sessions.find(made.secret) is None
    assert await Sessions(other_database, clock=present).find(made.secret) is None
    assert await sessions.revoke(made.id) is None


async def test_of_two_that_revoke_it_one_learns_whose_it_was(sessions: Sessions) -> None:
    """So it is told once that it ended."""
    made = await sessions.create(CLAIMS, 60)
    revoked = await asyncio.gather(*(sessions.revoke(made.id) for _ in range(4)))
    assert sorted(map(bool, revoked)) == [False, False, False, True]


async def test_mongodb_deletes_what_is_over(sessions: Sessions, database: FaultyDatabase) -> None:
    """By an index on its end; opening again changes nothing."""
    await sessions.open()
    made = await indexes(database, "sessions")
    assert made["expires"]["expireAfterSeconds"] == 0
    assert dict(made["expires"]["key"]) == {"expires": 1}


# --- of a user ---


async def test_a_users_sessions_come_newest_first(sessions: Sessions, present: Clock) -> None:
    """Only those that hold, and only that user's."""
    made: list[NewSession] = []
    for seconds in (60, 5, 60, 60):
        made.append(await sessions.create(CLAIMS, seconds))
        present.now += 1
    await sessions.create({"sub": "u2"}, 60)
    await sessions.revoke(made[2].id)
    present.now += 10
    assert [session.id for session in await sessions.of_user("u1")] == [made[3].id, made[0].id]
    assert [session.id for session in await sessions.of_user("u1", limit=1)] == [made[3].id]
    assert (await sessions.of_user("u1"))[0] == Session(made[3].id, CLAIMS, made[3].expires_at)
    assert await sessions.of_user("nobody") == []


async def test_looking_up_is_by_index(sessions: Sessions, database: FaultyDatabase) -> None:
    """By `_id` for a secret, by user and time for a list, without sorting in memory."""
    made = await sessions.create(CLAIMS, 60)
    database.commands.clear()
    await sessions.find(made.secret)
    await sessions.of_user("u1")
    by_secret, by_user = [await plan(database, _explainable(command)) for command in database.commands[:2]]
    assert "_id_" in by_secret
    assert "IXSCAN" in by_user
    assert all(stage not in by_secret + by_user for stage in ("COLLSCAN", "'SORT'"))


def _explainable(command: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in command.items() if name != "readConcern"}


# --- many at once ---


async def test_a_thousand_that_come_back_are_a_few_queries(sessions: Sessions, database: FaultyDatabase) -> None:
    """Each gets its own session."""
    made = await asyncio.gather(*(sessions.create({"sub": f"u{number}"}, 60) for number in range(50)))
    database.commands.clear()
    found = await asyncio.gather(*(sessions.find(made[number % 50].secret) for number in range(1000)))
    assert [session and session.claims["sub"] for session in found] == [f"u{number % 50}" for number in range(1000)]
    assert database.count("find", "sessions") == 1


async def test_a_break_reaches_all_who_waited(sessions: Sessions, database: FaultyDatabase) -> None:
    """Nobody is taken for somebody unknown because MongoDB was away."""
    made = await sessions.create(CLAIMS, 60)
    database.inject("find", not_sent)
    results = await asyncio.gather(*(sessions.find(made.secret) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [Unavailable] * 3
    assert await sessions.find(made.secret) is not None


async def test_a_closed_one_finds_nothing_more(sessions: Sessions) -> None:
    """And leaves no task."""
    await sessions.close()
    with pytest.raises(Unavailable, match="stopping"):
        await sessions.find("x" * 43)
