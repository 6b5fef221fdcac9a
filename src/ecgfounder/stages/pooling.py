"""Pooling of a feature map: the whole feature map, its mean over time, the head's probabilities, or several of these.

In: a feature map [T, 1024] of one input. Out: an `InputEmbedding`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ecgfounder.errors import CheckpointError
from ecgfounder.network.bundles import spec_of
from ecgfounder.network.head import Head, pooled

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


def diagnostic_head(head: Head | None, mode: str) -> Head:
    """The checkpoint's head, if it is the published one with named classes.

    Raises
    ------
    CheckpointError
        If there is no head, or it has another number of classes.
    """
    expected = len(spec_of(mode).labels())
    if head is None or head.n_classes != expected:
        found = "has no head" if head is None else f"has a head of {head.n_classes} classes"
        raise CheckpointError(
            f"predictions=True needs the {expected}-label head of the published checkpoints, and this one {found}. "
            "Use the published checkpoint, or leave predictions=True out."
        )
    return head
