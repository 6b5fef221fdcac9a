"""The cache of an engine's converted checkpoints: graphs and packed weights, one file each.

In: a key, and functions to build and load an entry's parts. Out: the loaded entry. If it exists, neither torch nor the
checkpoint's tensors are loaded. An entry is opened once, checked, and read into memory of the process, so that nothing that
happens to the file afterwards matters: it may be truncated, replaced or removed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ecgfounder.machine import cache_folder, own_memory
from ecgfounder.network.bundles import FEATURES
from ecgfounder.network.head import Head
from ecgfounder.storage.replace import replacing

log = logging.getLogger(__name__)

T = TypeVar("T")

Parts = dict[str, npt.NDArray[Any]]
"""The parts of an entry by name: contiguous arrays when it is built, uint8 [n] when it is read."""

MOST_BYTES = 1 << 28
"""A larger file is no entry; a backbone has about 125 MB."""

_HEAD_WEIGHT, _HEAD_BIAS, _HEAD_LABELS = "head.weight", "head.bias", "head.labels"

# An entry's layout: the SHA-256 of everything after it, in hexadecimal; a line of JSON with the key and each part's length,
# padded with spaces; the parts one after the other, each padded with zeros.
_DIGEST_BYTES = 64
_HEADER_BYTES = 4096
_ALIGNMENT = 64
_CHUNK_BYTES = 1 << 20
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def from_cache(key: str, *, build: Callable[[], Parts], load: Callable[[Parts], T]) -> T:
    """Load an entry; if it is missing, damaged or not to be trusted, build it first.

    Parameters
    ----------
    key : str
        The entry's name: the checkpoint's SHA-256, and everything else that determines its content. It is in the entry too.
    build : callable
        Makes the entry's parts.
    load : callable
        Makes of the parts what is returned. Any error of it means that the entry is damaged, and it is built again.

    Raises
    ------
    CheckpointError
        As `build` does; no entry is left in the cache.
    """
    folder = cache_folder()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        opened = _opened_folder(folder)
    except OSError as error:
        _tell_uncached(folder, error)
        return load(build())
    try:
        kept = _read_entry(opened, key)
        if kept is not None:
            return load(kept)
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's exceptions have no common base class
        why = str(error) if isinstance(error, _UnusableEntry | OSError) else f"{type(error).__name__} when it is loaded"
        log.warning("an entry of the cache %s is not used and is built again: %s", folder, why)
    finally:
        os.close(opened)
    parts = build()
    try:
        _write_entry(folder, key, parts)
    except OSError as error:
        _tell_uncached(folder, error)
    return load(parts)


def why_untrusted(status: os.stat_result) -> str | None:
    """Why what a file or folder of the cache holds may be someone else's: its owner, or who may write to it."""
    if status.st_uid not in (os.geteuid(), 0):
        return f"it belongs to user {status.st_uid}"
    if status.st_mode & _WRITABLE_BY_OTHERS:
        return f"others may write to it (mode {stat.S_IMODE(status.st_mode):o}): chmod go-w"
    return None


def _tell_uncached(folder: Path, error: OSError) -> None:
    """A home folder that is read-only, full or not to be trusted is no reason to stop: the parts in memory are enough."""
    log.warning("the engine cannot be cached in %s (%s); it is built again at every start", folder, error)


# ----------------------------------------------------------------------------------------------------------- the entries


class _UnusableEntry(Exception):
    """An entry that is not used, with the reason."""


def _opened_folder(folder: Path) -> int:
    """The folder's descriptor, through which its entries are opened; an OSError if others may put entries there."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    problem = why_untrusted(os.fstat(opened))
    if problem is not None:
        os.close(opened)
        raise PermissionError(problem)
    return opened


def _read_entry(folder: int, key: str) -> Parts | None:
    """An entry's parts; None if there is no entry.

    Raises
    ------
    _UnusableEntry, OSError
        If it is not a file, not whole, not of this checkpoint, or others may have written it.
    """
    try:
        opened = os.open(_file_name(key), _OPEN, dir_fd=folder)
    except FileNotFoundError:
        return None
    try:
        status = os.fstat(opened)
        problem = why_untrusted(status)
        if problem is not None:
            raise _UnusableEntry(problem)
        if not stat.S_ISREG(status.st_mode) or not _HEADER_BYTES <= status.st_size <= MOST_BYTES:
            raise _UnusableEntry("it is no file, or has an impossible size")
        content = _whole(opened, status.st_size)
    finally:
        os.close(opened)
    parts = None if content is None else _parts_of(content, key)
    if parts is None:
        raise _UnusableEntry("it is damaged")
    return parts


def _whole(opened: int, size: int) -> npt.NDArray[np.uint8] | None:
    """A file's bytes, in memory of their own; None if there are fewer, or they do not have the digest that is in front."""
    own = own_memory(size)
    memory = memoryview(own)
    digest = hashlib.sha256()
    at = 0
    while at < size:
        n_read = os.readv(opened, [memory[at : at + _CHUNK_BYTES]])
        if n_read == 0:
            return None
        digest.update(memory[max(at, _DIGEST_BYTES) : at + n_read])
        at += n_read
    return np.frombuffer(own, np.uint8) if memory[:_DIGEST_BYTES] == digest.hexdigest().encode() else None


def _parts_of(content: npt.NDArray[np.uint8], key: str) -> Parts | None:
    """The parts of an entry, if it is the one of this key."""
    header = json.loads(content[_DIGEST_BYTES:_HEADER_BYTES].tobytes())
    if header["key"] != key:
        return None
    content.flags.writeable = False
    parts: dict[str, npt.NDArray[np.uint8]] = {}
    at = _HEADER_BYTES
    for name, size in header["parts"].items():
        parts[name] = content[at : at + size]
        at += size + -size % _ALIGNMENT
    return parts


def _write_entry(folder: Path, key: str, parts: Parts) -> None:
    """Write an entry and rename it; several processes may do this at the same time.

    Raises
    ------
    OSError
        If it cannot be written; what was written is removed.
    """
    contents = {name: np.ascontiguousarray(part).reshape(-1).view(np.uint8) for name, part in parts.items()}
    header = json.dumps({"key": key, "parts": {name: len(content) for name, content in contents.items()}}).encode()
    pieces: list[Any] = [header.ljust(_HEADER_BYTES - _DIGEST_BYTES)]
    for content in contents.values():
        pieces += [content, bytes(-len(content) % _ALIGNMENT)]
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    # In a folder that only this user may enter, so that nobody else can open the file before its mode is set.
    with (
        tempfile.TemporaryDirectory(prefix=".building-", dir=folder, ignore_cleanup_errors=True) as private,
        replacing(folder / _file_name(key), aside=Path(private) / "entry") as file,
    ):
        os.fchmod(file.fileno(), stat.S_IMODE(os.fstat(file.fileno()).st_mode) & ~_WRITABLE_BY_OTHERS)
        for piece in (digest.hexdigest().encode(), *pieces):
            file.write(piece)


def _file_name(key: str) -> str:
    return f"{key}.entry"


# -------------------------------------------------------------------------------------------------------------- the head


def head_parts(head: Head | None) -> Parts:
    """The head as parts of an entry; none if the checkpoint has no head."""
    if head is None:
        return {}
    parts: Parts = {_HEAD_WEIGHT: head.weight, _HEAD_BIAS: head.bias}
    if head.labels is not None:
        parts[_HEAD_LABELS] = np.frombuffer(json.dumps(head.labels).encode(), np.uint8)
    return parts


def head_of_parts(parts: Parts) -> Head | None:
    """The head in the parts that `head_parts` made."""
    if _HEAD_WEIGHT not in parts:
        return None
    # Copies, because a view would keep all the entry's memory.
    weight, bias = (floats(parts[name]).copy() for name in (_HEAD_WEIGHT, _HEAD_BIAS))
    labels = tuple(json.loads(parts[_HEAD_LABELS].tobytes())) if _HEAD_LABELS in parts else None
    return Head(weight=weight.reshape(len(bias), FEATURES), bias=bias, labels=labels)


def floats(part: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """A part as flat float32."""
    return part.reshape(-1).view(np.float32)
