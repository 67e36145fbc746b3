"""Tests of hub/interest.py: which entries concern an interest, judged by their kind."""

from __future__ import annotations

from hub.formats import SSE
from hub.interest import EntryKind, Interest
from hub.subscriptions import Subscription, make_subscription

KIND: EntryKind = ("a.b", "x", None, ("user:u1", "org:o1"), None)
BOUNDED = make_subscription("a.*", [], [], {"minN": 1})


def conditions(audiences: set[str], *subscriptions: Subscription) -> tuple[Subscription, ...] | None:
    """Return an interest's conditions for KIND."""
    interest: Interest[object] = Interest(frozenset(audiences), frozenset(subscriptions), SSE)
    return interest.conditions(KIND)


def test_entry_outside_the_audience_does_not_concern() -> None:
    """Without a common audience nothing else matters."""
    assert conditions({"public", "user:u2"}, Subscription()) is None


def test_entry_that_no_subscription_selects_does_not_concern() -> None:
    """In the audience is not enough: it must have been asked for."""
    assert conditions({"org:o1"}) is None
    assert conditions({"org:o1"}, Subscription("a"), Subscription("a.b", frozenset({"y"}))) is None


def test_selected_entry_concerns_whatever_its_payload() -> None:
    """One selecting subscription without bounds makes the others' bounds pointless."""
    assert conditions({"org:o1"}, BOUNDED, Subscription("**")) == ()


def test_bounds_are_conditions_on_the_payload() -> None:
    """Where all that select have bounds, these are left to be met."""
    assert conditions({"org:o1"}, BOUNDED, Subscription("b")) == (BOUNDED,)


def test_subscriptions_with_keys_are_asked_apart_from_the_others() -> None:
    """A kind with a key concerns whoever asks for that key, one without whoever asks for none; both tell who asks for some key."""
    keyed = Subscription("a.*", keys=frozenset({"k1"}))
    interest: Interest[object] = Interest(frozenset({"org:o1"}), frozenset({keyed, BOUNDED}), SSE)
    assert interest.conditions(KIND) == (BOUNDED,)
    assert interest.conditions((*KIND[:4], "k1")) == ()
    assert interest.conditions((*KIND[:4], "k2")) is None
    assert interest.asks_for_keys_of(KIND)
    assert interest.asked_keys() == {"k1"}
    stranger: Interest[object] = Interest(frozenset({"org:o2"}), frozenset({keyed}), SSE)
    assert not stranger.asks_for_keys_of(KIND)
