"""`ecgfounder export --to share`: a copy of a run's embeddings without what leads back to its files, to look at before sharing.

In: a run's output folder, and the columns that may be in the copy. Out: a folder of Parquet shards in random order under random
keys, with a dataset card; optionally a table, outside of it, that says which key is which recording.
"""

from __future__ import annotations

import os
import secrets
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ecgfounder.checks import check_least
from ecgfounder.errors import RunError, SettingsError
from ecgfounder.ledger.manifest import HEART_RATE, SCHEMA
from ecgfounder.results.dataset_card import CARD_NAME, card_of_copy
from ecgfounder.results.run import EmbeddingRun, open_run
from ecgfounder.results.store import MEANS, Array, EmbeddingStore, Form, storage_order
from ecgfounder.sinks.parquet import MAX_BYTES, nested, write_table
from ecgfounder.storage import StorageOptions
from ecgfounder.storage.replace import place_folder, replacing, sync, sync_folder

GROUP = "group"
"""The copy's column of pseudonyms, by which recordings of a patient can be kept together."""

FACTS = ("format", "sampling_rate", "n_samples", "flags", *SCHEMA.names[SCHEMA.get_field_index("seconds_write") + 1 :])
"""The manifest's own columns that a copy may have: facts of the signal and of the device."""

_OWN = {"key", "window", "window_start", "lead", "shape", "embedding", "embedding_mean", GROUP}
_SHARDS_AT_ONCE = 128
_SPILLED_AT_ONCE = 1 << 20
_ONE_TIME = 315_532_800
"""The time of modification of every file: 1980-01-01, the first that archives can hold."""

_PLACE = "place"


def share_run(
    run: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    *,
    columns: Sequence[str] = (),
    group: str | None = None,
    keys: str | os.PathLike[str] | None = None,
    shard_size: int = 1000,
    allow_incomplete: bool = False,
    storage_options: Mapping[str, object] | StorageOptions | None = None,
) -> int:
    """Write a copy of a run's embeddings without what leads back to its files.

    Each recording gets a new random key; recordings are shuffled over the shards and within them. The copy has the embeddings,
    their windows and leads, and the columns that are named here, nothing else: no paths and identifiers, no hashes, sizes and
    times of files, no failures and reasons, no statements and predictions, no run.json and no ledger. It is not anonymous:
    embeddings can be linked to another ECG of the same person, and tell age, sex and disease.

    Parameters
    ----------
    run : str or os.PathLike
        The run's output folder, a path or a URL; it is only read.
    output_dir : str or os.PathLike
        A new or empty folder on this machine, so that the copy can be looked at before it is shared.
    columns : sequence of str, optional
        Columns to copy: of `--keep_columns`, or facts of the manifest ("flags", without their details, "sampling_rate",
        "device_model" and the like).
    group : str, optional
        A column of `--keep_columns` that identifies patients; the copy's column `group` has a random name for each value.
    keys : str or os.PathLike, optional
        A new Parquet file outside of the copy, to which the keys and the recordings' names are written, for its owner alone.
    shard_size : int, default: 1000
        Recordings per shard.
    allow_incomplete : bool, default: False
        Also copy a run that is not complete.
    storage_options : mapping, optional
        Options of object stores that are not in the environment, as for `embed_cohort`.

    Returns
    -------
    int
        Number of recordings written.

    Raises
    ------
    RunError
        If the run does not exist, is not complete or has no embeddings, a folder or file is not new, or writing fails. The copy
        appears as a whole or not at all.
    SettingsError
        If a column does not exist, or would lead back to the files.
    """
    check_least("shard_size", shard_size, 1)
    source = open_run(run, allow_incomplete=allow_incomplete, storage_options=storage_options)
    target = _new_folder(output_dir, source)
    table = _new_file(keys, target)
    copy = _Copy.of(source, columns, group)
    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        aside.mkdir(parents=True)
        copy.write(aside, shard_size)
        card = card_of_copy(source.record, copy.n_records, copy.counted_facts(), list(copy.facts))
        with replacing(aside / CARD_NAME) as file:
            file.write(card.encode())
        for path in (*aside.iterdir(), aside):
            os.utime(path, (_ONE_TIME, _ONE_TIME))
        with _private(copy.names(), table):  # a copy is never there without its keys
            place_folder(aside, target)
            if aside.exists():
                raise RunError(f"{target} could not be written: another process has filled the folder meanwhile")
            sync_folder(target.parent)
    except OSError as error:
        raise RunError(f"{target} could not be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return copy.n_records


def _new_folder(output_dir: str | os.PathLike[str], source: EmbeddingRun) -> Path:
    text = os.fspath(output_dir)
    if "://" in text:
        raise SettingsError(
            f"Invalid value for the 'output_dir' parameter. Allowed is a folder on this machine, where the copy can be looked at "
            f"before it is shared, got {text!r}."
        )
    target = Path(text).absolute()
    if source.folder.is_local and Path(os.path.realpath(target)).is_relative_to(os.path.realpath(source.folder)):
        raise RunError(f"{target} is inside the run; choose a folder outside of it")
    if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        raise RunError(f"{target} is not empty: a copy is written into a new or empty folder")
    return target


def _new_file(keys: str | os.PathLike[str] | None, target: Path) -> Path | None:
    if keys is None:
        return None
    table = Path(keys).absolute()
    if table.suffix != ".parquet":
        raise SettingsError(
            f"Invalid value for the 'keys' parameter. Allowed is a new file NAME.parquet, got {table.name!r}."
        )
    if Path(os.path.realpath(table)).is_relative_to(os.path.realpath(target)):
        raise SettingsError(
            f"Invalid value for the 'keys' parameter. {table} is inside the copy: the keys must stay with you."
        )
    if os.path.lexists(table):
        raise RunError(f"{table} exists: the keys are written to a new file")
    if not table.parent.is_dir():
        raise RunError(f"{table.parent} is no folder: the keys are written to a new file in it")
    return table


@contextmanager
def _private(names: pa.Table, table: Path | None) -> Iterator[None]:
    """Write the table of keys, which nobody else on the machine may read; it is removed again if the block raises."""
    if table is None:
        yield
        return
    with os.fdopen(os.open(table, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        try:
            pq.write_table(names, file, compression="zstd")
            file.flush()
            sync(file.fileno())
            yield
        except BaseException:
            table.unlink()
            raise


@dataclass(frozen=True)
class _Copy:
    """What is copied: each recording once, with its random key, and the allowed columns.

    `records` has the source's rows of `EmbeddingRun.records`, the first of each output; `facts` the columns of the copy.
    """

    source: EmbeddingRun
    records: pa.Table
    keys: list[str]
    facts: dict[str, pa.Array]

    @classmethod
    def of(cls, source: EmbeddingRun, columns: Sequence[str], group: str | None) -> _Copy:
        _check_columns(source, columns, group)
        encoded = source.records["output"].combine_chunks().dictionary_encode()
        _, first = np.unique(encoded.indices.to_numpy(), return_index=True)
        records = source.records.take(pa.array(np.sort(first))).combine_chunks()
        if not records.num_rows:
            raise RunError(f"the run in {source.folder} has no embeddings to copy")
        facts = {name: _column(records, name) for name in dict.fromkeys(columns)}
        if group is not None:
            facts = {GROUP: _pseudonyms(records[group]), **facts}
        return cls(source, records, _random_names(records.num_rows), facts)

    @property
    def n_records(self) -> int:
        return int(self.records.num_rows)

    def names(self) -> pa.Table:
        """Which key is which recording."""
        return pa.table({"key": self.keys, "record": self.records["record"]})

    def counted_facts(self) -> dict[str, pa.ChunkedArray]:
        """The facts of the records whose counts a card shows."""
        return {name: self.records[name] for name in ("format", "sampling_rate") if name in self.facts}

    def write(self, target: Path, shard_size: int) -> None:
        """Write the shards."""
        row_bytes = np.prod([max(1, n) for n in self.records["shape"][0].as_py()]) * 4
        n_shards = max(-(-self.n_records // shard_size), -(-self.n_records * int(row_bytes) // MAX_BYTES))
        per_shard = -(-self.n_records // min(n_shards, self.n_records))
        n_shards = -(-self.n_records // per_shard)
        place = _random_order(self.n_records)
        names = [f"embeddings-{number:05d}-of-{n_shards:05d}.parquet" for number in range(n_shards)]
        spilled = target / ".unsorted"
        spilled.mkdir()
        for first in range(0, n_shards, _SHARDS_AT_ONCE):
            stop = min(first + _SHARDS_AT_ONCE, n_shards)
            chosen = np.flatnonzero((place >= first * per_shard) & (place < stop * per_shard))
            self._spill(chosen, place, per_shard, spilled)
            for number in range(first, stop):
                _sort(spilled / str(number), target / names[number])
        spilled.rmdir()

    def _spill(self, chosen: npt.NDArray[np.int64], place: npt.NDArray[np.int64], per_shard: int, folder: Path) -> None:
        """Write the chosen records to the unsorted files of their shards, in the order in which the run stores them."""
        outputs = self.records["output"].take(pa.array(chosen)).to_pylist()
        order = storage_order(outputs)
        store = EmbeddingStore(self.source.folder, Form.of(self.source.record))
        embeddings = store.embeddings(outputs[number] for number in order)
        means: Iterator[list[Array]] | None = None
        if self.source.pooling == "both":
            means = EmbeddingStore(self.source.folder, Form.of(self.source.record)).embeddings(
                (outputs[number] for number in order), MEANS
            )
        with ExitStack() as files:
            shards: dict[int, _Unsorted] = {}
            for number, rows in zip(order, embeddings, strict=True):
                record = int(chosen[number])
                shard = int(place[record]) // per_shard
                if shard not in shards:
                    shards[shard] = files.enter_context(_Unsorted(folder / str(shard)))
                shards[shard].add(self._rows(record, int(place[record]), rows, next(means) if means else []))

    def _rows(self, record: int, place: int, embeddings: list[Array], means: list[Array]) -> pa.Table:
        """The rows of one record."""
        form, n_rows = Form.of(self.source.record), len(embeddings)
        starts, leads = (self.records[name][record].as_py() for name in ("window_starts", "leads"))
        places = list(form.places(n_rows, starts, leads))
        dtype = self.source.record.form.dtype
        columns: dict[str, Any] = {
            _PLACE: pa.array(np.full(n_rows, place)),
            "key": pa.array([self.keys[record]] * n_rows),
            "window": pa.array([each["window"] for each in places], pa.int32()),
            "window_start": pa.array([each["window_start"] for each in places], pa.float64()),
            "lead": pa.array([each["lead"] for each in places], pa.string()),
            "embedding": nested([each.astype(dtype) for each in embeddings]),
            **({"embedding_mean": nested([each.astype(dtype) for each in means])} if means else {}),
            "shape": pa.array([each.shape for each in embeddings], pa.list_(pa.int32())),
        }
        here = pa.array(np.full(n_rows, record))
        return pa.table(columns | {name: column.take(here) for name, column in self.facts.items()})


class _Unsorted:
    """A shard's rows in the order in which they come, in a temporary file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: list[pa.Table] = []
        self._bytes = 0
        self._writer: pa.ipc.RecordBatchFileWriter | None = None

    def __enter__(self) -> _Unsorted:
        return self

    def add(self, rows: pa.Table) -> None:
        self._waiting.append(rows)
        self._bytes += rows.nbytes
        if self._bytes >= _SPILLED_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        rows = pa.concat_tables(self._waiting).combine_chunks()
        if self._writer is None:
            self._writer = pa.ipc.new_file(str(self._path), rows.schema)
        self._writer.write_table(rows)
        self._waiting, self._bytes = [], 0

    def __exit__(self, *_: object) -> None:
        if self._waiting:
            self._flush()
        if self._writer is not None:
            self._writer.close()


def _sort(unsorted: Path, shard: Path) -> None:
    """Write a shard's rows in the order of their places."""
    with pa.memory_map(str(unsorted)) as file:
        rows = pa.ipc.open_file(file).read_all()
        order = np.argsort(rows[_PLACE].to_numpy(), kind="stable")
        table = rows.take(pa.array(order)).drop_columns([_PLACE])
        with replacing(shard) as out:
            write_table(table, out)
    unsorted.unlink()


# --- columns ----------------------------------------------------------------------------------------------------------


def _check_columns(source: EmbeddingRun, columns: Sequence[str], group: str | None) -> None:
    kept = [name for name in source.manifest.column_names if name not in (*SCHEMA.names, HEART_RATE.name)]
    allowed = [*kept, *FACTS, *([HEART_RATE.name] if HEART_RATE.name in source.manifest.column_names else [])]
    for name in columns:
        if name not in allowed:
            what = "leads back to the recordings' files" if name in source.manifest.column_names else "does not exist"
            raise SettingsError(
                f"Invalid value for the 'columns' parameter. The manifest's column {name!r} {what}. Allowed are "
                f"{', '.join(allowed)}."
            )
        if name in _OWN:
            raise SettingsError(f"Invalid value for the 'columns' parameter. The copy has another column {name!r}.")
        if name == group:
            raise SettingsError(
                f"Invalid value for the 'columns' parameter. {name!r} is the group, which gets random names."
            )
        if name in kept and _holds_names(source.records[name], source.records["record"]):
            raise SettingsError(
                f"Invalid value for the 'columns' parameter. The column {name!r} holds the recordings' names or identifiers."
            )
    if group is not None and group not in kept:
        raise SettingsError(
            f"Invalid value for the 'group' parameter. Expected a column of keep_columns, which are {', '.join(kept) or 'none'}, "
            f"got {group!r}."
        )


def _holds_names(column: pa.ChunkedArray, records: pa.ChunkedArray) -> bool:
    """Whether most of a column's values are the names of their recordings."""
    if pa.types.is_nested(column.type):
        return False
    return (pc.mean(pc.equal(pc.cast(column, pa.string()), records)).as_py() or 0) > 0.5


def _column(records: pa.Table, name: str) -> pa.Array:
    """A column as it is copied: flags without their details."""
    if name != "flags":
        return records[name].combine_chunks()
    names = [
        None if flags is None else [flag.partition(":")[0] for flag in flags] for flags in records[name].to_pylist()
    ]
    return pa.array(names, pa.list_(pa.string()))


def _pseudonyms(column: pa.ChunkedArray) -> pa.Array:
    """A random name for each value; null for a missing one."""
    encoded = column.combine_chunks().dictionary_encode()
    names = pa.array(_random_names(len(encoded.dictionary)), pa.string())
    return names.take(encoded.indices)


def _random_names(n: int) -> list[str]:
    """Different names of 16 hexadecimal digits."""
    names: dict[str, None] = {}
    while len(names) < n:
        names[secrets.token_hex(8)] = None
    return list(names)


def _random_order(n: int) -> npt.NDArray[np.int64]:
    """A place for each of `n` recordings, from the system's source of randomness."""
    drawn = np.frombuffer(secrets.token_bytes(16 * n), dtype=[("high", "<u8"), ("low", "<u8")])
    places = np.empty(n, dtype=np.int64)
    places[np.lexsort((drawn["low"], drawn["high"]))] = np.arange(n)
    return places
