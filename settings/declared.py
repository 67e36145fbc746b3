"""Every setting, declared once: its name, type, default, kind and meaning; not where values come from."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

from settings import kinds
from settings.kinds import GIB, KIB, MIB, TIB, Kind

_DAY = 86_400
_DATA_DIR = Path("data")
# RFC 7518 3.2: a key for HS256 is at least as long as its hash.
_SHORTEST_SECRET_BYTES = 32
# Not `token`, which is a currency to those who send payments.
_SECRETS = (
    "password",
    "passwd",
    "pwd",
    "secret",
    "apikey",
    "accesstoken",
    "refreshtoken",
    "privatekey",
    "clientsecret",
    "cvv",
    "cvc",
    "cardnumber",
    "ssn",
)


@dataclass(frozen=True, slots=True)
class Declaration:
    """What is known of a setting.

    Attributes:
        group: Under which heading `--help` lists it.
        kind: How its value is read and shown.
        meaning: What it does, for `--help` and the documentation.
        hide: Takes the secret part out of its text, for one that holds a secret; None for all others.
        name: Its name, the same everywhere.
        default: Its value when it is not given.
    """

    group: str
    kind: Kind
    meaning: str
    hide: Callable[[str], str] | None
    name: str = ""
    default: Any = None

    def shown(self, value: Any) -> str:
        """Write a value as the operator would, without what is secret in it."""
        written = self.kind.show(value)
        return self.hide(written) if self.hide else written


def _setting(group: str, default: Any, kind: Kind, meaning: str, hide: Callable[[str], str] | None = None) -> Any:
    return dataclasses.field(default=default, metadata={"declaration": Declaration(group, kind, meaning, hide)})


def _without_secret(text: str) -> str:
    return "[redacted]" if text else ""


def _without_password(uri: str) -> str:
    return re.sub(r"^(?>([a-z+]+://)?)([^:/@?]*):[^?]*@", r"\1\2:[redacted]@", uri)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Settings:
    """What the operator chose; a limit that is switched off is `UNLIMITED`, and such a deadline infinity."""

    address: str = _setting(
        "Listening",
        "127.0.0.1",
        kinds.text("an IP address or host name", r"[\w.:%-]+"),
        "Address to listen on.",
    )
    port: int = _setting("Listening", 8080, kinds.whole(0, 65_535), "TCP port to listen on; 0: any free one.")
    max_connections: int = _setting(
        "Listening",
        15_000,
        kinds.limit(kinds.whole(1, 10_000_000)),
        "Connections in all; never more than the limit of open files allows.",
    )
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = _setting(
        "Listening",
        (),
        kinds.several(kinds.network(), "addresses and networks (CIDR), with commas between them"),
        "Proxies whose word on the client's address is taken (X-Forwarded-For, or Forwarded).",
    )
    allowed_origins: tuple[str, ...] = _setting(
        "Listening",
        (),
        kinds.several(kinds.origin(), "origins (scheme://host:port), with commas between them, or * alone", alone="*"),
        "Web origins besides the server's own whose pages may connect; *: any, but without cookies.",
    )
    tls_certificate: Path | None = _setting(  # noqa: RUF009  # a frozen field, whose default is one too
        "Listening",
        None,
        kinds.pem_file(),
        "Certificate for TLS, and behind it those that lead to its authority; empty: no TLS. SIGHUP reads it again.",
    )
    tls_key: Path | None = _setting(  # noqa: RUF009  # the same
        "Listening",
        None,
        kinds.pem_file(),
        "Private key of tls_certificate, without a passphrase.",
    )
    mongodb_uri: str = _setting(
        "Log",
        "",
        kinds.text("a URI that starts with mongodb:// or mongodb+srv://", r"(mongodb(\+srv)?://[^\s/]\S*)?"),
        "MongoDB that holds the log; empty: one of the server's own, in data_dir.",
        hide=_without_password,
    )
    database: str = _setting(
        "Log",
        "tailcast",
        kinds.text("a name of up to 63 letters, digits, _ and -", r"[A-Za-z0-9_-]{1,63}"),
        "Name of the database in MongoDB.",
    )
    data_dir: Path = _setting("Log", _DATA_DIR, kinds.path(), "Directory of the server's own MongoDB.")  # noqa: RUF009  # a frozen field, whose default is one too
    log_bytes: int = _setting(
        "Log",
        GIB,
        kinds.size(4 * KIB, 1024 * TIB),
        "How much the log retains; older entries make room for new ones.",
    )
    log_documents: int = _setting(
        "Log",
        0,
        kinds.whole(0, 2**31 - 1),
        "How many entries the log retains at most; 0: as many as log_bytes holds.",
    )
    window_bytes: int = _setting(
        "Log",
        64 * MIB,
        kinds.size(64 * KIB, TIB),
        "Memory for the newest entries, shared by all who read them.",
    )
    append_seconds: float = _setting(
        "Log",
        5.0,
        kinds.seconds(0.01, 300),
        "How long a publish waits for MongoDB before it is answered 503.",
    )
    ready_lag_seconds: float = _setting(
        "Log",
        5.0,
        kinds.deadline(_DAY),
        "How far behind the log's head the server may be and still call itself ready.",
    )
    jwt_secret: str = _setting(
        "Credentials",
        "",
        kinds.secret(shortest_bytes=_SHORTEST_SECRET_BYTES),
        "Secret that HS256 tokens are signed with; only from the environment; empty: none.",
        hide=_without_secret,
    )
    jwt_public_key: str = _setting(
        "Credentials",
        "",
        kinds.public_keys(),
        "Public keys that RS256, ES256 or EdDSA tokens are checked with, any of them; empty: none.",
    )
    jwks_url: str = _setting(
        "Credentials",
        "",
        kinds.key_set_url(),
        "URL of a JWKS with the issuer's public keys; empty: none.",
    )
    jwks_seconds: float = _setting(
        "Credentials",
        300.0,
        kinds.seconds(1, _DAY),
        "How old the keys of jwks_url may get before they are fetched again, in the background.",
    )
    jwt_algorithms: tuple[str, ...] = _setting(
        "Credentials",
        (),
        kinds.several(
            kinds.choice("HS256", "RS256", "ES256", "EdDSA"),
            "some of HS256, RS256, ES256, EdDSA, with commas between them",
        ),
        "Algorithms that tokens may be signed with; empty: those that the keys are for.",
    )
    jwt_issuer: str = _setting(
        "Credentials",
        "",
        kinds.text("text", r".*"),
        "Issuer (iss) that a token must name; empty: any or none.",
    )
    jwt_audience: str = _setting(
        "Credentials",
        "",
        kinds.text("text", r".*"),
        "Audience (aud) that a token must name; empty: a token must name none.",
    )
    jwt_leeway_seconds: float = _setting(
        "Credentials",
        5.0,
        kinds.seconds(0, 300),
        "How far clocks may differ when a token's times are checked.",
    )
    auth_seconds: float = _setting(
        "Credentials",
        10.0,
        kinds.deadline(300),
        "How long a WebSocket without a credential may take to send one.",
    )
    ticket_seconds: float = _setting(
        "Credentials",
        30.0,
        kinds.seconds(1, 3600),
        "How long a ticket is good for opening a stream.",
    )
    resume_seconds: float = _setting(
        "Credentials",
        3600.0,
        kinds.seconds(1, 30 * _DAY),
        "How long a resume token is good; never longer than the credential of its connection.",
    )
    session_seconds: float = _setting(
        "Credentials",
        12 * 3600.0,
        kinds.seconds(1, 366 * _DAY),
        "How long a session lasts, unless a shorter time is asked for.",
    )
    revocation_seconds: float = _setting(
        "Credentials",
        30.0 * _DAY,
        kinds.seconds(1, 3660 * _DAY),
        "How long a revocation is kept; must be longer than any token lives, and than sessions do.",
    )
    connections_per_user: int = _setting(
        "Limits",
        10,
        kinds.limit(kinds.whole(1, 1_000_000)),
        "Connections of one user; one more closes the oldest.",
    )
    connections_per_org: int = _setting(
        "Limits",
        12_000,
        kinds.limit(kinds.whole(1, 10_000_000)),
        "Connections of one organisation; one more is refused, so that it cannot crowd out the rest.",
    )
    connects_per_minute: int = _setting(
        "Limits",
        5,
        kinds.limit(kinds.whole(1, 1_000_000)),
        "Streams and WebSockets that one address may open, in the long run; IPv6 counts by /64.",
    )
    connects_burst: int = _setting(
        "Limits",
        20,
        kinds.limit(kinds.whole(1, 1_000_000)),
        "How many of them it may open at once: ten tabs, and again after a restart.",
    )
    failed_logins_per_minute: int = _setting(
        "Limits",
        60,
        kinds.limit(kinds.whole(1, 1_000_000)),
        "Credentials of one address that do not hold, before none is looked at any more.",
    )
    subscriptions_per_connection: int = _setting(
        "Limits", 100, kinds.limit(kinds.whole(1, 100_000)), "Subscriptions that one WebSocket may hold."
    )
    messages_per_second: int = _setting(
        "Limits",
        50,
        kinds.limit(kinds.whole(1, 1_000_000)),
        "Messages that one WebSocket may send; four seconds' worth at once.",
    )
    events_per_second: int = _setting(
        "Limits",
        50_000,
        kinds.limit(kinds.whole(1, 100_000_000)),
        "Events that one publisher may publish; two seconds' worth at once.",
    )
    org_events_per_second: int = _setting(
        "Limits",
        50_000,
        kinds.limit(kinds.whole(1, 100_000_000)),
        "Events that all publishers of one organisation together may publish; two seconds' worth at once.",
    )
    grants_per_minute: int = _setting(
        "Limits",
        120,
        kinds.limit(kinds.whole(1, 1_000_000)),
        "Tickets and renewals that one user may ask for.",
    )
    payments_per_minute: int = _setting(
        "Limits",
        120,
        kinds.limit(kinds.whole(1, 1_000_000)),
        "Payment streams that one user may make or change, without the role publisher or admin.",
    )
    agent_subscriptions_per_minute: int = _setting(
        "Limits",
        60,
        kinds.limit(kinds.whole(1, 1_000_000)),
        "Subscriptions of one agent, beyond which it is reported in the log.",
    )
    max_frame_bytes: int = _setting(
        "Limits",
        64 * KIB,
        kinds.limit(kinds.size(1 * KIB, GIB)),
        "Size of one WebSocket message from a client.",
    )
    max_event_bytes: int = _setting(
        "Limits",
        256 * KIB,
        # MongoDB takes documents of up to 16 MiB, and an entry is an event with some fields around it.
        kinds.limit(kinds.size(1 * KIB, 15 * MIB), off=15 * MIB),
        "Size of one published event; without a limit, the 15 MiB that MongoDB can hold.",
    )
    max_body_bytes: int = _setting("Limits", 8 * MIB, kinds.limit(kinds.size(1 * KIB, GIB)), "Size of the body of one HTTP request.")
    max_batch_events: int = _setting("Limits", 1000, kinds.limit(kinds.whole(1, 1_000_000)), "Events published in one request.")
    refused_fields: tuple[str, ...] = _setting(
        "Limits",
        _SECRETS,
        kinds.several(
            kinds.text("a name", r"[A-Za-z0-9_-]*[A-Za-z0-9][A-Za-z0-9_-]*"), "names of letters, digits, _ and -, with commas between them"
        ),
        "Fields that no published payload may have at any depth; case, _ and - make no difference; empty: none.",
    )
    chunk_bytes: int = _setting(
        "Delivery",
        64 * KIB,
        kinds.size(1 * KIB, 16 * MIB),
        "Memory that a reader who is slow, or catching up, may hold.",
    )
    gzip: bool = _setting(
        "Delivery",
        True,
        kinds.switch(),
        "Compress event streams for clients that accept it.",
    )
    heartbeat_seconds: float = _setting(
        "Delivery",
        15.0,
        kinds.deadline(_DAY),
        "How often a connection hears from the server; 0: only when there is an event.",
    )
    stale_seconds: float = _setting(
        "Delivery",
        300.0,
        kinds.deadline(_DAY),
        "How long a connection may make no progress before it is closed.",
    )
    drain_seconds: float = _setting(
        "Operation",
        10.0,
        kinds.seconds(0, 3600),
        "Over how long clients come back after a stop, and how long it may wait for their last bytes.",
    )
    log_level: str = _setting(
        "Operation",
        "INFO",
        kinds.choice("DEBUG", "INFO", "WARNING", "ERROR"),
        "Least important lines that are logged.",
    )
    log_format: str = _setting(
        "Operation",
        "auto",
        kinds.choice("auto", "json", "text"),
        "Form of log lines; auto: text on a terminal, else JSON.",
    )
    demo: bool = _setting("Operation", False, kinds.switch(), "Publish sample events of every family, to look around.")

    def __repr__(self) -> str:
        shown = (f"{one.name}={one.shown(getattr(self, one.name))!r}" for one in DECLARATIONS)
        return f"Settings({', '.join(shown)})"


DECLARATIONS: tuple[Declaration, ...] = tuple(
    dataclasses.replace(field.metadata["declaration"], name=field.name, default=field.default) for field in dataclasses.fields(Settings)
)
