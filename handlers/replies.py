"""What is replied to the messages of a WebSocket that has a credential: one function for each, one table for all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol

from handlers.messages import Ack, Ping, Subscribe, Unsubscribe, subscription_of
from handlers.refusals import SUBSCRIPTIONS
from handlers.services import Services
from hub.connection import Connection
from hub.errors import InvalidMessage, TooMany
from hub.subscriptions import Subscription
from storage.positions import Position


class Speaker(Protocol):
    """Who was asked, and replies: a conversation."""

    services: Services
    correlation_id: str

    def tell(self, type: str, ref: str | None, fields: dict[str, Any]) -> None:
        """Send one of the server's own messages, with the client's `ref` if there is one."""

    def later(self, work: Callable[[], Awaitable[None]], ref: str | None) -> None:
        """Reply once something was looked up, and to nothing else before."""


def subscribe(speaker: Speaker, connection: Connection, message: Subscribe) -> None:
    """Add a subscription, at once if nothing must be looked up for it.

    Raises:
        BadRequest: If it cannot be meant.
        TooMany: If there are as many as there may be.
    """
    services = speaker.services
    subscription = subscription_of(message)
    limit = services.limits.subscriptions_per_connection
    held = connection.coverage or {}
    if len(held) >= limit and message.topic not in held:
        services.rates.refusals.count(SUBSCRIPTIONS, connection.principal.user, correlationId=speaker.correlation_id)
        raise TooMany(f"at most {limit} subscriptions a connection", field="topic")
    services.rates.subscribed(connection.principal, correlationId=speaker.correlation_id)
    if message.position or message.from_ or subscription.audiences or not connection.owns_all:
        speaker.later(partial(_look_up_and_subscribe, speaker, connection, message, subscription), message.ref)
    else:
        _tell_subscribed(speaker, connection, message, services.hub.hearing.subscribe(connection, subscription, None))


async def _look_up_and_subscribe(speaker: Speaker, connection: Connection, message: Subscribe, subscription: Subscription) -> None:
    """Look up where the subscription begins, and what belongs to whom."""
    hub = speaker.services.hub
    wanted, field = (message.position, "position") if message.position else (message.from_, "from")
    start = await hub.locate(wanted, field=field)
    await _extend_belongings(speaker, connection, subscription)
    _tell_subscribed(speaker, connection, message, hub.hearing.subscribe(connection, subscription, start))
    if start is not None:
        hub.hearing.replay(connection, start)


async def _extend_belongings(speaker: Speaker, connection: Connection, subscription: Subscription) -> None:
    """Let a connection hear of the resources that a further subscription is about, if they are its principal's."""
    if subscription.audiences or not connection.owns_all:
        found = await speaker.services.belonging.of(connection.principal, subscription.audiences)
        connection.owns_all = connection.owns_all or found.all
        speaker.services.hub.hearing.change_rights(connection, connection.owned | found.audiences)


def _tell_subscribed(speaker: Speaker, connection: Connection, message: Subscribe, begin: Position) -> None:
    hub = speaker.services.hub
    fields = {"topic": message.topic, "position": hub.id_of(begin), "resumeToken": hub.seal(connection)}
    speaker.tell("subscribed", message.ref, fields)


def unsubscribe(speaker: Speaker, connection: Connection, message: Unsubscribe) -> None:
    """Take a subscription away.

    Raises:
        InvalidMessage: If there is none with this topic.
    """
    hub = speaker.services.hub
    if not hub.hearing.unsubscribe(connection, message.topic):
        raise InvalidMessage("there is no subscription with this topic", field="topic")
    speaker.tell("unsubscribed", message.ref, {"topic": message.topic, "resumeToken": hub.seal(connection)})


def pong(speaker: Speaker, connection: Connection, message: Ping) -> None:
    """Say that the server lives, and how far the connection has read."""
    hub = speaker.services.hub
    speaker.tell("pong", message.ref, {"position": hub.id_of(hub.place(connection))})


def take_ack(speaker: Speaker, connection: Connection, message: Ack) -> None:
    """Nothing is kept of it yet: positions that the server keeps come with durable consumers."""


ANSWERS: dict[type, Callable[[Speaker, Connection, Any], None]] = {
    Subscribe: subscribe,
    Unsubscribe: unsubscribe,
    Ping: pong,
    Ack: take_ack,
}
