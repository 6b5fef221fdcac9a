"""A run's record, `_run/run.json`: what it was told, with what it computes, and what came of it.

In: the file as this version, 0.1.0 or a newer one wrote it. Out: a frozen `RunRecord`, or a `RunError` that says what is wrong.
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
"""Of the run's folder. 1: version 0.1.0, which did not name it; its tables end in .parquet. 2: this one."""

FINGERPRINT_DEFAULTS: dict[str, Any] = {}
"""What a run had that does not name it: 'preparation.new_option' -> its value before there was a choice."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """What wrote the record."""

    name: str = "ecgfounder"
    version: str = __version__


@dataclass(frozen=True, kw_only=True)
class CohortSettings:
    """Where the records come from, and how they are divided; not part of the fingerprint: a grown or moved cohort goes on."""

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
    """The weights, by name and content."""

    name: str = ""
    sha256: str = ""


@dataclass(frozen=True, kw_only=True)
class EngineRecord:
    """What computed, and the error that was measured of a lower precision."""

    name: str = ""
    precision: str = "float32"
    device: str = "cpu"
    relative_error_to_float32: float | None = None


@dataclass(frozen=True)
class RunForm:
    """What a fingerprint says of the form of a run's embeddings, for those who read them.

    Attributes
    ----------
    format : str
        "json", "parquet" or "npy".
    pooling : str
        "none", "mean" or "both".
    dtype, layout, mode : str
        As `ecgfounder embed` has them.
    recipe : tuple of (str, str)
        Name and version.
    windows, every_lead : bool
        Whether a record has several rows, by time or by lead.
    ragged : bool
        Whether a last window may have fewer tokens than the others.
    predictions, statements : bool
        Whether there are tables of these.
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

    @classmethod
    def of(cls, fingerprint: Mapping[str, Any]) -> RunForm:
        """The form that a fingerprint stands for.

        Raises
        ------
        RunError
            If it is none.
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
            )
        except (KeyError, TypeError) as error:
            raise RunError(f"run.json is not a run's record: its fingerprint has no {error}") from error


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What is known of a run as a whole.

    Attributes
    ----------
    fingerprint : dict of str to Any
        What must agree for the run to be resumed.
    settings : CohortSettings
        The cohort, and what may differ from start to start.
    outcome : str
        "running", "complete", "incomplete", "interrupted", or "exporting".
    started, ended : str, str or None
        In UTC.
    run_id : str or None
        The run's own name, the same through all its attempts; None where version 0.1.0 began it.
    format_version : int
        Of the folder.
    records : dict of str to Any or None
        Counts of what came of them, once that is known.
    exported : dict of str to Any or None
        Where the run was made from another one: its form, by what version and when.
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
    records: dict[str, Any] | None = None
    exported: dict[str, Any] | None = None

    @classmethod
    def parse(cls, content: bytes, place: str) -> RunRecord:
        """The record in a run.json's content; `place` is what messages call it.

        Raises
        ------
        RunError
            If it is damaged, no run's record, or of a newer version of the program than this one.
        """
        try:
            raw = orjson.loads(content)
        except orjson.JSONDecodeError as error:
            raise RunError(f"{place} cannot be read: {error}. Remove the output folder and start again.") from error
        if not isinstance(raw, dict):
            raise RunError(f"{place} is not a run's record. Remove the output folder and start again.")
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
            orjson.dumps(raw)  # what can be read can be nested too deeply, or too large, to be written again
        except (msgspec.ValidationError, OverflowError, TypeError, RecursionError) as error:
            raise RunError(
                f"{place} is not a run's record: {error}. Remove the output folder and start again."
            ) from error
        return replace(record, fingerprint=completed(record.fingerprint))

    def as_dict(self) -> dict[str, Any]:
        """The contents of run.json."""
        told = asdict(self)
        told["settings"]["keep_columns"] = list(self.settings.keep_columns)
        return {name: value for name, value in told.items() if not (name == "exported" and value is None)}

    @property
    def form(self) -> RunForm:
        """What the fingerprint says of the embeddings' form."""
        return RunForm.of(self.fingerprint)

    @property
    def is_complete(self) -> bool:
        """Whether every record of the dataset is done or failed."""
        return self.outcome == "complete"


def new_run_id() -> str:
    """A name for a run that no other has."""
    return uuid.uuid4().hex


def completed(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """A fingerprint with the values that an older version of the program did not name: a new option refuses no old run."""
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
    """What two fingerprints say differently, one line each: 'recipe.name: zscore, now filtered'."""
    lines: list[str] = []
    for key in sorted(set(old) | set(new)):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            lines += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            lines.append(f"{prefix}{key}: {before}, now {after}")
    return lines


def now() -> str:
    """This moment in UTC, as it stands in a run's record."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    found = {"python": platform.python_version()}
    for package in ("numpy", "scipy", "lxml", "torch", "onnxruntime", "accelerate", "datasets", "orjson", "pyarrow"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
