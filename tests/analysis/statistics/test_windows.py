"""Models that are fitted to windows: a recording weighs 1, however many windows it has, and has one score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecgfounder.analysis.rows.selection import select
from ecgfounder.analysis.statistics.fitting import Task, fit_split
from ecgfounder.analysis.statistics.solver import Basis, fit_logistic, fit_ridge
from ecgfounder.analysis.statistics.splits import Split
from ecgfounder.analysis.statistics.windows import Windows, means_of, with_columns
from ecgfounder.errors import SettingsError
from ecgfounder.results import open_run
from tests.builders.runs import PATHS, Made

COUNTS = np.array([1, 3, 2, 5])
OWNER = np.repeat(np.arange(4), COUNTS)


def windows(seed: int = 0, n: int = 120) -> tuple[Windows, np.ndarray]:
    """Recordings with 1 to 6 windows, and a label."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(n), rng.integers(1, 7, n))
    of_recording = rng.standard_normal((n, 4))
    X = (of_recording[owner] + rng.standard_normal((len(owner), 4))).astype(np.float32)
    y = (of_recording[:, 0] + rng.logistic(size=n) > 0).astype(np.float32)[:, None]
    return Windows(X, owner), y


def test_windows_are_taken_by_recording() -> None:
    X = np.arange(22, dtype=np.float32).reshape(11, 2)
    shuffled = np.random.default_rng(0).permutation(11)
    every = Windows.of(X[shuffled], OWNER[shuffled])
    assert len(every) == 4
    assert every.weights.tolist() == pytest.approx((1 / COUNTS)[OWNER])
    assert np.allclose(every.means, [X[each == OWNER].mean(axis=0) for each in range(4)])
    some = every[np.array([3, 1])]
    assert some.owner.tolist() == [0] * 5 + [1] * 3
    assert np.allclose(some.means, every.means[[3, 1]])
    assert means_of(X) is X
    wider = with_columns(every, np.array([[7], [8], [9], [10]], np.float32))
    assert isinstance(wider, Windows)
    assert wider.X[:, 2].tolist() == (7 + OWNER).tolist()


def test_a_window_weighs_as_the_part_of_its_recording_that_it_is() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model", reason="the oracle is scikit-learn")
    every, Y = windows()
    basis = Basis.of(every.X, row_weights=every.weights)
    y, weights = Y[every.owner], every.weights
    mean = weights @ every.X / weights.sum()
    deviation = np.sqrt(weights @ (every.X - mean) ** 2 / weights.sum())
    assert np.allclose(basis.mean, mean, atol=1e-5)
    assert np.allclose(basis.scale, deviation, atol=1e-5)
    Z = (every.X.astype(np.float64) - mean) / deviation
    for C in (1e-2, 1.0):
        expected = linear_model.LogisticRegression(C=C, tol=1e-9, max_iter=10_000).fit(Z, y[:, 0], weights)
        found = fit_logistic(basis, y, [(C,)]).scores(every.X)[:, 0]
        assert np.abs(found - expected.decision_function(Z)).max() < 1e-3
        number = Z[:, 1] + 3 + Z[:, 2] ** 2
        ridge = linear_model.Ridge(alpha=1 / C).fit(Z, number, weights)
        assert np.allclose(fit_ridge(basis, number, [C]).scores(every.X)[:, 0], ridge.predict(Z), atol=1e-4)


def test_with_one_window_each_both_ways_are_the_same() -> None:
    every, Y = windows()
    alone = every.means
    split = Split(np.arange(80), np.arange(80, 120))
    task = Task(("a",), penalties=(0.01, 1.0))
    groups = np.arange(120)
    plain = fit_split(alone, Y, groups, split, task, 0)
    same = fit_split(Windows(alone, np.arange(120)), Y, groups, split, task, 0)
    assert np.allclose(plain.weights.weight, same.weights.weight, atol=1e-5)
    assert plain.C == same.C
    # A window twice is the same as once: it is half of its recording each time.
    twice = Windows(np.repeat(every.X, 2, axis=0), np.repeat(every.owner, 2))
    found = [fit_split(each, Y, groups, split, task, 0).weights.weight for each in (every, twice)]
    assert np.allclose(*found, atol=1e-5)
    assert not np.allclose(found[0], plain.weights.weight, atol=1e-2)


def test_windows_of_a_run(tmp_path: Path) -> None:
    options: dict[str, Any] = {"stride": 2.0, "n_windows": 3}
    made = Made(tmp_path / "run", format="parquet", pooling="mean", **options)
    every = select(open_run(made.make())).windows()
    assert len(every) == 4
    assert np.array_equal(every.X[3:6], made.embeddings(PATHS[1]))
    maps = Made(tmp_path / "maps", **options)
    spread = select(open_run(maps.make())).windows("mean_std")
    expected = [np.r_[each.mean(axis=0), each.std(axis=0)] for each in maps.embeddings(PATHS[0])]
    assert np.allclose(spread.X[:3], expected, atol=1e-5)
    with pytest.raises(SettingsError, match="combine='logit' has none"):
        select(open_run(tmp_path / "run")).windows("leads")
