"""Tests of handlers/refused_fields.py: a refused name is found wherever it stands and however it is written, and nothing else is."""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from handlers.refused_fields import LOCATED_BYTES, MAX_PATH_LENGTH, RefusedFields, Search, plain_name

NAMES = ("password", "api_key", "cvv", "PIN")
REFUSED = RefusedFields(NAMES)


def found(text: str) -> str | None:
    """Return the path that is found in a text, first by the quick look, as at a publish."""
    return REFUSED.path_in(text) if REFUSED.are_in(text.encode()) else None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"password": "x"}', "password"),
        ('{"PassWord": null}', "PassWord"),
        ('{"api_key": 1}', "api_key"),
        ('{"apiKey": 1}', "apiKey"),
        ('{"API-KEY_": 1}', "API-KEY_"),
        ('{"pin"\n:1}', "pin"),
        ('{"user": {"name": "a", "cards": [{"n": 1}, {"cvv": 1}]}}', "user.cards[1].cvv"),
        ('[[{"cvv": 1}]]', "[0][0].cvv"),
        ('{"\\u0070assword": 1}', "password"),
        ('{"pass\\u005Fword": 1}', "pass_word"),
        ('{"a": {"cvv": 1}, "a": 2}', "a.cvv"),
        ('{"a": 1, "cvv": 1, "cvv": 2}', "cvv"),
    ],
)
def test_refused_names_are_found(text: str, expected: str) -> None:
    """At any depth, in any case, with or without `_` and `-`, with escapes, and under a name that comes twice."""
    assert found(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        '{"passwords": 1, "my_password": 1, "pass word": 1}',
        '{"field": "password"}',
        '["password", "cvv"]',
        '"cvv"',
        '{"note": "\\"password\\": 1"}',
        '{"\\"password": 1}',
        '{"\\u0041": 1}',
        '{"cvv\\u0000": 1}',
        '{"\u212aey": 1, "c\u017fvv": 1}',
        "{}",
        "12",
    ],
)
def test_other_names_and_values_are_welcome(text: str) -> None:
    """A name is refused as a whole only, and a value that reads like one is none."""
    assert found(text) is None


def test_without_names_everything_is_welcome() -> None:
    """An empty list switches the search off."""
    assert not RefusedFields(()).are_in(b'{"password": "\\u0070"}')


def test_one_look_is_enough_for_many() -> None:
    """A batch is looked through at once; what lies on the border of two payloads is no name."""
    assert REFUSED.are_in(b'{"a": 1}', memoryview(b'{"cvv": 1}'))
    assert REFUSED.are_in(msgspec.Raw(b'{"cvv": 1}'))
    assert not REFUSED.are_in(b'"cv', b'v"', b"\\", b"u")
    assert not REFUSED.are_in()


def test_numbers_of_any_length_are_no_trouble() -> None:
    """A number is not made: Python refuses to make those of thousands of digits."""
    assert REFUSED.path_in('{"n": ' + "9" * 10_000 + ', "f": 1e999, "cvv": 1}') == "cvv"


def test_a_long_path_is_cut() -> None:
    """A path is told up to a length: it goes into an answer."""
    text = '{"' + "a" * 1000 + '": {"cvv": 1}}'
    assert found(text) == "a" * MAX_PATH_LENGTH


def test_a_field_of_an_event_is_told_from_its_data_on() -> None:
    """The path begins with `data`, whatever the payload is."""
    search = Search(REFUSED)
    assert search.field_in(b'{"a": {"cvv": 1}}') == "data.a.cvv"
    assert search.field_in(b'[{"cvv": 1}]') == "data[0].cvv"
    assert search.field_in(b'{"a": "cvv"}') is None


def test_what_is_nested_too_deeply_is_still_refused() -> None:
    """A text that the parser gives up at has its field found nevertheless; only where it is, is not told."""
    assert Search(REFUSED).field_in(b'[{"cvv": 1},' + b"[" * 20_000 + b"]" * 20_000 + b"]") == "data"


def test_where_fields_are_is_told_of_so_many_bytes_only() -> None:
    """Parsing is slow, so that of much in one request it is only told that there is such a field."""
    search = Search(REFUSED)
    payload = b'{"cvv": "' + b"x" * 1000 + b'"}'
    fields = [search.field_in(payload) for _ in range(100)]
    told = LOCATED_BYTES // len(payload)
    assert fields == ["data.cvv"] * told + ["data"] * (100 - told)


@pytest.mark.parametrize(
    "unit", ['{"cvv":1},', '"cvv",', "{},", '"\\u0063",', '"\\u0063vv\\"",', '"____', "\\\\", '"c\\u005f', '"cv', "\\u005f", '" ']
)
def test_no_payload_makes_the_search_slow(unit: str) -> None:
    """The time that it takes grows with the length of the text, not with its square, and is bounded where text is parsed."""
    text = ('"\\u0041"' + unit * (4_000_000 // len(unit))).encode()
    began = time.process_time()
    Search(REFUSED).field_in(text)
    assert time.process_time() - began < 5


letters = st.sampled_from([*"pasword_-PASWORDcvin", "\\u0070", "\\u005f", "\\u00e9", "é", "\\n", '\\"', "\\\\", "\\/", " "])
keys = st.sampled_from([*NAMES, "apiKey", "pass-word", "note", "\\u0063vv", "Cv\\u0056"]) | st.lists(letters, max_size=9).map("".join)
spaces = st.sampled_from(["", "", " ", "\n\t"])


def _object(members: list[tuple[str, str, str]]) -> str:
    return "{" + ",".join(f'"{key}"{space}:{value}' for key, space, value in members) + "}"


texts = st.recursive(
    st.sampled_from(["1", "null", "-1.5e3", '"password"', '"a\\"cvv\\": 1"', '"\\u0070"']) | keys.map(lambda key: f'"{key}"'),
    lambda inner: (
        st.lists(st.tuples(keys, spaces, inner), max_size=4).map(_object)
        | st.lists(inner, max_size=3).map(lambda each: f"[{','.join(each)}]")
    ),
)


def plainly_refused(value: Any) -> bool:
    """Tell by the plainest means whether a parsed value has a refused name; objects are lists of pairs in tuples."""
    if isinstance(value, tuple):
        wanted = [name.lower().replace("_", "").replace("-", "") for name in NAMES]
        return any(key.lower().replace("_", "").replace("-", "") in wanted or plainly_refused(member) for key, member in value)
    return isinstance(value, list) and any(plainly_refused(one) for one in value)


@given(texts)
@example('{"a":{"cvv":1},"a":1}')
def test_the_quick_look_misses_nothing(text: str) -> None:
    """Whatever the text, the answer is that of a plain search through what a parser makes of it."""
    expected = plainly_refused(json.loads(text, object_pairs_hook=tuple))
    path = found(text)
    assert REFUSED.are_in(text.encode()) == (REFUSED.path_in(text) is not None) == expected
    if path is not None:
        assert plain_name(path.rpartition(".")[2]) in {plain_name(name) for name in NAMES}
