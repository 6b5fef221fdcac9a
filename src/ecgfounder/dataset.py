"""ECG files as a `torch.utils.data.Dataset`, to train or fine-tune with a `DataLoader`.

In: paths (a list, or a cohort's column) and a `Preparation`. Out: float32 tensors [C, L] as inputs of the network, with
targets if there are any; and collate functions for recordings of different length, and for those that cannot be read.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from ecgfounder.checks import check_choice
from ecgfounder.cohort.in_memory import Table, file_of
from ecgfounder.errors import CohortError, ECGFounderError, PrepareError, ReadError, SettingsError
from ecgfounder.escaping import counted, facts_as_html, one_line
from ecgfounder.preprocess.preparation import Preparation
from ecgfounder.preprocess.signals import prepare
from ecgfounder.readers import read_ecg
from ecgfounder.readers.source import Hints
from ecgfounder.storage import folder_text, is_url, names_archive
from ecgfounder.storage import storage_options as make_options
from ecgfounder.storage.paths import absolute_path

__all__ = ["ECGDataset", "collate_by_length", "collate_cropped", "collate_readable"]

log = logging.getLogger(__name__)

ERRORS_CHOICES = ("raise", "skip", "replace")

SampleT = TypeVar("SampleT")


class ECGDataset(Dataset[Any]):
    """Network inputs by index, each read and prepared on access.

    Parameters
    ----------
    paths : sequence of str or os.PathLike
        Paths of the ECG files, also `container::member`.
    targets : sequence of Any, optional
        One for each path (a number, an array, a tensor); None for inputs alone.
    preparation : Preparation, optional
        The processing of each recording. With `window=10` all inputs have 5000 samples, so that the default collate
        function of a `DataLoader` works.
    data_dir : str or os.PathLike, optional
        Folder that relative paths are relative to; None for the working directory.
    reader, hints : str, Hints or None
        As in `ecgfounder.read_ecg`.
    storage_options : mapping, optional
        Options of object stores, see `embed_cohort`. A `DataLoader` with workers then needs `multiprocessing_context="spawn"`.
    errors : {"raise", "skip", "replace"}, default: "raise"
        What an item is whose file cannot be read or prepared: "raise" raises its error; "skip" makes it None, which the
        collate functions of this module leave out (for evaluation); "replace" takes the next recording that is usable, with
        its target, so that batches stay full in every process (for training). Each such file is logged once per process.

    Raises
    ------
    SettingsError
        If the numbers of targets and paths differ, the preparation gives inputs of several lengths per recording, or `paths`
        is one path or a table.

    Notes
    -----
    `dataset[i]` is a float32 tensor [C, L], C = 12 or 1, at 500 Hz; [W, C, L] with several windows, [n_leads, 1, L]
    with `lead="all"`. With targets it is a pair (input, target). A file that cannot be read or prepared raises
    `ReadError` or `PrepareError` with its path, unless `errors` says otherwise. An object store that does not answer always
    raises.

    Examples
    --------
    >>> import numpy as np, pathlib, tempfile
    >>> from ecgfounder.demo import write_demo_cohort
    >>> folder = tempfile.TemporaryDirectory()
    >>> write_demo_cohort(pathlib.Path(folder.name))
    >>> names = ["patient_001/ecg_0001.xml", "patient_002/ecg_0002.xml"]
    >>> ecgs = ECGDataset(names, [0, 1], data_dir=f"{folder.name}/ecg", preparation=Preparation(window=10))
    >>> signals, targets = next(iter(torch.utils.data.DataLoader(ecgs, batch_size=2)))
    >>> signals.shape, targets
    (torch.Size([2, 12, 5000]), tensor([0, 1]))
    >>> folder.cleanup()
    """

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        targets: Sequence[Any] | None = None,
        *,
        preparation: Preparation | None = None,
        data_dir: str | os.PathLike[str] | None = None,
        reader: str = "auto",
        hints: Hints | None = None,
        storage_options: Mapping[str, object] | None = None,
        errors: str = "raise",
    ) -> None:
        check_choice("errors", errors, ERRORS_CHOICES)
        if isinstance(paths, str | bytes | os.PathLike) or hasattr(paths, "columns"):
            raise SettingsError(
                f"Expected a list of paths, got a {type(paths).__name__}: ECGDataset.from_cohort takes tables, folders and files."
            )
        if targets is not None and len(targets) != len(paths):
            raise SettingsError(f"Each path needs one target, got {len(paths)} paths and {len(targets)} targets.")
        self.preparation = preparation or Preparation()
        if self.preparation.stride is not None and self.preparation.remainder == "keep":
            raise SettingsError(
                "remainder 'keep' gives a last window that is shorter than the others, which one [W, C, L] tensor cannot "
                "hold: use 'drop' or 'pad'."
            )
        self.paths = [os.fspath(path) for path in paths]
        self.targets = targets
        self.data_dir = None if data_dir is None else os.fspath(data_dir)
        self.reader = reader
        self.hints = hints
        self.storage_options = storage_options
        self.errors = errors
        self._told: set[int] = set()

    @classmethod
    def from_cohort(
        cls,
        dataset: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | Table,
        *,
        split: str = "train",
        path_column: str = "ecg_paths",
        target_column: str | Sequence[str] | None = None,
        data_dir: str | os.PathLike[str] | None = None,
        preparation: Preparation | None = None,
        reader: str = "auto",
        hints: Hints | None = None,
        storage_options: Mapping[str, object] | None = None,
        errors: str = "raise",
    ) -> ECGDataset:
        """The recordings of a cohort; `dataset` as in `ecgfounder embed`. Each path of a row is a separate item.

        Parameters
        ----------
        dataset : str, os.PathLike, list of paths, or table
            Hugging Face dataset (saved folder or Hub name), table, list of paths, folder of ECGs, pattern, or
            one ECG; or a list or table in memory (pandas, Polars, PyArrow). See `embed_cohort`.
        split : str, default: "train"
            Split of a dataset that has several.
        path_column : str, default: "ecg_paths"
            Column with the paths.
        target_column : str or sequence of str, optional
            Column with numbers, or lists of numbers; several columns make a target [n_columns] of one number each. None for
            inputs alone.
        data_dir : str or os.PathLike, optional
            Folder that relative paths are relative to; not needed for a folder of ECGs, nor for what is in an archive.
        preparation : Preparation, optional
            The processing of each recording.
        reader : str, default: "auto"
            As in `ECGDataset`.
        hints : Hints, optional
            Sampling rate, leads and unit, for files that do not state them.
        storage_options : mapping, optional
            As in `ECGDataset`.
        errors : {"raise", "skip", "replace"}, default: "raise"
            As in `ECGDataset`.

        Raises
        ------
        CohortError
            If the dataset cannot be opened, a column does not exist, or a target is missing.
        SettingsError
            As `ECGDataset` does.
        """
        from ecgfounder.cohort.sources import default_data_dir, open_cohort

        names = [] if target_column is None else [target_column] if isinstance(target_column, str) else [*target_column]
        if isinstance(dataset, str | os.PathLike):
            place = shown = os.fspath(dataset)
        else:
            place, shown = file_of(dataset, path_column, None, names, "target_column"), "the table"
        options = make_options(storage_options)
        cohort = open_cohort(place, split=split, path_column=path_column, options=options)
        for name in names:
            cohort.require(name, "target_column")
        paths: list[str] = []
        targets: list[Any] = []
        for record, row in cohort.records_with(names):
            without = next((name for name in names if row[name] is None), None)
            if without is not None:
                raise CohortError(
                    f"row {record.row} of {shown} has no value in the column '{without}': leave rows without a target out of "
                    "the dataset."
                )
            paths.append(record.path)
            targets.append(row[target_column] if isinstance(target_column, str) else [row[name] for name in names])
        if data_dir is None and names_archive(place):
            data_dir = default_data_dir(place, options)
        return cls(
            paths,
            targets if names else None,
            preparation=preparation,
            data_dir=data_dir,
            reader=reader,
            hints=hints,
            storage_options=storage_options,
            errors=errors,
        )

    def __repr__(self) -> str:
        return f"<ECGDataset: {', '.join(text for _, text in self._facts())}>"

    def _repr_html_(self) -> str:
        return facts_as_html("ECGDataset", self._facts())

    def _facts(self) -> list[tuple[str, str]]:
        """What a reader wants to know first, by name."""
        chosen = self.preparation
        facts = [
            ("recordings", counted(len(self), "recording")),
            ("targets", "no targets" if self.targets is None else "with targets"),
            ("mode", chosen.mode),
            ("recipe", f"{chosen.recipe.name} v{chosen.recipe.version}"),
        ]
        if chosen.window is not None:
            facts.append(("window", f"window {chosen.window:g} s"))
        return facts if self.errors == "raise" else [*facts, ("errors", f"errors={self.errors!r}")]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Any:
        try:
            return self._item(index)
        except (ReadError, PrepareError) as error:
            if self.errors == "raise":
                raise
            self._tell(index, error)
            if self.errors == "skip":
                return None
        for other in range(index + 1, index + len(self)):
            other %= len(self)
            try:
                return self._item(other)
            except (ReadError, PrepareError) as error:
                self._tell(other, error)
        raise ReadError("none of the recordings can be read and prepared; the log has the reasons")

    def _tell(self, index: int, error: ECGFounderError) -> None:
        """Log why a recording is not used, once."""
        if index % len(self) not in self._told:
            self._told.add(index % len(self))
            log.warning("not used: %s", one_line(str(error)))

    def _item(self, index: int) -> Any:
        signals = self._signals(self._path(self.paths[index]))
        if self.targets is None:
            return signals
        target = self.targets[index]
        # The default collate function would turn lists into a list of [B] per class instead of [B, n_classes].
        return signals, torch.as_tensor(target) if isinstance(target, list | tuple) else target

    def _path(self, path: str) -> str:
        if self.data_dir is None or is_url(path):
            return path
        if names_archive(self.data_dir):
            return absolute_path(path, folder_text(self.data_dir))
        return os.path.join(self.data_dir, path)

    def _signals(self, path: str) -> Tensor:
        recording = read_ecg(path, reader=self.reader, hints=self.hints, storage_options=self.storage_options)
        try:
            signal = prepare(recording, self.preparation)
        except ECGFounderError as error:
            raise PrepareError(f"{path}: {error}") from error
        inputs = np.stack(list(signal.inputs))
        return torch.from_numpy(inputs.reshape(*signal.outer_shape, *inputs.shape[1:]))


def collate_readable(samples: Sequence[Any]) -> Any:
    """Collate a batch of equal lengths without the items that are None; for `ECGDataset(errors="skip")`.

    Parameters
    ----------
    samples : sequence of Any
        Inputs [..., L], or pairs of an input and a target, as `ECGDataset` gives them; None for a recording that is left out.

    Returns
    -------
    Tensor or tuple of (Tensor, Any) or None
        The batch of the default collate function, with fewer rows; None if no item is left.
    """
    kept = [sample for sample in samples if sample is not None]
    return _pair(default_collate(kept)) if kept else None


def collate_cropped(samples: Sequence[Any]) -> Any:
    """Collate a batch, cropping every input at its end to the shortest one's length; for `DataLoader(collate_fn=...)`.

    Nothing is padded, because zeros at the end would change an ECG's features. The normalisation includes the samples
    that are cropped; `Preparation(window=...)` crops before the normalisation.

    Parameters
    ----------
    samples : sequence of Any
        Inputs [..., L], or pairs of an input and a target, as `ECGDataset` gives them; None for one that is left out.

    Returns
    -------
    Tensor or tuple of (Tensor, Any) or None
        [B, ..., shortest L], or a pair of it and the targets; None if no item is left.
    """
    kept = [sample for sample in samples if sample is not None]
    shortest = min((_input_of(sample).shape[-1] for sample in kept), default=0)
    return collate_readable(
        [
            (sample[0][..., :shortest], sample[1]) if isinstance(sample, tuple) else sample[..., :shortest]
            for sample in kept
        ]
    )


def collate_by_length(samples: Sequence[SampleT | None]) -> list[Any]:
    """Collate a list of batches, one for each shape of inputs; nothing is cropped or padded.

    Parameters
    ----------
    samples : sequence of SampleT or None
        Inputs, or pairs of an input and a target, as `ECGDataset` gives them; None for one that is left out.

    Returns
    -------
    list
        A batch from the default collate function for each shape, in the order in which the shapes first occur.
    """
    groups: dict[tuple[int, ...], list[SampleT]] = {}
    for sample in samples:
        if sample is not None:
            groups.setdefault(tuple(_input_of(sample).shape), []).append(sample)
    return [_pair(default_collate(group)) for group in groups.values()]


def _input_of(sample: Any) -> Tensor:
    return cast(Tensor, sample[0] if isinstance(sample, tuple) else sample)


def _pair(batch: Any) -> Any:
    """The batch with pairs as tuples, as in the dataset; `default_collate` makes lists of them."""
    return tuple(batch) if isinstance(batch, list) else batch
