"""Modules that had another place in version 0.1.0: what its documentation imported from them is imported as before.

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
else:  # importing them takes as long as the rest of `import ecgfounder`, and nothing of them is used

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
        """As any other."""

    def exec_module(self, module: ModuleType) -> None:
        sys.modules[module.__name__] = importlib.import_module(MOVED[module.__name__])


def keep_old_names() -> None:
    """Let the old names be imported; called once, by the package."""
    sys.meta_path.append(_OldNames())
