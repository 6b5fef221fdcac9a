"""Files around the package agree with it: versions, supported Pythons, make targets, contents of archives."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from ecgfounder import __version__

ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "pyproject.toml").is_file())
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", MAKEFILE, re.MULTILINE))


def read(*parts: str) -> str:
    return ROOT.joinpath(*parts).read_text(encoding="utf-8")


def loaded(name: str) -> ModuleType:
    """A script of `.ci`, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def supported() -> set[str]:
    """The Python versions in the classifiers."""
    found = (
        re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", each) for each in PROJECT["project"]["classifiers"]
    )
    return {match[1] for match in found if match}


def variables(text: str, name: str) -> list[str]:
    """The words of a make variable with a default."""
    match = re.search(rf"^{name} \?= (.*)$", text, re.MULTILINE)
    assert match is not None
    return match[1].split()


# ------------------------------------------------------------------------------------------------------ versions


def test_the_citations_version_is_the_packages() -> None:
    assert yaml.safe_load(read("CITATION.cff"))["version"] == __version__
    assert f"\n## {__version__} " in read("CHANGELOG.md")


def test_classifiers_name_every_supported_python_without_a_gap() -> None:
    minors = sorted(int(version.split(".")[1]) for version in supported())
    assert f">=3.{minors[0]}" == PROJECT["project"]["requires-python"]
    assert minors == list(range(minors[0], minors[-1] + 1))


def test_the_stable_interface_is_that_of_the_oldest_python() -> None:
    oldest = min(int(version.split(".")[1]) for version in supported())
    setup = read("setup.py")
    assert f'"Py_LIMITED_API", "0x03{oldest:02x}0000"' in setup
    assert f'"py_limited_api": "cp3{oldest}"' in setup
    assert f"cp3{oldest}-abi3-" == loaded("check_dist").TAG


def test_the_container_has_a_supported_python_and_the_makefiles_pytorch() -> None:
    text = read("Containerfile")
    pythons = re.findall(r"^FROM python:([\d.]+)", text, re.MULTILINE)
    assert len(set(pythons)) == 1
    assert set(pythons) <= supported()
    assert variables(MAKEFILE, "TORCH")[0] in text
    assert re.search(r"^USER (?!0$|root$)", text, re.MULTILINE)


def test_pytorch_is_one_release_in_makefile_workflows_and_constraints() -> None:
    release = variables(MAKEFILE, "TORCH")[0]
    assert release in read("constraints.txt").splitlines()
    for path in WORKFLOWS:
        assert set(re.findall(r"torch==[\d.]+", path.read_text(encoding="utf-8"))) == {release}, path.name


# ----------------------------------------------------------------------------------------------------- workflows


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_run_nothing_but_make_targets_that_exist(path: Path) -> None:
    jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert commands
    for command in commands:
        program, *words = command.split()
        assert program == "make", command
        targets = [word for word in words if "=" not in word]
        assert targets, command
        assert set(targets) <= TARGETS, command


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_may_only_read_and_end_in_time(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    assert all(job["timeout-minutes"] <= 180 for job in workflow["jobs"].values())


def test_the_matrix_has_every_supported_python_and_all_choices_of_dependencies() -> None:
    matrix = yaml.safe_load(read(".github", "workflows", "ci.yml"))["jobs"]["test"]["strategy"]["matrix"]
    pythons = {*matrix["python"], *(each["python"] for each in matrix["include"])}
    assert pythons == supported()
    choices = {*matrix["dependencies"], *(each["dependencies"] for each in matrix["include"])}
    assert choices == set(re.findall(r"^CONSTRAINTS\.(\w+) =", MAKEFILE, re.MULTILINE))


def test_issue_forms_ask_for_what_helps_and_warn_of_patient_data() -> None:
    for name in ("1-recording.yml", "2-bug.yml"):
        text = read(".github", "ISSUE_TEMPLATE", name)
        assert "ecgfounder inspect --json" in text
        assert "ecgfounder doctor" in text
        assert "**Never attach" in text
        boxes = [each for each in yaml.safe_load(text)["body"] if each["type"] == "checkboxes"]
        assert all(option["required"] for box in boxes for option in box["attributes"]["options"])


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "RELEASING.md", "SECURITY.md", "README.md"])
def test_make_targets_that_pages_name_exist(name: str) -> None:
    named = set(re.findall(r"`make ([a-z][a-z -]*)", read(name)))
    assert {target for words in named for target in words.split()} <= TARGETS


# ------------------------------------------------------------------------------------------------------ archives


def test_modules_that_are_tested_from_the_archive_or_under_sanitizers_exist() -> None:
    modules = {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
    assert set(variables(MAKEFILE, "DIST_TESTS")) <= modules
    under_sanitizers = set(re.findall(r"-name (test_\w+)\.py", read(".ci", "sanitize")))
    assert under_sanitizers
    assert under_sanitizers <= modules


def test_the_lowest_versions_are_those_that_the_package_asks_for() -> None:
    lines = loaded("lowest").lowest()
    floors = {re.split(r">=", each)[0] for each in PROJECT["project"]["dependencies"]}
    assert {line.split("==")[0] for line in lines} >= floors - {"torch"}
    assert all(re.fullmatch(r"[A-Za-z_0-9]+==[\d.]+", line) for line in lines)


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A file with the names of a wheel as it should be."""
    check = loaded("check_dist")
    path = tmp_path / "ecgfounder-1.0-cp311-abi3-linux_x86_64.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name in check.expected_of_wheel("ecgfounder-1.0.dist-info"):
            archive.writestr(name, "")
    return path


def test_a_wheel_holds_types_labels_and_compiled_parts(wheel: Path) -> None:
    assert loaded("check_dist").faults_of_wheel(wheel) == []
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"ecgfounder/py.typed", "ecgfounder/network/labels.txt", "ecgfounder/engines/_net1d.pyi"} <= names
    assert sum(name.endswith(".abi3.so") for name in names) == 6
    assert not any(name.endswith((".c", ".h")) or name.startswith("tests") for name in names)


@pytest.mark.parametrize("name", ["ecgfounder/engines/_net1d.c", "tests/conftest.py", "ecgfounder/left_over.so"])
def test_what_does_not_belong_in_a_wheel_is_a_fault(wheel: Path, name: str) -> None:
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr(name, "")
    assert loaded("check_dist").faults_of_wheel(wheel) == [f"should not contain {name}"]


def test_a_wheel_that_was_built_without_a_compiler_or_for_one_python_is_a_fault(wheel: Path, tmp_path: Path) -> None:
    other = tmp_path / "ecgfounder-1.0-cp312-cp312-linux_x86_64.whl"
    with zipfile.ZipFile(wheel) as archive, zipfile.ZipFile(other, "w") as without:
        for name in archive.namelist():
            if not name.endswith(".so"):
                without.writestr(name, "")
    faults = loaded("check_dist").faults_of_wheel(other)
    assert len(faults) == 7
    assert "cp312-cp312-linux_x86_64" in faults[0]
    assert all("does not contain" in fault and fault.endswith(".so") for fault in faults[1:])


def test_the_checks_exit_status_is_that_of_what_it_finds(wheel: Path) -> None:
    words = [sys.executable, str(ROOT / ".ci" / "check_dist.py"), str(wheel)]
    assert subprocess.run(words, check=False, capture_output=True).returncode == 0
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("setup.py", "")
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "should not contain setup.py" in done.stdout
