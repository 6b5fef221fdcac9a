"""What is public is said once, and is what it says: names, their places, their documentation."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import ecgfounder
from ecgfounder import errors
from tests.places import ROOT

PUBLIC = {
    *(
        "BUNDLES",
        "Bundle",
        "Butterworth",
        "CohortRun",
        "ECGDataset",
        "Embedder",
        "EmbeddingRun",
        "EmbeddingRuns",
        "FILTERED",
        "Filter",
        "Hints",
    ),
    *(
        "MedianBaseline",
        "Net1D",
        "Notch",
        "PAPER",
        "Preparation",
        "RECIPES",
        "Recipe",
        "Recording",
        "STANDARD_LEADS",
        "Signal",
    ),
    *(
        "Summary",
        "ZSCORE",
        "__version__",
        "collate_by_length",
        "collate_cropped",
        "collate_readable",
        "embed_cohort",
        "ft_12lead_ECGFounder",
    ),
    *(
        "ft_1lead_ECGFounder",
        "load",
        "open_run",
        "prepare",
        "read_ecg",
        "read_embedding",
        "recording_from_array",
        "token_times",
    ),
    *(
        "CheckpointError",
        "CohortError",
        "ECGFounderError",
        "EmbeddingError",
        "MissingDependencyError",
        "OutOfMemoryError",
        "PrepareError",
        "ReadError",
    ),
    *("RunError", "SettingsError", "StorageError", "UnsupportedFormatError"),
}
DOCS = ROOT / "docs"


def test_the_public_names_are_these_and_no_others() -> None:
    assert set(ecgfounder.__all__) == PUBLIC
    assert len(ecgfounder.__all__) == len(PUBLIC)


@pytest.mark.parametrize("name", sorted(PUBLIC - {"__version__"}))
def test_a_public_name_is_in_the_guide_or_the_reference(name: str) -> None:
    text = (DOCS / "python.md").read_text() + (DOCS / "api.md").read_text()
    assert re.search(rf"\b{name}\b", text) or hasattr(errors, name)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_public_classes_and_functions_have_a_docstring(name: str) -> None:
    value = getattr(ecgfounder, name)
    if inspect.isclass(value) or inspect.isfunction(value):
        assert inspect.getdoc(value)


def documented() -> list[tuple[str, Any]]:
    """Public classes and functions, and the public methods of the classes, with what they are called."""
    found = []
    for name in sorted(PUBLIC - {"__version__"}):
        value = getattr(ecgfounder, name)
        if inspect.isclass(value):
            own = [(key, getattr(member, "__func__", member)) for key, member in vars(value).items()]
            methods = [(f"{name}.{key}", member) for key, member in own if inspect.isfunction(member)]
            found += [(name, value), *(each for each in methods if not each[1].__name__.startswith("_"))]
        elif inspect.isfunction(value):
            found.append((name, value))
    return found


def entries(docstring: str, section: str) -> list[str]:
    """The lines of a numpydoc section that stand at its margin: names with their types."""
    found = re.search(rf"^{section}\n-+\n(.*?)(?=\n\n\w[\w ]*\n-+\n|\Z)", docstring, re.MULTILINE | re.DOTALL)
    return [line for line in found[1].split("\n") if line and not line.startswith(" ")] if found else []


@pytest.mark.parametrize(("name", "value"), documented(), ids=[name for name, _ in documented()])
def test_docstrings_are_numpydoc_and_name_what_the_signature_names(name: str, value: Any) -> None:
    docstring = inspect.getdoc(value) or ""
    for section in ("Parameters", "Attributes", "Other Parameters"):
        for line in entries(docstring, section):
            assert re.fullmatch(r"\*{0,2}\w+(, \w+)* : \S.*", line), f"{section} of {name}: {line!r}"
    named = [each for line in entries(docstring, "Parameters") for each in line.partition(" :")[0].split(", ")]
    if named and not inspect.isclass(value):
        taken = [each for each in inspect.signature(value).parameters if each not in ("self", "cls", "options")]
        assert [each for each in named if each in taken] == taken
    for line in entries(docstring, "Returns"):
        assert len(line) < 90, f"Returns of {name}: a type was expected, then what it is, indented: {line!r}"
    assert not re.search(r" $", docstring, re.MULTILINE)


@pytest.mark.parametrize("module", ["dataset", "model", "net1d"])
def test_the_modules_of_the_first_pipeline_are_where_they_were(module: str) -> None:
    assert importlib.import_module(f"ecgfounder.{module}")


def test_importing_the_package_imports_nothing_heavy() -> None:
    heavy = ("numpy", "torch", "pyarrow", "datasets", "scipy", "msgspec", "lxml", "accelerate")
    program = f"import sys, ecgfounder; print([name for name in {heavy} if name in sys.modules])"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_no_error_of_the_library_speaks_of_flags() -> None:
    """Flags are the command line's: `ecgfounder.commands` turns parameters into them."""
    package = Path(ecgfounder.__file__).parent
    spoken = []
    for path in sorted(package.rglob("*.py")):
        if path.relative_to(package).parts[0] in ("commands", "cli.py", "demo"):
            continue
        source = path.read_text(encoding="utf-8")
        for raised in re.finditer(r"raise \w+\((?:[^()]|\([^()]*\))*\)", source):
            found = re.findall(r"--[a-z]+_?[a-z_]*", raised[0])
            spoken += [(path.name, flag) for flag in found if flag not in ("--num_processes", "--local")]
    assert spoken == []
