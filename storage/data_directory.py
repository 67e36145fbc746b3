"""The data directory of an embedded MongoDB: who owns it, and where its socket can be. Knows nothing of
mongod's life."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import socket
import stat
import tempfile
import time
from pathlib import Path

from storage.mongod import SOCKET_NAME, EmbeddedMongoDBError

LOCK_NAME = "tailcast.lock"

_DYING_SECONDS = 10.0  # how long the mongod of a server that was killed may take to disappear
_LIVING_SECONDS = 1.0  # for how long a holder that was killed this moment may still look alive
_POLL_SECONDS = 0.02


async def lock(data_dir: Path) -> int:
    """Take the lock of a data directory and return its descriptor, to be closed when it is given back.

    A holder that lives is hardly waited for. One that does not has left a mongod that is just dying, which
    has the lock by inheritance: that gets some seconds. When cancelled, nothing is held.

    Raises:
        EmbeddedMongoDBError: If another server has it.
        OSError: If there cannot be a lock.
    """
    descriptor = os.open(data_dir / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        await _wait_for_lock(descriptor, data_dir)
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


async def _wait_for_lock(descriptor: int, data_dir: Path) -> None:
    begun = time.monotonic()
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            patience = _LIVING_SECONDS if _is_alive(holder) else _DYING_SECONDS
            if time.monotonic() - begun > patience:
                raise EmbeddedMongoDBError(
                    f"data directory {data_dir} is in use by process {holder or 'unknown'}: give another data_dir or set mongodb_uri"
                ) from None
        await asyncio.sleep(_POLL_SECONDS)


def _is_alive(pid: str) -> bool:
    """Tell whether a process runs. One that was killed and that its parent has not yet noticed (a zombie)
    does not."""
    try:
        status = Path("/proc", pid, "stat").read_text()
    except OSError:
        return False
    # The state follows the name, which is in parentheses and may hold any character (proc_pid_stat(5)).
    return pid.isdigit() and status.rpartition(")")[2].split()[0] not in ("Z", "X")


def socket_directory(data_dir: Path) -> Path:
    """Return where the socket can be: the data directory, or a private one beside the system's temporary
    files.

    The path of a socket has at most 107 bytes, and some file systems take no sockets. The other place has a
    name made from the data directory's, so that the URI stays the same from one start to the next.

    Raises:
        EmbeddedMongoDBError: If neither place takes a socket.
    """
    if _takes_socket(data_dir):
        return data_dir
    directory = Path(tempfile.gettempdir(), "tailcast-" + hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16])
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    if not _is_private(directory) or not _takes_socket(directory):
        raise EmbeddedMongoDBError(
            f"no socket can be made in data directory {data_dir} nor in {directory}: "
            "give a data_dir with a shorter path, or set mongodb_uri"
        )
    return directory


def _is_private(directory: Path) -> bool:
    """Tell whether a directory is this user's alone. Anybody can make one in the place for temporary files
    first."""
    found = directory.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077


def _takes_socket(directory: Path) -> bool:
    """Try it, removing what an earlier run left."""
    path = directory / SOCKET_NAME
    try:
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as probe:
            probe.bind(str(path))
        path.unlink()
    except OSError:
        return False
    return True
