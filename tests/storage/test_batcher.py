"""Batching of look-ups: few queries, each caller its own answer, nobody left waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from storage.batcher import Batcher
from storage.errors import Unavailable


class Source:
    """What is looked up: even numbers are there. Each query waits until it is let go, and may go wrong."""

    def __init__(self) -> None:
        self.queries: list[list[int]] = []
        self.let_go = asyncio.Event()
        self.let_go.set()
        self.error: Exception | None = None

    async def load(self, keys: list[int]) -> Mapping[int, str]:
        self.queries.append(keys)
        error = self.error  # that of this query
        await self.let_go.wait()
        if error is not None:
            raise error
        return {key: str(key) for key in keys if key % 2 == 0}


@pytest.fixture
async def source() -> Source:
    return Source()


@pytest.fixture
def batcher(source: Source) -> Batcher[int, str]:
    return Batcher(source.load, name="numbers", max_keys=4)


def ask(batcher: Batcher[int, str], *keys: int) -> asyncio.Task[dict[int, str]]:
    return asyncio.create_task(batcher.find(keys))


async def turn() -> None:
    """Let everything run that can: finding, batching and answering take a few turns of the loop."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_one_finds_what_is_there(source: Source, batcher: Batcher[int, str]) -> None:
    """What is not there is not in the answer."""
    assert await batcher.find((1, 2, 4)) == {2: "2", 4: "4"}
    assert source.queries == [[1, 2, 4]]


async def test_whoever_asks_for_nothing_is_answered_at_once(source: Source, batcher: Batcher[int, str]) -> None:
    """Without a query."""
    assert await batcher.find(()) == {}
    assert source.queries == []


async def test_those_who_ask_at_once_are_one_query(source: Source, batcher: Batcher[int, str]) -> None:
    """Each gets what it asked for and nothing of the others'; a key that several ask for is asked once."""
    asked = [ask(batcher, 2), ask(batcher, 2, 3), ask(batcher, 6)]
    assert await asyncio.gather(*asked) == [{2: "2"}, {2: "2"}, {6: "6"}]
    assert source.queries == [[2, 3, 6]]


async def test_those_who_ask_while_a_query_is_under_way_are_in_the_next(source: Source, batcher: Batcher[int, str]) -> None:
    """Also for the same key: the first query may have looked before the second caller wrote."""
    source.let_go.clear()
    asked = [ask(batcher, 2)]
    await turn()
    asked += [ask(batcher, 2), ask(batcher, 4)]
    await turn()
    assert source.queries == [[2]]
    source.let_go.set()
    assert await asyncio.gather(*asked) == [{2: "2"}, {2: "2"}, {4: "4"}]
    assert source.queries == [[2], [2, 4]]


async def test_a_query_has_no_more_keys_than_the_limit(source: Source, batcher: Batcher[int, str]) -> None:
    """The others follow in the next one, in order; a key asked for twice counts once."""
    asked = [ask(batcher, 0, 2), ask(batcher, 2, 4), ask(batcher, 6, 8), ask(batcher, 10)]
    await asyncio.gather(*asked)
    assert source.queries == [[0, 2, 4], [6, 8, 10]]


async def test_one_who_asks_for_more_than_the_limit_is_a_query_alone(source: Source, batcher: Batcher[int, str]) -> None:
    """Its answer is whole."""
    asked = [ask(batcher, 0), ask(batcher, *range(6)), ask(batcher, 0)]
    assert (await asyncio.gather(*asked))[1] == {0: "0", 2: "2", 4: "4"}
    assert source.queries == [[0], [0, 1, 2, 3, 4, 5], [0]]


async def test_an_error_reaches_all_who_waited_for_that_query(source: Source, batcher: Batcher[int, str]) -> None:
    """And nobody else: the next query is another try."""
    source.error = Unavailable("gone")
    source.let_go.clear()
    failing = [ask(batcher, 2), ask(batcher, 4)]
    await turn()
    source.error = None
    fine = ask(batcher, 6)
    source.let_go.set()
    for one in failing:
        with pytest.raises(Unavailable, match="gone"):
            await one
    assert await fine == {6: "6"}


async def test_cancelling_one_disturbs_nobody(source: Source, batcher: Batcher[int, str]) -> None:
    """Neither those in the same query nor those who wait for the next; what nobody waits for any more is not asked for."""
    source.let_go.clear()
    asked = [ask(batcher, 2), ask(batcher, 4)]
    await turn()
    asked += [ask(batcher, 6), ask(batcher, 8)]
    await turn()
    asked[0].cancel()
    asked[2].cancel()
    await turn()
    source.let_go.set()
    assert await asked[1] == {4: "4"}
    assert await asked[3] == {8: "8"}
    assert source.queries == [[2, 4], [8]]


async def test_cancelling_the_only_one_does_no_harm(source: Source, batcher: Batcher[int, str]) -> None:
    """Neither while its query fails under way nor before it was sent."""
    source.let_go.clear()
    source.error = Unavailable("gone")
    under_way = ask(batcher, 2)
    await turn()
    waiting = ask(batcher, 4)
    await turn()
    under_way.cancel()
    waiting.cancel()
    source.let_go.set()
    await turn()
    source.error = None
    assert source.queries == [[2]]
    assert await batcher.find((2,)) == {2: "2"}


async def test_no_task_is_left_when_nobody_waits(batcher: Batcher[int, str]) -> None:
    """An idle batcher costs nothing."""
    before = asyncio.all_tasks()
    await batcher.find((2,))
    await turn()
    assert asyncio.all_tasks() == before


async def test_closing_refuses_whoever_waits(source: Source, batcher: Batcher[int, str]) -> None:
    """Those in the query under way and those behind it; no task is left."""
    source.let_go.clear()
    under_way = ask(batcher, 2)
    await turn()
    waiting = ask(batcher, 4)
    await turn()
    await batcher.close()
    for one in (under_way, waiting):
        with pytest.raises(Unavailable, match="stopping"):
            await one
    with pytest.raises(Unavailable, match="stopping"):
        await batcher.find((2,))


async def test_closing_before_the_query_was_sent_refuses_as_well(source: Source, batcher: Batcher[int, str]) -> None:
    """The task had not run yet."""
    asked = ask(batcher, 2)
    await asyncio.sleep(0)  # the caller runs, its query does not yet
    await batcher.close()
    with pytest.raises(Unavailable, match="stopping"):
        await asked
    assert source.queries == []


async def test_closing_twice_or_unused_does_no_harm(batcher: Batcher[int, str]) -> None:
    """Also both at once."""
    await asyncio.gather(batcher.close(), batcher.close())
    await batcher.close()
