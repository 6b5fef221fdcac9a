"""Agreement of two sets of embeddings of the same recordings: cosine, debiased CKA, overlap of nearest neighbours.

In: float32 [n, d] of each set, row by row of the same recordings; the number of each recording's group (its patient).
Out: the statistics; `Figure`s, with intervals from draws of groups, and what the statistic is for recordings of different groups.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ecgfounder.analysis.similarity.space import Space
from ecgfounder.analysis.statistics.solver import Doubles, Floats, Numbers

Mask = npt.NDArray[np.bool_]

_REACH = 1.959963984540054
"""Standard deviations between an estimate and either end of its 95 % interval."""

_ROUNDING = 1e-9
"""Standard deviations of draws that are only rounding."""

_ROWS_AT_ONCE = 1 << 12


@dataclass(frozen=True)
class Figure:
    """A statistic, with its uncertainty and its control.

    Attributes
    ----------
    value : float
        The statistic; NaN where it does not exist.
    low, high : float
        The 95 % interval; NaN where draws of groups do not differ, or there are not enough groups.
    reference, reference_low, reference_high : float
        Mean, 2.5 % and 97.5 % quantile of the statistic over permutations of the groups; NaN without.
    n_recordings, n_groups : int
        The recordings that it is computed from, and their groups.
    """

    value: float
    low: float = np.nan
    high: float = np.nan
    reference: float = np.nan
    reference_low: float = np.nan
    reference_high: float = np.nan
    n_recordings: int = 0
    n_groups: int = 0

    def against(self, permuted: Doubles) -> Figure:
        """The same figure with its reference distribution, the statistic's values over permutations."""
        finite = permuted[np.isfinite(permuted)]
        if not len(finite):
            return self
        low, high = np.quantile(finite, [0.025, 0.975])
        return replace(self, reference=float(finite.mean()), reference_low=float(low), reference_high=float(high))


# --- the statistics ----------------------------------------------------------------------------------------------------


def cosines(X: Floats, Y: Floats) -> Doubles:
    """The cosine of the angle between each row of X and the same row of Y: x . y / (|x| |y|).

    Parameters
    ----------
    X, Y : numpy.ndarray
        float32 [n, d].

    Returns
    -------
    numpy.ndarray
        float64 [n], between -1 and 1; NaN where a row is zero.
    """
    found = np.empty(len(X))
    for first in range(0, len(X), _ROWS_AT_ONCE):
        x, y = (each[first : first + _ROWS_AT_ONCE].astype(np.float64) for each in (X, Y))
        products, xx, yy = ((one * other).sum(axis=1) for one, other in ((x, y), (x, x), (y, y)))
        with np.errstate(divide="ignore", invalid="ignore"):
            found[first : first + len(x)] = np.clip(products / np.sqrt(xx * yy), -1, 1)
    return found


def distances(X: Floats, Y: Floats) -> Doubles:
    """The Euclidean distance between each row of X and the same row of Y: float64 [n]."""
    found = np.empty(len(X))
    for first in range(0, len(X), _ROWS_AT_ONCE):
        apart = X[first : first + _ROWS_AT_ONCE].astype(np.float64) - Y[first : first + _ROWS_AT_ONCE]
        found[first : first + len(apart)] = np.sqrt((apart * apart).sum(axis=1))
    return found


def spread(X: Floats) -> float:
    """The root mean square of the distance between two different rows of X.

    It is sqrt(2 s), where s is the sum over dimensions of the unbiased variance; NaN for fewer than two rows.
    """
    return float(np.sqrt(2 * X.var(axis=0, dtype=np.float64, ddof=1).sum())) if len(X) > 1 else float("nan")


@dataclass(frozen=True, eq=False)
class Kernels:
    """The linear kernels of two sets of embeddings of the same recordings, for their debiased CKA.

    With the kernels K = XX' and L = YY' of n recordings, their diagonals set to zero, the unbiased estimator of HSIC is
    (Song et al., J. Mach. Learn. Res. 13, 2012; the bias-corrected distance covariance of Székely and Rizzo, Ann. Stat. 42, 2014,
    does the same by U-centring)

        HSIC(K, L) = [tr(KL) + (1'K1)(1'L1) / ((n - 1)(n - 2)) - 2 (1'KL1) / (n - 2)] / (n (n - 3))

    and CKA = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) (Kornblith et al., ICML 2019). It is 1 if Y is X rotated, scaled or
    shifted, and 0 on average if X and Y are independent, for any n and d; the biased CKA approaches 1 where d is larger than n.

    Attributes
    ----------
    K, L : numpy.ndarray
        float64 [n, n], with zeros on the diagonal.
    """

    K: Doubles
    L: Doubles

    FEWEST = 4
    """Recordings below which there is no CKA."""

    @classmethod
    def of(cls, X: Floats, Y: Floats) -> Kernels:
        """The kernels of float32 [n, d] and [n, e]."""
        return cls(_kernel(X), _kernel(Y))

    def part(self, rows: Numbers) -> Kernels:
        """The kernels of some recordings."""
        return Kernels(self.K[np.ix_(rows, rows)], self.L[np.ix_(rows, rows)])

    def cka(self, chosen: Mask | None = None) -> Doubles:
        """The CKA of the recordings that are chosen.

        Parameters
        ----------
        chosen : numpy.ndarray, optional
            bool [n, m]: m choices; None for all recordings.

        Returns
        -------
        numpy.ndarray
            float64 [m]; NaN where it does not exist.
        """
        W = np.ones((len(self.K), 1)) if chosen is None else chosen.astype(np.float64)
        n = W.sum(axis=0)
        KW, LW = self.K @ W, self.L @ W
        kl, kk, ll = (
            _hsic(W, n, one * other, *sums)
            for one, other, sums in ((self.K, self.L, (KW, LW)), (self.K, self.K, (KW, KW)), (self.L, self.L, (LW, LW)))
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where((kk > 0) & (ll > 0), kl / np.sqrt(kk * ll), np.nan)

    def permuted(self, exchange: Exchange, partners: Iterator[Numbers]) -> Doubles:
        """The CKA of the recordings that can be exchanged, with each of some permutations."""
        rows = exchange.rows
        if len(rows) < self.FEWEST:
            return np.empty(0)
        K, L = (_u_centred(kernel[np.ix_(rows, rows)]).astype(np.float32) for kernel in (self.K, self.L))
        scale = np.sqrt(np.vdot(K, K) * np.vdot(L, L))
        if not scale > 0:
            return np.empty(0)
        place = np.full(len(self.K), -1)
        place[rows] = np.arange(len(rows))
        others = (place[partner[rows]] for partner in partners)
        return np.array([np.vdot(K, L[other].take(other, axis=1)) / scale for other in others], dtype=np.float64)


def _kernel(X: Floats) -> Doubles:
    """The linear kernel of centred rows, without its diagonal; its scale, which CKA does not depend on, is about 1."""
    centred = X - X.mean(axis=0, dtype=np.float64)
    kernel = np.asarray(centred @ centred.T)
    scale = np.trace(kernel) / len(kernel)
    np.fill_diagonal(kernel, 0)
    return kernel / scale if scale > 0 else kernel


def _hsic(W: Doubles, n: Doubles, product: Doubles, KW: Doubles, LW: Doubles) -> Doubles:
    """The unbiased HSIC of each column's recordings; NaN for fewer than four."""
    sums_k, sums_l = (W * KW).sum(axis=0), (W * LW).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        total = (
            (W * (product @ W)).sum(axis=0)
            + sums_k * sums_l / ((n - 1) * (n - 2))
            - 2 * (W * KW * LW).sum(axis=0) / (n - 2)
        )
        return np.where(n > 3, total / (n * (n - 3)), np.nan)


def _u_centred(kernel: Doubles) -> Doubles:
    """The U-centred form of a kernel without its diagonal; HSIC is the scalar product of two, by n (n - 3)."""
    n = len(kernel)
    sums = kernel.sum(axis=0)
    centred = kernel - (sums[:, None] + sums[None, :]) / (n - 2) + sums.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(centred, 0)
    return np.asarray(centred)


def nearest(X: Floats, groups: Numbers, k: int) -> Numbers:
    """The k nearest neighbours of each recording among those of other groups, by the cosine of centred embeddings.

    Parameters
    ----------
    X : numpy.ndarray
        float32 [n, d]. The mean over recordings is subtracted first.
    groups : numpy.ndarray
        int64 [n].
    k : int
        At most the number of recordings outside of the largest group.

    Returns
    -------
    numpy.ndarray
        int64 [n, k], in no order.
    """
    unit = Space(X.mean(axis=0, dtype=np.float64)).units(X)
    found = np.empty((len(X), k), np.int64)
    for first in range(0, len(X), _ROWS_AT_ONCE):
        some = slice(first, first + _ROWS_AT_ONCE)
        near = unit[some] @ unit.T
        near[groups[some, None] == groups[None, :]] = -np.inf
        found[some] = np.argpartition(near, -k, axis=1)[:, -k:]
    return found


def overlaps(near_a: Numbers, near_b: Numbers) -> Doubles:
    """The share of each recording's k nearest neighbours in one set that are among its k nearest in the other: |A n B| / k.

    Parameters
    ----------
    near_a, near_b : numpy.ndarray
        int64 [n, k].

    Returns
    -------
    numpy.ndarray
        float64 [n]. For independent sets it is k / m on average, with m recordings to choose from.
    """
    return np.asarray((near_a[:, :, None] == near_b[:, None, :]).any(axis=2).mean(axis=1))


# --- draws and permutations of groups ----------------------------------------------------------------------------------


class Exchange:
    """Permutations of whole groups: each recording of the second set is replaced by one of another group.

    Groups are exchanged with groups of the same number of recordings, in a random cycle, so that no group keeps its own
    recordings and all that recordings of a group have in common stays. Groups of a size that no other group has cannot
    be exchanged, and are no part of the reference distribution.

    Attributes
    ----------
    rows : numpy.ndarray
        int64: the recordings that can be exchanged, in order.
    """

    def __init__(self, groups: Numbers) -> None:
        self._n = len(groups)
        _, numbers, sizes = np.unique(groups, return_inverse=True, return_counts=True)
        by_group = np.lexsort((np.arange(self._n), numbers, sizes[numbers]))
        size = sizes[numbers][by_group]
        strata = (by_group[size == each].reshape(-1, each) for each in np.unique(sizes))
        self._strata = [rows for rows in strata if len(rows) > 1]
        self.rows = np.sort(np.concatenate([np.empty(0, np.int64), *(rows.ravel() for rows in self._strata)]))

    def partners(self, number: int, seed: int) -> Iterator[Numbers]:
        """So many permutations: int64 [n], the recording that takes the place of each; -1 where none can."""
        rng = np.random.default_rng([seed, 1])
        for _ in range(number):
            partner = np.full(self._n, -1)
            for rows in self._strata:
                shuffled = rows[rng.permutation(len(rows))]
                partner[shuffled] = np.roll(shuffled, 1, axis=0)
            yield partner


def exchanged_overlaps(near_a: Numbers, near_b: Numbers, partner: Numbers) -> Doubles:
    """`overlaps` after a permutation: neighbours of the partners, by the recordings that they take the place of."""
    rows = np.flatnonzero(partner >= 0)
    place = np.full(len(partner), -1)
    place[partner[rows]] = rows
    found = np.full(len(partner), np.nan)
    found[rows] = overlaps(near_a[rows], place[near_b[partner[rows]]])
    return found


def mean_figures(values: Doubles, groups: Numbers, n_draws: int, seed: int) -> list[Figure]:
    """The mean of each column, with its interval from groups that are drawn with replacement.

    Parameters
    ----------
    values : numpy.ndarray
        float64 [n, c]; values that are not finite are left out.
    groups : numpy.ndarray
        int64 [n].
    n_draws, seed : int
        Draws of as many groups as there are. The interval is the mean plus and minus 1.96 standard deviations of the draws.
    """
    known = np.isfinite(values)
    _, numbers = np.unique(groups, return_inverse=True)
    n_groups = int(numbers.max(initial=-1)) + 1
    columns = [*np.where(known, values, 0).T, *known.T.astype(np.float64)]
    sums = np.stack([np.bincount(numbers, weights=column, minlength=n_groups) for column in columns], axis=1)
    drawn = np.full((n_draws, values.shape[1]), np.nan)
    if n_groups > 1:
        for number, weights in enumerate(_drawn_groups(n_groups, n_draws, seed)):
            drawn[number] = _ratios(weights @ sums)
    means = _ratios(sums.sum(axis=0))
    figures = []
    for column, mean in enumerate(means.tolist()):
        those = values[known[:, column], column]
        in_groups = len(np.unique(numbers[known[:, column]]))
        if not len(those) or those.min() == those.max():
            figures.append(Figure(mean, n_recordings=len(those), n_groups=in_groups))
        else:
            limits = float(those.min()), float(those.max())
            figures.append(_figure(mean, _deviation(drawn[:, column]), limits, len(those), in_groups))
    return figures


def quantile_figure(values: Doubles, share: float, groups: Numbers, n_draws: int, seed: int) -> Figure:
    """A quantile of some values, with its interval: the 2.5 % and 97.5 % quantiles over groups drawn with replacement."""
    known = np.isfinite(values)
    _, numbers = np.unique(groups[known], return_inverse=True)
    n_groups = int(numbers.max(initial=-1)) + 1
    if not n_groups:
        return Figure(np.nan)
    order = np.argsort(values[known], kind="stable")
    ordered, owners = values[known][order], numbers[order]
    value = float(np.quantile(ordered, share))
    if n_groups < 2 or ordered[0] == ordered[-1]:
        return Figure(value, n_recordings=len(ordered), n_groups=n_groups)
    drawn = []
    for weights in _drawn_groups(n_groups, n_draws, seed):
        reached = np.cumsum(weights[owners])
        drawn.append(ordered[np.searchsorted(reached, share * reached[-1])])
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Figure(value, float(low), float(high), n_recordings=len(ordered), n_groups=n_groups)


def cka_figure(kernels: Kernels, groups: Numbers, n_draws: int, seed: int) -> Figure:
    """The CKA, with its interval from draws of half of the groups, without replacement.

    Groups drawn with replacement would be there twice, and a recording's similarity to itself is what the estimator leaves out.
    With r of G groups, the variance is r / (G - r) times that of the draws (the delete-d jackknife of Shao and Wu, Ann. Stat. 17,
    1989).
    """
    _, numbers = np.unique(groups, return_inverse=True)
    n_groups = int(numbers.max(initial=-1)) + 1
    kept = n_groups // 2
    deviation = np.nan
    if kept >= Kernels.FEWEST:
        rng = np.random.default_rng([seed, 2])
        halves = np.zeros((n_groups, n_draws), bool)
        for number in range(n_draws):
            halves[rng.permutation(n_groups)[:kept], number] = True
        found = float(np.sqrt(kept / (n_groups - kept)) * _deviation(kernels.cka(halves[numbers])))
        deviation = found if found > _ROUNDING else np.nan
    return _figure(float(kernels.cka()[0]), deviation, (-1.0, 1.0), len(groups), n_groups)


def _drawn_groups(n_groups: int, n_draws: int, seed: int) -> Iterator[Doubles]:
    """How often each group is in each draw."""
    rng = np.random.default_rng([seed, 3])
    for _ in range(n_draws):
        yield np.bincount(rng.integers(n_groups, size=n_groups), minlength=n_groups).astype(np.float64)


def _ratios(sums: Doubles) -> Doubles:
    total, count = np.split(sums, 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        return total / count


def _deviation(draws: Doubles) -> float:
    """The standard deviation of draws; NaN for fewer than two that exist."""
    known = draws[np.isfinite(draws)]
    return float(known.std(ddof=1)) if len(known) > 1 else float("nan")


def _figure(value: float, deviation: float, limits: tuple[float, float], n_recordings: int, n_groups: int) -> Figure:
    """A statistic with its interval, which does not leave the limits between which the statistic must be."""
    if not np.isfinite(value) or not np.isfinite(deviation):
        return Figure(value, n_recordings=n_recordings, n_groups=n_groups)
    reach, (least, most) = _REACH * deviation, limits
    return Figure(
        value, max(least, value - reach), min(most, value + reach), n_recordings=n_recordings, n_groups=n_groups
    )


def means_within(permuted: Doubles, rows: Mask) -> Doubles:
    """The mean over some recordings of a statistic of each recording, [permutations, n], for each permutation."""
    some = permuted[:, rows]
    known = np.isfinite(some)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, some, 0).sum(axis=1) / known.sum(axis=1))
