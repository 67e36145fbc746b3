"""Resume tokens: a connection's principal, subscriptions and position, sealed, so that it can be opened again as it was. Knows no request.

A token is AES-256-GCM over its content (NIST SP 800-38D): what was altered, or sealed elsewhere, does not open. Its random nonces allow for
2^32 tokens under one key, which all server processes share; at a thousand connections a second that is fifty days, and a new key ends all
tokens, none of which lives longer than its setting says.
"""

from __future__ import annotations

import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from handlers.credentials import claims_of, principal_of
from hub.connection import Connection
from hub.errors import TokenExpired, Unauthenticated
from hub.principal import ANONYMOUS, Principal
from hub.subscriptions import Subscription
from hub.terms import PLAIN

KEY_BYTES = 32
NONCE_BYTES = 12
MAX_LENGTH = 4096  # of a token, which must fit into a URL; a connection that would need a longer one gets none
PURPOSE = b"tailcast resume token 1"


class Resumption(NamedTuple):
    """What a resume token opens: for whom, what it had subscribed to, the id of the place where it stood, and on which channel."""

    principal: Principal
    subscriptions: frozenset[Subscription]
    position: str
    channel: str


class _Content(msgspec.Struct, array_like=True, frozen=True):
    claims: dict[str, Any]
    subscriptions: frozenset[Subscription]
    position: str
    until: float
    channel: str = PLAIN.channel


class Sealer:
    """Makes and opens resume tokens.

    Args:
        key: 32 bytes, the same in all server processes.
        seconds: How long a token is good; never longer than the credential of its connection.
        time: Returns seconds since 1970.
        make_nonce: Returns that many random bytes.
    """

    def __init__(self, key: bytes, *, seconds: float, time: Callable[[], float], make_nonce: Callable[[int], bytes] = os.urandom) -> None:
        self._cipher = AESGCM(key)
        self._seconds = seconds
        self._time = time
        self._make_nonce = make_nonce
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(_Content).decode

    def seal(self, connection: Connection, position: str) -> str | None:
        """Return a token that opens a connection again as it is now, from `position` on; None if it would be too long."""
        principal = connection.principal
        until = self._time() + self._seconds
        if principal.expires_at is not None:
            until = min(until, principal.expires_at)
        claims = {} if principal.is_anonymous else claims_of(principal)
        content = _Content(claims, connection.subscriptions(), position, until, connection.terms.channel)
        nonce = self._make_nonce(NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, self._encode(content), PURPOSE)
        token = _text_of(nonce + sealed)
        return token if len(token) <= MAX_LENGTH else None

    def open(self, token: str) -> Resumption:
        """Return what a token opens.

        Raises:
            TokenExpired: If its time is over.
            Unauthenticated: If it was not made here, or was altered.
        """
        content = self._content(token)
        if self._time() >= content.until:
            raise TokenExpired("the resume token has expired")
        principal = principal_of(content.claims, ours=True) if content.claims else ANONYMOUS
        return Resumption(principal, content.subscriptions, content.position, content.channel)

    def _content(self, token: str) -> _Content:
        try:
            raw = urlsafe_b64decode(token[:MAX_LENGTH] + "=" * (-len(token) % 4))
            if _text_of(raw) != token:  # decoding overlooks what is not base64, and the spare bits of the last character
                raise ValueError("not as it was written")
            return self._decode(self._cipher.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], PURPOSE))
        except (InvalidTag, Base64Error, ValueError, msgspec.MsgspecError):
            raise Unauthenticated("the resume token does not hold") from None


def _text_of(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()
