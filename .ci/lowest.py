"""Print the lowest version of every package that pyproject.toml allows, as constraints for pip.

In: the dependencies of the package and of its extras for use, all of the form `name>=version`. Out: lines `name==version`, torch
left out, which is installed before. Packages that these bring with them come in the newest version that fits.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

EXTRAS = ("cpu", "wfdb", "hdf5", "report")
PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def lowest() -> list[str]:
    """The lines, in the order of pyproject.toml."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    allowed = [
        *project["dependencies"],
        *(each for extra in EXTRAS for each in project["optional-dependencies"][extra]),
    ]
    pairs = [requirement.split(">=") for requirement in allowed]
    return [f"{name}=={version.split(',')[0]}" for name, version in pairs if name != "torch"]


if __name__ == "__main__":
    print("\n".join(lowest()))
