"""What is left to do: the cohort held against the ledger and against the files.

In: the cohort's index, the ledger's state, the settings. Out: a `Plan`, a mark for every path of the cohort.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ecgfounder.cohort import Cohort, Index, Record, indexed_records, output_name
from ecgfounder.errors import ECGFounderError, PrepareError, RunError
from ecgfounder.ledger import DONE, FAILED, LedgerState
from ecgfounder.naming import Naming, absolute_path, path_key, printable
from ecgfounder.readers import make_source
from ecgfounder.settings import Settings
from ecgfounder.workers import identity_of

Mask = npt.NDArray[np.bool_]


def check_foreign_outputs(index: Index, state: LedgerState) -> None:
    """Refuse to write over the output of a recording that the cohort no longer names.

    Raises
    ------
    RunError
        With how many there are.
    """
    gone = ~np.isin(state.keys, index.keys) & (state.status == DONE) & (state.names != 0)
    taken = np.intersect1d(state.names[gone], index.names[index.first])
    if len(taken):
        rows = np.flatnonzero(gone & np.isin(state.names, taken))[:3]
        shown = ", ".join(f"{entry['output']} of {entry['record']}" for entry in state.entries(rows.tolist()))
        raise RunError(
            f"{len(taken)} outputs in the folder belong to recordings that the dataset no longer names, and others would "
            f"take their places: {shown} ... Use another --output_dir, --layout tree, or --overwrite."
        )


@dataclass(frozen=True)
class Plan:
    """What this process does with each path of the cohort.

    Attributes
    ----------
    todo : bool [n], the paths to process.
    had_output : bool [n], those among them that have an output from before, which is replaced or removed.
    done, failed : records that stay as the ledger has them.
    changed : records whose input is not what it was; missing : whose output is gone; both are in `todo`.
    gone : records of the ledger that the cohort no longer names.
    """

    todo: Mask
    had_output: Mask
    done: int
    failed: int
    changed: int
    missing: int
    gone: int

    @property
    def n_todo(self) -> int:
        return int(self.todo.sum())


def make_plan(
    cohort: Cohort, index: Index, mine: Mask, state: LedgerState, settings: Settings, naming: Naming, output_dir: Path
) -> Plan:
    """Compare the cohort with the ledger.

    Parameters
    ----------
    mine : bool [n], the paths that are this process's share.

    A finished record is looked at, not read: size and time of its input as the ledger has them, and its output there.
    Where only the time differs, or with `check_hashes`, the content's hash decides.

    Raises
    ------
    RunError
        If a finished record has another identifier now.
    """
    candidates = index.first & mine
    rows = state.find(index.keys)
    known = candidates & (rows >= 0)
    status = np.where(known, state.status[np.maximum(rows, 0)] if len(state) else 0, 0)
    todo = candidates & ~np.isin(status, (DONE, FAILED))
    if settings.retry_failed:
        todo |= status == FAILED
    had_output = np.zeros(len(index), dtype=np.bool_)
    changed = missing = 0
    there = np.array([(output_dir / name).exists() for name in state.shards], dtype=np.bool_)
    if np.any(status == DONE):
        for position, record in indexed_records(cohort, index, naming.data_dir):
            if status[position] != DONE:
                continue
            row = int(rows[position])
            if record.identifier is not None and path_key(printable(record.identifier)) != int(state.records[row]):
                raise RunError(
                    f"Dataset row {record.row} has the identifier {record.identifier!r}, and its recording was embedded "
                    "under another one: the outputs would be mixed up. Use another --output_dir, or --overwrite."
                )
            shard = int(state.shard[row])
            if not (there[shard] if shard >= 0 else _has_output(record, naming, output_dir)):
                missing += 1
            elif _has_changed(record, row, state, settings, naming.data_dir):
                changed += 1
            else:
                continue
            todo[position] = had_output[position] = True
    gone = int(len(state) - np.isin(state.keys, index.keys).sum())
    left = known & ~todo
    return Plan(
        todo,
        had_output,
        done=int((left & (status == DONE)).sum()),
        failed=int((left & (status == FAILED)).sum()),
        changed=changed,
        missing=missing,
        gone=gone,
    )


def _has_output(record: Record, naming: Naming, output_dir: Path) -> bool:
    try:
        return os.path.lexists(output_dir / output_name(record, naming))
    except PrepareError:
        return False  # its identifier has gone: it is done again, and fails with that reason


def _has_changed(record: Record, row: int, state: LedgerState, settings: Settings, data_dir: str) -> bool:
    """Whether a finished record's files are others than those that were read; files that are gone have not changed."""
    path = absolute_path(record.path, data_dir)
    if not state.companions[row] and not settings.check_hashes:  # the usual case, a million times at a start
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            if "::" not in path:
                return False
        else:
            if status.st_size == state.size[row] and status.st_mtime_ns == state.mtime_ns[row]:
                return False
    source = make_source(path, settings.hints)
    if state.companions[row]:
        entry = next(state.entries([row]))
        source.companions.extend(source.path.parent / name for name in entry["companions"])
    try:
        seen = [os.stat(path) for path in source.files]
    except (OSError, ValueError):
        return False
    if not seen:
        return False
    size, modified = sum(each.st_size for each in seen), max(each.st_mtime_ns for each in seen)
    same = size == state.size[row] and modified == state.mtime_ns[row]
    if same and not settings.check_hashes:
        return False
    if size != state.size[row]:
        return True
    known = int(state.hashes[row])
    if known == 0:
        return not same
    try:
        return int(str(identity_of(source)["sha256"])[:16], 16) != known
    except ECGFounderError:
        return True
