"""Secrets that are handed out and of which only a hash is kept, and the claims they stand for. No I/O."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from typing import Any

SECRET_BYTES = 32  # 256 random bits: nobody guesses them, so a fast hash without salt is all they need
MAX_CLAIMS_LENGTH = 8192
_SECRET = re.compile(r"[A-Za-z0-9_-]{43}")


def new_secret() -> str:
    """Return a new secret: 43 characters that are safe in URLs, headers and cookies."""
    return secrets.token_urlsafe(SECRET_BYTES)


def hash_of(secret: str) -> bytes | None:
    """Return the SHA-256 hash of a secret as it came from a client; None if it cannot be one, which needs no question to MongoDB."""
    if _SECRET.fullmatch(secret) is None:
        return None
    return hashlib.sha256(secret.encode()).digest()


def text_of(claims: Mapping[str, Any]) -> str:
    """Return claims as JSON text: BSON would not give back every number and every name as it was.

    Raises:
        ValueError: If they are not what JSON can express, or longer than 8,192 characters.
    """
    try:
        text = json.dumps(dict(claims), separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"expected claims as JSON can hold them: {error}") from error
    if len(text) > MAX_CLAIMS_LENGTH:
        raise ValueError(f"expected claims of at most {MAX_CLAIMS_LENGTH} characters of JSON, not {len(text)}")
    return text


def claims_of(text: str) -> dict[str, Any]:
    """Return the claims that `text_of` wrote."""
    claims: dict[str, Any] = json.loads(text)
    return claims


def require_life(seconds: float) -> float:
    """Return how long something is to live.

    Raises:
        ValueError: If that is not a number above 0.
    """
    if not 0 < seconds < float("inf"):
        raise ValueError(f"expected a number of seconds above 0, not {seconds}")
    return seconds
