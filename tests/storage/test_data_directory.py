"""Who has a data directory, and where its socket goes."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

import pytest

from storage import data_directory
from storage.mongod import EmbeddedMongoDBError


@pytest.mark.parametrize(("holder", "named"), [("", "unknown"), (str(os.getpid()), str(os.getpid()))])
def test_a_lock_that_stays_taken_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holder: str, named: str) -> None:
    """The line names the holder; a dead one's heir, its mongod, is waited for longer, but not for ever."""
    monkeypatch.setattr(data_directory, "_DYING_SECONDS", 0.0)
    monkeypatch.setattr(data_directory, "_LIVING_SECONDS", 0.0)

    async def take_twice() -> None:
        held = await data_directory.lock(tmp_path)
        os.truncate(held, 0)
        os.pwrite(held, holder.encode(), 0)
        try:
            with pytest.raises(EmbeddedMongoDBError, match=f"in use by process {named}: give another"):
                await data_directory.lock(tmp_path)
        finally:
            os.close(held)

    asyncio.run(take_twice())


def test_what_an_earlier_run_left_is_in_nobodys_way(tmp_path: Path) -> None:
    """A lock file without a lock, and a stale socket, are as good as none."""
    (tmp_path / data_directory.LOCK_NAME).write_text("1")
    (tmp_path / "mongodb.sock").touch()
    os.close(asyncio.run(data_directory.lock(tmp_path)))
    assert data_directory.socket_directory(tmp_path) == tmp_path
    assert not (tmp_path / "mongodb.sock").exists()


def test_a_socket_is_not_put_where_others_can_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The place for long paths is refused when it is not private: somebody else may have made it first."""
    data_dir = tmp_path / ("long" * 30)
    with tempfile.TemporaryDirectory() as short:  # the path of tmp_path may itself be long
        monkeypatch.setattr("tempfile.tempdir", short)
        private = data_directory.socket_directory(data_dir)
        private.chmod(0o755)
        with pytest.raises(EmbeddedMongoDBError, match="no socket can be made"):
            data_directory.socket_directory(data_dir)
