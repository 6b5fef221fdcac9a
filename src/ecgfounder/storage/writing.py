"""Write a file or object piece by piece: it is replaced as a whole, at the end.

In: a location, and what a block writes. Out: the complete file or object; or an error, and the previous one.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from ecgfounder.storage.location import Location, locate
from ecgfounder.storage.replace import replace_file, replacing

Place = str | os.PathLike[str] | Location


@contextmanager
def writing(place: Place) -> Iterator[BinaryIO]:
    """A file whose content replaces that of `place` when the block ends without an error.

    For an object elsewhere, it is a temporary file of this machine.

    Raises
    ------
    OSError
        If a file cannot be written.
    StorageError
        If an object cannot be written.
    """
    place = locate(place)
    if place.is_local:
        with replacing(place.path) as file:
            yield file
        return
    with tempfile.TemporaryFile() as file:
        yield file
        file.flush()
        file.seek(0)
        place.write(file)


def write_whole(place: Location, data: bytes) -> None:
    """`writing`, for content that is in memory."""
    if place.is_local:
        replace_file(place.path, data)
    else:
        place.write(data)
