"""Tests of settings/kinds.py."""

from __future__ import annotations

import ipaddress
import math
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from settings import kinds
from settings.kinds import UNLIMITED, Kind, UnfitError


def pem_of(private_key: Any) -> str:
    """Return the public half of a key in PEM."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    pem: bytes = private_key.public_key().public_bytes(serialization.Encoding.PEM, form)
    return pem.decode()


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (kinds.whole(0, 10), "0", 0),
        (kinds.whole(0, 10), "10", 10),
        (kinds.whole(-3, 10), "-3", -3),
        (kinds.size(0, 2**50), "1", 1),
        (kinds.size(0, 2**50), "64KiB", 65_536),
        (kinds.size(0, 2**50), "3MiB", 3 * 1024**2),
        (kinds.size(0, 2**50), "1TiB", 1024**4),
        (kinds.seconds(0, 60), "0", 0.0),
        (kinds.seconds(0, 60), "0.25", 0.25),
        (kinds.limit(kinds.whole(1, 5)), "0", UNLIMITED),
        (kinds.limit(kinds.whole(1, 5)), "5", 5),
        (kinds.limit(kinds.size(1, 4096), off=4096), "0", 4096),
        (kinds.deadline(60), "0", math.inf),
        (kinds.deadline(60), "60", 60.0),
        (kinds.switch(), "Yes", True),
        (kinds.switch(), "off", False),
        (kinds.choice("INFO", "auto"), "info", "INFO"),
        (kinds.choice("INFO", "auto"), "AUTO", "auto"),
        (kinds.text("letters", "[a-z]*"), "", ""),
        (kinds.path(), "a/b", Path("a/b")),
        (kinds.pem_file(), "a/b.pem", Path("a/b.pem")),
        (kinds.pem_file(), "", None),
        (kinds.several(kinds.whole(0, 9), "digits"), "", ()),
        (kinds.several(kinds.whole(0, 9), "digits"), "3, 1,3", (3, 1)),
        (kinds.several(kinds.origin(), "origins", alone="*"), "*", ("*",)),
        (kinds.origin(), "https://App.Example.com", "https://app.example.com"),
        (kinds.origin(), "https://a.example:443", "https://a.example"),
        (kinds.origin(), "http://a.example:80", "http://a.example"),
        (kinds.origin(), "http://a.example:8080", "http://a.example:8080"),
        (kinds.origin(), "http://[::1]:3000", "http://[::1]:3000"),
        (kinds.network(), "10.0.0.0/8", ipaddress.ip_network("10.0.0.0/8")),
        (kinds.network(), "::1", ipaddress.ip_network("::1/128")),
        (kinds.secret(shortest_bytes=4), "", ""),
        (kinds.secret(shortest_bytes=4), "éé", "éé"),
        (kinds.key_set_url(), "", ""),
        (kinds.key_set_url(), "https://i.example/keys?v=1", "https://i.example/keys?v=1"),
        (kinds.key_set_url(), "http://127.0.0.1:8000/jwks", "http://127.0.0.1:8000/jwks"),
        (kinds.key_set_url(), "http://[::1]/jwks", "http://[::1]/jwks"),
        (kinds.key_set_url(), "http://localhost/jwks", "http://localhost/jwks"),
        (kinds.public_keys(), "", ""),
    ],
)
def test_text_is_understood(kind: Kind, text: str, value: object) -> None:
    """A text of the kind becomes its value, and the value is of the kind again when it is written."""
    assert kind.parse(text) == value
    assert kind.parse(kind.show(kind.parse(text))) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (kinds.whole(0, 10), "11"),
        (kinds.whole(0, 10), "-1"),
        (kinds.whole(0, 10), ""),
        (kinds.whole(0, 10), " 1"),
        (kinds.whole(0, 10_000), "1_000"),
        (kinds.whole(0, 10), "١"),  # noqa: RUF001  # an Arabic digit, which `int` takes
        (kinds.whole(0, 10), "9" * 5000),
        (kinds.size(0, 2**50), "64KB"),
        (kinds.size(0, 2**50), "KiB"),
        (kinds.size(0, 2**50), "-1KiB"),
        (kinds.size(0, 1024), "2KiB"),
        (kinds.seconds(0, 60), "nan"),
        (kinds.seconds(0, 60), "inf"),
        (kinds.seconds(0, 60), "61"),
        (kinds.seconds(0, 60), "1e1"),
        (kinds.limit(kinds.whole(1, 5)), "6"),
        (kinds.deadline(60), "0.001"),
        (kinds.switch(), "maybe"),
        (kinds.choice("INFO", "auto"), "loud"),
        (kinds.text("letters", "[a-z]*"), "a\n"),
        (kinds.path(), ""),
        (kinds.path(), "a\0b"),
        (kinds.pem_file(), "a\0b"),
        (kinds.pem_file(), "-----BEGIN PRIVATE KEY-----"),
        (kinds.several(kinds.whole(0, 9), "digits"), "1,,2"),
        (kinds.several(kinds.origin(), "origins", alone="*"), "*,https://a.example"),
        (kinds.origin(), "https://a.example/"),
        (kinds.origin(), "a.example"),
        (kinds.origin(), "null"),
        (kinds.network(), "10.0.0.1/8"),
        (kinds.network(), "proxy.local"),
        (kinds.secret(shortest_bytes=4), "abc"),
        (kinds.secret(shortest_bytes=4), "abc\ndef"),
        (kinds.key_set_url(), "http://issuer.example/jwks"),
        (kinds.key_set_url(), "http://10.0.0.1/jwks"),
        (kinds.key_set_url(), "http://127.0.0.1.example/jwks"),
        (kinds.key_set_url(), "issuer.example"),
        (kinds.key_set_url(), "file:///etc/keys"),
        (kinds.key_set_url(), "https://me:pw@issuer.example/jwks"),
        (kinds.key_set_url(), "https://issuer.example/jwks#k"),
        (kinds.key_set_url(), "https://issuer.example/a b"),
        (kinds.key_set_url(), "https://issuer.example:99999/"),
        (kinds.key_set_url(), "https://issuer.example:0/"),
        (kinds.key_set_url(), "https://[::1/"),
        (kinds.key_set_url(), "https:///jwks"),
        (kinds.public_keys(), "/no/such/file"),
        (kinds.public_keys(), "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"),
        (kinds.public_keys(), "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"),
    ],
)
def test_other_text_is_refused(kind: Kind, text: str) -> None:
    """A text that is not of the kind raises ValueError, whatever it is."""
    with pytest.raises(ValueError):  # noqa: PT011  # the kind's `expected` is the message
        kind.parse(text)


def test_a_refused_secret_is_not_shown() -> None:
    """The refusal of a short secret tells its length and not the secret."""
    with pytest.raises(UnfitError, match=r"expected a secret of 32 bytes or more, not of 7") as caught:
        kinds.secret(shortest_bytes=32).parse("hunter2")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("private_key", "algorithm"),
    [
        (rsa.generate_private_key(65_537, 2048), "RS256"),
        (ec.generate_private_key(ec.SECP256R1()), "ES256"),
        (ed25519.Ed25519PrivateKey.generate(), "EdDSA"),
    ],
    ids=["rsa", "ec", "ed25519"],
)
def test_public_key_is_taken_as_text_or_file(private_key: Any, algorithm: str, tmp_path: Path) -> None:
    """A public key in PEM is given as text, as text on one line, or as a file, and is for one algorithm."""
    pem = pem_of(private_key)
    file = tmp_path / "key.pem"
    file.write_text(pem)
    assert kinds.algorithm_of(pem) == algorithm
    for given in (pem, pem.replace("\n", "\\n"), str(file)):
        assert kinds.public_keys().parse(given) == pem


@pytest.mark.parametrize(
    "private_key",
    [rsa.generate_private_key(65_537, 1024), ec.generate_private_key(ec.SECP384R1())],
    ids=["rsa of 1024 bits", "another curve"],
)
def test_public_key_that_no_algorithm_uses_is_refused(private_key: Any) -> None:
    """A short RSA key and a key on another curve are refused with what is expected."""
    with pytest.raises(UnfitError, match="expected an RSA key of at least 2048 bits, a P-256 key or an Ed25519 key"):
        kinds.public_keys().parse(pem_of(private_key))


def test_several_public_keys_are_taken_together() -> None:
    """A PEM file may hold several keys, of one kind or of several, so that one can take the place of another."""
    pems = [pem_of(ec.generate_private_key(ec.SECP256R1())), pem_of(ed25519.Ed25519PrivateKey.generate()), pem_of(rsa_key())]
    text = "# of old\n" + pems[0] + "\n# of new\n".join(pems[1:])
    assert kinds.public_keys().parse(text) == text
    assert kinds.algorithms_and_keys(text) == [("ES256", pems[0].strip()), ("EdDSA", pems[1].strip()), ("RS256", pems[2].strip())]


def rsa_key() -> rsa.RSAPrivateKey:
    """Return a key of the least size."""
    return rsa.generate_private_key(65_537, 2048)


def test_public_keys_are_all_good_or_none_is() -> None:
    """One that is cut off, a private one among them, or more than can be tried, and the whole text is refused."""
    good = pem_of(ec.generate_private_key(ec.SECP256R1()))
    private = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
    for text, reason in (
        (good + good[:60], "the end of one is missing"),
        (good + private, "this is a private key"),
        (good * (kinds.MAX_PUBLIC_KEYS + 1), "expected at most 8 public keys, not 9"),
    ):
        with pytest.raises(UnfitError, match=reason):
            kinds.public_keys().parse(text)


def test_public_key_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """A key file in another form than PEM is refused by the name of the file."""
    file = tmp_path / "key.der"
    file.write_bytes(b"\xff\x00")
    with pytest.raises(UnfitError, match=r"cannot read '.*key\.der': it is no text"):
        kinds.public_keys().parse(str(file))


def test_sizes_are_shown_in_their_largest_unit() -> None:
    """A size is written in the largest unit of which it is a multiple."""
    size = kinds.size(0, 2**50)
    assert [size.show(value) for value in (0, 1000, 1024, 1536, 65_536, 1024**3)] == [
        "0",
        "1000",
        "1KiB",
        "1536",
        "64KiB",
        "1GiB",
    ]
