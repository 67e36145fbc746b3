"""Log lines as JSON or text, with what is secret or personal taken out; only server.py imports this.

All others use `logging.getLogger("tailcast.<layer>")`, and pass facts beside the sentence as
`extra={"fields": {"correlationId": ..., "connection": ...}}`: each becomes a member of the JSON object, or
`name=value` behind the text. By `correlationId` one event or connection is followed through all its lines.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TextIO

import msgspec

REDACTED = "[redacted]"

# Parameters and fields whose values are secret. A longer name counts when it ends so, as `accessToken` does;
# but `key` only as a word of its own, or else every monkey would.
_SECRET_NAME = (
    r"(?:token|ticket|resume|password|passwd|pwd|secret|credential|session|authorization|cookie|jwt"
    r"|(?:api|access|private|secret|signing)[_-]?key|(?<![a-z0-9])key)"
)
_VALUE = r"""(?:\\{1,4}"[^"\\]*\\{1,4}"|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^\s&;,"'()\[\]{}<>]+)"""


def _masked_phone(match: re.Match[str]) -> str:
    digits = sum(character.isdigit() for character in match[0])
    return "+***" if 8 <= digits <= 15 else match[0]  # ITU-T E.164: at most 15; shorter ones are rather amounts


# What is taken out, in this order. Each repetition is bounded, or begins only where its run of characters
# does, so that no line can make the search slow.
_RULES: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    # Private keys in PEM, also when cut off or written on one line.
    (
        re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,40}-----|\Z)", re.S),
        REDACTED,
    ),
    # The password of a URI; it may hold an @ itself.
    (re.compile(r"(://[^\s/:@]*):[^\s/]*@"), rf"\1:{REDACTED}@"),
    # JWTs, signed, unsigned or encrypted: base64url of `{"` and what follows.
    (re.compile(r"(?<![\w-])(?>[\w-]*?eyJ)[\w-]*+(?:\.[\w-]*){1,4}"), REDACTED),
    # Headers that carry credentials, to the end of the line or of the quotation.
    (
        re.compile(r"\b((?:proxy-)?authorization|(?:set-)?cookie|sec-websocket-protocol)(['\"]?\s*:\s*['\"]?)[^'\"\r\n]+", re.I),
        rf"\1\2{REDACTED}",
    ),
    (re.compile(r"\b(Bearer) +(?!tokens?(?:\s|$))[^\s\"',;]+", re.I), rf"\1 {REDACTED}"),
    (re.compile(r"\b(bearer\.)[^\s\"',;]+", re.I), rf"\1{REDACTED}"),  # a WebSocket subprotocol
    # The members of a private or symmetric key in JSON (RFC 7518 section 6); they are base64url and long, unlike other short names' values.
    (re.compile(r"(\"(?:k|d|p|q|dp|dq|qi)\"\s{0,3}:\s{0,3})\"[\w-]{16,}+\""), rf'\1"{REDACTED}"'),
    # `name=value` in URLs, forms and prose; `"name": value` in JSON, also within a string; and `password: value`.
    (re.compile(rf"({_SECRET_NAME}[\"']?(?:\s{{0,3}}=\s{{0,3}}|%3D)){_VALUE}", re.I), rf"\1{REDACTED}"),
    (re.compile(rf"({_SECRET_NAME}\\{{0,4}}[\"']\s{{0,3}}:\s{{0,3}})(?![\"']\[){_VALUE}", re.I), rf'\1"{REDACTED}"'),
    (re.compile(rf"((?:password|passwd|secret)\s{{0,3}}:\s{{1,3}}){_VALUE}", re.I), rf"\1{REDACTED}"),
    # E-mail addresses (RFC 5321 4.5.3.1: up to 64 characters before the @), also as they stand in a URL.
    (re.compile(r"([\w.+'-])[\w.%+'-]{0,63}(@|%40)(\w)[\w-]{0,62}(?:\.[\w-]{1,63}){1,8}"), r"\1***\2\3***"),
    # Phone numbers, only as written internationally: other digits may be anything.
    (re.compile(r"(?<![\w+])\+[1-9]\d{0,2}(?:[ ./-]?\(?\d{2,4}\)?){2,5}(?!\d)"), _masked_phone),
)
_SECRET_FIELD = re.compile(rf".*{_SECRET_NAME}", re.I)
# Texts that no rule can match, such as ids and names: none of the signs that every rule needs one of. The first is so short a list that
# it also needs no look ahead. Ten thousand clients that connect at once are ten thousand lines, most of each such texts.
_PLAIN = re.compile(r"[\w,/-]*")
_HARMLESS = re.compile(r"(?:(?!eyj|bearer|-----)[\w ./,-]){0,80}", re.I)
_encode = msgspec.json.Encoder().encode


def redact(text: str) -> str:
    """Return a text without credentials, and with e-mail addresses and phone numbers masked."""
    if _PLAIN.fullmatch(text) or _HARMLESS.fullmatch(text):
        return text
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


def configure(level: str = "INFO", format: str = "auto", stream: TextIO | None = None) -> None:
    """Write the log lines of everything in this process to one stream, in one form, redacted.

    Args:
        level: Least important level of Tailcast's own lines. Libraries are heard from WARNING up.
        format: `json`, `text`, or `auto`: text if the stream is a terminal, else JSON.
        stream: Where to write; None is standard error.
    """
    stream = stream or sys.stderr
    if format == "auto":
        format = "text" if stream.isatty() else "json"
    handler = _StreamHandler(stream)
    handler.setFormatter(_FORMATTERS[format]())
    # Nothing below writes these facts, which every record would be given otherwise.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("tailcast").setLevel(level)


class _StreamHandler(logging.StreamHandler[TextIO]):
    """Writes lines; of one that cannot be written it says only where it came from.

    The standard library would print the arguments as they are, and with them whatever secret they hold.
    """

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[0]
        place = f"{record.filename}:{record.lineno}"
        with contextlib.suppress(OSError, ValueError):  # standard error may be gone too, or closed
            print(f"a log line of {place} was lost: {error.__name__ if error else error}", file=sys.__stderr__)


class _Formatter(logging.Formatter):
    """What both forms share: the facts of a record, redacted."""

    def facts(self, record: logging.LogRecord) -> dict[str, Any]:
        """Return the members of the JSON object, in their order; a field does not replace one of ours."""
        facts: dict[str, Any] = {
            "time": rfc3339(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": redact(record.getMessage()),
        }
        if trace := self._trace(record):
            facts["exception"] = redact(trace)
        for name, value in getattr(record, "fields", {}).items():
            facts[f"{name}_" if name in facts else name] = _redacted_field(name, value)
        return facts

    def _trace(self, record: logging.LogRecord) -> str:
        parts = [self.formatException(record.exc_info)] if record.exc_info else []
        if record.stack_info:
            parts.append(self.formatStack(record.stack_info))
        return "\n".join(parts)


class JsonFormatter(_Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        facts = self.facts(record)
        try:
            return _encode(facts).decode()
        except UnicodeError:  # half a character, which has no UTF-8
            return json.dumps(facts)


class TextFormatter(_Formatter):
    """One readable line, and below it the traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a line end within the message is escaped, so that no client can forge a line."""
        facts = self.facts(record)
        time, level, logger = facts.pop("time"), facts.pop("level"), facts.pop("logger")
        message = _on_one_line(facts.pop("message"))
        trace = facts.pop("exception", None)
        fields = "".join(f" {name}={_on_one_line(_as_json(value))}" for name, value in facts.items())
        return f"{time} {level:<7} {logger}: {message}{fields}" + (f"\n{trace}" if trace else "")


_FORMATTERS: Mapping[str, type[_Formatter]] = {"json": JsonFormatter, "text": TextFormatter}


def rfc3339(seconds: float) -> str:
    """Write seconds since 1970 as RFC 3339 with milliseconds, in UTC."""
    whole, milliseconds = divmod(int(seconds * 1000), 1000)
    return f"{_whole_second(whole)}.{milliseconds:03d}Z"


@lru_cache(maxsize=4)
def _whole_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _redacted_field(name: str, value: object) -> object:
    """Return what JSON can hold of a field's value, redacted by its own name and those inside it."""
    if _is_secret(name) and value:
        return REDACTED
    match value:
        case None | bool() | int() | float():
            return value
        case Mapping():
            return {redact(str(key)): _redacted_field(str(key), item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_redacted_field("", item) for item in value]
    return redact(str(value))


@lru_cache(maxsize=256)
def _is_secret(name: str) -> bool:
    return _SECRET_FIELD.fullmatch(name) is not None


def _as_json(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _on_one_line(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
