"""The driver's edge: replies, and what becomes of everything that goes wrong with a real MongoDB."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import pytest

from storage.errors import CommandFailed, Unavailable
from storage.mongo import NAMESPACE_EXISTS, Database
from tests.freezing import frozen
from tests.storage.faults import FaultyDatabase, elect, own_mongodb, step_down, until_answered
from tests.waiting import PATIENCE_SECONDS


async def test_a_command_returns_its_reply(database: Database) -> None:
    """Write errors are in the reply, where the appender looks for them."""
    insert = {"insert": "things", "documents": [{"_id": 1}, {"_id": 2}]}
    assert (await database.command(insert))["n"] == 2
    reply = await database.command(insert)
    assert (reply["n"], reply["writeErrors"][0]["code"]) == (0, 11000)


async def test_a_refused_command_fails_with_its_code(database: Database) -> None:
    """The code tells what to do about it."""
    await database.command({"create": "things"})
    with pytest.raises(CommandFailed) as caught:
        await database.command({"create": "things", "capped": True, "size": 4096})
    assert caught.value.code == NAMESPACE_EXISTS


@pytest.mark.parametrize("value", ["\ud800", 1 << 70, object(), "x" * (17 << 20)], ids=["surrogate", "integer", "object", "size"])
async def test_what_bson_cannot_express_is_a_command_that_failed(database: Database, value: object) -> None:
    """The driver's exceptions for it have nothing in common; none of them gets through."""
    with pytest.raises(CommandFailed):
        await database.command({"insert": "things", "documents": [{"_id": 1, "value": value}]})


@pytest.mark.parametrize("uri", ["mongodb://", "http://host", "mongodb://host:0/", "mongodb://a b:c@host@/"])
async def test_a_uri_that_cannot_be_understood_is_refused_at_once(uri: str) -> None:
    """The message names the setting."""
    with pytest.raises(CommandFailed, match="mongodb_uri cannot be used"):
        Database(uri, "test")


async def test_nobody_there_is_unavailable() -> None:
    """After `answer_seconds`, and not before somebody could have come."""
    database = Database("mongodb://127.0.0.1:1/?directConnection=true", "test", answer_seconds=0.1)
    with pytest.raises(Unavailable, match="cannot be reached"):
        await database.command({"ping": 1})
    database.close()


async def test_a_time_limit_that_is_over_is_unavailable(database: Database) -> None:
    """What took too long once may work later."""
    await database.command({"insert": "things", "documents": [{"_id": 1}]})
    with pytest.raises(Unavailable, match="not ready"):
        await database.command({"find": "things", "filter": {"$where": "sleep(500) || true"}, "maxTimeMS": 10})


async def test_a_write_that_is_not_confirmed_is_unavailable(database: Database) -> None:
    """More nodes than there are cannot confirm it, though it was carried out."""
    with pytest.raises(Unavailable, match="could not confirm the write"):
        await database.command({"insert": "things", "documents": [{"_id": 1}], "writeConcern": {"w": 2, "wtimeout": 1}})
    assert (await database.command({"count": "things"}))["n"] == 1


async def test_a_write_that_an_election_cut_short_is_unavailable(database: Database) -> None:
    """Its documents so far may be there; the code among the write errors says that it is not their fault."""
    driver: Any = database._database

    class CutShort:
        async def command(self, command: Any, session: Any) -> Any:
            reply = await driver.command({**command, "documents": command["documents"][:1]}, session=session)
            return {**reply, "writeErrors": [{"index": 1, "code": 10107, "errmsg": "not primary"}]}

    database._database = CutShort()  # type: ignore[assignment]
    with pytest.raises(Unavailable, match="in the middle"):
        await database.command({"insert": "things", "documents": [{"_id": 1}, {"_id": 2}]})


async def test_a_closed_database_is_unavailable(mongodb_uri: str) -> None:
    """Closing twice is closing; afterwards there are no answers."""
    database = Database(mongodb_uri, "test", answer_seconds=PATIENCE_SECONDS)
    await database.command({"ping": 1})
    database.close()
    database.close()
    with pytest.raises(Unavailable, match="is closed"):
        await database.command({"ping": 1})


async def test_a_cursor_belongs_to_the_session_it_was_opened_in(database: Database) -> None:
    """It can be read on in that one only."""
    await database.command({"insert": "things", "documents": [{"_id": 1}, {"_id": 2}]})
    session = await database.start_session()
    cursor = (await database.command({"find": "things", "batchSize": 1}, session))["cursor"]["id"]
    with pytest.raises(CommandFailed):
        await database.command({"getMore": cursor, "collection": "things"})
    reply = await database.command({"getMore": cursor, "collection": "things"}, session)
    assert reply["cursor"]["nextBatch"] == [{"_id": 2}]
    await session.end_session()


async def test_dropping_deletes_everything(database: Database) -> None:
    """Nothing is left of the database."""
    await database.command({"insert": "things", "documents": [{"_id": 1}]})
    await database.drop()
    assert (await database.command({"listCollections": 1}))["cursor"]["firstBatch"] == []


async def test_without_a_primary_it_is_unavailable_and_then_goes_on(tmp_path: Path) -> None:
    """A node that was voted out takes commands again once it is elected."""
    async with own_mongodb(tmp_path) as mongodb:
        with contextlib.closing(FaultyDatabase(mongodb.uri, "test")) as database:
            await step_down(database, seconds=3600)
            with pytest.raises(Unavailable):
                await database.command({"insert": "things", "documents": [{"_id": 1}]})
            await elect(database)
            await until_answered(database)


async def test_a_mongodb_that_does_not_answer_is_unavailable_in_time(tmp_path: Path) -> None:
    """After `answer_seconds`; once it goes on, so do we."""
    async with own_mongodb(tmp_path) as mongodb:
        with contextlib.closing(Database(mongodb.uri, "test", answer_seconds=0.3)) as database:
            await until_answered(database)
            assert mongodb.pid is not None
            async with frozen(mongodb.pid):
                began = time.monotonic()
                with pytest.raises(Unavailable):  # and not never: nothing is answered before it is let go
                    await database.command({"ping": 1})
                assert time.monotonic() - began > 0.2
            await until_answered(database)
