"""What `ecgfounder inspect` says is what was read, and no file stops it."""

from __future__ import annotations

import argparse
import errno
import io
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecgfounder.cli import main
from ecgfounder.commands import inspect
from ecgfounder.commands.inspect import add_inspect_arguments, describe, find_out, kind_of, run_inspect
from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.ecg.recording import Recording
from ecgfounder.errors import MissingDependencyError, RunError, SettingsError
from ecgfounder.preprocess import quality
from ecgfounder.preprocess.preparation import Preparation
from ecgfounder.preprocess.recipes import FILTERED
from tests.builders.archives import files_of, tar_of, zip_of
from tests.builders.philips import counts_of, philips, recording_of
from tests.places import RECORDINGS


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
        "III aVR aVL aVF (from two of I, II and III)",
        "500 Hz",
        "10 s, 5,000 samples per lead",
        "heart rate ",
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
    assert run(path, "--json", "--plot", drawing, "--mode", "1lead") == 0
    line = capsys.readouterr().out
    assert json.loads(line)["leads"] == ["I", "channel 2", "II"]
    assert "Smith" not in line + drawing.read_text()


def test_json_holds_the_figures_of_the_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.xml"
    counts = counts_of(2)
    path.write_bytes(philips(("I", "II"), counts))
    assert run(path, "--json") == 1  # not with the 12-lead network
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
    with pytest.raises(SettingsError, match="must be a folder"):
        run(folder, "--plot", "out.png")
    with pytest.raises(RunError, match=r"a\.xml: cannot be made"):
        run(folder, "--plot", folder / "a.xml")


def headings(drawing: Path) -> tuple[str, str]:
    """The texts of an SVG's heading, which matplotlib keeps as comments beside the letters' outlines."""
    text = drawing.read_text()
    shown = {gid: re.search(rf'id="{gid}">\s*<!-- (.*?) -->', text) for gid in ("title", "facts")}
    return tuple(found[1] if found else "" for found in shown.values())  # type: ignore[return-value]


def test_a_drawing_is_headed_by_its_file_or_a_title_and_the_heart_rate(demo_cohort: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path, out = demo_cohort / "ecg" / "patient_003" / "ecg_0004.xml", tmp_path / "out.svg"
    facts = "heart rate 117/min    Synthetic, from Philips Sierra ECG XML 1.04"
    for flags, title in (
        ((), "ecg_0004.xml"),
        (("--title", "Visit 2"), "Visit 2"),
        (("--title", "Visit 2: {name}"), "Visit 2: ecg_0004.xml"),
        (("--title", ""), ""),
    ):
        assert run(path, "--plot", out, *flags) == 0
        assert headings(out) == (title, facts)
    with pytest.raises(SettingsError, match="it needs the 'plot' parameter"):
        run(path, "--title", "Visit 2")


def test_the_heart_rate_is_on_the_page_and_in_json(
    demo_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = demo_cohort / "ecg" / "patient_003" / "ecg_0004.xml"
    run(path)
    assert "heart rate  117 per minute, measured in the samples" in capsys.readouterr().out
    run(path, "--json")
    assert json.loads(capsys.readouterr().out)["heart_rate"] == pytest.approx(117, abs=1)
    np.save(tmp_path / "noise.npy", np.random.default_rng(0).standard_normal((12, 5000)))
    run(tmp_path / "noise.npy", "--sampling_rate", "500", "--unit", "mV", "--leads", ",".join(STANDARD_LEADS))
    assert "heart rate  no beats found" in capsys.readouterr().out


def test_all_files_of_a_folder_are_drawn_below_one_folder(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (folder / "A.XML").write_bytes(philips(STANDARD_LEADS))  # the same name where case does not count
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    drawings = tmp_path / "drawings"
    assert run(folder, folder / "b.xml", folder / "ward" / ".." / "b.xml", "--plot", drawings) == 1
    made = sorted(str(path.relative_to(drawings)) for path in drawings.rglob("*.png"))
    assert made == ["A.XML.png", "a.xml-2.png", "b.xml-2.png", "b.xml-3.png", "b.xml.png", "ward/c.xml.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawings.rglob("*.png"))
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_drawings_of_members_stay_in_their_folder(tmp_path: Path) -> None:
    taken: set[str] = set()
    for name, place in (
        ("x.h5::../../etc/passwd", "x.h5--..-..-etc-passwd.png"),
        ("x.h5::tracings/12", "x.h5--tracings-12.png"),
        ("../../x.xml", "x.xml.png"),
        ("/x.xml", "x.xml-2.png"),
    ):
        assert inspect._place_of(name, tmp_path, taken) == tmp_path / place


@pytest.mark.parametrize(
    ("flags", "unable"),
    [
        ((), {"ward/c.xml": "missing leads I, III"}),
        (("--mode", "1lead"), {}),
        (("--missing_leads", "zero"), {}),
        (("--window", "12"), {"a.xml": "10 s are shorter than one window", "b.xml": "--remainder pad", "ward/c.xml": "missing"}),
        (("--window", "12", "--remainder", "keep", "--mode", "1lead"), {}),
    ],
)  # fmt: skip
def test_files_that_cannot_be_embedded_with_the_flags_are_named_counted_and_status_1(
    folder: Path, flags: tuple[str, ...], unable: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "def":
        (folder / "ward" / f"{name}.xml").unlink()
    assert run(folder, *flags) == bool(unable)
    lines = capsys.readouterr().out.splitlines()
    for line in lines[1 : lines.index("")]:
        name = os.path.relpath(line.split()[4], folder)
        assert ("cannot be embedded" in line) == (name in unable)
        assert unable.get(name, "") in line
    assert (f"{len(unable)} of them cannot be embedded" in "\n".join(lines)) == bool(unable)


def test_a_rate_that_cannot_be_embedded_is_named_without_computing_an_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ecgfounder.preprocess.recipes.Recipe.normalized", lambda *_: pytest.fail("was computed"))
    slow = Recording(np.ones((12, 200), np.float32), 20.0, STANDARD_LEADS, "synthetic")
    assert "an ECG needs at least 25 Hz" in str(describe("x", slow, Preparation()).problem)
    for preparation in (
        Preparation(),
        Preparation(window=5),
        Preparation(window=2, stride=1),
        Preparation(recipe=FILTERED),
    ):
        assert describe("x", recording_of(seconds=9.0), preparation).problem is None


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
    assert "not_lead_I:II cannot be embedded: missing leads I, III" in table[2]
    assert table[3].split()[0] == "-"
    summary = " ".join(" ".join(lines[lines.index("") :]).split())
    assert "6 files: 3 read, 1 of them cannot be embedded, 3 not readable" in summary
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

    def files(_root: str, _options: object) -> Iterator[str]:
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
    assert (
        capsys.readouterr().err == "ecgfounder: some output could not be printed: [Errno 28] No space left on device\n"
    )


def test_reasons_are_counted_by_kind() -> None:
    assert kind_of("file of 1,234,567 bytes; at most 9 are read") == kind_of("file of 12 bytes; at most 9 are read")
    assert kind_of("unknown (first bytes b'a\\'1')") == kind_of('unknown (first bytes b"xy")')
    assert kind_of("version '1.05'; supported are 1.03, 1.04.01") == "version '...'; supported are N, N"
    assert kind_of("missing lead V3") != kind_of("missing lead V4")
    assert kind_of("the file's 4 signals; give --leads or 'x'") == "the file's N signals; give --leads or '...'"


def test_reasons_that_are_counted_name_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(2):
        (tmp_path / f"{number}.csv").write_text("x\n" + "1\n" * 9)
    assert main(["inspect", str(tmp_path)]) == 1
    assert (
        "2  not readable: the csv file does not state its sampling rate; give it by --sampling_rate"
        in capsys.readouterr().out
    )


# --- real files ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not RECORDINGS.is_dir(), reason="no real recordings in ../shared/ecg")
def test_real_recording_is_inspected_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.png"
    assert run(RECORDINGS / "sierra" / "129DYPRG.XML", "--json", "--plot", out) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["leads"], found["samples"], found["version"]) == (list(STANDARD_LEADS), 5500, "1.03")
    assert "calibration_pulse:10.7" in found["flags"]
    assert out.stat().st_size > 100_000


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_gives_the_lines_of_the_folder(
    kind: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = files_of(folder)
    archive = tmp_path / f"packed.{kind}"
    archive.write_bytes(zip_of(files) if kind == "zip" else tar_of(files))
    assert run(folder) == 1
    of_folder = capsys.readouterr().out
    assert run(archive) == 1
    assert capsys.readouterr().out.replace(f"{archive}::", f"{folder}/") == of_folder
    assert run(f"{archive}::ward") == 1
    assert "4 files: 1 read" in capsys.readouterr().out
    assert run(archive, "--plot", tmp_path / "drawings") == 1
    assert (tmp_path / "drawings" / "ward").is_dir()
    capsys.readouterr()
    assert run(f"{archive}::a.xml") == 0
    assert "philips_sierra" in capsys.readouterr().out
    assert run(f"{archive}::ward/none.xml") == 1
    assert "there is no such file in the archive" in capsys.readouterr().out


def test_a_compressed_tar_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(SettingsError, match="tar -xf ARCHIVE -C FOLDER"):
        run(tmp_path / "a.tar.gz")
