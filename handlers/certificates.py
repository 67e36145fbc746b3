"""The server's certificate and key: read from files, checked, and made into a TLS context; knows no sockets.

CertificateError    a file that cannot be used; its text is one line that begins with the name of the setting
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from handlers.tls import TlsSocket

CERTIFICATE, KEY = "tls_certificate", "tls_key"  # the settings, as errors name them


class CertificateError(Exception):
    """A certificate or key that cannot be used; the text is one line that says which, and why."""


def make_context(certificate: Path, key: Path, now: float) -> ssl.SSLContext:
    """Return what new connections are encrypted with: TLS 1.2 or newer, and the defaults of Python and OpenSSL.

    Args:
        certificate: A PEM file with the server's certificate, and behind it those that lead to its authority.
        key: A PEM file with the certificate's private key, without a passphrase.
        now: Seconds since 1970.

    Raises:
        CertificateError: If a file cannot be read or understood, the two do not belong together, or the certificate does not hold now.
    """
    leaf = _read_certificate(certificate, now)
    if _public_bytes(_read_key(key)) != leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo):
        raise CertificateError(f"{KEY}: {str(key)!r} is not the key of the certificate in {str(certificate)!r}")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    context.sslsocket_class = TlsSocket
    try:
        context.load_cert_chain(certificate, key, password="")  # never ask for one on the terminal
    except (OSError, ValueError) as error:  # the files have just changed, or OpenSSL finds the key too weak
        raise CertificateError(f"{CERTIFICATE}: {str(certificate)!r} cannot be used: {error}") from None
    return context


def _read_certificate(file: Path, now: float) -> x509.Certificate:
    try:
        leaf = x509.load_pem_x509_certificates(_content(CERTIFICATE, file))[0]
        leaf.public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateError(
            f"{CERTIFICATE}: expected a certificate in PEM format in {str(file)!r} (-----BEGIN CERTIFICATE-----)"
        ) from None
    moment = datetime.fromtimestamp(now, UTC)
    if moment > leaf.not_valid_after_utc:
        raise CertificateError(
            f"{CERTIFICATE}: the certificate in {str(file)!r} has expired, on {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
        )
    if moment < leaf.not_valid_before_utc:
        raise CertificateError(
            f"{CERTIFICATE}: the certificate in {str(file)!r} holds from {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC only"
        )
    return leaf


def _read_key(file: Path) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(_content(KEY, file), password=None)
    except TypeError:
        raise CertificateError(f"{KEY}: the key in {str(file)!r} has a passphrase; expected one without") from None
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateError(f"{KEY}: expected a private key in PEM format in {str(file)!r}") from None


def _public_bytes(key: PrivateKeyTypes) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _content(setting: str, file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise CertificateError(f"{setting}: cannot read {str(file)!r}: {error.strerror}") from None
