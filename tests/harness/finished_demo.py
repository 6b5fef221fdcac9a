"""The demo as `ecgfounder demo demo` leaves it, for tests that look at it or go on from it.

In: the working directory. Out: the folder, what the command said, and copies of the folder.
"""

from __future__ import annotations

import contextlib
import io
import shutil
from dataclasses import dataclass
from pathlib import Path

from ecgfounder.cli import main
from ecgfounder.demo.demo import DemoPaths

_WEIGHTS = "random_weights_12_lead.pth"


@dataclass(frozen=True)
class FinishedDemo:
    """The command's folder, its exit status, and its lines."""

    folder: Path
    status: int
    said: str

    @property
    def paths(self) -> DemoPaths:
        """What `write_demo` returned."""
        return DemoPaths(self.folder / "dataset", self.folder / "ecg", self.folder / _WEIGHTS)

    def copy_to(self, folder: Path) -> str:
        """Copy it to a new folder, with a link to the weights; returns what the command said."""
        assert self.status == 0, self.said
        shutil.copytree(self.folder, folder, ignore=shutil.ignore_patterns(_WEIGHTS))
        (folder / _WEIGHTS).symlink_to(self.folder / _WEIGHTS)
        return self.said


def run_demo_once() -> FinishedDemo:
    """Run `ecgfounder demo demo` in the working directory."""
    heard = io.StringIO()
    with contextlib.redirect_stdout(heard), contextlib.redirect_stderr(heard):
        status = main(["demo", "demo"])
    return FinishedDemo(Path("demo").absolute(), status, heard.getvalue())
