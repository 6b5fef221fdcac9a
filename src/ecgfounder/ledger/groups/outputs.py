"""The outputs of a run to which groups were committed, compared with its ledger by one listing.

In: the ledger's state, the output folder. Out: which finished records have their output, with the tag that it was written with.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ecgfounder.cohort.naming import RUN_FOLDER
from ecgfounder.ledger.ledger import DONE, LedgerState
from ecgfounder.storage import Location
from ecgfounder.storage.paths import path_key


def outputs_there(output_dir: Location, state: LedgerState) -> npt.NDArray[np.bool_]:
    """bool [n]: for each row of the state, whether its output exists, and has not been replaced since.

    Raises
    ------
    StorageError
        If the folder cannot be listed.
    """
    names, tags = array("Q"), array("Q")
    for name, tag in _listed(output_dir):
        names.append(path_key(name.casefold()))
        tags.append(path_key(tag))
    order = np.argsort(np.array(names, np.uint64), kind="stable")
    listed, listed_tags = np.array(names, np.uint64)[order], np.array(tags, np.uint64)[order]
    shards = np.isin(np.array([path_key(shard.casefold()) for shard in state.shards], np.uint64), listed)
    there = np.append(shards, False)[state.shard]  # the last one is for separate objects
    if len(listed):
        at = np.minimum(np.searchsorted(listed, state.names), len(listed) - 1)
        same = (listed[at] == state.names) & ((state.outputs == 0) | (listed_tags[at] == state.outputs))
        there |= same & (state.shard < 0)
    return np.asarray(there & (state.status == DONE), dtype=np.bool_)


def _listed(output_dir: Location) -> Iterator[tuple[str, str]]:
    """Name and tag of each object below a folder, except those of the run record."""
    if output_dir.is_local:  # the ledger has no tags of outputs there, and asking for them takes time
        yield from ((name, "") for name in output_dir.names(skip=RUN_FOLDER.__eq__))
        return
    start = len(output_dir.name) + 1 if output_dir.name else 0
    for status in output_dir.store.unsorted(output_dir.name):
        name = status.name[start:]
        if not name.startswith(f"{RUN_FOLDER}/"):
            yield name, status.tag
