"""Nothing secret leaks (S7): a real server at its most talkative gets every kind of secret through every door, and says none of them."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from tests.handlers.assembly import token
from tests.handlers.clients import BINARY, EventStream, RawWebSocket, Wire, event, frame, get, publish, request, request_bytes
from tests.server_process import SECRET, ServerProcess

EMAIL = "alice.liddell@dept.example.com"
PHONE = "+491701234567"


def _pem() -> str:
    key = ed25519.Ed25519PrivateKey.generate()
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


class Visitor:
    """Goes through all doors of a server, and remembers each secret that it showed or was given."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.secrets: dict[str, str] = {"the secret of the tokens": SECRET, "e-mail": EMAIL, "phone": PHONE}

    def keep(self, name: str, secret: str) -> str:
        """Remember a secret, and return it. Of a token, its signature is looked for too."""
        self.secrets[name] = secret
        signature = secret.rpartition(".")[2]
        if secret.startswith("eyJ") and signature:
            self.secrets[f"signature of {name}"] = signature
        return secret

    def code(self, name: str) -> str:
        """Return a new secret that looks like none that follows a pattern."""
        return self.keep(name, secrets.token_urlsafe(24))

    def tokens(self, name: str) -> Iterator[str]:
        """Return a token that holds, one that did, one that was forged, one without a signature, a code, and a private key on one line."""
        yield self.keep(f"good token, {name}", token("u1", jti=secrets.token_hex(4)))
        yield self.keep(f"expired token, {name}", token("u1", seconds=-60))
        yield self.keep(f"forged token, {name}", token("u1", secret=secrets.token_hex(32)))
        yield self.keep(f"cut token, {name}", token("u1").rpartition(".")[0] + ".")
        yield self.code(f"opaque token, {name}")


async def _stream(visitor: Visitor, query: str = "", **headers: str) -> dict[str, Any] | None:
    """Open a stream; return its welcome, None if it was refused."""
    async with EventStream(visitor.port, query, **headers) as stream:
        return (await stream.welcome()).json() if stream.head.status == 200 else None


async def by_header_and_query(visitor: Visitor) -> None:
    """Tokens of every kind where tokens belong."""
    for secret in visitor.tokens("header"):
        await _stream(visitor, Authorization=f"Bearer {secret}")
        await publish(visitor.port, event(), secret)
        await request(visitor.port, "POST", "/v1/tickets", token=secret)
    for secret in visitor.tokens("query"):
        await _stream(visitor, f"?token={secret}&topics=a")
        await _stream(visitor, f"?topcs=a&token={secret}")
        await get(visitor.port, f"/v1/nothing?token={secret}")
        await get(visitor.port, f"/ws?token={secret}")
        await get(visitor.port, f"/v1/stream?token={secret}&x={'x' * 9000}")
    await get(visitor.port, "/v1/stream", headers={"Authorization": f"Basic {visitor.code('basic')}"})
    await get(visitor.port, "/v1/stream", token=visitor.keep("private key", _pem().replace("\n", "")))


async def by_websocket(visitor: Visitor) -> None:
    """Subprotocols and messages, good ones and those that are answered with an error."""
    for form in ("bearer.{}", "tailcast, bearer.{}", "bearer, {}"):
        for secret in visitor.tokens(form):
            async with RawWebSocket(visitor.port, headers={"Sec-WebSocket-Protocol": form.format(secret)}):
                pass
    for secret in visitor.tokens("auth"):
        async with RawWebSocket(visitor.port) as opened:
            opened.say({"type": "auth", "token": secret, "ref": "1"}, {"type": "auth", "token": secret})
            await opened.next()
    async with RawWebSocket(visitor.port, token=next(visitor.tokens("odd messages"))) as opened:
        await opened.next("welcome")
        opened.say(
            {"type": "auth", "tokn": visitor.code("misspelled")},
            {"type": "auth", "token": [visitor.code("in a list")]},
            {"type": "subscribe", "topic": "a", "position": visitor.code("position")},
            visitor.code("no JSON").encode(),
        )
        opened.send(frame(BINARY, visitor.code("binary").encode()))
        for _ in range(5):
            await opened.next()


async def by_session(visitor: Visitor) -> None:
    """A session from its birth to its end, and cookies that are none."""
    admin = visitor.keep("admin's token", token("root", roles=["admin"]))
    for user in ("u1", EMAIL, PHONE):
        opened = await request(visitor.port, "POST", "/v1/sessions", token=admin, body=f'{{"sub": "{user}"}}'.encode())
        assert opened.status == 201
        session = visitor.keep(f"session of {user}", opened.json()["session"])
        assert await _stream(visitor, Cookie=f"theme=dark; session={session}")
        await request(visitor.port, "DELETE", f"/v1/sessions/{opened.json()['id']}", token=admin)
        await _stream(visitor, Cookie=f"session={session}")
    await _stream(visitor, Cookie=f"session={visitor.code('unknown session')}")


async def by_ticket_and_resume_token(visitor: Visitor) -> None:
    """Tickets and resume tokens: used, used again, altered, unknown."""
    for user in ("u1", EMAIL, PHONE):
        given = await request(visitor.port, "POST", "/v1/tickets", token=visitor.keep(f"token of {user}", token(user)))
        ticket = visitor.keep(f"ticket of {user}", given.json()["ticket"])
        welcome = await _stream(visitor, f"?ticket={ticket}")
        assert welcome is not None
        resume = visitor.keep(f"resume token of {user}", welcome["resumeToken"])
        assert await _stream(visitor, f"?resume={resume}") is not None
        assert await _stream(visitor, f"?ticket={ticket}") is None
        assert await _stream(visitor, f"?resume={resume[:-4]}AAAA") is None
        async with RawWebSocket(visitor.port, f"?resume={resume}"):
            pass
    await _stream(visitor, f"?ticket={visitor.code('unknown ticket')}")
    await _stream(visitor, f"?resume={visitor.code('unknown resume token')}")


async def by_payload(visitor: Visitor) -> None:
    """What events hold is nobody's business but their audience's, whether they are taken or not."""
    publisher = visitor.keep("publisher's token", token(EMAIL, roles=["publisher"]))
    bodies: list[Any] = [
        event(data={"note": visitor.code("payload")}),
        event(data={"user": {"password": visitor.code("refused field")}}),
        event(token=visitor.code("unknown field")),
        [event(), event(data={"cvv": visitor.code("refused field of a batch")})],
        f'{{"topic": "a", "data": "{visitor.code("not JSON")}'.encode(),
    ]
    for body in bodies:
        await publish(visitor.port, body, publisher)


async def by_no_protocol_at_all(visitor: Visitor) -> None:
    """Bytes that are no request, and one that is cut off."""
    for data in (
        f"{visitor.code('no HTTP')}\r\n\r\n".encode(),
        request_bytes("GET", "/v1/stream", {"Authorization": f"Bearer {visitor.code('cut off')}"})[:-4],
        request_bytes("GET", "/v1/stream", {"Host": "h", f"bad header {visitor.code('bad header')}": "x"}),
    ):
        async with Wire(visitor.port) as wire:
            wire.send(data)
            wire.end()
            await wire.read_rest()


DOORS: list[Callable[[Visitor], Awaitable[None]]] = [
    by_header_and_query,
    by_websocket,
    by_session,
    by_ticket_and_resume_token,
    by_payload,
    by_no_protocol_at_all,
]


@pytest.mark.parametrize("form", ["json", "text"])
async def test_a_server_says_none_of_the_secrets_it_is_shown(mongodb_uri: str, database_name: str, form: str) -> None:
    """At DEBUG, in both forms of the log, from its start to its end."""
    where = (f"--mongodb_uri={mongodb_uri}", f"--database={database_name}", "--drain_seconds=1")
    limits = ("--connects_per_minute=0", "--connections_per_user=0", "--failed_logins_per_minute=5000")
    async with ServerProcess(*where, *limits, "--log_level=DEBUG", f"--log_format={form}") as process:
        visitor = Visitor(await process.port())
        for door in DOORS:
            await door(visitor)
    said = process.output + process.log
    assert "refused" in said
    assert "disconnected" in said
    assert [name for name, secret in visitor.secrets.items() if secret in said] == []


async def test_a_flood_of_bad_credentials_is_told_of_without_them(mongodb_uri: str, database_name: str) -> None:
    """The line that names who was refused names nothing of what was shown."""
    where = (f"--mongodb_uri={mongodb_uri}", f"--database={database_name}", "--drain_seconds=1")
    async with ServerProcess(*where, "--failed_logins_per_minute=1", "--log_level=DEBUG") as process:
        port, shown = await process.port(), [secrets.token_urlsafe(24) for _ in range(5)]
        for secret in shown:
            await get(port, f"/readyz?token={secret}")
            await publish(port, event(), secret)
        await process.logged("too many credentials that do not hold")
    assert not any(secret in process.output + process.log for secret in shown)


async def test_the_password_of_mongodb_is_not_told_when_it_is_wrong(mongodb_uri: str, database_name: str) -> None:
    """Neither what the driver says of a failed login nor anything else shows it."""
    password = secrets.token_urlsafe(24)
    environment = {
        "TAILCAST_MONGODB_URI": mongodb_uri.replace("mongodb://", f"mongodb://tailcast:{password}@"),
        "TAILCAST_JWT_SECRET": SECRET,
    }
    async with ServerProcess(f"--database={database_name}", "--log_level=DEBUG", environment=environment) as process:
        assert await process.ended() == 1
    assert "Authentication failed" in process.log
    assert password not in process.output + process.log
