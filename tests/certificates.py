"""Certificates made for a test, signed by their own key, contexts of clients that trust them, and how a handshake begins."""

from __future__ import annotations

import contextlib
import ipaddress
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Certificate:
    """A certificate for 127.0.0.1 and localhost, and its key, in PEM files."""

    certificate: Path
    key: Path
    serial_number: int

    @property
    def settings(self) -> dict[str, Path]:
        """The settings of a server that uses it."""
        return {"tls_certificate": self.certificate, "tls_key": self.key}

    @property
    def arguments(self) -> tuple[str, ...]:
        """The same on a command line."""
        return tuple(f"--{name}={path}" for name, path in self.settings.items())

    def client(self) -> ssl.SSLContext:
        """Return the context of a client that trusts this certificate and no other."""
        return ssl.create_default_context(cafile=self.certificate)


def make_certificate(directory: Path, name: str = "server", *, days: int = 30, age_days: int = 1, passphrase: bytes = b"") -> Certificate:
    """Make a certificate and its key, and return where they are; files of that name are written over.

    Args:
        directory: Where the files go.
        name: Of the files.
        days: How long it holds from now; negative: it has expired.
        age_days: For how long it has held already; negative: it does not hold yet.
        passphrase: Of the key; empty: none.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=age_days))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(key, hashes.SHA256())
    )
    encryption: KeySerializationEncryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    files = Certificate(directory / f"{name}.pem", directory / f"{name}.key", made.serial_number)
    files.certificate.write_bytes(made.public_bytes(Encoding.PEM))
    files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    return files


def client_hello() -> bytes:
    """Return the first message of a client's handshake."""
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing := ssl.MemoryBIO(), server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()
