"""ECGFounder embeddings from the ECG files of hospitals and research cohorts.

In: ECG files, recordings, arrays. Out: embeddings and predictions. Start with `load`, or with `embed_cohort` for a cohort.
The names in `__all__` are public; every other name and module of the package may change with any version.
Names are imported when they are first used, so that `import ecgfounder` is fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ecgfounder._moved import keep_old_names
from ecgfounder._version import __version__

if TYPE_CHECKING:
    from ecgfounder.dataset import ECGDataset, collate_by_length, collate_cropped, collate_readable
    from ecgfounder.ecg.leads import STANDARD_LEADS
    from ecgfounder.ecg.recording import Recording
    from ecgfounder.embedder import Embedder, load, recording_from_array
    from ecgfounder.embedding import CohortRun, embed_cohort
    from ecgfounder.errors import (
        CheckpointError,
        CohortError,
        ECGFounderError,
        EmbeddingError,
        MissingDependencyError,
        OutOfMemoryError,
        PrepareError,
        ReadError,
        RunError,
        SettingsError,
        StorageError,
        UnsupportedFormatError,
    )
    from ecgfounder.model import BUNDLES, Bundle, ft_1lead_ECGFounder, ft_12lead_ECGFounder
    from ecgfounder.net1d import Net1D
    from ecgfounder.preprocess.preparation import Preparation
    from ecgfounder.preprocess.recipes import (
        FILTERED,
        PAPER,
        RECIPES,
        ZSCORE,
        Butterworth,
        Filter,
        MedianBaseline,
        Notch,
        Recipe,
    )
    from ecgfounder.preprocess.signals import Signal, prepare, token_times
    from ecgfounder.readers import read_ecg
    from ecgfounder.readers.source import Hints
    from ecgfounder.results.run import EmbeddingRun, open_run
    from ecgfounder.results.several import EmbeddingRuns
    from ecgfounder.results.store import read_embedding
    from ecgfounder.run.summary import Summary

__all__ = [
    "BUNDLES",
    "FILTERED",
    "PAPER",
    "RECIPES",
    "STANDARD_LEADS",
    "ZSCORE",
    "Bundle",
    "Butterworth",
    "CheckpointError",
    "CohortError",
    "CohortRun",
    "ECGDataset",
    "ECGFounderError",
    "Embedder",
    "EmbeddingError",
    "EmbeddingRun",
    "EmbeddingRuns",
    "Filter",
    "Hints",
    "MedianBaseline",
    "MissingDependencyError",
    "Net1D",
    "Notch",
    "OutOfMemoryError",
    "Preparation",
    "PrepareError",
    "ReadError",
    "Recipe",
    "Recording",
    "RunError",
    "SettingsError",
    "Signal",
    "StorageError",
    "Summary",
    "UnsupportedFormatError",
    "__version__",
    "collate_by_length",
    "collate_cropped",
    "collate_readable",
    "embed_cohort",
    "ft_1lead_ECGFounder",
    "ft_12lead_ECGFounder",
    "load",
    "open_run",
    "prepare",
    "read_ecg",
    "read_embedding",
    "recording_from_array",
    "token_times",
]

keep_old_names()

_NAMES_BY_MODULE = {
    "dataset": "ECGDataset collate_by_length collate_cropped collate_readable",
    "ecg.leads": "STANDARD_LEADS",
    "ecg.recording": "Recording",
    "embedder": "Embedder load recording_from_array",
    "errors": "CheckpointError CohortError ECGFounderError EmbeddingError MissingDependencyError OutOfMemoryError "
    "PrepareError ReadError RunError SettingsError StorageError UnsupportedFormatError",
    "model": "BUNDLES Bundle ft_12lead_ECGFounder ft_1lead_ECGFounder",
    "net1d": "Net1D",
    "preprocess": "FILTERED PAPER RECIPES ZSCORE Butterworth Filter MedianBaseline Notch Preparation Recipe Signal prepare "
    "token_times",
    "readers": "read_ecg",
    "readers.source": "Hints",
    "results": "EmbeddingRun EmbeddingRuns open_run read_embedding",
    "embedding": "CohortRun embed_cohort",
    "run.summary": "Summary",
}
_MODULE_OF = {name: module for module, names in _NAMES_BY_MODULE.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value  # the next use finds it without this function
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
