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

from channels.demo import ENTITY, ORG, OWNED, PUBLISHER, USER, events
from handlers.resources import give
from handlers.services import Services
from storage.appender import Appender
from storage.errors import StorageError

logger = logging.getLogger("tailcast.server")

PAUSE_SECONDS = 0.25  # between sample events
TOKEN_SECONDS = 30 * 86400
# Where to look: at all of it, and at each family.
WATCH = (
    "/v1/stream",
    "/v1/stream?types=stream:updated,settle:finished",
    "/events/subscribe?streams=42",
    "/v1/stream?topics=compliance.**",
    "/api/stream/orders",
    "/api/stream/trading",
    "/events",
)
OPEN_TO_ALL = ("/api/stream/prices?symbols=AAPL,GOOGL",)


async def run(services: Services) -> None:
    """Give the demo's user the resources of the samples, and publish sample events for ever."""
    waiting = list(OWNED)
    while waiting:
        try:
            await give(services, waiting[0], (f"user:{USER}",), PUBLISHER)
            del waiting[0]
        except StorageError as error:
            logger.debug("demo resource not given: %s", error)
            await asyncio.sleep(PAUSE_SECONDS)
    await feed(services.appender)


async def feed(appender: Appender) -> None:
    """Publish four sample events a second."""
    for event in events(time.time):
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
    as_user, as_publisher = (f'-H "Authorization: Bearer $(cat {directory}/demo-{name}.token)"' for name in ("user", "publisher"))
    watch = "\n".join(f'  curl -N {as_user} "{url}{target}"' for target in WATCH)
    watch += "".join(f'\n  curl -N "{url}{target}"' for target in OPEN_TO_ALL)
    print(
        "A demo feed publishes sample events of every family. Watch them, each family or all together, and add to them, from another\n"
        f"terminal:\n{watch}\n"
        f'  curl {as_publisher} -H "Content-Type: application/json" \\\n'
        '    -d \'{"topic": "hello", "type": "greeting", "audience": ["public"], "data": {"text": "hello"}}\' \\\n'
        f"    {url}/v1/events"
    )


def _write_private(path: Path, text: str) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
