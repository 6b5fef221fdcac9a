"""A run's settings as one frozen object, and the fingerprint that decides whether a run may be resumed.

In: values from the command line or from Python. Out: validated `Settings`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ecgfounder.checks import check_choice, check_least
from ecgfounder.cohort.naming import LAYOUT_CHOICES
from ecgfounder.distributed.work import Group, Outcome, Work
from ecgfounder.drivers.actors import ActorSettings
from ecgfounder.engines.choice import ENGINE_CHOICES, PRECISION_CHOICES
from ecgfounder.errors import ReadError, SettingsError
from ecgfounder.network.named_head import read_head
from ecgfounder.preprocess.preparation import Preparation
from ecgfounder.readers import READER_CHOICES
from ecgfounder.readers.quantities import hinted_scale
from ecgfounder.readers.source import Hints
from ecgfounder.sinks.sink import DTYPE_CHOICES, FORMAT_CHOICES
from ecgfounder.stages.pooling import POOLING_CHOICES
from ecgfounder.storage import NO_OPTIONS, Location, StorageOptions

DRIVER_CHOICES = ("local", "ray")
CALLED = "called"
"""The driver of runs whose groups are carried by a function of the caller."""

GROUP_SIZE = 500
"""Records in a group of JSON files, at most."""
SHARD_SIZE = 1000

Carrier = Callable[[Work, Iterator[Group]], Iterable[Outcome]]
"""Calls `ecgfounder.distributed.do_group(work, group)` for each group, anywhere, and gives the outcomes as they come."""


def shard_and_group(shard_size: int | None, group_size: int | None, format: str) -> tuple[int, int | None]:
    """`Settings.shard_size` and `Settings.group_size` from what was given: a group's records are one Parquet shard.

    Raises
    ------
    SettingsError
        If both are given and contradict each other.
    """
    if shard_size is None:
        return (SHARD_SIZE if group_size is None or format != "parquet" else group_size), group_size
    if format == "parquet" and group_size not in (None, shard_size):
        raise SettingsError(
            f"shard_size={shard_size} and group_size={group_size} contradict each other: a group is written as one Parquet "
            "shard. Give one of them."
        )
    return shard_size, group_size


@dataclass(frozen=True)
class Settings:
    """All settings of a run.

    Attributes
    ----------
    dataset, split, path_column, id_column, keep_columns, data_dir : str, str, str, str or None, tuple of str, str
        The cohort; see `ecgfounder.cohort.sources.open_cohort`.
    output_dir : Path or Location
        Folder of the embeddings and of `_run/`.
    checkpoint : str or None
        File, or folder that holds the mode's file; None takes it from the Hugging Face Hub.
    preparation : Preparation
        The processing of a recording before the network.
    reader, hints : str, Hints
        How files are read; see `ecgfounder.readers.read_ecg`.
    engine, precision, device, compile : str, str, str or None, bool
        Implementation of the network; see `ecgfounder.engines.create_engine`.
    pooling : str
        "none" keeps the feature map [T, C], "mean" its mean over T, "both" both, as two columns.
    predictions : bool or str
        Whether to write the head's probabilities; or the file of a probe, whose probabilities are written instead.
    statements : bool
        Whether to write the recording device's diagnostic statements and intervals.
    heart_rate : bool
        Whether to measure the heart rate, for the manifest.
    dtype : str
        Data type of the embeddings that are written.
    format, layout, shard_size : str, str, int
        How outputs are written; `shard_size` is the number of records per Parquet shard.
    batch_size, num_workers : int or None, int
        Recordings in a batch, None for the engine's default; maximum number of reading processes per process.
    shard : tuple of (int, int)
        (i, n): this attempt does the i-th of n shards, i from 1.
    sample : int or None
        Number of recordings, spread over the cohort, that this attempt is limited to; None for all.
    overwrite, retry_failed, check_hashes : bool
        What an attempt in a used folder does.
    read_timeout : float
        Time limit for reading one file, in seconds; time in which an object store sends it does not count.
    read_memory : float or None
        Memory that the reading of large files may take on this machine, in GiB; None for a quarter of the memory.
    storage_options : StorageOptions
        Options of object stores.
    driver : str
        "local"; "ray", on a cluster; "called", by `carrier`.
    group_size : int or None
        Records in a group of a driver other than the local one; None for as many as in a Parquet shard, or 500 in JSON.
    actors : ActorSettings
        The workers on Ray.
    carrier : callable or None
        Carries groups to workers (`ecgfounder.embed_cohort`).
    """

    dataset: str
    output_dir: Path | Location
    split: str = "train"
    path_column: str = "ecg_paths"
    id_column: str | None = None
    keep_columns: tuple[str, ...] = ()
    data_dir: str = field(default_factory=os.getcwd)
    checkpoint: str | None = None
    preparation: Preparation = field(default_factory=Preparation)
    reader: str = "auto"
    hints: Hints = field(default_factory=Hints)
    engine: str = "auto"
    precision: str = "float32"
    device: str | None = None
    compile: bool = False
    pooling: str = "none"
    predictions: bool | str = False
    statements: bool = False
    heart_rate: bool = False
    dtype: str = "float32"
    format: str = "json"
    layout: str = "flat"
    shard_size: int = 1000
    batch_size: int | None = None
    num_workers: int = 4
    shard: tuple[int, int] = (1, 1)
    sample: int | None = None
    overwrite: bool = False
    retry_failed: bool = False
    check_hashes: bool = False
    read_timeout: float = 120.0
    read_memory: float | None = None
    storage_options: StorageOptions = NO_OPTIONS
    driver: str = "local"
    group_size: int | None = None
    actors: ActorSettings = field(default_factory=ActorSettings)
    carrier: Carrier | None = None

    def __post_init__(self) -> None:
        self._check_values()
        self._check_combinations()

    def _check_values(self) -> None:
        """Refuse values that are not allowed."""
        for name, value, choices in (
            ("engine", self.engine, ENGINE_CHOICES),
            ("precision", self.precision, PRECISION_CHOICES),
            ("pooling", self.pooling, POOLING_CHOICES),
            ("dtype", self.dtype, DTYPE_CHOICES),
            ("format", self.format, FORMAT_CHOICES),
            ("layout", self.layout, LAYOUT_CHOICES),
            ("reader", self.reader, READER_CHOICES),
            ("driver", self.driver, (*DRIVER_CHOICES, CALLED)),
        ):
            check_choice(name, value, choices)
        for name, number, least in (
            ("batch_size", 1 if self.batch_size is None else self.batch_size, 1),
            ("num_workers", self.num_workers, 0),
            ("sample", 1 if self.sample is None else self.sample, 1),
            ("shard_size", self.shard_size, 1),
            ("group_size", 1 if self.group_size is None else self.group_size, 1),
        ):
            check_least(name, number, least)
        part, parts = self.shard
        if not 1 <= part <= parts:
            raise SettingsError(
                f"Invalid value for the 'shard' parameter. It must be I/N with 1 <= I <= N, got {part}/{parts}."
            )
        if not (math.isfinite(self.read_timeout) and self.read_timeout > 0):
            raise SettingsError(
                "Invalid value for the 'read_timeout' parameter. It must be a number of seconds above 0."
            )
        if self.read_memory is not None and not (math.isfinite(self.read_memory) and self.read_memory > 0):
            raise SettingsError("Invalid value for the 'read_memory' parameter. It must be a number of GiB above 0.")
        rate = self.hints.sampling_rate
        if rate is not None and not (math.isfinite(rate) and rate > 0):
            raise SettingsError(f"Invalid value for the 'sampling_rate' parameter. It must be above 0 Hz, got {rate}.")
        try:
            hinted_scale(self.hints)
        except ReadError as error:
            raise SettingsError(str(error)) from error

    def _check_combinations(self) -> None:
        """Refuse values that contradict each other."""
        if self.overwrite and self.shard[1] > 1:
            raise SettingsError(
                "overwrite=True would remove what the other shards wrote. Begin again in another output_dir, or run once "
                "with overwrite=True and without the 'shard' parameter."
            )
        if self.driver != "ray" and self.actors != ActorSettings():
            raise SettingsError(
                "The 'ray_address', 'gpus_per_actor', 'cpus_per_actor' and 'actors' parameters need driver='ray'."
            )
        if self.driver == "local" and self.group_size is not None:
            raise SettingsError("The 'group_size' parameter needs driver='ray': the local driver commits each record.")
        if self.dtype == "float16" and self.format == "json":
            raise SettingsError("dtype='float16' needs format='parquet': JSON has one kind of number.")
        if self.layout == "tree" and self.id_column is not None:
            raise SettingsError("layout='tree' names outputs by their paths and id_column by identifiers: choose one.")
        if self.pooling == "both" and self.format == "json":
            raise SettingsError("pooling='both' needs format='parquet': a JSON holds one embedding.")
        ragged = self.preparation.remainder == "keep" and self.preparation.stride is not None
        if ragged and self.format == "json" and self.pooling == "none":
            raise SettingsError(
                "remainder='keep' gives a last window with fewer tokens, which one [W, T, C] array cannot hold: "
                "use format='parquet' (a row per window), pooling='mean', or remainder='drop' or pad."
            )

    @property
    def records_per_group(self) -> int:
        """Records in a group, at most."""
        return self.group_size or (self.shard_size if self.format == "parquet" else GROUP_SIZE)

    @property
    def mode(self) -> str:
        return self.preparation.mode

    def fingerprint(self, checkpoint_sha256: str) -> dict[str, Any]:
        """The settings that must agree for a run to be resumed, as JSON-serialisable values: all that affect results."""
        return {
            "checkpoint_sha256": checkpoint_sha256,
            "preparation": self.preparation.fingerprint(),
            "reader": self.reader,
            "hints": {
                "sampling_rate": self.hints.sampling_rate,
                "unit": self.hints.unit,
                "leads": list(self.hints.leads) if self.hints.leads else None,
            },
            "precision": self.precision,
            "pooling": self.pooling,
            "predictions": f"sha256:{read_head(self.predictions).sha256}"
            if isinstance(self.predictions, str)
            else self.predictions,
            "statements": self.statements,
            "heart_rate": self.heart_rate,
            "dtype": self.dtype,
            "format": self.format,
            "layout": self.layout,
            "id_column": self.id_column,
        }
