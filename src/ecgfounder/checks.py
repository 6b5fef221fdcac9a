"""Checks of parameters, with their error messages.

In: a parameter's name and value. Out: nothing, or a `SettingsError` that states what is allowed and what was given.
"""

from __future__ import annotations

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
