"""Hold a wheel or a source archive against what it should contain: no more and no less.

    python .ci/check_dist.py dist/*.whl dist/*.tar.gz

In: archives of this checkout, whose `src` and (for a source archive) `git ls-files` say what belongs in them. Out: status 1
and a list of what is missing or too much. A wheel without the compiled parts is refused: it was built without a compiler.
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
SUFFIXES = {".py", ".pyi", ".typed", ".txt"}
COMPILED = ("engines/_net1d.abi3.so", "readers/philips/_xli.abi3.so")
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
    """What is wrong with a source archive, in words: it holds what git knows, and what setuptools writes itself."""
    top = path.name.removesuffix(".tar.gz")
    with tarfile.open(path) as archive:
        found = {member.name.removeprefix(f"{top}/") for member in archive.getmembers() if member.isfile()}
    written = {name for name in found if name in ("PKG-INFO", "setup.cfg") or ".egg-info/" in name}
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return differences(found - written, {name for name in listed.split("\0") if name and (ROOT / name).exists()})


def differences(found: Iterable[str], expected: Iterable[str]) -> list[str]:
    """Names that are missing or too many, each a line."""
    missing = [f"is missing {name}" for name in sorted(set(expected) - set(found))]
    return missing + [f"should not hold {name}" for name in sorted(set(found) - set(expected))]


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
            print(f"{path.name}: {path.stat().st_size:,} bytes, holds what it should")
    return int(faulty)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
