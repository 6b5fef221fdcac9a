"""Open a cohort: a Hugging Face dataset, a table, a list of paths, a pattern, a folder of ECG files, or one of them.

In: a dataset's name or path. Out: a `Cohort`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from ecgfounder.cohort.cohort import DEFAULT_COLUMN, Cohort
from ecgfounder.cohort.listing import Listing
from ecgfounder.cohort.lists import is_left_out, is_list, is_pattern, is_records, listed, matching, pattern_folder
from ecgfounder.cohort.tables import ROWS_AT_ONCE, TABLE_SUFFIXES, file_fingerprint, open_table, table_suffix
from ecgfounder.errors import CohortError, StorageError
from ecgfounder.storage import NO_OPTIONS, Location, StorageOptions, is_url, locate, locate_folder, names_archive
from ecgfounder.storage.copies import copy_of, copy_of_folder
from ecgfounder.storage.paths import KNOWN_SUFFIXES, printable

if TYPE_CHECKING:
    import pyarrow as pa

_ECG_SUFFIXES = KNOWN_SUFFIXES - {".json"}  # the suffix of outputs, not of ECGs


_SAVED_MARKS = ("state.json", "dataset_dict.json")  # files that save_to_disk writes for a Dataset and a DatasetDict


_COPY_SUFFIXES = (".parquet", ".arrow", ".jsonl")  # data files of a dataset copied from the Hub


_WFDB_SIGNALS = (".dat", ".mat", ".xyz")


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
        A `save_to_disk` folder, a table (`TABLE_SUFFIXES`), a list of paths (.txt, or PhysioNet's RECORDS), a folder of ECG
        files, a pattern ('data/**/*.xml'), one ECG file, a name on the Hub, or a folder copied from the Hub. In an object store
        or an archive: all but the Hub's; saved folders and tables are copied to the cache. A .zip or .tar file is a folder.
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
        if table_suffix(dataset):
            return open_table(dataset, path_column, id_column)
        return _without_columns(locate(dataset), path_column, id_column, file_fingerprint(dataset))
    if is_pattern(dataset):
        return _without_columns(locate(dataset), path_column, id_column, "")
    return _hugging_face(_from_hub(dataset, split), path_column, id_column)


def _elsewhere(place: Location, split: str, path_column: str, id_column: str | None) -> Cohort:
    try:
        if _is_file(place):
            status = place.status()
            told = f"{place.basename}:{status.size}:{status.tag}"
            if table_suffix(place.name):
                return open_table(str(copy_of(place)), path_column, id_column, fingerprint=told)
            return _without_columns(place, path_column, id_column, told)
        if is_pattern(place.name) and not place.is_folder():
            return _without_columns(place, path_column, id_column, "")
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
    return _ecgs(listing, _shown(place), "folder of ECG files", path_column, id_column)


def _without_columns(place: Location, path_column: str, id_column: str | None, fingerprint: str) -> Cohort:
    """A cohort of a list, of an ECG file, or of what matches a pattern."""
    paths: Iterable[str]
    if is_list(place.name):
        what, paths = "list of paths", listed(place)
    elif _is_ecg(place.name) and (place.is_local or not is_pattern(place.name)) and place.exists():
        what, paths = "single ECG file", [str(_header_of(place))]
    elif is_pattern(place.name) and not place.exists():
        what, paths = "pattern", _matches(place)
    else:
        raise CohortError(
            f"{printable(str(place))}: a dataset file must be a table ({', '.join(TABLE_SUFFIXES)}), a list of paths (.txt, "
            f"RECORDS) or an ECG file; got {place.suffix or 'no suffix'!r}"
        )
    try:
        listing = Listing(paths)
    except StorageError as error:
        raise CohortError(f"{_shown(place)}: {error}") from error
    return _ecgs(listing, printable(str(place)), what, path_column, id_column, fingerprint=fingerprint)


def _is_ecg(name: str) -> bool:
    return os.path.splitext(name.lower().removesuffix(".gz"))[1] in _ECG_SUFFIXES


def _header_of(place: Location) -> Location:
    """The recording of an ECG file: for a signal file of WFDB, its header if there is one."""
    header = place.beside(f"{place.stem}.hea")
    return header if place.suffix.lower() in _WFDB_SIGNALS and header.exists() else place


def _matches(pattern: Location) -> Iterator[str]:
    """The files that match a pattern, without signal files of WFDB headers that match too."""
    folder, found = pattern_folder(pattern), False
    for below, names in groupby(matching(pattern), key=lambda name: name.rpartition("/")[0]):
        files = [name.rpartition("/")[2] for name in names]
        headers = {name[:-4] for name in files if name.endswith(".hea")}
        for name in files:
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in _WFDB_SIGNALS and stem in headers:
                continue
            found = True
            yield str(folder / below / name if below else folder / name)
    if not found:
        raise CohortError(f"{printable(str(pattern))}: no file matches this pattern")


def default_data_dir(dataset: str, options: StorageOptions = NO_OPTIONS) -> str | None:
    """The folder that a dataset's paths are relative to: a folder of ECG files itself, or that of a table in an archive.

    Of a RECORDS file and of an ECG file it is their folder, of a pattern the folder before its first wildcard. Of other
    datasets it is not known: None.
    """
    place = locate_folder(dataset, options) if is_url(dataset) or names_archive(dataset) else None
    if place is None or place.is_local:
        here = dataset if place is None else os.fspath(place)
        if is_ecg_folder(here):
            return here
        if os.path.isfile(here):
            return None if table_suffix(here) or _is_plain_list(here) else str(locate(here).folder)
        return str(pattern_folder(locate(here))) if is_pattern(here) and not os.path.isdir(here) else None
    try:
        if _is_file(place):
            is_table = bool(table_suffix(place.name)) or _is_plain_list(place.name)
            return None if is_table and place.archive is None else str(place.folder)
        if is_pattern(place.name) and not place.is_folder():
            return str(pattern_folder(place))
        return None if _is_saved_elsewhere(place) else str(place)
    except StorageError as error:
        raise CohortError(f"{_shown(place)}: {error}") from error


def lasting_name(dataset: str) -> str:
    """A dataset's name that is right from any working directory."""
    if os.path.exists(dataset) or (is_pattern(dataset) and not is_url(dataset) and not names_archive(dataset)):
        return os.path.abspath(dataset)
    return dataset


def _is_plain_list(name: str) -> bool:
    return is_list(name) and not is_records(name)


def _is_file(place: Location) -> bool:
    """Whether a place that is not on this machine is a file by its name: a table, a list or an ECG file."""
    if table_suffix(place.name) and not is_pattern(place.name):
        return True
    return (is_list(place.name) or _is_ecg(place.name)) and place.exists()


def _shown(place: Location) -> str:
    """What messages call a folder: an archive by its file's name."""
    return str(place).removesuffix("::")


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
    is_file = bool(table_suffix(name)) or is_list(name) or _is_ecg(name)
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or is_file:
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


def _folder(folder: Location, path_column: str, id_column: str | None) -> Cohort:
    return _ecgs(_Walk(folder), _shown(folder), "folder of ECG files", path_column, id_column)


@dataclass(frozen=True)
class _Walk:
    """The ECG files below a folder, listed anew each time."""

    folder: Location

    def __iter__(self) -> Iterator[str]:
        return ecg_files(self.folder)


def _ecgs(
    paths: Iterable[str], shown: str, what: str, path_column: str, id_column: str | None, *, fingerprint: str = ""
) -> Cohort:
    import pyarrow as pa

    def batches(_columns: list[str]) -> Iterator[pa.Table]:
        left = iter(paths)
        # Bytes: a file name may not be valid UTF-8, as Arrow's text must be. From buffers: to make an array of a list, pyarrow
        # imports pandas, which takes as long as all other imports.
        while names := [os.fsencode(path) for path in islice(left, ROWS_AT_ONCE)]:
            ends = np.cumsum([0, *map(len, names)], dtype=np.int32)
            buffers = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(names))]
            yield pa.table({path_column: pa.Array.from_buffers(pa.binary(), len(names), buffers)})

    if id_column is not None:
        raise CohortError(f"{shown} is a {what} and has no columns: id_column needs a dataset or a table")
    return Cohort((path_column,), batches, path_column=path_column, fingerprint=fingerprint)


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
        listed = place.names(skip=is_left_out, follow=True)
        for folder, names in groupby(listed, key=lambda name: name.rpartition("/")[0]):
            yield from (
                str(place / name)
                for name in _ecgs_of(place / folder, folder, [name.rpartition("/")[2] for name in names])
            )
    except StorageError as error:
        raise CohortError(printable(str(error))) from error


def _leads_nowhere(place: Location) -> bool:
    return place.is_local and os.path.islink(place) and not os.path.exists(place)


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
