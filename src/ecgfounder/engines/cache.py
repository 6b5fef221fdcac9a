"""The cache of an engine's converted checkpoints: graphs and packed weights.

In: a key, and functions to build and load an entry. Out: the loaded entry. If it exists, neither torch nor the checkpoint's
tensors are loaded.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TypeVar

import numpy as np

from ecgfounder.errors import CheckpointError, SettingsError
from ecgfounder.machine import cache_folder
from ecgfounder.network.checkpoint import sha256_of
from ecgfounder.network.head import Head

log = logging.getLogger(__name__)

T = TypeVar("T")

_HEAD = "head.npz"
_DIGESTS = "sha256.json"


def from_cache(key: str, *, files: Collection[str], build: Callable[[Path], None], load: Callable[[Path], T]) -> T:
    """Load an entry; if it is missing or damaged, build it first.

    Parameters
    ----------
    key : str
        The entry's name: the checkpoint's SHA-256, and everything else that determines its content.
    files : collection of str
        Names of the entry's files.
    build : callable
        Writes the entry's files into an empty folder.
    load : callable
        Reads or memory-maps the files of a folder, which may be deleted afterwards.

    Raises
    ------
    CheckpointError
        As `build` does; no entry is left in the cache.
    SettingsError
        If neither the cache nor the folder for temporary files can hold an entry.
    """
    entry = cache_folder() / key
    try:
        if not _is_whole(entry, files):
            entry.parent.mkdir(parents=True, exist_ok=True)
            _write_entry(entry, files, build)
        return load(entry)
    except OSError as error:
        # Continue with a read-only or full home folder: a temporary entry is enough for this process.
        log.warning("the engine cannot be cached in %s (%s); it is built again at every start", entry.parent, error)
    try:
        # Ignore errors: on a network drive, memory-mapped files may stay until the process ends.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            build(Path(folder))
            return load(Path(folder))
    except OSError as error:
        raise SettingsError(
            f"the engine's copy of the checkpoint (about 125 MB) can be written neither to {entry.parent} nor to "
            f"the folder for temporary files ({error}): set ECGFOUNDER_CACHE, or TMPDIR, to a folder with space"
        ) from error


def _is_whole(entry: Path, files: Collection[str]) -> bool:
    """Whether an entry's files are unchanged since they were written; otherwise damaged weights would not be noticed."""
    try:
        digests = json.loads((entry / _DIGESTS).read_text(encoding="utf-8"))
        return set(files) <= set(digests) and all(sha256_of(entry / name) == digest for name, digest in digests.items())
    except (OSError, ValueError, TypeError, AttributeError, CheckpointError):
        return False


def _write_entry(entry: Path, files: Collection[str], build: Callable[[Path], None]) -> None:
    """Build an entry in a temporary folder and rename it; several processes may do this at the same time."""
    with tempfile.TemporaryDirectory(prefix=".building-", dir=entry.parent) as folder:
        built = Path(folder) / entry.name
        built.mkdir()
        build(built)
        digests = {path.name: sha256_of(path) for path in sorted(built.iterdir())}
        (built / _DIGESTS).write_text(json.dumps(digests), encoding="utf-8")
        try:
            built.rename(entry)
        except OSError:
            if _is_whole(entry, files):  # another process was first
                return
            entry.rename(Path(folder) / "damaged")
            built.rename(entry)


def write_head(folder: Path, head: Head | None) -> None:
    """Write the head as a file of an entry; no file if the checkpoint has no head."""
    if head is not None:
        np.savez(folder / _HEAD, weight=head.weight, bias=head.bias)


def read_head(folder: Path) -> Head | None:
    """Read the head written by `write_head`."""
    if not (folder / _HEAD).exists():
        return None
    with np.load(folder / _HEAD) as arrays:
        return Head(weight=arrays["weight"], bias=arrays["bias"])
