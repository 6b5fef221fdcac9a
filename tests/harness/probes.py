"""Simulated test parts whose true values are known, and other people's standard errors of an AUROC.

In: numbers of patients, a design. Out: test parts, coverage of intervals, standard errors by DeLong and Obuchowski.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from ecgfounder.analysis.statistics.intervals import Estimate, combined, drawn_patients
from ecgfounder.analysis.statistics.metrics import BinaryTest

METRICS = ("auroc", "auprc", "brier")


def simulated(
    n_patients: int,
    rng: np.random.Generator,
    *,
    per_patient: Sequence[int] = (3, 4),
    intraclass: float = 0.5,
    prevalence: float = 0.4,
) -> BinaryTest:
    """Recordings of patients who are drawn at random: a fitted probe's logits, and labels.

    The label is the patient's; of the logit's variance given the label, the share `intraclass` is.
    """
    patient = np.repeat(np.arange(n_patients), rng.choice(per_patient, n_patients))
    y = (rng.random(n_patients) < prevalence)[patient]
    of_patient = rng.standard_normal(n_patients)[patient]
    noise = np.sqrt(intraclass) * of_patient + np.sqrt(1 - intraclass) * rng.standard_normal(len(patient))
    return BinaryTest(y, -1 + 1.3 * y + noise, patient, n_patients, {})


@cache
def true_values(intraclass: float, prevalence: float) -> dict[str, float]:
    """The metrics of the same probe in 400,000 patients; they do not depend on who has how many recordings."""
    part = simulated(
        400_000, np.random.default_rng(10**6), per_patient=(1,), intraclass=intraclass, prevalence=prevalence
    )
    found = part.metrics()
    return {name: float(found[name][0]) for name in METRICS}


def coverage(
    n_simulations: int,
    *,
    n_patients: int,
    n_draws: int,
    intraclass: float = 0.5,
    prevalence: float = 0.4,
    kind: str = "auto",
    draw_recordings: bool = False,
) -> dict[str, float]:
    """How often the interval has the true value in it; `kind` is one of `statistics.intervals.combined`, or "bca"."""
    truth = true_values(intraclass, prevalence)
    inside = dict.fromkeys(METRICS, 0)
    for seed in range(n_simulations):
        rng = np.random.default_rng(seed)
        part = simulated(n_patients, rng, intraclass=intraclass, prevalence=prevalence)
        if draw_recordings:
            part = BinaryTest(part.y, part.scores, np.arange(len(part.y)), len(part.y), {})
        weights = drawn_patients(part.n_patients, n_draws, rng)
        if kind == "bca":
            found = bca(part, weights)
        else:
            found, _ = combined([part.metrics()], [part.metrics(weights)], kind)
        for name in METRICS:
            inside[name] += found[name].low <= truth[name] <= found[name].high
    return {name: count / n_simulations for name, count in inside.items()}


def bca(part: BinaryTest, weights: npt.NDArray[np.float64]) -> dict[str, Estimate]:
    """Efron's bias-corrected and accelerated interval (1987), with the acceleration by leaving out one patient at a time."""
    values, draws = part.metrics(), part.metrics(weights)
    without = part.metrics(1.0 - np.eye(part.n_patients))
    found = {}
    for name in METRICS:
        value, drawn = float(values[name][0]), draws[name][np.isfinite(draws[name])]
        apart = np.nanmean(without[name]) - without[name][np.isfinite(without[name])]
        acceleration = (apart**3).sum() / (6 * (apart**2).sum() ** 1.5)
        share = ((drawn < value).sum() + 0.5 * (drawn == value).sum()) / len(drawn)
        bias = norm.ppf(np.clip(share, 1 / len(drawn), 1 - 1 / len(drawn)))
        moved = bias + norm.ppf([0.025, 0.975])
        low, high = np.quantile(drawn, norm.cdf(bias + moved / (1 - acceleration * moved)))
        found[name] = Estimate(value, float(low), float(high), len(weights))
    return found


def delong_error(part: BinaryTest) -> float:
    """The standard error of DeLong, DeLong and Clarke-Pearson (1988), which takes recordings as independent."""
    of_positives, of_negatives = _components(part)
    return float(np.sqrt(of_positives.var(ddof=1) / len(of_positives) + of_negatives.var(ddof=1) / len(of_negatives)))


def obuchowski_error(part: BinaryTest) -> float:
    """The standard error of Obuchowski (1997) for recordings that are clustered in patients."""
    of_positives, of_negatives = _components(part)
    area = of_positives.mean()
    m, n = len(of_positives), len(of_negatives)
    I = part.n_patients  # noqa: E741
    a = np.bincount(part.patient[part.y], of_positives - area, I)
    b = np.bincount(part.patient[~part.y], of_negatives - area, I)
    i10 = len(np.unique(part.patient[part.y]))
    i01 = len(np.unique(part.patient[~part.y]))
    s10 = i10 / ((i10 - 1) * m) * (a**2).sum()
    s01 = i01 / ((i01 - 1) * n) * (b**2).sum()
    s11 = I / (I - 1) * (a * b).sum()
    return float(np.sqrt(s10 / m + s01 / n + 2 * s11 / (m * n)))


def _components(part: BinaryTest) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The share of negatives that each positive outranks, and of positives that outrank each negative."""
    positive, negative = part.scores[part.y], part.scores[~part.y]
    wins = (positive[:, None] > negative).astype(float) + 0.5 * (positive[:, None] == negative)
    return wins.mean(axis=1), wins.mean(axis=0)
