"""Drawings have the right leads at their places, and can be measured with a ruler."""

from __future__ import annotations

import dataclasses
import importlib.util
import struct
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.ecg.plot import (
    BAND_HEIGHT,
    LEAD_IN,
    MARGIN,
    STANDARD_ROWS,
    TITLE_HEIGHT,
    Band,
    bars_of,
    figure_of,
    footer_of,
    last_rows,
    plot_recording,
    rows_of,
)
from ecgfounder.ecg.recording import Recording
from ecgfounder.errors import MissingDependencyError, RunError, SettingsError
from tests.builders.philips import STORED, recording_of


def test_twelve_leads_are_in_four_columns_in_time_sequence() -> None:
    recording = recording_of()
    rows = rows_of(recording)
    assert [[trace.label for trace in row.traces] for row in rows] == [*map(list, STANDARD_ROWS), ["II"]]
    for row in rows[:3]:
        assert [trace.place for trace in row.traces] == [0, 2.5, 5, 7.5]
        for column, trace in enumerate(row.traces):
            stored = recording.samples[STANDARD_LEADS.index(trace.label), column * 1250 : (column + 1) * 1250]
            np.testing.assert_allclose(trace.millivolts, stored - np.median(stored), atol=1e-6)
    assert rows[3].traces[0].millivolts.size == 5000


def test_leads_that_can_be_derived_are_drawn_and_named() -> None:
    recording = recording_of(STORED)
    rows = rows_of(recording)
    assert [trace.label for trace in rows[2].traces] == ["III", "aVF", "V3", "V6"]
    i, ii = recording.samples[0, :1250], recording.samples[1, :1250]
    np.testing.assert_allclose(rows[2].traces[0].millivolts, ii - i - np.median(ii - i), atol=1e-6)
    assert "derived: III aVR aVL aVF" in footer_of(recording, rows)[1]


def test_leads_beyond_the_twelve_follow_the_rhythm_strip() -> None:
    rows = rows_of(recording_of((*STANDARD_LEADS, "vx", "vy", "vz"), seconds=10))
    assert [row.traces[0].label for row in rows[3:]] == ["II", "vx", "vy", "vz"]


def test_a_long_recording_has_a_rhythm_strip_of_up_to_a_minute() -> None:
    recording = recording_of((*STANDARD_LEADS, "vx"), seconds=33)
    rows = rows_of(recording)
    assert [(row.traces[0].label, row.traces[0].start) for row in rows[3:]] == [
        *(("II", start) for start in (0, 10, 20, 30)),
        ("vx", 0),
    ]
    stored = recording.samples[1, 10_000:15_000]
    np.testing.assert_allclose(rows[5].traces[0].millivolts, stored - np.median(stored), atol=1e-6)
    assert rows[6].traces[0].millivolts.size == 1500
    assert footer_of(recording, rows)[1] == ""
    day = recording_of(("V1", "II"), seconds=100.0)
    assert [row.traces[0].label for row in rows_of(day)] == ["II", "V1", *["II"] * 5]
    assert footer_of(day, rows_of(day))[1] == "the first 60 s of 100 s"
    assert len(rows_of(recording_of(seconds=11.0))) == 4


@pytest.mark.parametrize(
    ("leads", "seconds", "labels"),
    [
        (STANDARD_LEADS, 5.0, list(STANDARD_LEADS)),
        (("V1", "MLII", "Smith"), 60.0, ["V1", "MLII", "channel 3", *["V1"] * 5]),
        (("V2", "I", "II"), 10.0, ["I", "II", "III", "aVR", "aVL", "aVF", "V2"]),
        (("I",), 25.0, ["I", "I", "I"]),
        (("I",), 3600.0, ["I"] * 6),
    ],
)
def test_other_recordings_have_a_row_for_each_lead(leads: tuple[str, ...], seconds: float, labels: list[str]) -> None:
    rows = rows_of(recording_of(leads, seconds, rate=100.0))
    assert [trace.label for row in rows for trace in row.traces] == labels
    assert all(len(row.traces) == 1 and row.traces[0].millivolts.size <= 1000 for row in rows)


def test_footer_has_scale_filters_and_what_is_left_out() -> None:
    recording = recording_of(seconds=11, highpass_hz=0.05, lowpass_hz=150.0, notch_hz=50.0)
    first, second = footer_of(recording, rows_of(recording))
    assert first.split("    ") == ["25 mm/s", "10 mm/mV", "0.05-150 Hz, notch 50 Hz", "500 Hz"]
    assert second == "the first 10 s of 11 s"
    many = recording_of([f"electrode {number}" for number in range(30)])
    assert "6 more leads are not drawn" in footer_of(many, rows_of(many))[1]
    whole = recording_of()
    assert footer_of(whole, rows_of(whole))[1] == ""


def test_offset_is_taken_off_and_wrong_units_do_not_blow_up_the_page() -> None:
    offset = recording_of(("I", "V1"))
    far = Recording(offset.samples + np.float32(30), 500.0, offset.leads, "synthetic")
    assert [(row.up, row.down) for row in rows_of(far)] == [(row.up, row.down) for row in rows_of(offset)]
    microvolts = Recording(offset.samples * 1000, 500.0, offset.leads, "synthetic")
    rows = rows_of(microvolts)
    assert all(row.up + row.down <= 80 for row in rows)
    assert "cut off at the row's edge: I V1" in footer_of(microvolts, rows)[1]


@settings(max_examples=60, deadline=None)
@given(
    n_leads=st.integers(1, 14),
    n_samples=st.integers(1, 3000),
    rate=st.sampled_from([0.5, 33.3, 100.0, 257.0, 1e6]),
    value=st.sampled_from([0.0, 1e-3, 3.0, 1e30, np.nan, np.inf]),
    seed=st.integers(0, 100),
)
def test_every_recording_has_rows_that_hold_their_traces_and_labels(
    n_leads: int, n_samples: int, rate: float, value: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    samples = rng.normal(0, 1, (n_leads, n_samples)).astype(np.float32)
    samples[rng.random(samples.shape) < 0.2] = value
    rows = rows_of(Recording(samples, rate, (*STANDARD_LEADS, "vx", "odd")[:n_leads], "synthetic"))
    for row in rows:
        assert row.up % 5 == row.down % 5 == 0
        for trace in row.traces:
            heights = trace.millivolts[np.isfinite(trace.millivolts)] * 10
            assert trace.label in row.cut_off or np.all((heights < row.up) & (heights > -row.down))
            assert 0 < row.label_height(trace, rate) <= row.up - 3


matplotlib_only = pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None, reason="needs the extra 'report' (matplotlib)"
)


def lines_by_name(figure: Any) -> dict[str, Any]:
    return {line.get_gid(): line for line in figure.axes[0].lines if line.get_gid()}


@matplotlib_only
def test_a_second_is_25_mm_and_a_millivolt_10_mm_of_paper() -> None:
    recording = recording_of()
    figure = figure_of(recording, "title")
    pixels_per_mm = figure.dpi / 25.4
    line = lines_by_name(figure)["trace-3-II"]
    pixels = figure.axes[0].transData.transform(line.get_xydata()) / pixels_per_mm
    assert pixels[500, 0] - pixels[0, 0] == pytest.approx(25, abs=1e-6)
    stored = recording.samples[1]
    expected = (stored - stored[0]).astype(np.float64) * 10
    np.testing.assert_allclose(pixels[:, 1] - pixels[0, 1], expected, atol=1e-4)


@matplotlib_only
def test_paper_is_as_large_as_its_coordinates_say() -> None:
    figure = figure_of(recording_of())
    width, height = figure.get_size_inches() * 25.4
    assert figure.axes[0].get_xlim() == pytest.approx((0, width))
    assert figure.axes[0].get_ylim() == pytest.approx((0, height))
    assert figure.axes[0].get_position().bounds == (0, 0, 1, 1)
    assert width <= 297  # ten seconds fit on A4


@matplotlib_only
def test_each_lead_is_drawn_at_its_place() -> None:
    lines = lines_by_name(figure_of(recording_of()))
    for number, leads in enumerate(STANDARD_ROWS):
        for column, lead in enumerate(leads):
            x = lines[f"trace-{number}-{lead}"].get_xdata()
            assert x[0] == pytest.approx(MARGIN + LEAD_IN + 62.5 * column)
            assert 62 < x[-1] - x[0] < 62.5
    heights = [np.median(lines[f"trace-{row}-{lead}"].get_ydata()) for row, lead in enumerate(("I", "II", "III", "II"))]
    assert heights == sorted(heights, reverse=True)


@matplotlib_only
def test_each_row_begins_with_a_calibration_mark_of_1_mv_and_200_ms() -> None:
    lines = lines_by_name(figure_of(recording_of()))
    for number in range(4):
        x, y = lines[f"calibration-{number}"].get_data()
        top = [here for here, height in zip(x, y, strict=True) if height == max(y)]
        assert max(top) - min(top) == pytest.approx(5)
        assert max(y) - min(y) == pytest.approx(10)
        assert max(x) < MARGIN + LEAD_IN


@matplotlib_only
def test_grid_is_pink_and_the_marks_lie_on_its_bold_lines() -> None:
    from matplotlib.colors import to_rgb

    figure = figure_of(recording_of())
    grids = {grid.get_gid(): grid for grid in figure.axes[0].collections}
    for grid in grids.values():
        red, green, blue = to_rgb(grid.get_color()[0])
        assert red > blue >= green
    levels = {round(float(line[0][1]), 6) for line in grids["grid-5mm"].get_segments() if line[0][1] == line[1][1]}
    assert {round(b - a, 6) for a, b in zip(sorted(levels), sorted(levels)[1:], strict=False)} == {5}
    assert {round(float(lines_by_name(figure)[f"calibration-{n}"].get_ydata()[0]), 6) for n in range(4)} <= levels


def texts_by_name(figure: Any) -> dict[str, Any]:
    return {text.get_gid(): text for text in figure.axes[0].texts if text.get_gid()}


@matplotlib_only
@pytest.mark.parametrize("title", ["a.xml", "ward-7/" + "x" * 300 + "-0042.xml", "line\nbreak \x1b[2J.xml"])
def test_the_heading_tells_printouts_apart_and_fits_above_the_chart(title: str) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    meta = {"device_manufacturer": "GE", "device_model": "MAC " + "5500 HD " * 20, "format_version": "1.04"}
    recording = dataclasses.replace(recording_of(), meta=meta)
    figure = figure_of(recording, title, heart_rate=71.6)
    texts = texts_by_name(figure)
    assert texts["facts"].get_text().startswith("heart rate 72/min    GE MAC 5500 HD")
    assert texts["title"].get_text()[:4] == title[:4]
    assert texts["title"].get_text().isprintable()
    assert texts["title"].get_text().endswith(title[-4:])
    renderer = FigureCanvasAgg(figure).get_renderer()
    left, right = (texts[name].get_window_extent(renderer) for name in ("title", "facts"))
    assert left.x1 < right.x0
    width, height = figure.get_size_inches() * figure.dpi
    assert left.x0 >= MARGIN / 25.4 * figure.dpi - 1
    assert right.x1 <= width - MARGIN / 25.4 * figure.dpi + 1
    chart_top = height - (TITLE_HEIGHT + MARGIN) / 25.4 * figure.dpi
    assert min(left.y0, right.y0) > chart_top
    assert max(left.y1, right.y1) < height


@matplotlib_only
def test_a_drawing_without_title_or_beats_names_the_recorder_alone() -> None:
    texts = texts_by_name(figure_of(dataclasses.replace(recording_of(), meta={}, source_format="ge_muse")))
    assert "title" not in texts
    assert texts["facts"].get_text() == "GE MUSE XML"


@matplotlib_only
def test_png_prints_at_true_scale(tmp_path: Path) -> None:
    """The millivolt of the first row's calibration mark is 100 of the pixels of which the file says 10 are a millimetre."""
    from matplotlib.image import imread

    out = tmp_path / "out.png"
    figure = figure_of(recording_of())
    plot_recording(recording_of(), out)
    content = out.read_bytes()
    width, height = struct.unpack(">II", content[16:24])
    at = content.index(b"pHYs") + 4
    assert struct.unpack(">IIB", content[at : at + 9]) == (10_000, 10_000, 1)
    assert [width / 10, height / 10] == pytest.approx(figure.get_size_inches() * 25.4, abs=0.11)

    x, y = lines_by_name(figure)["calibration-0"].get_data()
    middle, left = round((x[2] + x[3]) / 2 * 10), round((x[0] + x[1]) / 2 * 10)
    dark = imread(out)[:, :, :3].max(axis=2) < 0.4
    first_row = rows_of(recording_of())[0]
    bottom = round((MARGIN + TITLE_HEIGHT + first_row.up + first_row.down) * 10)
    top = np.flatnonzero(dark[:bottom, middle]).mean()
    foot = np.flatnonzero(dark[:bottom, left]).mean()
    assert foot - top == pytest.approx(100, abs=1)
    assert height - foot == pytest.approx(y[0] * 10, abs=1.5)


@matplotlib_only
def test_svg_has_its_size_in_true_units(tmp_path: Path) -> None:
    out = tmp_path / "OUT.SVG"
    plot_recording(recording_of(), out, "a $title")
    root = ElementTree.parse(out).getroot()
    millimetres = [float(root.get(side, "").removesuffix("pt")) * 25.4 / 72 for side in ("width", "height")]
    assert millimetres == pytest.approx(figure_of(recording_of(), "title").get_size_inches() * 25.4, abs=1e-3)
    assert root.get("viewBox", "").split()[2:] == [root.get("width", "")[:-2], root.get("height", "")[:-2]]


@matplotlib_only
def test_settings_of_the_users_matplotlib_do_not_change_the_scale(tmp_path: Path) -> None:
    import matplotlib

    plot_recording(recording_of(), tmp_path / "plain.png")
    theirs = {"savefig.bbox": "tight", "savefig.dpi": 50, "figure.dpi": 30, "axes.xmargin": 0.4, "lines.marker": "o"}
    with matplotlib.rc_context(theirs):
        plot_recording(recording_of(), tmp_path / "theirs.png")
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "theirs.png").read_bytes()


@matplotlib_only
def test_drawing_leaves_pyplot_alone(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np; from pathlib import Path; from ecgfounder.ecg.recording import Recording;"
        "from ecgfounder.ecg.plot import plot_recording;"
        "plot_recording(Recording(np.ones((1, 500), np.float32), 500.0, ('I',), 'x'), Path(sys.argv[1]));"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "out.png")]
    assert subprocess.run(words, check=False).returncode == 0


@matplotlib_only
@pytest.mark.parametrize("suffix", ["png", "svg"])
@pytest.mark.parametrize("seconds", [0.002, 4.0, 10.0])
def test_short_nan_and_single_lead_recordings_can_be_drawn(tmp_path: Path, suffix: str, seconds: float) -> None:
    for leads in (("I",), STANDARD_LEADS):
        samples = recording_of(leads, seconds).samples.copy()
        samples[-1] = np.nan
        out = tmp_path / f"out.{suffix}"
        plot_recording(Recording(samples, 500.0, leads, "synthetic"), out)
        assert out.read_bytes().startswith(b"\x89PNG" if suffix == "png" else b"<?xml")


def test_other_file_types_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"\.png or \.svg"):
        plot_recording(recording_of(), tmp_path / "out.pdf")


@matplotlib_only
def test_drawing_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot be written"):
        plot_recording(recording_of(), tmp_path / "no such folder" / "out.png")


def test_without_matplotlib_the_install_command_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r"ecgfounder\[report\]"):
        figure_of(recording_of())


# --- bands ------------------------------------------------------------------------------------------------------------


def band(n: int, step: float = 0.5) -> Band:
    starts = np.arange(n) * step
    return Band("evidence", np.stack([starts, starts + step], axis=1), np.arange(n) - 2.0, ("a caption $ of a band",))


def test_a_band_is_below_the_last_row_of_each_stretch_of_time() -> None:
    assert last_rows(rows_of(recording_of())) == [3]
    long = rows_of(recording_of((*STANDARD_LEADS, "vx"), seconds=33))
    assert sorted(last_rows(long)) == [4, 5, 6, 7]  # three strips, then the lead that starts anew
    assert [long[number].traces[0].start for number in sorted(last_rows(long))] == [10, 20, 30, 0]


def test_bars_have_their_place_in_time_and_the_longest_is_of_length_one() -> None:
    rows = rows_of(recording_of(("II",), seconds=33))
    bars = [bars_of(band(66), row, 500) for row in rows]
    assert [len(each) for each in bars] == [20, 20, 20, 6]
    assert bars[1][0] == pytest.approx((0, 0.5, 18 / 63))
    assert bars[3][-1] == pytest.approx((2.5, 3.0, 1.0))
    assert bars[0][0] == pytest.approx((0, 0.5, -2 / 63))
    cut = bars_of(band(3, step=7.0), rows[0], 500)
    assert [each[:2] for each in cut] == [(0, 7), (7, 10)]
    assert [share for *_, share in bars_of(Band("x", np.array([[0.0, 1.0]]), np.zeros(1), ()), rows[0], 500)] == [0]


@matplotlib_only
def test_bands_have_room_of_their_own_and_captions(tmp_path: Path) -> None:
    plain, both = figure_of(recording_of()), figure_of(recording_of(), bands=(band(20), band(20)))
    taller = (both.get_size_inches() - plain.get_size_inches()) * 25.4
    assert taller[0] == pytest.approx(0)
    assert 2 * BAND_HEIGHT <= taller[1] < 2 * BAND_HEIGHT + 10
    out = tmp_path / "out.svg"
    plot_recording(recording_of(), out, bands=(band(20), band(20)))
    content = out.read_text()
    assert content.count('id="band-0-3"') == content.count('id="band-1-3"') == 20
    assert content.count("a caption $ of a band") >= 2
