"""Print the lowest version of every package that pyproject.toml allows, as constraints for pip.

They are the dependencies of the package and of its optional features, all of the form `name>=version`, printed as
`name==version`. torch is not among them, because it is installed first. Indirect dependencies are not limited.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

EXTRAS = ("cpu", "wfdb", "hdf5", "report", "completion")
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
