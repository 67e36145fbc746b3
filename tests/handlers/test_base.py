"""Tests of handlers/base.py: what every answer has, what is refused before anything is read, and what is never told or logged."""

from __future__ import annotations

import json
import logging
import secrets
from typing import Any

import pytest
from tornado.web import HTTPError, MissingArgumentError

from handlers import base
from handlers.base import MAX_HEADERS_BYTES, MAX_URI_LENGTH, Handler, envelope, translate
from handlers.health import Alive, Ready
from handlers.routes import ROUTES, template
from hub.errors import Internal, InvalidEvent, NotReady, TailcastError, Unauthenticated
from storage.errors import CommandFailed, Overloaded, Unavailable
from tests.handlers.assembly import PUBLISHER, USER, Assembly, token
from tests.handlers.clients import EventStream, Wire, event, get, publish, request, request_bytes
from tests.handlers.conftest import Assemble

OPEN = {Alive, Ready}
PAGE = "https://app.example.com"


# ---- who is asking


@pytest.mark.parametrize(("pattern", "handler"), ROUTES, ids=[pattern for pattern, _ in ROUTES])
async def test_a_route_answers_401_without_a_credential_unless_it_says_that_it_is_open(
    here: Assembly, pattern: str, handler: type[Handler]
) -> None:
    """Each handler knows who is asking before it does anything; a WebSocket may still say so in its first message."""
    methods = [name for name in ("GET", "POST", "PUT", "DELETE") if name in handler.CORS_METHODS]
    assert methods
    for method in methods:
        response = await request(here.port, method, template(pattern), body=b"" if method in ("POST", "PUT") else None)
        if handler.OPEN:
            assert response.status in (200, 426)
        else:
            assert response.error() == (401, "unauthenticated", None)
            assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_a_token_comes_in_the_authorization_header(here: Assembly, scheme: str) -> None:
    """`Authorization: Bearer <token>`, the scheme in any case (RFC 9110, 11.1; S1)."""
    response = await request(
        here.port, "POST", "/v1/events", headers={"Authorization": f"{scheme}  {PUBLISHER} "}, body=json.dumps(event()).encode()
    )
    assert response.status == 202


async def test_a_token_comes_in_the_query(here: Assembly) -> None:
    """`?token=` works everywhere a header does (S1)."""
    response = await request(here.port, "POST", f"/v1/events?token={PUBLISHER}", body=json.dumps(event()).encode())
    assert response.status == 202


@pytest.mark.parametrize("value", ["Basic dTpw", "Bearer", "Bearer ", "Digest x", "Bearer x.y.z", f"Token {PUBLISHER}", f"{PUBLISHER}"])
async def test_another_authorization_is_refused(here: Assembly, value: str) -> None:
    """A header that holds no good token is refused even when the query has one: nobody becomes somebody else."""
    response = await get(here.port, f"/v1/stream?token={USER}", headers={"Authorization": value})
    assert response.error() == (401, "unauthenticated", None)
    assert PUBLISHER not in response.body.decode()


async def test_an_expired_token_is_called_that(here: Assembly) -> None:
    """The client learns that another token of the same kind will do (S3)."""
    response = await get(here.port, "/v1/stream", token=token(seconds=-60))
    assert response.error() == (401, "token_expired", None)
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("given", [None, "", "x" * 129, "a b", "é", "a\tb", "<script>"])
async def test_a_correlation_id_is_made_unless_a_good_one_is_given(here: Assembly, given: str | None) -> None:
    """What could not stand in a log line is not taken (S9)."""
    headers = {} if given is None else {"X-Correlation-ID": given}
    first = (await get(here.port, "/healthz", headers=headers)).headers["x-correlation-id"]
    second = (await get(here.port, "/healthz", headers=headers)).headers["x-correlation-id"]
    assert first != second
    assert given not in (first, second)


async def test_a_given_correlation_id_is_returned_and_attached(here: Assembly) -> None:
    """It comes back with the answer, in errors, on streams, and is kept with the event (S9)."""
    given = "Order-42:retry.1_x"
    named = {"X-Correlation-ID": given}
    assert (await get(here.port, "/healthz", headers=named)).headers["x-correlation-id"] == given
    assert (await get(here.port, "/nothing", headers=named)).json()["correlationId"] == given
    async with EventStream(here.port, token=USER, X_Correlation_ID=given) as stream:
        assert stream.head.headers["x-correlation-id"] == given
    assert (await publish(here.port, event(), PUBLISHER, X_Correlation_ID=given)).headers["x-correlation-id"] == given
    assert (await here.log.read(0, 10))[-1].correlation_id == given


# ---- errors


async def test_an_unknown_path_is_404(here: Assembly) -> None:
    """Whatever has no route says so in the envelope, whatever the method (S8)."""
    for method in ("GET", "POST", "OPTIONS", "DELETE"):
        assert (await request(here.port, method, "/v1/nothing")).error() == (404, "not_found", None)


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v1/events", "POST, OPTIONS"),
        ("PUT", "/v1/events", "POST, OPTIONS"),
        ("POST", "/v1/stream", "GET, OPTIONS"),
        ("DELETE", "/ws", "GET, OPTIONS"),
        ("BREW", "/healthz", "GET, OPTIONS"),
    ],
)
async def test_a_wrong_method_is_405(here: Assembly, method: str, path: str, allow: str) -> None:
    """The answer names the methods that are allowed (RFC 9110, 15.5.6)."""
    response = await request(here.port, method, path)
    assert response.error() == (405, "method_not_allowed", None)
    assert response.headers["allow"] == allow


async def test_head_has_no_body(here: Assembly) -> None:
    """HEAD is refused where it is no method, and its answer has no body although it has a length (RFC 9110, 9.3.2)."""
    async with Wire(here.port) as wire:
        wire.send(request_bytes("HEAD", "/v1/stream", {"Host": "x", "Connection": "close"}))
        head = await wire.read_head()
        assert (head.status, await wire.read_rest()) == (405, b"")


async def test_a_query_that_is_no_utf_8_is_400(here: Assembly) -> None:
    """A request that cannot be understood gets the envelope, too."""
    assert (await get(here.port, "/v1/stream?token=%ff")).error() == (400, "invalid_request", None)


async def test_a_defect_is_told_to_the_log_only(here: Assembly, expected_logs: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """A client learns the correlation id and nothing else; the log has the traceback (S7)."""
    expected_logs.append("request failed")

    async def broken() -> None:
        raise ZeroDivisionError("the innermost secret")

    here.services.ready = broken
    response = await get(here.port, "/readyz")
    assert response.error() == (500, "internal", None)
    assert b"secret" not in response.body
    (record,) = [record for record in caplog.records if record.message == "request failed"]
    assert record.exc_info
    assert record.__dict__["fields"]["correlationId"] == response.headers["x-correlation-id"]


async def test_an_error_without_an_exception_is_a_defect(here: Assembly, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something that Tornado refuses by a bare status is told as one of ours."""
    monkeypatch.setattr(Alive, "get", lambda self: self.send_error(503))
    assert (await get(here.port, "/healthz")).error() == (500, "internal", None)


@pytest.mark.parametrize(
    ("error", "status", "code", "retry_after"),
    [
        (InvalidEvent("x"), 422, "invalid_event", None),
        (Unavailable("x"), 503, "unavailable", 2),
        (Overloaded("x"), 503, "unavailable", 2),
        (CommandFailed("x", 5), 500, "internal", None),
        (HTTPError(405), 405, "method_not_allowed", None),
        (MissingArgumentError("x"), 400, "invalid_request", None),
        (HTTPError(502), 500, "internal", None),
        (ValueError("x"), 500, "internal", None),
        (None, 500, "internal", None),
    ],
)
def test_each_exception_has_an_error_for_clients(error: BaseException | None, status: int, code: str, retry_after: int | None) -> None:
    """What is the client's business keeps its sentence; the rest is a defect, of which nothing is told."""
    told = translate(error)
    assert (told.status, told.code, told.retry_after) == (status, code, retry_after)


@pytest.mark.parametrize(
    ("error", "more"),
    [
        (Internal("m"), {}),
        (Unauthenticated("m", field="token"), {"field": "token"}),
        (NotReady("m", details=[{"index": 1}]), {"errors": [{"index": 1}]}),
    ],
)
def test_the_envelope_says_what_is_known(error: TailcastError, more: dict[str, Any]) -> None:
    """Error, message, status and correlation id are always there, the field and further errors where there are any (S8)."""
    assert envelope(error, "c") == {"error": error.code, "message": "m", "statusCode": error.status, "correlationId": "c", **more}


# ---- sizes


async def test_a_long_url_is_414(here: Assembly) -> None:
    """A request target may have so many bytes and not one more (T5)."""
    path = "/healthz?x="
    assert (await get(here.port, path + "x" * (MAX_URI_LENGTH - len(path)))).status == 200
    response = await get(here.port, path + "x" * (MAX_URI_LENGTH + 1 - len(path)))
    assert response.error() == (414, "uri_too_long", None)
    assert str(MAX_URI_LENGTH) in response.json()["message"]


async def test_large_headers_are_431(here: Assembly) -> None:
    """So many bytes of headers in all, and the message says the limit (T5, RFC 6585)."""
    response = await get(here.port, "/healthz", headers={f"X-{number}": "x" * 4096 for number in range(4)})
    assert response.error() == (431, "headers_too_large", None)
    assert str(MAX_HEADERS_BYTES) in response.json()["message"]


async def test_headers_beyond_all_measure_cost_the_connection(here: Assembly) -> None:
    """What is too large even to be refused in words is cut off."""
    async with Wire(here.port) as wire:
        wire.send(request_bytes("GET", "/healthz", {"Host": "x", "X": "x" * (100 << 10)}))
        assert (await wire.read_rest()) == b""


async def test_a_body_is_refused_by_its_length(assemble: Assemble) -> None:
    """A body over the limit is read to its end, thrown away and refused, and the connection lives on (T5)."""
    here = await assemble(max_body_bytes=1000)
    async with Wire(here.port) as wire:
        headers = {"Host": "x", "Authorization": f"Bearer {PUBLISHER}", "Content-Length": "1001"}
        wire.send(request_bytes("POST", "/v1/events", headers, b"x" * 1001))
        response = await wire.read_response()
        assert response.error() == (413, "too_large", None)
        assert "1000" in response.json()["message"]
        wire.send(request_bytes("GET", "/healthz", {"Host": "x"}))
        assert (await wire.read_response()).status == 200


async def test_a_body_is_refused_when_it_comes_without_a_length(assemble: Assemble) -> None:
    """Chunked transfer is measured as it comes (T5)."""
    here = await assemble(max_body_bytes=1000)
    async with Wire(here.port) as wire:
        headers = {"Host": "x", "Authorization": f"Bearer {PUBLISHER}", "Transfer-Encoding": "chunked"}
        wire.send(request_bytes("POST", "/v1/events", headers, b"1F4\r\n" + b"x" * 500 + b"\r\n"))
        wire.send(b"1F5\r\n" + b"x" * 501 + b"\r\n0\r\n\r\n")
        assert (await wire.read_response()).error() == (413, "too_large", None)


async def test_a_body_without_a_length_is_taken(here: Assembly) -> None:
    """A chunked body within the limit is put together again."""
    text = json.dumps(event()).encode()
    async with Wire(here.port) as wire:
        headers = {"Host": "x", "Authorization": f"Bearer {PUBLISHER}", "Transfer-Encoding": "chunked"}
        wire.send(request_bytes("POST", "/v1/events", headers, b"5\r\n" + text[:5] + b"\r\n"))
        wire.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(text) - 5, text[5:]))
        assert (await wire.read_response()).status == 202


async def test_a_huge_body_is_refused_before_it_is_sent(assemble: Assemble, monkeypatch: pytest.MonkeyPatch) -> None:
    """A length far over the limit is answered at once: nobody has to send, or read, all that."""
    monkeypatch.setattr(base, "DISCARDED_BYTES", 1000)
    here = await assemble(max_body_bytes=1000)
    async with Wire(here.port) as wire:
        headers = {"Host": "x", "Authorization": f"Bearer {PUBLISHER}", "Content-Length": "2001"}
        wire.send(request_bytes("POST", "/v1/events", headers))
        assert (await wire.read_response()).error() == (413, "too_large", None)


async def test_a_huge_body_without_a_length_is_cut_off(assemble: Assemble, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunked body that does not end is answered in its middle, and the connection ends."""
    monkeypatch.setattr(base, "DISCARDED_BYTES", 1000)
    here = await assemble(max_body_bytes=1000)
    async with Wire(here.port) as wire:
        headers = {"Host": "x", "Authorization": f"Bearer {PUBLISHER}", "Transfer-Encoding": "chunked"}
        wire.send(request_bytes("POST", "/v1/events", headers, b"7D1\r\n" + b"x" * 2001 + b"\r\n"))
        assert (await wire.read_response()).error() == (413, "too_large", None)
        wire.send(b"0\r\n\r\n")
        assert await wire.read_rest() == b""


async def test_a_body_that_nobody_asked_for_is_thrown_away(here: Assembly) -> None:
    """A GET with a body is answered as one without."""
    assert (await request(here.port, "GET", "/healthz", body=b"x" * 1000)).status == 200


# ---- cross-origin requests


async def test_a_page_of_an_allowed_origin_may_read(assemble: Assemble) -> None:
    """The origin is named, never `*`, errors included; and the answer depends on it (T8)."""
    here = await assemble(allowed_origins=(PAGE,))
    for path in ("/healthz", "/v1/nothing", "/v1/stream"):
        headers = (await get(here.port, path, headers={"Origin": PAGE})).headers
        assert headers["access-control-allow-origin"] == PAGE
        assert "X-Correlation-ID" in headers["access-control-expose-headers"]
        assert headers["access-control-allow-credentials"] == "true"
        assert headers["vary"] == "Origin"


async def test_a_preflight_is_answered(assemble: Assemble) -> None:
    """An allowed page learns which methods and headers it may use, without a credential (T8)."""
    here = await assemble(allowed_origins=(PAGE,))
    for path, method in (("/v1/stream", "GET"), ("/v1/events", "POST")):
        headers = {"Origin": PAGE, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": "authorization"}
        response = await request(here.port, "OPTIONS", path, headers=headers)
        assert (response.status, response.body) == (204, b"")
        assert response.headers["access-control-allow-origin"] == PAGE
        assert response.headers["access-control-allow-methods"] == method
        allowed = response.headers["access-control-allow-headers"].lower().split(", ")
        assert {"authorization", "last-event-id", "x-correlation-id", "content-type"} <= set(allowed)


@pytest.mark.parametrize(
    "origin", ["https://evil.example.com", "null", PAGE + ".evil.com", PAGE + ":8443", "http://app.example.com", "http://["]
)
async def test_a_foreign_page_may_not_read(assemble: Assemble, origin: str) -> None:
    """Without the header the browser keeps the answer from the page; the preflight fails (T8)."""
    here = await assemble(allowed_origins=(PAGE,))
    for method in ("GET", "OPTIONS"):
        response = await request(here.port, method, "/healthz", headers={"Origin": origin})
        assert not any(name.startswith("access-control") for name in response.headers)
        assert response.headers["vary"] == "Origin"


async def test_any_page_may_read_where_any_origin_is_allowed(assemble: Assemble) -> None:
    """With `*` in the setting each origin is named back (T8)."""
    here = await assemble(allowed_origins=("*",))
    assert (await get(here.port, "/healthz", headers={"Origin": PAGE})).headers["access-control-allow-origin"] == PAGE


async def test_the_servers_own_pages_may_read(here: Assembly) -> None:
    """A page of the same host needs no setting, also where a proxy ends TLS before it; another port is another origin."""
    for own in (f"http://127.0.0.1:{here.port}", f"https://127.0.0.1:{here.port}"):
        assert (await get(here.port, "/healthz", headers={"Origin": own})).headers["access-control-allow-origin"] == own
    named = {"Host": "Stream.Example.com", "Origin": "https://stream.example.com"}
    assert (await get(here.port, "/healthz", headers=named)).headers["access-control-allow-origin"] == named["Origin"]
    other = {"Origin": f"http://127.0.0.1:{here.port + 1}"}
    assert "access-control-allow-origin" not in (await get(here.port, "/healthz", headers=other)).headers


async def test_a_page_without_an_origin_is_nobodys(here: Assembly) -> None:
    """A sandboxed page's origin is `null`, which is no host, not even that of a request that names none."""
    for origin in ("null", "", "://", "http://"):
        assert "access-control-allow-origin" not in (await get(here.port, "/healthz", headers={"Host": "", "Origin": origin})).headers


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000], ids=["empty", "cut", "not UTF-8", "deep"])
async def test_a_body_that_is_not_json_is_refused(here: Assembly, body: bytes) -> None:
    """On every path that takes one; nothing is done."""
    headers = {"Authorization": f"Bearer {token('root', roles=['admin'])}"}
    for path in ("/v1/revocations", "/v1/sessions", "/v1/renewals"):
        response = await request(here.port, "POST", path, headers=headers, body=body)
        assert response.error() == (400, "invalid_request", None)


# ---- what is logged


async def test_requests_are_logged_without_their_query(here: Assembly, caplog: pytest.LogCaptureFixture) -> None:
    """Method, path, status and time at level DEBUG, refusals with their sentence; tokens in the query never (S7, S10)."""
    caplog.set_level(logging.DEBUG, "tailcast")
    await get(here.port, "/healthz?token=hidden")
    await get(here.port, "/v1/stream?token=hidden.hidden.hidden")
    fields = [record.__dict__["fields"] for record in caplog.records if record.message == "request"]
    assert [(one["path"], one["status"]) for one in fields] == [("/healthz", 200), ("/v1/stream", 401)]
    assert any("refused" in record.message for record in caplog.records)
    assert "hidden" not in str([record.__dict__ for record in caplog.records if record.name.startswith("tailcast")])


async def test_what_looks_like_a_secret_in_a_path_is_not_logged(here: Assembly, caplog: pytest.LogCaptureFixture) -> None:
    """A session's secret may be given where its id belongs, or behind a slash by mistake (S7)."""
    caplog.set_level(logging.DEBUG, "tailcast")
    secret = secrets.token_urlsafe(32)
    for path in (f"/v1/sessions/{secret}", f"/v1/{secret}"):
        await request(here.port, "DELETE", path, token=token(roles=["admin"]))
    written = str([record.__dict__ for record in caplog.records if record.name.startswith("tailcast")])
    assert "/v1/sessions/[redacted]" in written
    assert secret not in written


async def test_answers_name_no_software(here: Assembly) -> None:
    """No `Server` header and no entity tag."""
    headers = (await get(here.port, "/healthz")).headers
    assert not {"server", "etag"} & headers.keys()
