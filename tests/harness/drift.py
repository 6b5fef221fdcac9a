"""Simulations of drift in which the truth is known: p-values without any drift, and probes evaluated on very many new patients.

In: numbers of patients and simulations. Out: p-values; how often an interval has the true value in it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ecgfounder.analysis.acquisition.discrepancy import Test, between_patients, within_patients
from ecgfounder.analysis.statistics.fitting import Task, fit_split
from ecgfounder.analysis.statistics.intervals import interval
from ecgfounder.analysis.statistics.solver import Doubles, Floats, Numbers
from ecgfounder.analysis.statistics.splits import Split
from ecgfounder.analysis.statistics.strata import Pairs, areas, ratio
from tests.builders.sites import features_of

Levels = npt.NDArray[np.int64]


def null_test(
    seed: int,
    *,
    n_patients: int = 60,
    per_patient: Sequence[int] = (4,),
    intraclass: float = 0.6,
    n_features: int = 6,
    within: bool = False,
    permute_recordings: bool = False,
    n_permutations: int = 99,
    of_level: float = 0.0,
) -> Test:
    """A test of levels that the features do not know (unless `of_level`), with recordings of a patient that are alike.

    Levels are of patients; with `within`, of recordings. With `permute_recordings`, each recording counts as a patient.
    """
    rng = np.random.default_rng([seed, 99])
    patient = np.repeat(np.arange(n_patients), rng.choice(per_patient, n_patients))
    level = rng.integers(2, size=len(patient) if within else n_patients)
    level = level if within else level[patient]
    X = features_of(rng, patient, of_level * level, 0 * level, intraclass, n_features).astype(np.float32)
    test = within_patients if within else between_patients
    if within:  # patients with one level have no part
        several = np.array([len(np.unique(level[patient == each])) > 1 for each in range(n_patients)])[patient]
        X, level, patient = X[several], level[several], np.unique(patient[several], return_inverse=True)[1]
    if permute_recordings:
        patient = np.arange(len(patient))
    return test(X, patient, level, 2, n_permutations, rng)


def null_p_values(n_simulations: int, **design: object) -> Doubles:
    """The p-values of many such tests."""
    return np.array([null_test(seed, **design).p_value for seed in range(n_simulations)])  # type: ignore[arg-type]


# --- AUROC across sites -------------------------------------------------------------------------------------------------

CONTROLS = ("pooled", "within", "leave one out")


class Sites:
    """Patients of three sites, in which the embedding may know the site, and the label may be more frequent at one."""

    def __init__(
        self, n_patients: int, seed: int, *, prevalence: Sequence[float], of_site: float, of_label: float = 1.2
    ) -> None:
        rng = np.random.default_rng(seed)
        n_sites = len(prevalence)
        site_of = rng.integers(n_sites, size=n_patients)
        y_of = rng.random(n_patients) < np.asarray(prevalence)[site_of]
        self.patient: Numbers = np.repeat(np.arange(n_patients), rng.choice((1, 2, 4), n_patients))
        self.site: Numbers = site_of[self.patient]
        self.y = y_of[self.patient]
        self.X: Floats = features_of(rng, self.patient, of_site * self.site, of_label * self.y, 0.5).astype(np.float32)
        self.n_patients = n_patients


def coverage_across_sites(
    n_simulations: int,
    *,
    n_patients: int,
    prevalence: Sequence[float],
    of_site: float,
    n_draws: int = 200,
    n_true: int = 30_000,
) -> dict[str, float]:
    """How often the intervals have the true AUROC of the same fitted probes in them, which is that in very many new patients."""
    population = Sites(n_true, 10**6, prevalence=prevalence, of_site=of_site)
    inside = dict.fromkeys(CONTROLS, 0)
    for seed in range(n_simulations):
        study = Sites(n_patients, seed, prevalence=prevalence, of_site=of_site)
        found = _fitted(study, population, n_draws, seed)
        for name, (estimates, truth) in found.items():
            estimate = interval(float(estimates[0]), estimates[1:], "logit")
            inside[name] += estimate.low <= truth <= estimate.high
    return {name: count / n_simulations for name, count in inside.items()}


def _fitted(study: Sites, population: Sites, n_draws: int, seed: int) -> dict[str, tuple[Doubles, float]]:
    """For each control the AUROC and its draws, and the true AUROC of the same models: each on the pairs that it is about."""
    task = Task(("y",), penalties=(1e-1,), inner_folds=2)
    Y = study.y.astype(np.float32)[:, None]
    fold = study.patient % 3
    scores, left_out = np.empty(len(Y)), np.empty(len(Y))
    true = {name: [] for name in CONTROLS}  # type: dict[str, list[tuple[float, float]]]
    for number in range(3):
        for stratum, into in ((fold, scores), (study.site, left_out)):
            train, test = np.flatnonzero(stratum != number), np.flatnonzero(stratum == number)
            weights = fit_split(study.X, Y, study.patient, Split(train, test), task, seed).weights
            into[test] = weights.scores(study.X[test])[:, 0]
            everywhere = weights.scores(population.X)[:, 0]
            pairs = Pairs(population.y, everywhere, np.zeros(len(everywhere), np.int64), population.patient)
            if into is scores:
                size = float(Pairs(study.y[test], scores[test], fold[test], study.patient[test]).sums()[1][0])
                true["pooled"].append((float(ratio(*pairs.sums())[0]), size))
                test_pairs = Pairs(study.y[test], scores[test], study.site[test], study.patient[test])
                by_site = pairs.within(population.site)
                true["within"].append((float(ratio(*by_site.sums())[0]), float(test_pairs.sums()[1][0])))
            else:
                own = pairs.at(population.site == number)
                size = float(Pairs(study.y[test], left_out[test], fold[test] * 0, study.patient[test]).sums()[1][0])
                true["leave one out"].append((float(ratio(*own.sums())[0]), size))
    pooled = Pairs(study.y, scores, fold, study.patient)
    tests = {
        "pooled": pooled,
        "within": pooled.within(study.site),
        "leave one out": Pairs(study.y, left_out, study.site, study.patient),
    }
    drawn = areas(tests, study.n_patients, n_draws, np.random.default_rng(seed))
    return {
        name: (ratio(*drawn[name]), _weighted(true[name]))  # type: ignore[misc]
        for name in CONTROLS
    }


def _weighted(values: Sequence[tuple[float, float]]) -> float:
    return float(np.average([value for value, _ in values], weights=[weight for _, weight in values]))
