"""Assembly: the parts of a server, made for each other by what the operator chose. Nothing is started here."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

from channels.families import CATALOGUE
from channels.valuation import Valuation
from handlers.authentication import Authenticator
from handlers.belongings import Belonging
from handlers.credentials import TokenVerifier
from handlers.jwks import PublishedKeys
from handlers.keys import KeyRing, own_key
from handlers.outbox import Outbox
from handlers.parties import Parties
from handlers.rates import RateLimits, Rates
from handlers.refusals import Refusals
from handlers.refused_fields import RefusedFields
from handlers.resumption import Sealer
from handlers.revision import Revision
from handlers.roll import RollCall
from handlers.services import Limits, Services
from handlers.sockets import Poller
from handlers.watchers import Watchers
from hub.feed import Feed, Several
from hub.folding import Folding
from hub.folds import Folds
from hub.hub import Hub
from hub.keeper import Clock
from hub.overlay import Overlay
from hub.processing import Processor
from hub.snapshots import Snapshots
from hub.totals import Totals
from settings import Settings, algorithms_and_keys
from storage.appender import Appender
from storage.follower import Follower
from storage.log import Log
from storage.recent import RecentEvents, recent_index
from storage.state import State

logger = logging.getLogger("tailcast.server")

LOG_INDEXES = (recent_index(CATALOGUE.recent_types),)  # of a log that channels are shown from


@dataclass(frozen=True, slots=True)
class Parts:
    """One server's parts, made for each other and not started yet."""

    services: Services
    follower: Follower
    revision: Revision
    roll: RollCall
    outbox: Outbox
    folding: Folding
    portfolio: Processor

    def work(self) -> dict[str, Coroutine[Any, Any, None]]:
        """Return what must run as long as the server does, by name."""
        services = self.services
        work = {
            "appender": services.appender.run(),
            "follower": self.follower.run(),
            "catching up": services.hub.catch_up.run(),
            "pace": services.hub.pacer.run(),
            "sweep": services.hub.keeper.run(),
            "revision of rights": self.revision.run(),
            "roll": self.roll.run(),
            "totals": services.watchers.run(),
            "outbox": self.outbox.run(),
            "folding": self.folding.run(),
            "portfolio": self.portfolio.run(),
        }
        published = services.authenticator.verifier.published
        return work if published is None else {**work, "published keys": published.run()}


def assemble(settings: Settings, log: Log, state: State, key: bytes, clock: Clock, most_connections: int) -> Parts:
    """Return the parts of a server.

    Args:
        settings: What the operator chose.
        log: The log, open.
        state: What is kept beside it, open.
        key: What resume tokens are sealed with.
        clock: Time, for the hub.
        most_connections: How many the limit of open files allows.
    """
    overlay = Overlay(Folds(channel.snapshot for channel in CATALOGUE if channel.snapshot is not None))
    sealer = Sealer(key, seconds=settings.resume_seconds, time=clock.time)
    hub = Hub(
        log,
        clock,
        heartbeat_seconds=settings.heartbeat_seconds,
        stale_seconds=settings.stale_seconds,
        chunk_bytes=settings.chunk_bytes,
        window_bytes=settings.window_bytes,
        max_connections=min(settings.max_connections, most_connections),
        connections_per_user=settings.connections_per_user,
        connections_per_org=settings.connections_per_org,
        seal=sealer.seal,
        overlay=overlay,
        logged=[one.name for one in CATALOGUE.types.values() if one.high is not None],
    )
    authenticator = Authenticator(
        verifier=make_verifier(settings),
        sessions=state.sessions,
        tickets=state.tickets,
        sealer=sealer,
        revocations=hub.rights.revocations,
    )
    belonging = Belonging(state.ownership, hub.rights.changes)
    roll = RollCall(state.roll, hub.rights.roll, clock, partial(_totals, hub))
    totals = Totals(hub.connections, hub.rights.census, hub.rights.roll.elsewhere, roll.elsewhere)
    services = Services(
        hub=hub,
        appender=Appender(log, seconds=settings.append_seconds),
        authenticator=authenticator,
        belonging=belonging,
        parties=Parties(belonging),
        state=state,
        recent=RecentEvents(log, CATALOGUE.recent_types),
        snapshots=Snapshots(hub, overlay, state.snapshots, log, clock.time),
        poller=Poller(asyncio.get_running_loop()),
        roll=roll,
        limits=make_limits(settings),
        rates=RateLimits(make_rates(settings), Refusals(asyncio.get_running_loop().call_later), clock.monotonic),
        watchers=Watchers(hub, totals, clock.time),
        refused_fields=RefusedFields(settings.refused_fields),
        ready=log.barrier,
        allowed_origins=frozenset(settings.allowed_origins),
        trusted_proxies=settings.trusted_proxies,
        gzip=settings.gzip,
    )
    feed = Feed(Valuation.types, without=Valuation.source)
    return Parts(
        services,
        Follower(log, Several(hub, feed)),
        Revision(hub, state, belonging),
        roll,
        Outbox(services),
        Folding(overlay, log, state.snapshots, state.folding),
        make_portfolio(log, state, feed, services.appender, clock),
    )


def _totals(hub: Hub) -> dict[str, int]:
    """Return what this process has in all, as the others hear it."""
    users = hub.rights.census.users()
    return {"connections": len(hub.connections), "subscriptions": hub.router.subscriptions(), "users": users}


def make_portfolio(log: Log, state: State, feed: Feed, appender: Appender, clock: Clock) -> Processor:
    """Return what values positions, fed by the tail."""
    return Processor(Valuation, log=log, feed=feed, append=appender.append, kept=state.portfolio, lease=state.valuing, clock=clock)


def make_verifier(settings: Settings) -> TokenVerifier:
    """Return a verifier with the keys that are set; without any it refuses every token. The issuer's are fetched by `published.run`."""
    if not settings.jwt_algorithms:
        logger.warning("no key is set to check tokens with: every token will be refused; see jwt_secret, jwt_public_key and jwks_url")
    secrets = [("HS256", settings.jwt_secret)] if settings.jwt_secret else []
    public = algorithms_and_keys(settings.jwt_public_key) if settings.jwt_public_key else []
    ring = KeyRing(own_key(algorithm, text) for algorithm, text in (*secrets, *public))
    return TokenVerifier(
        ring,
        algorithms=settings.jwt_algorithms,
        published=_published_keys(settings, ring) if settings.jwks_url else None,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        leeway_seconds=settings.jwt_leeway_seconds,
        time=time.time,
    )


def _published_keys(settings: Settings, ring: KeyRing) -> PublishedKeys:
    seconds = settings.jwks_seconds
    return PublishedKeys(settings.jwks_url, ring, settings.jwt_algorithms, seconds=seconds, monotonic=time.monotonic)


def make_limits(settings: Settings) -> Limits:
    """Return what handlers hold clients to."""
    return Limits(
        max_body_bytes=settings.max_body_bytes,
        max_event_bytes=min(settings.max_event_bytes, settings.log_bytes // 2),  # the log must be able to hold it
        max_batch_events=settings.max_batch_events,
        max_frame_bytes=settings.max_frame_bytes,
        subscriptions_per_connection=settings.subscriptions_per_connection,
        auth_seconds=settings.auth_seconds,
        ticket_seconds=settings.ticket_seconds,
        session_seconds=settings.session_seconds,
        revocation_seconds=settings.revocation_seconds,
    )


def make_rates(settings: Settings) -> Rates:
    """Return how often clients may do what."""
    return Rates(
        connects_per_minute=settings.connects_per_minute,
        connects_burst=settings.connects_burst,
        failed_logins_per_minute=settings.failed_logins_per_minute,
        messages_per_second=settings.messages_per_second,
        events_per_second=settings.events_per_second,
        org_events_per_second=settings.org_events_per_second,
        grants_per_minute=settings.grants_per_minute,
        payments_per_minute=settings.payments_per_minute,
        agent_subscriptions_per_minute=settings.agent_subscriptions_per_minute,
    )
