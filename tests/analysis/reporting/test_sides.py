"""Sets that exclude each other: all families of them are tried, against a search without any shortcut."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from ecgfounder.analysis.reporting.sides import Mask, Sides


def few(mask: Mask) -> bool:
    return bool(0 < np.count_nonzero(mask) < 11)


def leaves_few(sides: list[Mask]) -> bool:
    """Whether any sets without anything in common leave few."""
    for size in range(1, len(sides) + 1):
        for chosen in combinations(sides, size):
            together = np.sum(chosen, axis=0)
            if together.max() < 2 and few(together == 0):
                return True
    return False


def test_a_set_is_accepted_if_no_family_leaves_few() -> None:
    rng = np.random.default_rng(0)
    n_refused = 0
    for _ in range(60):
        classes = rng.choice(6, 200, p=rng.dirichlet(np.full(6, 0.7)))
        sides, shown = Sides(few), []
        for _ in range(5):
            mask = np.isin(classes, rng.choice(6, int(rng.integers(1, 4)), replace=False))
            known = any(np.array_equal(mask, each) for each in shown)
            accepted = sides.accept(mask, 11)
            if not known:
                assert accepted != leaves_few([*shown, mask, ~mask])
                n_refused += not accepted
            if accepted and not known:
                shown += [mask, ~mask]
    assert n_refused > 50


def test_a_set_with_too_many_families_is_refused() -> None:
    """As if one patient had most of the recordings, so that any rest could be of few."""
    numbers = np.arange(300)
    sides = Sides(lambda _: False)
    accepted = [sides.accept(numbers // 15 == each, 300) for each in range(20)]
    assert accepted[:8] == [True] * 8
    assert not all(accepted)
