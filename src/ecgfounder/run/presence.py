"""Whether a cohort's files exist, from a sample of its paths: a wrong data folder shows before every record has failed.

In: the cohort, its index, which of its paths. Out: a `Presence`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ecgfounder.cohort.cohort import Cohort, Record
from ecgfounder.cohort.index import Index, indexed_records
from ecgfounder.cohort.naming import Naming
from ecgfounder.errors import ECGFounderError, MissingDependencyError
from ecgfounder.readers import make_source
from ecgfounder.readers.identity import ITSELF, are_there
from ecgfounder.readers.source import Hints
from ecgfounder.storage import NO_OPTIONS, Denied, StorageOptions, Unavailable, is_url
from ecgfounder.storage.paths import printable

SAMPLE = 400
"""Paths that a dry run looks at."""
FIRST_SAMPLE = 20
"""Paths that an attempt looks at, unless it finds one before."""


@dataclass(frozen=True)
class Presence:
    """What was found of some of a cohort's files.

    Attributes
    ----------
    looked_at, absent : int
        Number of paths that were looked at, and of those without a file.
    of : int
        Number of paths that they were chosen from.
    example : str
        The first path without a file, absolute; "" if there is none.
    data_dir : str
        The folder that this path is relative to; "" if the dataset has it as an absolute path.
    """

    looked_at: int = 0
    absent: int = 0
    of: int = 0
    example: str = ""
    data_dir: str = ""

    @property
    def advice(self) -> str:
        """What may be wrong if most files do not exist."""
        if self.data_dir:
            return f"is data_dir right? It is {self.data_dir}"
        return "the dataset's paths are absolute; were the files moved?"


def look(
    cohort: Cohort,
    index: Index,
    which: npt.NDArray[np.bool_],
    naming: Naming,
    most: int,
    *,
    until_found: bool = False,
    options: StorageOptions = NO_OPTIONS,
) -> Presence:
    """Look for the files of at most `most` paths, spread evenly over those that `which` marks; the same ones each time.

    With `until_found`, the first file that exists ends it.

    Raises
    ------
    MissingDependencyError
        If a path needs a package that is not installed.
    Unavailable
        If an object store does not answer.
    Denied
        If access to every object that was looked at is denied.
    """
    looked_at = absent = 0
    example = data_dir = ""
    denied: list[Denied] = []
    for record in _chosen(cohort, index, which, naming, most):
        looked_at += 1
        try:
            is_absent = _is_absent(record, naming, options)
        except Denied as error:
            denied.append(Denied(f"{printable(naming.absolute(record.path))}: {error}"))
            continue
        if not is_absent:
            if until_found:
                break
            continue
        absent += 1
        if not example:
            example = printable(naming.absolute(record.path))
            data_dir = "" if record.path.startswith("/") or is_url(record.path) else naming.data_dir
    if denied and len(denied) == looked_at:
        raise denied[0]
    return Presence(looked_at, absent, int(which.sum()), example, data_dir)


def _chosen(cohort: Cohort, index: Index, which: npt.NDArray[np.bool_], naming: Naming, most: int) -> Iterator[Record]:
    places = np.flatnonzero(which)
    if len(places) > most:
        places = places[np.linspace(0, len(places) - 1, most).astype(np.int64)]
    left = set(places.tolist())
    for place, record in indexed_records(cohort, index, naming.data_dir):
        if place in left:
            yield record
            left.remove(place)
            if not left:
                break


def _is_absent(record: Record, naming: Naming, options: StorageOptions) -> bool:
    """Whether a record's file does not exist; one on this machine that cannot be asked for is not absent."""
    path = naming.absolute(record.path)
    try:
        return not are_there(make_source(path, Hints(), options), (ITSELF,))
    except MissingDependencyError:
        raise
    except Unavailable as error:
        if is_url(path):
            raise Unavailable(f"{printable(path)}: {error}") from error
        return False
    except Denied:
        if is_url(path):
            raise
        return False
    except ECGFounderError:
        return False
