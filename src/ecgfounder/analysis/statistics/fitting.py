"""Fitting one split: scaling, penalty, model and thresholds, from its training part (and validation part) alone.

In: features, labels, patients and a split. Out: a `Fitted` with the models and all that was chosen. No function here reads the
features or labels of the test part.

The penalty of each label is the one with the smallest mean log loss (for numbers: mean squared error; for times: the largest
cross-validated partial likelihood) over the inner folds, or on
the validation part. A threshold is chosen on the validation part, or in each inner fold by the model of that fold; then their
mean is taken, on the logit scale. Scores of models of different folds are never put together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ecgfounder.analysis.statistics.cox import Baseline, by_time, fit_cox, partial_loss
from ecgfounder.analysis.statistics.metrics import f_max_threshold, sensitivity_threshold, youden_threshold
from ecgfounder.analysis.statistics.solver import (
    ROUGH,
    TOLERANCE,
    Basis,
    Doubles,
    Floats,
    Numbers,
    Weights,
    fit_logistic,
    fit_ridge,
)
from ecgfounder.analysis.statistics.splits import Split, grouped_folds
from ecgfounder.analysis.statistics.windows import Windows, means_of
from ecgfounder.errors import SettingsError

PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""The grid of the inverse penalty C, for standardised features; see `solver`."""

INNER_FOLDS = 3

BINARY, NUMBER, TIME = "binary", "number", "time"
"""Kinds of labels: 0 and 1; numbers; times to an event, as signed times (`ecgfounder.analysis.statistics.cox`)."""

MAIN_METRICS = {BINARY: "auroc", NUMBER: "r2", TIME: "uno_c"}
"""The metric by which features are compared, by the kind of the labels."""


@dataclass(frozen=True)
class Task:
    """What is predicted.

    Attributes
    ----------
    labels : tuple of str
        The names of the labels.
    kind : str
        `BINARY` (logistic regression), `NUMBER` (ridge regression) or `TIME` (Cox regression of one signed time).
    sensitivity : float
        The sensitivity that the threshold of that name is chosen for.
    penalties : tuple of float
        The grid of inverse penalties.
    inner_folds : int
        Grouped folds of the training part, where there is no validation part.
    horizons : tuple of float
        For times, those up to which risks are predicted, in ascending order.
    interval : float or None
        For numbers, the level of prediction intervals.
    """

    labels: tuple[str, ...]
    kind: str = BINARY
    sensitivity: float = 0.9
    penalties: tuple[float, ...] = PENALTIES
    inner_folds: int = INNER_FOLDS
    horizons: tuple[float, ...] = ()
    interval: float | None = None

    @property
    def metric(self) -> str:
        """The metric by which features are compared."""
        return MAIN_METRICS[self.kind]

    def strata(self, Y: Floats) -> Floats:
        """What is equally frequent in all inner folds."""
        return (Y > 0).astype(np.float32) if self.kind == TIME else Y

    @property
    def sensitivity_name(self) -> str:
        return f"sensitivity={self.sensitivity:g}"

    def thresholds(self, y: npt.NDArray[np.bool_], scores: Doubles) -> dict[str, float]:
        """The thresholds for these scores, by name."""
        return {
            "youden": youden_threshold(y, scores),
            self.sensitivity_name: sensitivity_threshold(y, scores, self.sensitivity),
            "fmax": f_max_threshold(y, scores),
        }


@dataclass(frozen=True, eq=False)
class Held:
    """Scores of held-out recordings: of the validation part, or of the inner folds by the models of the others.

    Attributes
    ----------
    rows : numpy.ndarray
        int64 [m]: the recordings.
    scores : numpy.ndarray
        float64 [m, n_labels], with the penalty that was chosen.
    part : numpy.ndarray
        int64 [m]: the number of the inner fold; 0 for the validation part.
    """

    rows: Numbers
    scores: Doubles
    part: Numbers


@dataclass(frozen=True, eq=False)
class Fitted:
    """The models of one split.

    Attributes
    ----------
    weights : Weights
        A model per label.
    C : tuple of float
        The inverse penalty of each.
    thresholds : tuple of mapping of str to float
        The thresholds of each, by name, as logits; empty for numbers and times.
    baseline : Baseline or None
        By which a score becomes a risk, for times.
    held : Held or None
        Scores of held-out recordings; None for times.
    """

    weights: Weights
    C: tuple[float, ...]
    thresholds: tuple[Mapping[str, float], ...]
    baseline: Baseline | None = None
    held: Held | None = None


def fit_split(X: Floats | Windows, Y: Floats, groups: Numbers, split: Split, task: Task, seed: int) -> Fitted:
    """Fit the models of one split.

    Parameters
    ----------
    X : numpy.ndarray or Windows
        float32 [n, d]: the features of all recordings; only rows of the training and the validation part are read. Windows:
        the models are fitted to windows, each of which counts as a part of its recording, and score recordings.
    Y : numpy.ndarray
        float32 [n, n_labels]; NaN where unknown.
    groups : numpy.ndarray
        int64 [n]: the patient of each recording.
    split : Split
        The rows.
    task : Task
        What is predicted.
    seed : int
        Seed of the inner folds.
    """
    if task.kind == TIME:
        return _fit_times(X, Y[:, 0], groups, split, task, seed)
    every = [task.penalties] * len(task.labels)
    own = None if task.kind == NUMBER else _basis(X, Y, split.train)
    if split.validation is not None:
        models = _fit(X, Y, split.train, every, task, own, rough=True)
        held = [_Held(split.validation, Y[split.validation], models.scores(means_of(X[split.validation])), task)]
    else:
        fold = _inner_folds(Y, groups, split, task, seed)
        rotation = own[0].rotation if own is not None and own[0].is_full else None
        held = []
        for each in range(task.inner_folds):
            inside, outside = split.train[fold != each], split.train[fold == each]
            basis = None if task.kind == NUMBER else _basis(X, Y, inside, rotation, exact=False)
            models = _fit(X, Y, inside, every, task, basis, rough=True)
            held.append(_Held(outside, Y[outside], models.scores(means_of(X[outside])), task))
    chosen = _best(held)
    weights = _fit(X, Y, split.train, [(task.penalties[best],) for best in chosen], task, own)
    thresholds = tuple(
        {} if task.kind == NUMBER else _mean_thresholds([part.thresholds(label, best) for part in held])
        for label, best in enumerate(chosen)
    )
    places = [label * len(task.penalties) + best for label, best in enumerate(chosen)]
    kept = Held(
        np.concatenate([part.rows for part in held]),
        np.concatenate([part.scores[:, places] for part in held]),
        np.repeat(np.arange(len(held)), [len(part.rows) for part in held]),
    )
    return Fitted(weights, tuple(task.penalties[best] for best in chosen), thresholds, held=kept)


def _inner_folds(Y: Floats, groups: Numbers, split: Split, task: Task, seed: int) -> Numbers:
    """The inner fold of each row of the training part."""
    _, patients = np.unique(groups[split.train], return_inverse=True)
    strata = task.strata(Y[split.train])
    return grouped_folds(patients, strata, task.inner_folds, np.random.default_rng([seed, 1]))


def _fit_times(X: Floats | Windows, y: Floats, groups: Numbers, split: Split, task: Task, seed: int) -> Fitted:
    """The Cox regression of one split.

    The penalty is the one with the largest cross-validated partial likelihood (Verweij and van Houwelingen 1993): what held-out
    recordings add to the partial likelihood of the others.
    """
    if isinstance(X, Windows):
        raise SettingsError(
            "combine='logit' fits windows, of which a time to an event has one in a recording: use 'mean'"
        )
    if split.validation is not None:
        parts = [(split.train, np.union1d(split.train, split.validation))]
    else:
        fold = _inner_folds(y[:, None], groups, split, task, seed)
        parts = [(split.train[fold != each], split.train) for each in range(task.inner_folds)]
    rotation = None
    losses = np.zeros(len(task.penalties))
    own = _time_basis(X, y, split.train)
    if own[0].is_full:
        rotation = own[0].rotation
    for inside, every in parts:
        basis, ordered = own if len(inside) == len(split.train) else _time_basis(X, y, inside, rotation)
        scores = fit_cox(basis, ordered, task.penalties, ROUGH).scores(X[every])
        losses += partial_loss(y[every], scores) - partial_loss(y[inside], scores[np.isin(every, inside)])
    chosen = task.penalties[int(np.argmin(losses))]
    weights = fit_cox(*own, (chosen,))
    baseline = Baseline.of(y[split.train], weights.scores(X[split.train])[:, 0])
    return Fitted(weights, (chosen,), ({},), baseline)


def _time_basis(X: Floats, y: Floats, rows: Numbers, rotation: Doubles | None = None) -> tuple[Basis, Floats]:
    """The basis of some recordings in the order of their times, and their signed times."""
    rows = rows[by_time(y[rows])]
    return Basis.of(X, rows, rotation=rotation, exact=rotation is None), y[rows]


def _fit(
    X: Floats | Windows,
    Y: Floats,
    rows: Numbers,
    C: Sequence[Sequence[float]],
    task: Task,
    own: tuple[Basis, Floats] | None,
    *,
    rough: bool = False,
) -> Weights:
    """The models of some recordings; `own` is their basis with their labels, for labels that are not numbers."""
    if own is not None:
        return fit_logistic(*own, C, ROUGH if rough else TOLERANCE)
    models = []
    for label, penalties in enumerate(C):
        basis, y = _basis(X, Y[:, label], rows[np.isfinite(Y[rows, label])])
        models.append(fit_ridge(basis, y.astype(np.float64), penalties))
    return Weights(
        np.concatenate([each.weight for each in models], axis=1), np.concatenate([each.bias for each in models])
    )


def _basis(
    X: Floats | Windows, Y: Floats, rows: Numbers, rotation: Doubles | None = None, *, exact: bool = True
) -> tuple[Basis, Floats]:
    """The basis of some recordings, and their labels; with a row for each window."""
    if not isinstance(X, Windows):
        return Basis.of(X, rows, rotation=rotation, exact=exact), Y[rows]
    inside = X[rows]
    basis = Basis.of(inside.X, row_weights=inside.weights, rotation=rotation, exact=exact)
    return basis, Y[rows][inside.owner]


@dataclass(frozen=True, eq=False)
class _Held:
    """Held-out recordings, their labels, and their scores [n, labels x penalties]."""

    rows: Numbers
    Y: Floats
    scores: Doubles
    task: Task

    def losses(self) -> Doubles:
        """The mean loss of each label and penalty; NaN for a label without a recording."""
        n_penalties = len(self.task.penalties)
        losses = np.full((len(self.task.labels), n_penalties), np.nan)
        for label in range(len(self.task.labels)):
            known = np.isfinite(self.Y[:, label])
            if known.any():
                y = self.Y[known, label][:, None].astype(np.float64)
                scores = self.scores[known, label * n_penalties : (label + 1) * n_penalties]
                each = (y - scores) ** 2 if self.task.kind == NUMBER else np.logaddexp(0, scores) - y * scores
                losses[label] = each.mean(axis=0)
        return losses

    def thresholds(self, label: int, penalty: int) -> dict[str, float] | None:
        """The thresholds of one model; None where a class is missing."""
        known = np.isfinite(self.Y[:, label])
        y = self.Y[known, label] > 0.5
        if not y.any() or y.all():
            return None
        return self.task.thresholds(y, self.scores[known, label * len(self.task.penalties) + penalty])


def _best(held: Sequence[_Held]) -> list[int]:
    """The penalty of each label with the smallest mean loss."""
    losses = np.stack([part.losses() for part in held])
    known = np.isfinite(losses)
    mean = np.where(known, losses, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return [int(np.argmin(of_label)) for of_label in mean]


def _mean_thresholds(found: Sequence[dict[str, float] | None]) -> dict[str, float]:
    given = [each for each in found if each is not None]
    return {name: float(np.mean([each[name] for each in given])) for name in given[0]} if given else {}
