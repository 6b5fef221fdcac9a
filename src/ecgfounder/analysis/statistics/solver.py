"""Linear models for many labels and penalties at once.

In: features [n, d] of the training recordings, labels [n, n_labels] with NaN where a label is unknown, and penalties.
Out: `Weights` in the units of the features.

All labels and penalties are columns of one matrix product. The columns are solved together by L-BFGS with a limited memory
(Nocedal and Wright 2006, algorithm 7.4). The features are standardised and rotated into the eigenbasis of their Gram matrix, in
which the Hessian of the loss is nearly diagonal, so that a diagonal preconditioner fits every column. The loss is that of
scikit-learn's `LogisticRegression(C=C)`: the sum over recordings of the logistic loss plus |w|² / (2 C), without a penalty on
the intercept; that of `Ridge(alpha=1 / C)` for numbers. A recording without a label has no part in that label's loss.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.linalg

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
AnyFloats = npt.NDArray[np.floating]
Numbers = npt.NDArray[np.int64]

ROWS_AT_ONCE = 4096

MEMORY = 10
"""Pairs of steps and gradient differences that L-BFGS keeps."""

MOST_ITERATIONS = 500

TOLERANCE: dict[np.dtype[Any], float] = {np.dtype(np.float64): 1e-7, np.dtype(np.float32): 1e-5}
"""Convergence: the distance of the scores from the solution's, in the norm of the Hessian, as a root mean square."""

ROUGH: dict[np.dtype[Any], float] = {np.dtype(np.float64): 1e-4, np.dtype(np.float32): 1e-4}
"""Enough for models by which penalties and thresholds are chosen: a logit is right to about the fourth decimal."""

EXACT_UP_TO = 1 << 24
"""Numbers in the training features up to which the arithmetic is float64; beyond it is float32, with sums in float64."""

_LEAST_EIGENVALUE = 1e-10
"""Directions with a variance below this part of the largest are left out: the features do not vary in them."""

_ENOUGH_DECREASE = 1e-4
_MOST_HALVINGS = 30


@dataclass(frozen=True, eq=False)
class Weights:
    """Linear models: scores are `X @ weight + bias`.

    Attributes
    ----------
    weight : numpy.ndarray
        float64 [d, n_models].
    bias : numpy.ndarray
        float64 [n_models].
    iterations : int
        Iterations of the slowest model; 0 for a closed form.
    converged : bool
        Whether all models reached `TOLERANCE`.
    """

    weight: Doubles
    bias: Doubles
    iterations: int = 0
    converged: bool = True

    def scores(self, X: Floats) -> Doubles:
        """float64 [n, n_models]."""
        out = np.empty((len(X), self.weight.shape[1]))
        for rows in blocks(len(X)):
            out[rows] = X[rows].astype(np.float64) @ self.weight + self.bias
        return out


@dataclass(frozen=True, eq=False)
class Basis:
    """Training features, standardised and rotated into the eigenbasis of their Gram matrix.

    Attributes
    ----------
    rotated : numpy.ndarray
        float64 or float32 (see `EXACT_UP_TO`) [n, r + 1]; the last column is 1, for the intercept.
    variances : numpy.ndarray
        float64 [r + 1]: the mean square of each column.
    row_weights : numpy.ndarray or None
        float64 [n]: how much each row counts; None if all count 1.
    mean, scale : numpy.ndarray
        float64 [d]: what was subtracted, the mean to the precision of `rotated`, and the standard deviation (1 for a feature that
        does not vary).
    rotation : numpy.ndarray
        float64 [d, r].
    """

    rotated: AnyFloats
    variances: Doubles
    mean: Doubles
    scale: Doubles
    rotation: Doubles
    row_weights: Doubles | None = None

    @classmethod
    def of(
        cls,
        X: Floats,
        rows: Numbers | None = None,
        row_weights: Doubles | None = None,
        *,
        rotation: Doubles | None = None,
        exact: bool = True,
    ) -> Basis:
        """The basis of some rows of `X`, of all by default.

        Parameters
        ----------
        X, rows : numpy.ndarray
            float32 [n_all, d]; int64 [n].
        row_weights : numpy.ndarray, optional
            float64 [n]: how much each row counts.
        rotation : numpy.ndarray, optional
            float64 [d, d]: the rotation of similar rows, instead of this one's own, which saves finding it. The Hessian is
            less diagonal then; the solutions of `fit_logistic` are the same, those of `fit_ridge` are not.
        exact : bool
            Whether the arithmetic may be float64.
        """
        rows = np.arange(len(X)) if rows is None else rows
        n, d = len(rows), X.shape[1]
        dtype = np.dtype(np.float64 if exact and n * d <= EXACT_UP_TO else np.float32)
        mean, square, gram = _moments(X, rows, row_weights, dtype, with_gram=rotation is None and n > d)
        centre = mean.astype(dtype)
        deviation = np.sqrt(np.maximum(square, 0))
        varies = deviation > 1e-7 * np.maximum(np.abs(mean), np.finfo(np.float32).tiny)
        scale = np.where(varies, deviation, 1.0)
        if rotation is not None:
            rotation = rotation.copy()
        elif gram is not None:
            gram /= np.outer(scale, scale)
            gram[~varies] = gram[:, ~varies] = 0
            rotation = _eigenvectors(gram)
        else:
            Z = (X[rows] - mean) * (varies / scale)
            Z *= 1.0 if row_weights is None else np.sqrt(row_weights)[:, None]
            rotation = _eigenvectors_of_few(Z)
        rotation[~varies] = 0  # exactly
        rotated = np.ones((n, rotation.shape[1] + 1), dtype)
        turn = (rotation / scale[:, None]).astype(dtype)
        variances = np.zeros(rotation.shape[1])
        for part in blocks(n):
            rotated[part, :-1] = turned = (X[rows[part]] - centre) @ turn
            squares = turned**2 if row_weights is None else turned**2 * row_weights[part, None].astype(dtype)
            variances += squares.sum(axis=0, dtype=np.float64)
        variances /= n if row_weights is None else row_weights.sum()
        return cls(rotated, np.append(variances, 1.0), centre.astype(np.float64), scale, rotation, row_weights)

    @property
    def is_full(self) -> bool:
        """Whether the features vary in all directions."""
        n_features, n_directions = self.rotation.shape
        return bool(n_features == n_directions)

    def weights(self, W: Doubles, iterations: int = 0, converged: bool = True) -> Weights:
        """Models of the rotated features as models of the features."""
        weight = (self.rotation / self.scale[:, None]) @ W[:-1]
        return Weights(weight, W[-1] - self.mean @ weight, iterations, converged)


def _moments(
    X: Floats, rows: Numbers, row_weights: Doubles | None, dtype: np.dtype[Any], *, with_gram: bool
) -> tuple[Doubles, Doubles, Doubles | None]:
    """The mean of each feature, its mean square around that, and the mean of the products of features if asked for."""
    n, d = len(rows), X.shape[1]
    total = np.zeros(d)
    for part in blocks(n):
        if row_weights is None:
            total += X[rows[part]].sum(axis=0, dtype=np.float64)
        else:
            total += row_weights[part] @ X[rows[part]]
    counts = float(n) if row_weights is None else float(row_weights.sum())
    mean = total / counts
    centre = mean.astype(dtype)
    shift = mean - centre  # of the rounding of the mean
    gram = np.zeros((d, d)) if with_gram else None
    square = np.zeros(d)
    for part in blocks(n):
        centred = X[rows[part]] - centre
        counted = centred if row_weights is None else centred * row_weights[part, None].astype(dtype)
        if gram is None:
            square += (counted * centred).sum(axis=0, dtype=np.float64)
        else:
            gram += counted.T @ centred
    if gram is None:
        return mean, square / counts - shift**2, None
    gram = gram / counts - np.outer(shift, shift)
    return mean, np.diag(gram).copy(), gram


def _eigenvectors(gram: Doubles) -> Doubles:
    """The directions in which features vary, from the mean of their products."""
    values, vectors = scipy.linalg.eigh(gram, overwrite_a=True, check_finite=False)
    kept = values > _LEAST_EIGENVALUE * max(values[-1], 1e-300)
    return np.ascontiguousarray(vectors[:, kept])


def _eigenvectors_of_few(Z: Doubles) -> Doubles:
    """The same from the recordings themselves, of which there are at most as many as features."""
    values, vectors = scipy.linalg.eigh(Z @ Z.T, overwrite_a=True, check_finite=False)
    kept = values > _LEAST_EIGENVALUE * max(values[-1], 1e-300)
    return np.asarray(Z.T @ (vectors[:, kept] / np.sqrt(values[kept])))


def blocks(n: int) -> Iterator[slice]:
    """Slices of `ROWS_AT_ONCE` rows."""
    for first in range(0, n, ROWS_AT_ONCE):
        yield slice(first, min(n, first + ROWS_AT_ONCE))


def fit_logistic(
    basis: Basis, Y: Floats, C: Sequence[Sequence[float]], tolerance: Mapping[np.dtype[Any], float] = TOLERANCE
) -> Weights:
    """Fit logistic regressions for all labels and penalties together.

    Parameters
    ----------
    basis : Basis
        The training features.
    Y : numpy.ndarray
        float32 [n, n_labels]: 0, 1, or NaN where a label is unknown.
    C : sequence of sequence of float
        For each label, its inverse penalties. The models are ordered by label, then by penalty.
    tolerance : mapping of numpy.dtype to float
        `TOLERANCE`, or `ROUGH`.

    Returns
    -------
    Weights
        A model per label and penalty.
    """
    label_of = np.repeat(np.arange(len(C)), [len(each) for each in C])
    penalty = np.array([1.0 / each for of_label in C for each in of_label])
    known = np.isfinite(Y)
    dtype = basis.rotated.dtype
    counted: AnyFloats | None = None if known.all() else known.astype(dtype)
    if basis.row_weights is not None:
        counted = known * basis.row_weights[:, None].astype(dtype)
    problem = _Logistic(basis.rotated, basis.variances, np.where(known, Y, 0).astype(dtype), counted, label_of)
    W, iterations, converged = problem.solve(penalty, tolerance[dtype])
    return basis.weights(W, iterations, converged)


def fit_ridge(basis: Basis, y: Doubles, C: Sequence[float]) -> Weights:
    """Fit ridge regressions of one number with several penalties, in closed form.

    Parameters
    ----------
    basis : Basis
        The features of the recordings whose number is known.
    y : numpy.ndarray
        float64 [n].
    C : sequence of float
        Inverse penalties.
    """
    counts = np.ones(len(y)) if basis.row_weights is None else basis.row_weights
    n = counts.sum()
    mean = counts @ y / n
    moments = basis.rotated[:, :-1].T.astype(np.float64) @ (counts * (y - mean))
    W = np.empty((len(basis.variances), len(C)))
    for column, each in enumerate(C):
        W[:-1, column] = moments / (n * basis.variances[:-1] + 1.0 / each)
    W[-1] = mean - (counts @ basis.rotated[:, :-1].astype(np.float64) / n) @ W[:-1]
    return basis.weights(W)


def sigmoid(scores: AnyFloats) -> AnyFloats:
    """1 / (1 + exp(-scores)), which never overflows."""
    probabilities: AnyFloats = 0.5 * (1 + np.tanh(0.5 * scores))
    return probabilities


@dataclass(frozen=True, eq=False)
class Objective(ABC):
    """A loss of scores `Z @ W`, for several columns of `W` at once, with an L2 penalty on all rows of `W` but the last."""

    Z: AnyFloats
    variances: Doubles

    @abstractmethod
    def start(self, n_columns: int) -> Doubles:
        """float64 [n_columns]: the last row of `W` to start from; the other rows start from 0."""

    @abstractmethod
    def gradient(self, S: AnyFloats, at: Numbers) -> tuple[Doubles, Doubles]:
        """Of the loss without the penalty at scores `S`: the gradient [r + 1, columns], and the sum over rows of its curvature.

        `at` are the numbers of the columns of `S`.
        """

    @abstractmethod
    def loss(self, S: AnyFloats, T: AnyFloats | None, step: Doubles, at: Numbers) -> Doubles:
        """The loss of each column at scores `S + step * T`, without the penalty."""

    def solve(self, penalty: Doubles, tolerance: float) -> tuple[Doubles, int, bool]:
        """The weights [r + 1, columns], the iterations of the slowest column, and whether all converged."""
        n, width = self.Z.shape
        n_columns = len(penalty)
        W = np.zeros((width, n_columns))
        W[-1] = self.start(n_columns)
        penalties = np.zeros((width, n_columns))
        penalties[:-1] = penalty
        solution = W.copy()
        at = np.arange(n_columns)  # the columns that have not converged
        S = np.broadcast_to(W[-1].astype(self.Z.dtype), (n, n_columns)).copy()
        history: list[tuple[Doubles, Doubles, Doubles]] = []
        gradient, curvature = self._gradient(S, at, W, penalties)
        loss = self._loss(S, None, np.zeros(n_columns), at, W, penalties)
        iteration = 0
        while True:
            diagonal = 1.0 / (curvature * self.variances[:, None] + penalties)
            distance = np.sqrt((gradient**2 * diagonal).sum(axis=0) / np.maximum(curvature, 1e-12))
            solution[:, at] = W
            open_ = distance > tolerance
            if not open_.any() or iteration == MOST_ITERATIONS:
                return solution, iteration, not open_.any()
            if not open_.all():
                at, W, S, gradient, loss = at[open_], W[:, open_], S[:, open_], gradient[:, open_], loss[open_]
                penalties, diagonal = penalties[:, open_], diagonal[:, open_]
                history = [(s[:, open_], y[:, open_], rho[open_]) for s, y, rho in history]
            direction = _direction(gradient, diagonal, history)
            step, loss, T = self._search(S, direction, gradient, loss, at, W, penalties)
            for rows in blocks(n):
                S[rows] += T[rows] * step.astype(self.Z.dtype)
            change = step * direction
            W = W + change
            before = gradient
            gradient, curvature = self._gradient(S, at, W, penalties)
            difference = gradient - before
            product = (change * difference).sum(axis=0)
            rho = np.where(product > 1e-300, 1.0 / np.maximum(product, 1e-300), 0.0)
            history = [*history[-(MEMORY - 1) :], (change, difference, rho)]
            iteration += 1

    def _gradient(self, S: AnyFloats, at: Numbers, W: Doubles, penalties: Doubles) -> tuple[Doubles, Doubles]:
        gradient, curvature = self.gradient(S, at)
        return gradient + penalties * W, curvature

    def _loss(
        self, S: AnyFloats, T: AnyFloats | None, step: Doubles, at: Numbers, W: Doubles, penalties: Doubles
    ) -> Doubles:
        """The loss of each column at scores `S + step * T`, whose weights are `W`."""
        loss: Doubles = self.loss(S, T, step, at) + 0.5 * (penalties * W**2).sum(axis=0)
        return loss

    def _search(
        self,
        S: AnyFloats,
        direction: Doubles,
        gradient: Doubles,
        loss: Doubles,
        at: Numbers,
        W: Doubles,
        penalties: Doubles,
    ) -> tuple[Doubles, Doubles, AnyFloats]:
        """Each column's step that lowers its loss enough (backtracking), the new losses, and the scores' change for step 1."""
        T = np.empty_like(S)
        narrow = direction.astype(self.Z.dtype)
        for rows in blocks(len(S)):
            T[rows] = self.Z[rows] @ narrow
        slope = (direction * gradient).sum(axis=0)
        step = np.ones(len(at))
        found = self._loss(S, T, step, at, W + direction, penalties)
        for _ in range(_MOST_HALVINGS):
            # Close to the solution, the loss changes by less than its rounding.
            short = ~(found <= loss + _ENOUGH_DECREASE * step * slope + 1e-8 * np.abs(loss))
            if not short.any():
                break
            step[short] *= 0.5
            some = np.flatnonzero(short)
            found[some] = self._loss(
                S[:, some], T[:, some], step[some], at[some], (W + step * direction)[:, some], penalties[:, some]
            )
        return step, found, T


@dataclass(frozen=True, eq=False)
class _Logistic(Objective):
    """The logistic loss. `label_of` gives each column's label, `counted` how much each row counts for each label."""

    Y: AnyFloats
    counted: AnyFloats | None
    label_of: Numbers

    def start(self, n_columns: int) -> Doubles:
        if self.counted is None:
            counts, positive = np.full(self.Y.shape[1], float(len(self.Z))), self.Y.sum(axis=0, dtype=np.float64)
        else:
            counts = self.counted.sum(axis=0, dtype=np.float64)
            positive = (self.Y * self.counted).sum(axis=0, dtype=np.float64)
        n_known = np.where(counts > 0, counts, 1.0)
        share = np.clip((positive / n_known)[self.label_of], 1e-6, 1 - 1e-6)
        return np.asarray(np.log(share / (1 - share)))

    def _labels(self, rows: slice, at: Numbers) -> tuple[AnyFloats, AnyFloats | None]:
        labels = self.label_of[at]
        return self.Y[rows][:, labels], None if self.counted is None else self.counted[rows][:, labels]

    def gradient(self, S: AnyFloats, at: Numbers) -> tuple[Doubles, Doubles]:
        gradient = np.zeros((self.Z.shape[1], len(at)))
        curvature = np.zeros(len(at))
        for rows in blocks(len(S)):
            y, counted = self._labels(rows, at)
            p = sigmoid(S[rows])
            residual = p - y
            spread = p * (1 - p)
            if counted is not None:
                residual *= counted
                spread *= counted
            gradient += self.Z[rows].T @ residual
            curvature += spread.sum(axis=0, dtype=np.float64)
        return gradient, curvature

    def loss(self, S: AnyFloats, T: AnyFloats | None, step: Doubles, at: Numbers) -> Doubles:
        loss = np.zeros(len(at))
        length = step.astype(self.Z.dtype)
        for rows in blocks(len(S)):
            y, counted = self._labels(rows, at)
            scores = S[rows] if T is None else S[rows] + T[rows] * length
            each = np.maximum(scores, 0) - y * scores + np.log1p(np.exp(-np.abs(scores)))
            if counted is not None:
                each *= counted
            loss += each.sum(axis=0, dtype=np.float64)
        return loss


def _direction(gradient: Doubles, diagonal: Doubles, history: Sequence[tuple[Doubles, Doubles, Doubles]]) -> Doubles:
    """Minus the gradient, times the inverse Hessian that the last steps of each column suggest."""
    q = gradient.copy()
    alphas = []
    for s, y, rho in reversed(history):
        alpha = rho * (s * q).sum(axis=0)
        alphas.append(alpha)
        q -= alpha * y
    if history:
        s, y, rho = history[-1]
        expected = (y**2 * diagonal).sum(axis=0)
        seen = (s * y).sum(axis=0)
        diagonal = diagonal * np.where((rho > 0) & (expected > 0), seen / np.maximum(expected, 1e-300), 1.0)
    q *= diagonal
    for (s, y, rho), alpha in zip(history, reversed(alphas), strict=True):
        q += s * (alpha - rho * (y * q).sum(axis=0))
    return -q
