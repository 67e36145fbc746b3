"""All routes, in one table: documentation and tests are checked against it."""

from __future__ import annotations

import re

from channels.families import CATALOGUE, Catalogue
from handlers.base import Handler
from handlers.broadcast import Broadcast
from handlers.channels import ChannelStream, door
from handlers.health import Alive, Ready
from handlers.payments import PaymentStep, PaymentStream, PaymentStreams
from handlers.publish import Publish
from handlers.renewals import Renewals
from handlers.resources import Resource
from handlers.revocations import Revocations
from handlers.sessions import Session, Sessions
from handlers.stream import Stream
from handlers.subscribe import Stats, Subscribe
from handlers.tickets import TicketIssue
from handlers.totals import TotalsStream
from handlers.websocket import WebSocket

FIXED: list[tuple[str, type[Handler]]] = [
    (r"/v1/events", Publish),
    (r"/v1/stream", Stream),
    (r"/ws", WebSocket),
    (r"/v1/tickets", TicketIssue),
    (r"/v1/renewals", Renewals),
    (r"/v1/sessions", Sessions),
    (r"/v1/sessions/(?P<id>[^/]+)", Session),
    (r"/v1/revocations", Revocations),
    (r"/v1/resources/(?P<kind>[^/]+)/(?P<id>[^/]+)", Resource),
    (r"/streams", PaymentStreams),
    (r"/streams/(?P<id>[^/]+)", PaymentStream),
    (r"/streams/(?P<id>[^/]+)/(?P<step>[^/]+)", PaymentStep),
    (r"/events/subscribe", Subscribe),
    (r"/events/stats", Stats),
    (r"/api/stream/test", Broadcast),
    (r"/healthz", Alive),
    (r"/readyz", Ready),
]

LIKE = {"metrics": TotalsStream}  # channels that do more than to show events


def routes(catalogue: Catalogue) -> list[tuple[str, type[Handler]]]:
    """Return all routes, with one for each channel that has a path of its own."""
    channels = [one for one in catalogue if not one.own_handler]
    return FIXED + [(one.path, door(one, catalogue, LIKE.get(one.name, ChannelStream))) for one in channels if one.path is not None]


ROUTES = routes(CATALOGUE)


def template(pattern: str) -> str:
    """Return a route's pattern as people write it, like `/v1/sessions/<id>`."""
    return re.sub(r"\(\?P(<\w+>)[^)]*\)", r"\1", pattern)
