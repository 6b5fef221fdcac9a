"""ECG files as a `torch.utils.data.Dataset`, to train or fine-tune with a `DataLoader`.

In: paths (a list, or a cohort's column) and a `Preparation`. Out: float32 tensors [C, L] as inputs of the network, with
targets if there are any; and two collate functions for recordings of different length.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from ecgfounder.errors import CohortError, ECGFounderError, PrepareError, SettingsError
from ecgfounder.preprocess.preparation import Preparation
from ecgfounder.preprocess.signals import prepare
from ecgfounder.readers import read_ecg
from ecgfounder.readers.source import Hints
from ecgfounder.storage import folder_text, is_url, names_archive
from ecgfounder.storage import storage_options as make_options
from ecgfounder.storage.paths import absolute_path

__all__ = ["ECGDataset", "collate_by_length", "collate_cropped"]

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

    Raises
    ------
    SettingsError
        If the numbers of targets and paths differ, or the preparation gives inputs of several lengths per recording.

    Notes
    -----
    `dataset[i]` is a float32 tensor [C, L], C = 12 or 1, at 500 Hz; [W, C, L] with several windows, [n_leads, 1, L]
    with `lead="all"`. With targets it is a pair (input, target). A file that cannot be read or prepared raises
    `ReadError` or `PrepareError` with its path.

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
    ) -> None:
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

    @classmethod
    def from_cohort(
        cls,
        dataset: str | os.PathLike[str],
        *,
        split: str = "train",
        path_column: str = "ecg_paths",
        target_column: str | None = None,
        data_dir: str | os.PathLike[str] | None = None,
        preparation: Preparation | None = None,
        reader: str = "auto",
        hints: Hints | None = None,
        storage_options: Mapping[str, object] | None = None,
    ) -> ECGDataset:
        """The recordings of a cohort; `dataset` as in `ecgfounder embed`. Each path of a row is a separate item.

        Parameters
        ----------
        dataset : str or os.PathLike
            Hugging Face dataset (saved folder or Hub name), table, list of paths, folder of ECGs, pattern, or
            one ECG; see `embed_cohort`.
        split : str, default: "train"
            Split of a dataset that has several.
        path_column : str, default: "ecg_paths"
            Column with the paths.
        target_column : str, optional
            Column with numbers, or lists of numbers; None for inputs alone.
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

        Raises
        ------
        CohortError
            If the dataset cannot be opened, a column does not exist, or a target is missing.
        SettingsError
            As `ECGDataset` does.
        """
        from ecgfounder.cohort.sources import default_data_dir, open_cohort

        options = make_options(storage_options)
        cohort = open_cohort(os.fspath(dataset), split=split, path_column=path_column, options=options)
        if target_column is not None:
            cohort.require(target_column, "target_column")
        paths: list[str] = []
        targets: list[Any] = []
        for record, row in cohort.records_with([] if target_column is None else [target_column]):
            if target_column is not None:
                if row[target_column] is None:
                    raise CohortError(
                        f"row {record.row} of {os.fspath(dataset)} has no value in the column '{target_column}': leave "
                        "rows without a target out of the dataset."
                    )
                targets.append(row[target_column])
            paths.append(record.path)
        if data_dir is None and names_archive(os.fspath(dataset)):
            data_dir = default_data_dir(os.fspath(dataset), options)
        return cls(
            paths,
            None if target_column is None else targets,
            preparation=preparation,
            data_dir=data_dir,
            reader=reader,
            hints=hints,
            storage_options=storage_options,
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Any:
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


def collate_cropped(samples: Sequence[Any]) -> Any:
    """Collate a batch, cropping every input at its end to the shortest one's length; for `DataLoader(collate_fn=...)`.

    Nothing is padded, because zeros at the end would change an ECG's features. The normalisation includes the samples
    that are cropped; `Preparation(window=...)` crops before the normalisation.

    Parameters
    ----------
    samples : sequence of Any
        Inputs [..., L], or pairs of an input and a target, as `ECGDataset` gives them.

    Returns
    -------
    Tensor or tuple of (Tensor, list)
        [B, ..., shortest L], or a pair of it and the targets.
    """
    shortest = min(_input_of(sample).shape[-1] for sample in samples)
    cropped = [
        (sample[0][..., :shortest], sample[1]) if isinstance(sample, tuple) else sample[..., :shortest]
        for sample in samples
    ]
    return _pair(default_collate(cropped))


def collate_by_length(samples: Sequence[SampleT]) -> list[Any]:
    """Collate a list of batches, one for each shape of inputs; nothing is cropped or padded.

    Parameters
    ----------
    samples : sequence of SampleT
        Inputs, or pairs of an input and a target, as `ECGDataset` gives them.

    Returns
    -------
    list
        A batch from the default collate function for each shape, in the order in which the shapes first occur.
    """
    groups: dict[tuple[int, ...], list[SampleT]] = {}
    for sample in samples:
        groups.setdefault(tuple(_input_of(sample).shape), []).append(sample)
    return [_pair(default_collate(group)) for group in groups.values()]


def _input_of(sample: Any) -> Tensor:
    return cast(Tensor, sample[0] if isinstance(sample, tuple) else sample)


def _pair(batch: Any) -> Any:
    """The batch with pairs as tuples, as in the dataset; `default_collate` makes lists of them."""
    return tuple(batch) if isinstance(batch, list) else batch
