"""Check that a wheel or a source archive contains exactly what it should.

    python .ci/check_dist.py dist/*.whl dist/*.tar.gz

A wheel must contain the modules and data files of `src`, and all compiled parts: a wheel that was built without a compiler is
an error. A source archive must contain the files that `git ls-files` lists. The exit status is 1 if anything is missing or
unexpected; each such file is printed.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "ecgfounder"
SUFFIXES = {".py", ".pyi", ".typed", ".txt", ".html", ".css", ".js", ".svg"}
COMPILED = (
    "engines/_net1d.abi3.so",
    "preprocess/_filters.abi3.so",
    "preprocess/_passes.abi3.so",
    "readers/_loops.abi3.so",
    "readers/philips/_xli.abi3.so",
    "sinks/_numbers.abi3.so",
)
OF_A_WHEEL = ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE", "top_level.txt")
TAG = "cp311-abi3-"


def expected_of_wheel(info: str) -> set[str]:
    """Names in a wheel whose metadata lie in `info`."""
    modules = {
        path.relative_to(PACKAGE.parent).as_posix()
        for path in PACKAGE.rglob("*")
        if path.suffix in SUFFIXES and "__pycache__" not in path.parts
    }
    return modules | {f"ecgfounder/{name}" for name in COMPILED} | {f"{info}/{name}" for name in OF_A_WHEEL}


def faults_of_wheel(path: Path) -> list[str]:
    """What is wrong with a wheel, in words."""
    name, version, tag = path.stem.split("-", 2)
    faults = [] if tag.startswith(TAG) else [f"its tag is {tag}, not {TAG}PLATFORM"]
    with zipfile.ZipFile(path) as archive:
        found = set(archive.namelist())
    return faults + differences(found, expected_of_wheel(f"{name}-{version}.dist-info"))


def faults_of_source(path: Path) -> list[str]:
    """What is wrong with a source archive, in words. Files that setuptools writes itself are expected."""
    top = path.name.removesuffix(".tar.gz")
    with tarfile.open(path) as archive:
        found = {member.name.removeprefix(f"{top}/") for member in archive.getmembers() if member.isfile()}
    written = {name for name in found if name in ("PKG-INFO", "setup.cfg") or ".egg-info/" in name}
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return differences(found - written, {name for name in listed.split("\0") if name and (ROOT / name).exists()})


def differences(found: Iterable[str], expected: Iterable[str]) -> list[str]:
    """A line for each name that is missing or unexpected."""
    missing = [f"does not contain {name}" for name in sorted(set(expected) - set(found))]
    return missing + [f"should not contain {name}" for name in sorted(set(found) - set(expected))]


def main(paths: list[str]) -> int:
    """Check each archive and print a line for it, or a line for each fault."""
    if not paths:
        print("usage: check_dist.py ARCHIVE...", file=sys.stderr)
        return 2
    faulty = False
    for path in map(Path, paths):
        faults = faults_of_wheel(path) if path.suffix == ".whl" else faults_of_source(path)
        faulty = faulty or bool(faults)
        for fault in faults:
            print(f"{path.name} {fault}")
        if not faults:
            print(f"{path.name}: {path.stat().st_size:,} bytes, contents are complete")
    return int(faulty)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
