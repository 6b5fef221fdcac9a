"""The recordings that are most similar to a recording, or to each recording of a run.

In: an opened run or several, and vectors, names of recordings, or nothing for all recordings. Out: a `Neighbours`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ecgfounder.analysis.rows.selection import Selection, select
from ecgfounder.analysis.similarity.search import (
    ASKED_FOR_HUBS,
    HUB_NEIGHBOURS,
    Found,
    Index,
    InMemory,
    Queries,
    Rows,
    Vectors,
    open_index,
    present_index,
    search_all,
    search_units,
)
from ecgfounder.analysis.similarity.space import SAMPLE, Floats, Space
from ecgfounder.checks import check_least
from ecgfounder.errors import RunError, SettingsError
from ecgfounder.machine import cache_folder
from ecgfounder.results import EmbeddingRun, EmbeddingRuns
from ecgfounder.results.several import RUN_COLUMN

CHECKED = 1_000
"""Recordings on which the recall of neighbours of all recordings is measured."""

HUB_FACTOR = 20
"""A recording is called a hub if it is among the nearest of so many times more recordings than the mean."""

_FEWEST_FOR_HUB = 10
_SHOWN = ("row_index", "flags", "format", "device_model")


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest recordings of some queries, or of all recordings.

    Attributes
    ----------
    queries : tuple of str
        The name of each query.
    records : pyarrow.Table
        The recordings that were searched, rows of the manifest.
    rows : numpy.ndarray
        int64 [q, k], rows of `records`, nearest first; -1 where there are fewer.
    similarity : numpy.ndarray
        float32 [q, k], cosine of centred (perhaps whitened) embeddings.
    exact : bool
        Whether these are proved to be the nearest.
    recall : float or None
        If they are not: the share of the nearest that was found, where it was measured.
    lists : numpy.ndarray or None
        int64 [n]: among the nearest of how many recordings each is.
    n_lists : int
        Of how many, with how many neighbours each: `k` for all recordings, else 10.
    """

    queries: tuple[str, ...]
    records: pa.Table
    rows: Rows
    similarity: Floats
    exact: bool
    recall: float | None = None
    lists: Rows | None = None
    n_lists: int = 0
    n_each: int = HUB_NEIGHBOURS

    @cached_property
    def table(self) -> pa.Table:
        """A row for each neighbour: query, rank from 1, similarity, then record, run and some columns of the manifest."""
        query, rank = np.nonzero(self.rows >= 0)
        rows = self.rows[query, rank]
        found = self._described(rows)
        columns: dict[str, Any] = {
            "query": pa.array(self.queries).take(pa.array(query)),
            "rank": pa.array(rank + 1, pa.int32()),
            "similarity": pa.array(self.similarity[query, rank]),
        }
        if self.lists is not None:
            columns["in_lists"] = pa.array(self.lists[rows])
        return pa.table({**columns, **{name: found[name] for name in found.column_names}})

    @property
    def how(self) -> str:
        """How certain it is that these are the nearest."""
        if self.exact:
            return "exact"
        measured = (
            ""
            if self.recall is None
            else f", recall {self.recall:.4f} on {min(CHECKED, len(self.queries)):,} recordings"
        )
        return f"not proved to be exact{measured}"

    @cached_property
    def hubs(self) -> Rows:
        """int64 [m]: the rows of recordings that are among the nearest of unusually many, the most frequent first."""
        if self.lists is None:
            return np.empty(0, np.int64)
        least = max(_FEWEST_FOR_HUB, HUB_FACTOR * self.n_lists * self.n_each / max(1, len(self.lists)))
        hubs = np.flatnonzero(self.lists >= least)
        return hubs[np.argsort(-self.lists[hubs], kind="stable")]

    @property
    def skewness(self) -> float | None:
        """Skewness of the number of lists that a recording is in; large where few recordings are near to most others."""
        if self.lists is None or not self.lists.std():
            return None
        deviations = (self.lists - self.lists.mean()) / self.lists.std()
        return float((deviations**3).mean())

    @property
    def orphans(self) -> float | None:
        """Share of the recordings that are in no list."""
        return None if self.lists is None else float((self.lists == 0).mean())

    def hub_table(self) -> pa.Table:
        """The hubs: record, run, in_lists."""
        counts = np.empty(0, np.int64) if self.lists is None else self.lists[self.hubs]
        return self._described(self.hubs).append_column("in_lists", pa.array(counts))

    def _described(self, rows: Rows) -> pa.Table:
        """What says most of some recordings; flags as one text."""
        names = [name for name in ("record", RUN_COLUMN, *_SHOWN) if name in self.records.column_names]
        found = self.records.select(names).take(pa.array(rows, pa.int64()))
        if "flags" in names:
            texts = ["; ".join(flags or ()) for flags in found["flags"].to_pylist()]
            found = found.set_column(names.index("flags"), "flags", pa.array(texts, pa.string()))
        return found

    def __repr__(self) -> str:
        return f"<Neighbours: {self.rows.shape[1]} of each of {len(self.queries):,} among {self.records.num_rows:,}, {self.how}>"


def neighbours(
    run: EmbeddingRun | EmbeddingRuns,
    x: npt.NDArray[np.floating] | Sequence[str] | None = None,
    *,
    k: int = 10,
    whiten: bool = False,
    labels: Any = None,
    on: str | None = None,
    group: str | None = None,
    where: str | None = None,
    exclude_flags: Collection[str] = (),
    index: bool | None = None,
    names: Sequence[str] | None = None,
) -> Neighbours:
    """Find the most similar recordings of a run.

    The similarity is the cosine of the embeddings' means over tokens (and windows), from which the mean of the run was subtracted
    (of at most 20,000 recordings that are spread evenly over it).

    Parameters
    ----------
    run : EmbeddingRun or EmbeddingRuns
        The opened run, or several as one.
    x : numpy.ndarray or sequence of str, optional
        Embeddings [1024] or [q, 1024], made with the run's settings; or names of recordings of the run (the manifest's `record`);
        None for all recordings of the run.
    k : int, default: 10
        Neighbours of each.
    whiten : bool, default: False
        Whether principal directions are divided by their deviations first.
    labels, on : Any, optional, and str, optional
        A table with further columns, and the column that it has in common with the run.
    group : str, optional
        Column with the patient: other recordings of the same patient are no neighbours. Only for recordings of the run.
    where, exclude_flags : str, optional, and collection of str
        Which recordings are searched, as in all analyses.
    index : bool, optional
        Whether an index is used, in $ECGFOUNDER_CACHE (or ~/.cache/ecgfounder), named by the run's settings and contents; it may
        be deleted at any time. None: one that is there is used, and one is built if `x` is None.
    names : sequence of str, optional
        Names of the embeddings in `x`.

    Returns
    -------
    Neighbours
        Rows, similarities and tables.

    Raises
    ------
    SettingsError
        If a parameter is not valid, or a name is not a recording of the run.
    RunError
        If no recording is left, or an index cannot be written.
    """
    check_least("k", k, 1)
    selection = select(run, labels, on, group=group, where=where, exclude_flags=exclude_flags)
    vectors = vectors_of(selection)
    groups = None if group is None else selection.groups(group)
    searched = _index(selection, vectors, whiten, index=x is None if index is None else index, may_exist=index is None)
    space = Space.of(vectors.sample(SAMPLE)[1], whiten=whiten) if searched is None else searched.space
    if x is None:
        return _of_all(selection, vectors, space, searched, k, groups)
    queries, called = _queries(selection, vectors, space, x, groups, names)
    found = search_all(vectors, space, queries, k, groups) if searched is None else searched.search(queries, k, groups)
    return Neighbours(
        called,
        selection.table,
        found.rows,
        found.similarity,
        exact=bool(found.exact.all()),
        lists=None if searched is None else searched.hubs,
        n_lists=min(ASKED_FOR_HUBS, len(vectors)),
    )


def vectors_of(selection: Selection) -> Vectors:
    """The embedding of each selected recording; read on use where a recording has one, else averaged in memory."""
    X, _ = selection.run.arrays_of(selection.table, "mean")
    return X if len(X) == selection.table.num_rows else InMemory(selection.features())


def index_folder() -> Path:
    """The folder of the indexes."""
    return cache_folder() / "neighbours"


def _index(selection: Selection, vectors: Vectors, whiten: bool, *, index: bool, may_exist: bool) -> Index | None:
    folder = index_folder()
    if not index and not (may_exist and folder.is_dir()):
        return None
    key = index_key(selection, whitened=whiten)
    present = present_index(folder, key, len(vectors))
    if present is None and index:
        return open_index(folder, key, vectors, Space.of(vectors.sample(SAMPLE)[1], whiten=whiten))
    return present


def index_key(selection: Selection, *, whitened: bool) -> str:
    """Names settings and contents: a hash of the run's digest and of the outputs of the selected rows in their order."""
    digest = hashlib.sha256(selection.run.digest().encode())
    names = [name for name in (RUN_COLUMN, "output") if name in selection.table.column_names]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, selection.table.select(names).schema) as writer:
        writer.write_table(selection.table.select(names).combine_chunks())
    digest.update(sink.getvalue())
    digest.update(b"whitened" if whitened else b"centred")
    return digest.hexdigest()


def _queries(
    selection: Selection,
    vectors: Vectors,
    space: Space,
    x: npt.NDArray[np.floating] | Sequence[str],
    groups: Rows | None,
    names: Sequence[str] | None,
) -> tuple[Queries, tuple[str, ...]]:
    if isinstance(x, np.ndarray):
        given = np.atleast_2d(x).astype(np.float32)
        if given.ndim != 2 or given.shape[1] != len(space.centre) or not np.isfinite(given).all():
            raise SettingsError(
                f"Invalid value for the 'x' parameter. It must be finite embeddings [q, {len(space.centre)}] as the run has, "
                f"got an array {list(x.shape)}."
            )
        if names is not None and len(names) != len(given):
            raise SettingsError(
                f"Invalid value for the 'names' parameter. Expected {len(given)} names, got {len(names)}."
            )
        called = tuple(names) if names is not None else tuple(str(number) for number in range(len(given)))
        return Queries(space.units(given), np.full(len(given), -1)), called
    wanted = [x] if isinstance(x, str) else list(x)
    last = _last_rows(selection.table["record"], wanted)
    if missing := [name for name in wanted if name not in last]:
        raise SettingsError(
            f"Invalid value for the 'x' parameter. {missing[0]!r} is no recording of the run that is searched (the manifest's "
            "column 'record' has their names)."
        )
    rows = np.array([last[name] for name in wanted], dtype=np.int64)
    X, _ = selection.run.arrays_of(selection.table.take(pa.array(rows)), "mean")
    embeddings = (
        Selection(selection.run, selection.table.take(pa.array(rows)), {}).features() if len(X) != len(rows) else X[:]
    )
    return Queries(space.units(embeddings), rows, None if groups is None else groups[rows]), tuple(wanted)


def _last_rows(column: pa.ChunkedArray, names: Sequence[str]) -> dict[str, int]:
    """The last row of each of some names that a column has."""
    rows = np.flatnonzero(pc.is_in(column, value_set=pa.array(list(names), pa.string())).to_numpy())
    return dict(zip(column.take(pa.array(rows)).to_pylist(), rows.tolist(), strict=True))


def _of_all(
    selection: Selection, vectors: Vectors, space: Space, index: Index | None, k: int, groups: Rows | None
) -> Neighbours:
    n = len(vectors)
    if n < 2:
        raise RunError("expected at least two recordings")
    k = min(k, n - 1)
    called = tuple(selection.table["record"].to_pylist())
    if index is None:
        units = np.empty((n, space.width), np.float32)
        for rows, block in vectors.blocks():
            units[rows] = space.units(block)
        found, recall = search_units(units, k, groups), None
    else:
        found = index.search_each(k, groups=groups)
        recall = _recall(found, vectors, index, k, groups)
    lists = np.bincount(found.rows[found.rows >= 0], minlength=n)
    return Neighbours(
        called,
        selection.table,
        found.rows,
        found.similarity,
        exact=index is None,
        recall=recall,
        lists=lists,
        n_lists=n,
        n_each=k,
    )


def _recall(found: Found, vectors: Vectors, index: Index, k: int, groups: Rows | None) -> float:
    """The share of the nearest recordings that was found, on some recordings that are spread over the run."""
    rows = np.unique(np.linspace(0, len(index) - 1, min(CHECKED, len(index))).astype(np.int64))
    queries = Queries(index.space.units(index.vectors(rows)), rows, None if groups is None else groups[rows])
    true = search_all(vectors, index.space, queries, k, groups)
    matches = (true.rows[:, :, None] == found.rows[rows][:, None, :]).any(axis=2) & (true.rows >= 0)
    return float(matches.sum() / max(1, (true.rows >= 0).sum()))
