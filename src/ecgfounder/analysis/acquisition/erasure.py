"""Removing what features know linearly about a concept, with the least change; and as much that is random.

In: features and a concept [n, k] of training recordings. Out: `Eraser`s, affine maps of features.

LEACE (Belrose et al., NeurIPS 2023): with the covariance S of the features, W its inverse square root (on its range) and C the
cross-covariance of features and concept,

    r(x) = x - W⁺ P W (x - mean),    P the orthogonal projection on the columns of W C.

Its cross-covariance with the concept is zero, so that no linear model on it does better than a constant on the training part; of
all affine maps for which that is so, it changes the features least (in the mean square).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from ecgfounder.analysis.statistics.solver import Doubles, Floats, Numbers, blocks

_LEAST_EIGENVALUE = 1e-10
"""Directions with a variance below this part of the largest are outside of the features' range."""

_LEAST_SINGULAR = 1e-8
"""Directions of the concept below this part of its largest are rounding."""

_TILTS = 60
_STEEPEST = 30.0


@dataclass(frozen=True, eq=False)
class Eraser:
    """The map x - (x - mean) inward outward.

    Attributes
    ----------
    mean : numpy.ndarray
        float64 [d].
    inward, outward : numpy.ndarray
        float64 [d, r] and [r, d], with r the number of removed directions.
    removed : float
        The share of the variance of the training recordings that is removed.
    """

    mean: Doubles
    inward: Doubles
    outward: Doubles
    removed: float

    @property
    def n_directions(self) -> int:
        """The number of removed directions."""
        return int(self.inward.shape[1])

    def features(self, X: Floats) -> Floats:
        """float32 [n, d]: the features without what is removed."""
        found = np.empty(X.shape, np.float32)
        for part in blocks(len(X)):
            found[part] = X[part] - ((X[part] - self.mean) @ self.inward) @ self.outward
        return found


@dataclass(frozen=True, eq=False)
class Erasers:
    """LEACE for a concept, and the removal of as many random directions of equal variance, on the same recordings.

    Attributes
    ----------
    mean : numpy.ndarray
        float64 [d].
    variances, directions : numpy.ndarray
        float64 [m] and [d, m]: the principal variances and directions.
    concept : numpy.ndarray
        float64 [m, r]: the orthonormal directions of the concept where all principal variances are 1. Their variances before
        that, and so what each removes, are the diagonal of a diagonal matrix.
    """

    mean: Doubles
    variances: Doubles
    directions: Doubles
    concept: Doubles

    @classmethod
    def of(cls, X: Floats, Z: Doubles, rows: Numbers) -> Erasers:
        """Those of some rows of features [n, d] and a concept [n, k] without missing values."""
        n, d = len(rows), X.shape[1]
        mean, gram, cross = np.zeros(d), np.zeros((d, d)), np.zeros((d, Z.shape[1]))
        for part in blocks(n):
            mean += X[rows[part]].sum(axis=0, dtype=np.float64)
        mean /= n
        z_mean = Z[rows].mean(axis=0)
        for part in blocks(n):
            centred = X[rows[part]] - mean
            gram += centred.T @ centred
            cross += centred.T @ (Z[rows[part]] - z_mean)
        variances, directions = scipy.linalg.eigh(gram / n, overwrite_a=True, check_finite=False)
        kept = variances > _LEAST_EIGENVALUE * max(variances[-1], 1e-300)
        variances, directions = variances[kept], directions[:, kept]
        whitened = (directions.T @ cross / n) / np.sqrt(variances)[:, None]
        left, sizes, _ = np.linalg.svd(whitened, full_matrices=False)
        basis = left[:, sizes > max(_LEAST_SINGULAR * max(sizes, default=0.0), 1e-14)]
        _, turn = np.linalg.eigh(basis.T @ (basis * variances[:, None]))
        return cls(mean, variances, directions, basis @ turn)

    @property
    def leace(self) -> Eraser:
        """LEACE."""
        return self._eraser(self.concept)

    def random(self, rng: np.random.Generator) -> Eraser:
        """The removal of random directions, as many, each with the variance of one that LEACE removes.

        Where all variances are 1, they are orthogonal to each other and to those that LEACE removes. Of a variance that no
        such direction has, the nearest is taken.
        """
        chosen = np.empty_like(self.concept)
        for number, direction in enumerate(self.concept.T):
            others = np.concatenate([self.concept, chosen[:, :number]], axis=1)
            if others.shape[1] >= len(self.variances):
                return self._eraser(chosen[:, :number])
            wanted = float((direction**2 * self.variances).sum())
            chosen[:, number] = self._random_direction(wanted, others, rng)
        return self._eraser(chosen)

    def _random_direction(self, wanted: float, others: Doubles, rng: np.random.Generator) -> Doubles:
        """A random direction orthogonal to others, tilted to large or small variances until it has the one that is wanted."""
        drawn = rng.standard_normal(len(self.variances))
        logs = np.log(self.variances / self.variances.max())

        def tilted(steepness: float) -> tuple[Doubles, float]:
            exponent = 0.5 * steepness * logs
            direction = drawn * np.exp(exponent - exponent.max())
            for _ in range(2):  # twice, for rounding
                direction = direction - others @ (others.T @ direction)
                direction /= max(float(np.linalg.norm(direction)), 1e-300)
            return direction, float((direction**2 * self.variances).sum())

        low, high = -_STEEPEST, _STEEPEST
        for _ in range(_TILTS):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if tilted(middle)[1] < wanted else (low, middle)
        return tilted(0.5 * (low + high))[0]

    def _eraser(self, basis: Doubles) -> Eraser:
        root = np.sqrt(self.variances)[:, None]
        removed = float((basis**2 * self.variances[:, None]).sum() / max(float(self.variances.sum()), 1e-300))
        return Eraser(self.mean, self.directions @ (basis / root), (self.directions @ (basis * root)).T, removed)
