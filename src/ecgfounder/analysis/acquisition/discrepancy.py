"""How far apart the embeddings of groups of recordings are (MMD), and permutations that keep patients whole.

In: features of recordings, each recording's patient and level. Out: sizes with intervals over patients, and permutation tests.

The squared maximum mean discrepancy of two groups is the squared distance of their mean features (Gretton et al., J. Mach. Learn.
Res. 13, 2012). It is estimated without bias from pairs of recordings of different patients only: pairs of one patient, in one
group, would make groups look apart. The share of the variance that lies between levels is the sum over levels of
p (1 - p)² MMD² (level, others), divided by the total variance; p is the level's share of the recordings.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ecgfounder.analysis.statistics.intervals import drawn_patients
from ecgfounder.analysis.statistics.solver import Doubles, Floats, Numbers

FEWEST_IN_STRATUM = 20
"""Patients of a stratum of recording counts, at least; neighbouring counts are taken together until there are."""

_BYTES_AT_ONCE = 64 << 20


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums over the recordings of a patient and level ("cells"), and over patients.

    Attributes
    ----------
    cells, patients : numpy.ndarray
        float32 [c, d] and [p, d]: sums of features, from whose mean over recordings they are counted.
    cell_patient, cell_level : numpy.ndarray
        int64 [c].
    n_cell, n_patient : numpy.ndarray
        float64 [c] and [p]: the number of recordings.
    squares : numpy.ndarray
        float64 [p]: the sum of the squared lengths of each patient's features.
    n_levels : int
        The number of levels.
    """

    cells: Floats
    patients: Floats
    cell_patient: Numbers
    cell_level: Numbers
    n_cell: Doubles
    n_patient: Doubles
    squares: Doubles
    n_levels: int

    @classmethod
    def of(cls, F: Floats, patient: Numbers, level: Numbers, n_levels: int) -> Sums:
        """The sums of features [n, d]; patients and levels are numbered from 0."""
        centred = F - F.mean(axis=0, dtype=np.float64).astype(np.float32)
        key = patient * n_levels + level
        order = np.argsort(key, kind="stable")
        keys, first, counts = np.unique(key[order], return_index=True, return_counts=True)
        cells = np.add.reduceat(centred[order], first, axis=0)
        cell_patient = keys // n_levels
        _, begin = np.unique(cell_patient, return_index=True)
        patients = np.add.reduceat(cells, begin, axis=0)
        n_patients = len(patients)
        squares = np.asarray(np.bincount(patient, _dots(centred, centred), n_patients), dtype=np.float64)
        n_patient = np.bincount(patient, minlength=n_patients).astype(np.float64)
        n_cell = counts.astype(np.float64)
        return cls(cells, patients, cell_patient, keys % n_levels, n_cell, n_patient, squares, n_levels)

    def sizes(self, weights: Doubles | None = None) -> Sizes:
        """MMD² of each level and the others, and the total variance, in each draw of patients.

        Parameters
        ----------
        weights : numpy.ndarray, optional
            float64 [draws, patients]; None for one draw that has each patient once.
        """
        w = np.ones((1, len(self.patients))) if weights is None else weights
        squared = w**2
        narrow = w.astype(np.float32)
        total = narrow @ self.patients
        own = _dots(self.patients, self.patients)
        with_patient = _dots(self.cells, self.patients[self.cell_patient])
        of_cell = _dots(self.cells, self.cells)
        level = _Level(
            whole=_dots(total, total), n=w @ self.n_patient, own=squared @ own, own_n=squared @ self.n_patient**2
        )
        mmd2 = np.empty((len(w), self.n_levels))
        shares = np.empty((len(w), self.n_levels))
        for each in range(self.n_levels):
            at = np.flatnonzero(self.cell_level == each)
            whose, n = self.cell_patient[at], self.n_cell[at]
            sum_ = narrow[:, whose] @ self.cells[at]
            n_level = w[:, whose] @ n
            mmd2[:, each] = level.mmd2(
                ll=_dots(sum_, sum_),
                lt=_dots(sum_, total),
                n_l=n_level,
                q=squared[:, whose] @ of_cell[at],
                x=squared[:, whose] @ with_patient[at],
                c=squared[:, whose] @ n**2,
                e=squared[:, whose] @ (n * self.n_patient[whose]),
            )
            shares[:, each] = n_level / level.n
        apart = (level.whole - level.own) / np.maximum(level.n**2 - level.own_n, 1e-300)
        return Sizes(mmd2, shares, w @ self.squares / level.n - apart)


def _dots(A: Floats, B: Floats) -> Doubles:
    """The scalar product of each row of A and of B."""
    return np.asarray(np.einsum("nd,nd->n", A, B, dtype=np.float64))


@dataclass(frozen=True, eq=False)
class _Level:
    """Of all recordings, float64 [draws] each: the squared length of the sum of features, the number of recordings, and the parts
    of both that are pairs of one patient."""

    whole: Doubles
    n: Doubles
    own: Doubles
    own_n: Doubles

    def mmd2(
        self, *, ll: Doubles, lt: Doubles, n_l: Doubles, q: Doubles, x: Doubles, c: Doubles, e: Doubles
    ) -> Doubles:
        """The squared distance of a level's mean and that of the others, from pairs of different patients.

        `ll` and `lt` are the products of the level's sum with itself and with that of all; `q`, `x`, `c` and `e` are what pairs
        of one patient have in these and in the number of pairs.
        """
        n_r = self.n - n_l
        with np.errstate(invalid="ignore", divide="ignore"):
            inside = (ll - q) / (n_l**2 - c)
            between = (lt - ll - (x - q)) / (n_l * n_r - (e - c))
            outside = (self.whole - 2 * lt + ll - (self.own - 2 * x + q)) / (n_r**2 - (self.own_n - 2 * e + c))
            found = inside + outside - 2 * between
        return np.asarray(np.where(np.isfinite(found), found, np.nan))


@dataclass(frozen=True, eq=False)
class Sizes:
    """Sizes in each draw.

    Attributes
    ----------
    mmd2 : numpy.ndarray
        float64 [draws, levels]: of each level and all others.
    shares : numpy.ndarray
        float64 [draws, levels]: each level's share of the recordings.
    variance : numpy.ndarray
        float64 [draws]: the total variance of the features.
    """

    mmd2: Doubles
    shares: Doubles
    variance: Doubles

    @property
    def between(self) -> Doubles:
        """The share of the variance that lies between levels: float64 [draws]."""
        return np.asarray(_between(self.mmd2, self.shares) / self.variance)

    @property
    def shift2(self) -> Doubles:
        """MMD² over the mean squared distance of two recordings of different patients: float64 [draws, levels]."""
        return np.asarray(self.mmd2 / (2 * self.variance[:, None]))


def _between(mmd2: Doubles, shares: Doubles) -> Doubles:
    # A level with too few patients for an estimate has hardly a share.
    return np.asarray((shares * (1 - shares) ** 2 * np.nan_to_num(mmd2)).sum(axis=-1))


def drawn_sizes(sums: Sums, n_draws: int, rng: np.random.Generator) -> Sizes:
    """The sizes in draws of patients with replacement."""
    n_patients = len(sums.patients)
    at_once = max(1, _BYTES_AT_ONCE // (32 * max(n_patients, sums.cells.shape[1])))
    parts = [
        sums.sizes(drawn_patients(n_patients, min(at_once, n_draws - first), rng))
        for first in range(0, n_draws, at_once)
    ]
    return Sizes(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("mmd2", "shares", "variance")))


# --- permutations ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Test:
    """A permutation test.

    Attributes
    ----------
    how : str
        "between patients" or "within patients".
    statistic : float
        The share of the variance that lies between levels, of the real levels.
    permuted : numpy.ndarray
        float64 [B]: that of the permutations.
    n_records, n_patients : int
        The recordings and patients that have a part in it.
    """

    how: str
    statistic: float
    permuted: Doubles
    n_records: int
    n_patients: int

    __test__ = False  # no class of tests

    @property
    def p_value(self) -> float:
        """(1 + b) / (1 + B), with b of B permutations that are at least as large."""
        return float((1 + (self.permuted >= self.statistic).sum()) / (1 + len(self.permuted)))


def strata_of_counts(counts: Doubles) -> list[Numbers]:
    """Patients with about as many recordings: of one count, or of neighbouring ones until there are `FEWEST_IN_STRATUM`."""
    found: list[Numbers] = []
    waiting = np.zeros(0, dtype=np.int64)
    for count in np.unique(counts):
        waiting = np.concatenate([waiting, np.flatnonzero(counts == count)])
        if len(waiting) >= FEWEST_IN_STRATUM:
            found.append(waiting)
            waiting = waiting[:0]
    if len(waiting):
        found[-1:] = [np.concatenate([*found[-1:], waiting])]
    return found


def between_patients(
    F: Floats, patient: Numbers, level: Numbers, n_levels: int, n_permutations: int, rng: np.random.Generator
) -> Test:
    """The levels of whole patients are exchanged with those of patients who have about as many recordings.

    Parameters
    ----------
    F : numpy.ndarray
        float32 [n, d]: features.
    patient, level : numpy.ndarray
        int64 [n]: numbered from 0; all recordings of a patient have the same level.
    n_levels, n_permutations : int
        The number of levels and of permutations.
    rng : numpy.random.Generator
        Decides the permutations.
    """
    sums = Sums.of(F, patient, level, n_levels)  # with one cell a patient
    strata = strata_of_counts(sums.n_patient)
    q, n = _dots(sums.patients, sums.patients), sums.n_patient
    total = sums.patients.sum(axis=0)
    whole = _Level(*(np.array([each]) for each in (float(total @ total), n.sum(), q.sum(), (n**2).sum())))
    variance = float(sums.sizes().variance[0])

    def statistics(levels: Numbers) -> Doubles:
        """Of levels of patients [b, p]."""
        b = len(levels)
        chosen = (levels[:, None, :] == np.arange(n_levels)[:, None]).reshape(b * n_levels, -1)
        sum_ = chosen.astype(np.float32) @ sums.patients
        n_l, own, own_n = (chosen @ each for each in (n, q, n**2))
        mmd2 = whole.mmd2(ll=_dots(sum_, sum_), lt=sum_ @ total, n_l=n_l, q=own, x=own, c=own_n, e=own_n)
        shares = (n_l / whole.n).reshape(b, n_levels)
        return _between(mmd2.reshape(b, n_levels), shares) / variance

    at_once = max(1, _BYTES_AT_ONCE // (8 * n_levels * max(len(n), F.shape[1])))
    own_level = sums.cell_level
    found = [statistics(own_level[None])]
    for size in _parts(n_permutations, at_once):
        levels = np.repeat(own_level[None], size, axis=0)
        for row in levels:
            for rows in strata:
                row[rows] = row[rng.permutation(rows)]
        found.append(statistics(levels))
    values = np.concatenate(found)
    return Test("between patients", float(values[0]), values[1:], len(F), len(n))


def within_patients(
    F: Floats, patient: Numbers, level: Numbers, n_levels: int, n_permutations: int, rng: np.random.Generator
) -> Test:
    """The levels of the recordings of each patient are exchanged with each other; of features, what differs within patients.

    The statistic is the share of the variance within patients that lies between levels. See `between_patients` for the
    parameters; each patient has several levels.
    """
    order = np.argsort(patient, kind="stable")
    patient, level = patient[order], level[order]
    _, first, counts = np.unique(patient, return_index=True, return_counts=True)
    means = np.add.reduceat(F[order].astype(np.float64), first, axis=0) / counts[:, None]
    centred = (F[order] - np.repeat(means, counts, axis=0)).astype(np.float32)
    n_l = np.bincount(level, minlength=n_levels)
    variance = float(np.einsum("nd,nd->", centred, centred, dtype=np.float64))
    n = len(centred)

    def statistics(levels: Numbers) -> Doubles:
        b = len(levels)
        chosen = (levels[:, None, :] == np.arange(n_levels)[:, None]).reshape(b * n_levels, n)
        sum_ = chosen.astype(np.float32) @ centred
        squares = _dots(sum_, sum_).reshape(b, n_levels)
        return np.asarray((squares / np.maximum(n_l, 1)).sum(axis=1) / max(variance, 1e-300))

    at_once = max(1, _BYTES_AT_ONCE // (8 * n_levels * max(n, F.shape[1])))
    found = [statistics(level[None])]
    for size in _parts(n_permutations, at_once):
        levels = np.stack([level[np.lexsort((rng.random(n), patient))] for _ in range(size)])
        found.append(statistics(levels))
    values = np.concatenate(found)
    return Test("within patients", float(values[0]), values[1:], n, len(counts))


def _parts(number: int, at_once: int) -> Iterator[int]:
    for first in range(0, number, at_once):
        yield min(at_once, number - first)


def within_shift2(
    X: Floats, patient: Numbers, inside: npt.NDArray[np.bool_], n_draws: int, rng: np.random.Generator
) -> tuple[Doubles, int]:
    """The squared distance between the recordings of a level and the others of the same patient, and the number of patients.

    It is the squared length of the mean difference over patients who have both, estimated without bias from pairs of different
    patients: float64 [1 + n_draws], of the patients and of each draw of them. NaN for fewer than two patients.
    """
    _, numbers = np.unique(patient, return_inverse=True)
    n_patients = int(numbers.max(initial=-1)) + 1
    n_in = np.bincount(numbers, inside, n_patients)
    n_all = np.bincount(numbers, minlength=n_patients)
    both = (n_in > 0) & (n_in < n_all)
    chosen = both[numbers]
    P = int(both.sum())
    if P < 2:
        return np.full(1 + n_draws, np.nan), P
    order = np.flatnonzero(chosen)[np.argsort(numbers[chosen], kind="stable")]
    whose, is_in = numbers[order], inside[order]
    weight = np.where(is_in, 1 / n_in[whose].clip(1), -1 / (n_all - n_in)[whose].clip(1))
    _, first = np.unique(whose, return_index=True)
    differences = np.add.reduceat(X[order].astype(np.float64) * weight[:, None], first, axis=0)
    w = np.concatenate([np.ones((1, P)), drawn_patients(P, n_draws, rng)])
    totals = w @ differences
    own = w**2 @ (differences**2).sum(axis=1)
    pairs = P**2 - (w**2).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = ((totals**2).sum(axis=1) - own) / pairs
    return np.where(pairs > 0, found, np.nan), P
