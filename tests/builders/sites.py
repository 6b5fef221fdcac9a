"""Cohorts of several sites whose embeddings know the site, a label, or both, and in which the truth is known.

In: numbers of patients, how strong is what. Out: a table of recordings with features `x0` to `x5`, as `tests.builders.probes` has
it, so that `write_run` makes a run of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from tests.builders.runs import C


def sites_cohort(
    n_patients: int,
    seed: int = 0,
    *,
    prevalence: Sequence[float] = (0.5, 0.5, 0.5),
    of_site: float = 0.0,
    of_label: float = 1.5,
    per_patient: Sequence[int] = (1, 2, 4),
    intraclass: float = 0.5,
) -> pd.DataFrame:
    """Recordings of patients who have one site each.

    Parameters
    ----------
    n_patients, seed : int
        The number of patients, and the seed.
    prevalence : sequence of float
        The share of patients with the label `af` at each site.
    of_site : float
        What a site adds to `x0`, times its number: the embedding knows the site.
    of_label : float
        What the label adds to `x1`.
    per_patient : sequence of int
        Numbers of recordings, one of which a patient has.
    intraclass : float
        The share of a feature's variance that is the patient's.
    """
    rng = np.random.default_rng(seed)
    n_sites = len(prevalence)
    site_of = rng.integers(n_sites, size=n_patients)
    af_of = rng.random(n_patients) < np.asarray(prevalence)[site_of]
    patient = np.repeat(np.arange(n_patients), rng.choice(per_patient, n_patients))
    X = features_of(rng, patient, of_site * site_of[patient], of_label * af_of[patient], intraclass)
    table = pd.DataFrame(X, columns=[f"x{each}" for each in range(C)])
    number = table.groupby(patient).cumcount()
    table["ecg"] = [f"p{one}/{other}.xml" for one, other in zip(patient, number, strict=True)]
    table["patient"] = [f"P{one:05d}" for one in patient]
    table["site"] = [f"site {'ABCDEFGHIJ'[one]}" for one in site_of[patient]]
    table["device"] = rng.choice(
        ["old", "new"], len(table)
    )  # varies within patients, and the embedding does not know it
    table["year"] = 2000 + rng.random(len(table)) * 20
    table["af"] = af_of[patient]
    table["study_id"] = np.arange(len(table))
    return table


def features_of(
    rng: np.random.Generator,
    patient: npt.NDArray[np.int64],
    site: npt.NDArray[np.float64],
    label: npt.NDArray[np.float64],
    intraclass: float,
    n_features: int = C,
) -> npt.NDArray[np.float64]:
    """Features with variance 1 [n, n_features], to which site (`x0`) and label (`x1`) are added."""
    of_patient = rng.standard_normal((int(patient.max()) + 1, n_features))[patient]
    X = np.sqrt(intraclass) * of_patient + np.sqrt(1 - intraclass) * rng.standard_normal((len(patient), n_features))
    X[:, 0] += site
    X[:, 1] += label
    return X
