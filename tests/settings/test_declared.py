"""Tests of settings/declared.py."""

from __future__ import annotations

import dataclasses

import pytest

from settings import DECLARATIONS, Settings

# SPEC X2 fixes these names, and that these are their defaults when nothing is given.
NAMED_FROM_OUTSIDE = {
    "address": "127.0.0.1",
    "port": "8080",
    "mongodb_uri": "",
    "database": "tailcast",
    "data_dir": "data",
    "log_bytes": "1GiB",
    "jwt_secret": "",
    "jwt_public_key": "",
    "jwks_url": "",
    "jwt_algorithms": "",
    "jwt_issuer": "",
    "jwt_audience": "",
    "allowed_origins": "",
    "trusted_proxies": "",
    "connections_per_user": "10",
    "connects_per_minute": "5",
    "max_connections": "15000",
    "stale_seconds": "300",
    "drain_seconds": "10",
    "demo": "false",
}


def test_every_name_that_is_fixed_from_outside_is_declared() -> None:
    """The settings that the outside counts on exist, each with its default."""
    defaults = {one.name: one.shown(one.default) for one in DECLARATIONS}
    assert {name: defaults[name] for name in NAMED_FROM_OUTSIDE} == NAMED_FROM_OUTSIDE


@pytest.mark.parametrize("declaration", DECLARATIONS, ids=lambda one: one.name)
def test_every_default_is_a_value_of_its_kind(declaration: object) -> None:
    """A default, written as the operator would write it, is read as itself."""
    (one,) = [one for one in DECLARATIONS if one is declaration]
    assert one.kind.parse(one.kind.show(one.default)) == one.default
    assert one.meaning.endswith(".")
    assert one.group


def test_settings_are_frozen() -> None:
    """Nobody changes a setting once it was read."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().port = 1  # type: ignore[misc]


def test_repr_shows_no_secret() -> None:
    """The secret, and the password within the URI of MongoDB, do not appear in `repr`; all else does."""
    settings = Settings(jwt_secret="s3cret" * 8, mongodb_uri="mongodb://me:p@ss:w0rd@db.example:27017/?w=1")
    assert "s3cret" not in repr(settings)
    assert "w0rd" not in repr(settings)
    assert "mongodb_uri='mongodb://me:[redacted]@db.example:27017/?w=1'" in repr(settings)
    assert "port='8080'" in repr(settings)


@pytest.mark.parametrize(
    "uri",
    [
        "mongodb://h1:27017,h2:27017/?appName=a@b",
        "mongodb://me@h1:27017/",
        "mongodb+srv://cluster.example/",
        "",
    ],
)
def test_uri_without_password_is_shown_whole(uri: str) -> None:
    """A URI that holds no password has nothing to hide, whatever colons and at-signs it holds."""
    (declaration,) = [one for one in DECLARATIONS if one.name == "mongodb_uri"]
    assert declaration.shown(uri) == uri


def test_names_of_secrets_are_letters_and_digits() -> None:
    """A name of refused_fields may be written with `_` and `-`, must be more than those, and cannot be a pattern."""
    (declaration,) = [one for one in DECLARATIONS if one.name == "refused_fields"]
    assert declaration.kind.parse("api_key, PIN,x-1") == ("api_key", "PIN", "x-1")
    assert declaration.kind.parse("") == ()
    for bad in ("_", "a b", "é", "a.*"):
        with pytest.raises(ValueError):  # noqa: PT011  # the kind's `expected` is the message
            declaration.kind.parse(bad)
