"""What is kept of a feature map: all of it, its mean over time, the head's probabilities; several at once from one pass.

In: a map [T, 1024] of one network input. Out: an `InputEmbedding`.
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
    """What is kept of one network input, all float32.

    Attributes
    ----------
    embedding : FloatArray
        The map [T, 1024], or its mean over T [1024].
    mean : FloatArray or None
        [1024], the mean over T beside a map [T, 1024]; None where it was not asked for.
    probabilities : FloatArray or None
        [n_classes], each statement's probability by itself; None where they were not asked for.
    """

    embedding: FloatArray
    mean: FloatArray | None = None
    probabilities: FloatArray | None = None

    @property
    def is_finite(self) -> bool:
        """Whether every number that is kept is finite; a map that is not makes its mean so too."""
        return bool(
            np.isfinite(self.embedding).all() and (self.probabilities is None or np.isfinite(self.probabilities).all())
        )


def pooling_of(pooling: str, head: Head | None = None) -> Callable[[FloatArray], InputEmbedding]:
    """What is kept of a map, as a function of it: `pooling` is "none", "mean" or "both"; a head adds its probabilities."""

    def keep(feature_map: FloatArray) -> InputEmbedding:
        probabilities = None if head is None else head.probabilities(feature_map[None])[0]
        if pooling == "mean":
            return InputEmbedding(pooled(feature_map), None, probabilities)
        return InputEmbedding(feature_map, pooled(feature_map) if pooling == "both" else None, probabilities)

    return keep


def diagnostic_head(head: Head | None, mode: str) -> Head:
    """The checkpoint's head if it is the published one, whose classes have names.

    Raises
    ------
    CheckpointError
        If there is none, or it has another number of classes.
    """
    expected = len(spec_of(mode).labels())
    if head is None or head.n_classes != expected:
        found = "has no head" if head is None else f"has a head of {head.n_classes} classes"
        raise CheckpointError(
            f"predictions=True needs the {expected}-label head of the published checkpoints, and this one {found}. "
            "Use the published checkpoint, or leave predictions=True out."
        )
    return head
