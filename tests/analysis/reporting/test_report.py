"""A report counts what the manifest says, quotes nobody, and works on runs of every kind."""

from __future__ import annotations

import base64
import html
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ecgfounder import open_run
from ecgfounder.analysis import ReportSettings, report
from ecgfounder.analysis.reporting.failures import KINDS
from ecgfounder.analysis.reporting.included import read_included
from ecgfounder.analysis.reporting.report import Report
from ecgfounder.analysis.reporting.report_page import FIGURES, HIDDEN, PAGE, report_html, write_report_page
from ecgfounder.errors import MissingDependencyError, RunError, SettingsError
from ecgfounder.results.small_cells import FEWEST, OTHERS
from ecgfounder.storage import locate
from tests.builders.reports import CANARIES, FAILED, write_hospital_run
from tests.builders.runs import FORMS, PATHS, Made

GIVEN: dict[str, Any] = {"group": "patient", "by": ("site", "year"), "label": ("af",), "map": "pca"}


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hospital_run(tmp_path_factory.mktemp("hospital") / "run")


@pytest.fixture(scope="module")
def found(hospital: Path) -> Report:
    return report(open_run(hospital), **GIVEN)


def table(page: str, caption: str) -> list[list[str]]:
    """The cells of a table, the header first."""
    inside = re.search(rf"<caption>{re.escape(html.escape(caption))}</caption>(.*?)</table>", page, re.DOTALL)
    assert inside is not None, caption
    rows = re.findall(r"<tr>(.*?)</tr>", inside[1], re.DOTALL)
    return [[html.unescape(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)] for row in rows]


def all_readable(folder: Path) -> str:
    """Whatever a reader or a program may find in a report's folder: markup, decoded text, base64 data, names of files."""
    parts = [str(path.relative_to(folder)) for path in folder.rglob("*")]
    for path in folder.rglob("*.*"):
        text = path.read_text(encoding="utf-8")
        images = [base64.b64decode(each).decode("latin-1") for each in re.findall(r"base64,([A-Za-z0-9+/=]+)", text)]
        parts += [text, html.unescape(text), *images]
    return "\n".join(parts)


# --- what it counts ----------------------------------------------------------------------------------------------------


def test_counts_are_those_of_the_manifest(hospital: Path, found: Report) -> None:
    records = open_run(hospital).records.to_pandas()
    page = report_html(found)
    assert "240 recordings of 120 patients were embedded. 33 recordings failed." in page
    rates = dict(row[:2] for row in table(page, "Recordings by sampling rate")[1:])
    assert rates == {f"{rate:g} Hz": str(n) for rate, n in records["sampling_rate"].value_counts().items()}
    years = table(page, "Recordings by year")
    assert years[0] == ["year", "Recordings", "Share", "Patients"]
    assert years[1:] == [[str(year), "60", "25.0%", "60"] for year in range(2000, 2004)]
    flags = {row[0]: row[2] for row in table(page, "Flags of the embedded recordings")[1:]}
    assert flags == {"resampled": str((records["sampling_rate"] == 250).sum()), "nan_share": HIDDEN}
    labels = dict(row[:2] for row in table(page, "Recordings by af")[1:])
    assert labels == {"false": str((~records["af"]).sum()), "true": str(records["af"].sum())}
    said = {row[0]: row[1] for row in table(page, "The most frequent statements, printed by the device")[1:]}
    assert said == {"NORMAL SINUS RHYTHM": "160", "ATRIAL FIBRILLATION": "80"}
    predicted = table(page, "The most frequent statements, predicted with a probability of at least one half")
    assert [row[:2] for row in predicted[1:]] == [["SINUS RHYTHM", "240"], ["ATRIAL FIBRILLATION", "60"]]
    both = table(page, "Recordings by year and site")
    assert both[0] == ["year", "South", OTHERS]
    of_south = records[records["site"] == "South"].groupby("year").size().tolist()
    assert [int(row[1]) for row in both[1:]] == of_south


def test_rare_sites_and_devices_are_pooled(found: Report) -> None:
    page = report_html(found)
    assert [row[0] for row in table(page, "Recordings by site")[1:]] == ["South", OTHERS]
    assert [row[0] for row in table(page, "Recordings by device")[1:]] == ["TC70", OTHERS]
    assert "Format: not shown" in page  # one format, and six recordings of another


def test_failures_have_reasons_in_words_of_the_program(hospital: Path) -> None:
    page = report_html(report(open_run(hospital), map="pca"))  # each recording is its own patient
    reasons = dict(row[:2] for row in table(page, "Why recordings failed")[1:])
    assert reasons == {
        "the file, or one that belongs to it, is not there": "22",
        "leads that are needed are missing, or without a signal": "11",
    }
    few = report(open_run(hospital), group="patient", map="pca").failed
    assert few.n == FAILED
    assert set(few.kinds.names) <= KINDS


def test_norms_of_all_recordings_add_up(found: Report) -> None:
    assert found.embedded is not None
    assert sum(found.embedded.norms.counts) == 240
    assert all(n >= FEWEST for n in found.embedded.norms.counts)
    X = np.asarray(open_run(found.runs[0].folder).arrays("mean")[0])
    half = dict(found.embedded.quantiles)[0.5]
    assert half == pytest.approx(np.median(np.linalg.norm(X, axis=1)), rel=1e-5)


def test_a_sample_smaller_than_the_run_is_a_part_of_it(hospital: Path) -> None:
    found = report(open_run(hospital), sample=100, map="pca")
    assert found.embedded is not None
    assert len(found.embedded.sample.rows) == 100
    assert found.embedded.norms.names[-1].endswith("not in the sample")
    assert sum(found.embedded.norms.counts) == 240


def test_rules_leave_recordings_out_and_say_so(hospital: Path) -> None:
    run = open_run(hospital)
    found = report(run, where="year < 2003", exclude_flags=("resampled",), **GIVEN)
    kept = run.records.to_pandas().query("year < 2003 and sampling_rate == 500")
    assert found.cells.n == len(kept)
    assert [reason for reason, _ in found.left_out] == ["flags: resampled", "not a condition on year"]
    assert "year &lt; 2003" not in report_html(found)
    assert "year &lt; 2003" in report_html(report(run, where="year < 2003", names=True, **GIVEN))
    few = report(run, where='site != "Saint Nowhere"', **GIVEN)
    assert few.left_out == (("not a condition on site", "of under 11 patients"),)


def test_labels_and_patients_may_come_from_a_table(hospital: Path) -> None:
    run = open_run(hospital)
    numbers = run.manifest["study_id"].to_pylist()
    given = pa.table({"study_id": numbers, "person": [n // 2 for n in numbers], "ward": ["a", "b", "c"] * 91})
    found = report(run, given, on="study_id", group="person", by=("ward",), map="pca")
    assert found.by[0].cells.counts == (80, 80, 80)
    assert (found.n, found.n_patients, found.failed.n) == (240, 120, FAILED)
    one = report(
        run, given.set_column(1, "person", pa.array([min(n, 200) for n in numbers])), on="study_id", group="person"
    )
    assert one.failed.n is None  # all that failed are of one patient


# --- what it does not tell ---------------------------------------------------------------------------------------------


def test_nobody_is_quoted(hospital: Path, found: Report, tmp_path: Path) -> None:
    write_report_page(found, locate(tmp_path / "report"))
    text = all_readable(tmp_path / "report")
    quoted = [canary for canary in CANARIES if canary.lower() in text.lower()]
    assert quoted == []
    hidden = [str(hospital), hospital.name + ".jsonl", "made.jsonl", "/data", "study_id", "remark"]
    hidden += [value for value in found.selection.table["input_sha256"].to_pylist() if value]
    assert [each for each in hidden if each in text] == []
    assert {path.name for path in (tmp_path / "report").iterdir()} == {PAGE, FIGURES, "report.json"}


def test_names_are_shown_if_they_are_asked_for(hospital: Path) -> None:
    page = html.unescape(report_html(report(open_run(hospital), names=True, **GIVEN)))
    assert "Miller/MRN-8675309_20210304/00000.xml" in page
    assert "missing leads V1: absent" in page
    assert "Saint Nowhere" not in page


def test_a_column_of_identifiers_is_not_listed(hospital: Path) -> None:
    page = report_html(report(open_run(hospital), by=("patient", "remark"), map="pca"))
    assert "patient: not shown" in page
    assert "8675309" not in page
    assert "Strange" not in page


def test_no_cell_of_few_patients_is_in_a_page(found: Report) -> None:
    page = report_html(found)
    for caption in re.findall(r"<caption>(.*?)</caption>", page):
        rows = table(page, html.unescape(caption))
        if "Recordings" in rows[0]:
            at = rows[0].index("Recordings")
            counts = [row[at] for row in rows[1:]]
            assert [n for n in counts if n.replace(",", "").isdigit() and 0 < int(n.replace(",", "")) < FEWEST] == []


def test_flags_that_are_not_shown_are_in_no_order_of_their_numbers(tmp_path: Path) -> None:
    paths = [f"{number}.xml" for number in range(40)]
    flagged = {"clipped:I": paths[:5], "too_short": paths[:9], "resampled:250": paths[:20]}
    flags = {path: tuple(flag for flag, those in flagged.items() if path in those) for path in paths}
    rows = [(path, number) for number, path in enumerate(paths)]
    run = Made(tmp_path / "run", rows=rows, done_order=paths, flags=flags, pooling="mean", format="parquet").make()
    page = report_html(report(open_run(run), map="pca"))
    shown = [(row[0], row[2]) for row in table(page, "Flags of the embedded recordings")[1:]]
    assert shown == [("resampled", "20"), ("clipped", HIDDEN), ("too_short", HIDDEN)]


def test_values_that_are_put_together_are_not_said_to_be_the_same(hospital: Path) -> None:
    run = open_run(hospital)
    records = run.records["record"].to_pylist()
    born = [1931 if number == 0 else 1970 for number in range(len(records))]
    given = pa.table({"record": records, "born": born})
    page = report_html(report(run, given, on="record", by=("born",), map="pca"))
    assert "1931" not in page
    assert "born: not shown" in page


def test_recordings_without_a_row_are_counted_as_those_of_few_patients(hospital: Path) -> None:
    run = open_run(hospital)
    patients = run.records["patient"].to_pylist()
    for n_lost, shown in ((8, HIDDEN), (11, "about 20")):  # two recordings each
        lost = sorted(set(patients))[:n_lost]
        rows = [
            name
            for name, patient in zip(run.records["record"].to_pylist(), patients, strict=True)
            if patient not in lost
        ]
        found = report(run, pa.table({"record": rows}), on="record", group="patient", map="pca")
        assert found.left_out == (("no row in the table of labels", shown),)
    people = pa.table({"record": rows, "person": rows})  # whose the others are is not known
    assert report(run, people, on="record", group="person", map="pca").left_out[0][1] == HIDDEN


def test_markup_in_names_is_text(hospital: Path, tmp_path: Path) -> None:
    place = tmp_path / "run"
    write_hospital_run(place)
    manifest = pq.read_table(place / "_run" / "manifest.pq")
    evil = "<script>alert(1)</script>\x1b[2J"
    column = pa.array([evil if n % 2 else "MAC 5500" for n in range(manifest.num_rows)])
    manifest = manifest.set_column(manifest.column_names.index("device_model"), "device_model", column)
    pq.write_table(manifest, place / "_run" / "manifest.pq")
    page = report_html(report(open_run(place), map="pca"))
    assert "<script" not in page
    assert "\x1b" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\x1b[2J" in page


# --- runs of every kind ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("stored", ["json", "parquet"])
def test_forms_of_runs(tmp_path: Path, form: str, stored: str) -> None:
    run = open_run(Made(tmp_path / "run", format=stored, **FORMS[form]).make())
    found = report(run, map="pca")
    assert found.embedded is not None
    means = np.array([each.mean(axis=0) if each.ndim == 2 else each for each in (e for _, e in run)])
    expected = means.reshape(len(PATHS), -1, means.shape[-1]).mean(axis=1)
    np.testing.assert_allclose(found.embedded.sample.norms, np.linalg.norm(expected, axis=1), rtol=1e-5)
    page = report_html(found)
    assert f"Fewer than {FEWEST} recordings were embedded." in page
    assert f"Fewer than {FEWEST} recordings failed." in page


def test_a_run_without_embeddings(tmp_path: Path) -> None:
    page = report_html(
        report(open_run(Made(tmp_path / "run", done_order=()).make(), allow_incomplete=True), names=True)
    )
    assert "0 recordings were embedded" in page
    assert "There are no embeddings." in page


def test_a_run_with_one_recording(tmp_path: Path) -> None:
    found = report(open_run(Made(tmp_path / "run", rows=[("a/1.xml", 1)], done_order=["a/1.xml"]).make()), map="pca")
    assert found.n is None
    assert "None failed." in report_html(found)
    assert "of the variance" not in report_html(found)


def test_a_run_that_is_not_complete(tmp_path: Path) -> None:
    run = open_run(Made(tmp_path / "run", outcome="interrupted").make(), allow_incomplete=True)
    assert "is not complete" in report_html(report(run, map="pca"))


def test_several_runs(tmp_path: Path, hospital: Path) -> None:
    other = write_hospital_run(tmp_path / "other", data=7)
    found = report(open_run([hospital, other], names=["one", "two"]), **GIVEN)
    assert (found.n, found.n_patients) == (480, 120)
    page = report_html(found)
    assert table(page, "The runs")[0] == ["Setting", "Run 1", "Run 2"]
    assert "one" not in [cell for row in table(page, "The runs") for cell in row]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"by": ("nothing",)}, "no column 'nothing'"),
        ({"group": "nothing"}, "no column 'nothing'"),
        ({"map": "tsne"}, "map"),
        ({"sample": 0}, "sample"),
        ({"map": "umap", "sample": 60_000}, "at most 50,000"),
        ({"exclude_flags": ("nothing",)}, "exclude_flags"),
        ({"where": "year > 'x' +"}, "where"),
    ],
)
def test_settings_that_cannot_work_are_refused(hospital: Path, settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        report(open_run(hospital), **settings)


def test_nothing_left_is_told(hospital: Path) -> None:
    with pytest.raises(RunError, match="no recording is left"):
        report(open_run(hospital), where="year > 3000")


def test_umap_without_its_package_is_told(hospital: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ecgfounder.analysis.reporting.vectors.has_umap", lambda: False)
    with pytest.raises(MissingDependencyError, match=r"umap-learn.*\[map\]"):
        report(open_run(hospital), map="umap")


def test_settings_are_an_object_or_keywords(hospital: Path) -> None:
    with pytest.raises(SettingsError, match="either"):
        report(open_run(hospital), settings=ReportSettings(), group="patient")


def test_a_folder_of_something_else_is_refused(found: Report, tmp_path: Path) -> None:
    (tmp_path / "probe.json").write_text("{}")
    with pytest.raises(RunError, match=r"report\.json"):
        write_report_page(found, locate(tmp_path))
    (tmp_path / "again").mkdir()
    for _ in range(2):  # again replaces its own
        write_report_page(found, locate(tmp_path / "again"))


def test_a_folder_without_results_cannot_be_included(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no results"):
        read_included(locate(tmp_path))
    (tmp_path / "drift.json").write_text("{}")
    (tmp_path / "levels.pq").write_bytes(b"PAR1 damaged")
    with pytest.raises(RunError, match="cannot be read"):
        read_included(locate(tmp_path))
