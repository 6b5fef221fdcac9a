"""Rows of a dataset as samples of a chat file.

In: rows, and the folder of a run's embeddings. Out: `ChatRow`s, or the reason why a row is left out.
"""

from __future__ import annotations

import logging
import math
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ecgfounder.chat.settings import MIMIC_TARGETS, ChatSettings
from ecgfounder.cohort.cohort import Cohort, MissingColumnError, Record, flat_paths, rows_of
from ecgfounder.cohort.index import index_cohort, output_name, record_key
from ecgfounder.cohort.naming import RUN_FOLDER, Naming
from ecgfounder.cohort.sources import open_cohort
from ecgfounder.errors import CohortError, PrepareError, RunError, SettingsError
from ecgfounder.ledger.folder import RunFolder
from ecgfounder.results.run import EmbeddingRun, open_run
from ecgfounder.storage import NO_OPTIONS, Location, StorageOptions, locate, output_place
from ecgfounder.storage.paths import path_key, printable

logger = logging.getLogger("ecgfounder.chat")

_ENTRIES_LOOKED_AT = 1000


class LeftOut(StrEnum):
    """Why a row is left out of the chat file."""

    NO_ECG = "no ECG"
    NO_TARGET = "no target text"
    NO_EMBEDDING = "no embedding file for one of its ECGs"
    NO_NAME = "an ECG path that no output can be named after"
    FLAGGED = "a recording with a quality flag of exclude_flags"
    TAG_IN_TEXT = "text that contains a modality's tag"


@dataclass(frozen=True)
class ChatRow:
    """A complete row: stripped texts, (modality, embedding) for each ECG, and all modalities of the file."""

    row: int
    text: tuple[str, ...]
    target: tuple[str, ...]
    embeddings: tuple[tuple[str, str], ...]
    modalities: tuple[str, ...]


class EmbeddingFolder:
    """The embeddings of a run: files by their names, rows of shards by their keys.

    Attributes
    ----------
    folder : str or os.PathLike
        The run's output folder, a path or a URL.
    naming : Naming
        The naming of the run.
    options : StorageOptions
        Options of object stores.
    shards : EmbeddingRun or None
        The run, if it wrote Parquet shards; None for a file per ECG. Set by `require`.
    by_identifier : bool
        Whether records have identifiers (`--id_column`), so that keys of shards are not made from paths.
    """

    def __init__(self, folder: str | os.PathLike[str], naming: Naming, options: StorageOptions = NO_OPTIONS) -> None:
        place = output_place(folder, options)
        self.folder = Path(os.path.abspath(place)) if isinstance(place, Path) else place
        self.naming = naming
        self.shards: EmbeddingRun | None = None
        self.by_identifier = False
        self._flagged: frozenset[int] = frozenset()
        self._listed: npt.NDArray[np.uint64] | None = None  # keys of the names of a folder elsewhere

    def require(self, exclude_flags: Collection[str] = ()) -> None:
        """Find out what the folder holds, and refuse an unsuitable one.

        Parameters
        ----------
        exclude_flags : collection of str, optional
            Quality flags for `is_flagged`.

        Raises
        ------
        SettingsError
            If the folder does not exist, or has no run record although it holds Parquet shards or flags are given.
        """
        names = self._first_names()
        has_books = (locate(self.folder) / RUN_FOLDER / "run.json").exists()
        if any(name.endswith(".parquet") for name in names) and not has_books:
            raise SettingsError(
                f"embeddings_dirs: {self.folder} holds Parquet shards without the run's {RUN_FOLDER}/ folder, which maps "
                "rows to recordings; move both together, or write one JSON per ECG (format='json')"
            )
        if exclude_flags and not has_books:
            raise SettingsError(
                f"exclude_flags: the flags are in the run's {RUN_FOLDER}/ folder, which {self.folder} does not have"
            )
        if has_books:
            self._open(exclude_flags)
        if isinstance(self.folder, Location) and self.shards is None:
            self._list(self.folder)

    def _first_names(self) -> list[str]:
        """Some names in the folder."""
        if isinstance(self.folder, Location):
            if not self.folder.is_folder():
                raise SettingsError(f"embeddings_dirs: {self.folder}: there is nothing below it")
            start = len(self.folder.name) + 1 if self.folder.name else 0
            listed = islice(self.folder.store.unsorted(self.folder.name), _ENTRIES_LOOKED_AT)
            return [name for status in listed if "/" not in (name := status.name[start:])]
        try:
            with os.scandir(self.folder) as entries:
                return [entry.name for entry in islice(entries, _ENTRIES_LOOKED_AT)]
        except OSError as error:
            raise SettingsError(f"embeddings_dirs: {self.folder}: {error.strerror}") from error

    def _list(self, folder: Location) -> None:
        """List the folder's objects once, instead of asking for each record's."""
        listed = folder.store.unsorted(folder.name)
        keys = np.fromiter((path_key(status.name) for status in listed if status.size > 0), np.uint64)
        self._listed = np.sort(keys)

    def holds_shards(self) -> bool:
        """Whether the folder is of a run with Parquet shards."""
        record = RunFolder(self.folder).read()
        return record is not None and record.form.format == "parquet"

    def _open(self, exclude_flags: Collection[str]) -> None:
        is_parquet = self.holds_shards()
        if not is_parquet and not exclude_flags:
            return  # separate files need no run record
        run = open_run(self.folder, allow_incomplete=True)
        if not run.is_complete:
            logger.warning("the run in %s is not complete (%s)", self.folder, run.outcome)
        self.shards = run if is_parquet else None
        self.by_identifier = run.record.settings.id_column is not None
        if exclude_flags:
            self._flagged = frozenset(_flagged_outputs(run, exclude_flags))

    def expected(self, record: Record) -> Path | Location:
        """The path that the record's file has if it exists; raises `PrepareError` if there is no valid name."""
        path = self.folder / output_name(record, self.naming)
        try:
            str(path).encode()
        except UnicodeEncodeError as error:
            raise PrepareError("the embedding's path is not valid UTF-8, which JSON requires") from error
        return path

    def described(self, record: Record) -> str:
        """A description of the place where the record's embedding was expected."""
        return str(self.expected(record)) if self.shards is None else f"{printable(record.path)} in {self.folder}"

    def path_for(self, record: Record) -> Path | Location | None:
        """The reference to the record's embedding, or None if there is none (an empty file counts as none).

        A file's path, or `SHARD.parquet::KEY`; `ecgfounder.results.store.read_embedding` reads both.
        """
        if self.shards is not None:
            known = record if self.by_identifier else record._replace(identifier=None)
            reference = self.shards.reference(record_key(known, self.naming.data_dir))
            return None if reference is None else self.folder / reference
        path = self.expected(record)
        if isinstance(path, Location):
            return path if self._is_listed(path_key(path.name)) else None
        try:
            status = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise RunError(f"cannot look for embeddings: {path}: {error.strerror}") from error
        return path if stat.S_ISREG(status.st_mode) and status.st_size > 0 else None

    def _is_listed(self, key: int) -> bool:
        if self._listed is None or not len(self._listed):
            return False
        at = int(np.searchsorted(self._listed, np.uint64(key)))
        return at < len(self._listed) and int(self._listed[at]) == key

    def is_flagged(self, path: Path | Location) -> bool:
        """Whether the recording of an embedding from `path_for` has one of the flags given to `require`."""
        return bool(self._flagged) and path_key(os.path.relpath(str(path), str(self.folder))) in self._flagged


def _flagged_outputs(run: EmbeddingRun, names: Collection[str]) -> Iterator[int]:
    """Keys of outputs whose recordings have one of the flags, with or without a detail."""
    outputs, flags = run.records["output"], run.records["flags"]
    for output, found in zip(outputs, flags, strict=True):
        if any(flag.partition(":")[0] in names for flag in found.as_py() or ()):
            yield path_key(output.as_py())


class ChatRows:
    """Makes `ChatRow`s from a dataset's rows."""

    def __init__(self, settings: ChatSettings) -> None:
        self.settings = settings
        naming = Naming(settings.layout, settings.data_dir)
        self.folders = {
            column: EmbeddingFolder(settings.embeddings_dirs[column], naming, settings.storage_options)
            for column in settings.modality_mapping
        }
        for folder in self.folders.values():
            if not settings.keep_missing:
                folder.require(settings.exclude_flags)
                if folder.shards is not None and folder.by_identifier and settings.id_column is None:
                    raise SettingsError(
                        f"embeddings_dirs: the run in {folder.folder} names its recordings by identifiers: give "
                        "their column as id_column"
                    )
            elif folder.holds_shards():
                raise SettingsError(
                    f"keep_missing=True: {folder.folder} holds a run's Parquet shards, in which an embedding has no path before "
                    "it is written"
                )
        self.cohort = self._open(naming)
        self.target_cols = self._target_cols()
        self.modalities = tuple(dict.fromkeys(settings.modality_mapping.values()))
        self.tags = tuple(f"<{modality}>" for modality in self.modalities)

    def _open(self, naming: Naming) -> Cohort:
        settings = self.settings
        for column in settings.modality_mapping:
            try:
                cohort = open_cohort(
                    settings.dataset_name,
                    split=settings.split,
                    path_column=column,
                    id_column=settings.id_column,
                    options=settings.storage_options,
                )
            except MissingColumnError as error:
                raise error if error.column == settings.id_column else error.of_parameter("modality_mapping") from None
            folder = self.folders[column]
            if folder.shards is not None and not folder.by_identifier:
                continue  # rows of shards are found by paths, which cannot collide
            colliding = len(index_cohort(cohort, naming, naming.data_dir).colliding_names())
            if colliding:
                # A row would silently get the embedding of another row's ECG.
                raise RunError(
                    f"{colliding:,} embedding names are each shared by several ECGs of the column {column!r}; use the "
                    "layout='tree' or id_column that the embeddings were written with"
                )
        return cohort

    def _target_cols(self) -> tuple[str, ...]:
        columns = self.cohort.columns
        wanted = self.settings.target_cols or tuple(name for name in MIMIC_TARGETS if name in columns)
        for flag, names in (("text_cols", self.settings.text_cols), ("target_cols", wanted or MIMIC_TARGETS[:1])):
            for name in names:
                if name not in columns:
                    raise CohortError(
                        f"Expected '{name}' column in the dataset ({flag}); its columns are: {', '.join(columns)}."
                    )
        return wanted

    def __iter__(self) -> Iterator[ChatRow | tuple[LeftOut, str]]:
        """Each row in the dataset's order as a sample, or the reason why it is left out with an example."""
        settings = self.settings
        names = [*settings.modality_mapping, *settings.text_cols, *self.target_cols]
        columns = list(dict.fromkeys([*names, *([settings.id_column] if settings.id_column else [])]))
        row = 0
        with ThreadPoolExecutor(max(1, settings.num_workers)) as pool:
            spread = pool.map if settings.num_workers > 1 else map
            for table in self.cohort.rows(columns):
                if settings.max_samples is not None:
                    table = table.slice(0, settings.max_samples - row)
                cells = rows_of(table, row)
                yield from spread(self._sample, cells, range(row, row + len(cells)))
                row += len(cells)
                if row == settings.max_samples:
                    return

    def _sample(self, cells: Mapping[str, Any], row: int) -> ChatRow | tuple[LeftOut, str]:
        records = [
            (column, record)
            for column in self.settings.modality_mapping
            for record in _records(cells, column, self.settings.id_column, row)
        ]
        if not records:
            return LeftOut.NO_ECG, f"row {row}"
        target = tuple(text for column in self.target_cols for text in texts(cells[column], column, row))
        if not target:
            return LeftOut.NO_TARGET, f"row {row}"
        text = tuple(text for column in self.settings.text_cols for text in texts(cells[column], column, row))
        if any(tag in part for tag in self.tags for part in (*text, *target)):
            return LeftOut.TAG_IN_TEXT, f"row {row}"
        embeddings: list[tuple[str, str]] = []
        for column, record in records:
            folder = self.folders[column]
            try:
                path = folder.expected(record) if self.settings.keep_missing else folder.path_for(record)
            except PrepareError as error:
                return LeftOut.NO_NAME, f"row {row}, {error}"
            if path is None:
                return LeftOut.NO_EMBEDDING, f"row {row}, {folder.described(record)}"
            if folder.is_flagged(path):
                return LeftOut.FLAGGED, f"row {row}, {path}"
            embeddings.append((self.settings.modality_mapping[column], str(path)))
        return ChatRow(row, text, target, tuple(embeddings), self.modalities)


def _records(cells: Mapping[str, Any], column: str, id_column: str | None, row: int) -> Iterator[Record]:
    identifier = None if id_column is None else cells[id_column]
    # As in a run, a row without an identifier has no output name: the naming refuses "".
    name = None if id_column is None else "" if identifier is None else str(identifier)
    for position, path in enumerate(flat_paths(cells[column], column, row)):
        yield Record(path, row, position, name)


def texts(cell: Any, column: str, row: int) -> Iterator[str]:
    """The texts in one cell: text, a number, or a list of them; null, NaN, "nan" and blank texts are skipped.

    Raises
    ------
    CohortError
        If the cell holds anything else.
    """
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return
    if isinstance(cell, list | tuple):
        for part in cell:
            yield from texts(part, column, row)
    elif isinstance(cell, bytes | dict):
        raise CohortError(
            f"The '{column}' column must hold text or numbers, but row {row} holds a {type(cell).__name__}."
        )
    else:
        text = str(cell).strip()
        if text and text.casefold() != "nan":
            yield text
