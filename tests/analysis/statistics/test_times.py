"""Cox regression and metrics of times to an event: other programs' figures, definitions written out, and simulated truth.

The reference figures are those of scikit-survival 0.28.0 on `REFERENCE`: `CoxPHSurvivalAnalysis(alpha=1 / C, ties="efron",
tol=1e-14)` of standardised features, `concordance_index_ipcw(tau=8)`, `cumulative_dynamic_auc`, `brier_score` and
`BreslowEstimator`; lifelines 0.30.3's `CoxPHFitter` gives the same coefficients without a penalty to 1e-6.
"""

from __future__ import annotations

import numpy as np
import pytest

from ecgfounder.analysis.pages.tables import Row, rows_of
from ecgfounder.analysis.statistics.cox import Baseline, by_time, fit_cox, partial_loss, signed
from ecgfounder.analysis.statistics.evaluation import Data, Evaluation, evaluate_scores
from ecgfounder.analysis.statistics.fitting import TIME, Task
from ecgfounder.analysis.statistics.intervals import combined, drawn_patients, kind_of
from ecgfounder.analysis.statistics.solver import Basis
from ecgfounder.analysis.statistics.splits import Split
from ecgfounder.analysis.statistics.time_metrics import TimeTest, incidence
from tests.harness.times import TRUE_VALUES, coverage, simulated, true_values, with_hazards

N = 80
HORIZONS = (2.0, 5.0, 8.0)


def lattice(prime: int) -> np.ndarray:
    """Numbers between 0 and 1 that are the same everywhere."""
    return np.round((np.arange(1, N + 1) * np.sqrt(prime)) % 1, 6)


def reference() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features [80, 3], signed times, of which 52 are events at 14 distinct times, and scores with ties."""
    X = np.stack([lattice(prime) for prime in (2, 3, 5)], axis=1) - 0.5
    times = np.ceil(-np.log(lattice(7) + 1e-3) / np.exp(1.5 * X[:, 0] - X[:, 1]) * 8) / 2
    ends = np.ceil(-np.log(lattice(11) + 1e-3) * 14) / 2 + 0.25
    y = signed(np.minimum(times, ends), times <= ends)
    return X.astype(np.float32), y, np.round(1.2 * X[:, 0] - 0.5 * X[:, 1] + 0.8 * X[:, 2], 1)


def test_the_coefficients_are_those_of_other_programs_with_ties_and_a_penalty() -> None:
    X, y, _ = reference()
    order = by_time(y)
    assert ((y > 0).sum(), len(np.unique(y[y > 0]))) == (52, 14)
    found = fit_cox(Basis.of(X, order), y[order], (1e6, 0.1))
    expected = [[0.7698266747879271, -1.429628912461681, -0.6350519870798538]]
    expected += [[0.6228461417550591, -1.1726122851836536, -0.49169620858446167]]
    assert found.converged
    assert np.allclose(found.weight.T, expected, atol=2e-6)
    assert np.allclose(found.scores(X).mean(axis=0), 0, atol=1e-6)


def test_the_partial_likelihood_is_efrons() -> None:
    """Written out: at each time, every tied event with the sum over who is at risk, less a growing part of the tied ones."""
    _, y, scores = reference()
    hazards, times = np.exp(scores), np.abs(y)
    expected = 0.0
    for time in np.unique(y[y > 0]):
        tied = np.flatnonzero(y == time)
        for number in range(len(tied)):
            at_risk = hazards[times >= time].sum() - number / len(tied) * hazards[tied].sum()
            expected += np.log(at_risk) - scores[tied[number]]
    assert partial_loss(y, scores[:, None])[0] == pytest.approx(expected, rel=1e-12)
    assert partial_loss(y, scores[:, None] + 700)[0] == pytest.approx(
        expected, rel=1e-9
    )  # a constant has no part in it
    assert partial_loss(-np.abs(y), scores[:, None])[0] == 0  # without an event


def test_many_features_and_large_ones_converge_to_a_gradient_of_zero() -> None:
    rng = np.random.default_rng(0)
    X = (rng.standard_normal((150, 300)) * rng.uniform(0.01, 100, 300) + 50).astype(np.float32)
    y = with_hazards(rng.standard_normal(150), rng, digits=1)
    order = by_time(y)
    basis = Basis.of(X, order)
    found = fit_cox(basis, y[order], (1e-3, 1.0))
    scores = found.scores(X)
    for column, C in enumerate((1e-3, 1.0)):
        weight = found.weight[:, column] * basis.scale
        for direction in rng.standard_normal((3, 300)):
            step = 1e-4 / np.linalg.norm(direction)
            sides = []
            for sign in (-1, 1):
                moved = scores[:, column] + sign * step * (((X - basis.mean) / basis.scale) @ direction)
                penalty = ((weight + sign * step * direction) ** 2).sum() / (2 * C)
                sides.append(partial_loss(y, moved[:, None])[0] + penalty)
            assert abs(sides[1] - sides[0]) / (2 * step) < 2e-2 * np.linalg.norm(direction)


def test_the_baseline_is_breslows_and_gives_risks() -> None:
    _, y, scores = reference()
    baseline = Baseline.of(y, scores)
    assert [baseline.at(time) for time in HORIZONS] == pytest.approx(
        [0.3754023321797462, 1.10516156652317, 1.5880463513355303], rel=1e-10
    )
    assert baseline.at(0.2) == 0
    risks = baseline.risks(np.array([0.0, 800.0, -800.0]), HORIZONS)
    assert risks[0] == pytest.approx(1 - np.exp(-np.array([baseline.at(time) for time in HORIZONS])))
    assert risks[1].tolist() == [1, 1, 1]
    assert risks[2].tolist() == [0, 0, 0]


def test_a_known_hazard_is_found_again() -> None:
    rng = np.random.default_rng(1)
    X = rng.standard_normal((4000, 3)).astype(np.float32)
    y = with_hazards(-2 + X @ np.array([0.8, -0.4, 0.0]), rng)
    order = by_time(y)
    found = fit_cox(Basis.of(X, order), y[order], (1e4,))
    assert np.allclose(found.weight[:, 0], [0.8, -0.4, 0.0], atol=0.06)
    scores = found.scores(X)[:, 0]
    baseline = Baseline.of(y, scores)
    at_mean = np.exp(-2 + X.mean(axis=0) @ np.array([0.8, -0.4, 0.0]))
    for time in (0.5, 2.0, 5.0):
        assert baseline.at(time) == pytest.approx(at_mean * time, rel=0.06)


# --- metrics -----------------------------------------------------------------------------------------------------------


def test_the_metrics_are_those_of_another_program() -> None:
    _, y, scores = reference()
    risks = np.stack([1 / (1 + np.exp(-(scores - 1 + time / 5))) for time in HORIZONS], axis=1)
    found = TimeTest(y, scores, np.arange(N), N, HORIZONS, risks).metrics()
    expected = {
        "uno_c": [0.5860292359418771],
        "auroc": [0.5795525918442466, 0.6436361270793003, 0.5119209417574645],
        "brier": [0.22894484929064002, 0.23961091407880267, 0.1899923961972116],
        "risk": [0.3619403681134187, 0.6990542856207702, 0.8176086579519819],
    }
    for name, values in expected.items():
        names = [name] if len(values) == 1 else [f"{name}@{time:g}" for time in HORIZONS]
        assert [found[each][0] for each in names] == pytest.approx(values, rel=1e-10)
    assert incidence(y, HORIZONS) == pytest.approx(expected["risk"], rel=1e-10)
    everyone = TimeTest(y, scores, np.arange(N), N, HORIZONS, np.tile(expected["risk"], (N, 1))).metrics()
    for number, time in enumerate(HORIZONS):
        assert everyone[f"scaled_brier@{time:g}"][0] == pytest.approx(0, abs=1e-12)
        assert everyone[f"calibration_ratio@{time:g}"][0] == pytest.approx(1, rel=1e-12)
        assert found[f"calibration_ratio@{time:g}"][0] == pytest.approx(
            expected["risk"][number] / risks[:, number].mean(), rel=1e-10
        )


def test_without_an_end_of_observation_the_concordance_is_that_of_all_pairs() -> None:
    _, y, scores = reference()
    times = np.abs(y)
    earlier = times[:, None] < times
    right = (scores[:, None] > scores) + 0.5 * (scores[:, None] == scores)
    found = TimeTest(times, scores, np.arange(N), N, (1e6,)).metrics()
    assert found["uno_c"][0] == pytest.approx(right[earlier].mean(), rel=1e-12)
    assert np.isnan(found["auroc@1e+06"][0])  # nobody is observed for longer
    assert "brier@1e+06" not in found  # a score without risks


def test_a_draw_is_the_same_as_the_recordings_that_it_has() -> None:
    _, y, scores = reference()
    risks = np.full((N, 3), 0.4)
    weights = drawn_patients(N, 20, np.random.default_rng(2))
    drawn = TimeTest(y, scores, np.arange(N), N, HORIZONS, risks).metrics(weights)
    for number, each in enumerate(weights):
        rows = np.repeat(np.arange(N), each.astype(int))
        alone = TimeTest(y[rows], scores[rows], np.arange(len(rows)), len(rows), HORIZONS, risks[rows]).metrics()
        for name, values in alone.items():
            assert drawn[name][number] == pytest.approx(values[0], rel=1e-9)


def test_a_draw_without_an_event_has_no_figure() -> None:
    y = np.array([1.0, -2.0, -3.0, 2.5], np.float32)
    weights = np.array([[0.0, 1, 1, 0], [1, 1, 1, 1], [1, 1, 0, 0]])
    found = TimeTest(y, np.arange(4.0), np.arange(4), 4, (2.0,), np.full((4, 1), 0.5)).metrics(weights)
    assert np.isnan(found["uno_c"]).tolist() == [True, False, False]
    assert np.isnan(found["auroc@2"]).tolist() == [True, False, True]
    assert np.isnan(found["brier@2"]).tolist() == [True, False, True]
    one_part, _ = combined([{name: values[1:2] for name, values in found.items()}], [found])
    assert (one_part["auroc@2"].n_draws, one_part["auroc@2"].n_unscored) == (3, 2)


def test_censoring_does_not_move_the_figures() -> None:
    """Of the same patients, observed to the end or not: means over 40 simulations."""
    short, long_ = [], []
    for seed in range(40):
        short.append(simulated(400, np.random.default_rng(seed), censored=0.4).metrics())
        long_.append(simulated(400, np.random.default_rng(seed), censored=0).metrics())
    for name, tolerance in (("uno_c", 0.012), ("auroc@3", 0.012), ("brier@3", 0.006), ("risk@3", 0.01)):
        apart = np.mean([one[name][0] - two[name][0] for one, two in zip(short, long_, strict=True)])
        assert abs(apart) < tolerance, name
        assert np.mean([each[name][0] for each in long_]) == pytest.approx(TRUE_VALUES[name], abs=tolerance)


def test_intervals_cover_the_true_value() -> None:
    found = coverage(200, n_patients=120, n_draws=120)
    assert all(0.89 <= share <= 0.99 for share in found.values()), found
    assert kind_of("uno_c") == kind_of("risk@3") == kind_of("brier@3") == "logit"
    assert kind_of("calibration_ratio@3") == "normal"


@pytest.mark.slow
@pytest.mark.parametrize("n_patients", [120, 200, 400])
def test_intervals_cover_the_true_value_in_1000_simulations(n_patients: int) -> None:
    assert true_values() == pytest.approx(TRUE_VALUES, abs=1e-3)
    found = coverage(1000, n_patients=n_patients, n_draws=500)
    assert all(0.92 <= share <= 0.98 for share in found.values()), found


# --- few patients with the event up to a time ---------------------------------------------------------------------------


def of_scores(
    y: np.ndarray, n_parts: int = 1, horizons: tuple[float, ...] = (1.0, 5.0)
) -> tuple[Evaluation, list[Row]]:
    rng = np.random.default_rng(0)
    part = np.arange(len(y)) % n_parts
    splits = tuple(Split(np.arange(len(y)), np.flatnonzero(part == each)) for each in range(n_parts))
    data = Data(y[:, None], np.arange(len(y)), splits, Task(("death",), TIME, horizons=horizons), n_draws=50)
    found = evaluate_scores(rng.standard_normal((len(y), 1)), data, is_logit=False)
    return found, rows_of(found, "score", "split", 0, 60)


def some_early(n_early: int) -> np.ndarray:
    """200 patients of whom some have the event at 0.5, and others from 2 on."""
    rng = np.random.default_rng(1)
    time, event = rng.uniform(2, 10, 200), rng.random(200) < 0.4
    time[:n_early], event[:n_early] = 0.5, True
    return signed(time, event)


def test_metrics_up_to_a_time_with_few_events_are_not_scored() -> None:
    y = some_early(1)
    found, rows = of_scores(y)
    by_metric = {row.metric: row for row in rows}
    assert np.isnan(found.estimates["death"]["auroc@1"].value)
    assert np.isnan(found.draws["death"]["risk@1"]).all()
    for metric in ("auroc@1", "risk@1"):
        row = by_metric[metric]
        assert (row.estimate, row.low, row.n_pos_patients) == (None, None, 1)
        assert row.note == "not scored: fewer than 10 patients with the event up to 1 in the test part"
    n_up_to_5 = int(((y > 0) & (y <= 5)).sum())
    assert by_metric["auroc@5"].estimate is not None
    assert by_metric["auroc@5"].n_pos_patients == n_up_to_5
    assert "few patients (fewer than 60 with the event up to 5)" in by_metric["auroc@5"].note
    assert by_metric["uno_c"].estimate is not None
    assert by_metric["uno_c"].n_pos_patients == (y > 0).sum()


def test_a_test_part_without_a_case_is_named() -> None:
    y = some_early(24)
    y[1:24:2] *= -1  # of the second part: observed until then
    found, rows = of_scores(y, 2)
    row = next(row for row in rows if row.metric == "auroc@1")
    assert row.estimate is None
    assert row.note == "not scored: a test part without patients with the event up to 1"
    assert np.isfinite(found.estimates["death"]["auroc@5"].value)


def test_few_who_are_observed_beyond_a_time_are_too_few() -> None:
    y = some_early(1)
    beyond = np.sort(np.abs(y))[-5]
    _, rows = of_scores(y, 1, (5.0, float(beyond)))
    row = next(row for row in rows if row.metric == f"auroc@{beyond:g}")
    assert row.note.startswith("not scored: fewer than 10 patients observed beyond")


def test_with_few_events_before_the_last_time_nothing_is_scored() -> None:
    found, (row,) = of_scores(some_early(9), 1, (1.0,))
    assert found.not_scored == {"death": "fewer than 10 patients with the event before 1 in the test part"}
    assert row.note == f"not scored: {found.not_scored['death']}"
