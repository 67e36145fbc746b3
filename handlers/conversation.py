"""One WebSocket's conversation: what the client says, in order, and what it is answered. Subscribing itself is the hub's.

A conversation is *waiting for a credential* until it has a connection of the hub, then *open*, then *over*. What may be said when is one
table, `_ANSWERS`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from handlers.base import translate
from handlers.messages import (
    Ack,
    AnyMessage,
    Auth,
    Ping,
    Subscribe,
    Unsubscribe,
    parse,
    ref_of,
    subscription_of,
)
from handlers.services import Services
from handlers.sockets import SocketSink
from hub.connection import Connection
from hub.errors import (
    NORMAL,
    POLICY,
    RESTART,
    UNAUTHENTICATED,
    BadRequest,
    Forbidden,
    InvalidMessage,
    NotReady,
    TailcastError,
    TooMany,
    Unauthenticated,
)
from hub.formats import WEBSOCKET, rfc3339
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
from storage.errors import StorageError

logger = logging.getLogger("tailcast.handlers")

MAX_FAULTS = 10  # invalid messages; a valid one makes up for one of them
MAX_BACKLOG = 100  # messages that wait while a subscription looks up its position
LINGER_SECONDS = 10.0  # for the last bytes to a client that never had a connection


class Conversation:
    """What is said on one WebSocket. It is the connection's inbox, and the sink's owner before there is a connection.

    Args:
        services: The server's parts.
        sink: Where bytes go.
        correlation_id: Of the handshake.
    """

    __slots__ = ("_backlog", "_correlation_id", "_deadline", "_faults", "_over", "_reader", "_services", "_sink", "_task", "connection")

    def __init__(self, services: Services, sink: SocketSink, correlation_id: str) -> None:
        self._services = services
        self._sink = sink
        self._correlation_id = correlation_id
        self._reader = FrameReader(services.limits.max_frame_bytes)
        self._faults = 0
        self._backlog: deque[Message] | None = None  # None unless messages wait for `_task`
        self._task: asyncio.Task[None] | None = None  # looks something up for the message that is being answered
        self._deadline: asyncio.TimerHandle | None = None  # for the credential; None once it is there
        self._over = False  # True for ever once it ends: whatever the client sent behind its last message is not answered
        self.connection: Connection | None = None  # None until there is a credential

    def begin(self, principal: Principal | None, handshake: bytes) -> None:
        """Answer the handshake, and open a connection or wait for a credential."""
        self._sink.owner = self
        if principal is not None:
            self._open(principal, handshake)
        elif self._sink.offer(handshake):
            self._services.waiting.add(self)
            seconds = self._services.limits.auth_seconds
            if seconds < float("inf"):
                self._deadline = asyncio.get_running_loop().call_later(seconds, self._refuse_silence)

    def _open(self, principal: Principal, preamble: bytes = b"") -> None:
        connection = Connection(self._services.make_id(), principal, WEBSOCKET, self._sink, self._services.hub, self._correlation_id)
        connection.coverage = {}
        connection.inbox = self
        self.connection = connection
        self._sink.owner = connection
        self._services.hub.heard(connection)
        self._services.hub.open(connection, frozenset(), None, preamble)

    def _refuse_silence(self) -> None:
        self._deadline = None
        self._end_unauthenticated(UNAUTHENTICATED, "no credential came in time")

    def send_away(self) -> None:
        """Tell a client that has not sent its credential yet that the server restarts."""
        self._end_unauthenticated(RESTART, "the server restarts", retry_ms=self._services.jitter_ms())

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
            self._take(message)
        if failure is not None and not self._over:
            self._close(failure.code, failure.reason)

    def _take(self, message: Message) -> None:
        if self._over:
            return
        if self._backlog is None:
            self._answer(message)
        elif len(self._backlog) < MAX_BACKLOG:
            self._backlog.append(message)
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
            _ANSWERS[type(message)](self, self.connection, message)

    # What is said

    def _authenticate(self, message: Auth) -> None:
        principal = self._services.verifier.principal(message.token)
        connection = self.connection
        if connection is None:
            self._stop_waiting()
            if not self._services.has_room():
                raise NotReady("the server takes no more connections")
            self._open(principal)
            return
        if principal.user != connection.principal.user:
            raise Forbidden("the token is another user's", field="token")
        self._services.hub.renew(connection, principal)
        expires_at = principal.expires_at
        self._tell("renewed", message.ref, {"expiresAt": rfc3339(int(expires_at * 1000)) if expires_at else None})

    def _subscribe(self, connection: Connection, message: Subscribe) -> None:
        subscription = subscription_of(message)
        limit = self._services.limits.subscriptions_per_connection
        held = connection.coverage or {}
        if len(held) >= limit and message.topic not in held:
            raise TooMany(f"at most {limit} subscriptions a connection", field="topic")
        if message.position or message.from_:
            self._backlog = deque()
            self._task = asyncio.get_running_loop().create_task(self._subscribe_at(connection, message), name="subscribe")
            return
        begin = self._services.hub.subscribe(connection, subscription, None)
        self._subscribed(message, begin)

    async def _subscribe_at(self, connection: Connection, message: Subscribe) -> None:
        """Look up where the subscription begins; meanwhile further messages wait, so that all are answered in order."""
        hub = self._services.hub
        try:
            wanted, field = (message.position, "position") if message.position else (message.from_, "from")
            start = await hub.locate(wanted, field=field)
            assert start is not None
            begin = hub.subscribe(connection, subscription_of(message), start)
            self._subscribed(message, begin)
            hub.replay(connection, start)
        except (TailcastError, StorageError) as error:
            self._complain(translate(error), message.ref)
        finally:
            self._task = None
        self._work_off()

    def _work_off(self) -> None:
        backlog, self._backlog = self._backlog, None
        while backlog:
            self._take(backlog.popleft())

    def _subscribed(self, message: Subscribe, begin: Any) -> None:
        position = self._services.hub.id_of(begin)
        self._tell("subscribed", message.ref, {"topic": message.topic, "position": position})

    def _unsubscribe(self, connection: Connection, message: Unsubscribe) -> None:
        if not self._services.hub.unsubscribe(connection, message.topic):
            raise InvalidMessage("there is no subscription with this topic", field="topic")
        self._tell("unsubscribed", message.ref, {"topic": message.topic})

    def _pong(self, connection: Connection, message: Ping) -> None:
        hub = self._services.hub
        self._tell("pong", message.ref, {"position": hub.id_of(hub.place(connection))})

    def _ack(self, connection: Connection, message: Ack) -> None:
        """Nothing is kept of it yet: positions that the server keeps come with durable consumers."""

    # What is answered

    def _tell(self, type: str, ref: str | None, fields: dict[str, Any]) -> None:
        assert self.connection is not None, "without one there are only refusals"
        self._services.hub.tell(self.connection, type, {"ref": ref, **fields} if ref is not None else fields)

    def _send(self, data: bytes) -> None:
        if self.connection is not None:
            self._services.hub.send(self.connection, data)
        elif not self._sink.pending:
            self._sink.offer(data)

    def _complain(self, error: TailcastError, ref: str | None) -> None:
        """Answer with an error; the connection lives on, unless this happens too often."""
        # What hub and HTTP call an invalid request is here an invalid message.
        code = InvalidMessage.code if type(error) is BadRequest else error.code
        fields: dict[str, Any] = {"code": code, "message": str(error)}
        if error.field is not None:
            fields["field"] = error.field
        if self.connection is None:
            self._end_unauthenticated(error.close_code, str(error), fields if ref is None else {"ref": ref, **fields})
            return
        self._tell("error", ref, fields)
        self._faults += 2
        if self._faults > 2 * MAX_FAULTS:
            self._close(POLICY, "too many invalid messages")

    def _close(self, code: int, reason: str, farewell: bytes | None = None) -> None:
        if self.connection is not None:
            self._services.hub.close(self.connection, code, reason, farewell=farewell)
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
            "refused", extra={"fields": {"correlationId": self._correlation_id, "transport": "websocket", "reason": reason, "code": code}}
        )

    def _stop_waiting(self) -> None:
        self._services.waiting.discard(self)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


_ANSWERS: dict[type, Callable[[Conversation, Connection, Any], None]] = {
    Subscribe: Conversation._subscribe,
    Unsubscribe: Conversation._unsubscribe,
    Ping: Conversation._pong,
    Ack: Conversation._ack,
}
