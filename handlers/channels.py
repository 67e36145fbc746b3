"""Event streams of declared channels: one handler, made for each from its declaration, from who may open it to what comes first."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, NamedTuple

from channels.declaration import Access, Channel, Scope
from channels.families import Catalogue, Selection
from handlers.authentication import RESUME
from handlers.belongings import NOTHING, Belongings
from handlers.resources import KEEPERS, resource_name
from handlers.resumption import Resumption
from handlers.sse import COMMON_PARAMETERS, Admission, SseOpening, listed
from hub.connection import Connection, Start
from hub.errors import BadRequest, Forbidden, NotFound
from hub.formats import SseFormat
from hub.principal import ADMIN, ANONYMOUS, PUBLIC, Principal, audience_of
from hub.subscriptions import MAX_KEY_LENGTH, MAX_LIST_LENGTH, Subscription, is_name
from storage.entries import Entry
from storage.positions import Position
from storage.recent import Wanted

SYMBOLS, USER_ID, REPLAY = "symbols", "userId", "replay"
MAX_RECENT_BYTES = 256 << 10  # of last events that one client gets: what its socket does not take of them waits in memory

State = Callable[[frozenset[str], SseFormat], bytes]  # makes state as of now of what was read, for whoever has these audiences by now


class Chosen(NamedTuple):
    """What a client has chosen of a channel: events for these audiences only (none: for whomever), about these keys only (none: about
    whatever). `granted` are those of the audiences that it may hear by its role alone."""

    audiences: frozenset[str]
    keys: frozenset[str]
    granted: frozenset[str]


class ChannelStream(SseOpening):
    """Opens a stream of one channel. What is said here of `resource` is the one that the path names."""

    CHANNEL: ClassVar[Channel]
    SELECTIONS: ClassVar[list[Selection]]

    async def get(self, **path: str) -> None:
        """Answer with a stream that ends when the client, the credential or the server does."""
        await self.open(**path)

    async def open(self, **path: str) -> Connection | None:
        """Open a connection; None: it was turned away, or the client has left."""
        channel = self.CHANNEL
        principal = await self.visitor()
        resumption = self.resumption(channel.name)
        self.require_same(principal, resumption)
        asked = self._arguments(resumption)
        replay = self._replay(asked.get(REPLAY))
        chosen = await self._chosen(principal, asked, path.get("id"), resumption)
        start = await self.start((resumption.position, RESUME) if resumption else (None, RESUME))
        subscriptions = self._subscriptions(chosen)
        is_new = start is None and bool(channel.recent or channel.snapshot)
        state = await self._state(principal, chosen) if is_new else None
        hub, head = self.services.hub, self.services.hub.head
        past = await self._past(principal, subscriptions, chosen, replay, head) if is_new else []
        belongings = await self._belongings(principal, subscriptions, chosen)
        # Nothing is awaited from here on: state is as of now, and so is the start. Last events are of up to where the log was before they
        # were asked for, and what has come since follows them; if the log was made anew meanwhile, that is its beginning.
        if is_new:
            start = Start(min(head, hub.head) if replay else hub.head)
        audiences = principal.audiences | belongings.audiences | chosen.granted
        return self.admit(
            Admission(
                principal,
                subscriptions,
                belongings,
                start,
                chosen.granted,
                channel.terms,
                self.services.client_ids.make(principal.user, channel.name),
                lambda format: (state(audiences, format) if state else b"") + _encoded(past, audiences, format),
            )
        )

    # Who asks

    async def visitor(self) -> Principal:
        """Return who asks, if the channel is for that one.

        Raises:
            Unauthenticated: If there is no credential that holds, and one is needed or was shown.
            Forbidden: If the credential names no entity, and the channel shows that of one.
        """
        channel = self.CHANNEL
        if channel.access is Access.ANYONE and self.credential() is None:
            return ANONYMOUS
        principal = await self.principal()
        if principal.entity is None and Access.ENTITY is channel.access:
            raise Forbidden("this shows the events of the entity that a credential names, and yours names none (claim entity)")
        return principal

    # What is asked

    def _arguments(self, resumption: Resumption | None) -> dict[str, str]:
        channel, arguments = self.CHANNEL, self.arguments()
        own = (*channel.parameters, *((REPLAY,) if channel.recent else ()))
        self.require_known(arguments, (*own, *COMMON_PARAMETERS))
        self.refuse_mixed(resumption, [name for name in own if name in arguments])
        return arguments

    def _replay(self, text: str | None) -> int:
        """Return how many of the last events are wanted.

        Raises:
            BadRequest: If that is no number, or more than there can be.
        """
        most = self.CHANNEL.recent.events if self.CHANNEL.recent else 0
        if text is None:
            return most
        if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text) <= most):
            raise BadRequest(f"expected a whole number from 0 to {most}", field=REPLAY)
        return int(text)

    async def _chosen(self, principal: Principal, asked: dict[str, str], id: str | None, resumption: Resumption | None) -> Chosen:
        """Return what is asked for, or what was when the connection was opened that is to be resumed.

        Raises:
            BadRequest: If it cannot be meant.
            Forbidden: If it names somebody else.
            NotFound: If there is no such resource, and the principal may know.
        """
        limits = self._limits(principal, id)
        keys = _keys(asked.get(SYMBOLS))
        if resumption is not None:
            before = next(iter(resumption.subscriptions), Subscription())
            if limits and before.audiences != limits:
                raise BadRequest("the resume token is of another resource", field=RESUME)
            limits, keys = before.audiences, before.keys
        elif asked.get(USER_ID):
            limits = _of_user(principal, asked[USER_ID]) or limits
        granted = frozenset[str]()
        if principal.has_role(ADMIN):
            granted = limits - principal.audiences
        elif self.CHANNEL.scope is Scope.EVERYTHING and not limits <= principal.audiences:
            raise Forbidden("only an admin may hear what is somebody else's", field=RESUME if resumption else USER_ID)
        if id is not None and principal.has_role(*KEEPERS):
            await self._require_existing(id)
        return Chosen(limits, keys, granted)

    def _limits(self, principal: Principal, id: str | None) -> frozenset[str]:
        """Return the audiences that the channel is limited to; none: it is not."""
        channel = self.CHANNEL
        if channel.scope is Scope.RESOURCE:
            assert channel.resource is not None
            assert id is not None, "the path names it"
            return frozenset({audience_of(resource_name(channel.resource, id))})
        if channel.scope is Scope.ENTITY:
            return frozenset({f"entity:{principal.entity}"})
        return frozenset({PUBLIC}) if channel.scope is Scope.PUBLIC else frozenset()

    async def _require_existing(self, id: str) -> None:
        """Tell whoever may know it that there is no such resource. Everybody else is told that it is another's, which may be so."""
        name = resource_name(str(self.CHANNEL.resource), id)
        if name not in await self.services.state.ownership.owners_of([name]):
            raise NotFound(f"there is no such {self.CHANNEL.resource}")

    def _subscriptions(self, chosen: Chosen) -> frozenset[Subscription]:
        return frozenset(
            Subscription(types=types, sources=sources, audiences=chosen.audiences, keys=chosen.keys) for types, sources in self.SELECTIONS
        )

    async def _belongings(self, principal: Principal, subscriptions: frozenset[Subscription], chosen: Chosen) -> Belongings:
        if not subscriptions:
            return NOTHING
        try:
            return await self.belongings(principal, subscriptions, chosen.granted)
        except Forbidden:
            raise Forbidden(f"this {self.CHANNEL.resource} is not yours") from None

    # What comes first

    async def _state(self, principal: Principal, chosen: Chosen) -> State | None:
        """Return what makes the state for a new client; None: the channel has none.

        Raises:
            NotReady: If it cannot be read yet.
            Unavailable: If MongoDB is away.
        """
        snapshot = self.CHANNEL.snapshot
        if snapshot is None:
            return None
        owner = _owner(snapshot.owner, principal, chosen)
        prepared = await self.services.snapshots.prepare(self.CHANNEL, owner, chosen.keys or None)
        return lambda audiences, format: prepared.now(format) if owner in audiences else b""

    async def _past(
        self, principal: Principal, subscriptions: frozenset[Subscription], chosen: Chosen, events: int, head: Position
    ) -> list[Entry]:
        """Return the last events up to a place, oldest first, of what the channel shows to this one."""
        recent = self.CHANNEL.recent
        if recent is None or not events:
            return []
        belongings = await self._belongings(principal, subscriptions, chosen)
        audiences = principal.audiences | belongings.audiences
        since = round((self.services.time() - recent.seconds) * 1000)
        wanted = Wanted(chosen.audiences or audiences, self.SELECTIONS, chosen.keys, since, events)
        found = await self.services.recent.events(wanted, head)
        return _within(found, MAX_RECENT_BYTES)


def door(channel: Channel, catalogue: Catalogue, base: type[ChannelStream] = ChannelStream) -> type[ChannelStream]:
    """Return the handler of a channel, which is like `base`."""
    members = {
        "__doc__": f"`GET {channel.path}`: {channel.title}",
        "CHANNEL": channel,
        "SELECTIONS": catalogue.selections(channel),
        "HEARTBEAT": channel.heartbeat,
        "RETRY_MS": channel.retry_ms,
        "OPEN": channel.access is Access.ANYONE,
        "ANONYMOUS": channel.access is Access.ANYONE,
    }
    return type(base.__name__, (base,), members)


def _owner(kind: str, principal: Principal, chosen: Chosen) -> str:
    """Return whose state a client gets."""
    if kind == PUBLIC:
        return PUBLIC
    return next(audience for audience in chosen.audiences or principal.names() if audience.partition(":")[0] == kind)


def _of_user(principal: Principal, user: str) -> frozenset[str]:
    """Return the audience of a user, if that is somebody else.

    Raises:
        BadRequest: If nobody can have this name.
    """
    if not is_name(user):
        raise BadRequest("expected the id of one user", field=USER_ID)
    return frozenset() if user == principal.user else frozenset({f"user:{user}"})


def _keys(text: str | None) -> frozenset[str]:
    keys = listed(text)
    if len(keys) > MAX_LIST_LENGTH:
        raise BadRequest(f"at most {MAX_LIST_LENGTH} of them, not {len(keys)}", field=SYMBOLS)
    if any(len(key) > MAX_KEY_LENGTH for key in keys):
        raise BadRequest(f"at most {MAX_KEY_LENGTH} characters each", field=SYMBOLS)
    return frozenset(keys)


def _within(entries: list[Entry], room: int) -> list[Entry]:
    """Return the last of these entries, as many as fit."""
    kept: list[Entry] = []
    for entry in reversed(entries):
        room -= len(entry.data.encode())
        if room < 0:
            break
        kept.append(entry)
    return kept[::-1]


def _encoded(entries: list[Entry], audiences: frozenset[str], format: SseFormat) -> bytes:
    """Return entries as they are sent, but for those that are not for these audiences any more."""
    parts = [format.event(entry) for entry in entries if not audiences.isdisjoint(entry.audience)]
    return format.join(parts) if parts else b""
