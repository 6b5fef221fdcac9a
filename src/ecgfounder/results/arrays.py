"""A run's embeddings as an array that is read when it is used.

In: where a run's embeddings are stored. Out: an object with an array's shape, that reads rows as they are asked for.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ecgfounder.checks import check_choice
from ecgfounder.errors import RunError
from ecgfounder.network.head import pooled
from ecgfounder.results.store import MAIN, MEANS, Array, EmbeddingStore, Form, RowNumbers, storage_order
from ecgfounder.storage.replace import replacing, reserve

POOLING_CHOICES = ("none", "mean")
_READERS = 2
"""Shards that `Embeddings.blocks` decodes at the same time."""
_NOT_IN_META = ("status", "error", "reason", "shape", "window_starts")


def arrays_of(store: EmbeddingStore, records: pa.Table, pooling: str) -> tuple[Embeddings, pa.Table]:
    """The embeddings of some rows of a manifest as one array, and a table with the same rows; see `EmbeddingRun.arrays`."""
    check_choice("pooling", pooling, POOLING_CHOICES)
    form = store.form
    per_record = form.rows_of(records["shape"])
    column = MEANS if pooling == "mean" and form.pooling == "both" else MAIN
    part = StoredRows(store, records["output"], np.concatenate([[0], np.cumsum(per_record)]), column)
    return Embeddings([part], _row_shape(store, records, pooling)), _meta(form, records, per_record)


def _row_shape(store: EmbeddingStore, records: pa.Table, pooling: str) -> tuple[int, ...]:
    if records.num_rows == 0:
        raise RunError(f"{store.folder} holds no embedding that could be put into an array")
    shapes = store.form.inner_shapes(records["shape"])
    channels = int(shapes[0, -1])
    if pooling == "mean" or store.form.pooling == "mean":
        return (channels,)
    tokens = shapes[:, 0]
    if store.form.ragged:
        tokens = store.tokens(records["output"].to_pylist())
    low, high = int(tokens.min()), int(tokens.max())
    if low != high:
        raise RunError(
            f"the feature maps have between {low} and {high} tokens (the recordings or windows differ in length), which one "
            'array cannot hold: use pooling="mean", go through the run one by one (`for facts, embedding in run`), or make a '
            "run with window=10."
        )
    return low, channels


def _meta(form: Form, records: pa.Table, per_record: RowNumbers) -> pa.Table:
    """The records' facts once per row, with the row's window and lead in front."""
    kept = records.drop_columns([name for name in _NOT_IN_META if name in records.column_names])
    if form.one_row_each:
        starts, leads = records["window_starts"], records["leads"]
        single = pc.equal(pc.list_value_length(leads), 1)
        places = {
            "window": pa.array(np.zeros(records.num_rows, np.int32)),
            "window_start": pc.fill_null(pc.list_element(starts, 0), 0.0),
            "lead": pc.if_else(single, pc.list_element(leads, 0), pa.scalar(None, pa.string())),
        }
    else:
        lists = zip(
            per_record.tolist(), *(records[name].to_pylist() for name in ("window_starts", "leads")), strict=True
        )
        rows = [place for n_rows, starts, leads in lists for place in form.places(n_rows, starts, leads)]
        places = {
            "window": pa.array([row["window"] for row in rows], pa.int32()),
            "window_start": pa.array([row["window_start"] for row in rows], pa.float64()),
            "lead": pa.array([row["lead"] for row in rows], pa.string()),
        }
        kept = kept.take(pa.array(np.repeat(np.arange(records.num_rows), per_record)))
    for place, (name, values) in enumerate(places.items(), start=kept.column_names.index("record") + 1):
        kept = kept.add_column(place, name, values)
    return kept


@dataclass(frozen=True, eq=False)
class StoredRows:
    """Rows of embeddings in one run.

    Attributes
    ----------
    store : EmbeddingStore
        The run's outputs.
    outputs : pyarrow.ChunkedArray
        The output of each record.
    starts : numpy.ndarray
        int64 [records + 1]: the first row of each record, and the number of rows.
    column : str
        The column to read of a shard.
    """

    store: EmbeddingStore
    outputs: pa.ChunkedArray
    starts: RowNumbers
    column: str

    def __len__(self) -> int:
        return int(self.starts[-1])

    def read(self, out: Array, places: RowNumbers, wanted: RowNumbers) -> None:
        """Fill `out[places[i]]` with row `wanted[i]`, going through the storage once."""
        records = np.searchsorted(self.starts, wanted, side="right") - 1
        needed, place = np.unique(records, return_inverse=True)
        outputs = self.outputs.take(pa.array(needed)).to_pylist()
        by_record = np.argsort(place, kind="stable")
        bounds = np.searchsorted(place[by_record], np.arange(len(needed) + 1))
        order = np.array(storage_order(outputs), dtype=np.int64)
        stored = self.store.embeddings([outputs[each] for each in order], self.column)
        for number, embeddings in zip(order, stored, strict=True):
            for at in by_record[bounds[number] : bounds[number + 1]]:
                embedding = embeddings[wanted[at] - self.starts[needed[number]]]
                out[places[at]] = pooled(embedding) if embedding.ndim > out.ndim - 1 else embedding

    @cached_property
    def shards(self) -> dict[str, tuple[RowNumbers, pa.Array]] | None:
        """For each shard its records and their keys; None unless all records are single vectors in shards."""
        is_vector = self.column == MEANS or self.store.form.inner == 1
        if not (is_vector and self.store.form.one_row_each and pc.all(pc.match_substring(self.outputs, "::")).as_py()):
            return None
        parts = pc.split_pattern(self.outputs.combine_chunks(), "::")
        names = pc.list_element(parts, 0).dictionary_encode()
        keys, codes = pc.list_element(parts, 1), names.indices.to_numpy()
        order = np.argsort(codes, kind="stable")
        bounds = np.searchsorted(codes[order], np.arange(len(names.dictionary) + 1))
        return {
            name: (order[first:stop], keys.take(pa.array(order[first:stop])))
            for name, first, stop in zip(names.dictionary.to_pylist(), bounds[:-1], bounds[1:], strict=True)
        }

    def in_storage_order(self) -> RowNumbers:
        """int64 [rows]: the rows in the order in which they are stored, if all are in shards."""
        shards = self.shards
        return np.arange(len(self)) if shards is None else np.concatenate([rows for rows, _ in shards.values()])


class Embeddings:
    """Embeddings of one run or several as an array that is read on use; made by `EmbeddingRun.arrays`.

    It has `shape`, `dtype`, `ndim` and `len()`. `X[rows]` (an integer, a slice, a mask or an array of integers) reads these rows
    into a float32 array. `np.asarray(X)` reads everything once and keeps it, so that later accesses are fast. Shards are read
    one after the other, a part at a time, into the result: this needs memory for the result and `CACHE_BYTES`. The object can
    be pickled, to be used in the workers of a data loader.

    Examples
    --------
    >>> import numpy as np
    >>> X, meta = open_run(folder).arrays(pooling="mean")
    >>> X[0].shape, X[1:3].shape, np.asarray(X).mean(axis=0).shape
    ((6,), (2, 6), (6,))
    """

    dtype = np.dtype(np.float32)

    def __init__(self, parts: Sequence[StoredRows], row_shape: tuple[int, ...]) -> None:
        self._parts = tuple(parts)
        self._bounds = np.cumsum([0, *(len(part) for part in self._parts)])
        self._loaded: Array | None = None
        self.shape: tuple[int, ...] = (int(self._bounds[-1]), *row_shape)

    @classmethod
    def stacked(cls, arrays: Sequence[Embeddings]) -> Embeddings:
        """Arrays with rows of the same shape as one array, one after the other."""
        return cls([part for each in arrays for part in each._parts], arrays[0].shape[1:])

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Size of the whole array in bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        state = "not read yet" if self._loaded is None else "in memory"
        return f"<Embeddings: float32 {list(self.shape)}, {self.nbytes / 1e6:,.1f} MB, {state}>"

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if self._loaded is None:
            try:
                out = np.empty(self.shape, self.dtype)
            except (MemoryError, ValueError) as error:
                raise RunError(
                    f"an array of {list(self.shape)} takes {self.nbytes / 1e9:,.1f} GB, more than there is memory: "
                    "read some rows (X[rows]), write it to disk (X.save), or use pooling='mean'"
                ) from error
            self._loaded = self._read(out, np.arange(len(self)))
        if dtype is not None and np.dtype(dtype) != self.dtype:
            return self._loaded.astype(dtype)
        return self._loaded.copy() if copy else self._loaded

    def __getitem__(self, index: Any) -> Array:
        if self._loaded is not None or isinstance(index, tuple):
            return np.asarray(np.asarray(self)[index])
        rows = np.arange(len(self))[index]
        wanted = np.atleast_1d(rows)
        out = self._read(np.empty((len(wanted), *self.shape[1:]), self.dtype), wanted)
        return out if np.ndim(rows) else out[0]

    def blocks(self, rows_at_once: int = 4096) -> Iterator[tuple[RowNumbers, Array]]:
        """All rows once, a part at a time, in the order in which they are read fastest.

        Yields
        ------
        rows : numpy.ndarray
            int64 [m], the numbers of the rows.
        block : numpy.ndarray
            float32 [m, ...], these rows.
        """
        for part, first in zip(self._parts, self._bounds[:-1].tolist(), strict=True):
            shards = part.shards if self._loaded is None and self.ndim == 2 else None
            if shards is None:
                for begin in range(first, first + len(part), rows_at_once):
                    rows = np.arange(begin, min(begin + rows_at_once, first + len(part)))
                    yield rows, self[rows]
                continue
            with ThreadPoolExecutor(_READERS) as readers:
                reading: deque[Future[list[tuple[RowNumbers, Array]]]] = deque()
                waiting = iter(shards.items())
                while True:
                    for name, (records, keys) in islice(waiting, 2 * _READERS - len(reading)):
                        reading.append(readers.submit(_block_list, part, name, first + records, keys))
                    if not reading:
                        break
                    yield from reading.popleft().result()

    def sample(self, size: int, at_once: int = 1000) -> tuple[RowNumbers, Array]:
        """At most `size` rows, in groups of neighbours that are spread evenly over the storage; always the same ones.

        Returns
        -------
        rows : numpy.ndarray
            int64 [m], the numbers of the rows, ascending.
        block : numpy.ndarray
            float32 [m, ...], these rows.
        """
        rows = np.arange(len(self))
        if len(self) > size:
            stored = [first + part.in_storage_order() for part, first in zip(self._parts, self._bounds, strict=False)]
            starts = np.linspace(0, len(self) - at_once, max(1, size // at_once)).astype(np.int64)
            chosen = [np.arange(start, start + min(at_once, size)) for start in starts]
            rows = np.unique(np.concatenate(stored)[np.unique(np.concatenate(chosen))])
        return rows, self._vectors_of(rows)

    def _vectors_of(self, rows: RowNumbers) -> Array:
        """Some rows, in ascending order; of vectors in shards, a part of a shard at a time."""
        parts = [part.shards for part in self._parts]
        if self._loaded is not None or self.ndim != 2 or None in parts:
            return self[rows]
        out = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for part, shards, first in zip(self._parts, parts, self._bounds[:-1].tolist(), strict=True):
            for name, (records, keys) in (shards or {}).items():
                numbers = first + records
                here = np.flatnonzero(rows[np.searchsorted(rows[:-1], numbers)] == numbers)
                for at, block in (
                    _block_list(part, name, first + records[here], keys.take(pa.array(here))) if len(here) else ()
                ):
                    out[np.searchsorted(rows, at)] = block
        return out

    def save(self, path: str | os.PathLike[str]) -> Array:
        """Write the whole array as a .npy file, also if it is larger than memory, and return it memory-mapped.

        Parameters
        ----------
        path : str or os.PathLike
            The file; an existing one is replaced when the new one is complete.

        Returns
        -------
        numpy.memmap
            float32, of this object's shape; `numpy.load(path, mmap_mode="r")` opens it later.
        """
        target = Path(path)
        try:
            with replacing(target) as file:
                out = np.lib.format.open_memmap(file.name, mode="w+", dtype=self.dtype, shape=self.shape)
                reserve(Path(file.name))
                self._read(out, np.arange(len(self)))
                out.flush()
        except OSError as error:
            raise RunError(f"{target} could not be written: {error.strerror or error}") from error
        return np.asanyarray(np.load(target, mmap_mode="r"))

    def _read(self, out: Array, wanted: RowNumbers) -> Array:
        """Fill `out[i]` with row `wanted[i]`, going through each run's storage once."""
        for number, part in enumerate(self._parts):
            first, stop = self._bounds[number : number + 2]
            places = np.flatnonzero((wanted >= first) & (wanted < stop))
            if len(places):
                part.read(out, places, wanted[places] - first)
        return out


def _block_list(part: StoredRows, shard: str, rows: RowNumbers, keys: pa.Array) -> list[tuple[RowNumbers, Array]]:
    """A shard's blocks; `rows` are the rows of the keys, which may be there several times."""
    different = pc.unique(keys)
    blocks = list(part.store.vectors(shard, different, part.column))
    if len(different) == len(keys):
        return [(rows[places], vectors) for places, vectors in blocks]
    which = pc.index_in(keys, value_set=different).to_numpy()
    by_key = np.argsort(which, kind="stable")
    bounds = np.searchsorted(which[by_key], np.arange(len(different) + 1))
    counts = np.diff(bounds)
    return [
        (
            rows[np.concatenate([by_key[bounds[place] : bounds[place + 1]] for place in places])],
            np.repeat(vectors, counts[places], axis=0),
        )
        for places, vectors in blocks
    ]
