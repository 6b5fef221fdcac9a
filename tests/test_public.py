"""What is public is said once, and is what it says: names, their places, their documentation."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

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
