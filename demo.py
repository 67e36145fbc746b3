"""The demo of `--demo`: a feed of sample events, tokens to look around with, and where to look; only server.py imports this."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path

import jwt

from channels.demo import ENTITY, ORG, PUBLISHER, USER, events
from storage.appender import Appender
from storage.errors import StorageError

logger = logging.getLogger("tailcast.server")

PAUSE_SECONDS = 1.0  # between sample events
TOKEN_SECONDS = 30 * 86400


async def feed(appender: Appender) -> None:
    """Publish a sample event a second."""
    for event in events():
        try:
            await appender.append([event])
        except StorageError as error:
            logger.debug("demo event not published: %s", error)
        await asyncio.sleep(PAUSE_SECONDS)


def with_secret(environ: Mapping[str, str], data_dir: Path) -> dict[str, str]:
    """Return the environment with a secret for the demo's tokens, kept in the data directory."""
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = data_dir / "demo.secret"
    if not path.exists():
        _write_private(path, secrets.token_urlsafe(48))
    return {**environ, "TAILCAST_JWT_SECRET": path.read_text()}


def show(url: str, data_dir: Path, secret: str) -> None:
    """Make tokens to look around with, and print where to look; without the secret, tokens are the operator's to make."""
    if not secret:
        print(f"The demo feed runs. Tokens are checked with your own key, so make one for user {USER} of org {ORG}.")
        return
    user = {"sub": USER, "org": ORG, "entity": ENTITY}
    publisher = {"sub": PUBLISHER, "roles": ["publisher"]}
    for name, claims in (("user", user), ("publisher", publisher)):
        token = jwt.encode({**claims, "exp": int(time.time()) + TOKEN_SECONDS}, secret, algorithm="HS256")
        _write_private(data_dir / f"demo-{name}.token", token)
    directory = os.path.relpath(data_dir)
    print(
        "A demo feed publishes sample events of every family. Watch it, and add to it, from another terminal:\n"
        f'  curl -N -H "Authorization: Bearer $(cat {directory}/demo-user.token)" {url}/v1/stream\n'
        f'  curl -H "Authorization: Bearer $(cat {directory}/demo-publisher.token)" -H "Content-Type: application/json" \\\n'
        '    -d \'{"topic": "hello", "type": "greeting", "audience": ["public"], "data": {"text": "hello"}}\' \\\n'
        f"    {url}/v1/events"
    )


def _write_private(path: Path, text: str) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
