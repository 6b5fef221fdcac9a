"""The mean of a feature map, and the predictions of the checkpoint's head, in NumPy.

In: feature maps [B, T, 1024]. Out: their mean over T, logits, probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


def pooled(feature_map: FloatArray) -> FloatArray:
    """The mean over T of a feature map [T, 1024], which ECGFounder's own code calls features: [1024]."""
    mean: FloatArray = feature_map.mean(axis=0, dtype=np.float64).astype(np.float32)
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
    """

    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]

    @property
    def n_classes(self) -> int:
        return int(self.weight.shape[0])

    def logits(self, feature_map: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Logits [B, n_classes] of feature maps [B, T, 1024]."""
        # One row at a time, because a matrix product of B rows may round a row differently for different B.
        logits = np.empty((len(feature_map), self.n_classes), np.float32)
        for row, features in enumerate(feature_map.mean(axis=1, dtype=np.float32)):
            logits[row] = self.weight @ features + self.bias
        return logits

    def probabilities(self, feature_map: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Independent probabilities of the statements (sigmoid), [B, n_classes], of feature maps [B, T, 1024]."""
        # 1 / (1 + exp(-x)) written so that no exponential overflows
        probabilities: npt.NDArray[np.float32] = np.float32(0.5) * (1 + np.tanh(self.logits(feature_map) / 2))
        return probabilities
