"""The solver finds what scikit-learn's exact solution is, for many labels, penalties and missing labels at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from ecgfounder.analysis.statistics import solver
from ecgfounder.analysis.statistics.solver import Basis, fit_logistic, fit_ridge

C = (1e-3, 0.1, 10.0)


def problem(n: int, d: int, n_labels: int, seed: int = 0) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Correlated features of different scales, away from zero, and labels of different prevalence."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((d, d)) * np.logspace(0, -2, d)
    X = (rng.standard_normal((n, d)) @ mixing + 3 * rng.standard_normal(d)).astype(np.float32)
    risk = (X - X.mean(0)) / X.std(0) @ rng.standard_normal((d, n_labels)) / np.sqrt(d)
    Y = 2 * risk + rng.logistic(size=(n, n_labels)) > rng.uniform(0, 3, n_labels)
    return X, Y.astype(np.float32)


def standardised(X: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    wide = X.astype(np.float64)
    return (wide - wide.mean(axis=0)) / wide.std(axis=0)


@pytest.mark.parametrize("exact", [True, False], ids=["float64", "float32"])
@pytest.mark.parametrize(("n", "d"), [(400, 12), (60, 90)], ids=["long", "wide"])
def test_logits_and_auroc_are_those_of_scikit_learn(
    n: int, d: int, exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model", reason="the oracle is scikit-learn")
    metrics = pytest.importorskip("sklearn.metrics")
    if not exact:
        monkeypatch.setattr(solver, "EXACT_UP_TO", 0)
    X, Y = problem(n, d, 2)
    models = fit_logistic(Basis.of(X), Y, [C, C])
    assert models.converged
    scores, Z = models.scores(X), standardised(X)
    for label in range(2):
        for at, each in enumerate(C):
            oracle = linear_model.LogisticRegression(C=each, tol=1e-9, max_iter=100_000).fit(Z, Y[:, label])
            expected, found = oracle.decision_function(Z), scores[:, label * len(C) + at]
            assert np.abs(found - expected).max() < 1e-3
            areas = [metrics.roc_auc_score(Y[:, label], each) for each in (found, expected)]
            assert abs(areas[0] - areas[1]) < 1e-5


def test_a_label_with_missing_values_is_fitted_on_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    X, Y = problem(300, 8, 2)
    known = np.random.default_rng(1).random(300) < 0.6
    Y[~known, 1] = np.nan
    both = fit_logistic(Basis.of(X), Y, [(0.1,), (0.1,)])
    # The same scaling for the label alone: that of all recordings.
    basis = Basis.of(X)
    gradient = standardised(X)[known].T @ (1 / (1 + np.exp(-both.scores(X)[known, 1])) - Y[known, 1])
    in_standard_units = both.weight[:, 1] * basis.scale
    assert np.abs(gradient + in_standard_units / 0.1).max() < 1e-4
    alone = fit_logistic(Basis.of(X), Y[:, :1], [(0.1,)])
    assert np.allclose(both.weight[:, 0], alone.weight[:, 0], atol=1e-6)


def test_features_that_do_not_vary_have_no_weight() -> None:
    X, Y = problem(200, 5, 1)
    X[:, 2] = 7
    models = fit_logistic(Basis.of(X), Y, [(1.0,)])
    assert models.weight[2, 0] == 0
    assert np.isfinite(models.scores(X)).all()
    constant = fit_logistic(Basis.of(np.ones((50, 3), np.float32)), Y[:50], [(1.0,)])
    share = Y[:50].mean()
    assert np.allclose(constant.scores(np.ones((1, 3), np.float32)), np.log(share / (1 - share)), atol=1e-5)


def test_a_label_that_the_features_separate_stops_at_the_penalised_solution() -> None:
    X, _ = problem(80, 6, 1)
    Y = (X[:, :1] > np.median(X[:, 0])).astype(np.float32)
    basis = Basis.of(X)
    models = fit_logistic(basis, Y, [(100.0,)])
    assert models.converged
    residual = 1 / (1 + np.exp(-models.scores(X)[:, 0])) - Y[:, 0]
    gradient = standardised(X).T @ residual + models.weight[:, 0] * basis.scale / 100
    assert np.abs([*gradient, residual.sum()]).max() < 1e-5


def test_ridge_is_that_of_scikit_learn() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model", reason="the oracle is scikit-learn")
    X, _ = problem(150, 20, 1)
    y = X[:, 0].astype(np.float64) * 2 + np.random.default_rng(0).standard_normal(150)
    models = fit_ridge(Basis.of(X), y, C)
    for at, each in enumerate(C):
        expected = linear_model.Ridge(alpha=1 / each).fit(standardised(X), y).predict(standardised(X))
        assert np.allclose(models.scores(X)[:, at], expected, atol=1e-5)


def test_the_same_bytes_twice() -> None:
    X, Y = problem(300, 10, 3)
    first, second = (fit_logistic(Basis.of(X), Y, [C] * 3) for _ in range(2))
    assert first.weight.tobytes() == second.weight.tobytes()


def test_another_rotation_gives_the_same_models() -> None:
    """Inner folds take the rotation of the training part: it speeds the solver up and decides nothing."""
    X, Y = problem(300, 12, 2)
    rows = np.flatnonzero(np.arange(300) % 3)
    whole = Basis.of(X)
    assert whole.is_full
    own, borrowed = Basis.of(X, rows), Basis.of(X, rows, rotation=whole.rotation)
    assert np.allclose(own.scale, borrowed.scale)
    found = [fit_logistic(basis, Y[rows], [C, C]) for basis in (own, borrowed)]
    assert np.abs(found[0].scores(X) - found[1].scores(X)).max() < 1e-4
    rough = fit_logistic(Basis.of(X, rows, rotation=whole.rotation, exact=False), Y[rows], [C, C], solver.ROUGH)
    assert rough.iterations < found[1].iterations
    assert np.abs(found[0].scores(X) - rough.scores(X)).max() < 0.02


def test_few_recordings_have_as_many_directions_less_one() -> None:
    X, _ = problem(40, 90, 1)
    basis = Basis.of(X)
    assert basis.rotation.shape == (90, 39)
    assert not basis.is_full
    assert np.allclose(basis.rotation.T @ basis.rotation, np.eye(39), atol=1e-8)
    # The same directions vary as much as in the products of features.
    expected = np.linalg.eigvalsh(np.corrcoef(X.astype(np.float64).T))[-39:]
    assert np.allclose(np.sort(basis.variances[:-1]), expected, atol=1e-6)
