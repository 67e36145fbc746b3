"""A demo feed: sample events of every family of users, so that there is something to see. Declarations only; server.py publishes them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any, NamedTuple

import msgspec

from storage.entries import NewEvent

USER = "demo"
ORG = "demo"
ENTITY = "demo"
PUBLISHER = "demo-publisher"
_json = msgspec.json.Encoder()


class Sample(NamedTuple):
    """One event of the feed; `data` may hold `%d` in strings, which becomes the number of the round."""

    topic: str
    type: str
    audience: tuple[str, ...]
    data: dict[str, Any]


SAMPLES = (
    Sample(
        "streams.42",
        "stream:updated",
        (f"user:{USER}",),
        {"streamId": "42", "status": "active", "streamed": "%d.250000"},
    ),
    Sample(
        "streams.42",
        "stream.topped_up",
        (f"user:{USER}",),
        {"streamId": "42", "amount": "%d000000000000000001"},
    ),
    Sample(
        "compliance.runs",
        "run.stage",
        (f"org:{ORG}",),
        {"runId": "run-%d", "stage": "fetch", "status": "finished"},
    ),
    Sample(
        "orders.eu",
        "order:fill",
        (f"user:{USER}",),
        {"orderId": "o-%d", "symbol": "AAPL", "qty": 5, "amount": 950.5},
    ),
    Sample(
        "prices.AAPL",
        "price:update",
        ("public",),
        {"symbol": "AAPL", "price": "190.%d", "bid": "190.1", "ask": "190.2"},
    ),
    Sample(
        "transactions.checking",
        "transactions.new",
        (f"entity:{ENTITY}",),
        {"transactionId": "t-%d", "amount": 12.5, "merchant": "Corner shop"},
    ),
)


def events() -> Iterator[NewEvent]:
    """Yield sample events for ever, one family after the other."""
    for number in count(1):
        for sample in SAMPLES:
            text = _json.encode(sample.data).decode().replace("%d", str(number))
            yield NewEvent(sample.topic, sample.type, sample.audience, text, source=PUBLISHER)
