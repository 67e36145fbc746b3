"""Publishes that wait: each is answered once, wholly, and in its turn."""

from __future__ import annotations

import asyncio
import gc

import pytest

from storage import requests as module
from storage.entries import Receipt
from storage.errors import CommandFailed, Overloaded, Unavailable
from storage.requests import DOCUMENT_OVERHEAD_BYTES, Item, Queue, Request
from tests.storage.faults import event


def request_of(*names: str, deadline: float = 10.0) -> Request:
    return Request([event(name) for name in names], asyncio.get_running_loop().create_future(), deadline)


def data_of(items: list[Item]) -> list[str]:
    return [item.document["data"] for item in items]


async def test_a_sender_is_answered_when_all_its_events_are_in_the_log() -> None:
    """With its receipts in order, whatever the order in which they came."""
    request = request_of("a", "b")
    assert request.size == 2 + 2 * DOCUMENT_OVERHEAD_BYTES
    request.items[1].receipt = Receipt("2", True)
    request.answer()
    assert data_of(request.missing()) == ["a"]
    assert not request.future.done()
    request.items[0].receipt = Receipt("1", False)
    request.answer()
    assert [(receipt.id, receipt.duplicate) for receipt in await request.future] == [("1", False), ("2", True)]
    assert request.missing() == []


async def test_a_sender_hears_one_answer() -> None:
    """Whatever comes after it."""
    request = request_of("a")
    request.refuse(Unavailable("first"))
    request.refuse(Unavailable("second"))
    request.items[0].receipt = Receipt("1", False)
    request.answer()
    with pytest.raises(Unavailable, match="first"):
        await request.future


async def test_what_was_given_up_is_missing_only_if_it_was_begun() -> None:
    """Then all of it must be in the log; unless nothing more can be done."""
    untouched, begun = request_of("a", "b"), request_of("c", "d")
    begun.items[0].receipt = Receipt("1", False)
    begun.answer()
    for request in (untouched, begun):
        request.future.cancel()
    assert untouched.missing() == []
    assert data_of(begun.missing()) == ["d"]
    begun.abandon(CommandFailed("refused"))
    assert begun.missing() == []


async def test_a_sender_of_what_cannot_be_learned_is_refused() -> None:
    """Nothing more of it is tried: it might be doubled."""
    request = request_of("a", "b")
    request.items[1].untold = True
    request.answer()
    assert request.missing() == []
    with pytest.raises(Unavailable, match="moved on"):
        await request.future


def requests_alive() -> int:
    return sum(type(one) is Request for one in gc.get_objects())


async def test_a_request_is_gone_when_nobody_holds_it() -> None:
    """Without the garbage collector: it holds the payloads of a publish."""
    gc.collect()
    gc.disable()
    before = requests_alive()  # of other tests, in the traceback of an error for instance
    try:
        request = request_of("a")
        request.items[0].receipt = Receipt("1", False)
        request.answer()
        del request
        assert requests_alive() == before
    finally:
        gc.enable()


async def test_receipts_of_a_log_that_is_gone_are_forgotten_unless_they_were_given() -> None:
    """What is answered stays so."""
    begun, answered = request_of("a", "b"), request_of("c")
    begun.items[0].receipt = Receipt("1", False)
    begun.answer()
    answered.items[0].receipt = Receipt("2", False)
    answered.answer()
    for request in (begun, answered):
        request.start_over()
    assert data_of(begun.missing()) == ["a", "b"]
    assert answered.missing() == []


async def test_requests_are_taken_in_order_in_groups_none_of_which_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request is never split: one that is larger than a group is one of its own."""
    monkeypatch.setattr(module, "GROUP_EVENTS", 3)
    queue = Queue(1 << 20)
    for names in ("ab", "c", "d", "efghi", "j"):
        queue.put(request_of(*names))
    groups = []
    while queue:
        groups.append(["".join(data_of(request.items)) for request in queue.take_group()])
    assert groups == [["ab", "c"], ["d"], ["efghi"], ["j"]]


async def test_a_full_queue_takes_nothing_more() -> None:
    """One request is taken however large it is, and there is room again when others have left."""
    queue = Queue(1)
    queue.put(request_of("a"))
    with pytest.raises(Overloaded):
        queue.put(request_of("b"))
    queue.take_group()
    queue.put(request_of("c"))
    assert len(queue) == 1


async def test_what_waited_too_long_is_refused_and_the_rest_waits_on() -> None:
    """Until everything is refused."""
    queue = Queue(1 << 20)
    early, late = request_of("a", deadline=1.0), request_of("b", deadline=2.0)
    queue.put(early)
    queue.put(late)
    queue.refuse_overdue(1.5)
    with pytest.raises(Unavailable, match="in time"):
        await early.future
    assert len(queue) == 1
    queue.refuse_all(Unavailable("stopping"))
    with pytest.raises(Unavailable, match="stopping"):
        await late.future
    assert not queue
