"""Reading the settings from the command line, the environment and a file, and listing them for `--help`.

SettingsError    a name that nobody knows, or a value that is none
"""

from __future__ import annotations

import dataclasses
import difflib
import textwrap
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from settings import kinds
from settings.declared import DECLARATIONS, Declaration, Settings

_PREFIX = "TAILCAST_"
_BY_NAME = {one.name: one for one in DECLARATIONS}
# What may also be given as TAILCAST_NAME_FILE: what is secret, and keys, which are kept in files anyway.
_FILE_NAMES = {one.name for one in DECLARATIONS if one.hide} | {"jwt_public_key"}
# What published keys may be for: a secret that is published is none.
_PUBLISHED = ("RS256", "ES256", "EdDSA")
_LONGEST_SHOWN = 80
_COLUMNS = 100
_INTRODUCTION = """\
usage: python server.py [--NAME=VALUE ...]

A setting is taken from the command line as --NAME=VALUE, else from the environment as TAILCAST_NAME,
else from the TOML file that --config=FILE names, else it has the default shown here. What is secret is
taken from the environment only: as TAILCAST_NAME, or from the file that TAILCAST_NAME_FILE names.
"""


class SettingsError(Exception):
    """A setting that cannot be understood; the text is one line that says which, and what was expected."""


@dataclass(frozen=True, slots=True)
class _Given:
    """One value as it was given: where, in words for the operator, and its text."""

    declaration: Declaration
    where: str
    text: str


def read_settings(argv: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Read the settings from the command line, else the environment, else the file that `config` names.

    Args:
        argv: The command line without the program's name.
        environ: The environment; whatever in it starts with `TAILCAST_` is a setting or a mistake.

    Raises:
        SettingsError: If a name is unknown, a value is none, or two settings contradict each other.
    """
    arguments = dict(_name_and_text(argument) for argument in argv)
    config = arguments.pop("config", None) or environ.get(_PREFIX + "CONFIG")
    given = _from_file(config) if config else {}
    given |= _from_environment(environ)
    given |= {name: _public(_declared(name, f"--{name}"), f"--{name}", text) for name, text in arguments.items()}
    settings = Settings(**{name: _parsed(one) for name, one in given.items()})
    _check_pair("tls_certificate", settings.tls_certificate, "tls_key", settings.tls_key)
    _check_revocations(settings)
    return _with_algorithms(settings)


def help_requested(argv: Sequence[str]) -> bool:
    """Say whether the command line asks for the list of settings instead of a start."""
    return "--help" in argv or "-h" in argv


def help_text() -> str:
    """Return the list of all settings with their defaults, for a terminal."""
    return "\n".join([_INTRODUCTION, *_help_lines()])


def _help_lines() -> Iterator[str]:
    for group, declarations in groupby(DECLARATIONS, key=lambda one: one.group):
        yield f"{group}:"
        for one in declarations:
            yield f"  {one.name} = {one.shown(one.default)}".rstrip()
            yield textwrap.fill(
                f"{one.meaning} Value: {one.kind.expected}.",
                _COLUMNS,
                initial_indent=" " * 8,
                subsequent_indent=" " * 8,
            )
        yield ""


def _name_and_text(argument: str) -> tuple[str, str]:
    """Take `--name=value` apart; a switch may stand alone, and a name be written with hyphens."""
    written, equals, text = argument.partition("=")
    if not written.startswith("--"):
        raise SettingsError(f"{written[:_LONGEST_SHOWN]!r}: expected --name=value; --help lists all names")
    name = written[2:].replace("-", "_")
    if not equals:
        if name != "config" and _declared(name, written).default is False:
            return name, "true"
        raise SettingsError(f"{written}: expected a value, as in {written}=VALUE")
    return name, text


def _from_environment(environ: Mapping[str, str]) -> dict[str, _Given]:
    given: dict[str, _Given] = {}
    for variable in sorted(environ):
        if not variable.startswith(_PREFIX) or variable == _PREFIX + "CONFIG":
            continue
        name, text = variable.removeprefix(_PREFIX).lower(), environ[variable]
        if name not in _BY_NAME and name.removesuffix("_file") in _FILE_NAMES:
            name, text = name.removesuffix("_file"), _content(variable, text)
        if name in given:
            raise SettingsError(f"{given[name].where} and {variable}: expected one of them, not both")
        given[name] = _Given(_declared(name, variable), variable, text)
    return given


def _content(variable: str, file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise SettingsError(f"{variable}: cannot read {file!r}: {reason}") from None


def _from_file(file: str) -> dict[str, _Given]:
    try:
        with Path(file).open("rb") as stream:
            table = tomllib.load(stream)
    except OSError as error:
        raise SettingsError(f"--config: cannot read {file!r}: {error.strerror}") from None
    except ValueError as error:
        raise SettingsError(f"--config: {file!r} is no TOML: {' '.join(str(error).split())}") from None
    given = {}
    for key, value in table.items():
        where = f"{key} in {file}"
        declaration = _declared(key.replace("-", "_"), where)
        given[declaration.name] = _public(declaration, where, _as_text(value, where))
    return given


def _as_text(value: object, where: str) -> str:
    """Write a value of a TOML file as it would stand on the command line."""
    match value:
        case str():
            return value
        case bool():
            return str(value).lower()
        case int() | float():
            return str(value)
        case list():
            return ",".join(_as_text(item, where) for item in value)
    raise SettingsError(f"{where}: expected text, a number, true, false or a list")


def _declared(name: str, where: str) -> Declaration:
    if name in _BY_NAME:
        return _BY_NAME[name]
    alike = difflib.get_close_matches(name, _BY_NAME, n=1)
    advice = f"did you mean {alike[0]}?" if alike else "--help lists all settings"
    raise SettingsError(f"{where if where.isprintable() else repr(where)}: there is no such setting; {advice}")


def _public(declaration: Declaration, where: str, text: str) -> _Given:
    """Refuse a secret that others could read, in the list of processes or in a file that is passed on."""
    if declaration.hide and declaration.hide(text) != text:
        variable = _PREFIX + declaration.name.upper()
        raise SettingsError(
            f"{where}: a secret is taken from the environment only: set {variable}, or {variable}_FILE to the path of a file with it"
        )
    return _Given(declaration, where, text)


def _parsed(given: _Given) -> Any:
    declaration = given.declaration
    try:
        return declaration.kind.parse(given.text)
    except kinds.UnfitError as error:
        raise SettingsError(f"{given.where}: {error}") from None
    except ValueError:
        shown = declaration.hide(given.text) if declaration.hide else given.text
        raise SettingsError(f"{given.where}: expected {declaration.kind.expected}, not {shown[:_LONGEST_SHOWN]!r}") from None


def _check_pair(first: str, first_value: object, second: str, second_value: object) -> None:
    """Refuse one of two settings that make sense only together."""
    if bool(first_value) != bool(second_value):
        missing, given = (first, second) if second_value else (second, first)
        raise SettingsError(f"{missing}: needed, since {given} is given")


def _check_revocations(settings: Settings) -> None:
    """Refuse to forget a revocation while a credential that it concerns could still be shown."""
    for name in ("session_seconds", "resume_seconds", "ticket_seconds"):
        longest = getattr(settings, name)
        if settings.revocation_seconds < longest:
            raise SettingsError(
                f"revocation_seconds: expected {longest:g} or more, since {name} is that long: what is revoked would hold again"
            )


def _with_algorithms(settings: Settings) -> Settings:
    """Fill in the algorithms that the keys are for, or check that those given and the keys fit together."""
    own: tuple[str, ...] = ("HS256",) if settings.jwt_secret else ()
    if settings.jwt_public_key:
        own += tuple(name for name, _ in kinds.algorithms_and_keys(settings.jwt_public_key))
    usable = tuple(dict.fromkeys(own + (_PUBLISHED if settings.jwks_url else ())))
    allowed = settings.jwt_algorithms or usable
    for name in allowed:
        if name not in usable:
            raise SettingsError(f"jwt_algorithms: {name} is allowed, but none of jwt_secret, jwt_public_key and jwks_url is for it")
    for name in own:
        if name not in allowed:
            raise SettingsError(f"jwt_algorithms: {name} is not allowed, but there is a key for it, which would go unused")
    if settings.jwks_url and not set(_PUBLISHED) & set(allowed):
        raise SettingsError("jwt_algorithms: no algorithm is allowed that the keys of jwks_url could be for")
    return dataclasses.replace(settings, jwt_algorithms=allowed)
