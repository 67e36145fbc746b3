"""Events before and after they are in the log."""

from __future__ import annotations

import gc

import pytest

from storage.entries import ENTRY_OVERHEAD_BYTES, Entry, NewEvent, Receipt, is_own_source, ms_of
from storage.positions import PositionCodec

CODEC = PositionCodec(b"\x01\x02\x03\x04", bytes(16))
OPTIONAL = {
    "source": "shop",
    "key": "order 7",
    "priority": "high",
    "time": "2026-01-02T03:04:05Z",
    "published": "shop/1",
    "correlation_id": "c1",
}


def test_a_plain_event_is_a_document_without_optional_fields() -> None:
    """Number, time and append token are the appender's to give; the data stays the text it was."""
    assert NewEvent("orders.eu", "order:fill", ("public", "org:1"), '{"qty": 1.0}').document() == {
        "_id": 0,
        "ms": 0,
        "append": 0,
        "topic": "orders.eu",
        "type": "order:fill",
        "audience": ("public", "org:1"),
        "data": '{"qty": 1.0}',
    }


@pytest.mark.parametrize(("name", "value"), OPTIONAL.items())
def test_each_optional_field_is_in_the_document_when_given(name: str, value: str) -> None:
    """It is there under its own name, the correlation id in the spelling of the wire."""
    field = "correlationId" if name == "correlation_id" else name
    document = NewEvent("t", "y", ("public",), "{}", **{name: value}).document()
    assert document[field] == value
    assert len(document) == 8


def test_every_event_has_a_document_of_its_own() -> None:
    """An append may number it without touching another one."""
    event = NewEvent("t", "y", ("public",), "{}")
    assert event.document() is not event.document()


def test_an_entry_has_all_of_its_event() -> None:
    """What was published comes back, with its number, time and id; nothing is encoded yet."""
    document = NewEvent("orders.eu", "order:fill", ("public", "org:1"), '{"qty": 1.0}', **OPTIONAL).document()
    entry = Entry.of({**document, "_id": 7, "ms": 1000, "audience": ["public", "org:1"]}, CODEC)
    assert (entry.seq, entry.ms, entry.id) == (7, 1000, CODEC.encode(7, 1000))
    assert (entry.topic, entry.type, entry.audience, entry.data) == ("orders.eu", "order:fill", ("public", "org:1"), '{"qty": 1.0}')
    assert (entry.source, entry.key, entry.priority, entry.time) == ("shop", "order 7", "high", "2026-01-02T03:04:05Z")
    assert entry.correlation_id == "c1"
    assert entry.sse is entry.websocket is None


def test_entries_are_no_work_for_the_cyclic_collector() -> None:
    """There may be tens of thousands of them in memory; equal audiences are one object."""
    document = {**NewEvent("t", "y", ("public",), "{}").document(), "_id": 1}
    first, second = Entry.of(document, CODEC), Entry.of({**document, "_id": 2}, CODEC)
    assert not gc.is_tracked(first)
    assert first.audience is second.audience


def test_an_entry_without_optional_fields_has_none() -> None:
    """Each of them is None."""
    entry = Entry.of({**NewEvent("t", "y", ("public",), "{}").document(), "_id": 1}, CODEC)
    assert [entry.source, entry.key, entry.priority, entry.time, entry.correlation_id] == [None] * 5


def test_an_entry_counts_for_its_data_in_three_forms() -> None:
    """The text and its two encoded forms, and an overhead that every entry has."""
    document = NewEvent("t", "y", ("public",), "x" * 1000).document()
    assert Entry.of(document, CODEC).size == ENTRY_OVERHEAD_BYTES + 3000


def test_a_receipt_has_the_id_and_whether_it_was_there_before() -> None:
    """These two make up the answer to a publish."""
    receipt = Receipt("1-x", True)
    assert (receipt.id, receipt.duplicate) == ("1-x", True)


def is_entry(document: dict[str, object]) -> bool:
    """Tell whether a document can be read as an entry."""
    try:
        Entry.of(document, CODEC)
    except ValueError:
        return False
    return True


WHOLE = {**NewEvent("t", "y", ("public",), "{}").document(), "_id": 1, "ms": 5, "audience": ["public"]}


@pytest.mark.parametrize("changes", [{}, {"key": "k"}, {"append": 7}, {"more": 1}, {"ms": 0}, {"audience": []}, {"data": "not\njson"}])
def test_a_document_with_the_fields_of_an_entry_is_one(changes: dict[str, object]) -> None:
    """What else it has does not matter."""
    assert is_entry({**WHOLE, **changes})


@pytest.mark.parametrize("name", ["topic", "type", "audience", "data", "ms"])
def test_a_document_without_one_of_them_is_none(name: str) -> None:
    """Somebody put it there by hand."""
    assert not is_entry({key: value for key, value in WHOLE.items() if key != name})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("topic", 5),
        ("type", None),
        ("data", {"a": 1}),
        ("audience", 5),
        ("audience", None),
        ("audience", ["public", 5]),
        ("audience", [["public"]]),
        ("ms", "now"),
        ("ms", -1),
        ("ms", 10**14),
        ("ms", 1.5),
        ("source", 5),
        ("correlationId", []),
        ("type", "a\ndata: forged"),
        ("topic", "a\rb"),
    ],
)
def test_a_document_with_another_type_in_a_field_is_none(name: str, value: object) -> None:
    """Neither is one whose type would end a line of an event stream."""
    assert not is_entry({**WHOLE, name: value})


@pytest.mark.parametrize(("ms", "taken"), [(5, 5), (None, 0), ("5", 0), (-1, 0), (10**14, 0), (5.0, 0)])
def test_a_time_that_is_none_counts_as_the_beginning(ms: object, taken: int) -> None:
    """The same whoever reads it, so that its id is always the same."""
    assert ms_of({"ms": ms}) == taken
    assert ms_of({}) == 0


@pytest.mark.parametrize(("source", "own"), [("tailcast", True), ("tailcast.portfolio", True), ("tailcasting", False), ("shop", False)])
def test_the_servers_own_sources_are_told_from_others(source: str, own: bool) -> None:
    """A name that only begins alike is anybody's."""
    assert is_own_source(source) is own
