"""All counts of a report together tell of no few patients: an attacker solves for them."""

from __future__ import annotations

import numpy as np
import pytest

from ecgfounder.analysis.reporting.cells import Trial
from tests.harness.disclosure import attacked


@pytest.mark.parametrize(("n", "by_patient"), [(150, False), (400, True)])
def test_an_attacker_with_the_whole_report_counts_no_few_patients(n: int, by_patient: bool) -> None:
    found = attacked(0, n, by_patient=by_patient)
    assert found.n_counts > 15
    assert found.n_few > 50
    assert found.n_told == 0


def test_the_attacker_would_succeed_if_tables_were_looked_at_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each cell is large enough by itself, but not what tables tell together."""
    monkeypatch.setattr(Trial, "_borders", lambda *_: iter(()))
    assert attacked(0, 400, by_patient=False).n_told > 0


@pytest.mark.slow
def test_an_attacker_with_many_reports_counts_no_few_patients() -> None:
    rng = np.random.default_rng(1)
    for seed in range(20):
        found = attacked(seed, int(rng.choice([80, 200, 500, 1500])), by_patient=bool(seed % 2), n_triples=3000)
        assert found.n_told == 0, seed
