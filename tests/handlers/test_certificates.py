"""Tests of handlers/certificates.py: which files make a context, and what is said of those that do not."""

from __future__ import annotations

import ssl
import time
from pathlib import Path

import pytest

from handlers import certificates
from handlers.certificates import CertificateError, make_context
from tests.certificates import Certificate, make_certificate


@pytest.fixture
def good(tmp_path: Path) -> Certificate:
    """A certificate that can be used."""
    return make_certificate(tmp_path)


def refusal(certificate: Path, key: Path) -> str:
    """Return what is said of files that cannot be used: one line."""
    with pytest.raises(CertificateError) as caught:
        make_context(certificate, key, time.time())
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_context_speaks_tls_1_2_or_newer(good: Certificate) -> None:
    """It takes no older protocol, does not negotiate again, and asks clients for no certificate."""
    context = make_context(good.certificate, good.key, time.time())
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.verify_mode == ssl.CERT_NONE


def test_certificates_behind_the_first_are_sent_along(good: Certificate, tmp_path: Path) -> None:
    """The first one is the server's, which the key must fit; those behind it lead to the authority."""
    other = make_certificate(tmp_path, "authority", days=-1)
    with good.certificate.open("ab") as file:
        file.write(other.certificate.read_bytes())
    make_context(good.certificate, good.key, time.time())


@pytest.mark.parametrize("setting", ["tls_certificate", "tls_key"])
@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "cannot read"), (b"", "in PEM format"), (b"\xff garbage", "in PEM format"), (b"a directory", "Is a directory")],
)
def test_a_file_that_holds_none_is_named(good: Certificate, setting: str, content: bytes | None, said: str) -> None:
    """Missing, empty, something else, or no file at all: the setting, the path, and what was expected."""
    file = good.settings[setting]
    file.unlink()
    if content == b"a directory":
        file.mkdir()
    elif content is not None:
        file.write_bytes(content)
    text = refusal(good.certificate, good.key)
    assert text.startswith(f"{setting}: ")
    assert str(file) in text
    assert said in text


def test_a_key_and_a_certificate_in_each_others_place(good: Certificate) -> None:
    """Each is looked for in its own file."""
    assert refusal(good.key, good.certificate).startswith("tls_certificate: expected a certificate")
    assert refusal(good.certificate, good.certificate).startswith("tls_key: expected a private key")


def test_a_key_of_another_certificate_is_named(good: Certificate, tmp_path: Path) -> None:
    """Half of a renewal, such as a new certificate with the old key."""
    other = make_certificate(tmp_path, "other")
    assert "is not the key of the certificate" in refusal(good.certificate, other.key)


def test_a_key_with_a_passphrase_is_refused(tmp_path: Path) -> None:
    """A server that starts by itself cannot be asked for it."""
    made = make_certificate(tmp_path, passphrase=b"a passphrase")
    assert "has a passphrase" in refusal(made.certificate, made.key)


@pytest.mark.parametrize(("days", "age_days", "said"), [(-1, 2, "has expired"), (30, -1, "holds from")])
def test_a_certificate_that_does_not_hold_now_is_refused(tmp_path: Path, days: int, age_days: int, said: str) -> None:
    """Expired, or not valid yet: no client would accept it."""
    made = make_certificate(tmp_path, days=days, age_days=age_days)
    assert said in refusal(made.certificate, made.key)


def test_what_openssl_refuses_is_said(good: Certificate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenSSL reads the files once more, and may find others there by then."""
    other = make_certificate(tmp_path, "other")
    read_key = certificates._read_key

    def replaced(file: Path) -> object:
        found = read_key(file)
        file.write_bytes(other.key.read_bytes())
        return found

    monkeypatch.setattr(certificates, "_read_key", replaced)
    assert "cannot be used" in refusal(good.certificate, good.key)
