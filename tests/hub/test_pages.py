"""Tests of hub/pages.py: one read for all who want the same, kept while it is worth it."""

from __future__ import annotations

import asyncio

import pytest

from hub.pages import CONCURRENT_READS, Page, Pages
from tests.hub.fakes import ListLog, make_entries, turns


class Reader:
    """Pages of four entries over a log of so many, and what they called back with."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, entries: int = 20) -> None:
        monkeypatch.setattr("hub.pages.PAGE_ENTRIES", 4)
        monkeypatch.setattr("hub.pages.CACHED_PAGES", 2)
        monkeypatch.setattr("hub.pages.RETRY_SECONDS", 0)
        self.log = ListLog(make_entries(1, entries))
        self.ready: list[tuple[object, list[int] | None]] = []
        self.failed: list[object] = []
        self.pages = Pages(self.log, self._ready, self.failed.append)

    def _ready(self, waiter: object, page: Page | None) -> None:
        self.ready.append((waiter, [entry.seq for entry in page.entries] if page else None))


async def test_thousand_readers_near_one_place_cost_one_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """All who wait for a page are called with it after one read; who asks later finds it kept."""
    reader = Reader(monkeypatch)
    for waiter in range(1000):
        reader.pages.request(4 + waiter % 4, waiter)
    await turns()
    assert reader.ready == [(waiter, [5, 6, 7, 8]) for waiter in range(1000)]
    assert reader.log.reads == [(4, 4)]
    assert reader.pages.queries == 1
    cached = reader.pages.cached(6)
    assert cached is not None
    assert cached.after == 4


async def test_who_asks_twice_is_called_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that lost patience and came back does not get two turns."""
    reader = Reader(monkeypatch)
    reader.pages.request(0, "me")
    reader.pages.request(1, "me")
    await turns()
    assert reader.ready == [("me", [1, 2, 3, 4])]


async def test_page_that_still_grows_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page at the end of the log is read again by who comes later."""
    reader = Reader(monkeypatch, entries=6)
    reader.pages.request(4, "me")
    await turns()
    assert reader.ready == [("me", [5, 6])]
    assert reader.pages.cached(4) is None


async def test_page_serves_what_it_was_read_for_and_nothing_before() -> None:
    """What a page begins with is the next entry only for places at or after the one it was read from."""
    page = Page(4, make_entries(7, 8))
    assert [page.serves(position) for position in (3, 4, 7, 8)] == [False, True, True, False]
    assert not Page(4, []).serves(4)


async def test_page_knows_where_to_read_on() -> None:
    """At the first entry after a place, also over a hole."""
    page = Page(4, [*make_entries(5, 6), *make_entries(9, 10)])
    assert [page.after_position(position) for position in (4, 5, 6, 7, 8, 9)] == [0, 1, 2, 2, 2, 3]


async def test_cached_page_whose_end_was_read_is_of_no_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kept page that holds nothing after a place, because of a hole, is not given for it."""
    reader = Reader(monkeypatch)
    del reader.log.entries[4:6]  # 5 and 6 are missing: the page after 4 is 7 to 10
    reader.pages.request(4, "me")
    await turns()
    assert reader.ready == [("me", [7, 8, 9, 10])]
    assert reader.pages.cached(7) is not None
    reader.log.entries[:] = make_entries(1, 2) + make_entries(9, 20)
    reader.pages.request(0, "me")
    await turns()
    assert reader.pages.cached(3) is not None
    assert reader.pages.cached(100) is None


async def test_large_pages_are_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept has a bound in bytes too: a page may be as large as one reply of MongoDB's."""
    reader = Reader(monkeypatch)
    two_pages = 2 * Page(0, make_entries(1, 4)).size()
    monkeypatch.setattr("hub.pages.CACHED_PAGES", 32)
    monkeypatch.setattr("hub.pages.CACHED_BYTES", two_pages)
    for position in (0, 4, 4, 8):
        reader.pages.request(position, "me")
        await turns()
    assert [reader.pages.cached(position) is not None for position in (0, 4, 8)] == [False, True, True]
    reader.pages.clear()
    reader.pages.request(0, "me")
    await turns()
    assert reader.pages.cached(0) is not None


async def test_least_recently_used_page_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so many pages are kept, and looking at one keeps it."""
    reader = Reader(monkeypatch)
    for position in (0, 4):
        reader.pages.request(position, "me")
        await turns()
    assert reader.pages.cached(0) is not None
    reader.pages.request(8, "me")
    await turns()
    assert [reader.pages.cached(position) is not None for position in (0, 4, 8)] == [True, False, True]


async def test_log_that_is_away_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers wait through an outage, and are served when it is over."""
    reader = Reader(monkeypatch)
    reader.log.failures = 3
    reader.pages.request(0, "me")
    await turns(20)
    assert reader.ready == [("me", [1, 2, 3, 4])]
    assert reader.pages.queries == 4


async def test_reads_leave_the_log_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so many reads are under way at once; the rest wait."""
    reader = Reader(monkeypatch, entries=100)
    reader.log.hold_up()
    for position in range(0, 80, 4):
        reader.pages.request(position, position)
    await turns()
    assert len(reader.log.reads) == CONCURRENT_READS
    reader.log.go_on()
    await turns(40)
    assert len(reader.ready) == len(reader.log.reads) == 20


async def test_defect_that_keeps_a_page_from_being_read_leaves_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch, expected_logs: list[str]
) -> None:
    """It is logged with its traceback, all who wait are told, and who asks again is served once it is mended."""
    expected_logs.append("the page after entry 4 cannot be read")
    reader = Reader(monkeypatch)
    reader.log.defect = ZeroDivisionError("a defect")
    reader.pages.request(4, "me")
    reader.pages.request(5, "you")
    await turns()
    assert reader.failed == ["me", "you"]
    reader.log.defect = None
    reader.pages.request(4, "me")
    await turns()
    assert reader.ready == [("me", [5, 6, 7, 8])]


async def test_page_of_large_entries_is_read_on_until_it_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply holds 16 MiB: who needs what is behind that gets it, and who has enough of it gets it at once; each part is read once."""
    reader = Reader(monkeypatch)
    reader.log.most = 1
    for waiter, position in enumerate([5, 4, 7, 7]):
        reader.pages.request(position, waiter)
    await turns(30)
    assert sorted(reader.ready, key=str) == [(0, [6]), (1, [5]), (2, [8]), (3, [8])]
    assert [after for after, _ in reader.log.reads] == [4, 5, 6, 7]


async def test_page_says_why_something_is_missing_before_its_first_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the log's oldest entry lies behind was evicted; anything else is missing, also at the beginning of a page."""
    reader = Reader(monkeypatch, entries=20)
    pages: list[Page | None] = []
    reader.pages = Pages(reader.log, lambda _, page: pages.append(page), reader.failed.append)
    del reader.log.entries[8:10]
    reader.pages.request(8, "me")
    await turns()
    reader.log.evict(10)
    reader.pages.request(4, "me")
    reader.pages.request(12, "me")
    await turns()
    assert [(page.after, page.entries[0].seq, page.evicted) for page in pages if page] == [(8, 11, False), (4, 13, True), (12, 13, False)]


async def test_page_of_a_log_that_is_gone_is_thrown_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """A read that was under way when the log became another one is not kept, and its readers are told."""
    reader = Reader(monkeypatch)
    reader.pages.request(0, "me")
    await turns()
    reader.log.hold_up()
    reader.pages.request(4, "me")
    await turns()
    reader.pages.clear()
    reader.log.go_on()
    await turns()
    assert reader.ready[1:] == [("me", None)]
    assert reader.pages.cached(0) is None
    assert reader.pages.cached(4) is None


async def test_closing_ends_reads_and_calls_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """After `close` no read is left, and closing twice does nothing."""
    reader = Reader(monkeypatch)
    reader.log.hold_up()
    reader.pages.request(0, "me")
    await turns()
    await reader.pages.close()
    await reader.pages.close()
    assert reader.ready == []
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("read page")]
