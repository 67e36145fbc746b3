"""Events before and after they are in the log, and their documents in MongoDB. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any

import msgspec

from storage.positions import PositionCodec

HIGH = "high"
OWN_TOPICS = "tailcast."  # how the topics of the server's own entries begin, which nobody receives
OWN_SOURCE = "tailcast"  # in whose name the server itself publishes, and what begins so up to a dot
NO_TOKEN = 0  # of entries that no appender has made
# What an entry holds in memory beyond its data: object, strings, id and the two encoded forms' headers, as measured with
# tracemalloc. The window's bound in bytes counts this for every entry.
ENTRY_OVERHEAD_BYTES = 900
MOST_MS = 10**14  # of a time of appending: the year 5138
_NOT_GIVEN = msgspec.Meta(max_length=0)
# What a document that is no entry is read as.
MALFORMED = {"topic": "tailcast.log", "type": "log:malformed", "audience": (), "data": "{}"}


def ms_of(document: Mapping[str, Any]) -> int:
    """Return when it was appended, in milliseconds since 1970; 0 for a document that does not say so."""
    ms = document.get("ms")
    return ms if isinstance(ms, int) and 0 <= ms < MOST_MS else 0


def is_own_source(source: str) -> bool:
    """Tell whether this is a source of the server's own events: `tailcast`, or `tailcast.` and more."""
    return source.startswith(OWN_SOURCE) and source.partition(".")[0] == OWN_SOURCE


class NewEvent:
    """An event that was accepted and is not yet in the log.

    Args:
        topic: Where it was published.
        type: What happened.
        audience: Who may receive it, at least one token.
        data: The payload's JSON text, as it came.
        source: Who published it.
        key: What it is about; newer events with the same key replace it on paced channels. None: nothing.
        priority: "high" or None.
        time: RFC 3339 time of the fact, from the publisher. None: the time of appending stands for it.
        published: The publisher's own identity of the event, unique while it is in the log. None: it gave none.
        correlation_id: Which request it came with.
    """

    __slots__ = (
        "audience",
        "correlation_id",
        "data",
        "key",
        "priority",
        "published",
        "source",
        "time",
        "topic",
        "type",
    )

    def __init__(
        self,
        topic: str,
        type: str,
        audience: tuple[str, ...],
        data: str,
        *,
        source: str | None = None,
        key: str | None = None,
        priority: str | None = None,
        time: str | None = None,
        published: str | None = None,
        correlation_id: str | None = None,
    ) -> None:
        self.topic = topic
        self.type = type
        self.audience = audience
        self.data = data
        self.source = source
        self.key = key
        self.priority = priority
        self.time = time
        self.published = published
        self.correlation_id = correlation_id

    def document(self) -> dict[str, Any]:
        """Return its document, without a number, a time of appending and an append token: the appender gives those."""
        document: dict[str, Any] = {
            "_id": 0,
            "ms": 0,
            "append": 0,
            "topic": self.topic,
            "type": self.type,
            "audience": self.audience,
            "data": self.data,
        }
        for name in ("source", "key", "priority", "time", "published"):
            value = getattr(self, name)
            if value is not None:
                document[name] = value
        if self.correlation_id is not None:
            document["correlationId"] = self.correlation_id
        return document


class Entry(msgspec.Struct, gc=False, eq=False):
    """An event in the log.

    `seq` is its sequence number, `ms` when it was appended, `id` its name on the wire. `sse` and `websocket` hold its encoded forms
    once somebody needed them: they are made once for all who receive it (see hub.formats). `token` tells the insert that it came with
    from any other.

    The cyclic collector does not look at entries: they refer to nothing that refers to anything, and are most of what is in memory.
    """

    seq: int = msgspec.field(name="_id")
    ms: Annotated[int, msgspec.Meta(ge=0, lt=MOST_MS)]
    topic: str
    type: str
    audience: tuple[str, ...]
    data: str
    source: str | None = None
    key: str | None = None
    priority: str | None = None
    time: str | None = None
    correlation_id: str | None = msgspec.field(name="correlationId", default=None)
    token: int = msgspec.field(name="append", default=NO_TOKEN)
    # These are made here, and in no document.
    id: Annotated[str, _NOT_GIVEN] = ""
    size: Annotated[int, msgspec.Meta(ge=0, le=0)] = 0
    sse: Annotated[bytes, _NOT_GIVEN] | None = None
    websocket: Annotated[bytes, _NOT_GIVEN] | None = None

    @classmethod
    def of(cls, document: Mapping[str, Any], codec: PositionCodec) -> Entry:
        """Return the entry that a document of the log is.

        Raises:
            ValueError: If it is none: a field is missing or of another type, or has a line break where it would end a line of an event
                stream.
        """
        try:
            entry = msgspec.convert(document, cls)
        except msgspec.ValidationError as error:
            raise ValueError(str(error)) from None
        if not _on_one_line(entry.topic, entry.type):
            raise ValueError("a topic or a type that is not printable")
        entry.audience = _shared(entry.audience)
        entry.id = codec.encode(entry.seq, entry.ms)
        entry.size = ENTRY_OVERHEAD_BYTES + 3 * len(entry.data)
        return entry


@lru_cache(maxsize=1024)
def _on_one_line(topic: str, type: str) -> bool:
    return topic.isprintable() and type.isprintable()


@lru_cache(maxsize=1024)
def _shared(audience: tuple[str, ...]) -> tuple[str, ...]:
    """Return the same tuple for the same audience: few have many events."""
    return audience


class Receipt:
    """What became of one event of a publish: its id, and whether it had been in the log before."""

    __slots__ = ("duplicate", "id")

    def __init__(self, id: str, duplicate: bool) -> None:
        self.id = id
        self.duplicate = duplicate
