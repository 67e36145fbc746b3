"""What all handlers share: the error envelope, correlation, size limits, and who is asking."""

from __future__ import annotations

import logging
import re
from types import TracebackType
from typing import Any, ClassVar, TypeVar

import msgspec
from tornado.httputil import HTTPServerRequest
from tornado.web import Application, HTTPError, RequestHandler, stream_request_body

from handlers.addresses import client_address
from handlers.authentication import RESUME, SESSION, TICKET, TOKEN, Credential
from handlers.origins import Page
from handlers.services import Services
from handlers.validation import described
from hub.errors import (
    BadRequest,
    Forbidden,
    HeadersTooLarge,
    Internal,
    MethodNotAllowed,
    NotFound,
    NotReady,
    TailcastError,
    TooLarge,
    Unauthenticated,
    UriTooLong,
)
from hub.principal import AGENT, Principal
from storage.errors import Overloaded, Unavailable

logger = logging.getLogger("tailcast.handlers")

MAX_URI_LENGTH = 8192
MAX_HEADERS_BYTES = 16 << 10
DISCARDED_BYTES = 32 << 20  # of a body over its limit, before the connection is closed in the middle of it
RETRY_AFTER_SECONDS = 2  # what is said when MongoDB is away; it is back in seconds, or somebody is called
_SECRET = re.compile(r"(?<![\w-])[\w-]{43}(?![\w-])")  # what the secrets of sessions and tickets look like
_CORRELATION_ID = re.compile(r"[A-Za-z0-9._:\-]{1,128}")
Shape = TypeVar("Shape")
_json = msgspec.json.Encoder()


@stream_request_body
class Handler(RequestHandler):
    """The base of all handlers. Bodies arrive in pieces, so that one that is too large is refused before it is here."""

    OPEN: ClassVar[bool] = False  # whether it answers somebody without a credential; a test knows which do
    ANONYMOUS: ClassVar[bool] = False  # whether it is good for those who showed none, and come back with a resume token
    OPENS_STREAM: ClassVar[bool] = False  # whether tickets and resume tokens are good for it
    COOKIES_NEED_ORIGIN: ClassVar[bool] = False  # whether a cookie without an Origin is refused even in a GET
    CORS_METHODS: ClassVar[str] = "GET"

    def __init__(self, application: Application, request: HTTPServerRequest, **options: Any) -> None:
        self.services: Services = application.settings["services"]
        given = request.headers.get("X-Correlation-ID", "")
        self.correlation_id = given if _CORRELATION_ID.fullmatch(given) else self.services.make_id()
        self._body: list[bytes] = []
        self._body_bytes = 0
        super().__init__(application, request, **options)

    # Before the method

    def prepare(self) -> None:
        """Refuse what is too large, before anything is read or decided."""
        request = self.request
        if len(request.uri or "") > MAX_URI_LENGTH:
            raise UriTooLong(f"the request target is longer than {MAX_URI_LENGTH} bytes")
        if sum(len(name) + len(value) for name, value in request.headers.get_all()) > MAX_HEADERS_BYTES:
            raise HeadersTooLarge(f"the headers are larger than {MAX_HEADERS_BYTES} bytes")
        length = request.headers.get("Content-Length", "")
        if length.isdigit() and int(length) > self.body_limit() + DISCARDED_BYTES:
            raise self._too_large()

    def body_limit(self) -> int:
        """Return how large this handler's request body may be, in bytes."""
        return 0 if self.request.method in ("GET", "HEAD", "OPTIONS") else self.services.limits.max_body_bytes

    def data_received(self, chunk: bytes) -> None:
        """Keep a piece of the body, up to the limit, and throw away what is beyond: it may come without a length (RFC 9112, 7.1).

        A client that still sends cannot read its answer, so a body somewhat over the limit is read to its end before it is refused.
        """
        self._body_bytes += len(chunk)
        if self._body_bytes <= self.body_limit():
            self._body.append(chunk)
            return
        self._body.clear()
        if self._body_bytes > self.body_limit() + DISCARDED_BYTES and not self._finished:
            self.send_error(413, exc_info=(TooLarge, self._too_large(), None))

    def _too_large(self) -> TooLarge:
        return TooLarge(f"the body is larger than {self.body_limit()} bytes")

    @property
    def body(self) -> bytes:
        """The whole body.

        Raises:
            TooLarge: If there is more of it than the limit.
        """
        if self._body_bytes > self.body_limit():
            raise self._too_large()
        return b"".join(self._body)

    def set_default_headers(self) -> None:
        """Give every answer, errors too, its correlation id and its cross-origin headers."""
        self.set_header("X-Correlation-ID", self.correlation_id)
        self.clear_header("Server")
        for name, value in self.page.headers().items():
            self.set_header(name, value)

    def compute_etag(self) -> str | None:
        """Nothing here is worth caching."""
        return None

    # Pages of other origins

    @property
    def page(self) -> Page:
        """The page that the request comes from."""
        request = self.request
        return Page(request.headers.get("Origin"), request.host, request.protocol, self.services.allowed_origins)

    def options(self, *_: str, **__: str) -> None:
        """Answer a preflight."""
        for name, value in self.page.preflight_headers(self.CORS_METHODS).items():
            self.set_header(name, value)
        self.set_status(204)

    # Who is asking

    @property
    def address(self) -> str:
        """The client's address, as far as it can be known."""
        request = self.request
        forwarded_for, forwarded = request.headers.get_list("X-Forwarded-For"), request.headers.get_list("Forwarded")
        return client_address(request.remote_ip, forwarded_for, forwarded, self.services.trusted_proxies)

    def credential(self) -> Credential | None:
        """Return the credential of the request; None if there is none.

        That is `Authorization: Bearer` (RFC 6750 section 2.1), else `?token=`; where a stream is opened, else `?ticket=` or `?resume=`,
        which are good for nothing else; else the cookie `session`.
        """
        token = self.bearer() or self.get_query_argument("token", None)
        if token:
            return Credential(TOKEN, token)
        for kind in (TICKET, RESUME) if self.OPENS_STREAM else ():
            secret = self.get_query_argument(kind, None)
            if secret:
                return Credential(kind, secret)
        cookie = self.get_cookie(SESSION)
        return self._session(cookie) if cookie else None

    def bearer(self) -> str | None:
        """Return the token of the header, None if there is none.

        Raises:
            Unauthenticated: If the header holds something else.
        """
        scheme, _, value = self.request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and value.strip():
            return value.strip()
        if scheme:
            raise Unauthenticated("expected Authorization: Bearer <token>")
        return None

    def _session(self, secret: str) -> Credential:
        """Return a session's credential, if this may be used here."""
        site = self.request.headers.get("Sec-Fetch-Site")
        if not self.page.may_use_cookies(self.request.method or "", site, unnamed=not self.COOKIES_NEED_ORIGIN):
            raise Forbidden("a session cookie is taken from pages of known origins only: see the setting allowed_origins")
        return Credential(SESSION, secret)

    async def principal(self, *roles: str) -> Principal:
        """Return who is asking.

        Args:
            roles: One of these is needed, and an agent has no use of them; none: anybody with a credential.

        Raises:
            Unauthenticated: If there is no credential that holds.
            TooMany: If too many from this address did not hold lately.
            Forbidden: If none of the roles is there.
        """
        credential = self.credential()
        if credential is None:
            raise Unauthenticated("a credential is needed, like Authorization: Bearer <token>")
        with self.services.rates.login(self.address, correlationId=self.correlation_id):
            principal = await self.services.authenticator.principal(credential)
        if principal.is_anonymous and not self.ANONYMOUS:
            raise Unauthenticated("a credential is needed: this one was given to somebody who had none")
        if roles and not principal.has_role(*roles):
            raise Forbidden(f"this needs one of the roles {', '.join(roles)}" + (", and no agent" if principal.has_role(AGENT) else ""))
        return principal

    def decoded(self, type: type[Shape]) -> Shape:
        """Return the JSON body as a value of this shape.

        Raises:
            BadRequest: If it is none; its `field` names what is wrong.
        """
        try:
            return msgspec.json.decode(self.body, type=type)
        except msgspec.ValidationError as error:
            text, field = described(error)
            raise BadRequest(text, field=field) from None
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            raise BadRequest("the body is not JSON") from None

    # Answers

    def answer(self, value: Any, status: int = 200) -> None:
        """Send a value as JSON."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(_json.encode(value))

    def write_error(self, status_code: int, **options: Any) -> None:
        """Send an error in the one envelope."""
        error = translate(options["exc_info"][1]) if "exc_info" in options else Internal("something went wrong here")
        self.set_status(error.status)
        if error.retry_after is not None:
            self.set_header("Retry-After", str(error.retry_after))
        if isinstance(error, Unauthenticated):
            self.set_header("WWW-Authenticate", "Bearer")
        if isinstance(error, MethodNotAllowed):
            self.set_header("Allow", f"{self.CORS_METHODS}, OPTIONS")  # RFC 9110 section 15.5.6
        self.set_header("Content-Type", "application/json")
        self.finish(_json.encode(envelope(error, self.correlation_id)))

    @property
    def shown_path(self) -> str:
        """The path as it is logged and told: a session's secret may be given in it where its id belongs."""
        return _SECRET.sub("[redacted]", self.request.path)

    def log_exception(self, typ: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        """Log a defect with its traceback; a refusal is no defect."""
        fields = {"correlationId": self.correlation_id, "path": self.shown_path}
        if isinstance(translate(value), Internal):
            logger.error("request failed", exc_info=value, extra={"fields": fields})
        else:
            logger.debug("refused: %s", value, extra={"fields": fields})

    def on_finish(self) -> None:
        """Log the request, without its query: tokens may be in it."""
        if logger.isEnabledFor(logging.DEBUG):
            fields = {
                "correlationId": self.correlation_id,
                "method": self.request.method,
                "path": self.shown_path,
                "status": self.get_status(),
                "seconds": round(self.request.request_time(), 6),
            }
            logger.debug("request", extra={"fields": fields})


class Unknown(Handler):
    """Whatever has no route."""

    OPEN = True

    def prepare(self) -> None:
        """Answer 404, whatever the method."""
        super().prepare()
        raise NotFound(f"there is nothing at {self.shown_path[:200]}")


def translate(error: BaseException | None) -> TailcastError:
    """Return what a client is told of an exception: its own error, or that it is not its business."""
    if isinstance(error, TailcastError):
        return error
    if isinstance(error, Unavailable):
        return NotReady(f"nothing is acknowledged: {error}", retry_after=RETRY_AFTER_SECONDS)
    if isinstance(error, Overloaded):
        return NotReady(str(error), retry_after=RETRY_AFTER_SECONDS)
    if isinstance(error, HTTPError):
        if error.status_code == 405:
            return MethodNotAllowed("this path does not take that method")
        if error.status_code < 500:
            return BadRequest("the request cannot be understood")
    return Internal("something went wrong here; the correlation id leads to it in the server's log")


def envelope(error: TailcastError, correlation_id: str) -> dict[str, Any]:
    """Return an error as clients get it."""
    fields: dict[str, Any] = {
        "error": error.code,
        "message": str(error),
        "statusCode": error.status,
        "correlationId": correlation_id,
    }
    if error.field is not None:
        fields["field"] = error.field
    if error.details:
        fields["errors"] = error.details
    return fields
