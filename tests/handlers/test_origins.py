"""Tests of handlers/origins.py: what pages of other origins may do."""

from __future__ import annotations

import pytest

from handlers.origins import Page

HOST = "events.example.com"
LISTED = "https://app.example.com"


def page(origin: str | None, *listed: str, host: str = HOST, scheme: str = "http") -> Page:
    """Return a page of this origin, at a server that lists these."""
    return Page(origin, host, scheme, frozenset(listed))


@pytest.mark.parametrize(
    ("origin", "listed", "foreign", "known"),
    [
        (None, (), False, False),
        (None, ("*",), False, False),
        (f"https://{HOST}", (), False, True),
        (f"http://{HOST.upper()}", (), False, True),
        (f"https://{HOST}.evil.com", (), True, False),
        (f"https://{HOST}:8443", (), True, False),
        (LISTED, (LISTED,), False, True),
        (LISTED.upper(), (LISTED,), False, True),
        (LISTED, (), True, False),
        (LISTED, ("*",), False, False),
        ("null", (LISTED,), True, False),
        ("null", ("*",), False, False),
        ("*", ("*",), False, False),
    ],
)
def test_a_page_is_foreign_allowed_or_known(origin: str | None, listed: tuple[str, ...], foreign: bool, known: bool) -> None:
    """Known are the server's own pages and those listed by name; `*` lets others in without being known (T8)."""
    one = page(origin, *listed)
    assert (one.is_foreign(), one.is_known()) == (foreign, known)


@pytest.mark.parametrize("origin", ["null", "", "://", "http://"])
def test_a_page_without_an_origin_is_nobodys(origin: str) -> None:
    """A sandboxed page's origin is `null`, which is no host, not even that of a request that names none."""
    assert page(origin, host="").is_foreign()


def test_a_page_without_tls_is_foreign_where_tls_ends_here() -> None:
    """Whoever is between it and its user could have written it; where a proxy ends TLS, that cannot be told."""
    assert page(f"http://{HOST}", scheme="https").is_foreign()
    assert page(f"https://{HOST}", scheme="https").is_known()
    assert page(f"https://{HOST}", scheme="http").is_known()


@pytest.mark.parametrize(
    ("origin", "method", "site", "may"),
    [
        (LISTED, "POST", None, True),
        (LISTED, "POST", "cross-site", True),
        ("https://evil.com", "GET", None, False),
        ("https://evil.com", "GET", "same-origin", False),
        (None, "GET", None, True),
        (None, "HEAD", None, True),
        (None, "POST", None, False),
        (None, "GET", "same-origin", True),
        (None, "POST", "same-origin", True),
        (None, "GET", "none", True),
        (None, "GET", "same-site", False),
        (None, "GET", "cross-site", False),
        (None, "DELETE", "cross-site", False),
    ],
)
def test_cookies_are_taken_from_known_pages(origin: str | None, method: str, site: str | None, may: bool) -> None:
    """And without an origin where no other site's page could be behind it; a WebSocket never is without one."""
    one = page(origin, LISTED, "*")
    assert one.may_use_cookies(method, site, unnamed=True) is may
    assert one.may_use_cookies(method, site, unnamed=False) is (may and origin is not None)


def test_a_page_may_read_what_it_may_use() -> None:
    """With its user's cookies only if it is known; the origin is named, never `*`; and the answer depends on it."""
    assert page(None).headers() == page("https://evil.com", LISTED).headers() == {"Vary": "Origin"}
    known = page(LISTED, LISTED).headers()
    assert known["Access-Control-Allow-Origin"] == LISTED
    assert known["Access-Control-Allow-Credentials"] == "true"
    allowed = page(LISTED, "*").headers()
    assert allowed["Access-Control-Allow-Origin"] == LISTED
    assert "Access-Control-Allow-Credentials" not in allowed
    assert {"Vary": "Origin"}.items() <= known.items()


def test_a_preflight_tells_what_may_be_sent() -> None:
    """To a page that may use the server, and to no other."""
    assert page(LISTED, LISTED).preflight_headers("GET, POST")["Access-Control-Allow-Methods"] == "GET, POST"
    assert page("https://evil.com").preflight_headers("GET") == page(None).preflight_headers("GET") == {}
