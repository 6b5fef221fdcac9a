"""The settings of a chat file.

In: values from the command line or from Python. Out: checked `ChatSettings`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ecgfounder.checks import check_choice
from ecgfounder.cohort.naming import Layout
from ecgfounder.errors import SettingsError
from ecgfounder.preprocess.quality import FLAGS
from ecgfounder.storage import NO_OPTIONS, StorageOptions

MIMIC_TARGETS: tuple[str, ...] = tuple(f"report_{line}" for line in range(18))
"""The columns of MIMIC-IV-ECG with the lines of the machine's report."""


_MODALITY = re.compile(r"[\w.-]+")


@dataclass(frozen=True)
class ChatSettings:
    """The settings of a chat file.

    Attributes
    ----------
    dataset_name, split : str
        The dataset, see `ecgfounder.cohort.sources.open_cohort`.
    text_cols, target_cols : tuple of str, tuple of str or None
        Columns of the user's and the assistant's text; None takes MIMIC-IV-ECG's report lines.
    modality_mapping : mapping of str to str
        Column with ECG paths -> name of its modality.
    embeddings_dirs : mapping of str to str
        The same columns -> folder of the embeddings.
    output_file, output_format : Path, str
        The file to write, and "json" (one array) or "jsonl".
    data_dir, layout, id_column : str, Layout, str or None
        The values of the run that wrote the embeddings.
    num_workers : int
        Threads that look for embedding files; the output does not depend on it.
    max_samples : int or None
        Number of rows to read from the beginning; None reads all.
    keep_missing : bool
        Keep rows with missing embeddings, with the paths that these would have.
    exclude_flags : tuple of str
        Names of quality flags (`ecgfounder.quality.FLAGS`); a row with a recording that has one is left out.
    storage_options : StorageOptions
        Options of object stores, if the dataset is in one.
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
    storage_options: StorageOptions = NO_OPTIONS

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
            raise SettingsError('modality_mapping is empty; expected a column and its modality: {"ecg_paths": "m1"}')
        for modality in self.modality_mapping.values():
            if not _MODALITY.fullmatch(modality) or modality in ("type", "text"):
                raise SettingsError(
                    f"modality_mapping: {modality!r} cannot name a modality; expected letters, digits, '_', '.' "
                    "and '-', other than 'type' and 'text', which are reserved"
                )
        without = [column for column in self.modality_mapping if column not in self.embeddings_dirs]
        if without:
            raise SettingsError(f"embeddings_dirs names no folder for the column {', '.join(map(repr, without))}")
        for flag in self.exclude_flags:
            check_choice("exclude_flags", flag, FLAGS)
        if self.exclude_flags and self.keep_missing:
            raise SettingsError("exclude_flags needs the run's manifest, keep_missing=True has no run yet: choose one")
        if self.target_cols is not None and not self.target_cols:
            raise SettingsError("target_cols is empty; expected the columns that the assistant's text is made of")
