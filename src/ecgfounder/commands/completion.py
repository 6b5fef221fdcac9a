"""Completion of commands and flags in shells.

In: the parser of all commands. Out: a script for bash, zsh or fish, by shtab.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ecgfounder.cohort.naming import LAYOUT_CHOICES
from ecgfounder.engines.choice import ENGINE_CHOICES, PRECISION_CHOICES
from ecgfounder.errors import MissingDependencyError
from ecgfounder.preprocess.preparation import MISSING_LEADS_CHOICES, RESAMPLING_CHOICES
from ecgfounder.preprocess.recipes import RECIPES, REMAINDER_CHOICES
from ecgfounder.readers import READER_CHOICES
from ecgfounder.sinks.sink import DTYPE_CHOICES, FORMAT_CHOICES
from ecgfounder.stages.pooling import POOLING_CHOICES

SHELLS = ("bash", "zsh", "fish")

_VALUES: dict[str, Sequence[str]] = {
    "dtype": DTYPE_CHOICES,
    "engine": ENGINE_CHOICES,
    "format": FORMAT_CHOICES,
    "layout": LAYOUT_CHOICES,
    "missing_leads": MISSING_LEADS_CHOICES,
    "pooling": POOLING_CHOICES,
    "precision": PRECISION_CHOICES,
    "reader": READER_CHOICES,
    "recipe": tuple(RECIPES),
    "remainder": REMAINDER_CHOICES,
    "resampling": RESAMPLING_CHOICES,
}
"""Values of flags that are checked later than by the parser."""
_FILES = frozenset(("checkpoint", "dataset", "paths", "plot", "write_slurm"))
_FOLDERS = frozenset(("data_dir", "folder", "output_dir", "run"))


def completion_of(parser: argparse.ArgumentParser, commands: Sequence[argparse.ArgumentParser], shell: str) -> str:
    """The script that completes the commands of a parser in a shell.

    Raises
    ------
    MissingDependencyError
        If shtab is not installed.
    """
    try:
        import shtab
    except ImportError as error:
        raise MissingDependencyError("shtab", "completion in shells", "completion") from error
    for command in commands:
        for action in command._actions:
            if action.dest in _VALUES:
                action.choices = _VALUES[action.dest]
            elif action.dest in _FILES:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
            elif action.dest in _FOLDERS:
                action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
    return str(shtab.complete(parser, shell=shell))
