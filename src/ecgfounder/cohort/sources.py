"""Open a cohort: a Hugging Face dataset, a table, or a folder of ECG files.

In: a dataset's name or path. Out: a `Cohort`.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from ecgfounder.cohort.cohort import DEFAULT_COLUMN, Cohort
from ecgfounder.cohort.listing import Listing
from ecgfounder.cohort.naming import RUN_FOLDER
from ecgfounder.errors import CohortError, StorageError
from ecgfounder.storage import NO_OPTIONS, Location, StorageOptions, is_url, locate, locate_folder, names_archive
from ecgfounder.storage.copies import copy_of, copy_of_folder
from ecgfounder.storage.paths import KNOWN_SUFFIXES, printable

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_AT_ONCE = 1024


_ECG_SUFFIXES = KNOWN_SUFFIXES - {".json"}  # the suffix of outputs, not of ECGs


_SAVED_MARKS = ("state.json", "dataset_dict.json")  # files that save_to_disk writes for a Dataset and a DatasetDict


_TABLE_FORMATS = {".csv": "csv", ".tsv": "csv", ".parquet": "parquet", ".jsonl": "json"}


_COPY_SUFFIXES = (".parquet", ".arrow", ".jsonl")  # data files of a dataset copied from the Hub


_MAC_FOLDER = "__MACOSX"
"""A folder that macOS adds to archives, with no file of theirs in it."""


_WFDB_SIGNALS = (".dat", ".mat", ".xyz")


_BLOCK_BYTES = 4 << 20


MOST_NESTED = 64
"""Levels of objects and arrays in a line of JSON; Arrow's parser and Python recurse into each."""


_BRACKETS = (b"[", b"{"), (b"]", b"}")


_JSON_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*+"')


def open_cohort(
    dataset: str | Location,
    *,
    split: str = "train",
    path_column: str = DEFAULT_COLUMN,
    id_column: str | None = None,
    options: StorageOptions = NO_OPTIONS,
) -> Cohort:
    """Open a dataset by its name, path or URL.

    Parameters
    ----------
    dataset : str or Location
        A `save_to_disk` folder, a .csv/.tsv/.parquet/.jsonl file, a name on the Hub, a folder copied from the Hub, or a folder
        of ECG files. In an object store or an archive: a saved folder or a table, which are copied to the cache, or a folder of
        ECG files. A .zip or .tar file is a folder.
    split : str, default: "train"
        The split of a DatasetDict or of a Hub dataset.
    path_column, id_column : str, str or None
        The columns with the paths and with the identifiers.
    options : StorageOptions
        Options of object stores.

    Raises
    ------
    CohortError
        If the dataset cannot be opened, or the split or a column does not exist (the message lists the existing ones).
    """
    if isinstance(dataset, Location) or is_url(dataset) or names_archive(dataset):
        place = locate_folder(dataset, options)
        if not place.is_local:
            return _elsewhere(place, split, path_column, id_column)
        dataset = os.fspath(place)
    if os.path.isdir(dataset):
        if is_ecg_folder(dataset):
            return _folder(locate(dataset), path_column, id_column)
        load = _from_disk if _is_saved(dataset) else _from_copy
        return _hugging_face(load(dataset, split), path_column, id_column)
    if os.path.isfile(dataset):
        return _table(dataset, path_column, id_column)
    return _hugging_face(_from_hub(dataset, split), path_column, id_column)


def _elsewhere(place: Location, split: str, path_column: str, id_column: str | None) -> Cohort:
    try:
        if _is_table(place):
            status = place.status()
            told = f"{place.basename}:{status.size}:{status.tag}"
            return _table(str(copy_of(place)), path_column, id_column, fingerprint=told)
        if _is_saved_elsewhere(place):
            return _hugging_face(_from_disk(str(copy_of_folder(place)), split), path_column, id_column)
        listing = Listing(ecg_files(place))
    except StorageError as error:
        raise CohortError(f"{_shown(place)}: {error}") from error
    if not listing.n_paths:
        raise CohortError(
            f"{_shown(place)} holds no ECG files, and no dataset that save_to_disk wrote. ECG files end in "
            f"{', '.join(sorted(_ECG_SUFFIXES))}, with or without .gz."
        )
    return _ecgs(listing, place, path_column, id_column)


def default_data_dir(dataset: str, options: StorageOptions = NO_OPTIONS) -> str | None:
    """The folder that a dataset's paths are relative to: a folder of ECG files itself, or that of a table in an archive.

    Of other datasets it is not known: None.
    """
    place = locate_folder(dataset, options) if is_url(dataset) or names_archive(dataset) else None
    if place is None or place.is_local:
        return dataset if is_ecg_folder(dataset if place is None else os.fspath(place)) else None
    try:
        if _is_table(place):
            return None if place.archive is None else str(place.folder)
        return None if _is_saved_elsewhere(place) else str(place)
    except StorageError as error:
        raise CohortError(f"{_shown(place)}: {error}") from error


def _shown(place: Location) -> str:
    """What messages call a folder: an archive by its file's name."""
    return str(place).removesuffix("::")


def _is_table(place: Location) -> bool:
    return place.suffix.lower() in _TABLE_FORMATS


def _is_saved_elsewhere(place: Location) -> bool:
    return any((place / mark).exists() for mark in _SAVED_MARKS)


def is_ecg_folder(dataset: str) -> bool:
    """Whether `dataset` is a folder of ECG files, not one of a saved dataset."""
    return os.path.isdir(dataset) and not _is_saved(dataset) and next(ecg_files(dataset), None) is not None


def _is_saved(folder: str) -> bool:
    return any(os.path.isfile(os.path.join(folder, mark)) for mark in _SAVED_MARKS)


def _from_disk(folder: str, split: str) -> Any:
    import datasets

    try:
        loaded = datasets.load_from_disk(folder)
    except IndexError as error:  # raised by `datasets` if there are no data files
        raise CohortError(f"{folder}: a saved dataset without rows") from error
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError) as error:
        raise CohortError(
            f"{folder}: not a dataset that save_to_disk wrote ({type(error).__name__}: {error})"
        ) from error
    if isinstance(loaded, datasets.DatasetDict):
        if split not in loaded:
            raise CohortError(
                f"{folder} has no split {split!r}; its splits are: {', '.join(loaded)}. Use the 'split' parameter."
            )
        return loaded[split]
    return loaded


def _from_copy(folder: str, split: str) -> Any:
    if not any(name.endswith(_COPY_SUFFIXES) for _, _, names in os.walk(folder) for name in names):
        raise CohortError(
            f"{folder} holds no ECG files, and no dataset that save_to_disk wrote or that was copied from the Hub. "
            f"ECG files end in {', '.join(sorted(_ECG_SUFFIXES))}, with or without .gz."
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
    except Exception as error:  # the message is the same for any error of the Hub client
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


def _table(path: str, path_column: str, id_column: str | None, *, fingerprint: str = "") -> Cohort:
    import pyarrow as pa
    import pyarrow.dataset

    suffix = os.path.splitext(path)[1].lower()
    if suffix not in _TABLE_FORMATS:
        known = ", ".join(_TABLE_FORMATS)
        raise CohortError(f"{path}: a dataset file must end in one of {known}; got {suffix or 'no suffix'!r}")
    try:
        table_format = _table_format(path, suffix, path_column, id_column)
        table = _lone_row(path) if suffix == ".jsonl" else None
        if table is None:
            table = pyarrow.dataset.dataset(path, format=table_format)
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
        fingerprint=fingerprint or f"{os.path.basename(path)}:{status.st_size}:{status.st_mtime_ns}",
    )


def _lone_row(path: str) -> Any:
    """The row of a .jsonl file without a line break, which Arrow skips; None if the file has a line break or no row."""
    import pyarrow.dataset
    import pyarrow.json

    with open(path, "rb") as file:
        line = file.readline()
    if line.endswith(b"\n") or not line.strip():
        return None
    return pyarrow.dataset.dataset(pyarrow.json.read_json(io.BytesIO(line + b"\n")))


def _table_format(path: str, suffix: str, path_column: str, id_column: str | None) -> Any:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.dataset
    import pyarrow.json

    if suffix == ".jsonl":
        # Arrow may silently skip rows that are longer than a block, and nesting that is deep enough crashes it.
        longest = level = 0
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                longest = max(longest, len(line))
                opened, closed = (sum(map(line.count, brackets)) for brackets in _BRACKETS)
                if level or opened != closed or opened > MOST_NESTED:
                    deepest, level = _depths(line, level)
                    if deepest > MOST_NESTED:
                        raise CohortError(f"{path}: line {number} is nested more than {MOST_NESTED} levels deep")
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


def _depths(line: bytes, level: int) -> tuple[int, int]:
    """How deeply a line of JSON that begins at a level of nesting is nested, and the level at its end."""
    codes = np.frombuffer(_JSON_TEXT.sub(b"", line), np.uint8)
    opens, closes = (np.isin(codes, [ord(bracket) for bracket in brackets]) for brackets in _BRACKETS)
    levels = level + np.cumsum(opens.astype(np.int64) - closes)
    return int(levels.max(initial=level)), max(0, int(levels[-1])) if len(levels) else level


def _folder(folder: Location, path_column: str, id_column: str | None) -> Cohort:
    return _ecgs(_Walk(folder), folder, path_column, id_column)


@dataclass(frozen=True)
class _Walk:
    """The ECG files below a folder, listed anew each time."""

    folder: Location

    def __iter__(self) -> Iterator[str]:
        return ecg_files(self.folder)


def _ecgs(paths: Iterable[str], folder: Location, path_column: str, id_column: str | None) -> Cohort:
    import pyarrow as pa

    def batches(_columns: list[str]) -> Iterator[pa.Table]:
        waiting: list[bytes] = []
        for path in paths:
            waiting.append(os.fsencode(path))  # bytes: a file name may not be valid UTF-8, as Arrow's text must be
            if len(waiting) == ROWS_AT_ONCE:
                yield pa.table({path_column: waiting})
                waiting = []
        if waiting:
            yield pa.table({path_column: waiting})

    if id_column is not None:
        raise CohortError(
            f"{_shown(folder)} is a folder of ECG files and has no columns: id_column needs a dataset or a table"
        )
    return Cohort((path_column,), batches, path_column=path_column)


def ecg_files(root: str | os.PathLike[str] | Location, options: StorageOptions = NO_OPTIONS) -> Iterator[str]:
    """ECG files below a folder, in sorted order: files with a known suffix, without signal files of WFDB headers.

    Symbolic links to folders are followed, and each folder is listed once. A link that leads nowhere is listed, so that its
    record fails and is not missing.

    Raises
    ------
    CohortError
        If a folder cannot be listed; its recordings would be missing silently otherwise.
    """
    place = locate_folder(root, options)
    if place.is_local and not os.path.isdir(place):
        raise CohortError(f"{printable(str(place))} cannot be listed: No such file or directory")
    try:
        listed = place.names(skip=_is_no_cohort, follow=True)
        for folder, names in groupby(listed, key=lambda name: name.rpartition("/")[0]):
            yield from (
                str(place / name)
                for name in _ecgs_of(place / folder, folder, [name.rpartition("/")[2] for name in names])
            )
    except StorageError as error:
        raise CohortError(printable(str(error))) from error


def _leads_nowhere(place: Location) -> bool:
    return place.is_local and os.path.islink(place) and not os.path.exists(place)


def _is_no_cohort(folder: str) -> bool:
    return folder.startswith(".") or folder in (RUN_FOLDER, _MAC_FOLDER)


def _ecgs_of(place: Location, folder: str, names: list[str]) -> Iterator[str]:
    """The ECG files among a folder's files."""
    headers = {name[:-4] for name in names if name.endswith(".hea")}
    for name in names:
        stem, suffix = os.path.splitext(name.lower().removesuffix(".gz"))
        if name.startswith(".") or (suffix not in _ECG_SUFFIXES and not _leads_nowhere(place / name)):
            continue
        if suffix in _WFDB_SIGNALS and name[: len(stem)] in headers:
            continue
        yield f"{folder}/{name}" if folder else name
