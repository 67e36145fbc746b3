"""Tests of hub/errors.py: the tree that is drawn is the tree there is, and every code is documented."""

from __future__ import annotations

import re

import pytest

from hub import errors
from hub.errors import CLOSE_CODES, TailcastError

ROW = re.compile(r"^ {4}(?P<branch>[│├└─ ]*)(?P<name>\w+) +(?P<code>[a-z_]+) +(?P<status>\d{3}) +(?P<close>\d{4})", re.MULTILINE)
DRAWN = {row["name"]: row for row in ROW.finditer(errors.__doc__ or "")}
CLASSES = {name: one for name, one in vars(errors).items() if isinstance(one, type) and issubclass(one, TailcastError)}


def test_every_error_is_drawn_in_the_tree() -> None:
    """The head of the module shows every error and no other."""
    assert set(DRAWN) == set(CLASSES) - {"TailcastError"}


@pytest.mark.parametrize("name", sorted(DRAWN))
def test_error_has_the_codes_that_are_drawn(name: str) -> None:
    """Each error has the code, the HTTP status and the close code of its row."""
    error, row = CLASSES[name], DRAWN[name]
    assert (error.code, str(error.status), str(error.close_code)) == (row["code"], row["status"], row["close"])


@pytest.mark.parametrize("name", sorted(DRAWN))
def test_error_stands_under_the_one_it_is_derived_from(name: str) -> None:
    """One level of the tree is one level of inheritance."""
    depth = len(DRAWN[name]["branch"]) // 4
    assert CLASSES[name].mro().index(TailcastError) == depth


def test_every_close_code_is_documented() -> None:
    """What an error or a constant closes with has a line in the table of close codes."""
    constants = {value for name, value in vars(errors).items() if name.isupper() and isinstance(value, int)}
    assert constants | {one.close_code for one in CLASSES.values()} <= set(CLOSE_CODES)


def test_error_carries_what_the_answer_says() -> None:
    """An error keeps its sentence, the field, when to try again, and further rows."""
    error = errors.TooMany("slower", field="topic", retry_after=7, details=[{"field": "x"}])
    assert (str(error), error.field, error.retry_after, error.details) == ("slower", "topic", 7, [{"field": "x"}])
    plain = errors.NotFound("no")
    assert (plain.field, plain.retry_after, plain.details) == (None, None, None)
