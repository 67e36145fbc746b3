"""Tests of hub/router.py: however interests come and go, a route is what deciding anew would give."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.connection import Connection
from hub.formats import SSE, WEBSOCKET
from hub.interest import EntryKind, Interest
from hub.router import MAX_ROUTES, Route, Router, _connect
from hub.subscriptions import Subscription, make_subscription
from storage.entries import Entry
from tests.hub.fakes import everything, make_entry

U1 = frozenset({"public", "user:u1"})
AUDIENCES = ("public", "user:u1", "org:o1")

subscriptions = st.builds(
    make_subscription,
    st.sampled_from(["a", "a.b", "b", "*", "a.*", "**"]),
    st.sampled_from([[], ["x"]]),
    st.sampled_from([[], ["s"]]),
    st.sampled_from([{}, {"minN": 2}]),
    st.just([]),
    st.sampled_from([[], ["k1"], ["k1", "k2"]]),
)
interests = st.tuples(
    st.frozensets(st.sampled_from(AUDIENCES), max_size=2),
    st.frozensets(subscriptions, max_size=3),
    st.sampled_from([SSE, WEBSOCKET]),
)
entries = st.builds(
    make_entry,
    st.just(1),
    topic=st.sampled_from(["a", "a.b", "b", "c"]),
    type=st.sampled_from("xy"),
    audience=st.sets(st.sampled_from(AUDIENCES), min_size=1).map(sorted),
    source=st.sampled_from([None, "s"]),
    key=st.sampled_from([None, "k1", "k2", "k3"]),
    data=st.sampled_from(['{"n": 1}', '{"n": 2}', "{}"]),
)
steps = st.lists(
    st.tuples(st.just("intern"), interests) | st.tuples(st.just("release"), st.integers(0, 20)) | st.tuples(st.just("route"), entries)
)


@settings(deadline=None)
@given(steps, st.sampled_from([2, MAX_ROUTES]))
def test_routes_are_what_deciding_anew_would_give(steps: list[tuple[str, object]], most: int) -> None:
    """After any interests came and went, each entry concerns exactly those it is for, remembered routes or not."""
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr("hub.router.MAX_ROUTES", most)
        router = Router()
        held: list[Interest[Connection]] = []
        seen: list[Entry] = []
        for step, argument in steps:
            if step == "intern":
                held.append(router.intern(*argument))  # type: ignore[misc]
            elif step == "release" and held:
                assert isinstance(argument, int)
                router.release(held.pop(argument % len(held)))
            elif step == "route":
                assert isinstance(argument, Entry)
                seen.append(argument)
            for entry in seen:
                check_route(router, entry, held)
            assert len(router._routes) <= most
        for interest in held:
            router.release(interest)
        check_empty(router)


def check_route(router: Router, entry: Entry, held: list[Interest[Connection]]) -> None:
    """Compare the routes of an entry with every interest's own conditions, and with what they mean."""
    kind = (entry.topic, entry.type, entry.source, entry.audience)
    check_conditions(router.route(entry), (*kind, None), held)
    keyed = router.keyed_route(entry)
    if keyed is not None:
        check_conditions(keyed, (*kind, entry.key), held)
    for one in held:
        wanted = [selection for selection in one.subscriptions if selection.selects(*kind, entry.key)]
        number = {'{"n": 1}': 1, '{"n": 2}': 2}.get(entry.data, 0)
        meets = any(not selection.bounds or number >= 2 for selection in wanted)
        assert router.concerns(one, entry) == (meets and not one.audiences.isdisjoint(entry.audience))


def check_conditions(route: Route, kind: EntryKind, held: list[Interest[Connection]]) -> None:
    """Compare a route with what deciding anew would give."""
    assert route.interests == {one: conditions for one in held if (conditions := one.conditions(kind)) is not None}
    assert route.keyed == (sum(one.asks_for_keys_of(kind) for one in dict.fromkeys(held)) if kind[4] is None else 0)


def check_empty(router: Router) -> None:
    """Insist that nothing is left of interests that went."""
    assert not any((router._interests, router._by_audience, router._by_topic, router._by_pattern, router._by_key))
    assert not any(route.interests or route.keyed for route in router._routes.values())


def test_equal_interests_are_one_object() -> None:
    """Connections that want and may see the same share an interest; another transport has its own."""
    router = Router()
    first, again = router.intern(U1, everything("a"), SSE), router.intern(frozenset(U1), everything("a"), SSE)
    assert first is again
    assert router.intern(U1, everything("a"), WEBSOCKET) is not first


def test_interest_stays_until_its_last_user_is_gone() -> None:
    """Each `intern` needs a `release`; after the last one, the same values make a new object."""
    router = Router()
    first = router.intern(U1, everything("a"), SSE)
    router.intern(U1, everything("a"), SSE)
    router.release(first)
    assert router.route(make_entry(1, topic="a")).interests == {first: ()}
    router.release(first)
    check_empty(router)
    assert router.intern(U1, everything("a"), SSE) is not first


def test_route_is_remembered() -> None:
    """Entries of one kind share a route; another topic, type, source or audience has its own."""
    router = Router()
    route = router.route(make_entry(1))
    assert router.route(make_entry(2, data='{"n": 5}')) is route
    for other in (make_entry(3, topic="z"), make_entry(3, type="z"), make_entry(3, source="z"), make_entry(3, audience=["org:z"])):
        assert router.route(other) is not route


def test_ever_new_keys_are_one_kind() -> None:
    """Keys that nobody asks for, or that nobody asks for in entries of this kind, make no routes of their own."""
    router = Router()
    router.intern(U1, frozenset({Subscription("prices", types=frozenset({"price"}), keys=frozenset({"k1"}))}), SSE)
    for number in range(50):
        assert not router.route(make_entry(1, topic="orders", key=f"o{number}")).keyed
        priced = make_entry(1, topic="prices", type="price", key=f"o{number}")
        assert router.route(priced).keyed == 1
        assert router.keyed_route(priced) is None
    assert len(router._routes) == 2
    assert router.keyed_route(make_entry(1, topic="prices", type="price", key="k1")) is not None


def test_entry_with_a_key_asks_only_those_who_ask_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand clients with symbols of their own cost an update of one symbol nothing; those without keys are decided once for all."""
    router = Router()
    asking = [router.intern(U1, frozenset({Subscription(keys=frozenset({f"k{number}", f"k{number + 1}"}))}), SSE) for number in range(50)]
    all_keys = router.intern(U1, everything(), SSE)
    assert set(router.route(make_entry(1)).interests) == {all_keys}
    looked: list[object] = []

    def look(route: Route, interest: Interest[Connection]) -> None:
        looked.append(interest)
        _connect(route, interest)

    monkeypatch.setattr("hub.router._connect", look)
    entry = make_entry(1, key="k7")
    assert not router.route(entry).concerns(asking[7], entry)
    assert router.concerns(asking[7], entry)
    assert not router.concerns(asking[8], entry)
    assert looked == [asking[6], asking[7]]


def test_oldest_route_is_forgotten_beyond_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A publisher with ever new topics costs a bounded table; a route that comes back is decided again, and right."""
    monkeypatch.setattr("hub.router.MAX_ROUTES", 3)
    router = Router()
    interest = router.intern(U1, everything("t.*"), SSE)
    routes = [router.route(make_entry(seq, topic=f"t.{seq}")) for seq in range(10)]
    assert len(router._routes) == len(router._routes_by_topic) == 3
    assert router.route(make_entry(9, topic="t.9")) is routes[9]
    again = router.route(make_entry(0, topic="t.0"))
    assert again is not routes[0]
    assert again.interests == {interest: ()}


def test_candidates_are_found_by_audience_where_that_is_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry for one user among thousands looks at that user's interests only."""
    router = Router()
    for number in range(50):
        router.intern(frozenset({"public", f"user:{number}"}), everything(), SSE)
    looked: list[object] = []
    monkeypatch.setattr("hub.router._connect", lambda route, interest: looked.append(interest))
    router.route(make_entry(1, audience=["user:7", "user:8"]))
    assert len(looked) == 2
    looked.clear()
    router.route(make_entry(1, audience=["public"]))
    assert len(looked) == 50


def test_conditions_are_checked_against_the_payload() -> None:
    """A route with bounds concerns an interest only if the payload is within one of them."""
    router = Router()
    selection = frozenset({make_subscription("a", [], [], {"minN": 5}), make_subscription("**", [], [], {"maxN": 1})})
    interest = router.intern(U1, selection, SSE)
    other = router.intern(frozenset({"org:x"}), frozenset({Subscription()}), SSE)
    concerned = [
        router.route(entry).concerns(interest, entry) for entry in (make_entry(1, topic="a", data=f'{{"n": {n}}}') for n in (0, 3, 9))
    ]
    assert concerned == [True, False, True]
    entry = make_entry(1, audience=["user:u1"])
    assert not router.route(entry).concerns(other, entry)


def test_subscriptions_are_counted_for_each_connection() -> None:
    """Those that share an interest count one by one, and one that is gone does not."""
    router = Router()
    both = frozenset({make_subscription("a", [], [], {}), make_subscription("b", [], [], {})})
    first, _, _ = router.intern(U1, both, SSE), router.intern(U1, both, SSE), router.intern(U1, frozenset(), SSE)
    assert router.subscriptions() == 4
    router.release(first)
    assert router.subscriptions() == 2
