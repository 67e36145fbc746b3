"""Programs of the system that some tests need."""

from __future__ import annotations

import os
import shutil

import pytest

# Guides show commands with curl. Where it is missing nobody can try them, but in CI nobody would notice that they were not tried.
needs_curl = pytest.mark.skipif(shutil.which("curl") is None and os.environ.get("CI") != "true", reason="there is no curl on PATH")
