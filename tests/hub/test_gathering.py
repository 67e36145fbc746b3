"""Tests of hub/gathering.py: what is kept of what comes, and for how long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.gathering import MOST_ENTRIES, Gathering, chunk_of, newest_of_each
from hub.terms import Pace
from storage.entries import HIGH, Entry
from tests.hub.fakes import make_entries, make_entry, place_of

Kind = tuple[str, str | None, str | None]
kinds = st.lists(st.tuples(st.sampled_from("xy"), st.sampled_from([None, "k1", "k2"]), st.sampled_from([None, None, HIGH])))


def keyed(first: int, *keys: str | None) -> list[Entry]:
    """Return entries with these keys."""
    return [make_entry(seq, key=key) for seq, key in enumerate(keys, first)]


def numbers(entries: list[Entry]) -> list[int]:
    return [entry.seq for entry in entries]


@given(kinds)
def test_newest_of_each_key_and_all_without_one_are_kept(of: list[Kind]) -> None:
    """A key is of one type; what is of high priority is never superseded; the order stays."""
    entries = [make_entry(seq, type=type, key=key, priority=priority) for seq, (type, key, priority) in enumerate(of, 1)]
    newest = {(entry.type, entry.key): entry.seq for entry in entries}
    expected = [entry.seq for entry in entries if entry.key is None or entry.priority == HIGH or newest[entry.type, entry.key] == entry.seq]
    assert numbers(newest_of_each(entries)) == expected


@given(st.lists(st.integers(0, 3000), max_size=20), st.integers(1, 5000))
def test_pieces_are_about_a_chunk_and_hold_everything(sizes: list[int], chunk_bytes: int) -> None:
    """At least one entry each, and no more than a chunk if it is more than one."""
    entries = [make_entry(seq, data='"' + "x" * size + '"') for seq, size in enumerate(sizes, 1)]
    begin, pieces = 0, []
    while begin < len(entries):
        end = chunk_of(entries, begin, chunk_bytes)
        assert end > begin
        pieces.append(entries[begin:end])
        begin = end
    assert [entry for piece in pieces for entry in piece] == entries
    assert all(len(piece) == 1 or sum(len(entry.data) for entry in piece) <= chunk_bytes for piece in pieces)


def test_everything_stays_while_it_is_not_more_than_the_pace_allows() -> None:
    """A thousand within a second, all at once too; with one more, only the newest of each key stays."""
    gathering = Gathering(Pace(0.1, above=1000))
    assert gathering.add(keyed(1, *["k"] * 1000), place_of(0), 5.0) == 0
    assert gathering.conflate(5.0) == 0
    gathering.add(keyed(1001, "k"), place_of(1000), 5.0)
    assert gathering.conflate(5.0) == 1000
    assert numbers(gathering.entries) == [1001]


@pytest.mark.parametrize(("a_batch", "every_seconds"), [(90, 0.1), (450, 0.5), (900, 1.0), (9, 0.01)])
def test_batches_are_not_too_much_for_coming_together(a_batch: int, every_seconds: float) -> None:
    """Nine hundred a second, in batches of whatever size: nothing is left out."""
    gathering, now, seq = Gathering(Pace(0.1, above=1000)), 5.0, 1
    for _ in range(round(10 / every_seconds)):
        assert gathering.add(keyed(seq, *["k"] * a_batch), place_of(seq - 1), now) == 0
        assert gathering.conflate(now) == 0
        gathering.take(1 << 20, 99_999)
        seq, now = seq + a_batch, now + every_seconds


def test_allowance_grows_with_the_time_that_passes() -> None:
    """A ticker that is late makes nobody lose what was not too much; and after it was too much, less is soon not."""
    gathering = Gathering(Pace(0.1, above=1000))
    gathering.add(keyed(1, *["k"] * 1000), place_of(0), 5.0)
    gathering.add(keyed(1001, *["k"] * 150), place_of(1000), 5.15)
    assert gathering.conflate(5.15) == 0
    gathering.add(keyed(1151, *["k"] * 5000), place_of(1150), 5.15)
    gathering.conflate(5.15)
    assert numbers(gathering.entries) == [6150]
    gathering.add(keyed(6151, *["k"] * 50), place_of(6150), 5.4)
    assert gathering.conflate(5.4) == 0


def test_with_no_rate_to_exceed_it_is_always_the_newest() -> None:
    """`above` of 0."""
    gathering = Gathering(Pace(0.1))
    gathering.add(keyed(1, "k", None, "k", "l"), place_of(0), 5.0)
    assert gathering.conflate(5.0) == 1
    assert numbers(gathering.entries) == [2, 3, 4]


def test_what_is_superseded_does_not_pile_up() -> None:
    """However much comes between two deliveries, about twice as much is kept as may come in a second."""
    gathering = Gathering(Pace(0.1, above=1000))
    gone = 0
    for seq in range(1, 20_001, 4):
        gone += gathering.add(keyed(seq, "a", "b", "c", "d"), place_of(seq - 1), 5.0)
        assert len(gathering.entries) <= 2 * 1024 + 4
    assert gone + gathering.conflate(5.0) == 20_000 - 4
    piece = gathering.take(1 << 20, 99_999)
    assert numbers(piece) == [19_997, 19_998, 19_999, 20_000]
    gathering.add(keyed(20_001, "a", "a"), place_of(20_000), 6.0)
    assert gathering.conflate(6.0) == 0


@pytest.mark.parametrize(
    "entries",
    [make_entries(1, MOST_ENTRIES + 1), [make_entry(seq, data='"' + "x" * 250_000 + '"') for seq in range(1, 13)]],
    ids=["too many", "too large"],
)
def test_it_is_full_of_what_cannot_be_let_go(entries: list[Entry]) -> None:
    """Entries without a key, too many or too large; once they are taken there is room again."""
    gathering = Gathering(Pace(0.1))
    gathering.add(entries[:-2], place_of(0), 5.0)
    assert not gathering.full
    gathering.add(entries[-2:], place_of(entries[-3].seq), 5.0)
    full = gathering.full
    gathering.take(10 << 20, 99_999)
    assert (full, gathering.full) == (True, False)


def test_pieces_move_its_beginning() -> None:
    """What is taken is no longer pending, and what comes next begins right before its first entry."""
    gathering = Gathering(Pace(0.1))
    gathering.add(make_entries(5, 8), place_of(4), 5.0)
    assert gathering.before == place_of(4)
    assert numbers(gathering.take(500, 99_999)) == [5, 6]
    assert gathering.before == place_of(6)
    assert numbers(gathering.take(6000, 7)) == [7]
    assert numbers(gathering.take(6000, 99_999)) == [8]
    gathering.add(make_entries(20, 21), place_of(19), 6.0)
    assert gathering.before == place_of(19)


def test_it_covers_what_is_not_before_its_beginning() -> None:
    """Whoever stands there gets everything that comes after."""
    gathering = Gathering(Pace(0.1))
    gathering.restart(place_of(4))
    assert gathering.covers(place_of(4))
    assert not gathering.covers(place_of(3))
    gathering.add(make_entries(9, 9), place_of(8), 5.0)
    assert gathering.covers(place_of(8))
    assert not gathering.covers(place_of(7))
    gathering.restart(place_of(50))
    assert gathering.entries == []
    assert not gathering.covers(place_of(49))
