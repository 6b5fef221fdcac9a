"""Sizes and tags of a cohort's objects, from one listing of its folder, and else from a question per object.

In: locations. Out: what tells whether they have changed. Files on this machine are asked for one by one, which costs little.
"""

from __future__ import annotations

from array import array
from typing import NamedTuple

import numpy as np

from ecgfounder.storage import Denied, Location, Missing, Status, StorageOptions, is_url, locate
from ecgfounder.storage.paths import path_key

LISTED_PER_RECORD = 1000
"""Objects of the folder, per finished record, up to which listing it takes no more requests than asking for each record."""


class Known(NamedTuple):
    """What is known of an object: `tag` is a 64-bit key of its tag, 0 on this machine."""

    size: int
    mtime_ns: int
    tag: int


class Statuses:
    """The state of files and objects.

    Parameters
    ----------
    folder : str
        The cohort's data folder, which is listed at the first question if it is not on this machine.
    n_records : int
        Number of records that are asked for.
    options : StorageOptions
        Options of object stores.
    """

    def __init__(self, folder: str, n_records: int, options: StorageOptions) -> None:
        self._folder = locate(folder, options) if is_url(folder) else None
        self._most = LISTED_PER_RECORD * n_records
        self._names = np.empty(0, np.uint64)
        self._known = np.empty((0, 3), np.uint64)
        self._is_listed = self._is_whole = False
        self._latest: tuple[Location, Known | Missing] | None = None

    def of(self, location: Location) -> Known:
        """What is known of an object.

        Raises
        ------
        StorageError
            If it does not exist (`Missing`), or cannot be asked for.
        """
        if location.is_local:
            status = location.status()
            return Known(status.size, status.mtime_ns, 0)
        if location.archive is not None:
            return _known(location.status())  # from the archive's index
        if self._folder is not None and self._folder.store == location.store and _is_below(location, self._folder):
            self._list(self._folder)
            name = np.uint64(path_key(location.name))
            at = int(np.searchsorted(self._names, name))
            if at < len(self._names) and self._names[at] == name:
                return Known(*map(int, self._known[at]))
            if self._is_whole:
                raise Missing("no such object")
        return self._asked(location)

    def _asked(self, location: Location) -> Known:
        if self._latest is None or self._latest[0] != location:  # consecutive records may be of one container
            try:
                self._latest = location, _known(location.status())
            except Missing as error:
                self._latest = location, error
        if isinstance(self._latest[1], Missing):
            raise self._latest[1]
        return self._latest[1]

    def _list(self, folder: Location) -> None:
        if self._is_listed:
            return
        self._is_listed = True
        names, known = array("Q"), array("Q")
        try:
            for status in folder.store.unsorted(folder.name):
                if len(names) == self._most:
                    break
                names.append(path_key(status.name))
                known.extend(_known(status))
            else:
                self._is_whole = True
        except Denied:
            pass  # reading may be permitted all the same
        keys = np.array(names, np.uint64)
        order = np.argsort(keys, kind="stable")
        self._names, self._known = keys[order], np.array(known, np.uint64).reshape(-1, 3)[order]


def _known(status: Status) -> Known:
    return Known(status.size, status.mtime_ns, path_key(status.tag))


def _is_below(location: Location, folder: Location) -> bool:
    return not folder.name or location.name.startswith(f"{folder.name}/")
