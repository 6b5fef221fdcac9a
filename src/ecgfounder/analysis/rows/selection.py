"""The recordings that an analysis uses, and the number left out by each rule.

In: an opened run or several, a table of labels, conditions. Out: a `Selection`: a table with a row per recording, and the
features of its rows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ecgfounder.analysis.rows.times import times_of
from ecgfounder.analysis.rows.where import rows_where
from ecgfounder.analysis.statistics.solver import Floats, Numbers
from ecgfounder.analysis.statistics.windows import Windows
from ecgfounder.checks import check_choice
from ecgfounder.errors import RunError, SettingsError
from ecgfounder.preprocess.quality import FLAGS
from ecgfounder.results import EmbeddingRun, EmbeddingRuns
from ecgfounder.results.several import RUN_COLUMN

FEATURE_CHOICES = ("mean", "mean_std", "leads")
"""Features of a recording: the mean over its tokens (and windows and leads); mean and standard deviation over its tokens; the
mean of each lead, one after the other."""

COMBINE_CHOICES = ("mean", "logit")
"""How the windows (or leads) of a recording become one score: by the mean of their embeddings, or by the mean of the logits of a
model that is fitted to windows."""

ONE_PER_PATIENT_CHOICES = ("first", "last", "random")

_ROWS_AT_ONCE = 1 << 16
_MAPS_AT_ONCE = 512
_NUMBER = "__recording"


@dataclass(frozen=True, eq=False)
class Selection:
    """Recordings of an opened run.

    Attributes
    ----------
    run : EmbeddingRun or EmbeddingRuns
        The run.
    table : pyarrow.Table
        A row per recording: the manifest's columns, then those of the label table.
    left_out : dict of str to int
        The number of recordings that each rule left out, in the order of the rules.
    """

    run: EmbeddingRun | EmbeddingRuns
    table: pa.Table
    left_out: dict[str, int]

    def kept(self, mask: Any, reason: str) -> Selection:
        """The rows of a mask; the others are counted under a reason."""
        mask = pa.array(np.asarray(mask, dtype=bool)) if not isinstance(mask, pa.ChunkedArray) else mask
        table = self.table if pc.all(mask, skip_nulls=False).as_py() else self.table.filter(mask)
        left_out = {**self.left_out, reason: self.left_out.get(reason, 0) + self.table.num_rows - table.num_rows}
        return Selection(self.run, table, left_out)

    def column(self, name: str, parameter: str) -> pa.ChunkedArray:
        """A column of the table; refuses one that does not exist by the parameter that names it."""
        if name not in self.table.column_names:
            raise SettingsError(
                f"Invalid value for the '{parameter}' parameter. There is no column {name!r}; the columns are: "
                f"{', '.join(self.table.column_names)}."
            )
        return self.table[name]

    @property
    def keys(self) -> list[str]:
        """What is the same for the same recording in another run: the hash of its files, else its name."""
        found: list[str] = pc.coalesce(self.table["input_sha256"], self.table["record"]).to_pylist()
        return found

    def in_order_of(self, keys: Sequence[str]) -> tuple[Selection, Numbers]:
        """The rows with some keys in their order, and the places of these keys."""
        at = {key: row for row, key in enumerate(self.keys)}
        places = np.array([place for place, key in enumerate(keys) if key in at], dtype=np.int64)
        rows = np.array([at[keys[place]] for place in places], dtype=np.int64)
        return Selection(self.run, self.table.take(pa.array(rows)), self.left_out), places

    def texts(self, name: str, parameter: str) -> list[str | None]:
        """A column as texts; whole numbers have no decimals, which a column with missing values has as 10.0."""
        return [None if value is None else as_name(value) for value in self.column(name, parameter).to_pylist()]

    def places_in(self, table: pa.Table) -> Numbers:
        """For each row of a table beside the manifest, the recording that it is of; -1 for one that is not used."""
        names = [name for name in (RUN_COLUMN, "record") if name in table.column_names]
        own, theirs = (
            pc.binary_join_element_wise(*(each[name].cast(pa.string()) for name in names), "\0")
            for each in (self.table, table)
        )
        at = pc.index_in(theirs, value_set=own, skip_nulls=True)
        rows: Numbers = pc.fill_null(at, -1).to_numpy().astype(np.int64)
        return rows

    def groups(self, name: str | None) -> Numbers:
        """The number of each recording's group, by a column; without one, each recording is its own."""
        if name is None:
            return np.arange(self.table.num_rows)
        _, numbers = np.unique(np.array(self.texts(name, "group"), dtype=object).astype(str), return_inverse=True)
        return numbers.astype(np.int64)

    def by_run(self) -> Iterator[tuple[EmbeddingRun, Numbers]]:
        """Each run, and the rows of the table that are its recordings."""
        if not isinstance(self.run, EmbeddingRuns):
            yield self.run, np.arange(self.table.num_rows)
            return
        names = np.array(self.table[RUN_COLUMN].to_pylist(), dtype=object)
        for name, run in zip(self.run.names, self.run.runs, strict=True):
            yield run, np.flatnonzero(names == name)

    def features(self, kind: str = "mean") -> Floats:
        """float32 [recordings, d]; windows are averaged."""
        check_choice("features", kind, FEATURE_CHOICES)
        X, meta, owner = self._stored(kind)
        if kind == "mean_std":
            return _averaged(X, owner, self.table.num_rows, with_deviation=True)
        if kind == "leads":
            return _by_lead(X, owner, meta["lead"].to_pylist(), self.table.num_rows)
        if len(X) == self.table.num_rows and np.array_equal(owner, np.arange(len(owner))):
            return np.asarray(X)
        return _averaged(X, owner, self.table.num_rows)

    def windows(self, kind: str = "mean") -> Windows:
        """The features of every window (and lead) by itself."""
        if kind == "leads":
            raise SettingsError(
                "features='leads' puts the leads of a recording together, so that combine='logit' has none"
            )
        X, _, owner = self._stored(kind)
        each = _averaged(X, np.arange(len(X)), len(X), with_deviation=True) if kind == "mean_std" else np.asarray(X)
        return Windows.of(each, owner)

    def _stored(self, kind: str) -> tuple[Any, pa.Table, Numbers]:
        """The stored embeddings or feature maps, their table, and the row of this table that each is of."""
        numbered = self.table.append_column(_NUMBER, pa.array(np.arange(self.table.num_rows)))
        X, meta = self.run.arrays_of(numbered, "none" if kind == "mean_std" else "mean")
        if kind == "mean_std" and X.ndim != 3:
            raise SettingsError("features='mean_std' needs feature maps: make the run without pooling='mean'")
        return X, meta, meta[_NUMBER].to_numpy().astype(np.int64)


def as_name(value: Any) -> str:
    """A value as a text, a whole number without decimals."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _averaged(X: Any, owner: Numbers, n: int, *, with_deviation: bool = False) -> Floats:
    """The mean of the rows of each recording; with the standard deviation over tokens beside it."""
    width = X.shape[-1] * (2 if with_deviation else 1)
    sums = np.zeros((n, width))
    at_once = _MAPS_AT_ONCE if with_deviation else _ROWS_AT_ONCE
    for first in range(0, len(owner), at_once):
        part = np.asarray(X[first : first + at_once], dtype=np.float64)
        if with_deviation:
            part = np.concatenate([part.mean(axis=1), part.std(axis=1)], axis=1)
        np.add.at(sums, owner[first : first + at_once], part)
    return (sums / np.bincount(owner, minlength=n)[:, None]).astype(np.float32)


def _by_lead(X: Any, owner: Numbers, leads: list[str | None], n: int) -> Floats:
    names = list(dict.fromkeys(leads))
    if names == [None] or len(names) < 2:
        raise SettingsError("features='leads' needs a run with an embedding per lead: mode='1lead' and lead='all'")
    lead = np.array([names.index(each) for each in leads])
    parts = []
    for number in range(len(names)):
        rows = np.flatnonzero(lead == number)
        if len(np.unique(owner[rows])) < n:
            raise SettingsError("features='leads' needs the same leads in all recordings")
        parts.append(_averaged(_Rows(X, rows), owner[rows], n))
    return np.concatenate(parts, axis=1)


@dataclass(frozen=True, eq=False)
class _Rows:
    """Some rows of an array that is read on use."""

    X: Any
    rows: Numbers

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.rows), *self.X.shape[1:])

    def __getitem__(self, index: slice) -> Any:
        return self.X[self.rows[index]]


def select(
    run: EmbeddingRun | EmbeddingRuns,
    labels: Any = None,
    on: str | None = None,
    *,
    group: str | None = None,
    where: str | None = None,
    exclude_flags: Collection[str] = (),
    repeated: bool = False,
) -> Selection:
    """Choose the recordings of an analysis.

    Parameters
    ----------
    run : EmbeddingRun or EmbeddingRuns
        The opened run.
    labels : Any, optional
        A table of labels (pandas, polars or pyarrow); None if the labels are in kept columns of the manifest.
    on : str, optional
        The column that the table and the run have in common.
    group : str, optional
        The column with the patient; recordings without a value are left out.
    where : str, optional
        A condition on the columns, see `ecgfounder.analysis.rows.where`.
    exclude_flags : collection of str
        Names of quality flags; recordings that have one are left out.
    repeated : bool, default: False
        Keep recordings that are in several rows, or in several runs.

    Raises
    ------
    SettingsError, RunError
        If a column does not exist, the condition is not valid, or no recording is left.
    """
    for flag in exclude_flags:
        check_choice("exclude_flags", flag, FLAGS)
    if (labels is None) != (on is None):
        raise SettingsError(
            "labels and on belong together: the table, and the column that it has in common with the run"
        )
    selection = Selection(run, run.records, {"failed": run.failures.num_rows})
    if not repeated:
        selection = selection.kept(_first_of(selection.table, ["output"]), "the same recording in another row")
    if not repeated and isinstance(run, EmbeddingRuns) and run.repeated.num_rows:
        selection = selection.kept(_first(selection.keys), "the same recording in an earlier run")
    if on is not None:
        selection = _joined(selection, labels, on, repeated)
    if exclude_flags:
        flagged = [
            any(flag.partition(":")[0] in exclude_flags for flag in flags or ())
            for flags in selection.column("flags", "exclude_flags").to_pylist()
        ]
        selection = selection.kept(~np.array(flagged, dtype=bool), f"flags: {', '.join(sorted(exclude_flags))}")
    if where is not None:
        selection = selection.kept(rows_where(selection.table, where), f"where: {where}")
    if group is not None:
        present = [value not in (None, "", "nan") for value in selection.texts(group, "group")]
        selection = selection.kept(present, f"no {group}")
    if not selection.table.num_rows:
        told = "; ".join(f"{reason}: {number:,}" for reason, number in selection.left_out.items() if number)
        raise RunError(f"no recording is left. Left out: {told or 'none; the run has no embedding'}")
    return selection


def _joined(selection: Selection, labels: Any, on: str, repeated: bool) -> Selection:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the counts are in `left_out`
        joined = selection.run.join(labels, on)
    with_row = joined.table if repeated else joined.table.filter(pa.array(_first_of(joined.table, ["output"])))
    names = [RUN_COLUMN] if RUN_COLUMN in with_row.column_names else []
    keys = set(zip(*(with_row[name].to_pylist() for name in (*names, "output")), strict=True))
    present = set(zip(*(selection.table[name].to_pylist() for name in (*names, "output")), strict=True))
    rows = [key in present for key in zip(*(with_row[name].to_pylist() for name in (*names, "output")), strict=True)]
    table = with_row.filter(pa.array(rows, pa.bool_()))
    left_out = {**selection.left_out, "no row in the table of labels": len(present - keys)}
    return Selection(selection.run, table, left_out)


def _first_of(table: pa.Table, names: list[str]) -> npt.NDArray[np.bool_]:
    """Whether each row is the first with its values; runs count apart."""
    names = [name for name in (RUN_COLUMN, *names) if name in table.column_names]
    if _ends_differ(table[names[-1]]) or len(pc.unique(table[names[-1]])) == table.num_rows:
        return np.ones(table.num_rows, dtype=bool)
    numbered = table.select(names).append_column(_NUMBER, pa.array(np.arange(table.num_rows)))
    firsts = numbered.group_by(names, use_threads=False).aggregate([(_NUMBER, "min")])[f"{_NUMBER}_min"].to_numpy()
    mask = np.zeros(table.num_rows, dtype=bool)
    mask[firsts] = True
    return mask


def _ends_differ(column: pa.ChunkedArray) -> bool:
    """Whether all texts differ, shown by hashes of their ends; much faster than comparing millions of texts."""
    hashes = []
    for texts in column.chunks:
        if not pa.types.is_string(texts.type) or texts.null_count or texts.offset or not len(texts):
            return False
        _, offsets, content = texts.buffers()
        stops = np.frombuffer(offsets, np.int32, len(texts) + 1)
        if np.diff(stops).min() < _END:
            return False
        ends = np.ndarray(stops[-1] - _END + 1, f"V{_END}", content, strides=(1,))[stops[1:] - _END]
        halves = ends.view(np.uint64).reshape(-1, 2)
        hashes.append(halves[:, 0] * _ODD + halves[:, 1])
    ordered = np.sort(np.concatenate(hashes)) if hashes else np.empty(0, np.uint64)
    return bool((ordered[1:] != ordered[:-1]).all())


_END = 16
_ODD = np.uint64(0x9E3779B97F4A7C15)


def _first(values: list[Any]) -> list[bool]:
    seen: set[Any] = set()
    return [not (value in seen or seen.add(value)) for value in values]  # type: ignore[func-returns-value]


def one_per_group(selection: Selection, groups: Numbers, which: str, time: str | None, seed: int) -> Selection:
    """One recording of each patient: the first or last by a column of times (or numbers), or one at random."""
    check_choice("one_per_patient", which, ONE_PER_PATIENT_CHOICES)
    if which == "random":
        rank = np.random.default_rng([seed, 3]).permutation(len(groups))
    else:
        if time is None:
            raise SettingsError("one_per_patient='first' and 'last' need the column of the time as 'ecg_time'")
        column = selection.column(time, "ecg_time")
        is_number = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
        values = (column if is_number else times_of(column, time)).to_numpy(zero_copy_only=False)
        if np.isnan(values).any():
            raise SettingsError(f"the column {time!r} has missing values, so that the order of recordings is unknown")
        _, rank = np.unique(values, return_inverse=True)
        rank = rank if which == "first" else -rank
    order = np.lexsort((np.arange(len(groups)), rank, groups))
    mask = np.zeros(len(groups), dtype=bool)
    mask[order[np.r_[True, groups[order][1:] != groups[order][:-1]]]] = True
    return selection.kept(mask, f"not the {which} recording of its patient")
