"""The mongod program: how it is called, what is made of its log; a real one fails in test_embedded.py."""

from __future__ import annotations

import errno
import signal
from pathlib import Path

import pytest

from storage.mongod import command, environment, explain_end, explain_os_error, find_mongod

MONGOD = Path("bin/mongod")
FATAL = (
    '{"s":"F","c":"STORAGE","msg":"Out of luck","attr":{"error":"BadLuck: none left"}}\n'
    '{"s":"F","c":"ASSERT","msg":"aborting after fassert() failure"}\n'
)


def test_the_one_on_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one there, it is the one that the extra installs."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_mongod().parts[-4:] == ("fiftyone", "db", "bin", "mongod")
    (tmp_path / "mongod").touch(mode=0o755)
    assert find_mongod() == tmp_path / "mongod"


def test_it_keeps_its_journal_and_listens_on_its_socket_only() -> None:
    """What an acknowledged event and its privacy rest on."""
    words = command(MONGOD, Path("data/db"), 64)
    assert words[words.index("--bind_ip") + 1] == "./mongodb.sock"
    assert "--nounixsocket" in words
    assert "--nojournal" not in words
    assert "cache_size=64M" in words


def test_its_environment_has_no_settings_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """They may be secrets; everything else is passed on, with a locale that is always there."""
    monkeypatch.setenv("TAILCAST_JWT_SECRET", "hush")
    monkeypatch.setenv("OTHER", "kept")
    assert "hush" not in environment().values()
    assert environment()["OTHER"] == "kept"
    assert environment()["LC_ALL"] == "C"


@pytest.mark.parametrize(
    ("log", "returncode", "said"),
    [
        (FATAL, 14, "ended with status 14: Out of luck BadLuck: none left (more"),
        (
            "Error parsing command line: odd\n",
            2,
            "ended with status 2: Error parsing command line: odd (more",
        ),
        ('{"s":"W","msg":"careless"}\n', 1, "it did not say why"),
        ('{"s":"I","msg":"checksum error"}\n', 1, "it did not say why"),
        ("", -signal.SIGKILL, "was killed by signal 9: it did not say why"),
        ("", -signal.SIGILL, "needs a processor with AVX"),
        ("mongod: version `GLIBC_2.34' not found", 1, "needs GLIBC_2.34, for which this system is too old"),
        ("DBPathInUse", 100, "is in use by process unknown"),
        ("No space left on device\nunsupported upgrade or downgrade", 14, "is full"),
        ("Permission denied\nunsupported upgrade or downgrade", 14, "cannot be written"),
        ("unsupported upgrade or downgrade", 14, "than this mongod (unknown version)"),
    ],
)
def test_the_cause_is_found_in_the_log(tmp_path: Path, log: str, returncode: int, said: str) -> None:
    """The first known cause, else the last real error: not what merely follows it, nor what is no error."""
    line = explain_end(MONGOD, tmp_path, log, returncode)
    assert said in line
    assert "\n" not in line


def test_a_failed_system_call_is_explained(tmp_path: Path) -> None:
    """A full disk is told from what only another directory helps against."""
    assert "is full: free some space" in explain_os_error(tmp_path, OSError(errno.ENOSPC, "No space"))
    assert "(Read-only): give another data_dir" in explain_os_error(tmp_path, OSError(errno.EROFS, "Read-only"))
