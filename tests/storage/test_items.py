"""Items: their documents, and identities that cannot be mixed up."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from storage.collection import date_of
from storage.items import Item, item_id

NAMES = st.text(alphabet="ab/:1", min_size=1, max_size=6)


def make_item(
    key: str = "k", seq: int = 1, *, owner: str = "user:u1", data: str = "{}", snapshot: str = "orders", **fields: object
) -> Item:
    """Return an item of which only these matter."""
    return Item(snapshot, owner, key, seq, 1000 + seq, "order:update", f"id-{seq}", data, **fields)  # type: ignore[arg-type]


def same(item: Item) -> tuple[object, ...]:
    """Return what makes an item that item."""
    return (item.snapshot, item.owner, item.key, item.seq, item.ms, item.type, item.id, item.data, item.expires, item.gone)


def test_a_document_gives_the_item_back() -> None:
    """With everything that it says; a payload's text stays as it is."""
    item = make_item("a/b", 5, owner="resource:stream/42", data='{"a" : 1.50}', expires=1234.5)
    assert same(Item.of("orders", "resource:stream/42", item.document(1, 9999.0))) == same(item)


def test_what_is_gone_is_kept_without_its_payload_for_a_while() -> None:
    """It ends when it may be forgotten, whenever it would have ended otherwise."""
    document = make_item(data='{"secret": 1}', gone=True, expires=1.0).document(1, 9999.0)
    assert (document["data"], document["gone"], document["expires"]) == ("", True, date_of(9999.0))


def test_what_does_not_expire_has_no_date() -> None:
    """MongoDB deletes what has one."""
    assert "expires" not in make_item().document(1, 9999.0)


@given(NAMES, NAMES, NAMES, NAMES)
@example("a/", "b", "a", "/b")
@example("a/1", "b", "a", "1/b")
def test_no_two_items_have_one_identity(owner: str, key: str, other_owner: str, other_key: str) -> None:
    """Whatever characters owners and keys hold."""
    is_same = (owner, key) == (other_owner, other_key)
    assert (item_id("orders", owner, key) == item_id("orders", other_owner, other_key)) is is_same
