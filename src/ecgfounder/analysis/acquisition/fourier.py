"""Random Fourier features: an explicit map whose scalar products approximate a Gaussian kernel.

In: features [n, d]. Out: features [n, 2 m], for linear methods that then see what is not linear.

With frequencies w drawn from a normal distribution of variance 1 / s², the mean of cos(w . (x - y)) is the kernel
exp(-|x - y|² / (2 s²)) (Rahimi and Recht, NeurIPS 2007). Features are standardised first; s is the median distance of two
recordings.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ecgfounder.analysis.statistics.solver import Floats, Numbers, blocks

_FOR_MEDIAN = 1000
"""Recordings of which the median distance is taken."""


@dataclass(frozen=True, eq=False)
class Fourier:
    """A map to random Fourier features.

    Attributes
    ----------
    centre : numpy.ndarray
        float32 [d]: what is subtracted first.
    frequencies : numpy.ndarray
        float32 [d, m]: the frequencies, divided by the standard deviation of each feature.
    """

    centre: Floats
    frequencies: Floats

    @classmethod
    def of(cls, X: Floats, rows: Numbers, n_frequencies: int, rng: np.random.Generator) -> Fourier:
        """A map for some rows of `X`, from which scale and bandwidth are taken."""
        mean, scale = standard(X, rows)
        some = rows if len(rows) <= _FOR_MEDIAN else np.sort(rng.choice(rows, _FOR_MEDIAN, replace=False))
        values = (X[some] - mean) / scale
        squares = np.einsum("nd,nd->n", values, values, dtype=np.float64)
        apart = squares[:, None] + squares[None, :] - 2.0 * (values @ values.T)
        pairs = apart[np.triu_indices(len(some), 1)]
        squared = float(np.median(pairs)) if len(pairs) else 0.0
        width = np.sqrt(squared) if squared > 0 else 1.0
        frequencies = rng.standard_normal((X.shape[1], n_frequencies)) / width
        return cls(mean, (frequencies / scale[:, None]).astype(np.float32))

    def features(self, X: Floats) -> Floats:
        """float32 [n, 2 m]: cosines, then sines, with a mean square of 1 / (2 m) each."""
        m = self.frequencies.shape[1]
        found = np.empty((len(X), 2 * m), np.float32)
        for part in blocks(len(X)):
            phases = (X[part] - self.centre) @ self.frequencies
            found[part, :m], found[part, m:] = np.cos(phases), np.sin(phases)
        found *= np.float32(1 / np.sqrt(m))
        return found


def standard(X: Floats, rows: Numbers) -> tuple[Floats, Floats]:
    """Mean and standard deviation of each feature over some rows, float32 [d]; 1 for a feature that does not vary."""
    total, squares = np.zeros(X.shape[1]), np.zeros(X.shape[1])
    for part in blocks(len(rows)):
        total += X[rows[part]].sum(axis=0, dtype=np.float64)
    mean = (total / len(rows)).astype(np.float32)
    for part in blocks(len(rows)):
        squares += ((X[rows[part]] - mean).astype(np.float64) ** 2).sum(axis=0)
    deviation = np.sqrt(squares / len(rows))
    varies = deviation > 1e-7 * np.maximum(np.abs(mean), np.finfo(np.float32).tiny)
    return mean, np.where(varies, deviation, 1.0).astype(np.float32)
