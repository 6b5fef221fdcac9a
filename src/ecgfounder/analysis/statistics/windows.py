"""Embeddings of the windows (or leads) of recordings, for models that are fitted to windows and score recordings.

In: an embedding per window, and its recording. Out: `Windows`, which is used like an array with a row per recording.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ecgfounder.analysis.statistics.solver import Doubles, Floats, Numbers


@dataclass(frozen=True, eq=False)
class Windows:
    """The windows of some recordings; `len` and indexing are by recording.

    Attributes
    ----------
    X : numpy.ndarray
        float32 [n_windows, d].
    owner : numpy.ndarray
        int64 [n_windows], ascending: the recording of each window, from 0 to n - 1 without gaps.
    """

    X: Floats
    owner: Numbers

    @classmethod
    def of(cls, X: Floats, owner: Numbers) -> Windows:
        """The windows in the order of their recordings."""
        order = np.argsort(owner, kind="stable")
        return cls(X[order], owner[order])

    @cached_property
    def _starts(self) -> Numbers:
        """int64 [n + 1]: where the windows of each recording begin."""
        return np.concatenate([[0], np.cumsum(np.bincount(self.owner))])

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, recordings: Numbers) -> Windows:
        counts = np.diff(self._starts)[recordings]
        owner = np.repeat(np.arange(len(recordings)), counts)
        within = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
        return Windows(self.X[np.repeat(self._starts[recordings], counts) + within], owner)

    @cached_property
    def weights(self) -> Doubles:
        """float64 [n_windows]: 1 divided by the number of windows of the recording, so that each recording weighs 1."""
        return 1.0 / np.diff(self._starts)[self.owner]

    @cached_property
    def means(self) -> Floats:
        """float32 [n, d]: the mean embedding of each recording."""
        sums = np.add.reduceat(self.X, self._starts[:-1], axis=0, dtype=np.float64)
        return np.asarray(sums / np.diff(self._starts)[:, None], dtype=np.float32)


def means_of(features: Floats | Windows) -> Floats:
    """The features of each recording; a linear model's mean of the logits of windows is the logit of their mean."""
    return features.means if isinstance(features, Windows) else features


def with_columns(features: Floats | Windows, columns: npt.NDArray[np.float32]) -> Floats | Windows:
    """Features with further columns, which hold a value for each recording."""
    if isinstance(features, Windows):
        return Windows(np.concatenate([features.X, columns[features.owner]], axis=1), features.owner)
    return np.concatenate([features, columns], axis=1)
