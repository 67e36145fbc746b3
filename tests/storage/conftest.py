"""What tests of the log get: a clock of their own, a database at which commands can be made to go wrong, and a log in it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest

from storage.log import Log
from tests.storage.faults import Clock, FaultyDatabase


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def present() -> Clock:
    """A clock that stands at the present: what was over in 1970, MongoDB would delete on its own once a minute."""
    return Clock(float(int(time.time())))


@pytest.fixture
async def other_database(mongodb_uri: str, database_name: str) -> AsyncIterator[FaultyDatabase]:
    """The same database as another server process has it."""
    database = FaultyDatabase(mongodb_uri, database_name)
    yield database
    database.close()


@pytest.fixture
async def database(mongodb_uri: str, database_name: str) -> AsyncIterator[FaultyDatabase]:
    database = FaultyDatabase(mongodb_uri, database_name)
    yield database
    database.close()


@pytest.fixture
async def log(database: FaultyDatabase, clock: Clock) -> Log:
    """A log of 1 MiB that was just made."""
    log = Log(database, clock=clock, size_bytes=1 << 20)
    await log.open()
    return log
