"""One WebSocket's conversation: what the client says, in order, and what it is answered. Subscribing itself is the hub's.

A conversation is *waiting for a credential* until it has a connection of the hub, then *open*, then *over*. What may be said when is one
table, `ANSWERS` of replies.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple

from handlers.authentication import TOKEN, Credential
from handlers.base import translate
from handlers.belongings import NOTHING, Belongings
from handlers.buckets import FULL
from handlers.credentials import KeyUnknown
from handlers.messages import AnyMessage, Auth, parse, ref_of
from handlers.replies import ANSWERS
from handlers.services import Services
from handlers.sockets import SocketSink
from hub.connection import Connection, Coverage, Start
from hub.errors import (
    INTERNAL,
    NORMAL,
    POLICY,
    RESTART,
    UNAUTHENTICATED,
    BadRequest,
    InvalidMessage,
    TailcastError,
    TooMany,
    Unauthenticated,
)
from hub.formats import WEBSOCKET
from hub.frames import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    FrameError,
    FrameReader,
    Message,
    close_frame,
    frame,
    read_close,
)
from hub.principal import Principal
from hub.subscriptions import Subscription
from storage.errors import StorageError

logger = logging.getLogger("tailcast.handlers")

MAX_FAULTS = 10  # invalid messages; a valid one makes up for one of them
MAX_BACKLOG_BYTES = 256 << 10  # of messages that wait while something is looked up for the one before them
MESSAGE_OVERHEAD_BYTES = 200  # what a waiting message takes beside its payload
ANSWERING = "answering a WebSocket"  # how the tasks that look something up are called
LINGER_SECONDS = 10.0  # for the last bytes to a client that never had a connection


class Entry(NamedTuple):
    """With what a connection begins: for whom, and what a resume token brings."""

    principal: Principal
    subscriptions: frozenset[Subscription] = frozenset()
    start: Start | None = None
    belongings: Belongings = NOTHING


class Conversation:
    """What is said on one WebSocket. It is the connection's inbox, and the sink's owner before there is a connection.

    Args:
        services: The server's parts.
        sink: Where bytes go.
        address: Where the client is.
        correlation_id: Of the handshake.
    """

    __slots__ = (
        "_address",
        "_backlog",
        "_backlog_bytes",
        "_deadline",
        "_faults",
        "_full_at",
        "_over",
        "_reader",
        "_sink",
        "_task",
        "connection",
        "correlation_id",
        "services",
    )

    def __init__(self, services: Services, sink: SocketSink, address: str, correlation_id: str) -> None:
        self.services = services
        self._sink = sink
        self._address = address
        self.correlation_id = correlation_id
        self._reader = FrameReader(services.limits.max_frame_bytes)
        self._faults = 0
        self._full_at = FULL  # the state of its bucket of messages
        self._backlog: deque[Message] | None = None  # None unless messages wait for `_task`
        self._backlog_bytes = 0  # about what those take
        self._task: asyncio.Task[None] | None = None  # looks something up for the message that is being answered
        self._deadline: asyncio.TimerHandle | None = None  # for the credential; None once it is there
        self._over = False  # True for ever once it ends: whatever the client sent behind its last message is not answered
        self.connection: Connection | None = None  # None until there is a credential

    def begin(self, entry: Entry | None, handshake: bytes) -> None:
        """Answer the handshake, and open a connection or, without an entry, wait for a credential."""
        self._sink.owner = self
        if entry is not None:
            self._open(entry, handshake)
        elif self._sink.offer(handshake):
            self.services.waiting.add(self)
            seconds = self.services.limits.auth_seconds
            if seconds < float("inf"):
                self._deadline = asyncio.get_running_loop().call_later(seconds, self._refuse_silence)

    def _open(self, entry: Entry, preamble: bytes = b"") -> None:
        hub = self.services.hub
        connection = Connection(self.services.make_id(), entry.principal, WEBSOCKET, self._sink, hub, self.correlation_id)
        connection.owned, connection.owns_all = entry.belongings
        if not entry.subscriptions and self.services.belonging.nothing_to_own():
            connection.owns_all = True  # without this, its first subscription asks
        begin = entry.start.position if entry.start else hub.head
        connection.coverage = {one.topic: Coverage(one, begin.seq) for one in entry.subscriptions}
        connection.limit_coverage()
        connection.inbox = self
        self.connection = connection
        self._sink.owner = connection
        hub.heard(connection)
        hub.open(connection, entry.subscriptions, entry.start, preamble)
        if entry.subscriptions:
            self.services.rates.subscribed(entry.principal, correlationId=self.correlation_id)

    def _refuse_silence(self) -> None:
        self._deadline = None
        self._end_unauthenticated(UNAUTHENTICATED, "no credential came in time")

    def send_away(self) -> None:
        """Tell a client that has not sent its credential yet that the server restarts."""
        self._end_unauthenticated(RESTART, "the server restarts", retry_ms=self.services.jitter_ms())

    # The sink, while there is no connection; the connection's inbox afterwards

    def on_drained(self) -> None:
        """Nothing waits for this: before there is a connection, only a refusal is sent."""

    def on_closed(self, reason: str = "") -> None:
        """Forget what is under way."""
        self._over = True
        self._stop_waiting()
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self._backlog = None

    def on_data(self, data: bytes) -> None:
        """Answer every message that is complete now."""
        try:
            messages, failure = self._reader.feed(data), None
        except FrameError as error:
            messages, failure = error.messages, error
        for message in messages:
            if not self._over and self._may_come(message):
                self._take(message)
        if failure is not None and not self._over:
            self._close(failure.code, failure.reason)

    def _may_come(self, message: Message) -> bool:
        """Hold the client to its rate, whatever it sends; that it goes is always heard."""
        wait, self._full_at = self.services.rates.message(self._full_at)
        if not wait or message.opcode == CLOSE:
            return True
        who = self.connection.principal.user if self.connection else self._address
        error = self.services.rates.too_many_messages(wait, who, correlationId=self.correlation_id)
        self._complain(error, ref_of(message.payload) if message.opcode == TEXT else None)
        return False

    def _take(self, message: Message) -> None:
        if self._over:
            return
        if self._backlog is None:
            self._answer(message)
        elif self._backlog_bytes < MAX_BACKLOG_BYTES:
            self._backlog.append(message)
            self._backlog_bytes += len(message.payload) + MESSAGE_OVERHEAD_BYTES
        else:
            self._close(POLICY, "too many messages wait to be answered")

    def _answer(self, message: Message) -> None:
        if message.opcode == TEXT:
            self._answer_text(message.payload)
        elif message.opcode == PING:
            self._send(frame(PONG, message.payload))
        elif message.opcode == CLOSE:
            code, _ = read_close(message.payload)
            self._close(NORMAL, "the client closed", farewell=close_frame(code if code != 1005 else NORMAL, ""))
        elif message.opcode == BINARY:
            self._complain(InvalidMessage("expected text messages, not binary ones"), None)

    def _answer_text(self, payload: bytes) -> None:
        try:
            message = parse(payload)
        except InvalidMessage as error:
            self._complain(error, ref_of(payload))
            return
        self._faults = max(0, self._faults - 1)
        try:
            self._act(message)
        except TailcastError as error:
            self._complain(error, message.ref)

    def _act(self, message: AnyMessage) -> None:
        if isinstance(message, Auth):
            self._authenticate(message)
        elif self.connection is None:
            raise Unauthenticated("the first message must be auth")
        else:
            ANSWERS[type(message)](self, self.connection, message)

    def later(self, work: Callable[[], Awaitable[None]], ref: str | None) -> None:
        """Answer a message for which something must be looked up; meanwhile further ones wait, so that all are answered in order."""
        self._backlog = deque()
        self._task = asyncio.get_running_loop().create_task(self._finish(work, ref), name=ANSWERING)

    async def _finish(self, work: Callable[[], Awaitable[None]], ref: str | None) -> None:
        try:
            await work()
        except (TailcastError, StorageError) as error:
            self._complain(translate(error), ref)
        except Exception:
            logger.exception("a message could not be answered", extra={"fields": {"correlationId": self.correlation_id}})
            self._close(INTERNAL, "something went wrong here")
        finally:
            self._task = None
        self._work_off()

    # What is said

    def _authenticate(self, message: Auth) -> None:
        """Take a token at once if its key is here, as it nearly always is."""
        rates = self.services.rates
        rates.require_login(self._address, correlationId=self.correlation_id)
        try:
            principal = self.services.authenticator.of_token(message.token)
        except KeyUnknown:
            self.later(partial(self._fetch_key_and_authenticate, message), message.ref)
        except Unauthenticated as error:
            rates.failed_login(self._address, error)
            raise
        else:
            self._admit(principal, message)

    async def _fetch_key_and_authenticate(self, message: Auth) -> None:
        with self.services.rates.login(self._address, correlationId=self.correlation_id):
            principal = await self.services.authenticator.principal(Credential(TOKEN, message.token))
        self._admit(principal, message)

    def _admit(self, principal: Principal, message: Auth) -> None:
        if self.connection is not None:
            self.services.hub.hearing.renew(self.connection, principal, message.ref)
            return
        self._stop_waiting()
        self.services.require_room(principal, self._address, self.correlation_id)
        self._open(Entry(principal))

    def _work_off(self) -> None:
        backlog, self._backlog, self._backlog_bytes = self._backlog, None, 0
        while backlog:
            self._take(backlog.popleft())

    # What is answered

    def tell(self, type: str, ref: str | None, fields: dict[str, Any]) -> None:
        """Send one of the server's own messages, with the client's `ref` if there is one."""
        assert self.connection is not None, "without one there are only refusals"
        self.services.hub.tell(self.connection, type, {"ref": ref, **fields} if ref is not None else fields)

    def _send(self, data: bytes) -> None:
        if self.connection is not None:
            self.services.hub.send(self.connection, data)
        elif not self._sink.pending:
            self._sink.offer(data)

    def _complain(self, error: TailcastError, ref: str | None) -> None:
        """Answer with an error; the connection lives on, unless this happens too often."""
        # What hub and HTTP call an invalid request is here an invalid message.
        code = InvalidMessage.code if type(error) is BadRequest else error.code
        fields: dict[str, Any] = {"code": code, "message": str(error)}
        if error.field is not None:
            fields["field"] = error.field
        if error.retry_after is not None:
            fields["retryMs"] = error.retry_after * 1000
        if self.connection is None:
            self._end_unauthenticated(error.close_code, str(error), fields if ref is None else {"ref": ref, **fields})
            return
        self.tell("error", ref, fields)
        self._faults += 2
        if self._faults > 2 * MAX_FAULTS:
            self._close(POLICY, "too many messages" if isinstance(error, TooMany) else "too many invalid messages")

    def _close(self, code: int, reason: str, farewell: bytes | None = None) -> None:
        if self.connection is not None:
            self.services.hub.close(self.connection, code, reason, farewell=farewell)
        else:
            self._end_unauthenticated(code, reason, farewell=farewell)

    def _end_unauthenticated(
        self,
        code: int,
        reason: str,
        error: dict[str, Any] | None = None,
        farewell: bytes | None = None,
        retry_ms: int | None = None,
    ) -> None:
        """End a conversation that never had a connection: nothing of the hub is involved."""
        self.on_closed()
        said = WEBSOCKET.message("error", error) if error else b""
        self._sink.finish(farewell if farewell is not None else said + WEBSOCKET.closing(code, reason, retry_ms))
        asyncio.get_running_loop().call_later(LINGER_SECONDS, self._sink.abort)
        logger.info(
            "refused", extra={"fields": {"correlationId": self.correlation_id, "transport": "websocket", "reason": reason, "code": code}}
        )

    def _stop_waiting(self) -> None:
        self.services.waiting.discard(self)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
