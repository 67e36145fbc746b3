"""Payment streams: their state and settlements for a status page, and their life for a subscription API.

Nothing personal is in a payload beyond what a payments page shows: these shapes are an allow-list, and whoever needs more asks by the
stream's id.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from channels.declaration import Channel, EventType
from channels.values import Amount, Id, PointInTime, ResourceId, Shape, Text, Time, Word
from hub.terms import Terms

RESOURCE = "stream"  # the kind of resource that a payment stream is
SUBSCRIPTIONS = "subscriptions"
TOPIC = "payments.streams"

StreamId = Annotated[ResourceId, Meta(description="The payment stream.")]
Timestamp = Annotated[Time | None, Meta(description="When it was so.")]


class StreamUpdated(Shape):
    """How a payment stream stands."""

    stream_id: StreamId
    status: Annotated[Word | None, Meta(description="Like `active`, `paused`, `cancelled`, `completed`.")] = None
    streamed: Annotated[Amount | None, Meta(description="What has been streamed so far.")] = None
    deposited: Annotated[Amount | None, Meta(description="What has been put in.")] = None
    withdrawn: Annotated[Amount | None, Meta(description="What has been taken out.")] = None
    remaining: Annotated[Amount | None, Meta(description="What is left to be streamed.")] = None
    amount: Annotated[Amount | None, Meta(description="What this change is about.")] = None
    rate_per_second: Annotated[Amount | None, Meta(description="What is streamed in a second.")] = None
    token: Annotated[Id | None, Meta(description="What is streamed.")] = None
    timestamp: Timestamp = None


class SettleFinished(Shape):
    """A settlement of a payment stream has come to its end."""

    stream_id: StreamId
    settlement_id: Annotated[Id | None, Meta(description="The settlement.")] = None
    status: Annotated[Word | None, Meta(description="Like `succeeded` or `failed`.")] = None
    amount: Annotated[Amount | None, Meta(description="What was settled.")] = None
    token: Annotated[Id | None, Meta(description="In what.")] = None
    tx_hash: Annotated[Id | None, Meta(description="The transaction on the chain.")] = None
    reason: Annotated[Text | None, Meta(description="Why it failed.")] = None
    timestamp: Timestamp = None


class StreamCreated(Shape):
    """A payment stream was made."""

    stream_id: StreamId
    sender: Annotated[Id, Meta(description="Who pays.")]
    recipient: Annotated[Id, Meta(description="Who is paid.")]
    token_address: Annotated[Id, Meta(description="What is streamed.")]
    rate_per_second: Annotated[Amount, Meta(description="What is streamed in a second.")]
    deposited_amount: Annotated[Amount, Meta(description="What has been put in.")]
    start_time: Annotated[PointInTime, Meta(description="From when: seconds since 1970, or RFC 3339.")]
    timestamp: Timestamp = None


class StreamToppedUp(Shape):
    """More was put into a payment stream."""

    stream_id: StreamId
    amount: Annotated[Amount, Meta(description="What was added.")]
    deposited_amount: Annotated[Amount | None, Meta(description="What has been put in by now.")] = None
    timestamp: Timestamp = None


class StreamWithdrawn(Shape):
    """Something was taken out of a payment stream by its recipient."""

    stream_id: StreamId
    amount: Annotated[Amount, Meta(description="What was taken out.")]
    withdrawn_amount: Annotated[Amount | None, Meta(description="What has been taken out by now.")] = None
    recipient: Annotated[Id | None, Meta(description="Who is paid.")] = None
    timestamp: Timestamp = None


class StreamCancelled(Shape):
    """A payment stream was ended before its time."""

    stream_id: StreamId
    reason: Annotated[Text | None, Meta(description="Why.")] = None
    refunded_amount: Annotated[Amount | None, Meta(description="What went back to the sender.")] = None
    withdrawn_amount: Annotated[Amount | None, Meta(description="What the recipient has got.")] = None
    timestamp: Timestamp = None


class StreamCompleted(Shape):
    """A payment stream has streamed all that was put in."""

    stream_id: StreamId
    withdrawn_amount: Annotated[Amount | None, Meta(description="What the recipient has got.")] = None
    timestamp: Timestamp = None


_AUDIENCE = ("resource:stream/42", "user:demo")
_AT = "2026-11-20T12:00:00Z"
_TOKEN = "CDLZFC3SYJYDZT7K67VZ75HPJVIEUVNIXF47ZG2FB2RMQQVU2HHGCYSC"
_SENDER = "GBRPYHIL2CI3FNQ4BXLFMNDLFJUNPU2HY3ZMFSHONUCEOASW7QC7OX2H"
_RECIPIENT = "GDQP2KPQGKIHYJGXNUIYOMHARUARCA7DJT5FO2FFOOKY3B2WSQHG4W37"

STATUS_EVENTS = (
    EventType(
        "stream:updated",
        StreamUpdated,
        {"streamId": "42", "status": "active", "streamed": "1250.250000", "remaining": "8749.750000", "timestamp": _AT},
        _AUDIENCE,
        TOPIC,
        key="streamId",
    ),
    EventType(
        "settle:finished",
        SettleFinished,
        {"streamId": "42", "settlementId": "settlement-7", "status": "succeeded", "amount": "1250.250000", "timestamp": _AT},
        _AUDIENCE,
        "payments.settlements",
    ),
)

LIFE_EVENTS = (
    EventType(
        "stream.created",
        StreamCreated,
        {
            "streamId": "42",
            "sender": _SENDER,
            "recipient": _RECIPIENT,
            "tokenAddress": _TOKEN,
            "ratePerSecond": "115740740740740740740",
            "depositedAmount": "10000000000000000000000001",
            "startTime": 1795176000,
        },
        _AUDIENCE,
        TOPIC,
    ),
    EventType("stream.topped_up", StreamToppedUp, {"streamId": "42", "amount": "5000000000000000000000001"}, _AUDIENCE, TOPIC),
    EventType("stream.withdrawn", StreamWithdrawn, {"streamId": "42", "amount": "1250000000000000000000"}, _AUDIENCE, TOPIC),
    EventType(
        "stream.cancelled",
        StreamCancelled,
        {"streamId": "42", "reason": "no longer needed", "refundedAmount": "8750000000000000000000"},
        _AUDIENCE,
        TOPIC,
    ),
    EventType("stream.completed", StreamCompleted, {"streamId": "42", "withdrawnAmount": "15000000000000000000000002"}, _AUDIENCE, TOPIC),
)

CHANNELS = (
    Channel(
        "payments",
        "How payment streams stand, and their settlements.",
        STATUS_EVENTS,
        claims=("payments.**",),
    ),
    Channel(
        SUBSCRIPTIONS,
        "The life of payment streams, by stream or by user; an admin may have all of it.",
        LIFE_EVENTS,
        path="/events/subscribe",
        parameters=("streams", "users", "all"),
        all=True,
        own_handler=True,
        terms=Terms(SUBSCRIPTIONS),
    ),
)
