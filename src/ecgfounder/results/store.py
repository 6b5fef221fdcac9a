"""Read a run's embeddings: JSON, NPY, and Parquet shards, decoded in parts with a bounded cache.

In: values of the manifest's `output` column. Out: float32 arrays [T, C] or [C].
"""

from __future__ import annotations

import io
import os
import re
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ecgfounder.errors import RunError, StorageError
from ecgfounder.ledger.folder import RunFolder, leads_out
from ecgfounder.ledger.record import RunForm, RunRecord
from ecgfounder.sinks.parquet import EMBEDDINGS
from ecgfounder.storage import Location, Missing, StorageOptions, locate_output
from ecgfounder.storage import storage_options as make_options

Array = npt.NDArray[np.float32]


RowNumbers = npt.NDArray[np.int64]


CACHE_BYTES = 256 << 20
"""Maximum size of the cache of decoded parts of shards (it holds at least one part)."""


MAIN, MEANS = EMBEDDINGS


_SHARDS_OPEN = 64


_REFERENCE = re.compile(r"(?P<shard>.+\.parquet)::(?P<key>[0-9a-f]{16})", re.DOTALL)


def read_embedding(
    reference: str | os.PathLike[str], *, storage_options: Mapping[str, object] | StorageOptions | None = None
) -> Array:
    """Read one embedding by its reference in a manifest or a chat file.

    Parameters
    ----------
    reference : str or os.PathLike
        Path of a run's JSON file (or exported NPY file), or `path/to/SHARD.parquet::KEY` for the rows of one recording in a
        Parquet shard; or their URLs. A manifest's `output` is such a reference, relative to the run's folder.
    storage_options : mapping, optional
        Options of object stores that are not in the environment, as for `embed_cohort`.

    Returns
    -------
    numpy.ndarray
        float32 [T, 1024], [1024] with `--pooling mean`; with leading dimensions for windows and leads: [W, T, 1024].

    Raises
    ------
    RunError
        If the embedding does not exist, it is damaged, or its windows differ in length (`open_run` yields them one by one).

    Examples
    --------
    >>> read_embedding(folder / "1.json").shape
    (3, 6)
    """
    text, options = os.fspath(reference), make_options(storage_options)
    match = _REFERENCE.fullmatch(text)
    if match is None:
        return _read_file(locate_output(text, options))
    place = locate_output(match["shard"], options)
    shard = _Shard(place, _Cache())
    embeddings = shard.embeddings(match["key"])
    if len({embedding.shape for embedding in embeddings}) > 1:
        raise RunError(f"{text}: its windows differ in length, which one array cannot hold; open_run gives one by one.")
    record = RunFolder(place.folder).read()
    outer = shard.outer_shape(match["key"], None if record is None else Form.of(record))
    return np.stack(embeddings).reshape(*outer, *embeddings[0].shape)


@dataclass(frozen=True)
class Form:
    """The arrangement of a run's embeddings: the rows of a record, and the window and lead of each."""

    run: RunForm

    @classmethod
    def of(cls, record: RunRecord) -> Form:
        return cls(record.form)

    @property
    def format(self) -> str:
        return self.run.format

    @property
    def pooling(self) -> str:
        return self.run.pooling

    @property
    def ragged(self) -> bool:
        return self.run.ragged

    @property
    def one_row_each(self) -> bool:
        return not (self.run.windows or self.run.every_lead)

    @property
    def inner(self) -> int:
        """Dimensions of one row's embedding."""
        return 1 if self.pooling == "mean" else 2

    def rows_of(self, shapes: pa.ChunkedArray) -> RowNumbers:
        """int64 [records]: the number of rows of each, the product of its shape's leading dimensions."""
        if self.one_row_each:
            return np.ones(len(shapes), dtype=np.int64)
        return np.array([np.prod(shape[: -self.inner], dtype=np.int64) for shape in shapes.to_pylist()], dtype=np.int64)

    def inner_shapes(self, shapes: pa.ChunkedArray) -> RowNumbers:
        """int64 [records, 1 or 2]: [C] or [T, C] of each record's (first) embedding."""
        lists = shapes.combine_chunks()
        if len(lists) and pc.min(pc.list_value_length(lists)).as_py() < self.inner:
            raise RunError("a recording's embedding has another form than the run's; the run's command repairs this")
        ends = np.cumsum(lists.value_lengths().to_numpy())
        values = lists.flatten().to_numpy().astype(np.int64)
        return np.asarray(np.stack([values[ends - back] for back in range(self.inner, 0, -1)], axis=1))

    def places(self, n_rows: int, starts: list[float] | None, leads: list[str] | None) -> Iterator[dict[str, Any]]:
        """Window number, window start and lead of each row of a record."""
        starts = starts or [0.0]
        names: list[str | None] = list(leads or [])
        per_window = n_rows // len(starts)
        if per_window == 1 and len(names) != 1:
            names = [None]
        if len(starts) * len(names) != n_rows:
            raise RunError(
                f"a recording has {n_rows} embeddings, and {len(starts)} windows of {len(names)} leads: the run's record is "
                "damaged; its command repairs this"
            )
        for window, start in enumerate(starts):
            for lead in names:
                yield {"window": window, "window_start": start, "lead": lead}

    def outer_shape(self, n_windows: int, n_leads: int) -> tuple[int, ...]:
        """The leading dimensions of a whole record's array, before the shape of one row."""
        return ((n_windows,) if self.run.windows else ()) + ((n_leads,) if self.run.every_lead else ())


def key_of(output: str) -> int | None:
    """The key in a reference to rows of a shard; None if the output is a separate file."""
    match = _REFERENCE.fullmatch(output)
    return None if match is None else int(match["key"], 16)


def storage_order(outputs: list[str]) -> list[int]:
    """The order in which to read outputs so that every shard is read once: by shard, other outputs unchanged."""
    return sorted(range(len(outputs)), key=lambda number: outputs[number].rpartition("::")[0])


class EmbeddingStore:
    """Reads a run's outputs, with a bounded cache of shards and their decoded parts."""

    def __init__(self, folder: Location, form: Form) -> None:
        self.folder = folder
        self.form = form
        self._forget()

    def _forget(self) -> None:
        self._shards: OrderedDict[str, _Shard] = OrderedDict()
        self._cache = _Cache()

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "form": self.form}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def embeddings(self, outputs: Iterable[str], column: str = MAIN) -> Iterator[list[Array]]:
        """For each output the embeddings of its rows, float32 [T, C] or [C] each; `column` is the shard's column to read."""
        for output in outputs:
            match = _REFERENCE.fullmatch(output)
            if match is not None:
                yield self._shard(match["shard"]).embeddings(match["key"], column)
                continue
            self._refuse_outside(output)
            whole = _read_file(self.folder / output)
            inner = self.form.inner
            if whole.ndim < inner:
                raise RunError(f"{self.folder / output} is not an embedding of this run: its shape is {whole.shape}")
            yield list(whole.reshape(-1, *whole.shape[-inner:]))

    def vectors(self, shard: str, keys: pa.Array, column: str = MAIN) -> Iterator[tuple[RowNumbers, Array]]:
        """A shard's vectors, a part at a time: where each one's key is among some keys, and float32 [rows, C].

        For records with one row, of a column of vectors. Rows of other keys are left out.
        """
        self._refuse_outside(shard)
        yield from _Shard(self.folder / shard, self._cache).vectors(keys, column)

    def tokens(self, outputs: Iterable[str]) -> RowNumbers:
        """int64 [rows]: T of each row of some outputs, all of them in shards."""
        matches = [_REFERENCE.fullmatch(output) for output in outputs]
        found = [self._shard(match["shard"]).tokens(match["key"]) for match in matches if match is not None]
        return np.concatenate(found)

    def _refuse_outside(self, name: str) -> None:
        """Refuse a file outside the run's folder: an untrusted run may name any file."""
        if leads_out(self.folder, name):
            raise RunError(
                f"{self.folder / name} leads out of the run's folder; expected a file in it. If the run is yours, copy it with "
                "the files that its links lead to (cp -rL); otherwise do not use it."
            )

    def _shard(self, name: str) -> _Shard:
        if name not in self._shards:
            if len(self._shards) == _SHARDS_OPEN:
                self._shards.popitem(last=False)
            self._refuse_outside(name)
            self._shards[name] = _Shard(self.folder / name, self._cache)
        self._shards.move_to_end(name)
        return self._shards[name]


class _Cache:
    """Decoded parts of shards; the least recently used are dropped above `CACHE_BYTES`."""

    def __init__(self) -> None:
        self._parts: OrderedDict[Hashable, list[Array]] = OrderedDict()
        self._bytes = 0

    def get(self, key: Hashable) -> list[Array] | None:
        if key in self._parts:
            self._parts.move_to_end(key)
        return self._parts.get(key)

    def put(self, key: Hashable, part: list[Array]) -> None:
        self._parts[key] = part
        self._bytes += sum(embedding.nbytes for embedding in part)
        while self._bytes > CACHE_BYTES and len(self._parts) > 1:
            self._bytes -= sum(embedding.nbytes for embedding in self._parts.popitem(last=False)[1])


class _Shard:
    """A Parquet shard: the rows of each record, and their embeddings, decoded a row group at a time."""

    def __init__(self, place: Location, cache: _Cache) -> None:
        self._path = place
        self._cache = cache
        try:
            self._file = pq.ParquetFile(os.fspath(place) if place.is_local else place.open())
            self._keys = self._column("key")
        except (FileNotFoundError, Missing) as error:
            raise RunError(f"{place} is missing. The run's command embeds its recordings again.") from error
        except (OSError, pa.ArrowException, KeyError, StorageError) as error:
            raise RunError(f"{place} cannot be read as a run's shard: {error}") from error
        groups = self._file.metadata
        self._bounds = np.cumsum([0, *(groups.row_group(group).num_rows for group in range(groups.num_row_groups))])

    def embeddings(self, key: str, column: str = MAIN) -> list[Array]:
        """The embeddings of one record's rows, in order."""
        first, stop = self._span(key)
        group = int(np.searchsorted(self._bounds, first, side="right")) - 1
        embeddings: list[Array] = []
        while self._bounds[group] < stop:
            begin = int(self._bounds[group])
            embeddings += self._part(group, column)[max(0, first - begin) : stop - begin]
            group += 1
        return embeddings

    def tokens(self, key: str) -> RowNumbers:
        """int64 [rows]: T of each row of one record."""
        first, stop = self._span(key)
        return np.array([shape[0] for shape in self._shapes[first:stop]], dtype=np.int64)

    def vectors(self, keys: pa.Array, column: str) -> Iterator[tuple[RowNumbers, Array]]:
        """See `EmbeddingStore.vectors`; nothing is kept in the cache."""
        found = pc.index_in(self._keys, value_set=keys).combine_chunks()
        if missing := len(keys) - len(pc.unique(found.drop_null())):
            raise RunError(f"{self._path} lacks rows of {missing} recordings. The run's command embeds them again.")
        places = found.fill_null(-1).to_numpy().astype(np.int64)
        firsts = np.unique(places, return_index=True)[
            1
        ]  # a record that was done again has old rows until the run is complete
        repeated = np.ones(len(places), dtype=bool)
        repeated[firsts] = False
        places[repeated] = -1
        for group in range(len(self._bounds) - 1):
            here = places[self._bounds[group] : self._bounds[group + 1]]
            rows = np.flatnonzero(here >= 0)
            if len(rows):
                vectors = _vectors_of_lists(self._stored(group, column))
                yield here[rows], vectors if len(rows) == len(here) else vectors[rows]

    def outer_shape(self, key: str, form: Form | None) -> tuple[int, ...]:
        """The leading dimensions of one record; without run.json, windows and leads count only if there are several."""
        first, stop = self._span(key)
        n_windows = len(pc.unique(self._column("window").slice(first, stop - first)))
        n_leads = (stop - first) // n_windows
        return tuple(n for n in (n_windows, n_leads) if n > 1) if form is None else form.outer_shape(n_windows, n_leads)

    @cached_property
    def _shapes(self) -> list[list[int]]:
        return list(self._column("shape").to_pylist())

    @cached_property
    def _spans(self) -> dict[str, tuple[int, int]]:
        """The first row of each key, and the row after its last one."""
        spans: dict[str, tuple[int, int]] = {}
        for row, key in enumerate(self._keys.to_pylist()):
            spans[key] = (spans.get(key, (row, 0))[0], row + 1)
        return spans

    def _span(self, key: str) -> tuple[int, int]:
        if key not in self._spans:
            raise RunError(f"{self._path} holds no row of the recording {key}. The run's command embeds it again.")
        return self._spans[key]

    def _column(self, name: str) -> pa.ChunkedArray:
        return self._file.read(columns=[name], use_threads=False)[name]

    def _part(self, group: int, column: str) -> list[Array]:
        part = self._cache.get((self._path, group, column))
        if part is None:
            part = _rows_of_lists(self._stored(group, column))
            self._cache.put((self._path, group, column), part)
        return part

    def _stored(self, group: int, column: str) -> pa.Array:
        try:
            return self._file.read_row_group(group, columns=[column], use_threads=False)[column].combine_chunks()
        except (OSError, pa.ArrowException) as error:
            raise RunError(f"{self._path} is damaged: {error}") from error


def _rows_of_lists(column: pa.Array) -> list[Array]:
    """A column of lists, or of lists of lists, as float32 arrays [C] or [T, C] that share one buffer."""
    lengths = column.value_lengths().to_numpy()
    if not pa.types.is_list(column.type.value_type):
        return list(_vectors_of_lists(column))
    values = column.flatten().flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    maps = values.reshape(int(lengths.sum()), -1)
    return list(np.split(maps, np.cumsum(lengths)[:-1]))


def _vectors_of_lists(column: pa.Array) -> Array:
    """A column of lists of the same length as float32 [rows, C]."""
    values = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    return np.asarray(values.reshape(len(column), -1))


def _read_file(place: Location) -> Array:
    """The array in a run's JSON or NPY."""
    try:
        content = place.read()
        if place.suffix == ".npy":
            return np.asarray(np.load(io.BytesIO(content), allow_pickle=False), dtype=np.float32)
        return np.array(orjson.loads(content)["embedding"], dtype=np.float32)
    except Missing as error:
        raise RunError(f"{place} is missing. The run's command embeds the recording again.") from error
    except StorageError as error:
        raise RunError(f"{place} cannot be read: {error}") from error
    except (ValueError, KeyError, TypeError, EOFError) as error:
        raise RunError(f"{place} is not an embedding: expected the JSON or NPY of a run ({error})") from error
