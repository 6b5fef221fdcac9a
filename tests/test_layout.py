"""Tests lie in folders that mirror the packages, and what they share lies in `builders` and `harness`, not in one another.

Imports are read from the source text, those inside functions too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.places import ROOT

TESTS = ROOT / "tests"
SOURCES = ROOT / "src" / "ecgfounder"
LIBRARIES = ("builders", "harness")


@cache
def modules() -> tuple[Path, ...]:
    return tuple(sorted(TESTS.rglob("*.py")))


def is_test_module(name: str) -> bool:
    """Whether pytest collects a module of that name, or loads it by itself."""
    return name.startswith("test_") or name == "conftest"


def imported_by(text: str) -> Iterator[tuple[int, str]]:
    """All that a module imports, by line: 'a.b' for `import a.b`, 'a.b' and 'a.b.c' for `from a.b import c`."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, each.name) for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield node.lineno, module
            yield from ((node.lineno, f"{module}.{each.name}") for each in node.names)
        elif isinstance(node, ast.Call) and _last_name(node.func).endswith(("import_module", "__import__")):
            yield from ((node.lineno, each.value) for each in node.args if _is_text(each))


def _last_name(node: ast.expr) -> str:
    """The name that stands last in a dotted one; "" of anything else."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def of_test_modules(text: str) -> list[tuple[int, str]]:
    """What a module imports of test modules."""
    known = {path.stem for path in modules() if is_test_module(path.stem)}
    return [(line, name) for line, name in imported_by(text) if known & set(name.split("."))]


def test_no_module_imports_a_test_module() -> None:
    found = {
        str(path.relative_to(TESTS)): wrong for path in modules() if (wrong := of_test_modules(path.read_text("utf-8")))
    }
    assert found == {}


@pytest.mark.parametrize(
    "planted",
    [
        "import test_muse",
        "import tests.readers.test_muse as muse",
        "from tests.readers.test_muse import read",
        "from tests.readers import test_muse",
        "from .test_muse import read",
        "from . import test_muse",
        "from conftest import demo_cohort",
        "from tests.conftest import demo_cohort",
        "def later():\n    from tests.readers import test_muse",
        "importlib.import_module('tests.readers.test_muse')",
    ],
)
def test_an_import_of_a_test_module_is_noticed(planted: str) -> None:
    assert of_test_modules(planted)


@pytest.mark.parametrize(
    "planted", ["from tests.builders import muse", "from tests.harness.faults import start", "import muse"]
)
def test_other_imports_are_free(planted: str) -> None:
    assert of_test_modules(planted) == []


def test_what_tests_share_holds_no_tests() -> None:
    shared = [path for folder in LIBRARIES for path in (TESTS / folder).rglob("*.py")]
    assert len(shared) > 20
    assert [path.name for path in shared if is_test_module(path.stem)] == []


def test_folders_of_tests_are_those_of_packages_and_of_examples() -> None:
    here = {path.relative_to(TESTS).parent.as_posix() for path in modules() if is_test_module(path.stem)}
    modules_of_packages = [path for path in SOURCES.rglob("*.py") if path.name != "__init__.py"]
    packages = {path.relative_to(SOURCES).parent.as_posix() for path in modules_of_packages}
    assert here == packages | {"examples"}


def test_folders_of_tests_are_packages_of_their_own() -> None:
    """So that a test module has a name of its own, whatever else is called like it."""
    folders = {path.parent for path in modules()}
    assert {folder.name for folder in folders if not (folder / "__init__.py").is_file()} == set()
