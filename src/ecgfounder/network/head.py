"""The mean of a feature map, and the predictions and labels of the checkpoint's head, in NumPy.

In: feature maps [B, T, 1024]. Out: their mean over T, logits, probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ecgfounder.network.bundles import N_STATEMENTS, published_labels

FloatArray = npt.NDArray[np.float32]

LIKELY = 0.5
"""Minimum probability of a statement to count as a finding."""

PLACE_COLUMNS = ("record", "window_start", "lead")
"""The columns of a table of predictions that say whose they are; the others are named by labels."""


def pooled(feature_map: FloatArray) -> FloatArray:
    """The mean over T of a feature map [..., T, 1024], which ECGFounder's own code calls features: [..., 1024]."""
    mean: FloatArray = feature_map.mean(axis=-2, dtype=np.float64).astype(np.float32)
    return mean


@dataclass(frozen=True, eq=False)
class Head:
    """The linear layer that makes predictions from the mean over time of a feature map.

    Attributes
    ----------
    weight : numpy.ndarray
        float32 [n_classes, 1024].
    bias : numpy.ndarray
        float32 [n_classes].
    labels : tuple of str or None
        The checkpoint's own names of the classes, as a fine-tuned one has them; None if it has none.
    """

    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    labels: tuple[str, ...] | None = None

    @property
    def n_classes(self) -> int:
        return int(self.weight.shape[0])

    def logits(self, feature_map: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Logits [B, n_classes] of feature maps [B, T, 1024]."""
        # One row at a time, because a matrix product of B rows may round a row differently for different B.
        logits = np.empty((len(feature_map), self.n_classes), np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # the caller decides about what is not finite
            for row, features in enumerate(feature_map.mean(axis=1, dtype=np.float32)):
                logits[row] = self.weight @ features + self.bias
        return logits

    def probabilities(self, feature_map: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Independent probabilities of the statements (sigmoid), [B, n_classes], of feature maps [B, T, 1024]."""
        # 1 / (1 + exp(-x)) written so that no exponential overflows
        probabilities: npt.NDArray[np.float32] = np.float32(0.5) * (1 + np.tanh(self.logits(feature_map) / 2))
        return probabilities


def labels_of(head: Head | None) -> tuple[str, ...] | None:
    """Names of the head's classes: the checkpoint's own, or the published 150 statements if it has as many; None if unknown."""
    if head is None or head.labels is not None:
        return None if head is None else head.labels
    return published_labels() if head.n_classes == N_STATEMENTS else None
