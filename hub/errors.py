"""What can go wrong in the hub and above, each with its code, HTTP status and WebSocket close code.

    TailcastError
    ├── BadRequest            invalid_request       400  1008   what was sent cannot be understood
    │   ├── InvalidMessage    invalid_message       400  1008   a WebSocket message, with the field that is wrong
    │   └── InvalidEvent      invalid_event         422  1008   a published event, with the field that is wrong
    ├── TooLarge              too_large             413  1009   more bytes than a limit allows
    │   ├── UriTooLong        uri_too_long          414  1009   a longer request target than the limit
    │   └── HeadersTooLarge   headers_too_large     431  1009   more header bytes than the limit
    ├── Unauthenticated       unauthenticated       401  4401   no credential, or one that does not hold
    │   └── TokenExpired      token_expired         401  4402   a credential whose time is over
    ├── Forbidden             forbidden             403  4403   a good credential that may not do this
    ├── NotFound              not_found             404  1008
    ├── MethodNotAllowed      method_not_allowed    405  1008
    ├── Conflict              conflict              409  1008   what there is does not allow it, now
    ├── UnsupportedMedia      unsupported_media_type  415  1008   a body of a kind that is not understood
    ├── TooMany               too_many_requests     429  1013   a limit of requests or connections
    ├── NotReady              unavailable           503  1013   MongoDB is away, or the server is starting or stopping
    └── Internal              internal              500  1011   a defect here; the log has the traceback

Close codes without an error of their own: 1000 (the client said goodbye), 1001 (it went away), 1002 and 1007 (it broke RFC 6455), 1012
(the server restarts), 4408 (it stopped reading or answering pings), 4409 (a newer connection took its place).
"""

from __future__ import annotations

NORMAL = 1000
GOING_AWAY = 1001
PROTOCOL_ERROR = 1002
POLICY = 1008
TOO_BIG = 1009
INTERNAL = 1011
RESTART = 1012
TRY_LATER = 1013
UNAUTHENTICATED = 4401
TOKEN_EXPIRED = 4402
FORBIDDEN = 4403
STALE = 4408
REPLACED = 4409

# Every close code this server sends and what a client does about it; the reference is checked against this table.
CLOSE_CODES = {
    NORMAL: "the client closed, or unsubscribed for good",
    GOING_AWAY: "one side goes away",
    PROTOCOL_ERROR: "the client broke the WebSocket protocol (RFC 6455)",
    1007: "a text message was not UTF-8",
    POLICY: "the client went on sending what it may not send",
    TOO_BIG: "a message was larger than the limit",
    INTERNAL: "a defect of the server",
    RESTART: "the server restarts: come back after retryMs",
    TRY_LATER: "the server is full or not ready: come back after retryMs",
    UNAUTHENTICATED: "no valid credential: get one and come back",
    TOKEN_EXPIRED: "the credential's time is over: get a new one and come back",
    FORBIDDEN: "the credential does not allow this: do not come back with it",
    STALE: "the client read nothing, or answered no ping, for too long: come back",
    REPLACED: "a newer connection of the same user took its place: do not come back",
}


class TailcastError(Exception):
    """The root. `str()` is a sentence for the client: what was expected and what came, no internals.

    Args:
        message: That sentence.
        field: The field that is wrong, as a path like `[2].audience[0]`; None when there is none.
        retry_after: Seconds after which trying again makes sense; None when it does not.
        details: One row for each further thing that is wrong, for the answer's `errors`.
    """

    code = "internal"
    status = 500
    close_code = 1011

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        retry_after: int | None = None,
        details: list[dict[str, object]] | None = None,
    ) -> None:
        super().__init__(message)
        self.field = field
        self.retry_after = retry_after
        self.details = details


class BadRequest(TailcastError):
    """What was sent cannot be understood."""

    code, status, close_code = "invalid_request", 400, POLICY


class InvalidMessage(BadRequest):
    """A WebSocket message that is not in the protocol."""

    code = "invalid_message"


class InvalidEvent(BadRequest):
    """A published event that is not valid."""

    code, status = "invalid_event", 422


class TooLarge(TailcastError):
    """More bytes than a limit allows."""

    code, status, close_code = "too_large", 413, TOO_BIG


class UriTooLong(TooLarge):
    """A longer request target than the limit."""

    code, status = "uri_too_long", 414


class HeadersTooLarge(TooLarge):
    """More header bytes than the limit (RFC 6585 section 5)."""

    code, status = "headers_too_large", 431


class Unauthenticated(TailcastError):
    """No credential, or one that does not hold."""

    code, status, close_code = "unauthenticated", 401, UNAUTHENTICATED


class TokenExpired(Unauthenticated):
    """A credential whose time is over."""

    code, close_code = "token_expired", TOKEN_EXPIRED


class Forbidden(TailcastError):
    """A good credential that may not do this."""

    code, status, close_code = "forbidden", 403, FORBIDDEN


class NotFound(TailcastError):
    """There is nothing at that path."""

    code, status, close_code = "not_found", 404, POLICY


class MethodNotAllowed(TailcastError):
    """The path exists, the method does not."""

    code, status, close_code = "method_not_allowed", 405, POLICY


class Conflict(TailcastError):
    """What there is does not allow it: it is over, or another one is there already."""

    code, status, close_code = "conflict", 409, POLICY


class UnsupportedMedia(TailcastError):
    """A body of a kind that is not understood."""

    code, status, close_code = "unsupported_media_type", 415, POLICY


class TooMany(TailcastError):
    """A limit of requests, messages or connections."""

    code, status, close_code = "too_many_requests", 429, TRY_LATER


class NotReady(TailcastError):
    """MongoDB is away, or the server is starting or stopping."""

    code, status, close_code = "unavailable", 503, TRY_LATER


class Internal(TailcastError):
    """A defect here; the log has the traceback."""
