"""Large files that do not change are hashed and read once for all runs in a test session.

In: checkpoints and entries of the engines' cache. Out: the same digests and weights, for less processor time. A file is known by
its place on the disk, its size and its times, so that a changed or replaced one is read again; small ones are always read.
"""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt
import pytest

from ecgfounder.engines import cache
from ecgfounder.network.checkpoint import sha256_of
from ecgfounder.run import run

_LARGE = 1 << 20

_digests: dict[tuple[int, ...], str] = {}
_contents: dict[tuple[int, ...], npt.NDArray[np.uint8]] = {}
_whole = cache._whole


def know_files(patch: pytest.MonkeyPatch) -> None:
    """Let runs and the engines' cache in this process remember what they read."""
    patch.setattr(run, "sha256_of", _digest)
    patch.setattr(cache, "_whole", _content)


def _digest(path: str | os.PathLike[str]) -> str:
    known = _known(os.stat(path)) if os.path.isfile(path) else None
    if known is None:
        return sha256_of(path)
    if known not in _digests:
        _digests[known] = sha256_of(path)
    return _digests[known]


def _content(opened: int, size: int) -> npt.NDArray[np.uint8] | None:
    known = _known(os.fstat(opened))
    if known is not None and known in _contents:
        return _contents[known]
    content = _whole(opened, size)
    if known is not None and content is not None:
        _contents.clear()  # one entry, of more than 100 MB, is enough: most runs are of the same checkpoint
        _contents[known] = content
    return content


def _known(status: os.stat_result) -> tuple[int, ...] | None:
    """What tells a file of another one and of its earlier content; None for a small one."""
    if status.st_size < _LARGE:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
