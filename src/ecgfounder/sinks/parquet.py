"""Parquet shards of bounded size: one row per recording, or per window and lead of it.

In: outputs. Out: `<output_dir>/embeddings-*.parquet`, written to a temporary file, synced, renamed; then the outputs of the shard
are returned, followed by a `ShardWritten` to commit it. Uncommitted shards are removed when the run is resumed.
"""

from __future__ import annotations

import re
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from io import BufferedWriter, BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ecgfounder.sinks.sink import Output, ShardWritten, Written
from ecgfounder.storage.replace import replacing

MAX_BYTES = 256 << 20
"""A shard is closed when its embeddings reach this size, even if it has fewer records than `shard_size`."""

ROW_GROUP_BYTES = 4 << 20
"""Approximate Arrow bytes in a row group, which must be decoded to read one recording."""

CHUNK_BYTES = 64 << 20
"""Maximum bytes of embeddings in one Arrow chunk, whose offsets are 32 bits wide."""

EMBEDDINGS = ("embedding", "embedding_mean")
"""The columns of embeddings; the second one exists if a run keeps feature maps and their means."""

SHARD_NAME = re.compile(
    r"embeddings-\d{20}-shard\d+of\d+-(rank\d+of\d+|epoch\d{6,}(-group\d{6,})?)-\d{6,}(-[0-9a-f]{8})?\.parquet"
)
"""The names of this program's shards; no other file is ever removed."""

_FACTS: tuple[tuple[str, pa.DataType], ...] = (
    ("format", pa.string()),
    ("sampling_rate", pa.float64()),
    ("n_samples", pa.int64()),
    ("flags", pa.list_(pa.string())),
)


@dataclass(frozen=True, eq=False)
class Shard:
    """A shard's name, rows, and outputs."""

    name: str
    table: pa.Table
    outputs: tuple[Output, ...]

    def written(self) -> list[Written | ShardWritten]:
        """What a sink returns when the shard is on disk."""
        written = [Written(output, reference(self.name, output.key), self.name) for output in self.outputs]
        return [*written, ShardWritten(self.name, self.table.num_rows, len(self.outputs))]


class ShardSink(ABC):
    """Collects outputs and cuts them into shards; a subclass writes them.

    Parameters
    ----------
    prefix, suffix : str
        What the names of shards have before and after their number, unique to this process and attempt.
    shard_size : int, default: 1000
        Records in a full shard.
    dtype : str, default: "float32"
        Data type of the stored embeddings, "float32" or "float16".
    record_column : str, default: "ecg_path"
        "ecg_path", or "identifier" if records have identifiers.
    """

    def __init__(
        self,
        *,
        prefix: str,
        suffix: str = "",
        shard_size: int = 1000,
        dtype: str = "float32",
        record_column: str = "ecg_path",
    ) -> None:
        self._prefix = prefix
        self._suffix = suffix
        self._shard_size = shard_size
        self._dtype = np.dtype(dtype)
        self._record_column = record_column
        self._waiting: list[Output] = []
        self._bytes = 0
        self._number = 0

    def write(self, outputs: Sequence[Output]) -> list[Written | ShardWritten]:
        written: list[Written | ShardWritten] = []
        for output in outputs:
            stored = self._stored(output)
            if stored is None:
                written.append(Written(output, output.name, error=self._too_large(output)))
                continue
            self._waiting.append(stored)
            self._bytes += stored.nbytes
            if len(self._waiting) >= self._shard_size or self._bytes >= MAX_BYTES:
                written += self._flush()
        return written

    def close(self) -> list[Written | ShardWritten]:
        return self._flush()

    def _flush(self) -> list[Written | ShardWritten]:
        """Write the outputs that are waiting as a shard."""
        if not self._waiting:
            return []
        nbytes = self._bytes
        return self._save(self._cut(), nbytes)

    @abstractmethod
    def _save(self, shard: Shard, nbytes: int) -> list[Written | ShardWritten]:
        """Write a shard, whose embeddings take so many bytes in memory; returns what is on disk now."""

    def _cut(self) -> Shard:
        """The outputs that are waiting, as a shard."""
        # Rows are in the dataset's order; the order of completion is random.
        outputs = sorted(self._waiting, key=lambda output: output.order)
        name = f"embeddings-{self._prefix}-{self._number:06d}{self._suffix}.parquet"
        table = pa.concat_tables([self._table(pieces) for pieces in _groups(outputs)])
        self._waiting, self._bytes, self._number = [], 0, self._number + 1
        return Shard(name, table, tuple(outputs))

    def _stored(self, output: Output) -> Output | None:
        """The output in the numbers that are written; None where one is beyond them."""
        if self._dtype == np.float32:
            return output
        with np.errstate(over="ignore"):
            embeddings, means = (
                tuple(each.astype(self._dtype) for each in given) for given in (output.embeddings, output.means)
            )
        finite = all(np.isfinite(each).all() for each in (*embeddings, *means))
        return replace(output, embeddings=embeddings, means=means) if finite else None

    def _too_large(self, output: Output) -> str:
        largest = max(float(np.abs(each).max()) for each in output.embeddings)
        return (
            f"a value of the embedding, {largest:.4g}, is beyond {self._dtype.name}, which ends at "
            f"{np.finfo(self._dtype).max:g}: use dtype='float32'"
        )

    def _table(self, pieces: Sequence[_Piece]) -> pa.Table:
        """A table with a row for each embedding of some pieces of outputs."""
        embeddings = [embedding for piece in pieces for embedding in piece.of(piece.output.embeddings)]
        means = [mean for piece in pieces for mean in piece.of(piece.output.means)]
        windows, starts, leads = zip(
            *(place for piece in pieces for place in piece.of(_places(piece.output))), strict=True
        )
        outputs = [piece.output for piece in pieces for _ in range(piece.stop - piece.first)]
        columns: dict[str, pa.Array] = {
            "key": pa.array([output.key for output in outputs]),
            self._record_column: pa.array([output.record for output in outputs]),
            "window": pa.array(windows, pa.int32()),
            "window_start": pa.array(starts, pa.float64()),
            "lead": pa.array(leads, pa.string()),
            "embedding": nested(embeddings),
            **({"embedding_mean": nested(means)} if means else {}),
            "shape": pa.array([embedding.shape for embedding in embeddings], pa.list_(pa.int32())),
            **{name: pa.array([getattr(output.facts, name) for output in outputs], kind) for name, kind in _FACTS},
        }
        return pa.table(columns)


class ParquetSink(ShardSink):
    """Shards as files.

    Parameters
    ----------
    output_dir, scratch : Path
        Folder of the shards, and a folder on the same file system for temporary files.
    """

    def __init__(self, output_dir: Path, scratch: Path, **options: Any) -> None:
        super().__init__(**options)
        self._output_dir = output_dir
        self._scratch = scratch

    def _save(self, shard: Shard, nbytes: int) -> list[Written | ShardWritten]:
        with replacing(self._output_dir / shard.name, aside=self._scratch / f"{shard.name}.part") as file:
            write_table(shard.table, file)
        return shard.written()


def attempt_suffix() -> str:
    """A suffix of names of shards that no other attempt at the same records uses."""
    return f"-{uuid.uuid4().hex[:8]}"


def reference(shard: str, key: str) -> str:
    """The reference to the rows of one recording: `SHARD.parquet::KEY`; `ecgfounder.results.store.read_embedding` reads it."""
    return f"{shard}::{key}"


@dataclass(frozen=True)
class _Piece:
    """Rows [first, stop) of an output; all of its rows unless they are very large."""

    output: Output
    first: int
    stop: int

    def of(self, rows: Sequence[Any]) -> Sequence[Any]:
        return rows[self.first : self.stop]


def _groups(outputs: Sequence[Output]) -> Iterator[list[_Piece]]:
    """The outputs' rows in order, in groups that fit one Arrow chunk."""
    group: list[_Piece] = []
    free = CHUNK_BYTES
    for output in outputs:
        each = max(1, output.embeddings[0].nbytes)
        first = 0
        while first < len(output.embeddings):
            stop = min(len(output.embeddings), first + max(free // each, 0 if group else 1))
            if stop == first:
                yield group
                group, free = [], CHUNK_BYTES
                continue
            group.append(_Piece(output, first, stop))
            free -= (stop - first) * each
            first = stop
    if group:
        yield group


def _places(output: Output) -> list[tuple[int, float, str | None]]:
    """Window number, window start (s) and lead of each row: a row per input, ordered by window, then by lead."""
    rows = len(output.embeddings)
    starts = output.facts.starts or (0.0,)
    per_window = rows // len(starts)
    leads: Sequence[str | None] = output.facts.leads
    named = leads if per_window > 1 or len(leads) == 1 else [None] * per_window
    return [(window, start, lead) for window, start in enumerate(starts) for lead in named]


def nested(embeddings: Sequence[npt.NDArray[Any]]) -> pa.Array:
    """NumPy arrays [C], or [T, C] with any T, as Arrow lists (of lists), without a Python object per number."""
    values = np.concatenate([embedding.reshape(-1) for embedding in embeddings])
    channels = embeddings[0].shape[-1]
    lists = _lists(pa.array(values), np.full(len(values) // channels, channels))
    return lists if embeddings[0].ndim == 1 else _lists(lists, np.array([len(embedding) for embedding in embeddings]))


def _lists(values: pa.Array, lengths: npt.NDArray[np.int64]) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def write_table(table: pa.Table, file: BufferedWriter | BytesIO) -> None:
    """Write a shard; numbers are encoded as BYTE_STREAM_SPLIT, which zstd compresses better."""
    kinds = {name: table.schema.field(name).type for name in EMBEDDINGS if name in table.column_names}
    leaves = [name + ".list.element" * _depth(kind) for name, kind in kinds.items()]
    is_half = pa.types.is_float16(_leaf_type(kinds["embedding"]))
    pq.write_table(
        table,
        file,
        compression="zstd",
        use_dictionary=[name for name in table.column_names if name not in (*EMBEDDINGS, "key")],
        use_byte_stream_split=False if is_half else leaves,  # DuckDB cannot read it for float16
        row_group_size=max(1, ROW_GROUP_BYTES * table.num_rows // max(1, table.nbytes)),
    )


def _depth(kind: pa.DataType) -> int:
    return 1 + _depth(kind.value_type) if pa.types.is_list(kind) else 0


def _leaf_type(kind: pa.DataType) -> pa.DataType:
    return _leaf_type(kind.value_type) if pa.types.is_list(kind) else kind
