"""Drawn ECGs of a report: a few of each flag, from the files as they were, without anything that names them."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ecgfounder import open_run
from ecgfounder.analysis import report
from ecgfounder.analysis.reporting.drawings import OF_EACH, draw, png_of
from ecgfounder.analysis.reporting.report_page import report_html
from ecgfounder.ecg.recording import Recording
from ecgfounder.storage import NO_OPTIONS
from tests.builders.probes import write_signals
from tests.builders.runs import BROKEN, Made

N = 5


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of five patients, and a run of them in which a file has changed since, and one failed."""
    place = tmp_path_factory.mktemp("drawn")
    paths = write_signals(place / "data", N)["ecg_paths"].tolist()
    flags = {path: ["clipped:V1"] for path in paths[:4]} | {paths[4]: ["flat_lead:II"]}
    facts = {path: {"sha256": None} for path in paths[:4]}  # that of the last one is another file's
    rows = [*zip(paths, range(N), strict=True), BROKEN]
    Made(place / "run", rows=rows, done_order=paths, flags=flags, facts=facts, pooling="mean", layout="tree").make()
    return place


def test_a_few_of_each_flag_are_drawn(place: Path) -> None:
    found = report(open_run(place / "run"), drawings=True, map="pca")
    drawings, n_unread = draw(found, str(place / "data"), NO_OPTIONS)
    assert [each.why for each in drawings] == ["flag clipped"] * OF_EACH
    assert n_unread == 2  # the changed file, and the one that failed because it is not there
    assert [each.name for each in drawings] == [None] * OF_EACH
    page = report_html(found, drawings, n_unread)
    images = re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="([^"]+)">', page)
    assert [about for _, about in images] == ["An ECG on paper; flag clipped"] * OF_EACH
    for data, _ in images:
        picture = Image.open(io.BytesIO(base64.b64decode(data)))
        assert picture.width > 700
        assert picture.text == {}
    assert "img-src data:" in page
    assert "2 chosen files could not be read again" in page
    assert ".hea" not in page


def test_names_of_drawn_recordings_are_shown_if_they_are_asked_for(place: Path) -> None:
    found = report(open_run(place / "run"), drawings=True, names=True, map="pca")
    drawings, _ = draw(found, str(place / "data"), NO_OPTIONS)
    page = report_html(found, drawings)
    for each in drawings:
        assert each.name is not None
        assert f"flag clipped: {each.name}</figcaption>" in page


def test_without_drawings_there_are_no_pictures(place: Path) -> None:
    page = report_html(report(open_run(place / "run"), map="pca"))
    assert "<img" not in page
    assert "img-src" not in page


def test_a_drawing_does_not_depend_on_what_the_file_says_of_itself() -> None:
    samples = np.sin(np.linspace(0, 60, 5000, dtype=np.float32))[None].repeat(2, axis=0)
    named = Recording(samples, 500.0, ("Miller", "II"), "edf", {"device_model": "MegaCart of Saint Nowhere"})
    plain = Recording(samples, 500.0, ("lead 1", "II"), "edf")
    assert png_of(named) == png_of(plain)
    assert len(png_of(named)) < 150_000
