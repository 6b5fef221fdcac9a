"""Simulated times to an event whose hazards are known.

In: numbers of patients, a design. Out: features, signed times, the true values of metrics, coverage of intervals.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from ecgfounder.analysis.statistics.cox import signed
from ecgfounder.analysis.statistics.intervals import combined, drawn_patients
from ecgfounder.analysis.statistics.time_metrics import TimeTest

Array = npt.NDArray[np.float64]

HORIZONS = (1.0, 3.0)
METRICS = ("uno_c", "auroc@3", "brier@3", "risk@3")
TRUE_VALUES = {"uno_c": 0.7285, "auroc@3": 0.7787, "brier@3": 0.1835, "risk@3": 0.3950}
"""As `true_values` finds them."""


def with_hazards(
    log_hazards: Array, rng: np.random.Generator, *, censored: float = 0.15, digits: int | None = None
) -> npt.NDArray[np.float32]:
    """Signed times with constant hazards exp(`log_hazards`); observation ends at random with the rate `censored`.

    With `digits`, times are rounded up, so that some are tied.
    """
    times = rng.exponential(np.exp(-log_hazards))
    ends = rng.exponential(1 / censored, len(times)) if censored else np.full(len(times), np.inf)
    observed = np.minimum(times, ends)
    if digits is not None:
        observed = np.ceil(observed * 10**digits) / 10**digits
    return signed(np.minimum(observed, 1e6), times <= ends)


def simulated(n: int, rng: np.random.Generator, *, censored: float = 0.15) -> TimeTest:
    """Patients who are drawn at random, with a fitted probe's scores, which know a part of the hazards, and its risks."""
    scores = rng.standard_normal(n)
    y = with_hazards(-2.0 + scores + 0.5 * rng.standard_normal(n), rng, censored=censored)
    hazards = np.exp(-2.0 + scores)[:, None]
    return TimeTest(y, scores, np.arange(n), n, HORIZONS, -np.expm1(-hazards * np.array(HORIZONS)))


@cache
def true_values() -> dict[str, float]:
    """The metrics of the same scores where all are observed: of 60 times 5,000 patients."""
    rng = np.random.default_rng(10**6)
    found = [simulated(5000, rng, censored=0).metrics() for _ in range(60)]
    return {name: float(np.mean([each[name][0] for each in found])) for name in METRICS}


def coverage(n_simulations: int, *, n_patients: int, n_draws: int) -> dict[str, float]:
    """How often the interval has the true value in it."""
    truth = TRUE_VALUES
    inside = dict.fromkeys(METRICS, 0)
    for seed in range(n_simulations):
        rng = np.random.default_rng(seed)
        test = simulated(n_patients, rng)
        found, _ = combined([test.metrics()], [test.metrics(drawn_patients(n_patients, n_draws, rng))])
        for name in METRICS:
            inside[name] += found[name].low <= truth[name] <= found[name].high
    return {name: count / n_simulations for name, count in inside.items()}
