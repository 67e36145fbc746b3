"""Keys that all server processes of one database share, each made by the first that needs it."""

from __future__ import annotations

import secrets

from storage.collection import Collection
from storage.errors import CommandFailed
from storage.mongo import Database

KEYS = "keys"
LEAST_BYTES = 16


async def shared_key(database: Database, name: str, size_bytes: int = 32) -> bytes:
    """Return the key of that name: every process gets the same one, for as long as the database lives.

    Whoever can read the database can read it. It is never logged. To change it, delete its document and restart all servers: what was
    signed or sealed with the old one holds no longer.

    Cancelling is harmless: the key is made or not, and the next call returns it.

    Args:
        database: Where it is kept.
        name: What it is for; another name is another key.
        size_bytes: How long it is, 16 or more.

    Raises:
        Unavailable: If MongoDB is away; call it again.
        CommandFailed: If what is kept under this name is no key of this size.
        ValueError: If the size is less than 16.
    """
    if size_bytes < LEAST_BYTES:
        raise ValueError(f"expected a key of {LEAST_BYTES} bytes or more, not {size_bytes}")
    document = await Collection(database, KEYS).upsert(name, {"$setOnInsert": {"key": secrets.token_bytes(size_bytes)}})
    key = None if document is None else document.get("key")
    if not isinstance(key, bytes) or len(key) != size_bytes:
        raise CommandFailed(f"collection {KEYS!r}: expected a key of {size_bytes} bytes as {name!r}")
    return key
