"""The driver: the only file that imports Motor. Commands go in, documents or this layer's errors come out.

Motor's maintenance has ended and PyMongo's own async API is its successor, so the rest of the project must not notice which one it is.
Commands are raw (`insert`, `find`, `getMore`): one call is one message, and its reply shows batch and write errors as MongoDB sent them.
"""

from __future__ import annotations

from typing import Any

from bson.errors import BSONError
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo.errors import (
    AutoReconnect,
    ConfigurationError,
    ConnectionFailure,
    ExecutionTimeout,
    InvalidOperation,
    InvalidURI,
    OperationFailure,
    PyMongoError,
    WaitQueueTimeoutError,
)

from storage.errors import CommandFailed, Unavailable

# Errors with these codes mean "not now": elections, shutdowns, time limits (MongoDB's error_codes.yml).
_TRANSIENT_CODES = frozenset({6, 7, 50, 64, 89, 91, 133, 189, 202, 262, 317, 384, 9001, 10058, 10107, 11600, 11602, 13435, 13436})
# NamespaceNotFound and the ways in which a cursor can be gone are told apart by their code.
BAD_VALUE = 2
NAMESPACE_NOT_FOUND = 26
NAMESPACE_EXISTS = 48
DUPLICATE_KEY = 11000
COLLECTION_UUID_MISMATCH = 361
CURSOR_GONE = frozenset({43, 136, 175, 237})

# Every write that is acknowledged was written like this, and what is read with this was: neither is undone by a crash or an election.
DURABLE = {"w": "majority", "j": True}
CANNOT_ROLL_BACK = {"level": "majority"}

Document = dict[str, Any]
Session = Any


class Database:
    """One database of one MongoDB deployment.

    Args:
        uri: A MongoDB connection string.
        name: The database.
        answer_seconds: How long a command may stay unanswered before it counts as lost. Must be longer than any wait inside a command.

    Raises:
        CommandFailed: If the URI cannot be understood.
    """

    def __init__(self, uri: str, name: str, *, answer_seconds: float = 5.0) -> None:
        milliseconds = round(answer_seconds * 1000)
        try:
            self._client: Any = AsyncIOMotorClient(
                uri,
                retryWrites=False,  # the appender settles a lost answer itself: it must know what became of every number
                retryReads=False,
                socketTimeoutMS=milliseconds,
                connectTimeoutMS=milliseconds,
                serverSelectionTimeoutMS=milliseconds,
                appname="tailcast",
            )
        except (InvalidURI, ConfigurationError, ValueError) as error:
            raise CommandFailed(f"mongodb_uri cannot be used: {error}") from error
        self._database = self._client[name]
        self.name = name

    async def command(self, command: Document, session: Session = None) -> Document:
        """Run one command on the primary and return its reply.

        Cancelling leaves it unknown whether the command was carried out.

        Raises:
            Unavailable: If no primary could be reached, or it did not answer in time: the outcome of a write is then unknown.
            CommandFailed: If MongoDB refused it, or it holds what BSON cannot express.
        """
        try:
            reply: Document = await self._database.command(command, session=session)
        except OperationFailure as error:
            code = error.code or 0
            if code in _TRANSIENT_CODES or isinstance(error, ExecutionTimeout):
                raise Unavailable(f"MongoDB is not ready (error {code})") from error
            raise CommandFailed(str(error), code) from error
        except (AutoReconnect, ConnectionFailure, WaitQueueTimeoutError) as error:
            raise Unavailable("MongoDB cannot be reached") from error
        except InvalidOperation as error:
            raise Unavailable("the connection to MongoDB is closed") from error
        except (PyMongoError, BSONError, UnicodeError, OverflowError) as error:
            raise CommandFailed(str(error)) from error
        for refused in reply.get("writeErrors", ()):
            if refused["code"] in _TRANSIENT_CODES:
                raise Unavailable(f"MongoDB stopped in the middle of the write (error {refused['code']})")
        concern = reply.get("writeConcernError")
        if concern is not None:
            raise Unavailable(f"MongoDB could not confirm the write (error {concern.get('code')})")
        return reply

    async def start_session(self) -> Session:
        """Return a session: a cursor opened with raw commands belongs to the session it was opened in. MongoDB hears of it with these."""
        return await self._client.start_session()

    async def drop(self) -> None:
        """Delete the database with everything in it."""
        await self.command({"dropDatabase": 1})

    def close(self) -> None:
        """Close all connections; idempotent."""
        self._client.close()
