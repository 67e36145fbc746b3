"""An issuer of tokens: its keys, its tokens, and a real HTTPS endpoint that publishes the keys or fails to; and one who checks tokens."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import json
import ssl
import time
from collections.abc import AsyncIterator, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from handlers.credentials import TokenVerifier
from handlers.jwks import PublishedKeys
from handlers.keys import KeyRing, own_key
from hub.errors import NotReady, Unauthenticated
from hub.principal import Principal
from tests.handlers.assembly import SECRET

ALL_ALGORITHMS = ("HS256", "RS256", "ES256", "EdDSA")
NEW_KEY: dict[str, Any] = {
    "RS256": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}


def jwk_of(private_key: Any, algorithm: str, **members: Any) -> dict[str, Any]:
    """Return the public half of a key as a JWK, with further members; one that is None is left out."""
    jwk = jwt.get_algorithm_by_name(algorithm).to_jwk(private_key.public_key(), as_dict=True)
    return {name: value for name, value in {**jwk, **members}.items() if value is not None}


def key_set(*jwks: Any) -> bytes:
    """Return a JWKS."""
    return json.dumps({"keys": jwks}).encode()


def signed(private_key: Any, algorithm: str, name: str | None, **claims: Any) -> str:
    """Return a token that holds for some minutes, with a kid unless that is None."""
    every = {"sub": "u1", "exp": int(time.time()) + 600, **claims}
    return jwt.encode(every, private_key, algorithm=algorithm, headers={"kid": name} if name is not None else None)


class Issuer:
    """One issuer, used as a context: its endpoint listens while it is entered.

    Attributes:
        answer: What the endpoint sends, head and all; `publish` sets it.
        gate: Answers are held back while this is not set.
        requests: How many times it was asked.
    """

    def __init__(self, directory: Path) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.requests = 0
        self.answer = b""
        self.port = 0
        self.certificate = directory / "certificate.pem"  # its own, which signs itself
        self._keys: dict[str, Any] = {}
        self._key_file = directory / "key.pem"
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Issuer:
        certificate, key = _certificate()
        self.certificate.write_bytes(certificate)
        self._key_file.write_bytes(key)
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.go_away()

    @property
    def url(self) -> str:
        """Where the keys are."""
        return f"https://127.0.0.1:{self.port}/keys"

    def trusting(self) -> ssl.SSLContext:
        """Return what a client that trusts this endpoint needs."""
        return ssl.create_default_context(cafile=str(self.certificate))

    async def listen(self) -> None:
        """Be there, on the same port as before."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self._key_file)
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]

    async def go_away(self) -> None:
        """Accept nothing more, and leave whoever waits for an answer without one."""
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    def publish(self, *names: str, algorithm: str = "ES256", pretty: bool = False) -> None:
        """Publish the keys of these names, made when they are first named, and no others; or the same in other words."""
        for name in names:
            self._keys.setdefault(name, NEW_KEY[algorithm]())
        jwks = [jwk_of(self._keys[name], algorithm, kid=name, use=None if pretty else "sig") for name in names]
        self.say(key_set(*jwks))

    def say(self, body: bytes, status: str = "200 OK", headers: Iterable[str] = ()) -> None:
        """Answer every request so from now on."""
        head = [f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers]
        self.answer = "\r\n".join([*head, "", ""]).encode() + body

    def token(self, name: str, algorithm: str = "ES256", **claims: Any) -> str:
        """Return a token signed with the key of this name."""
        return signed(self._keys.setdefault(name, NEW_KEY[algorithm]()), algorithm, name, **claims)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await reader.readuntil(b"\r\n\r\n")
            self.requests += 1
            await self.gate.wait()
            writer.write(self.answer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # whoever asked did not wait, or we go away: asyncio takes a cancelled task of a server for a defect
        finally:
            self._connections.discard(task)
            writer.close()


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Checker:
    """A verifier with the issuer's keys, and the task that fetches them.

    Args:
        issuer: Whose keys.
        options: Of `PublishedKeys`, where they are not the test's own.
    """

    def __init__(self, issuer: Issuer, **options: Any) -> None:
        self.clock = Clock()
        self.ring = KeyRing([own_key("HS256", SECRET)])
        given = {"seconds": 3600.0, "monotonic": self.clock, "ssl_context": issuer.trusting(), **options}
        self.published = PublishedKeys(issuer.url, self.ring, ALL_ALGORITHMS, **given)
        self.verifier = TokenVerifier(
            self.ring, algorithms=ALL_ALGORITHMS, published=self.published, issuer="", audience="", leeway_seconds=5.0, time=time.time
        )

    def start(self) -> None:
        """Fetch from now on."""
        self._task = asyncio.create_task(self.published.run(), name="published keys")

    async def stop(self) -> None:
        """Fetch no more."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def authenticate(self, token: str) -> Principal:
        """Check a token, and fetch keys if it needs some."""
        return await self.verifier.authenticate(token)

    async def refusal(self, token: str) -> str:
        """Return why a token is refused."""
        with pytest.raises(Unauthenticated) as caught:
            await self.authenticate(token)
        return str(caught.value)

    async def unavailable(self, token: str) -> int | None:
        """Return after how many seconds to try again with a token that nobody can judge yet."""
        with pytest.raises(NotReady) as caught:
            await self.authenticate(token)
        return caught.value.retry_after


@contextlib.asynccontextmanager
async def checking(issuer: Issuer, **options: Any) -> AsyncIterator[Checker]:
    """A checker that fetches."""
    checker = Checker(issuer, **options)
    checker.start()
    try:
        yield checker
    finally:
        await checker.stop()


@cache
def _certificate() -> tuple[bytes, bytes]:
    """Return a certificate for 127.0.0.1 and its private key, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an issuer of tests")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(serialization.Encoding.PEM), private
