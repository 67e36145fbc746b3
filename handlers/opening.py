"""What opening a stream takes, whatever its transport: who asks, what may be heard, from where on, and a free place."""

from __future__ import annotations

from collections.abc import Collection

from handlers.authentication import RESUME
from handlers.base import Handler
from handlers.belongings import NOTHING, Belongings
from handlers.resumption import Resumption
from hub.connection import Start
from hub.errors import BadRequest, Forbidden, NotReady, TooMany, Unauthenticated
from hub.principal import Principal
from hub.subscriptions import Subscription
from hub.terms import PLAIN


class Opening(Handler):
    """The base of handlers that open a connection."""

    OPENS_STREAM = True

    def prepare(self) -> None:
        """Count who comes, before anything else is looked at."""
        super().prepare()
        if self.request.method == "GET" and self.opens_stream():
            try:
                self.services.rates.connect(self.address, correlationId=self.correlation_id)
            except TooMany as error:
                self.turn_away(error)

    def opens_stream(self) -> bool:
        """Tell whether this GET asks for a connection."""
        return True

    def turn_away(self, error: TooMany | NotReady) -> None:
        """Refuse who may come back later; a transport that has an own way to say so answers instead.

        Raises:
            TooMany: What was given.
            NotReady: The same.
        """
        raise error

    def resumption(self, channel: str = PLAIN.channel) -> Resumption | None:
        """Return what `?resume=` reopens; None if it is not given.

        Args:
            channel: What is opened here: it may show what others do not, and the other way round.

        Raises:
            TokenExpired: If its time is over.
            Unauthenticated: If it does not hold.
            BadRequest: If it is a connection's of another channel.
        """
        token = self.get_query_argument(RESUME, None)
        try:
            resumption = self.services.authenticator.resumption(token) if token else None
        except Unauthenticated as error:
            self.services.rates.failed_login(self.address, error)
            raise
        if resumption is not None and resumption.channel != channel:
            raise BadRequest("the resume token is of another channel: open it where it came from", field=RESUME)
        return resumption

    async def start(self, *fallbacks: tuple[str | None, str]) -> Start | None:
        """Return where to begin; None: at the head.

        `Last-Event-ID` is what a browser adds when it comes back, so it is newer than what the URL says.

        Args:
            fallbacks: Further places in the order in which they count, each with the name of its field.

        Raises:
            BadRequest: If it looks like a time and is none.
            Unavailable: If the log must be asked and cannot be.
        """
        places = (
            (self.request.headers.get("Last-Event-ID"), "Last-Event-ID"),
            (self.get_query_argument("lastEventId", None), "lastEventId"),
            (self.get_query_argument("from", None), "from"),
            *fallbacks,
        )
        wanted, field = next((place for place in places if place[0]), (None, "from"))
        return await self.services.hub.locate(wanted, field=field)

    def refuse_mixed(self, resumption: Resumption | None, names: Collection[str]) -> None:
        """Refuse a selection beside a resume token, which brings its own.

        Raises:
            BadRequest: If there is one.
        """
        if resumption is not None and names:
            raise BadRequest("a resume token brings its own subscriptions: give it alone", field=min(names)[:80])

    async def belongings(
        self, principal: Principal, subscriptions: Collection[Subscription], granted: frozenset[str] = frozenset()
    ) -> Belongings:
        """Return which resources a connection with these subscriptions hears of; the last thing to be awaited before it is opened.

        Args:
            principal: Whose it is.
            subscriptions: What it selects.
            granted: Audiences among those that these name, which it may hear by its role alone.

        Raises:
            Forbidden: If one that they name is not the principal's.
            BadRequest: If there are too many to hear of all without naming them.
            Unavailable: If MongoDB is needed for that, and away.
        """
        named = named_by(subscriptions)
        if named and named <= granted:
            return NOTHING
        return await self.services.belonging.of(principal, named - granted)

    def require_same(self, principal: Principal, resumption: Resumption | None) -> None:
        """Refuse another's resume token.

        Raises:
            Forbidden: If it is one.
        """
        if resumption is not None and not principal.is_same_as(resumption.principal):
            raise Forbidden("the resume token is somebody else's", field=RESUME)


def named_by(subscriptions: Collection[Subscription]) -> frozenset[str]:
    """Return the audiences that subscriptions are limited to; none if one of them is not limited."""
    if not all(one.audiences for one in subscriptions):
        return frozenset()
    return frozenset(audience for one in subscriptions for audience in one.audiences)
