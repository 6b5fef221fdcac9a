"""The cohort: where the paths of the ECG files come from, as a stream of records.

In: a Hugging Face dataset (Hub name or save_to_disk folder), a table (CSV, TSV, Parquet, JSONL) or a folder of ECG files.
Out: `Record`s one by one, and an `Index` of 64-bit hashes that tells repeated and colliding paths apart in little memory.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ecgfounder.errors import CohortError, PrepareError
from ecgfounder.naming import KNOWN_SUFFIXES, Naming, absolute_path, is_plain, path_key, printable

if TYPE_CHECKING:
    import pyarrow as pa

DEFAULT_COLUMN = "ecg_paths"
ROWS_AT_ONCE = 1024

_ECG_SUFFIXES = KNOWN_SUFFIXES - {".json"}  # outputs end so, ECGs do not

_SAVED_MARKS = ("state.json", "dataset_dict.json")  # what save_to_disk leaves in a Dataset's and a DatasetDict's folder
_TABLE_FORMATS = {".csv": "csv", ".tsv": "csv", ".parquet": "parquet", ".jsonl": "json"}
_COPY_SUFFIXES = (".parquet", ".arrow", ".jsonl")  # data files of a dataset copied from the Hub
_WFDB_SIGNALS = (".dat", ".mat", ".xyz")
_BLOCK_BYTES = 4 << 20


class Record(NamedTuple):
    """One path of the cohort: the unit of work.

    Attributes
    ----------
    path : as the dataset has it.
    row : the dataset row that names it, from 0.
    position : its place among the row's paths, from 0.
    identifier : the row's value of the identifier column, where one was asked for.
    """

    path: str
    row: int
    position: int
    identifier: str | None = None


class Cohort:
    """A dataset opened for reading; rows are read in batches and never held all at once."""

    def __init__(
        self,
        columns: Sequence[str],
        batches: Callable[[list[str]], Iterator[pa.Table]],
        *,
        path_column: str = DEFAULT_COLUMN,
        id_column: str | None = None,
        n_rows: int | None = None,
        fingerprint: str = "",
    ) -> None:
        self.columns = tuple(columns)
        self.path_column = path_column
        self.id_column = id_column
        self.n_rows = n_rows
        self.fingerprint = fingerprint
        self._batches = batches
        for column in filter(None, (path_column, id_column)):
            self.require(column)

    def require(self, column: str) -> None:
        """Refuse a column that is not there, naming those that are."""
        if column not in self.columns:
            raise CohortError(
                f"Expected '{column}' column in the dataset; its columns are: {', '.join(self.columns) or 'none'}. "
                "Name the right one on the command line."
            )

    def records(self) -> Iterator[Record]:
        """Every path, in the dataset's order: row by row, and within a row as the flattened list has it."""
        for record, _ in self.records_with(()):
            yield record

    def records_with(self, columns: Sequence[str]) -> Iterator[tuple[Record, dict[str, Any]]]:
        """Every path, and what its row has in some other columns."""
        wanted = dict.fromkeys(filter(None, (self.path_column, self.id_column, *columns)))
        row = 0
        for table in self._batches(list(wanted)):
            cells = table.column(self.path_column).to_pylist()
            identifiers = table.column(self.id_column).to_pylist() if self.id_column else [None] * len(cells)
            others = table.select(list(columns)).to_pylist() if columns else [{}] * len(cells)
            for cell, identifier, other in zip(cells, identifiers, others, strict=True):
                name = None if self.id_column is None else "" if identifier is None else str(identifier)
                if isinstance(cell, str) and cell:
                    yield Record(cell, row, 0, name), other
                else:
                    for position, path in enumerate(flat_paths(cell, self.path_column, row)):
                        yield Record(path, row, position, name), other
                row += 1

    def rows(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """The named columns in batches of rows, those without an ECG among them."""
        for column in columns:
            self.require(column)
        yield from self._batches(list(columns))

    def schema_of(self, columns: Sequence[str]) -> pa.Schema:
        """Arrow types of some columns; those of a dataset without rows are unknown and left out."""
        import pyarrow as pa

        first = next(self._batches(list(columns)), None) if columns else None
        return pa.schema([]) if first is None else first.schema


def flat_paths(cell: Any, column: str = DEFAULT_COLUMN, row: int = 0) -> Iterator[str]:
    """The paths in one cell: a string, a list of strings, or a list of lists; None and empty ones are passed over.

    Raises
    ------
    CohortError
        If there is anything but text in it.
    """
    if cell is None or cell == "":
        return
    if isinstance(cell, str):
        yield cell
    elif isinstance(cell, bytes):
        yield os.fsdecode(cell)
    elif isinstance(cell, list | tuple):
        for part in cell:
            yield from flat_paths(part, column, row)
    else:
        raise CohortError(
            f"The '{column}' column must hold paths (text, lists of text or lists of lists of text), "
            f"but row {row} holds a {type(cell).__name__}."
        )


def open_cohort(
    dataset: str,
    *,
    split: str = "train",
    path_column: str = DEFAULT_COLUMN,
    id_column: str | None = None,
) -> Cohort:
    """Open a dataset by its name or path.

    Parameters
    ----------
    dataset : a `save_to_disk` folder, a folder of ECG files, a .csv/.tsv/.parquet/.jsonl file, a name on the Hub, or a
        folder copied from there.
    split : which split of a DatasetDict or of a Hub dataset.
    path_column, id_column : the columns with the paths and with the identifiers.

    Raises
    ------
    CohortError
        If it cannot be opened, the split is not there, or a column is missing (the message names those that are).
    """
    if os.path.isdir(dataset):
        if is_ecg_folder(dataset):
            return _folder(dataset, path_column, id_column)
        load = _from_disk if _is_saved(dataset) else _from_copy
        return _hugging_face(load(dataset, split), path_column, id_column)
    if os.path.isfile(dataset):
        return _table(dataset, path_column, id_column)
    return _hugging_face(_from_hub(dataset, split), path_column, id_column)


def is_ecg_folder(dataset: str) -> bool:
    """Whether `dataset` is a plain folder with ECG files in it rather than a dataset's."""
    return os.path.isdir(dataset) and not _is_saved(dataset) and next(ecg_files(dataset), None) is not None


def _is_saved(folder: str) -> bool:
    return any(os.path.isfile(os.path.join(folder, mark)) for mark in _SAVED_MARKS)


def _from_disk(folder: str, split: str) -> Any:
    import datasets

    try:
        loaded = datasets.load_from_disk(folder)
    except IndexError as error:  # what `datasets` says of one that has no data files
        raise CohortError(f"{folder}: a saved dataset without rows") from error
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError) as error:
        raise CohortError(
            f"{folder}: not a dataset that save_to_disk wrote ({type(error).__name__}: {error})"
        ) from error
    if isinstance(loaded, datasets.DatasetDict):
        if split not in loaded:
            raise CohortError(f"{folder} has no split {split!r}; its splits are: {', '.join(loaded)}. Use --split.")
        return loaded[split]
    return loaded


def _from_copy(folder: str, split: str) -> Any:
    if not any(name.endswith(_COPY_SUFFIXES) for _, _, names in os.walk(folder) for name in names):
        raise CohortError(
            f"{folder} holds no ECG files, and no dataset that save_to_disk wrote or that was copied from the Hub. "
            f"Files count as ECGs that end in {', '.join(sorted(_ECG_SUFFIXES))}, with or without .gz."
        )
    return _load(os.path.abspath(folder), split, f"{folder} holds no ECG files and could not be loaded as a dataset")


def _from_hub(name: str, split: str) -> Any:
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or name.lower().endswith(tuple(_TABLE_FORMATS)):
        raise CohortError(f"{name}: no such file or folder")
    return _load(
        name,
        split,
        f"{name!r} is neither a file or folder here nor a dataset that could be loaded from the Hugging Face Hub",
    )


def _load(name: str, split: str, complaint: str) -> Any:
    import datasets

    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(name, split=split)
    except Exception as error:  # whatever the Hub client raises, the user needs the same answer
        first_line = str(error).partition("\n")[0]
        raise CohortError(f"{complaint}: {type(error).__name__}: {first_line}") from error


def _hugging_face(dataset: Any, path_column: str, id_column: str | None) -> Cohort:
    def batches(columns: list[str]) -> Iterator[pa.Table]:
        yield from dataset.select_columns(columns).with_format("arrow").iter(batch_size=ROWS_AT_ONCE)

    return Cohort(
        dataset.column_names,
        batches,
        path_column=path_column,
        id_column=id_column,
        n_rows=len(dataset),
        fingerprint=str(getattr(dataset, "_fingerprint", "")),
    )


def _table(path: str, path_column: str, id_column: str | None) -> Cohort:
    import pyarrow as pa
    import pyarrow.dataset

    suffix = os.path.splitext(path)[1].lower()
    if suffix not in _TABLE_FORMATS:
        known = ", ".join(_TABLE_FORMATS)
        raise CohortError(f"{path}: a dataset file must end in one of {known}; got {suffix or 'no suffix'!r}")
    try:
        table = pyarrow.dataset.dataset(path, format=_table_format(path, suffix, path_column, id_column))
        names = table.schema.names
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise CohortError(f"{path}: cannot be read as {suffix}: {str(error).splitlines()[0]}") from error

    def batches(columns: list[str]) -> Iterator[pa.Table]:
        try:
            for batch in table.to_batches(columns=columns, batch_size=ROWS_AT_ONCE):
                yield pa.Table.from_batches([batch])
        except (OSError, pa.ArrowException) as error:
            raise CohortError(f"{path}: {str(error).splitlines()[0]}") from error

    status = os.stat(path)
    return Cohort(
        names,
        batches,
        path_column=path_column,
        id_column=id_column,
        fingerprint=f"{os.path.basename(path)}:{status.st_size}:{status.st_mtime_ns}",
    )


def _table_format(path: str, suffix: str, path_column: str, id_column: str | None) -> Any:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.dataset
    import pyarrow.json

    if suffix == ".jsonl":
        # Arrow may pass over rows that are longer than a block, without a word.
        with open(path, "rb") as file:
            longest = max(map(len, file), default=0)
        options = pyarrow.json.ReadOptions(block_size=max(_BLOCK_BYTES, longest + 1))
        return pyarrow.dataset.JsonFileFormat(read_options=options)
    if suffix not in (".csv", ".tsv"):
        return _TABLE_FORMATS[suffix]
    # Identifiers such as 00123 must stay text, and a column of paths whose first block is empty must not become null.
    text = {name: pa.string() for name in filter(None, (path_column, id_column))}
    return pyarrow.dataset.CsvFileFormat(
        read_options=pyarrow.csv.ReadOptions(block_size=_BLOCK_BYTES),
        parse_options=pyarrow.csv.ParseOptions(delimiter="\t" if suffix == ".tsv" else ",", newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(column_types=text, strings_can_be_null=True),
    )


def _folder(folder: str, path_column: str, id_column: str | None) -> Cohort:
    import pyarrow as pa

    root = os.path.abspath(folder)

    def batches(_columns: list[str]) -> Iterator[pa.Table]:
        waiting: list[bytes] = []
        for path in ecg_files(root):
            waiting.append(os.fsencode(path))  # as bytes: a file's name need not be valid UTF-8, Arrow's text must be
            if len(waiting) == ROWS_AT_ONCE:
                yield pa.table({path_column: waiting})
                waiting = []
        if waiting:
            yield pa.table({path_column: waiting})

    if id_column is not None:
        raise CohortError(
            f"{folder} is a folder of ECG files and has no columns: --id_column needs a dataset or a table"
        )
    return Cohort((path_column,), batches, path_column=path_column)


def ecg_files(root: str) -> Iterator[str]:
    """ECG files below a folder, in sorted order: those with a known suffix, signal files of WFDB headers left out.

    Raises
    ------
    CohortError
        If a folder cannot be listed: its recordings would be missing without a word.
    """

    def refuse(error: OSError) -> None:
        raise CohortError(f"{printable(str(error.filename))} cannot be listed: {error.strerror}") from error

    for folder, folders, files in os.walk(root, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "_run")
        headers = {name[:-4] for name in files if name.endswith(".hea")}
        for name in sorted(files):
            stem, suffix = os.path.splitext(name.lower().removesuffix(".gz"))
            if name.startswith(".") or suffix not in _ECG_SUFFIXES:
                continue
            if suffix in _WFDB_SIGNALS and name[: len(stem)] in headers:
                continue
            yield os.path.join(folder, name)


@dataclass(frozen=True)
class Index:
    """What is known of every path of a cohort without holding the paths: about 25 bytes each.

    Attributes
    ----------
    keys : uint64 [n], which record it is (`record_key`).
    names : uint64 [n], hash of the output name with case folded; 0 where the path cannot be given a name.
    first : bool [n], whether this is the first time that the record occurs.
    marks : int64 [n], hash of the `Record`, by which this process knows it when it comes by again.
    shared : uint64, hashes of the names of identifiers that several paths have.
    """

    keys: npt.NDArray[np.uint64]
    names: npt.NDArray[np.uint64]
    first: npt.NDArray[np.bool_]
    marks: npt.NDArray[np.int64]
    shared: npt.NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def n_records(self) -> int:
        """How many different recordings there are."""
        return int(self.first.sum())

    def colliding_names(self) -> npt.NDArray[np.uint64]:
        """Hashes of the output names that two or more different paths would share."""
        names = self.names[self.first & (self.names != 0)]
        values, counts = np.unique(names, return_counts=True)
        return np.union1d(values[counts > 1], self.shared)


def indexed_records(cohort: Cohort, index: Index, data_dir: str) -> Iterator[tuple[int, Record]]:
    """Every path with its place in the index, also where the cohort has changed since (files that came into a folder).

    Paths that the index does not know are left to the next start.
    """
    marks = index.marks.data
    order: npt.NDArray[np.int64] | None = None  # by key; needed only if the cohort is not what it was
    for place, record in enumerate(cohort.records()):
        if place < len(marks) and marks[place] == hash(record):
            yield place, record
            continue
        if order is None:
            order = np.argsort(index.keys, kind="stable")
            sorted_keys = index.keys[order]
        key = np.uint64(record_key(record, data_dir))
        found = int(np.searchsorted(sorted_keys, key))
        if found < len(index) and sorted_keys[found] == key:
            yield int(order[found]), record


def record_key(record: Record, data_dir: str) -> int:
    """Which record it is, as a 64-bit key: by its identifier where it has one, else by its path.

    The key stands in what may be shared. A hash of a path could be found out by hashing likely paths.
    """
    if record.identifier:
        return path_key(f"\0{record.position}\0{record.identifier}")  # no path is like that
    return path_key(record_identity(record.path, data_dir))


def record_identity(path: str, data_dir: str) -> str:
    """What makes two paths the same: the normalised absolute path, told from `data_dir` where it lies below it.

    A cohort that moves as a whole, with its `data_dir` (an absolute path), keeps its records.
    """
    if is_plain(path):
        return path
    return absolute_path(path, data_dir).removeprefix(data_dir.rstrip("/") + "/")


def output_name(record: Record, naming: Naming) -> str:
    """The record's output name: from its identifier where there is one, else from its path.

    A row with several paths numbers them: `ID`, `ID_1`, `ID_2`.
    """
    if record.identifier is None:
        return naming.name(record.path)
    return naming.name_for_id(record.identifier if record.position == 0 else f"{record.identifier}_{record.position}")


def index_cohort(cohort: Cohort, naming: Naming | None, data_dir: str) -> Index:
    """Go once through the cohort and hash its paths and output names (10 million paths: about 300 MB).

    Without a `naming`, outputs have no names of their own and none can collide.
    """
    keys, names, marks = array("Q"), array("Q"), array("q")
    paths = array("Q")  # where records are known by their identifiers
    for record in cohort.records():
        keys.append(record_key(record, data_dir))
        marks.append(hash(record))
        try:
            names.append(0 if naming is None else naming.key(output_name(record, naming)))
        except PrepareError:
            names.append(0)  # the record fails with that reason when its turn comes
        if record.identifier is not None:
            paths.append(path_key(record_identity(record.path, data_dir)))
    all_keys, all_names = np.array(keys, np.uint64), np.array(names, np.uint64)
    first = np.zeros(len(keys), dtype=np.bool_)
    first[np.unique(all_keys, return_index=True)[1]] = True
    shared = _shared_names(all_keys, all_names, np.array(paths, np.uint64)) if paths else np.empty(0, np.uint64)
    return Index(all_keys, all_names, first, np.array(marks, np.int64), shared)


def _shared_names(
    keys: npt.NDArray[np.uint64], names: npt.NDArray[np.uint64], paths: npt.NDArray[np.uint64]
) -> npt.NDArray[np.uint64]:
    """The names of those keys that come with more than one path."""
    order = np.argsort(keys, kind="stable")
    differs = (keys[order][1:] == keys[order][:-1]) & (paths[order][1:] != paths[order][:-1])
    return np.setdiff1d(names[order][1:][differs], [0])
