"""Tests of hub/starting.py: what a client's idea of a place means in this log."""

from __future__ import annotations

import pytest

from hub.connection import Start
from hub.errors import BadRequest
from hub.starting import SHOWN_ID_LENGTH, locate
from storage.errors import Unavailable
from storage.positions import Position
from tests.hub.fakes import FIRST_MS, ListLog, id_of, make_codec, make_entries, place_of


async def find(wanted: str | None, *, seen: int = 10) -> Start | None:
    """Look a place up in a log of entries 3 to 10, of which this process has seen some."""
    return await locate(ListLog(make_entries(3, 10)), place_of(seen), wanted, field="from")


def claimed(seq: int) -> Start:
    """Return the start after entry `seq`, as its id says."""
    return Start(place_of(seq), claims=((place_of(seq), id_of(seq)),))


async def test_without_a_wish_a_connection_begins_live() -> None:
    """Nothing given, or nothing in it, means: from now on."""
    assert await find(None) is None
    assert await find("") is None


async def test_earliest_begins_before_everything() -> None:
    """`earliest` takes whatever is there."""
    assert await find("earliest") == Start(Position(0, 0), from_earliest=True)


async def test_id_is_a_place() -> None:
    """An id of this log begins after its entry, also if that has left the log: reading on will tell."""
    assert await find(id_of(5)) == claimed(5)
    assert await find(id_of(1)) == claimed(1)


async def test_id_that_this_process_has_not_seen_yet_is_a_place() -> None:
    """Another process may be ahead: the log itself is asked."""
    assert await find(id_of(9), seen=5) == claimed(9)


async def test_id_beyond_the_log_is_unknown() -> None:
    """A number that was never given out, as after a restored backup, is reported and not waited for."""
    assert await find(id_of(11)) == Start(Position(0, 0), (id_of(11), "unknown position"))


async def test_id_of_an_earlier_log_is_recognised() -> None:
    """An id from before the log was made anew says so in the gap."""
    old = make_codec(9).encode(5, FIRST_MS)
    assert await find(old) == Start(Position(0, 0), (old, "log recreated"))


@pytest.mark.parametrize("garbage", ["x", "123-", "1750000000005-AAAA", "0x10", "🦊", "-" * 500])
async def test_garbage_is_an_unknown_position(garbage: str) -> None:
    """What is no id at all is a gap, not an error, and is repeated only so far."""
    assert await find(garbage) == Start(Position(0, 0), (garbage[:SHOWN_ID_LENGTH], "unknown position"))


@pytest.mark.parametrize(
    "time",
    [
        "2025-06-15T15:06:40.006Z",
        "2025-06-15t15:06:40.006Z",
        "2025-06-15 15:06:40.006Z",
        "2025-06-15T17:06:40.006+02:00",
        "2025-06-15T17:06:40.006 02:00",
    ],
)
async def test_time_begins_at_the_first_entry_as_new(time: str) -> None:
    """An RFC 3339 time, in any zone, begins before the first entry appended then; a `+` may have become a space."""
    assert await find(time) == Start(place_of(5), from_earliest=True)


async def test_time_before_the_log_and_before_1970_begins_at_its_oldest() -> None:
    """A time from long ago takes whatever is there."""
    assert await find("1960-01-01T00:00:00Z") == Start(Position(2, 0), from_earliest=True)


@pytest.mark.parametrize("wrong", ["2025-06-15T15:06:40", "2025-13-15T15:06:40Z", "2025-06-15Tnoon", "2025-06-15T25:00:00Z"])
async def test_wrong_time_is_refused_by_name(wrong: str) -> None:
    """What looks like a time and is none, or has no zone, is the client's mistake."""
    with pytest.raises(BadRequest) as caught:
        await find(wrong)
    assert caught.value.field == "from"


async def test_log_that_cannot_be_asked_is_an_error() -> None:
    """When only MongoDB knows and it is away, nothing is guessed."""
    log = ListLog(make_entries(3, 10))
    log.failures = 2
    with pytest.raises(Unavailable):
        await locate(log, place_of(5), id_of(9), field="from")
    with pytest.raises(Unavailable):
        await locate(log, place_of(5), "2025-06-15T15:06:40.006Z", field="from")
