"""What an engine makes of a checkpoint, kept for the next start: graphs and packed weights.

In: a key, and how an entry is built and loaded. Out: what was loaded. With an entry there, neither torch nor the checkpoint's
tensors are loaded.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TypeVar

import numpy as np

from ecgfounder.errors import CheckpointError, SettingsError
from ecgfounder.network.checkpoint import sha256_of
from ecgfounder.network.head import Head

log = logging.getLogger(__name__)

T = TypeVar("T")

_HEAD = "head.npz"
_DIGESTS = "sha256.json"


def cache_folder() -> Path:
    """Where entries are kept: $ECGFOUNDER_CACHE, or `ecgfounder` in $XDG_CACHE_HOME, or ~/.cache/ecgfounder."""
    own = os.environ.get("ECGFOUNDER_CACHE")
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "ecgfounder"


def from_cache(key: str, *, files: Collection[str], build: Callable[[Path], None], load: Callable[[Path], T]) -> T:
    """What `load` makes of an entry, which is built first where it is absent or damaged.

    Parameters
    ----------
    key : str
        The entry's name: the checkpoint's SHA-256, and all else that decides what is in it.
    files : collection of str
        Names of files without which an entry is not whole.
    build : callable
        Writes the entry's files into an empty folder.
    load : callable
        Reads or maps them from a folder, which may be gone afterwards.

    Raises
    ------
    CheckpointError
        As `build` does; nothing is left in the cache then.
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
        # A read-only or full home is no reason to stop: what is built is needed for a moment only.
        log.warning("the engine cannot be kept in %s (%s); it is built again at every start", entry.parent, error)
    try:
        # A network drive may keep a name of what is mapped until the process ends: no reason to stop either.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            build(Path(folder))
            return load(Path(folder))
    except OSError as error:
        raise SettingsError(
            f"what an engine makes of a checkpoint (about 125 MB) can be written neither to {entry.parent} nor to "
            f"the folder for temporary files ({error}): set ECGFOUNDER_CACHE, or TMPDIR, to a folder with room"
        ) from error


def _is_whole(entry: Path, files: Collection[str]) -> bool:
    """Whether an entry's files are those that were written: a damaged weight would go unnoticed otherwise."""
    try:
        digests = json.loads((entry / _DIGESTS).read_text(encoding="utf-8"))
        return set(files) <= set(digests) and all(sha256_of(entry / name) == digest for name, digest in digests.items())
    except (OSError, ValueError, TypeError, AttributeError, CheckpointError):
        return False


def _write_entry(entry: Path, files: Collection[str], build: Callable[[Path], None]) -> None:
    """Build an entry beside its place and rename it there; processes that do so at once do not disturb each other."""
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
    """The classification head as a file of an entry; none where the checkpoint has none."""
    if head is not None:
        np.savez(folder / _HEAD, weight=head.weight, bias=head.bias)


def read_head(folder: Path) -> Head | None:
    """What `write_head` wrote."""
    if not (folder / _HEAD).exists():
        return None
    with np.load(folder / _HEAD) as arrays:
        return Head(weight=arrays["weight"], bias=arrays["bias"])
