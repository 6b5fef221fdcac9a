"""Copies of objects on this machine, for libraries that need files: datasets and checkpoints.

In: an object, or a folder of objects. Out: a path in the cache. The name of a copy depends on URL and tags, so that an object
that has changed is copied again, and one that has not is copied once.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ecgfounder.errors import StorageError
from ecgfounder.machine import cache_folder
from ecgfounder.storage.local import LocalStore
from ecgfounder.storage.location import Location
from ecgfounder.storage.replace import replacing
from ecgfounder.storage.store import Status
from ecgfounder.storage.temporary import make_temporary_folder

PIECE_BYTES = 8 << 20
"""Bytes of one request, so that no request takes long."""
READ_AT_ONCE = 16
"""Objects that are copied at the same time."""


def copies_of(places: Sequence[Location]) -> tuple[Location, ...]:
    """Files on this machine with the content of objects with different basenames, as long as one of them is referred to.

    Files that are on this machine are not copied.
    """
    if all(place.is_local for place in places):
        return tuple(places)
    folder, remove = make_temporary_folder()
    store = LocalStore(str(folder))
    weakref.finalize(store, remove)
    copies = tuple(Location(store, place.basename) for place in places)
    with ThreadPoolExecutor(READ_AT_ONCE) as threads:
        for _ in threads.map(lambda copy, place: copy.path.write_bytes(place.read()), copies, places):
            continue
    return copies


def copy_of(location: Location) -> Path:
    """A copy of an object, with its name.

    Raises
    ------
    StorageError
        If the object cannot be read, or changes meanwhile, or the cache cannot be written.
    """
    status = location.status()
    return _copied(location.folder, [status]) / location.basename


def copy_of_folder(location: Location) -> Path:
    """A copy of a folder with everything below it; errors as for `copy_of`."""
    return _copied(location, list(location.list()))


def _copied(folder: Location, objects: Iterable[Status]) -> Path:
    told = "\0".join(f"{status.name}\0{status.tag}\0{status.size}" for status in objects)
    key = hashlib.sha256(f"{folder}\0{told}".encode("utf-8", "surrogatepass")).hexdigest()[:32]
    place = cache_folder() / "objects" / key
    start = len(folder.name) + 1 if folder.name else 0
    try:
        for status in objects:
            target = place / status.name[start:]
            if not (target.is_file() and target.stat().st_size == status.size):
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                _copy(Location(folder.store, status.name), status, target)
    except OSError as error:
        raise StorageError(
            f"cannot be copied to the cache {place.parent} ({error.strerror or error}): set ECGFOUNDER_CACHE to a folder with "
            "space"
        ) from error
    return place


def _copy(location: Location, status: Status, target: Path) -> None:
    with replacing(target) as file:
        for start in range(0, status.size, PIECE_BYTES):
            file.write(location.read(start, min(start + PIECE_BYTES, status.size), tag=status.tag))
