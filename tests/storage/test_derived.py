"""What is computed from the log: parts that never go back, and progress that is written after them."""

from __future__ import annotations

import pytest

from storage.derived import PROGRESS, DerivedState
from storage.errors import Unavailable
from storage.parts import Part, Progress
from tests.storage.faults import FaultyDatabase, answer_lost, indexes, not_sent, stored

LOG, OTHER_LOG = "0a0b0c0d", "$log"


@pytest.fixture
async def derived(database: FaultyDatabase) -> DerivedState:
    derived = DerivedState(database, "sums")
    await derived.open()
    return derived


def part(seq: int, key: str = "a", kind: str = "sum", total: str = "1") -> Part:
    """Return one part, changed last by this entry."""
    return Part(kind, key, seq, {"total": total, "$who": "$key"})


async def save(derived: DerivedState, parts: list[Part], progress: Progress) -> None:
    """Write parts and then the progress."""
    if parts:
        await derived.write(parts, progress.log)
    await derived.advance(progress)


async def parts_of(derived: DerivedState, kind: str = "sum", log: str = LOG) -> list[Part]:
    """Return all parts of a kind."""
    return [one async for batch in derived.parts(kind, log) for one in batch]


async def test_what_was_saved_is_there(derived: DerivedState) -> None:
    """By kind, whatever characters are in it; at first there is nothing."""
    assert (await derived.progress(), await parts_of(derived)) == (None, [])
    await save(derived, [part(3), part(4, "$b"), part(5, "a", "$price")], Progress(LOG, 7))
    assert await derived.progress() == Progress(LOG, 7)
    assert await parts_of(derived) == [part(3), part(4, "$b")]
    assert await parts_of(derived, "$price") == [part(5, "a", "$price")]


async def test_a_part_never_goes_back(derived: DerivedState) -> None:
    """Whoever writes an older state of it, late, changes nothing; the same entry may say it anew; nor does the progress go back."""
    await save(derived, [part(5, total="5")], Progress(LOG, 6))
    await save(derived, [part(4, total="4")], Progress(LOG, 4))
    assert (await parts_of(derived), await derived.progress()) == ([part(5, total="5")], Progress(LOG, 6))
    await save(derived, [part(5, total="5.0")], Progress(LOG, 6))
    assert await parts_of(derived) == [part(5, total="5.0")]


async def test_what_is_gone_does_not_come_back(derived: DerivedState, database: FaultyDatabase) -> None:
    """It is remembered for a day, so that a late writer does not bring it back; what is newer does."""
    await save(derived, [part(5)], Progress(LOG, 5))
    await save(derived, [Part("sum", "a", 6, None)], Progress(LOG, 6))
    await save(derived, [part(5)], Progress(LOG, 6))
    assert await parts_of(derived) == []
    assert "gone" in (await stored(database, "sums"))[-1]
    await save(derived, [part(7)], Progress(LOG, 7))
    assert await parts_of(derived) == [part(7)]
    assert "gone" not in (await stored(database, "sums"))[-1]
    assert (await indexes(database, "sums"))["gone"]["expireAfterSeconds"] == 86_400


async def test_another_log_has_other_numbers(derived: DerivedState) -> None:
    """What an earlier log said last is older than all that a new one says."""
    await save(derived, [part(500)], Progress(LOG, 600))
    assert await parts_of(derived, log=OTHER_LOG) == [part(0)]
    await save(derived, [part(2, total="2")], Progress(OTHER_LOG, 3))
    assert (await parts_of(derived, log=OTHER_LOG), await derived.progress()) == ([part(2, total="2")], Progress(OTHER_LOG, 3))


@pytest.mark.parametrize("fault", [not_sent, answer_lost])
async def test_a_save_that_fails_can_be_done_again(derived: DerivedState, database: FaultyDatabase, fault: object) -> None:
    """Whether it was carried out or not."""
    database.inject("update", fault)  # type: ignore[arg-type]
    with pytest.raises(Unavailable):
        await save(derived, [part(1)], Progress(LOG, 1))
    await save(derived, [part(1)], Progress(LOG, 1))
    assert [one["_id"] for one in await stored(database, "sums")] == [PROGRESS, "sum a"]
