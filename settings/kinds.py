"""The kinds of values settings have: how each is read from text and written again; knows no setting."""

from __future__ import annotations

import ipaddress
import math
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

# The value of a limit that is switched off: whoever compares with it needs no special case.
UNLIMITED = sys.maxsize

KIB, MIB, GIB, TIB = 1024, 1024**2, 1024**3, 1024**4
MAX_PUBLIC_KEYS = 8  # each may have to be tried for a token
_UNITS = {"TiB": TIB, "GiB": GIB, "MiB": MIB, "KiB": KIB, "": 1}
_TRUTHS = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


class UnfitError(ValueError):
    """A value that is none, with a sentence that says more than what its kind expects."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of value.

    Attributes:
        expected: What a value must be, as the end of "expected ...".
        parse: Makes the value of a text; raises `ValueError` if it is none, or `UnfitError` with the reason.
        show: Writes a value as an operator would.
    """

    expected: str
    parse: Callable[[str], Any]
    show: Callable[[Any], str] = str


def text(expected: str, pattern: str) -> Kind:
    """Text that matches a pattern as a whole."""

    def parse(given: str) -> str:
        if not re.fullmatch(pattern, given):
            raise ValueError
        return given

    return Kind(expected, parse)


def secret(shortest_bytes: int) -> Kind:
    """A secret of one line, or none; refusals tell its length, but never show it."""

    def parse(given: str) -> str:
        length = len(given.encode())
        if 0 < length < shortest_bytes:
            raise UnfitError(f"expected a secret of {shortest_bytes} bytes or more, not of {length}")
        if not given.isprintable():
            raise UnfitError("expected a secret of one line, without control characters")
        return given

    return Kind(f"{shortest_bytes} bytes or more", parse)


def choice(*names: str) -> Kind:
    """One of some names, in any case."""
    by_lower_case = {name.lower(): name for name in names}

    def parse(given: str) -> str:
        name: str = _looked_up(by_lower_case, given)
        return name

    return Kind("one of " + ", ".join(names), parse)


def key_set_url() -> Kind:
    """A URL that nobody on the way can change the answer of: https, or http to this machine itself."""
    expected = "an https URL (http only to a loopback address)"

    def parse(given: str) -> str:
        if given and not _is_key_set_url(given):
            raise UnfitError(f"expected {expected}, without a password or fragment")
        return given

    return Kind(expected, parse)


def _is_key_set_url(given: str) -> bool:
    if not re.fullmatch(r"https?://[!-~]+", given):
        return False
    parts = urlsplit(given)  # raises ValueError for an address in brackets that is none, and `port` for one out of range
    if not parts.hostname or parts.username is not None or parts.fragment or parts.port == 0:
        return False
    return parts.scheme == "https" or _is_loopback(parts.hostname)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def switch() -> Kind:
    """True or false, also written yes, no, on, off, 1 and 0."""
    return Kind("true or false", lambda given: _looked_up(_TRUTHS, given), lambda value: str(value).lower())


def path() -> Kind:
    """The path of a file or directory that need not exist yet."""

    def parse(given: str) -> Path:
        if not given or "\0" in given:
            raise ValueError
        return Path(given)

    return Kind("a path", parse)


def pem_file() -> Kind:
    """The path of a PEM file, or none; what is in such a file is refused without showing it."""

    def parse(given: str) -> Path | None:
        if "-----BEGIN" in given:
            raise UnfitError("expected the path of a PEM file, not what is in one")
        if "\0" in given:
            raise ValueError
        return Path(given) if given else None

    return Kind("the path of a PEM file", parse, lambda value: str(value or ""))


def whole(lowest: int, highest: int) -> Kind:
    """A whole number within bounds."""
    return Kind(f"a whole number from {lowest} to {highest}", lambda given: _between(lowest, _whole(given), highest))


def size(lowest: int, highest: int) -> Kind:
    """A number of bytes within bounds, also with KiB, MiB, GiB or TiB."""
    expected = f"bytes (also as KiB, MiB, GiB, TiB) from {_shown_size(lowest)} to {_shown_size(highest)}"
    return Kind(expected, lambda given: _between(lowest, _size(given), highest), _shown_size)


def seconds(lowest: float, highest: float) -> Kind:
    """A time in seconds within bounds, fractions allowed."""
    expected = f"seconds from {lowest:.15g} to {highest:.15g}"
    return Kind(expected, lambda given: _between(lowest, _seconds(given), highest), lambda value: f"{value:.15g}")


def limit(kind: Kind, off: float = UNLIMITED) -> Kind:
    """A kind of number that limits something, in which 0 switches the limit off.

    Args:
        kind: What the number is if it is not 0.
        off: The value that 0 stands for; nothing that is compared with it can be larger.
    """

    def parse(given: str) -> Any:
        return off if given == "0" else kind.parse(given)

    return Kind(f"{kind.expected}, or 0 for no limit", parse, lambda value: "0" if value == off else kind.show(value))


def deadline(highest: float) -> Kind:
    """A time in seconds after which something ends, in which 0 means never."""
    kind = limit(seconds(0.01, highest), off=math.inf)
    return Kind(f"seconds from 0.01 to {highest:.15g}, or 0 for never", kind.parse, kind.show)


def several(one: Kind, expected: str, alone: str | None = None) -> Kind:
    """A list with commas between its items, perhaps empty, each once.

    Args:
        one: The kind of an item.
        expected: What the list must be.
        alone: An item that leaves no room for others.
    """

    def parse(given: str) -> tuple[Any, ...]:
        items = [item.strip() for item in given.split(",")] if given.strip() else []
        if alone in items:
            if len(items) > 1:
                raise UnfitError(f"{alone!r} allows all, and so must stand alone")
            return (alone,)
        return tuple(dict.fromkeys(one.parse(item) for item in items))

    return Kind(expected, parse, _shown_list)


def origin() -> Kind:
    """A web origin as browsers write it: scheme, host and a port that is not the scheme's own."""

    def parse(given: str) -> str:
        lower = given.lower()
        if not re.fullmatch(r"[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:\d{1,5})?", lower):
            raise UnfitError(f"expected an origin such as https://app.example.com, without a path, not {given!r}")
        return re.sub(r"^(http://.*):80$|^(https://.*):443$", r"\1\2", lower)

    return Kind("an origin", parse)


def network() -> Kind:
    """An IP address, or a network of them in CIDR notation."""

    def parse(given: str) -> IPv4Network | IPv6Network:
        try:
            return ipaddress.ip_network(given)
        except ValueError as error:
            raise UnfitError(f"expected an address or network: {error}") from None

    return Kind("an address or network", parse, lambda value: str(value))


def public_keys() -> Kind:
    """Public keys, as the text of a PEM file or the path of one; the value is the text, empty for none."""

    def parse(given: str) -> str:
        pem = given.replace("\\n", "\n") if "-----BEGIN" in given else _content(given)
        if pem:
            algorithms_and_keys(pem)
        return pem

    return Kind("the path of a PEM file with public keys, or its text", parse)


def algorithms_and_keys(pem: str) -> list[tuple[str, str]]:
    """Return each public key of a PEM file with the one JWT algorithm that it is for.

    Raises:
        UnfitError: If one is no public key or of a kind that no allowed algorithm uses, or there are none, or too many.
    """
    keys = re.findall(r"-----BEGIN [A-Z ]+-----.*?-----END [A-Z ]+-----", pem, re.S) or [pem]
    if len(keys) < pem.count("-----BEGIN"):
        raise UnfitError("expected whole public keys in PEM format; the end of one is missing")
    if len(keys) > MAX_PUBLIC_KEYS:
        raise UnfitError(f"expected at most {MAX_PUBLIC_KEYS} public keys, not {len(keys)}")
    return [(algorithm_of(key), key) for key in keys]


def algorithm_of(pem: str) -> str:
    """Return the one JWT algorithm that a public key is for.

    Raises:
        UnfitError: If it is no public key, or of a kind that no allowed algorithm uses.
    """
    if "PRIVATE KEY" in pem:
        raise UnfitError("this is a private key, which belongs to who issues tokens; expected the public key")
    try:
        key = load_pem_public_key(pem.encode())
    except ValueError:
        raise UnfitError("expected a public key in PEM format (-----BEGIN PUBLIC KEY-----)") from None
    match key:
        case rsa.RSAPublicKey() if key.key_size >= 2048:  # RFC 7518 3.3
            return "RS256"
        case ec.EllipticCurvePublicKey() if key.curve.name == "secp256r1":
            return "ES256"
        case ed25519.Ed25519PublicKey():
            return "EdDSA"
    raise UnfitError("expected an RSA key of at least 2048 bits, a P-256 key or an Ed25519 key")


def _content(file: str) -> str:
    try:
        return Path(file).read_text(encoding="ascii") if file else ""
    except (OSError, ValueError) as error:
        raise UnfitError(f"cannot read {file!r}: {getattr(error, 'strerror', None) or 'it is no text'}") from None


def _looked_up(values: dict[str, Any], given: str) -> Any:
    if given.lower() not in values:
        raise ValueError
    return values[given.lower()]


def _between(lowest: float, value: float, highest: float) -> float:
    if not lowest <= value <= highest:
        raise ValueError
    return value


def _whole(given: str) -> int:
    # Not `int` alone, which also takes " 1_0 " and the digits of other scripts.
    if not re.fullmatch(r"-?[0-9]{1,18}", given):
        raise ValueError
    return int(given)


def _size(given: str) -> int:
    parts = re.fullmatch(r"([0-9]+)([KMGT]iB)?", given)
    if not parts:
        raise ValueError
    number, unit = parts.groups("")
    return _whole(number) * _UNITS[unit]


def _seconds(given: str) -> float:
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", given):
        raise ValueError
    return float(given)


def _shown_size(value: int) -> str:
    for name, unit in _UNITS.items():
        if value and value % unit == 0:
            return f"{value // unit}{name}"
    return str(value)


def _shown_list(values: Iterable[Any]) -> str:
    return ",".join(str(value) for value in values)
