"""The space in which recordings are compared: embeddings minus the cohort's mean, perhaps whitened, with length 1.

In: a sample of embeddings. Out: a `Space`; the product of two of its unit vectors is the similarity of two recordings.

Embeddings of one network share most of their direction, so that cosines of the vectors themselves are all near 1. Without their
mean they use the whole range. Whitening divides each principal direction by its deviation: directions in which recordings
differ little count as much as others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ecgfounder.errors import RunError

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]

SAMPLE = 20_000
"""Recordings from which a space is made; of more, a sample that is spread evenly over the run."""

_NO_SPREAD = 1e-6
"""Directions with less than this share of the largest deviation are left out by whitening: rounding decides there."""

_SHORTEST = 1e-12
_NOT_FINITE = "there are embeddings with numbers that are not finite, or too large, so that they cannot be compared"


@dataclass(frozen=True, eq=False)
class Space:
    """A centre and, if it is whitened, axes.

    Attributes
    ----------
    centre : numpy.ndarray
        float64 [d].
    axes : numpy.ndarray or None
        float64 [d, r]: whitened directions; None without whitening.
    """

    centre: Doubles
    axes: Doubles | None = None

    @classmethod
    def of(cls, sample: Floats, *, whiten: bool = False) -> Space:
        """The space of a sample float32 [n, d].

        Raises
        ------
        RunError
            If there are fewer than two recordings, or none differs from another, or a number is not finite.
        """
        values = sample.astype(np.float64)
        if not np.isfinite(values).all():
            raise RunError(_NOT_FINITE)
        if len(values) < 2 or not np.ptp(values, axis=0).any():
            raise RunError("expected at least two recordings with different embeddings")
        centre = values.mean(axis=0)
        if not whiten:
            return cls(centre)
        values -= centre
        variances, directions = np.linalg.eigh(values.T @ values / len(values))
        kept = variances > _NO_SPREAD**2 * variances[-1]
        return cls(centre, np.ascontiguousarray(directions[:, kept] / np.sqrt(variances[kept])))

    @property
    def width(self) -> int:
        """Numbers of a unit vector."""
        return len(self.centre) if self.axes is None else self.axes.shape[1]

    def units(self, vectors: npt.NDArray[np.floating]) -> Floats:
        """Unit vectors float32 [n, r] of embeddings [n, d]; zeros for the centre itself."""
        units, _ = self.units_and_lengths(vectors)
        return units

    def units_and_lengths(self, vectors: npt.NDArray[np.floating]) -> tuple[Floats, Floats]:
        """Unit vectors float32 [n, r], and float32 [n]: their lengths before; refuses vectors without one."""
        moved = vectors - self.centre.astype(np.float32)
        if self.axes is not None:
            moved = moved @ self.axes.astype(np.float32)
        units = np.asarray(moved, dtype=np.float32)
        lengths = np.sqrt(np.einsum("nd,nd->n", units, units))
        if not np.isfinite(lengths).all():
            raise RunError(_NOT_FINITE)
        units /= np.maximum(lengths, _SHORTEST)[:, None]
        return units, lengths

    def product_with(self, units: Floats) -> tuple[Floats, Floats]:
        """What gives the similarity of unit vectors to embeddings x: (x . v - c) / length; v float32 [q, d] and c [q]."""
        wide = units.astype(np.float64)
        if self.axes is not None:
            wide = wide @ self.axes.T
        return wide.astype(np.float32), (wide @ self.centre).astype(np.float32)
