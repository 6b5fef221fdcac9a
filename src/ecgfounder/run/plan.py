"""The records that are left to do: the cohort compared with the ledger and the files.

In: the cohort's index, the ledger's state, the settings. Out: a `Plan`, with a mark for every path of the cohort.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ecgfounder.cohort.cohort import Cohort, Record
from ecgfounder.cohort.index import Index, indexed_records, output_name, record_identity
from ecgfounder.cohort.naming import RUN_FOLDER, Naming
from ecgfounder.errors import ECGFounderError, PrepareError, RunError, StorageError
from ecgfounder.ledger.entry import Entry
from ecgfounder.ledger.entry import renewed as renewed_entry
from ecgfounder.ledger.groups.outputs import outputs_there
from ecgfounder.ledger.ledger import DONE, FAILED, LedgerState
from ecgfounder.readers import make_source
from ecgfounder.readers.identity import ITSELF, are_there, companions_of, identity_of
from ecgfounder.readers.source import Source
from ecgfounder.run.settings import Settings
from ecgfounder.run.statuses import Known, Statuses
from ecgfounder.storage import Location, Missing, Unavailable, is_url
from ecgfounder.storage.paths import joint_key, path_key, printable

Mask = npt.NDArray[np.bool_]


def check_foreign_outputs(index: Index, state: LedgerState) -> None:
    """Refuse to overwrite outputs of recordings that are no longer in the cohort.

    Raises
    ------
    RunError
        If there are any; the message has their number.
    """
    gone = ~np.isin(state.keys, index.keys) & (state.status == DONE) & (state.names != 0)
    taken = np.intersect1d(state.names[gone], index.names[index.first])
    if len(taken):
        rows = np.flatnonzero(gone & np.isin(state.names, taken))[:3]
        shown = ", ".join(f"{entry.output} of {entry.record}" for entry in state.entries(rows.tolist()))
        more = " ..." if len(taken) > len(rows) else ""
        raise RunError(
            f"Outputs in the folder that belong to recordings no longer in the dataset: {len(taken):,}. Those of other "
            f"recordings would overwrite them: {shown}{more}. Use another output_dir, layout='tree', or overwrite=True."
        )


@dataclass(frozen=True)
class Renewal:
    """A finished record whose file has the same content, but another modification time, tag or path.

    Attributes
    ----------
    row : int
        Row in the ledger's state.
    mtime_ns : int
        The file's present modification time.
    tag : str or None
        Its present tag in its store.
    path : int or None
        Hash of its path, if the record has an identifier.
    """

    row: int
    mtime_ns: int
    tag: str | None
    path: int | None


@dataclass(frozen=True)
class Plan:
    """What this process has to do for each path of the cohort.

    Attributes
    ----------
    todo : numpy.ndarray
        bool [n], the paths to process.
    had_output : numpy.ndarray
        bool [n], the paths in `todo` with an earlier output, which is replaced or removed.
    done, failed : int
        Records whose outcome in the ledger stays.
    changed : int
        Records whose file has changed; they are in `todo`.
    missing : int
        Records whose output no longer exists; they are in `todo` too.
    gone : int
        Records of the ledger that are no longer in the cohort.
    found : int
        Records that failed because files did not exist, which exist now; they are in `todo` too.
    renewals : tuple of Renewal
        Records whose ledger entry needs a new modification time or path.
    """

    todo: Mask
    had_output: Mask
    done: int
    failed: int
    changed: int
    missing: int
    gone: int
    found: int = 0
    renewals: tuple[Renewal, ...] = ()

    @property
    def n_todo(self) -> int:
        return int(self.todo.sum())


def make_plan(
    cohort: Cohort,
    index: Index,
    mine: Mask,
    state: LedgerState,
    settings: Settings,
    naming: Naming,
    output_dir: Location,
) -> Plan:
    """Compare the cohort with the ledger.

    Parameters
    ----------
    mine : numpy.ndarray
        bool [n], the paths of this process.

    A finished record is up to date if the size and time of its file are those of the ledger, and its output exists; of a file in
    an object store, size and tag. If only time or tag differ, or with `check_hashes`, the hash of the file's content decides. The
    same holds for an identifier that now stands for another path. A failed record is tried again if it failed because files did
    not exist which exist now, if its identifier stands for another path, or with `retry_failed`.

    Raises
    ------
    Unavailable
        If an object store does not answer.
    """
    candidates = index.first & mine
    rows = state.find(index.keys)
    known = candidates & (rows >= 0)
    status = np.where(known, state.status[np.maximum(rows, 0)] if len(state) else 0, 0)
    todo = candidates & ~np.isin(status, (DONE, FAILED))
    failed = status == FAILED
    if settings.retry_failed:
        todo |= failed
        failed[:] = False
    elif not cohort.id_column:
        failed &= state.absent[rows] if len(state) else False
    had_output = np.zeros(len(index), dtype=np.bool_)
    changed = missing = found = 0
    renewals: list[Renewal] = []
    looked_for = (status == DONE) | failed
    if np.any(looked_for):
        outputs = _Outputs(output_dir, state, naming)
        known_as, row_of, shard_of = np.where(looked_for, status, 0).data, rows.data, state.shard.data
        # An entry that names the output of another record has no output itself.
        misnamed = ((state.shard[rows] < 0) & (state.names[rows] != index.names)).data
        statuses = Statuses(naming.data_dir, int(looked_for.sum()), settings.storage_options)
        looked_at = _Inputs(state, settings, naming, statuses, renewals)
        for position, record in indexed_records(cohort, index, naming.data_dir):
            if not known_as[position]:
                continue
            row = row_of[position]
            if known_as[position] == FAILED:
                if looked_at.has_moved(record, row):
                    todo[position] = True
                elif looked_at.is_found(record, row):
                    todo[position] = True
                    found += 1
                continue
            if not outputs.has(record, row, shard_of[row]) or misnamed[position]:
                missing += 1
            elif looked_at.has_changed(record, row):
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
        found=found,
        renewals=tuple(renewals),
    )


def renewed(state: LedgerState, renewals: Sequence[Renewal]) -> Iterator[Entry]:
    """Entries with the files' present times and paths, so that the next attempt does not read the files again."""
    entries = state.entries(renewal.row for renewal in renewals)
    for renewal, entry in zip(renewals, entries, strict=True):
        yield renewed_entry(entry, renewal.mtime_ns, renewal.tag, renewal.path)


class _Outputs:
    """The existing outputs, from one listing of the folder instead of one question per output."""

    def __init__(self, output_dir: Location, state: LedgerState, naming: Naming) -> None:
        self._naming = naming
        self._there = None if output_dir.is_local else outputs_there(output_dir, state).data
        if self._there is not None:
            return
        self._keys = frozenset(map(path_key, output_dir.names(skip=RUN_FOLDER.__eq__)))
        self._shards = [path_key(shard) in self._keys for shard in state.shards]

    def has(self, record: Record, row: int, shard: int) -> bool:
        """Whether a finished record's output exists: in the shard of that number, or as a separate file (-1)."""
        if self._there is not None:
            return bool(self._there[row])
        if shard >= 0:
            return self._shards[shard]
        try:
            return path_key(output_name(record, self._naming)) in self._keys
        except PrepareError:
            return False  # the identifier is empty now: the record is done again, and fails with that reason


class _Inputs:
    """The files of finished records, compared with their ledger entries; collects the renewals."""

    def __init__(
        self, state: LedgerState, settings: Settings, naming: Naming, statuses: Statuses, renewals: list[Renewal]
    ) -> None:
        self._renewals = renewals
        self._statuses = statuses
        self._state = state
        self._settings = settings
        self._naming = naming
        # Reading Python integers from these is three times as fast as from arrays; there may be a million records.
        self._sizes, self._times = state.size.data, state.mtime_ns.data
        self._tags = state.tags.data
        self._paths, self._companions, self._absent = state.paths.data, state.companions.data, state.absent.data

    def has_changed(self, record: Record, row: int) -> bool:
        """Whether a record's files differ from those that were read; a file that no longer exists has not changed."""
        path = self._naming.absolute(record.path)
        by_content = self._settings.check_hashes or self.has_moved(record, row)
        if not self._companions[row] and not by_content and not is_url(path):  # the usual case
            try:
                status = os.stat(path)
            except (OSError, ValueError):
                if "::" not in path:
                    return False
            else:
                if status.st_size == self._sizes[row] and status.st_mtime_ns == self._times[row]:
                    return False
        return self._differs(record, path, row, by_content)

    def _seen(self, source: Source) -> list[Known]:
        """What is known of a recording's files; of none if it is gone."""
        seen: list[Known] = []
        with suppress(Missing):  # a WFDB record that is named without a suffix
            seen.append(self._statuses.of(source.location))
        return seen + [self._statuses.of(each) for each in source.companions]

    def has_moved(self, record: Record, row: int) -> bool:
        """Whether an identifier stands for another path than before, so that size and time prove nothing."""
        return bool(self._paths[row]) and self._paths[row] != path_key(
            record_identity(record.path, self._naming.data_dir)
        )

    def is_found(self, record: Record, row: int) -> bool:
        """Whether a record failed because files did not exist, and all of them exist now."""
        if not self._absent[row]:
            return False
        try:
            source = self._source(self._naming.absolute(record.path))
            if not self._companions[row]:  # the usual case
                return are_there(source, (ITSELF,))
            return are_there(source, (ITSELF, *next(self._state.entries([row])).absent))
        except ECGFounderError:
            return False

    def _source(self, path: str) -> Source:
        return make_source(path, self._settings.hints, self._settings.storage_options)

    def _differs(self, record: Record, path: str, row: int, by_content: bool) -> bool:
        source = self._source(path)
        if self._companions[row]:
            entry = next(self._state.entries([row]))
            source.companions.extend(companions_of(source, () if entry.input is None else entry.input.companions))
        location = source.location
        try:
            seen = self._seen(source)
        except StorageError as error:
            if not location.is_local and not isinstance(error, Missing):
                if isinstance(error, Unavailable):
                    raise Unavailable(f"{printable(path)}: {error}") from error
                return False  # access is denied now
            # A companion file is missing: either the whole recording is gone, or it has other companions now.
            return location.exists() or location.beside(f"{location.basename}.hea").exists()
        if not seen:
            return False
        size, modified = sum(each.size for each in seen), max(each.mtime_ns for each in seen)
        if size != self._sizes[row]:
            return True
        tag = 0 if location.is_local else joint_key([each.tag for each in seen])
        same = modified == self._times[row] if location.is_local else tag == self._tags[row]
        if same and not by_content:
            return False
        moved = self.has_moved(record, row)
        known = int(self._state.hashes[row])
        if known == 0:
            return not same or moved
        try:
            found = identity_of(source)
        except Unavailable as error:
            raise Unavailable(f"{printable(path)}: {error}") from error
        except ECGFounderError:
            return True
        if found.sha256 is None or int(found.sha256[:16], 16) != known:
            return True
        if moved or not same:
            key = path_key(record_identity(record.path, self._naming.data_dir)) if self._paths[row] else None
            self._renewals.append(Renewal(row, found.mtime_ns, found.tag, key))
        return False
