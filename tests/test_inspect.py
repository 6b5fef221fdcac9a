"""What `ecgfounder inspect` says is what was read, no file stops it, and its drawings can be measured with a ruler."""

from __future__ import annotations

import argparse
import base64
import errno
import importlib.util
import io
import json
import math
import os
import struct
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgfounder.cli import main
from ecgfounder.commands import inspect
from ecgfounder.commands.inspect import add_inspect_arguments, describe, find_out, kind_of, run_inspect
from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.ecg.plot import LEAD_IN, MARGIN, STANDARD_ROWS, figure_of, footer_of, plot_recording, rows_of
from ecgfounder.ecg.recording import Recording
from ecgfounder.errors import MissingDependencyError, RunError, SettingsError
from ecgfounder.preprocess import quality

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "ecg"
STORED = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")


def counts_of(n_leads: int, n_samples: int = 5000, seed: int = 0) -> np.ndarray:
    """Something that moves like an ECG: waves of 1 mV at 5 uV per count, a little different in each lead."""
    time = np.arange(n_samples) / 500
    beats = np.maximum(0, np.sin(2 * np.pi * 1.2 * time)) ** 20
    scale = np.random.default_rng(seed).uniform(0.5, 1.0, (n_leads, 1))
    return np.asarray(np.round(200 * scale * beats + 8 * np.sin(time * 9)), dtype="<i2")


def philips(leads: Sequence[str] = STORED, counts: np.ndarray | None = None, rate: int = 500) -> bytes:
    counts = counts_of(len(leads)) if counts is None else counts
    return (
        '<?xml version="1.0"?><restingecgdata xmlns="http://www3.medical.philips.com">'
        "<documentinfo><documenttype>PhilipsECG</documenttype><documentversion>1.04</documentversion></documentinfo>"
        "<patient><generalpatientdata><patientid>77-PATIENT</patientid><name><lastname>Smith</lastname></name>"
        "</generalpatientdata></patient>"
        '<dataacquisition date="2001-02-03"><machine machineid="1" detaildescription="Philips:860315:A.1">TC50</machine>'
        "</dataacquisition><waveforms>"
        f'<parsedwaveforms dataencoding="Base64" compression="None" numberofleads="{len(leads)}" resolution="5"'
        f' durationperchannel="{counts.shape[1] * 1000 / rate:g}" samplespersecond="{rate}" hipass="0.05" lowpass="150"'
        f' notchfiltered="True" notchfilterfreqs="60 120" bitspersample="16" leadlabels="{" ".join(leads)}">'
        f"{base64.b64encode(counts.astype('<i2').tobytes()).decode()}</parsedwaveforms></waveforms></restingecgdata>"
    ).encode()


def recording_of(
    leads: Sequence[str] = STANDARD_LEADS, seconds: float = 10.0, rate: float = 500.0, **meta: float
) -> Recording:
    samples = counts_of(len(leads), round(seconds * rate)).astype(np.float32) * np.float32(0.005)
    return Recording(samples, rate, tuple(leads), "synthetic", meta)


def run(*words: str | Path) -> int:
    parser = argparse.ArgumentParser()
    add_inspect_arguments(parser)
    return run_inspect(parser.parse_args([str(word) for word in words]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three files that can be read, two of which are damaged in the same way, and one of another kind."""
    root = tmp_path / "archive"
    (root / "ward").mkdir(parents=True)
    (root / "a.xml").write_bytes(philips())
    (root / "b.xml").write_bytes(philips(STANDARD_LEADS))
    (root / "ward" / "c.xml").write_bytes(philips(("II",)))
    (root / "ward" / "d.xml").write_bytes(philips()[:700])
    (root / "ward" / "e.xml").write_bytes(b"")
    (root / "ward" / "f.xml").write_bytes(b"")
    (root / "notes.doc").write_bytes(b"not of this cohort")
    return root


# --- one file --------------------------------------------------------------------------------------------------------


def test_page_says_what_was_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.xml"
    path.write_bytes(philips())
    assert run(path) == 0
    page = capsys.readouterr().out
    for expected in (
        "philips_sierra 1.04",
        "8: I II V1 V2 V3 V4 V5 V6",
        "III aVR aVL aVF (from I and II)",
        "500 Hz",
        "10 s, 5,000 samples per lead",
        "5 uV per stored unit",
        "TC50",
        "0.05-150 Hz, notch 60 Hz",
        "derived_leads:III,aVR,aVL,aVF",
    ):
        assert expected in page
    # The flag's definition stands below it.
    assert quality.FLAGS["derived_leads"].split(".")[0] in " ".join(page.split())


def test_nothing_about_the_patient_is_printed_or_drawn(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawing = folder.parent / "out.svg"
    run(folder / "a.xml", "--plot", drawing)
    run(folder / "a.xml", "--json")
    run(folder)
    run(folder, "--json")
    printed = capsys.readouterr()
    for text in (printed.out, printed.err, drawing.read_text()):
        assert not [word for word in ("Smith", "77-PATIENT", "2001") if word in text]


def test_names_that_are_not_leads_are_not_repeated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.xml"
    path.write_bytes(philips(("I", "Smith", "II")))
    drawing = tmp_path / "out.svg"
    assert run(path, "--json", "--plot", drawing) == 0
    line = capsys.readouterr().out
    assert json.loads(line)["leads"] == ["I", "channel 2", "II"]
    assert "Smith" not in line + drawing.read_text()


def test_json_holds_the_figures_of_the_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.xml"
    counts = counts_of(2)
    path.write_bytes(philips(("I", "II"), counts))
    assert run(path, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["path"] == str(path)
    assert found["error"] is None
    assert (found["format"], found["version"]) == ("philips_sierra", "1.04")
    assert found["derived"] == ["III", "aVR", "aVL", "aVF"]
    assert found["missing"] == ["V1", "V2", "V3", "V4", "V5", "V6"]
    assert (found["sampling_rate"], found["samples"], found["seconds"]) == (500, 5000, 10)
    assert found["resolution_uv"] == 5
    assert found["range_mv"]["II"] == pytest.approx([counts[1].min() * 0.005, counts[1].max() * 0.005], abs=1e-6)
    assert found["device"]["device_model"] == "TC50"
    assert "missing_leads:V1,V2,V3,V4,V5,V6" in found["flags"]


def test_json_has_no_number_that_json_does_not_know() -> None:
    samples = np.zeros((2, 5000), dtype=np.float32)
    samples[0] = np.nan
    samples[1, ::2] = np.inf
    samples[1, 1::7] = 0.5
    found = describe("x", Recording(samples, 500.0, ("I", "II"), "synthetic", {"highpass_hz": math.nan}))
    told = json.loads(found.as_json(), parse_constant=pytest.fail)
    assert told["range_mv"] == {"I": None, "II": [0, 0.5]}
    assert told["device"] == {}


def test_flags_are_those_that_a_run_would_see() -> None:
    samples = recording_of(seconds=2.0, rate=250.0).samples.copy()
    samples[7] = 0.0
    flags = describe("x", Recording(samples, 250.0, STANDARD_LEADS, "synthetic")).flags
    assert {"missing_leads:V2", "too_short", "resampled:250"} <= set(flags)
    assert {flag.partition(":")[0] for flag in flags} <= quality.FLAGS.keys()
    assert describe("x", recording_of(("V1",))).flags == ("not_lead_I:V1",)


def test_recording_that_cannot_be_embedded_is_still_described() -> None:
    still = Recording(np.ones((12, 5000), dtype=np.float32), 500.0, STANDARD_LEADS, "synthetic")
    found = describe("x", still)
    assert found.error is None
    assert "constant" in str(found.problem)
    assert any("not possible" in line for line in inspect.page(found))
    assert "cannot be embedded" in inspect.table_line(found)


def test_day_of_recording_is_examined_without_being_resampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The inputs that a run would make of it are many times its size."""
    monkeypatch.setattr("ecgfounder.preprocess.windows.resample", lambda *_args, **_words: pytest.fail("was resampled"))
    for leads in (STANDARD_LEADS, ("I", "II", "V1"), ("I",)):
        found = describe("x", recording_of(leads, seconds=3600.0, rate=128.0))
        assert found.problem is None
        assert "resampled:128" in found.flags
        assert not [flag for flag in found.flags if flag.startswith(("zero_padded", "remainder", "constant"))]


@pytest.mark.parametrize("content", [b"", b"<restingecgdata", b"\x1f\x8b\x08", b"hello", philips()[:900]])
def test_file_that_cannot_be_read_is_one_line_and_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    path = tmp_path / "a.xml"
    path.write_bytes(content)
    assert run(path) == 1
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert out.startswith(f"{path}: ")
    assert run(path, "--json", "--plot", tmp_path / "out.png") == 1
    assert json.loads(capsys.readouterr().out).keys() == {"path", "error"}
    assert not (tmp_path / "out.png").exists()


def test_missing_file_and_missing_extra_are_findings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "No such file" in str(find_out(str(tmp_path / "none.xml"))[0].error)

    def refuse(_source: Any) -> Recording:
        raise MissingDependencyError("edfio", "reading EDF", "edf")

    monkeypatch.setattr("ecgfounder.readers.read_source", refuse)
    assert "ecgfounder[edf]" in str(find_out("x.edf")[0].error)


def test_hints_reach_the_reader(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    seen = []

    def read(source: Any) -> Recording:
        seen.append(source.hints)
        return recording_of()

    monkeypatch.setattr("ecgfounder.readers.read_source", read)
    assert run("x.npy", "--sampling_rate", "400", "--unit", "uV", "--leads", "avr,Lead II") == 0
    assert (seen[0].sampling_rate, seen[0].unit, seen[0].leads) == (400, "uV", ("aVR", "II"))
    assert "12: I II" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ["--sampling_rate", "0"],
        ["--sampling_rate", "nan"],
        ["--unit", "furlong"],
        ["--plot", "out.pdf"],
        ["b.xml", "--plot", "out.png"],
    ],
)
def test_flags_that_make_no_sense_are_refused_before_anything_is_read(
    monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setattr("ecgfounder.readers.read_source", lambda _source: pytest.fail("was read"))
    with pytest.raises(SettingsError):
        run("a.xml", *words)


def test_folder_cannot_be_drawn_into_one_file(folder: Path) -> None:
    with pytest.raises(SettingsError, match="one file"):
        run(folder, "--plot", "out.png")


def test_arguments_cost_no_heavy_import() -> None:
    code = (
        "import argparse, sys; from ecgfounder.commands.inspect import add_inspect_arguments;"
        "add_inspect_arguments(argparse.ArgumentParser());"
        "sys.exit(bool({'numpy', 'lxml', 'matplotlib', 'scipy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- many files ------------------------------------------------------------------------------------------------------


def test_folder_gives_a_line_per_file_and_counts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder) == 1
    lines = capsys.readouterr().out.splitlines()
    table = lines[1 : lines.index("")]
    assert [Path(line.split()[4]).name for line in table] == ["a.xml", "b.xml", "c.xml", "d.xml", "e.xml", "f.xml"]
    assert table[0].split()[:4] == ["philips_sierra", "8+4", "500", "10"]
    assert table[1].split()[1] == "12"
    assert table[2].endswith("not_lead_I:II")
    assert table[3].split()[0] == "-"
    summary = " ".join(" ".join(lines[lines.index("") :]).split())
    assert "6 files: 3 read, 3 not readable" in summary
    assert "3 format: philips_sierra" in summary
    assert "1 flag: derived_leads" in summary
    assert "2 not readable: the file is empty" in summary
    assert "1 not readable: not well-formed XML" in summary


def test_folder_as_json_is_one_object_per_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "--json") == 1
    out, err = capsys.readouterr()
    found = [json.loads(line) for line in out.splitlines()]
    assert [one["error"] is None for one in found] == [True, True, True, False, False, False]
    assert "6 files: 3 read" in err


def test_several_paths_and_folders_are_taken_in_order(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = folder.parent / "empty"
    empty.mkdir()
    assert run(folder / "b.xml", empty, folder / "a.xml", "--json") == 1
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [Path(one["path"]).name for one in found] == ["b.xml", "empty", "a.xml"]
    assert "folder" in found[1]["error"]


def test_all_readable_is_status_0(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder / "a.xml", folder / "b.xml") == 0
    assert "2 files: 2 read, 0 not readable" in capsys.readouterr().out


def test_lines_come_out_as_files_are_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = []

    def files(_root: str) -> Iterator[str]:
        for name in ("a.xml", "b.xml"):
            printed.append(capsys.readouterr().out)
            yield str(folder / name)

    monkeypatch.setattr("ecgfounder.cohort.sources.ecg_files", files)
    assert run(folder) == 0
    assert "a.xml" in printed[1]


def test_names_with_line_breaks_and_foreign_bytes_stay_on_their_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = os.fsencode(tmp_path) + b"/a\n\x1b[31m\xff.xml"
    Path(os.fsdecode(name)).write_bytes(philips())
    assert run(tmp_path) == 0
    out = capsys.readouterr().out
    assert "a\\n\\x1b[31m\\udcff.xml" in out
    assert run(tmp_path, "--json") == 0
    assert os.fsencode(json.loads(capsys.readouterr().out)["path"]) == name


def test_reader_of_the_lines_may_leave_early(folder: Path) -> None:
    words = [sys.executable, "-m", "ecgfounder.cli", "inspect", *[str(folder)] * 20]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0  # nothing of what was read is wrong


def test_output_that_cannot_be_written_says_so_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Full(io.StringIO):
        def flush(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    assert main(["inspect", str(folder)]) == 1  # one of the files cannot be read
    assert capsys.readouterr().err == "ecgfounder: what was to be printed is lost: [Errno 28] No space left on device\n"


def test_reasons_are_counted_by_kind() -> None:
    assert kind_of("file of 1,234,567 bytes; at most 9 are read") == kind_of("file of 12 bytes; at most 9 are read")
    assert kind_of("unknown (first bytes b'a\\'1')") == kind_of('unknown (first bytes b"xy")')
    assert kind_of("version '1.05'; supported are 1.03, 1.04.01") == "version '...'; supported are N, N"
    assert kind_of("missing lead V3") != kind_of("missing lead V4")


# --- drawing: what goes where ----------------------------------------------------------------------------------------


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
    rows = rows_of(recording_of((*STANDARD_LEADS, "vx", "vy", "vz"), seconds=30))
    assert [row.traces[0].label for row in rows[3:]] == ["II", "vx", "vy", "vz"]


@pytest.mark.parametrize(
    ("leads", "seconds", "labels"),
    [
        (STANDARD_LEADS, 5.0, list(STANDARD_LEADS)),
        (("V1", "MLII", "Smith"), 60.0, ["V1", "MLII", "channel 3"]),
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


# --- drawing: on paper -----------------------------------------------------------------------------------------------

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
    bottom = round((MARGIN + first_row.up + first_row.down) * 10)
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


# --- real files ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not SHARED.is_dir(), reason="no real recordings in ../shared/ecg")
def test_real_recording_is_inspected_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.png"
    assert run(SHARED / "sierra" / "129DYPRG.XML", "--json", "--plot", out) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["leads"], found["samples"], found["version"]) == (list(STANDARD_LEADS), 5500, "1.03")
    assert "calibration_pulse:10.7" in found["flags"]
    assert out.stat().st_size > 100_000
