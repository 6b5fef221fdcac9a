"""What all formats keep together: found by content, equal to other libraries' decodes, mixed in one run, never a crash."""

from __future__ import annotations

import gzip
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest

from ecgfounder import read_ecg
from ecgfounder.cli import embed_main
from ecgfounder.ecg.leads import select_leads
from ecgfounder.ecg.recording import Recording
from ecgfounder.ecg.statements import Statements, statements_of
from ecgfounder.engines import create_engine
from ecgfounder.errors import ReadError
from ecgfounder.preprocess.preparation import Preparation
from ecgfounder.preprocess.signals import prepare
from ecgfounder.readers import read_statements
from tests.builders.originals import Original, built, real
from tests.harness.effort import measured
from tests.harness.fuzz import fuzz
from tests.harness.mutations import mutations
from tests.places import RECORDINGS

needs_real = pytest.mark.skipif(not RECORDINGS.is_dir(), reason=f"the real recordings are not here ({RECORDINGS})")

ORIGINALS = built()
REAL_ORIGINALS = real(RECORDINGS) if RECORDINGS.is_dir() else []
MISLEADING = ("x.csv", "x.dcm", "x.xml", "x.edf", "x", "x.npy")
SAME_RECORD = ("dicom/ecgtoolkit_Example.dcm", "scp/ecgtoolkit_Example.scp", "hl7_aecg/ecgtoolkit_Example.xml")


def identified(original: Original) -> str:
    return f"{original.format}-{original.name}"


def twelve(recording: Recording) -> np.ndarray:
    return select_leads(recording).samples


# Equal to what other libraries decode


@needs_real
@pytest.mark.parametrize("original", REAL_ORIGINALS, ids=identified)
def test_every_real_recording_equals_its_reference_decode(original: Original) -> None:
    recording = read_ecg(RECORDINGS / original.name)
    expected = np.load(RECORDINGS / "expected.npz")[original.name]
    assert recording.source_format == original.format
    assert recording.sampling_rate == json.loads((RECORDINGS / "expected_rates.json").read_text())[original.name]
    np.testing.assert_allclose(twelve(recording), expected, rtol=0, atol=1e-6, equal_nan=True)


@needs_real
@pytest.mark.parametrize("original", REAL_ORIGINALS, ids=identified)
def test_every_real_recording_is_found_under_any_name_and_packed(original: Original, tmp_path: Path) -> None:
    if len(original.files) > 1:
        pytest.skip("a WFDB header names its signal files")
    expected = read_ecg(RECORDINGS / original.name).samples
    content = original.files[original.opened]
    for name in MISLEADING:
        path = tmp_path / name
        for data in (content, gzip.compress(content, 1)):
            path.write_bytes(data)
            recording = read_ecg(path)
            assert recording.source_format == original.format
            np.testing.assert_array_equal(recording.samples, expected)


@needs_real
def test_one_record_in_three_formats_gives_the_same_samples_and_embedding(checkpoint_12lead: Path) -> None:
    recordings = [read_ecg(RECORDINGS / name) for name in SAME_RECORD]
    engine = create_engine("auto", mode="12lead", checkpoint=checkpoint_12lead)
    maps = [engine.embed(prepare(recording, Preparation()).inputs[0][None]) for recording in recordings]
    for recording, embedding in zip(recordings, maps, strict=True):
        np.testing.assert_allclose(twelve(recording), twelve(recordings[0]), rtol=0, atol=1e-6)
        assert recording.sampling_rate == recordings[0].sampling_rate
        assert np.linalg.norm(embedding - maps[0]) <= 1e-5 * np.linalg.norm(maps[0])


# Found by content, mixed


@pytest.mark.parametrize("original", ORIGINALS, ids=identified)
def test_every_format_is_found_by_content_and_read_through_gzip(original: Original, tmp_path: Path) -> None:
    recording = read_ecg(original.write(tmp_path), hints=original.hints, reader=original.reader)
    assert recording.source_format == original.format
    if len(original.files) > 1 or "::" in original.opened:
        return
    for name in MISLEADING:
        content = original.files[original.opened]
        for data in (content, gzip.compress(content)):
            (tmp_path / name).write_bytes(data)
            again = read_ecg(tmp_path / name, hints=original.hints, reader=original.reader)
            assert again.source_format == original.format
            np.testing.assert_array_equal(again.samples, recording.samples)


def test_a_member_of_a_format_that_holds_one_recording_is_refused(tmp_path: Path) -> None:
    for original in ORIGINALS:
        if original.format in ("hdf5", "npz", "mat"):
            continue
        path = original.write(tmp_path)
        with pytest.raises(ReadError, match="holds one recording"):
            read_ecg(f"{path}::other", hints=original.hints, reader=original.reader)


def test_an_unknown_text_is_not_quoted(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("Jane Doe, born 1952\nwas here\n")
    with pytest.raises(ReadError, match="not a known ECG format") as caught:
        read_ecg(path)
    assert "Jane" not in str(caught.value)


@needs_real
def test_the_main_job_takes_all_formats_mixed_without_a_flag(checkpoint_12lead: Path, tmp_path: Path) -> None:
    names = ["dicom/ecgtoolkit_Example.dcm", "scp/ecgtoolkit_Example.scp", "wfdb/E07500.hea", "wfdb/E07500.mat"]
    names += ["muse/braveheart_example1.xml", "cardiosoft/ecgprocess_XML1.xml", "hl7_aecg/liryc_example.xml"]
    names += ["sierra/129DYPRG.XML"]
    folder = tmp_path / "in"
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(RECORDINGS / name, folder / name)
    (folder / "cohort.csv").write_text("ecg_paths\n" + "\n".join(name for name in names if not name.endswith("mat")))
    out = tmp_path / "out"
    flags = ["--dataset", str(folder / "cohort.csv"), "--data_dir", str(folder), "--output_dir", str(out)]
    assert embed_main([*flags, "--checkpoint", str(checkpoint_12lead), "--layout", "tree"]) == 0
    found = sorted(path for path in out.rglob("*.json") if "_run" not in path.parts)
    assert len(found) == len(names) - 1
    for path in found:
        embedding = np.array(orjson.loads(path.read_bytes())["embedding"])
        assert embedding.shape[1] == 1024
        assert np.isfinite(embedding).all()


# Never anything but a recording or a refusal


@pytest.mark.parametrize("original", ORIGINALS, ids=identified)
def test_damaged_copies_are_read_or_refused_within_a_second(original: Original) -> None:
    """The small share of `python -m tests.harness.fuzz`."""
    tally = fuzz(original, 60, seed=7)
    assert tally.failures == []
    assert tally.outcomes["refused"] > 0


@pytest.mark.parametrize("original", ORIGINALS, ids=identified)
def test_an_empty_file_and_one_byte_are_refused(original: Original, tmp_path: Path) -> None:
    for content in (b"", b"\0"):
        original.write(tmp_path)
        (tmp_path / original.opened.partition("::")[0]).write_bytes(content)
        with pytest.raises(ReadError):
            read_ecg(str(tmp_path / original.opened), hints=original.hints, reader=original.reader)


# What the device said


@needs_real
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("muse/braveheart_example1.xml", Statements((), 48, 138, 96, 452, 403, 51, 20, 40)),
        ("scp/ecgtoolkit_Example.scp", Statements((), None, 148, 120, 420, None, 44, -61, 86)),
        ("dicom/ecgtoolkit_Example.dcm", Statements((), None, 148, 120, 420, 443, 44, -61, 86)),
        (
            "dicom/pydicom_waveform_ecg.dcm",
            Statements(("RITMO SINUSALE", "ECG NORMALE"), None, 161, 75, 368, 370, 74, 52, 57),
        ),
        ("hl7_aecg/ecgtoolkit_Example.xml", Statements((), None, 148, 120, 420, 443, 44, -61, 86)),
        ("hl7_aecg/liryc_example.xml", Statements(("Rythme sinusal avec ESA", "ECG limite"), 57, 192, 88, 418)),
        ("sierra/129DYPRG.XML", Statements((), 41, 151, 135, 476, 393, 66, -21, 59)),
        ("sierra/3191723_ZZDEMOPTONLY_1-04_orig.xml", Statements((), 84, 144, 84, 352, 417, 81, 78, 67)),
        ("cardiosoft/ecgprocess_XML1.xml", Statements((), 50, 174, 92, 440, 401, 56, 55, 45)),
    ],
)
def test_measurements_of_the_device_are_read(name: str, expected: Statements) -> None:
    found = read_statements(RECORDINGS / name)
    assert found is not None
    assert replace(found, statements=expected.statements) == expected
    assert set(expected.statements) <= set(found.statements)


@needs_real
def test_formats_without_statements_say_so() -> None:
    assert read_statements(RECORDINGS / "wfdb" / "E07500.hea") is None


MUSE = """<RestingECG><Diagnosis><DiagnosisStatement><StmtText>Edited by hand</StmtText></DiagnosisStatement></Diagnosis>
<OriginalDiagnosis><DiagnosisStatement><StmtText>Sinus rhythm</StmtText></DiagnosisStatement><DiagnosisStatement>
<StmtFlag>ENDSLINE</StmtFlag><StmtText>with marked arrhythmia</StmtText></DiagnosisStatement>{}</OriginalDiagnosis>
</RestingECG>"""
MUSE_LINE = "<DiagnosisStatement><StmtFlag>ENDSLINE</StmtFlag><StmtText>{}</StmtText></DiagnosisStatement>"


@pytest.mark.parametrize(
    "line",
    [
        "Confirmed by DOE, JOHN (123) on 1/2/2020 1:15:09 PM",
        "Unconfirmed",
        "Referred by: A SMITH",
        "10-MAY-2021 14:14,",
        "When compared with ECG of",
        "Overread by A. Smith",
        "Reviewed 2020",
        "Interpreted by Dr Smith",
        "A. Smith, M.D.",
        "Patient 4711",
        "12345678",
        "---",
    ],
)
def test_lines_about_people_dates_and_other_ecgs_are_left_out(line: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text(MUSE.format(MUSE_LINE.format(line) + MUSE_LINE.format("Normal ECG")))
    assert read_statements(path) == Statements(("Sinus rhythm with marked arrhythmia", "Normal ECG"))


def test_values_that_stand_for_not_measured_are_left_out() -> None:
    found = statements_of([], heart_rate=0, pr_ms=29999, qrs_ms=float("nan"), qt_ms=400, p_axis=999, t_axis=-90)
    assert found == Statements(qt_ms=400, t_axis=-90)


def test_damaged_files_give_no_statements_but_a_read_error(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text(MUSE[:-20])
    with pytest.raises(ReadError, match="not well-formed"):
        read_statements(path)


@needs_real
def test_damaged_dicom_annotations_give_statements_or_a_read_error_at_once(tmp_path: Path) -> None:
    reasons: list[str] = []
    for number, content in enumerate(mutations((RECORDINGS / "dicom" / "ecgtoolkit_Example.dcm").read_bytes(), 60)):
        path = tmp_path / str(number)
        path.write_bytes(content)
        with measured() as effort:
            try:
                read_statements(path)
            except ReadError as error:
                reasons.append(str(error))
        assert effort.lines < 500_000
        assert effort.peak_bytes < 16 << 20
    assert reasons
    assert not any("damaged file (" in reason for reason in reasons)
