"""`/events/subscribe` and `/events/stats`: the life of payment streams over Server-Sent Events, by stream, by user, or all of it."""

from __future__ import annotations

from channels.families import CATALOGUE, all_of
from channels.payments import RESOURCE, SUBSCRIPTIONS
from handlers.authentication import RESUME
from handlers.base import Handler
from handlers.belongings import Belongings
from handlers.resumption import Resumption
from handlers.sse import COMMON_PARAMETERS, Admission, SseOpening, listed
from hub.errors import BadRequest, Forbidden
from hub.principal import ADMIN, Principal, audience_of, is_audience
from hub.subscriptions import MAX_LIST_LENGTH, Subscription

CHANNEL = CATALOGUE.channels[SUBSCRIPTIONS]
SELECTIONS = CATALOGUE.selections(CHANNEL)
STREAMS, USERS, ALL = CHANNEL.parameters
COUNTED = ("connections", "subscriptions")
_FLAGS = {"true": True, "1": True, "false": False, "0": False}


class Subscribe(SseOpening):
    """Opens a stream of what happens to the payment streams that are named, to those of the users that are named, or to all."""

    CHANNEL = CHANNEL
    HEARTBEAT = CHANNEL.heartbeat
    RETRY_MS = CHANNEL.retry_ms

    async def get(self, **path: str) -> None:
        """Answer with a stream that ends when the client, the credential or the server does. Names together are a union; without any, it
        shows everything of one's own."""
        principal = await self.principal()
        resumption = self.resumption(CHANNEL.name)
        self.require_same(principal, resumption)
        named = self._named(principal, resumption)
        subscriptions = frozenset(Subscription(types=types, sources=sources, audiences=named) for types, sources in SELECTIONS)
        granted = named - principal.audiences if principal.has_role(ADMIN) else frozenset()
        start = await self.start((resumption.position, RESUME) if resumption else (None, RESUME))
        belongings = await self._belongings(principal, subscriptions, granted)
        self.admit(Admission(principal, subscriptions, belongings, start, granted, CHANNEL.terms))

    def _named(self, principal: Principal, resumption: Resumption | None) -> frozenset[str]:
        """Return the audiences that the query names, or that were named when the connection was opened that is to be resumed.

        Raises:
            BadRequest: If something cannot be meant.
            Forbidden: If what it names is an admin's to hear.
        """
        arguments = self.arguments()
        self.require_known(arguments, (*CHANNEL.parameters, *COMMON_PARAMETERS))
        self.refuse_mixed(resumption, [name for name in CHANNEL.parameters if name in arguments])
        if resumption is not None:
            return frozenset(audience for one in resumption.subscriptions for audience in one.audiences)
        users = _audiences(arguments.get(USERS), "user:", USERS)
        everything = _flag(arguments.get(ALL))
        if not principal.has_role(ADMIN):
            if not users <= principal.audiences:
                raise Forbidden("only an admin may hear what is somebody else's", field=USERS)
            if everything:
                raise Forbidden("only an admin may hear everything", field=ALL)
        streams = _audiences(arguments.get(STREAMS), audience_of(f"{RESOURCE}/"), STREAMS)
        return users | streams | (frozenset({all_of(CHANNEL)}) if everything else frozenset())

    async def _belongings(self, principal: Principal, subscriptions: frozenset[Subscription], granted: frozenset[str]) -> Belongings:
        try:
            return await self.belongings(principal, subscriptions, granted)
        except (Forbidden, BadRequest) as error:  # about resources, which are called streams here
            raise type(error)(str(error), field=STREAMS) from None


class Stats(Handler):
    """Tells how much is going on, to everybody who is signed in."""

    async def get(self) -> None:
        """Answer with how many connections and subscriptions there are: in all, as far as it is known here, and in this process."""
        await self.principal()
        roll = self.services.roll
        counted = roll.count()
        here = {name: counted[name] for name in COUNTED}
        elsewhere = roll.elsewhere()
        total = {name: count + sum(one.get(name, 0) for one in elsewhere) for name, count in here.items()}
        self.answer({**total, "servers": 1 + len(elsewhere), "here": here})


def _audiences(text: str | None, prefix: str, field: str) -> frozenset[str]:
    """Return the audiences that a list of ids means.

    Raises:
        BadRequest: If there are too many, or one of them cannot be an id.
    """
    ids = listed(text)
    if len(ids) > MAX_LIST_LENGTH:
        raise BadRequest(f"at most {MAX_LIST_LENGTH} of them, not {len(ids)}", field=field)
    for index, id in enumerate(ids):
        if not is_audience(f"{prefix}{id}"):
            raise BadRequest(f"expected an id without spaces, not {id[:80]!r}", field=f"{field}[{index}]")
    return frozenset(f"{prefix}{id}" for id in ids)


def _flag(text: str | None) -> bool:
    if text is None:
        return False
    if text not in _FLAGS:
        raise BadRequest(f"expected true or false, not {text[:80]!r}", field=ALL)
    return _FLAGS[text]
