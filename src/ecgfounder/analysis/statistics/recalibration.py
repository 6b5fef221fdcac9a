"""What held-out recordings of the training part say about a fitted model: recalibration, and prediction intervals.

In: `Held` scores of a fitted model. Out: an intercept and slope by which logits are recalibrated; how far predicted numbers may
be from true ones.

Held-out recordings are those of the validation part, or of the inner folds, whose scores are those of the models that were
trained without them. The test part has no part in it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ecgfounder.analysis.statistics.fitting import Held
from ecgfounder.analysis.statistics.metrics import recalibrated
from ecgfounder.analysis.statistics.solver import Doubles, Floats, Numbers

FEWEST_IN_BAND = 30
"""Patients of a band with intervals of its own; those of smaller bands are those of all."""


def recalibration(held: Held, Y: Floats) -> list[tuple[float, float]]:
    """Intercept and slope of each label: the means of those of the inner folds, or that of the validation part.

    Where there is no such slope, or it is not positive, the slope is 1 and the intercept alone is fitted; without both classes
    nothing is.
    """
    found = []
    for label in range(held.scores.shape[1]):
        lines = []
        for part in np.unique(held.part):
            rows = held.part == part
            y, scores = Y[held.rows[rows], label], held.scores[rows, label]
            known = np.isfinite(y)
            line = _line(y[known] > 0.5, scores[known])
            if line is not None:
                lines.append(line)
        means = np.mean(lines, axis=0) if lines else (0.0, 1.0)
        found.append((float(means[0]), float(means[1])))
    return found


def _line(y: npt.NDArray[np.bool_], scores: Doubles) -> tuple[float, float] | None:
    intercept, slope = recalibrated(y, scores, with_slope=True)
    if not slope > 0:
        intercept, slope = recalibrated(y, scores, with_slope=False)
    return (intercept, slope) if np.isfinite(intercept) else None


def reaches(held: Held, Y: Floats, groups: Numbers, bands: Numbers, level: float) -> list[dict[int, float]]:
    """How far a number may be from its prediction, for each label: by band, and for all (-1).

    Split conformal prediction (Vovk et al. 2005), by band if there are any (Mondrian). Each patient counts once, divided among
    the recordings; the quantile is that of one patient more than there are, who may be anywhere: infinite of so few patients that
    none of them need be as far. Then a band has that of all.

    Parameters
    ----------
    held : Held
        Predictions of held-out recordings.
    Y : numpy.ndarray
        float32 [n, n_labels].
    groups, bands : numpy.ndarray
        int64 [n]: the patient of each recording, and its band, or -1.
    level : float
        The share of patients whose number shall be within.
    """
    found = []
    for label in range(held.scores.shape[1]):
        errors = np.abs(Y[held.rows, label] - held.scores[:, label])
        known = np.isfinite(errors)
        rows, errors = held.rows[known], errors[known]
        own = {-1: _quantile(errors, groups[rows], level)}
        for band in np.unique(bands[rows]):
            inside = bands[rows] == band
            if band >= 0 and len(np.unique(groups[rows[inside]])) >= FEWEST_IN_BAND:
                quantile = _quantile(errors[inside], groups[rows[inside]], level)
                if np.isfinite(quantile):
                    own[int(band)] = quantile
        found.append(own)
    return found


def _quantile(errors: Doubles, patients: Numbers, level: float) -> float:
    _, number, counts = np.unique(patients, return_inverse=True, return_counts=True)
    weights = 1.0 / counts[number]
    order = np.argsort(errors, kind="stable")
    up_to = np.cumsum(weights[order])
    place = int(np.searchsorted(up_to, level * (len(counts) + 1) - 1e-9))
    return float(errors[order[place]]) if place < len(errors) else float("inf")


def reach_of(own: Sequence[dict[int, float]], bands: Numbers) -> Doubles:
    """The reach of each recording and label, float64 [n, n_labels], by its band; NaN for an infinite one."""
    found = np.stack([np.array([each.get(int(band), each[-1]) for band in bands]) for each in own], axis=1)
    return np.where(np.isfinite(found), found, np.nan)
