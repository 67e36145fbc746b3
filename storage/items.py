"""Items of state: what the newest event of a key says, as it is in memory and in MongoDB. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from storage.collection import date_of, seconds_of

ITEM_OVERHEAD_BYTES = 500  # of an item in a command, beside its payload


class Item(msgspec.Struct, gc=False, eq=False):
    """The newest event of one key.

    Args:
        snapshot: The name of the state that it belongs to.
        owner: Whose it is: a token of an audience.
        key: What the event is about.
        seq: The event's number in the log.
        ms: When it was appended, in milliseconds since 1970.
        type: Of the event.
        id: Of the event, on the wire.
        data: Its payload's JSON text, as it was published.
        expires: When it counts no more, in seconds since 1970; None: never.
        gone: There is nothing of this key any more. It is remembered for a while, so that nothing older comes back in its place.
        initial: Its form as an event of a snapshot, once somebody needed it; see hub.snapshots.
    """

    snapshot: str
    owner: str
    key: str
    seq: int
    ms: int
    type: str
    id: str
    data: str
    expires: float | None = None
    gone: bool = False
    initial: bytes | None = None

    @property
    def size(self) -> int:
        """Return about how many bytes of a command it takes."""
        return ITEM_OVERHEAD_BYTES + 3 * len(self.data)

    def document(self, log: int, forgotten: float) -> dict[str, Any]:
        """Return its document.

        Args:
            log: Which log its number belongs to, counted from the first one on.
            forgotten: Until when a key that is gone is remembered, in seconds since 1970.
        """
        document: dict[str, Any] = {
            "_id": item_id(self.snapshot, self.owner, self.key),
            "group": group_of(self.snapshot, self.owner),
            "key": self.key,
            "log": log,
            "seq": self.seq,
            "ms": self.ms,
            "type": self.type,
            "id": self.id,
            "data": self.data,
        }
        if self.gone:
            return {**document, "data": "", "gone": True, "expires": date_of(forgotten)}
        return document if self.expires is None else {**document, "expires": date_of(self.expires)}

    @classmethod
    def of(cls, snapshot: str, owner: str, document: Mapping[str, Any]) -> Item:
        """Return the item in a document."""
        expires = document.get("expires")
        return cls(
            snapshot,
            owner,
            document["key"],
            int(document["seq"]),
            int(document["ms"]),
            document["type"],
            document["id"],
            document["data"],
            None if expires is None else seconds_of(expires),
            bool(document.get("gone")),
        )


def group_of(snapshot: str, owner: str) -> str:
    """Return what the items of one owner have in common. Names of snapshots hold no slash."""
    return f"{snapshot}/{owner}"


def item_id(snapshot: str, owner: str, key: str) -> str:
    """Return an item's identity. Owners and keys may hold any character: where the owner ends is said by its length."""
    return f"{snapshot}/{len(owner)}/{owner}/{key}"
