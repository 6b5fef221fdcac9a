"""The map by UMAP, where umap-learn is installed (`make test-services`)."""

from __future__ import annotations

import html
from pathlib import Path

import numpy as np
import pytest

from ecgfounder import open_run
from ecgfounder.analysis import report
from ecgfounder.analysis.reporting.report_page import report_html
from ecgfounder.analysis.reporting.vectors import Sample, with_umap
from tests.builders.reports import write_hospital_run

pytestmark = pytest.mark.services

pytest.importorskip("umap", reason="umap-learn is not installed (make test-services)")


def test_neighbours_stay_neighbours() -> None:
    rng = np.random.default_rng(0)
    which = np.repeat([0, 1, 2], 100)
    components = (10 * np.eye(3)[which] + rng.standard_normal((300, 3))).astype(np.float32)
    ones = np.ones(300)
    found = with_umap(Sample(np.arange(300), ones, ones, components, np.ones(3) / 3, 3), 0, lambda _: None).map
    assert found is not None
    apart = np.linalg.norm(found[:, None] - found[None], axis=2) + 1e9 * np.eye(300)
    assert np.mean(which[apart.argmin(axis=1)] == which) > 0.98


def test_the_page_says_what_distances_mean(tmp_path: Path) -> None:
    run = open_run(write_hospital_run(tmp_path / "run", 200))
    page = html.unescape(report_html(report(run, map="auto")))
    assert "distances between clusters, their sizes and their shapes mean little" in page
    assert "All recordings of the sample, UMAP" in page
    assert "UMAP" not in report_html(report(run, map="pca"))
