"""Keys that server processes share."""

from __future__ import annotations

import asyncio

import pytest

from storage.errors import CommandFailed, Unavailable
from storage.keys import shared_key
from storage.mongo import Database
from tests.storage.faults import FaultyDatabase, answer_lost, not_sent, stored
from tests.waiting import PATIENCE_SECONDS


async def test_a_key_is_made_once_and_kept(database: FaultyDatabase, other_database: FaultyDatabase) -> None:
    """Every process gets the same one, now and later."""
    key = await shared_key(database, "resume")
    assert len(key) == 32
    assert await shared_key(database, "resume") == await shared_key(other_database, "resume") == key


async def test_names_and_databases_have_keys_of_their_own(database: FaultyDatabase, mongodb_uri: str, database_name: str) -> None:
    """No two are alike."""
    elsewhere = Database(mongodb_uri, f"{database_name}_other", answer_seconds=PATIENCE_SECONDS)
    keys = [await shared_key(database, "one"), await shared_key(database, "two"), await shared_key(elsewhere, "one")]
    await elsewhere.drop()
    elsewhere.close()
    assert len(set(keys)) == 3


async def test_many_that_come_at_once_get_one_key(database: FaultyDatabase, other_database: FaultyDatabase) -> None:
    """The first to come makes it; the others' are never used."""
    keys = await asyncio.gather(*(shared_key(one, "resume") for one in (database, other_database) * 8))
    assert len(set(keys)) == 1
    (document,) = await stored(database, "keys")
    assert document == {"_id": "resume", "key": keys[0]}


async def test_it_has_the_size_that_is_asked_for(database: FaultyDatabase) -> None:
    """One that is kept in another size is not cut, and not shown in the error either."""
    key = await shared_key(database, "small", 16)
    assert len(key) == 16
    with pytest.raises(CommandFailed, match="expected a key of 32 bytes as 'small'") as caught:
        await shared_key(database, "small")
    assert key.hex() not in str(caught.value)
    assert repr(key) not in str(caught.value)


async def test_what_is_no_key_is_refused(database: FaultyDatabase) -> None:
    """Somebody wrote something else under its name."""
    await database.command({"insert": "keys", "documents": [{"_id": "resume", "key": "text" * 8}]})
    with pytest.raises(CommandFailed, match="expected a key of 32 bytes"):
        await shared_key(database, "resume")


async def test_a_key_too_short_to_be_one_is_refused(database: FaultyDatabase) -> None:
    """Nothing is made."""
    with pytest.raises(ValueError, match="16 bytes or more, not 15"):
        await shared_key(database, "resume", 15)
    assert database.commands == []


@pytest.mark.parametrize("fault", [not_sent, answer_lost])
async def test_a_break_leaves_no_second_key(database: FaultyDatabase, fault: object) -> None:
    """Whether it was made before the break or not, the next call returns the one that is kept."""
    database.inject("findAndModify", fault)  # type: ignore[arg-type]
    with pytest.raises(Unavailable):
        await shared_key(database, "resume")
    key = await shared_key(database, "resume")
    (document,) = await stored(database, "keys")
    assert document["key"] == key
