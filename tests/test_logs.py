"""Tests of logs.py."""

from __future__ import annotations

import io
import json
import logging
import re
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from jwt.algorithms import OKPAlgorithm

from logs import configure, redact, rfc3339

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1MSJ9.c2lnbmF0dXJl"
PEM = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\n-----END EC PRIVATE KEY-----"

logger = logging.getLogger("tailcast.tests")


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


class BrokenStream(io.StringIO):
    """A stream that takes nothing, as a pipe whose reader has left."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


@pytest.fixture(autouse=True)
def _loggers_as_they_were(expected_logs: list[str]) -> Iterator[None]:
    """Put the loggers back that a test configured, and let it log what it likes."""
    expected_logs.append("")
    root, ours = logging.getLogger(), logging.getLogger("tailcast")
    before = (root.handlers[:], root.level, ours.level)
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])


def logged(stream: io.StringIO) -> dict[str, Any]:
    """Return the one JSON line that was written."""
    (line,) = stream.getvalue().splitlines()
    facts: dict[str, Any] = json.loads(line)
    return facts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"token was {JWT}, sorry", "token was [redacted], sorry"),
        ("eyJhbGciOiJub25lIn0.eyJzdWIiOiJ1MSJ9. unsigned", "[redacted] unsigned"),
        ("Authorization: Bearer abc.def", "Authorization: [redacted]"),
        ("{'Authorization': 'Basic dTpw', 'Host': 'h'}", "{'Authorization': '[redacted]', 'Host': 'h'}"),
        ("Cookie: session=abc; theme=dark", "Cookie: [redacted]"),
        ("sent Bearer abc123, refused", "sent Bearer [redacted], refused"),
        ("expected a bearer token in the header", "expected a bearer token in the header"),
        ("GET /v1/stream?topics=a&token=abc&from=1", "GET /v1/stream?topics=a&token=[redacted]&from=1"),
        ("/v1/stream?ticket=t1&resume=r1", "/v1/stream?ticket=[redacted]&resume=[redacted]"),
        (
            "access_token=a refreshToken=b client_secret=c",
            " ".join(("access_token=[redacted]", "refreshToken=[redacted]", "client_secret=[redacted]")),
        ),
        (
            "key=abc api_key=d apiKey=e monkey=f",
            "key=[redacted] api_key=[redacted] apiKey=[redacted] monkey=f",
        ),
        ("password='two words' next", "password=[redacted] next"),
        ("password: hunter2", "password: [redacted]"),
        ('{"token": "a\\"b", "n": 1}', '{"token": "[redacted]", "n": 1}'),
        ("{'password': 'a'}", "{'password': \"[redacted]\"}"),
        ('{"body": "{\\"token\\": \\"a\\", \\"n\\": 1}"}', '{"body": "{\\"token\\": "[redacted]", \\"n\\": 1}"}'),
        ("next=/v1/stream%3Ftoken%3Dabc&n=1", "next=/v1/stream%3Ftoken%3D[redacted]&n=1"),
        ("Sec-WebSocket-Protocol: bearer, abc", "Sec-WebSocket-Protocol: [redacted]"),
        ("offered bearer.abc, tailcast", "offered bearer.[redacted], tailcast"),
        ("It is a bearer. Next", "It is a bearer. Next"),
        ('{"kty":"oct","k":"c2VjcmV0c2VjcmV0c2VjcmV0"}', '{"kty":"oct","k":"[redacted]"}'),
        ('{"k": "short", "d": 5}', '{"k": "short", "d": 5}'),
        ("resumed=3 tokens=5 unknown ticket: refused", "resumed=3 tokens=5 unknown ticket: refused"),
        ("mongodb://me:p@ss:w@db.example:1/x", "mongodb://me:[redacted]@db.example:1/x"),
        ("redis://:pw@h", "redis://:[redacted]@h"),
        ("mongodb://h1:27017,h2:27017/db", "mongodb://h1:27017,h2:27017/db"),
        (f"key is {PEM} there", "key is [redacted] there"),
        (repr(PEM)[:50], "'[redacted]"),
        ("alice.b+x@dept.example.com wrote", "a***@d*** wrote"),
        ("?user=alice%40dept.example.com", "?user=a***%40d***"),
        ("@example and a@b are none", "@example and a@b are none"),
        ("call +49 170 1234567 or +1 (555) 123-4567.", "call +*** or +***."),
        ("+491701234567", "+***"),
        (
            "+1000 events, +02:00, 1700000000000-00ff, +12345",
            "+1000 events, +02:00, 1700000000000-00ff, +12345",
        ),
        ("connection 4915112345678 of 10.0.0.1:8080", "connection 4915112345678 of 10.0.0.1:8080"),
    ],
)
def test_secret_and_personal_text_is_taken_out(text: str, expected: str) -> None:
    """Credentials are redacted, addresses and phone numbers masked, and all else is left as it is."""
    assert redact(text) == expected


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "a.",
        "a@",
        "://a:",
        "eyJ",
        "token=",
        "token" + " ",
        "+1 22 ",
        '"token": "\\',
        "token\\",
        'token\\":\\"',
        "bearer.",
        '"k":"aaaaaaaaaaaaaaaa',
        "-----BEGIN PRIVATE KEY-----",
    ],
)
def test_no_text_makes_redaction_slow(unit: str) -> None:
    """The time that redaction takes grows with the length of the text, not with its square."""
    began = time.process_time()
    redact(unit * (200_000 // len(unit)))
    assert time.process_time() - began < 5


def test_a_line_is_a_json_object_with_its_fields() -> None:
    """A JSON line has time, level, logger and message, and then the fields that were passed."""
    stream = io.StringIO()
    configure(stream=stream)
    logger.info("opened %s", "c1", extra={"fields": {"correlationId": "k1", "count": 3, "ratio": 0.5, "gone": None}})
    facts = logged(stream)
    assert facts.pop("time").endswith("Z")
    assert facts == {
        "level": "INFO",
        "logger": "tailcast.tests",
        "message": "opened c1",
        "correlationId": "k1",
        "count": 3,
        "ratio": 0.5,
        "gone": None,
    }


def test_half_a_character_does_not_lose_the_line() -> None:
    """What JSON can write and UTF-8 cannot is escaped."""
    stream = io.StringIO()
    configure(stream=stream)
    logger.info("here", extra={"fields": {"user": "\ud83d"}})
    assert '"user": "\\ud83d"' in stream.getvalue()
    assert logged(stream)["user"] == "\ud83d"


def test_time_is_rfc_3339_with_milliseconds() -> None:
    """Times are written in UTC, to the millisecond, in the form of RFC 3339."""
    assert rfc3339(1_700_000_000.25) == "2023-11-14T22:13:20.250Z"


def test_arguments_fields_and_tracebacks_are_redacted() -> None:
    """What is secret is taken out wherever in a record it stands."""
    stream = io.StringIO()
    configure(stream=stream)
    try:
        raise ValueError(f"cannot read {JWT}")
    except ValueError:
        fields = {
            "url": "/x?token=abc",
            "resumeToken": "abc",
            "headers": {"Authorization": "Basic abc", "Host": "h"},
            "counts": {"carol@example.com": 1},
            "list": ["a@example.com", 1],
            "error": ValueError("password=abc"),
        }
        logger.exception("failed for %s", "bob@example.com", extra={"fields": fields}, stack_info=True)
    facts = logged(stream)
    assert facts["message"] == "failed for b***@e***"
    assert "ValueError: cannot read [redacted]" in facts["exception"]
    assert "Stack (most recent call last)" in facts["exception"]
    assert facts["url"] == "/x?token=[redacted]"
    assert facts["resumeToken"] == "[redacted]"
    assert facts["headers"] == {"Authorization": "[redacted]", "Host": "h"}
    assert facts["counts"] == {"c***@e***": 1}
    assert facts["list"] == ["a***@e***", 1]
    assert facts["error"] == "password=[redacted]"
    assert "abc" not in stream.getvalue()
    assert JWT not in stream.getvalue()


def test_a_field_does_not_replace_what_a_line_always_has() -> None:
    """A field named like a member that every line has stands beside it, under a name with an underscore."""
    stream = io.StringIO()
    configure(stream=stream)
    logger.info("true", extra={"fields": {"message": "false", "level": "x"}})
    facts = logged(stream)
    assert (facts["message"], facts["message_"], facts["level"], facts["level_"]) == (
        "true",
        "false",
        "INFO",
        "x",
    )


def test_terminal_gets_readable_text() -> None:
    """With `auto`, a terminal gets one readable line, fields behind it, and the traceback below."""
    stream = Terminal()
    configure(stream=stream)
    try:
        raise ValueError("no")
    except ValueError:
        logger.exception("failed", extra={"fields": {"correlationId": "k1", "at": [1, 2]}})
    first, *rest = stream.getvalue().splitlines()
    assert first[25:] == "ERROR   tailcast.tests: failed correlationId=k1 at=[1, 2]"
    assert rest[0] == "Traceback (most recent call last):"
    assert rest[-1] == "ValueError: no"


def test_nobody_forges_a_line_of_text() -> None:
    """A line end or a terminal's control character within a message or a field is written as an escape."""
    stream = io.StringIO()
    configure(format="text", stream=stream)
    logger.info("a\nb", extra={"fields": {"name": "c\r\x1b[2Jd"}})
    assert stream.getvalue()[25:] == "INFO    tailcast.tests: a\\nb name=c\\r\\x1b[2Jd\n"


def test_level_is_for_our_lines_and_libraries_are_heard_from_warning_up() -> None:
    """At DEBUG, Tailcast's own lines of that level are written, those of libraries only from WARNING up."""
    stream = io.StringIO()
    configure(level="DEBUG", stream=stream)
    logger.debug("ours")
    logging.getLogger("library").info("theirs")
    logging.getLogger("library").warning("their warning")
    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == [
        "ours",
        "their warning",
    ]
    configure(level="ERROR", stream=stream)
    logger.warning("not this")
    assert "not this" not in stream.getvalue()


def test_standard_error_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a stream, lines go to standard error."""
    configure(format="json")
    logger.info("here")
    assert '"message":"here"' in capsys.readouterr().err


def test_a_line_that_cannot_be_written_shows_no_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a record whose arguments do not fit its text, only its place is told, not the arguments."""
    told = io.StringIO()
    monkeypatch.setattr("sys.__stderr__", told)
    logging.getLogger().handlers[:] = []  # pytest's own handlers would raise at what follows
    stream = io.StringIO()
    configure(stream=stream)
    handlers = logging.getLogger().handlers
    record = logger.makeRecord("tailcast.tests", logging.INFO, "f.py", 7, "%s %s", (JWT,), None)
    handlers[0].handle(record)
    assert stream.getvalue() == ""
    assert told.getvalue() == "a log line of f.py:7 was lost: TypeError\n"


def test_a_reader_who_left_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that takes nothing any more loses lines, and raises nothing at who logs."""
    monkeypatch.setattr("sys.__stderr__", BrokenStream())
    configure(stream=BrokenStream())
    logger.info("nobody reads this")


CODE = "q7Zk-0a_Xv93LmNbYt5Rw2"  # as tickets, sessions and resume tokens are: letters and digits that follow no pattern
KEY = ed25519.Ed25519PrivateKey.generate()
KEY_PEM = KEY.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
KEY_JWK = json.loads(OKPAlgorithm.to_jwk(KEY))
SIGNED = jwt.encode({"sub": "u1"}, KEY, algorithm="EdDSA")

# Every kind of secret that this server ever sees: the part that must not be read, and what may be logged around it.
SECRETS = {
    "bearer token": (SIGNED, "Authorization: Bearer {}", "Bearer {}", "{}"),
    "bearer code": (CODE, "Authorization: Bearer {}", "sent Bearer {}, refused"),
    "query token": (SIGNED, "GET /v1/stream?topics=a&token={}&from=1 HTTP/1.1", "/v1/stream?token={}"),
    "opaque query token": (CODE, "GET /v1/stream?token={} HTTP/1.1", "https://h/ws?a=1&access_token={}#x", "next=%2Fws%3Ftoken%3D{}"),
    "ticket": (CODE, "GET /v1/stream?ticket={} HTTP/1.1", '{{"ticket":"{}","expiresAt":"x"}}', "ticket={}"),
    "resume token": (CODE, "/ws?resume={}&x=1", '{{"type":"welcome","resumeToken":"{}"}}', "{{'resumeToken': '{}'}}"),
    "session cookie": (CODE, "Cookie: theme=dark; session={}", "Set-Cookie: session={}; HttpOnly", "session={}", '{{"session": "{}"}}'),
    "subprotocol token": (SIGNED, "Sec-WebSocket-Protocol: tailcast, {}", "Sec-WebSocket-Protocol: bearer.{}"),
    "opaque subprotocol token": (CODE, "Sec-WebSocket-Protocol: bearer, {}", "Sec-WebSocket-Protocol: bearer.{}", "bearer.{}"),
    "auth message": (CODE, '{{"type": "auth", "token": "{}"}}', 'b\'{{"type":"auth","token":"{}"}}\'', '{{\\"token\\":\\"{}\\"}}'),
    "private key": (
        KEY_PEM.splitlines()[1],
        "cannot read -----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\\n{}",
    ),
    "private key in a JWKS": (KEY_JWK["d"], '{{"keys":[{{"kty":"OKP","crv":"Ed25519","d":"{}","x":"abc"}}]}}'),
    "password of MongoDB": (
        "p@ss:w0rd" + CODE,
        "mongodb://me:{}@db.example:27017/x",
        "mongodb+srv://me:{}@db.example/?w=1",
        "no server at mongodb://me:{}@h",
    ),
    "secret of the tokens": (CODE, "TAILCAST_JWT_SECRET={}", "--jwt_secret={}", "jwt_secret: {}", "Settings(jwt_secret='{}')"),
    "e-mail address": ("alice.liddell@dept.example.com", "{} wrote", "user={}", '"sub":"{}"'),
    "phone number": ("+491701234567", "call {}", "phone={}", '"phone":"{}"'),
}
CASES = [(kind, secret, around) for kind, (secret, *texts) in SECRETS.items() for around in texts]


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize(("kind", "secret", "around"), CASES, ids=[f"{kind}: {around[:40]}" for kind, _, around in CASES])
def test_no_kind_of_secret_gets_into_the_log(kind: str, secret: str, around: str, form: str) -> None:
    """Wherever in a record it stands, and whatever stands around it, no secret that the server knows is written (S7)."""
    stream = io.StringIO()
    configure(format=form, level="DEBUG", stream=stream)
    text = around.format(secret)
    fields = {"url": text, "nested": {"list": [text]}, "error": ValueError(text), "raw": text.encode()}
    try:
        raise RuntimeError(text)
    except RuntimeError:
        logger.debug(text, extra={"fields": fields}, exc_info=True)
        logger.debug("got %s and %r", text, text)
    assert "url" in stream.getvalue()
    assert secret not in stream.getvalue(), kind
    assert all(part not in stream.getvalue() for part in re.split(r"[@.]", secret) if len(part) > 12)


@pytest.mark.parametrize("name", ["token", "resumeToken", "ticket", "session", "Authorization", "cookie", "jwt_secret", "password"])
def test_a_field_with_the_name_of_a_secret_shows_nothing(name: str) -> None:
    """Passed as a field of its own, a secret needs nothing around it to be known."""
    stream = io.StringIO()
    configure(stream=stream)
    logger.info("here", extra={"fields": {name: CODE, "headers": {name: [CODE]}}})
    assert CODE not in stream.getvalue()
