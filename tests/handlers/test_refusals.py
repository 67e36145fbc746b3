"""Tests of handlers/refusals.py: every refusal is counted, somebody reading the log learns of it, and a flood does not drown the log."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from handlers.refusals import CONNECTS, EVENTS, NAMED_AT_ONCE, NAMES_KEPT, NAMES_TOLD, REASONS, SUMMARY_SECONDS, Refusals


class ManualTimers:
    """Calls that are to come, each made when the test says that its time is there."""

    def __init__(self) -> None:
        self.waiting: list[ManualTimer] = []

    def call_later(self, seconds: float, call: Callable[[], None]) -> ManualTimer:
        """Note a call."""
        assert seconds == SUMMARY_SECONDS
        timer = ManualTimer(self, call)
        self.waiting.append(timer)
        return timer

    def ring(self) -> None:
        """Make all calls that wait; those that they ask for wait again."""
        due, self.waiting = self.waiting, []
        for timer in due:
            timer.call()


class ManualTimer:
    """One call that is to come."""

    def __init__(self, timers: ManualTimers, call: Callable[[], None]) -> None:
        self._timers = timers
        self.call = call

    def cancel(self) -> None:
        """Take it back."""
        self._timers.waiting.remove(self)


@pytest.fixture
def timers(expected_logs: list[str]) -> ManualTimers:
    """Timers that wait for the test, which may log what it likes."""
    expected_logs.append("WARNING tailcast.handlers: ")
    return ManualTimers()


@pytest.fixture
def refusals(timers: ManualTimers) -> Refusals:
    """Refusals with manual timers."""
    return Refusals(timers.call_later)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[dict[str, Any]]]:
    """A function that returns the fields of the lines since it was called last, each with its message."""

    def new() -> list[dict[str, Any]]:
        found = [{"message": one.getMessage(), **getattr(one, "fields", {})} for one in caplog.records]
        assert all(one.levelno == logging.WARNING for one in caplog.records)
        caplog.clear()
        return found

    return new


Lines = Callable[[], list[dict[str, Any]]]


def test_the_first_refusal_of_a_name_is_told_at_once(refusals: Refusals, lines: Lines) -> None:
    """The line says why, who, and what else is known."""
    refusals.count(CONNECTS, "203.0.113.9", correlationId="k1")
    assert lines() == [{"message": REASONS[CONNECTS], "limit": CONNECTS, "who": "203.0.113.9", "correlationId": "k1"}]


def test_every_refusal_is_counted_by_its_reason(refusals: Refusals) -> None:
    """The counts begin with every reason at 0, and have all that was refused, told or not."""
    assert refusals.counts == dict.fromkeys(REASONS, 0)
    for _ in range(50):
        refusals.count(CONNECTS, "a")
    refusals.count(EVENTS, "a")
    assert refusals.counts == {**dict.fromkeys(REASONS, 0), CONNECTS: 50, EVENTS: 1}


def test_what_goes_on_is_summed_up(refusals: Refusals, timers: ManualTimers, lines: Lines) -> None:
    """After its first line a name is told in summaries only, as long as it is refused."""
    for _ in range(7):
        refusals.count(CONNECTS, "a")
    for _ in range(3):
        refusals.count(CONNECTS, "b")
    assert [line["who"] for line in lines()] == ["a", "b"]
    timers.ring()
    summary = {"message": f"{REASONS[CONNECTS]}, and so on", "limit": CONNECTS, "seconds": SUMMARY_SECONDS}
    assert lines() == [{**summary, "count": 8, "names": 2, "most": [("a", 6), ("b", 2)]}]
    refusals.count(CONNECTS, "b")
    assert lines() == []
    timers.ring()
    assert lines() == [{**summary, "count": 1, "names": 1, "most": [("b", 1)]}]


def test_reasons_are_told_separately(refusals: Refusals, timers: ManualTimers, lines: Lines) -> None:
    """A name that is refused for another reason is told at once again; each reason has its own summary."""
    for reason in (CONNECTS, EVENTS):
        refusals.count(reason, "a")
        refusals.count(reason, "a")
    assert [line["limit"] for line in lines()] == [CONNECTS, EVENTS]
    timers.ring()
    assert [(line["limit"], line["count"]) for line in lines()] == [(CONNECTS, 1), (EVENTS, 1)]


def test_a_flood_from_many_names_is_summed_up_too(refusals: Refusals, timers: ManualTimers, lines: Lines) -> None:
    """Some names are told singly, those kept are counted by name, and all others together; memory is bounded."""
    for number in range(NAMES_KEPT + 500):
        refusals.count(CONNECTS, str(number))
    for _ in range(4):
        refusals.count(CONNECTS, "77")
    assert [line["who"] for line in lines()] == [str(number) for number in range(NAMED_AT_ONCE)]
    assert len(refusals._floods[CONNECTS].by_name) == NAMES_KEPT
    timers.ring()
    [summary] = lines()
    assert (summary["count"], summary["names"]) == (NAMES_KEPT + 500 - NAMED_AT_ONCE + 4, NAMES_KEPT - NAMED_AT_ONCE)
    assert len(summary["most"]) == NAMES_TOLD
    assert summary["most"][0] == ("77", 5)


def test_lines_of_new_names_are_few_in_every_period(refusals: Refusals, timers: ManualTimers, lines: Lines) -> None:
    """Also in the long run there are no more lines than those told singly and one summary."""
    for period in range(5):
        for number in range(200):
            refusals.count(CONNECTS, f"{period}.{number}")
        timers.ring()
        assert len(lines()) == NAMED_AT_ONCE + 1


def test_when_it_is_over_nothing_is_kept(refusals: Refusals, timers: ManualTimers, lines: Lines) -> None:
    """After a period without refusals there is no timer, no memory and no line; the next refusal is told at once again."""
    refusals.count(CONNECTS, "a")
    timers.ring()
    timers.ring()
    assert timers.waiting == []
    assert refusals._floods == {}
    lines()
    refusals.count(CONNECTS, "a")
    assert [line["who"] for line in lines()] == ["a"]


def test_the_end_tells_what_was_not_told(refusals: Refusals, timers: ManualTimers, lines: Lines) -> None:
    """Closing tells what waits for its summary, and leaves no timer; closing again does nothing."""
    refusals.count(CONNECTS, "a")
    refusals.count(CONNECTS, "a")
    refusals.count(EVENTS, "a")
    lines()
    refusals.close()
    refusals.close()
    assert [(line["limit"], line["count"]) for line in lines()] == [(CONNECTS, 1)]
    assert timers.waiting == []


def test_an_unknown_reason_is_a_defect(refusals: Refusals) -> None:
    """Reasons are a fixed table: metrics have one series for each."""
    with pytest.raises(KeyError):
        refusals.count("because", "a")
