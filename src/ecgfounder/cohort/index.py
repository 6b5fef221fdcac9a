"""The index of a cohort: 64-bit hashes, to find duplicate paths and colliding names in little memory.

In: a cohort's records. Out: an `Index`, about 25 bytes per path; keys and output names of records.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ecgfounder.cohort.cohort import Cohort, Record
from ecgfounder.cohort.naming import Naming
from ecgfounder.errors import PrepareError
from ecgfounder.storage.paths import absolute_path, below, is_plain, path_key


@dataclass(frozen=True)
class Index:
    """Hashes of every path of a cohort, without the paths: about 25 bytes each.

    Attributes
    ----------
    keys : numpy.ndarray
        uint64 [n], the record's key (`record_key`).
    names : numpy.ndarray
        uint64 [n], hash of the output name with case folded; 0 if the path has no valid output name.
    first : numpy.ndarray
        bool [n], whether this is the first occurrence of the record.
    marks : numpy.ndarray
        int64 [n], hash of the `Record`, to recognise it in this process when the cohort is read again.
    shared : numpy.ndarray
        uint64, hashes of the names of identifiers that have several paths.
    decimal_ids : bool
        Whether the records have identifiers, and all of them are whole numbers with a decimal point (123.0) or an exponent.
    """

    keys: npt.NDArray[np.uint64]
    names: npt.NDArray[np.uint64]
    first: npt.NDArray[np.bool_]
    marks: npt.NDArray[np.int64]
    shared: npt.NDArray[np.uint64]
    decimal_ids: bool = False

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def n_records(self) -> int:
        """Number of different recordings."""
        return int(self.first.sum())

    def sample(self, size: int) -> npt.NDArray[np.bool_]:
        """Some recordings, spread over the cohort by chance: bool [n]. A smaller sample is part of a larger one."""
        keys = np.sort(self.keys[self.first])
        if size >= len(keys):
            return self.first
        return np.asarray(self.first & (self.keys < keys[size]), dtype=np.bool_)

    def shard_sizes(self, n_shards: int) -> list[int]:
        """The number of different recordings in each shard of a division."""
        shards = (self.keys[self.first] % np.uint64(n_shards)).astype(np.int64)
        return [int(number) for number in np.bincount(shards, minlength=n_shards)]

    def colliding_names(self) -> npt.NDArray[np.uint64]:
        """Hashes of the output names that two or more different paths would share."""
        names = self.names[self.first & (self.names != 0)]
        values, counts = np.unique(names, return_counts=True)
        return np.union1d(values[counts > 1], self.shared)


def indexed_records(cohort: Cohort, index: Index, data_dir: str) -> Iterator[tuple[int, Record]]:
    """Every path with its position in the index, even if the cohort has changed since (new files in a folder).

    Paths that are not in the index are left to the next attempt.
    """
    marks = index.marks.data
    order: npt.NDArray[np.int64] | None = None  # by key; needed only if the cohort has changed
    for place, record in enumerate(cohort.records()):
        if place < len(marks) and marks[place] == hash(record):
            yield place, record
            continue
        if order is None:
            order = np.argsort(index.keys, kind="stable")
            sorted_keys = index.keys[order]
        key = np.uint64(record_key(record, data_dir))
        found = int(np.searchsorted(sorted_keys, key))
        if found < len(index) and sorted_keys[found] == key:
            yield int(order[found]), record


def record_key(record: Record, data_dir: str) -> int:
    """The 64-bit key of a record: a hash of its identifier if it has one, else of its path.

    Outputs that may be shared contain the key, and a hash of a path could be reversed by hashing likely paths.
    """
    if record.identifier:
        return path_key(f"\0{record.position}\0{record.identifier}")  # never equal to a path
    return path_key(record_identity(record.path, data_dir))


def record_identity(path: str, data_dir: str) -> str:
    """The normalised path that identifies a record: relative to `data_dir` if it is below it, else absolute.

    If a cohort is moved as a whole, with its `data_dir` (an absolute path), its records stay the same.
    """
    if is_plain(path):
        return path
    return absolute_path(path, data_dir).removeprefix(below(data_dir))


def output_name(record: Record, naming: Naming) -> str:
    """The record's output name: from its identifier if it has one, else from its path.

    A row with several paths numbers them: `ID`, `ID_1`, `ID_2`.
    """
    if record.identifier is None:
        return naming.name(record.path)
    if not record.identifier.strip():
        raise PrepareError(f"the identifier of row {record.row} is empty; expected a name for the output")
    return naming.name_for_id(record.identifier if record.position == 0 else f"{record.identifier}_{record.position}")


def index_cohort(cohort: Cohort, naming: Naming | None, data_dir: str) -> Index:
    """Read the cohort once and hash its paths and output names (10 million paths: about 300 MB).

    Without a `naming`, outputs have no names, so that none can collide.
    """
    keys, names, marks = array("Q"), array("Q"), array("q")
    paths = array("Q")  # if records have identifiers
    decimal_ids: bool | None = None  # None: no identifier yet
    for record in cohort.records():
        keys.append(record_key(record, data_dir))
        marks.append(hash(record))
        try:
            names.append(0 if naming is None else naming.key(output_name(record, naming)))
        except PrepareError:
            names.append(0)  # the record fails with that reason later
        if record.identifier is not None:
            paths.append(path_key(record_identity(record.path, data_dir)))
            if decimal_ids is not False and record.identifier:
                decimal_ids = is_decimal(record.identifier)
    all_keys, all_names = np.array(keys, np.uint64), np.array(names, np.uint64)
    first = np.zeros(len(keys), dtype=np.bool_)
    first[np.unique(all_keys, return_index=True)[1]] = True
    shared = _shared_names(all_keys, all_names, np.array(paths, np.uint64)) if paths else np.empty(0, np.uint64)
    return Index(all_keys, all_names, first, np.array(marks, np.int64), shared, bool(decimal_ids))


_DECIMAL = re.compile(r"-?\d+\.0+|-?\d(?:\.\d+)?e\+\d+")


def is_decimal(identifier: str) -> bool:
    """Whether an identifier is a whole number as a library writes it that has made floating-point numbers of a column.

    >>> [is_decimal(each) for each in ("40689238.0", "1.2e+17", "40689238", "1.5", "v1.0")]
    [True, True, False, False, False]
    """
    return _DECIMAL.fullmatch(identifier) is not None


def _shared_names(
    keys: npt.NDArray[np.uint64], names: npt.NDArray[np.uint64], paths: npt.NDArray[np.uint64]
) -> npt.NDArray[np.uint64]:
    """The names of keys with more than one path."""
    order = np.argsort(keys, kind="stable")
    differs = (keys[order][1:] == keys[order][:-1]) & (paths[order][1:] != paths[order][:-1])
    return np.setdiff1d(names[order][1:][differs], [0])
