"""Processing, with a real log: what follows from events is appended once, in order, whoever does it and wherever it stops.

The work is the valuation of positions, the one there is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any, cast

import pytest

from channels.portfolio import Portfolios
from channels.valuation import POSITION, PRICE, SOURCE, Valuation
from hub.feed import Feed
from hub.processing import Processor
from storage.appender import Appender
from storage.derived import DerivedState
from storage.entries import Entry, NewEvent
from storage.errors import Unavailable
from storage.follower import Follower
from storage.leases import Lease
from storage.log import Log
from storage.parts import Progress
from tests.channels.ledger import SYMBOLS, Logged, compare
from tests.hub.fakes import ManualClock
from tests.storage.faults import FaultyDatabase, Held, answer_lost, not_sent, running
from tests.waiting import wait_until

NAME = "portfolio"
LONG = 600.0  # seconds that a lease holds: longer than any test stands still
USERS = ("u1", "u2", "u3")


class OneProcess:
    """What one server process has of it, with a connection of its own and a clock that stands still until it is moved."""

    def __init__(self, uri: str, database: str, holder: str, *, most_waiting: int = 100, lease_seconds: float = LONG) -> None:
        self.database = FaultyDatabase(uri, database, answer_seconds=20.0)
        self.observer = Log(FaultyDatabase(uri, database, answer_seconds=20.0), clock=time.time, size_bytes=1 << 20)  # the test's own
        self.log = Log(self.database, clock=time.time, size_bytes=1 << 20)
        self.appender = Appender(self.log, seconds=30.0)
        self.feed = Feed(Valuation.types, without=SOURCE, most=most_waiting)
        self.follower = Follower(self.log, self.feed)
        self.kept = DerivedState(self.database, NAME)
        self.lease = Lease(self.database, NAME, holder=holder, seconds=lease_seconds)
        self.clock = ManualClock()
        self.appended: list[NewEvent] = []  # all that was handed to the appender
        self.made: list[Valuation] = []
        self.processor = Processor(
            self._make,
            log=self.log,
            feed=self.feed,
            append=self.append,
            kept=self.kept,
            lease=self.lease,
            clock=self.clock,
        )

    def _make(self) -> Valuation:
        self.made.append(Valuation(Portfolios()))
        return self.made[-1]

    async def append(self, events: Sequence[NewEvent]) -> None:
        self.appended += events
        await self.appender.append(events)

    async def publish(self, *events: NewEvent) -> None:
        """Append events as a publisher's."""
        await self.appender.append(events)

    async def entries(self) -> list[Entry]:
        """Return all entries about positions and prices."""
        await self.observer.open()
        head = await self.observer.head()
        return await self.observer.select({POSITION, PRICE}, "", 0, head.seq, 10_000)

    async def answers(self) -> list[dict[str, Any]]:
        """Return what the derived events in the log say."""
        return [json.loads(entry.data) for entry in await self.entries() if entry.source == SOURCE]

    async def answered(self, count: int) -> list[dict[str, Any]]:
        """Return them once there are so many."""

        async def enough() -> list[dict[str, Any]]:
            answers = await self.answers()
            return answers if len(answers) >= count else []

        return cast("list[dict[str, Any]]", await wait_until(enough, f"{count} events follow from others"))


@asynccontextmanager
async def process(uri: str, database: str, holder: str = "me", **more: Any) -> AsyncIterator[OneProcess]:
    """One process with its appender and its tail at work; its processor is left to the test."""
    one = OneProcess(uri, database, holder, **more)
    with contextlib.closing(one.database), contextlib.closing(one.observer.database):
        await one.log.open()
        await one.kept.open()
        async with running(one.appender.run()), running(one.follower.run()):
            await wait_until(lambda: one.follower.at_head_since is not None, "the head of the log was seen")
            yield one


@pytest.fixture
async def here(mongodb_uri: str, database_name: str) -> AsyncIterator[OneProcess]:
    async with process(mongodb_uri, database_name) as one:
        yield one


def position(quantity: object, entry_price: object = 10, user: str = "u1", symbol: str = "AAPL", price: object = None) -> NewEvent:
    """Return a raw event about a position."""
    data = {"symbol": symbol, "quantity": str(quantity), "entryPrice": str(entry_price)} | ({} if price is None else {"price": str(price)})
    return NewEvent("trading.positions", POSITION, (f"user:{user}",), json.dumps(data), source="broker", key=symbol)


def price(value: object, symbol: str = "AAPL") -> NewEvent:
    """Return an event about a price."""
    return NewEvent(
        "trading.prices", PRICE, ("public",), json.dumps({"symbol": symbol, "price": str(value)}), source="exchange", key=symbol
    )


# --- one process ---


async def test_each_raw_event_is_answered_in_order(here: OneProcess) -> None:
    """As it comes, and prices with it."""
    async with running(here.processor.run()):
        await here.publish(price(11), position(2))
        (first,) = await here.answered(1)
        assert (first["status"], first["totalValue"]) == ("opened", "22")
        await here.publish(position(1), position(0))
        _, second, third = await here.answered(3)
        assert (second["realizedPnl"], third["realizedPnl"], third["status"]) == ("1", "2", "closed")
        await here.publish(position(3))
        await here.answered(4)
        await here.publish(price(12))
        assert (await here.answered(5))[-1]["totalValue"] == "36"
        await here.publish(price(13))
        assert len(await here.answers()) == 5
        here.clock.now += 1.0
        await here.publish(position(1, user="u2"))
        told = {(said["totalValue"], said["currentPrice"]) for said in (await here.answered(7))[5:]}
        assert told == {("39", "13"), ("13", "13")}


async def test_what_was_in_the_log_before_is_answered(here: OneProcess) -> None:
    """From its beginning, when nobody has ever done it; and from where it was saved, when somebody has."""
    await here.publish(position(1), price(11), *[position(number) for number in range(2, 700)])
    head = await here.log.head()
    await wait_until(lambda: here.feed.since == head.seq, "the tail has brought all of it")
    async with running(here.processor.run()):
        assert [said["quantity"] for said in await here.answered(699)] == [str(number) for number in range(1, 700)]
        assert (await here.answers())[-1]["totalValue"] == str(699 * 11)


async def test_more_than_can_wait_is_read_from_the_log(mongodb_uri: str, database_name: str) -> None:
    """Nothing is skipped when events come faster than they are answered."""
    async with process(mongodb_uri, database_name, most_waiting=3) as one:
        held = Held()
        async with running(one.processor.run()):
            await wait_until(lambda: one.processor.working, "it works")
            one.database.inject("insert", held)
            publishing = asyncio.gather(*(one.publish(position(number)) for number in range(1, 30)))
            await held.reached.wait()
            held.let_go.set()
            await publishing
            await one.publish(*(position(number) for number in range(30, 60)))
            assert [said["quantity"] for said in await one.answered(59)] == [str(number) for number in range(1, 60)]


async def test_prices_of_many_positions_are_told(here: OneProcess) -> None:
    """More than one append holds."""
    await here.publish(*[position(1, user=f"u{number}") for number in range(600)], price(11))
    async with running(here.processor.run()):
        assert [said["currentPrice"] for said in await here.answered(1200)].count("11") == 600


async def test_nothing_is_done_where_there_is_nothing_to_do(here: OneProcess) -> None:
    """Events of other types cost no command but what keeps the lease, and progress is saved rarely."""
    async with running(here.processor.run()):
        await wait_until(lambda: here.processor.working, "it works")
        here.database.commands.clear()
        await here.publish(*[NewEvent("a.b", "thing", ("public",), "{}") for _ in range(10)])
        head = await here.log.head()
        await here.publish(position(1))
        await here.answered(1)
        assert here.database.count("update", NAME) == 0
        here.clock.now += 2.0
        await here.publish(position(2))
        await here.answered(2)
        progress = await wait_until(here.kept.progress, "progress is saved")
        assert isinstance(progress, Progress)
        assert progress.seq > head.seq


async def test_progress_is_saved_although_nothing_changes(here: OneProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or else the next process would have to look at all of it again."""
    monkeypatch.setattr("hub.processing.SAVE_ENTRIES", 100)
    async with running(here.processor.run()):
        await wait_until(lambda: here.processor.working, "it works")
        await here.publish(*[NewEvent("a.b", "thing", ("public",), "{}") for _ in range(100)])

        async def saved() -> Progress | None:
            here.clock.now += 0.1
            return await here.kept.progress()

        assert await wait_until(saved, "progress is saved") == Progress(here.log.codec.epoch.hex(), (await here.log.head()).seq)


# --- wherever it stops ---


@pytest.mark.parametrize("fault", [not_sent, answer_lost])
@pytest.mark.parametrize(("command", "field"), [("update", "ordered"), ("findAndModify", "findAndModify")])
async def test_whatever_fails_is_begun_anew(here: OneProcess, fault: Any, command: str, field: str) -> None:
    """Saving or keeping the lease: each raw event has one answer nevertheless."""
    async with running(here.processor.run()):
        for number in range(1, 4):
            if number == 2:
                here.database.inject(command, fault, having=field)
            here.clock.now += LONG / 2
            await here.publish(position(number))
            await here.answered(number)
    assert [said["quantity"] for said in await here.answers()] == ["1", "2", "3"]


async def test_a_beginning_that_fails_is_begun_anew(here: OneProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was taken in before."""
    asked: list[Progress | None] = []

    async def progress() -> Progress | None:
        asked.append(None)
        if len(asked) == 1:
            raise Unavailable("not sent")
        return None

    monkeypatch.setattr(here.kept, "progress", progress)
    await here.publish(position(1))
    async with running(here.processor.run()):
        await here.answered(1)
    assert len(asked) == 2


async def test_a_crash_between_append_and_save(mongodb_uri: str, database_name: str) -> None:
    """What was appended is computed again, and the log takes it once; the state is what it would have been."""
    async with process(mongodb_uri, database_name, "first") as first, running(first.processor.run()):
        await first.publish(price(11), position(4), position(3))
        await first.answered(2)
        assert await first.kept.progress() is None
    async with process(mongodb_uri, database_name, "second") as second, running(second.processor.run()):
        await second.publish(position(1, price=13))
        answers = await second.answered(3)
        assert [event.published for event in second.appended[:2]] == [event.published for event in first.appended[:2]]
        assert [(said["quantity"], said["realizedPnl"]) for said in answers] == [("4", "0"), ("3", "1"), ("1", "7")]


async def test_a_state_that_was_saved_is_gone_on_from(mongodb_uri: str, database_name: str) -> None:
    """Nothing before it is read or appended again."""
    async with process(mongodb_uri, database_name, "first") as first, running(first.processor.run()):
        await first.publish(position(4), price(11))
        await first.answered(2)
        first.clock.now += 2.0
        await first.publish(position(3))
        await first.answered(3)
        await wait_until(first.kept.progress, "progress is saved")
    async with process(mongodb_uri, database_name, "second") as second, running(second.processor.run()):
        await second.publish(position(2))
        assert (await second.answered(4))[-1]["realizedPnl"] == "2"
        assert len(second.appended) <= 2  # the last one of the first process may have been appended and not saved


async def test_a_large_state_is_read_back(mongodb_uri: str, database_name: str) -> None:
    """All of it, and only then the log."""
    async with process(mongodb_uri, database_name, "first") as first:
        await first.publish(price(11), *[position(1, user=f"u{number}") for number in range(120)])
        async with running(first.processor.run()):
            await first.answered(120)
            first.clock.now += 2.0
            await first.publish(position(2))
            await wait_until(first.kept.progress, "progress is saved")
    async with process(mongodb_uri, database_name, "second") as second, running(second.processor.run()):
        await second.publish(position(0, user="u119"))
        await second.answered(122)
        assert len(second.made[-1]) == 119


async def test_who_begins_before_the_tail_waits_for_it(mongodb_uri: str, database_name: str) -> None:
    """What the tail brings begins somewhere, and before that nothing can be told from it."""
    one = OneProcess(mongodb_uri, database_name, "early")
    with contextlib.closing(one.database), contextlib.closing(one.observer.database):
        await one.log.open()
        await one.kept.open()
        async with running(one.appender.run()), running(one.processor.run()):
            await one.publish(position(1))
            assert not one.made[1:]
            async with running(one.follower.run()):
                await one.answered(1)


async def test_a_defect_is_met_once(here: OneProcess, expected_logs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The event that it is in has no answer, those after it have."""
    expected_logs.append("because of a defect")
    take = Valuation.take

    def faulty(self: Valuation, entry: Entry) -> list[NewEvent]:
        if '"13"' in entry.data:
            raise RuntimeError("a defect")
        return take(self, entry)

    monkeypatch.setattr(Valuation, "take", faulty)
    async with running(here.processor.run()):
        await here.publish(position(13), position(14))
        assert [said["quantity"] for said in await here.answered(1)] == ["14"]


# --- several processes ---


async def test_one_process_does_it_and_another_takes_over(mongodb_uri: str, database_name: str) -> None:
    """The second waits as long as the first lives, and goes on when it ends."""
    async with process(mongodb_uri, database_name, "first") as first, process(mongodb_uri, database_name, "second") as second:
        async with running(first.processor.run()):
            await wait_until(lambda: first.processor.working, "the first works")
            await second.processor.process()
            assert not second.processor.working
            await second.publish(position(5))
            await second.answered(1)
        assert not first.processor.working
        async with running(second.processor.run()):
            await wait_until(lambda: second.processor.working, "the second works")
            await second.publish(position(3, price=11))
            assert (await second.answered(2))[-1]["realizedPnl"] == "2"


async def test_two_at_once_answer_nothing_twice(mongodb_uri: str, database_name: str) -> None:
    """Though it should not be: both believe that it is theirs, and what is in the log is as if one had done it."""
    changes = [position(number % 7, 10 + number, symbol=SYMBOLS[number % 3]) for number in range(1, 80)]
    async with process(mongodb_uri, database_name, "first") as first, process(mongodb_uri, database_name, "second") as second:
        first.lease._name, second.lease._name = "of the first", "of the second"
        async with running(first.processor.run()), running(second.processor.run()):
            for start in range(0, len(changes), 10):
                await (first, second)[start % 20 == 0].publish(*changes[start : start + 10])
            await first.answered(len(changes))
            await wait_until(lambda: len(first.appended) >= 79 and len(second.appended) >= 79, "both have answered everything")
        await check(first)


async def test_who_lost_the_lease_appends_nothing(here: OneProcess) -> None:
    """A process that stood still sees by its clock that its time was over."""
    process = asyncio.create_task(here.processor.process())
    await wait_until(lambda: here.processor.working, "it works")
    here.processor._renew_at = float("inf")  # as if it stood still just after it looked
    here.clock.now += LONG
    await here.publish(position(1))
    with pytest.raises(Unavailable, match="the lease is over"):
        await process
    assert here.appended == []


async def test_it_ends_when_another_has_the_lease(here: OneProcess) -> None:
    """It notices when it wants to renew it."""
    process = asyncio.create_task(here.processor.process())
    await wait_until(lambda: here.processor.working, "it works")
    await here.lease.release()
    assert await Lease(here.database, NAME, holder="another", seconds=LONG).take()
    here.clock.now += LONG / 2
    await here.publish(position(1))
    await process
    assert here.appended == []


# --- other logs, and holes ---


async def test_another_log_is_begun_with(here: OneProcess, expected_logs: list[str]) -> None:
    """What was known of positions stays; numbers of the old log mean nothing any more."""
    expected_logs += ["the log is another one, or an older copy", "tail interrupted", "append"]
    async with running(here.processor.run()):
        await here.publish(*[position(5)] * 5, price(11))
        await here.answered(6)
        here.clock.now += 2.0
        await here.publish(position(5))
        await here.answered(7)
        await wait_until(here.kept.progress, "progress is saved")
        await here.database.command({"drop": "log"})
        await wait_until(lambda: here.feed.generation == 1, "the tail follows the new log", seconds=30)
        await here.publish(position(3))
        (said,) = await here.answered(1)
        assert (said["status"], said["realizedPnl"], said["currentPrice"]) == ("updated", "2", "11")


async def test_another_log_ends_what_was_begun(here: OneProcess) -> None:
    """Nothing that was read of the old one is appended to the new one."""
    process = asyncio.create_task(here.processor.process())
    await wait_until(lambda: here.processor.working, "it works")
    here.feed.restart("log recreated")
    with pytest.raises(Unavailable, match="another one"):
        await process


async def test_a_hole_is_survived(here: OneProcess, expected_logs: list[str]) -> None:
    """It is logged, since something may be missing, and everything after it is answered."""
    expected_logs.append("a part of the log was not seen")
    async with running(here.processor.run()):
        await here.publish(position(5))
        await here.answered(1)
        (entry,) = [one for one in await here.entries() if one.source != SOURCE]
        here.feed.lost = True
        await here.publish(position(4))
        assert (await here.answered(2))[-1]["quantity"] == "4"
        assert entry.seq > 0


async def test_what_was_evicted_unread_is_logged(mongodb_uri: str, database_name: str, expected_logs: list[str]) -> None:
    """A process that begins long after the last one goes on with what is still there."""
    expected_logs += ["have left the log before they were processed", "tail interrupted", "were not seen"]
    async with process(mongodb_uri, database_name, "first") as first:
        async with running(first.processor.run()):
            await first.publish(position(5))
            await first.answered(1)
            first.clock.now += 2.0
            await first.publish(price(11))
            await wait_until(first.kept.progress, "progress is saved")
        await first.publish(*[NewEvent("a.b", "thing", ("public",), json.dumps("x" * 10_000)) for _ in range(150)])
        oldest = (await first.log.oldest()).seq
        assert oldest > (await first.kept.progress() or Progress("", 0)).seq + 1
    async with process(mongodb_uri, database_name, "second") as second, running(second.processor.run()):
        await second.publish(position(4, price=12))

        async def answer() -> list[dict[str, Any]]:
            return [said for said in await second.answers() if said["quantity"] == "4"]

        (said,) = cast("list[dict[str, Any]]", await wait_until(answer, "it is answered"))
        assert (said["status"], said["realizedPnl"]) == ("updated", "2")


# --- random sequences against the independent calculation ---


async def check(one: OneProcess) -> None:
    """Compare all that is in the log with the independent calculation."""
    compare(logged(entry) for entry in await one.entries())


def logged(entry: Entry) -> Logged:
    """Return an entry as the comparison takes it."""
    user = None if entry.type == PRICE else entry.audience[0].removeprefix("user:")
    return Logged(entry.id, user, json.loads(entry.data))


def random_event(chance: random.Random) -> NewEvent:
    """Return any raw event."""
    symbol = chance.choice(SYMBOLS)
    if chance.random() < 0.4:
        return price(Decimal(chance.randrange(1, 10 ** chance.randrange(1, 12))) / 100, symbol)
    quantity = Decimal(chance.randrange(-(10 ** chance.randrange(1, 20)), 10 ** chance.randrange(1, 20))).scaleb(-chance.randrange(9))
    at = None if chance.random() < 0.5 else Decimal(chance.randrange(1, 1000))
    return position(format(chance.choice([quantity, Decimal(0)]), "f"), chance.randrange(1, 1000), chance.choice(USERS), symbol, at)


@pytest.mark.parametrize("seed", range(3))
async def test_random_sequences_with_processes_that_come_and_go(mongodb_uri: str, database_name: str, seed: int) -> None:
    """Whoever does it, and however often it stops in the middle, all that is derived is what the independent calculation says."""
    chance = random.Random(seed)
    published = 0
    async with contextlib.AsyncExitStack() as stack:
        processes = [
            await stack.enter_async_context(process(mongodb_uri, database_name, f"process {number}", lease_seconds=1.0))
            for number in range(2)
        ]
        for life in range(6):
            one = processes[life % 2]
            task = asyncio.create_task(one.processor.run())
            for _ in range(chance.randrange(1, 4)):
                events = [random_event(chance) for _ in range(chance.randrange(1, 12))]
                await chance.choice(processes).publish(*events)
                published += sum(event.type == POSITION for event in events)
                one.clock.now += chance.choice([0.0, 0.5, 3.0])
            if chance.random() < 0.5:
                await one.answered(published)
            task.cancel()  # wherever it is now
            with contextlib.suppress(asyncio.CancelledError):
                await task
        last = processes[1]
        async with running(last.processor.run()):
            await last.publish(position(1))

            async def all_answered() -> bool:
                entries = await last.entries()
                newest = [entry.id for entry in entries if entry.type == POSITION and entry.source != SOURCE][-1]
                return any(said["cause"] == newest for said in await last.answers())

            await wait_until(all_answered, "the last raw event is answered")
        await check(last)
