"""Pooling of a feature map: the whole feature map, its mean over time, the head's probabilities, or several of these.

In: a feature map [T, 1024] of one input. Out: an `InputEmbedding`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ecgfounder.errors import CheckpointError
from ecgfounder.network.bundles import N_STATEMENTS
from ecgfounder.network.head import PLACE_COLUMNS, Head, labels_of, pooled
from ecgfounder.network.named_head import read_head

FloatArray = npt.NDArray[np.float32]

POOLING_CHOICES = ("none", "mean", "both")


@dataclass(frozen=True)
class InputEmbedding:
    """The embedding of one input, all float32.

    Attributes
    ----------
    embedding : FloatArray
        The feature map [T, 1024], or its mean over T [1024].
    mean : FloatArray or None
        [1024], the mean over T in addition to the feature map; None if not requested.
    probabilities : FloatArray or None
        [n_classes], independent probabilities of the statements; None if not requested.
    """

    embedding: FloatArray
    mean: FloatArray | None = None
    probabilities: FloatArray | None = None

    @property
    def is_finite(self) -> bool:
        """Whether all numbers are finite; the mean of a feature map that is not finite is not finite either."""
        return bool(
            np.isfinite(self.embedding).all() and (self.probabilities is None or np.isfinite(self.probabilities).all())
        )


def pooling_of(pooling: str, head: Head | None = None) -> Callable[[FloatArray], InputEmbedding]:
    """A function from a feature map to an embedding: `pooling` is "none", "mean" or "both"; a head adds its probabilities."""

    def keep(feature_map: FloatArray) -> InputEmbedding:
        probabilities = None if head is None else head.probabilities(feature_map[None])[0]
        if pooling == "mean":
            return InputEmbedding(pooled(feature_map), None, probabilities)
        return InputEmbedding(feature_map, pooled(feature_map) if pooling == "both" else None, probabilities)

    return keep


def chosen_head(predictions: bool | str | Head, own: Head | None) -> Head | None:
    """The head for predictions: none, the checkpoint's own, that of a probe's file, or one that was read already.

    Raises
    ------
    CheckpointError
        As `diagnostic_head` and `read_head` do.
    """
    if not predictions:
        return None
    if isinstance(predictions, str):
        predictions = read_head(predictions).head
    return diagnostic_head(predictions if isinstance(predictions, Head) else own)


def only_mean(pooling: str, head: Head | None) -> bool:
    """Whether `pooling_of` makes nothing but the mean, so that the feature map is not needed."""
    return pooling == "mean" and head is None


def diagnostic_head(head: Head | None) -> Head:
    """The checkpoint's head, if the names of its classes are known: the published one, or one with labels of its own.

    Raises
    ------
    CheckpointError
        If there is no head, it has another number of classes and no labels, or a label is the name of another column.
    """
    if head is None or labels_of(head) is None:
        found = "has no head" if head is None else f"has a head of {head.n_classes} classes without names"
        raise CheckpointError(
            f"predictions=True needs the {N_STATEMENTS}-label head of the published checkpoints, or one with a list of distinct "
            f"names under 'labels', and this one {found}. Use such a checkpoint, or leave predictions=True out."
        )
    taken = [name for name in PLACE_COLUMNS if name in (head.labels or ())]
    if taken:
        raise CheckpointError(
            f"predictions: the checkpoint or probe names a class {taken[0]!r}, as a column of the table that says whose "
            "predictions they are. Give the class another name."
        )
    return head
