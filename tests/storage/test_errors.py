"""The errors of the storage layer."""

from __future__ import annotations

from storage.errors import CommandFailed, Overloaded, StorageError, Unavailable, UnknownPosition


def test_all_are_storage_errors_and_none_is_another() -> None:
    """The tree is the one drawn at the top of the module: one root and four kinds."""
    kinds = (Unavailable, CommandFailed, Overloaded, UnknownPosition)
    assert all(kind.__bases__ == (StorageError,) for kind in kinds)


def test_a_refused_command_has_the_code_mongodb_gave() -> None:
    """Without one it is 0."""
    assert CommandFailed("why", 26).code == 26
    assert CommandFailed("why").code == 0
    assert str(CommandFailed("why", 26)) == "why"


def test_an_unknown_position_has_the_reason_for_the_gap_message() -> None:
    """It is the error's text too."""
    assert UnknownPosition("log recreated").reason == str(UnknownPosition("log recreated")) == "log recreated"
