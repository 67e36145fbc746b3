"""Tests of handlers/codings.py: RFC 9110, 12.5.3, case by case."""

from __future__ import annotations

import pytest

from handlers.codings import accepts_gzip


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        ("gzip", True),
        ("gzip, deflate, br, zstd", True),  # browsers
        ("deflate, gzip;q=1.0, *;q=0.5", True),
        ("GZip", True),
        ("x-gzip", True),
        ("*", True),
        ("br;q=1.0, *;q=0.1", True),
        ("gzip;q=0.001", True),
        ("gzip ; q=0.5", True),
        ("gzip;Q=0.5", True),
        ("identity, gzip", True),
        ("identity;q=0, gzip;q=0.1", True),
        ("", False),
        ("br", False),
        ("identity", False),
        ("gzip;q=0", False),
        ("gzip;q=0.000", False),
        ("*;q=0", False),
        ("*, gzip;q=0", False),
        ("gzip;q=0, x-gzip", False),
        ("identity;q=1, gzip;q=0.5", False),
        ("identity, *;q=0.5", False),
        ("gzip;q=x", False),
        ("gzip;q=2", False),
        ("gzip;q=-1", False),
        ("gzip;q=0.1234", False),
        ("gzip;level=9", False),
        ("gzip;q=nan", False),
        ("gzipped", False),
        (";q=1,,", False),
    ],
)
def test_gzip_is_sent_to_those_who_take_it_and_do_not_prefer_none(header: str, accepted: bool) -> None:
    """Weights count, and what cannot be understood is a no."""
    assert accepts_gzip(header) is accepted
