"""What tells whether a file is the one that was read: size, time, content.

In: a `Source` that was read. Out: its `Identity`, for the ledger.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ecgfounder.readers.source import Source, open_regular
from ecgfounder.storage.paths import printable


def identity_of(source: Source) -> dict[str, Any]:
    """Size in bytes, latest modification time in ns and SHA-256 of the files that one recording was read from.

    A recording inside a container has no hash: its container can be many gigabytes, and its time decides.
    """
    digest = hashlib.sha256()
    size, modified = 0, 0
    for path in source.files:
        if path == source.path and source.small is not None:
            status, content = source.small  # what was read, whatever is there by now
            whole = hashlib.sha256(content)
        else:
            with open_regular(path) as file:
                status = os.fstat(file.fileno())
                whole = hashlib.file_digest(file, "sha256") if source.member is None else hashlib.sha256()
        size, modified = size + status.st_size, max(modified, status.st_mtime_ns)
        digest.update(whole.digest())
    identity: dict[str, Any] = {"size": size, "mtime_ns": modified}
    identity["sha256"] = digest.hexdigest() if source.member is None else None
    if source.companions:
        identity["companions"] = [_companion_name(source, path) for path in source.companions]
    return identity


def _companion_name(source: Source, path: Path) -> str:
    """A companion's place beside its recording; '*' stands for the recording's own name, which need not be told twice."""
    name, stem = printable(os.path.relpath(path, source.path.parent)), printable(source.path.stem)
    if name.startswith(stem):
        return f"*{name.removeprefix(stem)}"
    return name if not name.startswith("*") else f"./{name}"


def companions_of(source: Source, names: Iterable[str]) -> list[Path]:
    """The files that an identity's `companions` name."""
    folder = source.path.parent
    return [folder / (f"{source.path.stem}{name[1:]}" if name.startswith("*") else name) for name in names]
