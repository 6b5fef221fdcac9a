"""Modules that had other names in version 0.1.0: imports from its documentation still work.

In: the import of an old name. Out: the module that has its contents now.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.abc import Loader, MetaPathFinder
else:  # their import takes as long as the rest of `import ecgfounder`, and nothing in them is used

    class Loader: ...

    class MetaPathFinder: ...


MOVED = {
    "ecgfounder.inspect": "ecgfounder.commands.inspect",
    "ecgfounder.plot": "ecgfounder.ecg.plot",
    "ecgfounder.quality": "ecgfounder.preprocess.quality",
    "ecgfounder.recipes": "ecgfounder.preprocess.recipes",
    "ecgfounder.recording": "ecgfounder.ecg.recording",
    "ecgfounder.runs": "ecgfounder.results",
}


class _OldNames(MetaPathFinder, Loader):
    """Finds a module under its old name, as the very module that it is now."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def create_module(self, spec: ModuleSpec) -> None:
        """Create the module in the default way."""

    def exec_module(self, module: ModuleType) -> None:
        sys.modules[module.__name__] = importlib.import_module(MOVED[module.__name__])


def keep_old_names() -> None:
    """Make the old names importable; called once, by the package."""
    sys.meta_path.append(_OldNames())
