"""Checks of parameters, with their error messages.

In: a parameter's name and value. Out: nothing, or a `SettingsError` that states what is allowed and what was given.
"""

from __future__ import annotations

import os
from collections.abc import Collection

from ecgfounder.errors import SettingsError


def check_choice(name: str, value: object, choices: Collection[str]) -> None:
    if value not in choices:
        *first, last = (repr(choice) for choice in choices)
        raise SettingsError(
            f"Invalid value for the '{name}' parameter. Allowed values are {', '.join(first)} and {last}, but got "
            f"{value!r} instead."
        )


def check_least(name: str, number: int, least: int) -> None:
    """Refuse an integer below `least`."""
    if number < least:
        raise SettingsError(f"Invalid value for the '{name}' parameter. It must be at least {least}, got {number}.")


def check_folder(name: str, path: str) -> None:
    """Refuse a path that is no folder, or a folder that cannot be entered."""
    try:
        os.stat(os.path.join(path, "."))  # which needs the permission to enter it
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SettingsError(
            f"Invalid value for the '{name}' parameter. It must be an existing folder, got {path}: {reason}."
        ) from error
