"""Tests of hub/subscriptions.py: patterns of topics against a slow matcher, names, and bounds on all that JSON calls a number."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.errors import BadRequest
from hub.subscriptions import (
    MAX_BOUNDS,
    MAX_LIST_LENGTH,
    MAX_TOPIC_LENGTH,
    Bound,
    Subscription,
    is_bound,
    is_exact,
    is_name,
    is_pattern,
    is_topic,
    make_subscription,
    parse_payload,
    topic_matches,
)

segments = st.sampled_from(["a", "b", "a+", "(", "é", "a-b"])
topics = st.lists(segments, min_size=1, max_size=4).map(".".join)
patterns = st.tuples(st.lists(segments | st.just("*"), max_size=3), segments | st.sampled_from(["*", "**"])).map(
    lambda parts: ".".join([*parts[0], parts[1]])
)


def naive(pattern: list[str], topic: list[str]) -> bool:
    """Match segment by segment."""
    if not pattern or not topic:
        return not pattern and not topic
    if pattern == ["**"]:
        return True
    return pattern[0] in ("*", topic[0]) and naive(pattern[1:], topic[1:])


def holds(data: str, **bounds: Any) -> bool:
    """Tell whether a payload's text is within the bounds a client gives."""
    return make_subscription("**", [], [], bounds).holds(parse_payload(data))


# ---- topics


@settings(deadline=None)
@given(patterns, topics)
def test_pattern_matches_as_segment_by_segment(pattern: str, topic: str) -> None:
    """`*` stands for one segment and a last `**` for one or more, whatever characters the segments have."""
    assert is_pattern(pattern)
    assert is_topic(topic)
    assert topic_matches(pattern, topic) == naive(pattern.split("."), topic.split("."))


@pytest.mark.parametrize(
    "pattern", ["", ".", "a.", ".a", "a..b", "a*", "**.a", "a.**.b", "***", "a b", "a,b", "a\n", "x" * (MAX_TOPIC_LENGTH + 1)]
)
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    """Empty segments, `**` before the end, asterisks within a segment, separators and too many characters are refused by name."""
    assert not is_pattern(pattern)
    with pytest.raises(BadRequest) as caught:
        make_subscription(pattern, [], [], {}, topic_field="topics")
    assert caught.value.field == "topics"


@pytest.mark.parametrize("topic", ["", ".a", "a.", "a..b", "a.*", "a b", "a\u2028b", "a\x00", "x" * (MAX_TOPIC_LENGTH + 1)])
def test_what_is_no_topic_cannot_be_published_under(topic: str) -> None:
    """A topic has no empty segment, asterisk, space or control character."""
    assert not is_topic(topic)


def test_exact_pattern_is_one_without_asterisks() -> None:
    """A plain topic is told from a pattern."""
    assert is_exact("a.b")
    assert not is_exact("a.*")


def test_name_may_have_a_limit_of_its_own() -> None:
    """The longest name that is allowed is the caller's to say."""
    assert is_name("abc", 3)
    assert not is_name("abcd", 3)


# ---- types and sources


def test_subscription_selects_by_topic_type_and_source() -> None:
    """All that was asked for must hold; what was not asked for does not matter."""
    one = make_subscription("a.*", ["x"], ["s"], {})
    assert one.selects("a.b", "x", "s", ("public",))
    assert not one.selects("b.b", "x", "s", ("public",))
    assert not one.selects("a.b", "y", "s", ("public",))
    assert not one.selects("a.b", "x", None, ("public",))
    assert Subscription().selects("any.topic", "any", None, ("public",))


def test_equal_selections_are_equal_values() -> None:
    """The order in which a client lists things makes no difference."""
    assert make_subscription("a", ["x", "y"], [], {"minA": 1, "maxB": 2}) == make_subscription(
        "a", ["y", "x"], [], {"maxB": 2.0, "minA": "1"}
    )


@pytest.mark.parametrize(
    ("types", "sources", "bounds", "field"),
    [
        (["ok", "not ok"], [], {}, "filters.types[1]"),
        ([], ["*"], {}, "filters.sources[0]"),
        (["t"] * (MAX_LIST_LENGTH + 1), [], {}, "filters.types"),
        ([], [], {"minAmount": "ten"}, "filters.minAmount"),
        ([], [], {"minAmount": True}, "filters.minAmount"),
        ([], [], {"minAmount": None}, "filters.minAmount"),
        ([], [], {"minAmount": float("nan")}, "filters.minAmount"),
        ([], [], {"maxAmount": "Infinity"}, "filters.maxAmount"),
        ([], [], {"colour": 1}, "filters.colour"),
        ([], [], {"minimum": 1}, "filters.minimum"),
        ([], [], {f"minA{index}": 1 for index in range(MAX_BOUNDS + 1)}, "filters"),
    ],
)
def test_wrong_filter_is_named(types: list[str], sources: list[str], bounds: dict[str, Any], field: str) -> None:
    """What cannot be meant is refused with the name of the field."""
    with pytest.raises(BadRequest) as caught:
        make_subscription("**", types, sources, bounds)
    assert caught.value.field == field


def test_too_many_bounds_without_a_prefix_still_have_a_name() -> None:
    """In a query, where filters have no prefix, they are called filters all the same."""
    with pytest.raises(BadRequest) as caught:
        make_subscription("**", [], [], {f"minA{index}": 1 for index in range(MAX_BOUNDS + 1)}, prefix="")
    assert caught.value.field == "filters"


def test_bound_is_known_by_its_name() -> None:
    """`min` or `max` and a field with a capital letter make a bound."""
    assert is_bound("minAmount")
    assert is_bound("maxX")
    assert not is_bound("minamount")
    assert not is_bound("min")


# ---- bounds


@pytest.mark.parametrize(
    ("value", "within"),
    [
        ("10", True),
        ("20", True),
        ("9", False),
        ("21", False),
        ("10.0", True),
        ("9.999999999999999999999999", False),
        ("20.000000000000000000000001", False),
        ('"12.5"', True),
        ('"9.99"', False),
        ("1e1", True),
        ("1e400", False),
        ("1e9999999999999999999999", False),
        ("-1e9999999999999999999999", False),
        ('"1e9999999999999999999999"', False),
        ("9" * 400, False),
        ("true", False),
        ("null", False),
        ("[10]", False),
        ('{"a": 10}', False),
        ('"ten"', False),
        ('""', False),
        ('"NaN"', False),
        ('"sNaN"', False),
        ('"Infinity"', False),
    ],
)
def test_bounds_compare_numbers_and_strings_that_are_numbers(value: str, within: bool) -> None:
    """Both ends are included, nothing is rounded, and what is no number, or none that can be held, is in no bound."""
    assert holds(f'{{"amount": {value}}}', minAmount=10, maxAmount="20") == within


@pytest.mark.parametrize("value", ["Infinity", "-Infinity", "NaN"])
def test_string_that_is_not_finite_is_in_no_bound(value: str) -> None:
    """A bound on one side only does not let infinity in."""
    assert not Bound("a", Decimal(0), None).holds({"a": value})
    assert not Bound("a", None, Decimal(0)).holds({"a": value})


def test_every_bound_must_hold() -> None:
    """Bounds on several fields are all to be met; a field that is missing meets none."""
    assert holds('{"a": 1, "b": 1}', minA=1, maxB=1)
    assert not holds('{"a": 1, "b": 2}', minA=1, maxB=1)
    assert not holds('{"a": 1}', minA=1, maxB=1)
    assert holds('{"a": 123456789012345678901234567890}', minA="123456789012345678901234567890", maxA=0.5e30)


@pytest.mark.parametrize("data", ["[]", "10", "null", '"10"', "not json", "[" * 100_000 + "]" * 100_000, '{"amount": NaN}'])
def test_payload_that_is_no_readable_object_is_in_no_bound(data: str) -> None:
    """Only objects have fields to compare, and one that cannot be read breaks nothing."""
    assert not holds(data, minAmount=0)


def test_without_bounds_any_payload_will_do() -> None:
    """A subscription without bounds never looks at the payload."""
    assert Subscription().holds(None)


@settings(deadline=None)
@given(st.integers() | st.decimals(allow_nan=False, allow_infinity=False, places=6), st.integers())
def test_bound_agrees_with_exact_arithmetic(value: Any, low: int) -> None:
    """A number in the payload is compared as the number that was written."""
    assert holds(f'{{"a": {value}}}', minA=low) == (Decimal(value) >= low)
    assert holds(json.dumps({"a": str(value)}), minA=low) == (Decimal(value) >= low)


@pytest.mark.parametrize(
    ("resources", "field"),
    [
        (["stream"], "filters.resources[0]"),
        (["a/1", "a /2"], "filters.resources[1]"),
        (["a/1"] * (MAX_LIST_LENGTH + 1), "filters.resources"),
    ],
    ids=["no id", "a space", "too many"],
)
def test_resources_that_cannot_be_meant_are_named(resources: list[str], field: str) -> None:
    """A resource is a kind and an id; there may be so many."""
    with pytest.raises(BadRequest) as refused:
        make_subscription("a", [], [], {}, resources)
    assert refused.value.field == field


def test_resources_limit_a_subscription_to_their_audiences() -> None:
    """Whatever else an event is for."""
    one = make_subscription("**", [], [], {}, ["stream/1", "stream/2"])
    assert one.selects("a", "x", None, ("user:u1", "resource:stream/2"))
    assert not one.selects("a", "x", None, ("user:u1", "resource:stream/3"))


def test_keys_limit_a_subscription_to_entries_about_them() -> None:
    """An entry without a key is about none of them; without keys a subscription takes whatever it is about."""
    one = make_subscription("**", [], [], {}, [], ["k1", "any, text"])
    assert one.selects("a", "x", None, (), "k1")
    assert one.selects("a", "x", None, (), "any, text")
    assert not one.selects("a", "x", None, (), "k2")
    assert not one.selects("a", "x", None, ())
    assert one.selects_some("a", "x", None, ())
    assert Subscription().selects("a", "x", None, (), "k2")


@pytest.mark.parametrize(
    ("keys", "field"),
    [(["k", ""], "filters.keys[1]"), (["k" * 257], "filters.keys[0]"), (["k"] * (MAX_LIST_LENGTH + 1), "filters.keys")],
    ids=["empty", "too long", "too many"],
)
def test_keys_that_cannot_be_meant_are_named(keys: list[str], field: str) -> None:
    """A key is any text of 1 to 256 characters; there may be so many."""
    with pytest.raises(BadRequest) as refused:
        make_subscription("a", [], [], {}, [], keys)
    assert refused.value.field == field
