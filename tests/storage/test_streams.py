"""Payment streams in MongoDB: a state and its event are written together, and whoever comes later finds what was not finished."""

from __future__ import annotations

import asyncio

import pytest

from storage.errors import CommandFailed, Unavailable
from storage.streams import REMEMBERED_CHANGES, Change, Done, Stream, Streams
from tests.storage.faults import Clock, FaultyDatabase, answer_lost, indexes, not_sent, plan

STATE = {"streamId": "s1", "depositedAmount": "9" * 100, "startTime": 1}


def change(number: int = 1, key: str | None = None) -> Change:
    """Return a change of which only these two matter."""
    return Change(number, "stream.created", '{"a": 1}', key, f"digest {number}", "c1")


@pytest.fixture
async def streams(database: FaultyDatabase, present: Clock) -> Streams:
    streams = Streams(database, clock=present)
    await streams.open()
    return streams


async def made(streams: Streams, *, finished: bool = True) -> Stream:
    """Return a new stream, as it is found."""
    assert await streams.create("s1", STATE, change()) is not None
    if finished:
        await streams.finish("s1", change(), "e1")
    found = await streams.find("s1")
    assert found is not None
    return found


async def test_a_stream_is_kept_with_its_first_change_begun(streams: Streams, present: Clock) -> None:
    """As it was given, with when that was."""
    stream = await streams.create("s1", STATE, change(key="k"))
    assert stream == Stream("s1", STATE, 1, "digest 1", change(key="k")._replace(at=present.now), (), None)
    assert await streams.find("s1") == stream
    assert await streams.find("s2") is None


async def test_of_several_who_make_it_one_succeeds(streams: Streams) -> None:
    """The others are told that it is there."""
    found = await asyncio.gather(*(streams.create("s1", STATE, change()) for _ in range(5)))
    assert len([one for one in found if one is not None]) == 1


async def test_what_mongodb_refuses_is_no_stream_that_is_there(streams: Streams, database: FaultyDatabase) -> None:
    """Only a duplicate means that there is one."""

    async def refused(*_: object) -> dict[str, object]:
        return {"writeErrors": [{"errmsg": "no", "code": 121}]}

    database.inject("insert", refused)
    with pytest.raises(CommandFailed):
        await streams.create("s1", STATE, change())


async def test_a_change_is_done_once_its_event_is_known(streams: Streams) -> None:
    """The first one's event is remembered for good."""
    assert await made(streams) == Stream("s1", STATE, 1, "digest 1", None, (Done(1, None, "digest 1", "e1"),), "e1")


async def test_finishing_again_changes_nothing(streams: Streams) -> None:
    """Whoever was late finds it done."""
    stream = await made(streams)
    await streams.finish("s1", change(), "e1")
    assert await streams.find("s1") == stream


async def test_a_stream_changes_from_what_was_seen_only(streams: Streams, present: Clock) -> None:
    """Whoever saw an older state has to look again."""
    stream = await made(streams)
    changed = await streams.begin(stream, {"n": 2}, change(2, "k"))
    assert changed == stream._replace(state={"n": 2}, changes=2, begun=change(2, "k")._replace(at=present.now))
    assert await streams.begin(stream, {"n": 3}, change(2)) is None
    assert await streams.find("s1") == changed


async def test_nothing_is_begun_before_the_last_change_is_done(streams: Streams) -> None:
    """So that the events of a stream are in the order of its changes."""
    stream = await made(streams, finished=False)
    assert await streams.begin(stream, {"n": 2}, change(2)) is None
    await streams.finish("s1", change(), "e1")
    assert await streams.begin(stream, {"n": 2}, change(2)) is not None


async def test_a_lost_answer_leaves_it_begun(streams: Streams, database: FaultyDatabase) -> None:
    """It was carried out, and is found so."""
    stream = await made(streams)
    database.inject("findAndModify", answer_lost)
    with pytest.raises(Unavailable):
        await streams.begin(stream, {"n": 2}, change(2, "k"))
    found = await streams.find("s1")
    assert found is not None
    assert found.begun is not None
    assert (found.begun.key, found.state) == ("k", {"n": 2})


async def test_the_last_changes_are_remembered(streams: Streams) -> None:
    """So many of them, and the first event beside."""
    stream = await made(streams)
    for number in range(2, REMEMBERED_CHANGES + 3):
        changed = await streams.begin(stream._replace(changes=number - 1), {"n": number}, change(number))
        assert changed is not None
        await streams.finish("s1", change(number), f"e{number}")
    found = await streams.find("s1")
    assert found is not None
    assert [one.number for one in found.done] == list(range(3, REMEMBERED_CHANGES + 3))
    assert (found.first, found.changes) == ("e1", REMEMBERED_CHANGES + 2)


async def test_what_was_begun_long_ago_is_found(streams: Streams, present: Clock) -> None:
    """Oldest first, no more than are wanted, and not what somebody has begun just now."""
    for id in ("b", "a", "c"):
        await streams.create(id, STATE, change())
        present.now += 10
    assert [one.id for one in await streams.unfinished(5, 10)] == ["b", "a", "c"]
    assert [one.id for one in await streams.unfinished(15, 10)] == ["b", "a"]
    assert [one.id for one in await streams.unfinished(5, 2)] == ["b", "a"]
    await streams.finish("b", change(), "e1")
    assert [one.id for one in await streams.unfinished(5, 10)] == ["a", "c"]


async def test_what_is_begun_is_found_by_index(streams: Streams, database: FaultyDatabase) -> None:
    """Which has only those streams."""
    await streams.unfinished(5, 10)
    command = next(one for one in reversed(database.commands) if "find" in one)
    shown = await plan(database, {name: value for name, value in command.items() if name != "readConcern"})
    assert "IXSCAN" in shown
    assert "COLLSCAN" not in shown
    assert (await indexes(database, "streams"))["begun"]["partialFilterExpression"] == {"begun.at": {"$exists": True}}


async def test_without_mongodb_nothing_is_made(streams: Streams, database: FaultyDatabase) -> None:
    """And the caller hears that."""
    database.inject("insert", not_sent)
    with pytest.raises(Unavailable):
        await streams.create("s1", STATE, change())
    assert await streams.find("s1") is None
