"""What can be set, and how it is read; only server.py imports this, all others take plain arguments.

Order of the files, each importing only earlier ones: kinds, declared, reading.
"""

from __future__ import annotations

from settings.declared import DECLARATIONS, Settings
from settings.kinds import UNLIMITED, algorithms_and_keys
from settings.reading import SettingsError, help_requested, help_text, read_settings

__all__ = [
    "DECLARATIONS",
    "UNLIMITED",
    "Settings",
    "SettingsError",
    "algorithms_and_keys",
    "help_requested",
    "help_text",
    "read_settings",
]
