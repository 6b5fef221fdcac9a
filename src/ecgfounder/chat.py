"""Chat files for training multimodal language models on embeddings: dataset rows and embedding files in, JSON out.

In: a dataset's rows (ECG paths, text columns, target columns) and the folder that a run wrote its embeddings to.
Out: one file of conversations, as JSON or JSONL, each of which names the embeddings of its ECGs: files, or rows of shards.
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
import math
import os
import re
import stat
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from ecgfounder.cohort import (
    Cohort,
    Record,
    flat_paths,
    index_cohort,
    open_cohort,
    output_name,
    record_key,
)
from ecgfounder.errors import CohortError, ECGFounderError, PrepareError, RunError, SettingsError
from ecgfounder.naming import RUN_FOLDER, Layout, Naming, path_key, printable
from ecgfounder.quality import FLAGS
from ecgfounder.recipes import check_choice
from ecgfounder.runfolder import RunFolder
from ecgfounder.runs import EmbeddingRun, open_run

logger = logging.getLogger(__name__)

MIMIC_TARGETS: tuple[str, ...] = tuple(f"report_{line}" for line in range(18))
"""The columns of MIMIC-IV-ECG that hold the machine's report, a line in each."""

ECG_QUESTIONS: tuple[str, ...] = (
    "What does this ECG show?",
    "Write the report for this ECG.",
    "Please interpret this electrocardiogram.",
    "Which findings would you report for this tracing?",
    "What is the rhythm, and what else do you notice?",
    "Is this ECG normal? If it is not, say what is abnormal.",
    "Describe rhythm, conduction and repolarisation in this recording.",
    "Give the diagnostic statements that fit this ECG.",
    "Summarise this ECG for the physician in charge.",
    "Are there signs of ischaemia, infarction, hypertrophy or a conduction disturbance?",
    "Read this ECG as a cardiologist would.",
    "List every abnormality that you can see in this ECG.",
)
"""Questions of which `create_mimic_ecg_inputs` puts one after each user's text."""

_ROWS_BETWEEN_LINES = 100_000
_ENTRIES_LOOKED_AT = 1000
_MODALITY = re.compile(r"[\w.-]+")


class LeftOut(StrEnum):
    """Why a row has no place in the chat file."""

    NO_ECG = "no ECG"
    NO_TARGET = "no target text"
    NO_EMBEDDING = "no embedding file for one of its ECGs"
    NO_NAME = "an ECG path that no output can be named after"
    FLAGGED = "a recording with a quality flag of --exclude_flags"
    TAG_IN_TEXT = "text that contains a modality's tag"


@dataclass(frozen=True)
class ChatSettings:
    """What a chat file is made of.

    Attributes
    ----------
    dataset_name, split : the dataset, see `ecgfounder.cohort.open_cohort`.
    text_cols, target_cols : columns of the user's and the assistant's text; None takes MIMIC-IV-ECG's report lines.
    modality_mapping : column with ECG paths -> name of its modality.
    embeddings_dirs : the same columns -> folder of the embeddings.
    output_file, output_format : where to, and "json" (one array) or "jsonl".
    data_dir, layout, id_column : as the run that wrote the embeddings had them.
    num_workers : threads that look for embedding files; the output does not depend on it.
    max_samples : rows to read from the beginning; None reads all.
    keep_missing : write the path that an embedding would have where it is not there.
    exclude_flags : names of quality flags (`ecgfounder.quality.FLAGS`); a row with a recording that has one is left out.
    """

    dataset_name: str
    output_file: Path
    embeddings_dirs: Mapping[str, str]
    target_cols: tuple[str, ...] | None
    text_cols: tuple[str, ...] = ()
    modality_mapping: Mapping[str, str] = field(default_factory=lambda: {"ecg_paths": "m1"})
    split: str = "train"
    output_format: str = "json"
    data_dir: str = "."
    layout: Layout = "flat"
    id_column: str | None = None
    num_workers: int = 4
    max_samples: int | None = None
    keep_missing: bool = False
    exclude_flags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.output_format not in ("json", "jsonl"):
            raise SettingsError(
                "Invalid value for the 'output_format' parameter. "
                f"Allowed values are 'json' and 'jsonl', but got {self.output_format!r} instead."
            )
        for name, number, least in (("num_workers", self.num_workers, 0), ("max_samples", self.max_samples, 1)):
            if number is not None and number < least:
                raise SettingsError(
                    f"Invalid value for the '{name}' parameter. It must be at least {least}, but got {number} instead."
                )
        if not self.modality_mapping:
            raise SettingsError('--modality_mapping is empty; expected a column and its modality: {"ecg_paths": "m1"}')
        for modality in self.modality_mapping.values():
            if not _MODALITY.fullmatch(modality) or modality in ("type", "text"):
                raise SettingsError(
                    f"--modality_mapping: {modality!r} cannot name a modality; expected letters, digits, '_', '.' "
                    "and '-', other than 'type' and 'text', which have a meaning of their own"
                )
        without = [column for column in self.modality_mapping if column not in self.embeddings_dirs]
        if without:
            raise SettingsError(f"--embeddings_dirs names no folder for the column {', '.join(map(repr, without))}")
        for flag in self.exclude_flags:
            check_choice("exclude_flags", flag, FLAGS)
        if self.exclude_flags and self.keep_missing:
            raise SettingsError("--exclude_flags needs the run's manifest, --keep_missing has no run yet: choose one")
        if self.target_cols is not None and not self.target_cols:
            raise SettingsError("--target_cols is empty; expected the columns that the assistant's text is made of")


@dataclass(frozen=True)
class Sample:
    """One row that has all it needs: texts without blanks around them, and (modality, embedding file) for each ECG."""

    row: int
    text: tuple[str, ...]
    target: tuple[str, ...]
    embeddings: tuple[tuple[str, str], ...]


@dataclass
class Summary:
    """What became of the rows; `examples` has one instance of each reason, for the log."""

    rows: int = 0
    written: int = 0
    left_out: Counter[LeftOut] = field(default_factory=Counter)
    examples: dict[LeftOut, str] = field(default_factory=dict)

    def lines(self) -> Iterator[str]:
        """The summary as text: one line in all, and one for each reason why rows were left out."""
        yield f"{self.written:,} of {self.rows:,} rows written, {self.left_out.total():,} left out"
        for reason, count in self.left_out.most_common():
            yield f"left out, {reason}: {count:,} (first: {self.examples[reason]})"


class EmbeddingFolder:
    """The embeddings that a run wrote, found again: files by the names that the run gave them, rows of shards by their keys.

    Attributes
    ----------
    folder : where they are; naming : as the run had it.
    shards : the run, where it wrote Parquet shards; None where there is a file per ECG. `require` finds out.
    by_identifier : whether rows of shards are known by an identifier (`--id_column`) rather than by their recording's path.
    """

    def __init__(self, folder: str | os.PathLike[str], naming: Naming) -> None:
        self.folder = Path(os.path.abspath(folder))
        self.naming = naming
        self.shards: EmbeddingRun | None = None
        self.by_identifier = False
        self._flagged: frozenset[int] = frozenset()

    def require(self, exclude_flags: Collection[str] = ()) -> None:
        """Find out what the folder holds, and refuse one that cannot be one of embeddings.

        Parameters
        ----------
        exclude_flags : quality flags that `is_flagged` looks for.

        Raises
        ------
        SettingsError
            If it is not there, or holds Parquet shards or is asked for flags without the run's books.
        """
        try:
            with os.scandir(self.folder) as entries:
                names = [entry.name for entry in islice(entries, _ENTRIES_LOOKED_AT)]
        except OSError as error:
            raise SettingsError(f"--embeddings_dirs: {self.folder}: {error.strerror}") from error
        has_books = (self.folder / RUN_FOLDER / "run.json").is_file()
        if any(name.endswith(".parquet") for name in names) and not has_books:
            raise SettingsError(
                f"--embeddings_dirs: {self.folder} holds Parquet shards without the run's {RUN_FOLDER}/ folder, which says "
                "which row is whose; move both together, or write one JSON per ECG (--format json)"
            )
        if exclude_flags and not has_books:
            raise SettingsError(
                f"--exclude_flags: the flags stand in the run's {RUN_FOLDER}/ folder, which {self.folder} does not have"
            )
        if has_books:
            self._open(exclude_flags)

    def holds_shards(self) -> bool:
        """Whether a run wrote Parquet shards here."""
        facts = RunFolder(self.folder).read() or {}
        return bool(facts.get("fingerprint", {}).get("format") == "parquet")

    def _open(self, exclude_flags: Collection[str]) -> None:
        is_parquet = self.holds_shards()
        if not is_parquet and not exclude_flags:
            return  # files speak for themselves
        run = open_run(self.folder, allow_incomplete=True)
        if not run.is_complete:
            logger.warning("the run in %s is not complete (%s)", self.folder, run.outcome)
        self.shards = run if is_parquet else None
        self.by_identifier = run.settings["settings"].get("id_column") is not None
        if exclude_flags:
            self._flagged = frozenset(_flagged_outputs(run, exclude_flags))

    def expected(self, record: Record) -> Path:
        """Where the record's file is if there is one; raises `PrepareError` where it cannot have a name."""
        path = self.folder / output_name(record, self.naming)
        try:
            str(path).encode()
        except UnicodeEncodeError as error:
            raise PrepareError("the embedding's path is not valid UTF-8, and JSON holds nothing else") from error
        return path

    def described(self, record: Record) -> str:
        """Where the record's embedding was looked for."""
        return str(self.expected(record)) if self.shards is None else f"{printable(record.path)} in {self.folder}"

    def path_for(self, record: Record) -> Path | None:
        """The record's embedding, or None if there is none (a file without content counts as none).

        A file's path, or `SHARD.parquet::KEY`; `ecgfounder.runs.read_embedding` reads either.
        """
        if self.shards is not None:
            known = record if self.by_identifier else record._replace(identifier=None)
            reference = self.shards.reference(record_key(known, self.naming.data_dir))
            return None if reference is None else self.folder / reference
        path = self.expected(record)
        try:
            status = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise RunError(f"cannot look for embeddings: {path}: {error.strerror}") from error
        return path if stat.S_ISREG(status.st_mode) and status.st_size > 0 else None

    def is_flagged(self, path: Path) -> bool:
        """Whether the recording of an embedding that `path_for` gave has one of the flags that `require` was told."""
        return bool(self._flagged) and path_key(os.path.relpath(path, self.folder)) in self._flagged


def _flagged_outputs(run: EmbeddingRun, names: Collection[str]) -> Iterator[int]:
    """Keys of the outputs whose recordings have a flag, with or without a detail, of one of the names."""
    outputs, flags = run.records["output"], run.records["flags"]
    for output, found in zip(outputs, flags, strict=True):
        if any(flag.partition(":")[0] in names for flag in found.as_py() or ()):
            yield path_key(output.as_py())


class Rows:
    """A dataset's rows on their way to being `Sample`s."""

    def __init__(self, settings: ChatSettings) -> None:
        self.settings = settings
        naming = Naming(settings.layout, settings.data_dir)
        self.folders = {
            column: EmbeddingFolder(settings.embeddings_dirs[column], naming) for column in settings.modality_mapping
        }
        for folder in self.folders.values():
            if not settings.keep_missing:
                folder.require(settings.exclude_flags)
                if folder.shards is not None and folder.by_identifier and settings.id_column is None:
                    raise SettingsError(
                        f"--embeddings_dirs: the run in {folder.folder} knows its recordings by identifiers: give "
                        "the column that has them as --id_column"
                    )
            elif folder.holds_shards():
                raise SettingsError(
                    f"--keep_missing: {folder.folder} holds a run's Parquet shards, in which an embedding has no place before "
                    "it is there"
                )
        self.cohort = self._open(naming)
        self.target_cols = self._target_cols()
        self.tags = tuple(f"<{modality}>" for modality in dict.fromkeys(settings.modality_mapping.values()))

    def _open(self, naming: Naming) -> Cohort:
        settings = self.settings
        for column in settings.modality_mapping:
            cohort = open_cohort(
                settings.dataset_name, split=settings.split, path_column=column, id_column=settings.id_column
            )
            folder = self.folders[column]
            if folder.shards is not None and not folder.by_identifier:
                continue  # rows of shards are found by their recordings' paths, which names cannot mix up
            colliding = len(index_cohort(cohort, naming, naming.data_dir).colliding_names())
            if colliding:
                # A row would be given the embedding of another row's ECG, and nothing would show it.
                raise RunError(
                    f"{colliding:,} embedding names are each shared by several ECGs of the column {column!r}; use the "
                    "--layout tree or --id_column that the embeddings were written with"
                )
        return cohort

    def _target_cols(self) -> tuple[str, ...]:
        columns = self.cohort.columns
        wanted = self.settings.target_cols or tuple(name for name in MIMIC_TARGETS if name in columns)
        for flag, names in (("--text_cols", self.settings.text_cols), ("--target_cols", wanted or MIMIC_TARGETS[:1])):
            for name in names:
                if name not in columns:
                    raise CohortError(
                        f"Expected '{name}' column in the dataset ({flag}); its columns are: {', '.join(columns)}."
                    )
        return wanted

    def __iter__(self) -> Iterator[Sample | tuple[LeftOut, str]]:
        """In the dataset's order, each row as a sample, or the reason why it is left out with what it was seen at."""
        settings = self.settings
        names = [*settings.modality_mapping, *settings.text_cols, *self.target_cols]
        columns = list(dict.fromkeys([*names, *([settings.id_column] if settings.id_column else [])]))
        row = 0
        with ThreadPoolExecutor(max(1, settings.num_workers)) as pool:
            spread = pool.map if settings.num_workers > 1 else map
            for table in self.cohort.rows(columns):
                if settings.max_samples is not None:
                    table = table.slice(0, settings.max_samples - row)
                cells = table.to_pylist()
                yield from spread(self._sample, cells, range(row, row + len(cells)))
                row += len(cells)
                if row == settings.max_samples:
                    return

    def _sample(self, cells: Mapping[str, Any], row: int) -> Sample | tuple[LeftOut, str]:
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
        return Sample(row, text, target, tuple(embeddings))


def _records(cells: Mapping[str, Any], column: str, id_column: str | None, row: int) -> Iterator[Record]:
    identifier = None if id_column is None else cells[id_column]
    # A row without an identifier has no output name, just as in a run: "" is refused where names are made.
    name = None if id_column is None else "" if identifier is None else str(identifier)
    for position, path in enumerate(flat_paths(cells[column], column, row)):
        yield Record(path, row, position, name)


def texts(cell: Any, column: str, row: int) -> Iterator[str]:
    """The texts in one cell: text, a number, or a list of them; null, NaN, "nan" and blank ones are passed over.

    Raises
    ------
    CohortError
        If there is anything else in it.
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


def conversation(sample: Sample) -> list[dict[str, Any]]:
    """A row in the OpenAI style: text parts, and one part for each ECG whose type and key are the modality's name."""
    parts: list[dict[str, str]] = [{"type": "text", "text": " ".join(sample.text)}] if sample.text else []
    parts += [{"type": modality, modality: path} for modality, path in sample.embeddings]
    answer = [{"type": "text", "text": " ".join(sample.target)}]
    return [{"role": "user", "content": parts}, {"role": "assistant", "content": answer}]


def embedding_chat(sample: Sample, question: str | None = None) -> dict[str, Any]:
    """A row in the embedding-chat style: a tag for each ECG before the user's text, the files beside the messages."""
    embeddings: dict[str, list[str]] = {}
    for modality, path in sample.embeddings:
        embeddings.setdefault(modality, []).append(path)
    tags = "".join(f"<{modality}>" * len(paths) for modality, paths in embeddings.items())
    user = "\n\n".join(part for part in (" ".join(sample.text), question) if part)
    messages = [
        {"role": "user", "content": tags + user},
        {"role": "assistant", "content": "\n".join(sample.target)},
    ]
    return {"messages": messages, "embeddings": embeddings}


def question_for(row: int, seed: int) -> str:
    """The question that a row gets: drawn by seed and row alone, so that no other row or flag moves it."""
    draw = int.from_bytes(blake2b(f"{seed}:{row}".encode(), digest_size=8).digest(), "little")
    return ECG_QUESTIONS[draw % len(ECG_QUESTIONS)]


def write_chat(settings: ChatSettings, form: Callable[[Sample], Any]) -> Summary:
    """Write a chat file: all at once under its name when it is complete, or not at all.

    Parameters
    ----------
    settings : the dataset, the columns, the embeddings and the output.
    form : what a sample looks like in the file, e.g. `conversation` or `embedding_chat`.

    Returns
    -------
    Summary
        How many rows were written, and why the others were not.

    Raises
    ------
    SettingsError, CohortError
        Before anything is read: an output that cannot be written, a folder or column that is not there.
    RunError
        If not a single row could be written, if names collide, or if the disk is full.
    """
    with _replacing(settings.output_file) as file:
        summary = Summary()
        lines = (orjson.dumps(form(sample)) for sample in _kept(Rows(settings), summary))
        _write(file, lines, settings.output_format)
        if not summary.written:
            raise RunError(
                "\n  ".join([f"{settings.output_file} was not written: no row has a place in it", *summary.lines()])
            )
    return summary


def _kept(rows: Iterable[Sample | tuple[LeftOut, str]], summary: Summary) -> Iterator[Sample]:
    for row in rows:
        summary.rows += 1
        if isinstance(row, Sample):
            summary.written += 1
            yield row
        else:
            reason, seen = row
            summary.left_out[reason] += 1
            summary.examples.setdefault(reason, seen)
            logger.debug("left out, %s: %s", reason, seen)
        if summary.rows % _ROWS_BETWEEN_LINES == 0:
            logger.info("%s rows", f"{summary.rows:,}")


def _write(file: BinaryIO, lines: Iterable[bytes], output_format: str) -> None:
    first, between, last = (b"[\n", b",\n", b"\n]\n") if output_format == "json" else (b"", b"\n", b"\n")
    before = first
    for line in lines:
        file.write(before + line)
        before = between
    file.write(last)


@contextmanager
def _replacing(target: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `target` when the block ends well, and vanishes when it does not."""
    path = Path(os.path.realpath(target))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    if path.exists() and not path.is_file():
        raise SettingsError(f"--output_file {target} is not a regular file; expected the name of a file to write")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(temporary, "wb")  # noqa: SIM115 - closed before it is renamed, and in `finally`
    except OSError as error:
        raise SettingsError(f"--output_file {target} cannot be written: {error.strerror}") from error
    try:
        yield file
        file.flush()
        os.fsync(file.fileno())
        file.close()
        os.replace(temporary, path)
    except OSError as error:
        raise RunError(f"{target} could not be written: {error.strerror or error}") from error
    finally:
        file.close()
        temporary.unlink(missing_ok=True)


def parse_columns(words: Sequence[str]) -> tuple[str, ...]:
    """Column names from the command line: a JSON list in one word, or names separated by blanks or commas."""
    joined = " ".join(words).strip()
    if joined.startswith("["):
        names = _json(joined, "--text_cols and --target_cols")
        if not all(isinstance(name, str) for name in names):
            raise SettingsError(f"--text_cols and --target_cols take names of columns, got {joined}")
        return tuple(names)
    return tuple(name.strip() for word in words for name in word.split(",") if name.strip())


def parse_mapping(text: str, flag: str) -> dict[str, str]:
    """A JSON object of texts from the command line, e.g. '{"ecg_paths": "m1"}'.

    Raises
    ------
    SettingsError
        If it is anything else.
    """
    mapping = _json(text, flag)
    if not isinstance(mapping, dict) or not all(isinstance(value, str) and value for value in mapping.values()):
        raise SettingsError(f'{flag} takes a JSON object of texts such as \'{{"ecg_paths": "..."}}\', got {text[:200]}')
    return mapping


def _json(text: str, flag: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SettingsError(
            f'{flag} is not valid JSON ({error}), got {text[:200]}; quote it as in \'{{"a": "b"}}\''
        ) from error


def _parser(program: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=program, description=description, allow_abbrev=False)
    add = parser.add_argument
    add("--dataset_name", required=True, help="save_to_disk folder, table file, or name on the Hugging Face Hub")
    add("--split", default="train", help="split of a DatasetDict or Hub dataset (default: train)")
    add("--text_cols", nargs="*", default=[], metavar="COLUMN", help="columns of the user's text, also as a JSON list")
    add("--target_cols", nargs="+", metavar="COLUMN", help="columns of the assistant's text, also as a JSON list")
    add(
        "--modality_mapping",
        default='{"ecg_paths": "m1"}',
        metavar="JSON",
        help="column -> modality (default: %(default)s)",
    )
    add(
        "--embeddings_dirs", required=True, metavar="JSON", help="column -> folder of embeddings; or one folder for all"
    )
    add("--output_file", required=True, type=Path, help="file to write; replaced if it exists")
    add("--num_workers", type=int, default=4, help="threads that look for embedding files (default: 4)")
    add("--max_samples", type=int, help="read only the first so many rows")
    add("--data_dir", default=".", help="as given when the embeddings were written (default: working directory)")
    add("--layout", choices=("flat", "tree"), default="flat", help="as given when the embeddings were written")
    add("--id_column", help="as given when the embeddings were written")
    add("--keep_missing", action="store_true", help="keep rows whose embeddings are not there, with dangling paths")
    add(
        "--exclude_flags",
        nargs="+",
        default=[],
        metavar="FLAG",
        help="leave out rows with a recording that has one of these quality flags, e.g. calibration_pulse",
    )
    add("--log_level", default="INFO", choices=("DEBUG", "INFO", "WARNING", "ERROR"))
    return parser


def _settings(arguments: argparse.Namespace) -> ChatSettings:
    mapping = parse_mapping(arguments.modality_mapping, "--modality_mapping")
    folders = arguments.embeddings_dirs
    by_column = folders.lstrip().startswith("{")
    return ChatSettings(
        dataset_name=arguments.dataset_name,
        split=arguments.split,
        text_cols=parse_columns(arguments.text_cols),
        target_cols=None if arguments.target_cols is None else parse_columns(arguments.target_cols),
        modality_mapping=mapping,
        embeddings_dirs=parse_mapping(folders, "--embeddings_dirs") if by_column else dict.fromkeys(mapping, folders),
        output_file=arguments.output_file,
        output_format="json" if arguments.output_format == "openai" else arguments.output_format,
        data_dir=arguments.data_dir,
        layout=arguments.layout,
        id_column=arguments.id_column,
        num_workers=arguments.num_workers,
        max_samples=arguments.max_samples,
        keep_missing=arguments.keep_missing,
        exclude_flags=tuple(arguments.exclude_flags),
    )


def _run(arguments: argparse.Namespace, program: str, form: Callable[[Sample], Any]) -> int:
    """Write the file and say what became of the rows; 0 written, 1 nothing written, 2 refused at the start."""
    logging.basicConfig(format="%(levelname)s %(message)s", stream=sys.stderr)
    logger.setLevel(arguments.log_level)
    try:
        summary = write_chat(_settings(arguments), form)
    except ECGFounderError as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        return 1 if isinstance(error, RunError) else 2
    for line in summary.lines():
        logger.info(line)
    return 0


def dummy_main(argv: Sequence[str] | None = None) -> int:
    """`create_dummy_dataset.py`: rows to conversations in the OpenAI style; returns the exit status."""
    program = "create_dummy_dataset.py"
    parser = _parser(program, "Write dataset rows as OpenAI-style conversations that refer to ECG embeddings.")
    parser.add_argument("--output_format", choices=("json", "jsonl", "openai"), default="json", help="openai is json")
    parser.add_argument(
        "--messages_key",
        default="messages",
        metavar="NAME",
        help="in JSONL, the key that a line holds its conversation under; '' writes the bare list (default: messages)",
    )
    arguments = parser.parse_args(argv)
    if arguments.target_cols is None:
        parser.error("the following arguments are required: --target_cols")
    wrap = arguments.messages_key if arguments.output_format == "jsonl" else ""
    return _run(arguments, program, functools.partial(_conversation, key=wrap))


def _conversation(sample: Sample, key: str) -> Any:
    return {key: conversation(sample)} if key else conversation(sample)


def mimic_main(argv: Sequence[str] | None = None) -> int:
    """`create_mimic_ecg_inputs.py`: rows to the embedding-chat style; returns the exit status."""
    program = "create_mimic_ecg_inputs.py"
    parser = _parser(
        program, "Write dataset rows as embedding-chat samples: messages, and the ECG embeddings beside them."
    )
    parser.add_argument("--output_format", choices=("json", "jsonl"), default="json")
    prompts = parser.add_mutually_exclusive_group()
    prompts.add_argument("--include_prompts", action="store_true", default=True, help="end with a question (default)")
    prompts.add_argument("--no_include_prompts", dest="include_prompts", action="store_false", help="leave it out")
    parser.add_argument("--seed", type=int, default=0, help="decides which row gets which question (default: 0)")
    arguments = parser.parse_args(argv)

    def form(sample: Sample) -> dict[str, Any]:
        return embedding_chat(sample, question_for(sample.row, arguments.seed) if arguments.include_prompts else None)

    return _run(arguments, program, form)
