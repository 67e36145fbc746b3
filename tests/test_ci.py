"""Tests of .ci/run: what it installs before it does what a developer does, with programs that only say that they were called."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.server_process import ROOT

ROOT_USER, SOMEBODY = 0, 1000
THERE = ("make", "gcc", "curl", "python3", "env", "true", "apt-get", "sudo")


class Machine:
    """A machine with a few programs, each of which writes down its name and arguments.

    Args:
        path: Where to put them.
        user: Who runs .ci/run, as a number.
    """

    def __init__(self, path: Path, user: int) -> None:
        self._path = path
        self._calls = path / "calls"
        for name in THERE:
            self.add(name)
        self.add("id", f"echo {user}")

    def add(self, name: str, does: str | None = None) -> None:
        """Add a program; unless it does something else, it writes down that it was called."""
        program = self._path / name
        program.write_text(f'#!/bin/sh\n{does or f"""echo {name} "$@" >> {self._calls}"""}\n')
        program.chmod(0o755)

    def remove(self, name: str) -> None:
        """Remove a program."""
        (self._path / name).unlink()

    def run(self, ci: str) -> subprocess.CompletedProcess[str]:
        """Run .ci/run there."""
        bash = shutil.which("bash")
        assert bash is not None
        environment = {"PATH": str(self._path), "CI": ci}
        return subprocess.run([bash, ROOT / ".ci" / "run"], env=environment, capture_output=True, text=True, check=False)

    def calls(self) -> list[str]:
        """Return what was called, less what only looks."""
        lines = self._calls.read_text().splitlines() if self._calls.exists() else []
        return [line for line in lines if not line.startswith(("python3", "true", "sudo -n true"))]


INSTALL = "DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install"


@pytest.mark.parametrize(("user", "prefix"), [(ROOT_USER, ""), (SOMEBODY, "sudo -n ")])
def test_what_is_missing_is_installed_first(tmp_path: Path, user: int, prefix: str) -> None:
    """As root, or with sudo."""
    machine = Machine(tmp_path, user)
    result = machine.run(ci="true")
    assert result.returncode == 0, result.stderr
    update, install, test = machine.calls()
    assert update == f"{prefix}apt-get -qq update"
    assert install.startswith(f"{prefix}env {INSTALL}")
    assert install.endswith(" chromium")
    assert test == "make test"
    assert result.stderr.startswith("installing ")


@pytest.mark.parametrize("browser", ["chromium", "google-chrome"])
def test_with_everything_there_nothing_is_installed(tmp_path: Path, browser: str) -> None:
    """So it is as quick as `make test`."""
    machine = Machine(tmp_path, ROOT_USER)
    machine.add(browser)
    machine.run(ci="true")
    assert "chromium" not in " ".join(machine.calls())
    assert machine.calls()[-1] == "make test"


def test_a_developers_machine_is_left_alone(tmp_path: Path) -> None:
    """Without CI=true nothing is installed outside .venv."""
    machine = Machine(tmp_path, ROOT_USER)
    assert machine.run(ci="").returncode == 0
    assert machine.calls() == ["make test"]


@pytest.mark.parametrize("without", ["apt-get", "sudo"])
def test_where_it_cannot_install_it_says_what_it_needs(tmp_path: Path, without: str) -> None:
    """One line, and nothing is tested that would only fail later."""
    machine = Machine(tmp_path, SOMEBODY)
    machine.remove(without)
    result = machine.run(ci="true")
    assert result.returncode == 1
    assert "chromium" in result.stderr
    assert result.stderr.count("\n") == 1
    assert machine.calls() == []
