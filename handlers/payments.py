"""`/streams`: payment streams are made, changed and looked at. Each change is kept and told of, or neither (see outbox.py)."""

from __future__ import annotations

import hashlib
import re
import secrets
from contextlib import nullcontext
from typing import Any

import msgspec

from channels.payments import RESOURCE
from channels.streams import STEPS, NewStream, State, Step, created, is_stream_id, parties_of, payload, stepped
from channels.validation import VALIDATION
from handlers.base import Handler
from handlers.outbox import finish
from handlers.resources import KEEPERS
from handlers.validation import described
from hub.errors import BadRequest, Conflict, Forbidden, InvalidEvent, NotFound, NotReady
from hub.principal import AGENT, audience_of
from storage.streams import Change, Stream

CREATED = "stream.created"
KEY = "Idempotency-Key"
ID_BYTES = 12
ATTEMPTS = 20  # to change a stream that others change at the same time
_KEY = re.compile(r"[\x21-\x7e]{1,256}")
_json = msgspec.json.Encoder()


class Amount(msgspec.Struct, forbid_unknown_fields=True):
    """How much is added, or taken out."""

    amount: str


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    """A step that needs no more said."""


class _Streams(Handler):
    """What the handlers of streams share."""

    async def prepare(self) -> None:  # type: ignore[override]  # Tornado awaits what comes back
        """Know who is asking before the body is read; an agent may only subscribe."""
        super().prepare()
        if self.request.method in ("GET", "POST"):
            self.asking = await self.principal()
            if self.request.method == "POST" and AGENT in self.asking.roles:
                raise Forbidden("an agent may only subscribe")

    @property
    def keeps_all(self) -> bool:
        """Whether whoever asks may do everything with every stream."""
        return self.asking.has_role(*KEEPERS)

    def shaped(self, type: type[Any]) -> Any:
        """Return the JSON body as a value of this shape; none is like an empty object.

        Raises:
            BadRequest: If it is not JSON.
            InvalidEvent: If it is not of this shape; its `field` names what is wrong.
        """
        try:
            return msgspec.json.decode(self.body or b"{}", type=type)
        except msgspec.ValidationError as error:
            text, field = described(error)
            raise InvalidEvent(text, field=field) from None
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            raise BadRequest("the body is not JSON") from None

    @property
    def key(self) -> str | None:
        """What stands for how the client calls this request, among all of its own, so that a retry is known; None: it has no name.

        Raises:
            BadRequest: If it cannot be that.
        """
        key: str | None = self.request.headers.get(KEY)
        if key is not None and _KEY.fullmatch(key) is None:
            raise BadRequest("expected 1 to 256 characters of ASCII without spaces", field=KEY)
        return None if key is None else digest_of([self.asking.org, self.asking.user, key])

    def hold_to_rate(self) -> None:
        """Make sure that whoever asks does not do so too often: users are no publishers, and what they do reaches others.

        Raises:
            TooMany: If they do.
        """
        if not self.keeps_all:
            self.services.rates.pay(self.asking, correlationId=self.correlation_id)
        self.services.rates.publish(self.asking, 1, correlationId=self.correlation_id)

    async def known(self, id: str) -> Stream:
        """Return a stream that whoever asks may look at.

        Raises:
            NotFound: If there is none, for those who may know.
            Forbidden: If it is somebody else's, or there is none, in the same words after the same questions.
            Unavailable: If MongoDB is away.
        """
        name = audience_of(f"{RESOURCE}/{id}")
        stream = await self.services.state.streams.find(id)
        if stream is not None:  # it belongs to somebody, also if this process has not heard of any resource yet
            self.services.state.ownership.noticed()
        owned = await self.services.belonging.among(self.asking, frozenset({name}))
        if stream is None and self.keeps_all:
            raise NotFound("there is no such stream")
        if stream is None or not (owned or self.keeps_all):
            raise Forbidden("the stream is not yours")
        return stream

    def answer_with(self, stream: Stream, event: str, *, duplicate: bool, status: int = 200) -> None:
        """Send a stream as it is now, with the event that told of this change."""
        self.answer({"stream": stream.state, "eventId": event, "duplicate": duplicate}, status)


class PaymentStreams(_Streams):
    """Makes streams: a user his own, publishers and admins anybody's."""

    CORS_METHODS = "POST"

    async def post(self) -> None:
        """Answer 201 once the stream is kept, belongs to its parties, and its event is journaled. A retry gets the same stream."""
        wanted: NewStream = self.shaped(NewStream)
        if not (self.keeps_all or wanted.sender == self.asking.user):
            raise Forbidden("a stream is made by its sender, or with the role publisher or admin", field="sender")
        id = self._id(wanted)
        state = created(id, wanted)
        self.hold_to_rate()
        change = Change(1, CREATED, text_of(CREATED, state), self.key, digest_of(wanted), self.correlation_id)
        is_retry = self.key is not None and await self.services.state.streams.find(id) is not None
        async with nullcontext() if self.keeps_all or is_retry else self.services.parties.room((wanted.sender, wanted.recipient)):
            made, event = await self._make(id, state, change, field=KEY if wanted.id is None else "id")
        self.set_header("Location", f"/streams/{id}")
        self.answer_with(made or await self.known(id), event, duplicate=made is None, status=201)  # it may be another's by now

    async def _make(self, id: str, state: State, change: Change, field: str) -> tuple[Stream | None, str]:
        """Make a stream, and return it with the id of its first event; None: it was made before, by the same request.

        Raises:
            Conflict: If there is another one of this id; `field` is what is wrong then.
        """
        streams = self.services.state.streams
        made = await streams.create(id, state, change)
        stream = made or await streams.find(id)
        if stream is None or stream.digest != change.digest:
            raise Conflict("there is another stream with this id, or made with this Idempotency-Key", field=field)
        if stream.first is not None:
            return made, stream.first
        assert stream.begun is not None, "nothing is begun before the first change is done"
        return made, await finish(self.services, stream, stream.begun)

    def _id(self, wanted: NewStream) -> str:
        """Return the id of a new stream: as given, or the same for the same key of the same user, or one that nobody guesses."""
        if wanted.id is not None:
            if not self.keeps_all:  # or else it could be found out which there are
                raise Forbidden(f"ids are given by those with the role publisher or admin; give {KEY}", field="id")
            id = str(wanted.id)
            if not is_stream_id(id):
                raise InvalidEvent("expected 1 to 64 letters, digits, - and _", field="id")
            return id
        return secrets.token_hex(ID_BYTES) if self.key is None else self.key[: 2 * ID_BYTES]


class PaymentStream(_Streams):
    """Shows a stream."""

    async def get(self, id: str) -> None:
        """Answer with a stream as it is now: 403 for everybody who is not one of its owners, whether there is such a stream or not."""
        stream = await self.known(id)
        self.answer({"stream": stream.state})


class PaymentStep(_Streams):
    """Changes a stream: see the table in channels/streams.py for who may, and what becomes of it."""

    CORS_METHODS = "POST"

    async def post(self, id: str, step: str) -> None:
        """Answer 200 once the change is kept, and its event is journaled. A retry with its key is answered alike, and changes nothing."""
        todo = STEPS.get(step)
        if todo is None:
            raise NotFound(f"expected one of {', '.join(STEPS)}, not {step[:80]!r}")
        stream = await self.known(id)
        if not (self.keeps_all or self.asking.user in [stream.state[party] for party in todo.parties]):
            raise Forbidden("the stream is not yours")
        amount: str | None = self.shaped(Amount).amount if todo.moves else self.shaped(Nothing) and None
        self.hold_to_rate()
        for _ in range(ATTEMPTS):
            if stream.begun is not None:
                await finish(self.services, stream, stream.begun)
            elif self._answered_before(stream, todo, amount) or await self._changed(stream, todo, amount):
                return
            stream = await self.known(id)
        raise NotReady("others change this stream all the time", retry_after=1)

    def _answered_before(self, stream: Stream, step: Step, amount: str | None) -> bool:
        """Answer a request that was carried out before; False if it is a new one."""
        key = self.key
        done = next((one for one in stream.done if key is not None and one.key == key), None)
        if done is None:
            return False
        if done.digest != digest_of([step.type, amount]):
            raise Conflict("this Idempotency-Key was used for another change of this stream", field=KEY)
        self.answer_with(stream, done.event, duplicate=True)
        return True

    async def _changed(self, stream: Stream, step: Step, amount: str | None) -> bool:
        """Carry a request out, and answer it; False if somebody else has changed the stream in the meantime."""
        state = stepped(stream.state, step, amount)
        data = text_of(step.type, state, amount)
        change = Change(stream.changes + 1, step.type, data, self.key, digest_of([step.type, amount]), self.correlation_id)
        changed = await self.services.state.streams.begin(stream, state, change)
        if changed is None:
            return False
        assert changed.begun is not None, "it was begun just now"
        self.answer_with(changed, await finish(self.services, changed, changed.begun), duplicate=False)
        return True


def digest_of(asked: Any) -> str:
    """Return what stands for a request: the same for the same."""
    return hashlib.sha256(_json.encode(asked)).hexdigest()


def text_of(type: str, state: State, amount: str | None = None) -> str:
    """Return the payload of an event as it is published.

    Raises:
        InvalidEvent: If the type does not allow it: what cannot be told of must not happen.
    """
    data = _json.encode(payload(type, state, amount))
    try:
        VALIDATION.facts(type, data, parties_of(state))
    except msgspec.ValidationError as error:
        text, field = described(error)
        raise InvalidEvent(text, field=field) from None
    return data.decode()
