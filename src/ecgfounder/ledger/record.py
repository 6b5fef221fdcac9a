"""The file `_run/run.json`: a run's settings, software and hardware, and outcome.

In: the file, written by this version, 0.1.0 or a newer one. Out: a frozen `RunRecord`, or a `RunError` with the reason.
"""

from __future__ import annotations

import platform
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from typing import Any

import msgspec
import orjson

from ecgfounder._version import __version__
from ecgfounder.errors import RunError

FORMAT_VERSION = 2
"""Format version of the run's folder. 1: version 0.1.0, which did not write it; its tables end in .parquet. 2: this version."""

MOST_SIZES = 10_000
"""Shards up to which the record has the number of recordings of each."""

FINGERPRINT_DEFAULTS: dict[str, Any] = {"preparation.minus_aVR": None, "heart_rate": False}
"""Values for options that older fingerprints lack: 'preparation.new_option' -> the value before the option existed."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """The program that wrote the record."""

    name: str = "ecgfounder"
    version: str = __version__


@dataclass(frozen=True, kw_only=True)
class CohortSettings:
    """The cohort and its division. Not part of the fingerprint: a run can be resumed with a grown or moved cohort."""

    dataset: str
    split: str = "train"
    data_dir: str = "/"
    path_column: str = "ecg_paths"
    id_column: str | None = None
    keep_columns: tuple[str, ...] = ()
    batch_size: int = 8
    num_workers: int = 4
    shards: int = 1


@dataclass(frozen=True, kw_only=True)
class CheckpointRecord:
    """The weights, by name and content; for predictions, the checkpoint's own names of its head's classes, if it has them."""

    name: str = ""
    sha256: str = ""
    labels: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class EngineRecord:
    """The engine, and the measured error of a lower precision."""

    name: str = ""
    precision: str = "float32"
    device: str = "cpu"
    relative_error_to_float32: float | None = None


@dataclass(frozen=True)
class RunForm:
    """The form of a run's embeddings, from its fingerprint, for reading them.

    Attributes
    ----------
    format : str
        "json", "parquet" or "npy".
    pooling : str
        "none", "mean" or "both".
    dtype, layout, mode : str
        As in `ecgfounder embed`.
    recipe : tuple of (str, str)
        Name and version.
    windows, every_lead : bool
        Whether a record has several rows, by time or by lead.
    ragged : bool
        Whether a last window may have fewer tokens than the others.
    predictions, statements : bool
        Whether the run has these tables.
    heart_rate : bool
        Whether the manifest has this column.
    """

    format: str
    pooling: str
    dtype: str
    layout: str
    mode: str
    recipe: tuple[str, str]
    windows: bool
    every_lead: bool
    ragged: bool
    predictions: bool
    statements: bool
    heart_rate: bool = False

    @classmethod
    def of(cls, fingerprint: Mapping[str, Any]) -> RunForm:
        """The form of a fingerprint.

        Raises
        ------
        RunError
            If the fingerprint is not valid.
        """
        try:
            preparation = fingerprint["preparation"]
            recipe = preparation["recipe"]
            windows = preparation["stride"] is not None
            pooling = str(fingerprint["pooling"])
            return cls(
                format=str(fingerprint["format"]),
                pooling=pooling,
                dtype=str(fingerprint["dtype"]),
                layout=str(fingerprint["layout"]),
                mode=str(preparation["mode"]),
                recipe=(str(recipe["name"]), str(recipe["version"])),
                windows=windows,
                every_lead=preparation["lead"] == "all",
                ragged=windows and preparation["remainder"] == "keep" and pooling != "mean",
                predictions=bool(fingerprint["predictions"]),
                statements=bool(fingerprint["statements"]),
                heart_rate=bool(fingerprint.get("heart_rate", False)),
            )
        except (KeyError, TypeError) as error:
            raise RunError(f"run.json is not a run record: its fingerprint has no {error}") from error


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The contents of run.json.

    Attributes
    ----------
    fingerprint : dict of str to Any
        The settings that must agree for the run to be resumed.
    settings : CohortSettings
        The cohort, and settings that may differ from attempt to attempt.
    outcome : str
        "running", "complete", "incomplete", "interrupted", or "exporting".
    started, ended : str, str or None
        In UTC.
    run_id : str or None
        The run's identifier, the same in all its attempts; None if version 0.1.0 began it.
    format_version : int
        Format version of the folder.
    shard_sizes : tuple of int
        The number of recordings of the cohort in each shard, when the attempt began; of a whole run, their number. Empty if a
        version before 0.2.0 wrote the record, or the run has more than `MOST_SIZES` shards.
    records : dict of str to Any or None
        Counts of the outcomes, once they are known.
    exported : dict of str to Any or None
        For an export: the original format, the program's version, and the time.
    """

    fingerprint: dict[str, Any]
    settings: CohortSettings
    outcome: str = "running"
    started: str = ""
    ended: str | None = None
    run_id: str | None = None
    format_version: int = 1
    program: Program = field(default_factory=Program)
    checkpoint: CheckpointRecord = field(default_factory=CheckpointRecord)
    engine: EngineRecord = field(default_factory=EngineRecord)
    processes: int = 1
    dataset_fingerprint: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    shard_sizes: tuple[int, ...] = ()
    records: dict[str, Any] | None = None
    exported: dict[str, Any] | None = None

    @classmethod
    def parse(cls, content: bytes, place: str) -> RunRecord:
        """Parse the content of a run.json; `place` is its name in messages.

        Raises
        ------
        RunError
            If it is damaged, not a run record, or was written by a newer version of the program.
        """
        try:
            raw = orjson.loads(content)
        except orjson.JSONDecodeError as error:
            raise RunError(f"{place} cannot be read: {error}. Remove the output folder and start again.") from error
        if not isinstance(raw, dict):
            raise RunError(f"{place} is not a run record. Remove the output folder and start again.")
        version = raw.get("format_version", 1)
        if not isinstance(version, int) or version > FORMAT_VERSION:
            program = raw.get("program")
            written_by = (
                f"ecgfounder {program['version']}" if isinstance(program, dict) and "version" in program else "another"
            )
            raise RunError(
                f"{place} was written by {written_by}, in format_version {version}; ecgfounder {__version__} reads "
                f"format_version {FORMAT_VERSION} and older. Use that version, or a newer one."
            )
        try:
            record = msgspec.convert(raw, cls)
            orjson.dumps(raw)  # readable JSON may be too deeply nested, or have too large numbers, for writing
        except (msgspec.ValidationError, OverflowError, TypeError, RecursionError) as error:
            raise RunError(
                f"{place} is not a run record: {error}. Remove the output folder and start again."
            ) from error
        return replace(record, fingerprint=completed(record.fingerprint))

    def as_dict(self) -> dict[str, Any]:
        """The contents of run.json."""
        told = asdict(self)
        told["settings"]["keep_columns"] = list(self.settings.keep_columns)
        labels = told["checkpoint"].pop("labels")
        if labels is not None:
            told["checkpoint"]["labels"] = list(labels)
        told["shard_sizes"] = list(self.shard_sizes)
        return {name: value for name, value in told.items() if not (name == "exported" and value is None)}

    @property
    def form(self) -> RunForm:
        """The form of the embeddings, from the fingerprint."""
        return RunForm.of(self.fingerprint)

    @property
    def is_complete(self) -> bool:
        """Whether every record of the dataset is done or failed."""
        return self.outcome == "complete"


def new_run_id() -> str:
    """A unique identifier for a run."""
    return uuid.uuid4().hex


def completed(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """A fingerprint with the missing values of an older version, so that a new option does not refuse an old run."""
    full = {name: dict(value) if isinstance(value, dict) else value for name, value in fingerprint.items()}
    for name, default in FINGERPRINT_DEFAULTS.items():
        *folders, leaf = name.split(".")
        at: Any = full
        for folder in folders:
            at = at.get(folder) if isinstance(at, dict) else None
        if isinstance(at, dict):
            at.setdefault(leaf, default)
    return full


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The differences of two fingerprints, one line each: 'recipe.name: zscore, now filtered'."""
    lines: list[str] = []
    for key in sorted(set(old) | set(new)):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            lines += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            lines.append(f"{prefix}{key}: {before}, now {after}")
    return lines


def now() -> str:
    """The current time in UTC, in the format of run.json."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def versions() -> dict[str, str]:
    """Versions of the software that affects results."""
    found = {"python": platform.python_version()}
    for package in ("numpy", "scipy", "lxml", "torch", "onnxruntime", "accelerate", "datasets", "orjson", "pyarrow"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
