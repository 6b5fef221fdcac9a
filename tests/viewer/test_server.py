"""The page's questions are answered, and what is wrong with them is said in a line."""

from __future__ import annotations

import io
import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from http.client import IncompleteRead
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ecgfounder.ecg.plot import Band
from ecgfounder.ecg.recording import Recording
from ecgfounder.errors import PrepareError, SettingsError
from ecgfounder.results import open_run
from ecgfounder.viewer import Atlas, Viewer, open_atlas, saving
from ecgfounder.viewer import server as server_module
from ecgfounder.viewer.composition import composition
from ecgfounder.viewer.details import ecg_of
from ecgfounder.viewer.places import Progress
from tests.builders.atlas import FORMULA, HOSTILE, N_FILES, Shown, bands_of
from tests.builders.runs import Made
from tests.harness.viewed import Served, served


def mask_of(rows: np.ndarray, n: int) -> bytes:
    mask = np.zeros(n, dtype=bool)
    mask[rows] = True
    return np.packbits(mask, bitorder="little").tobytes()


def test_about(viewed: Served, shown: Shown) -> None:
    told = viewed.ask("/api/about").json
    assert (told["n"], told["n_failed"], told["group"]) == (len(shown.table), 1, "subject")
    groups = {each["name"]: each["group"] for each in told["columns"]}
    assert groups["rhythm"] == "recording"
    assert groups["flag: clipped"] == "quality flags"
    assert groups["probability: ATRIAL FIBRILLATION"] == "predicted by the network"
    assert groups["device: qrs_ms"] == "measured by the device"
    assert told["places"]["pca"]["state"] == "ready"


def test_the_map_separates_the_clusters(viewed: Served, shown: Shown) -> None:
    body = viewed.ask("/api/map", kind="pca").body
    places = np.frombuffer(body, "<u2").reshape(-1, 2).astype(float)
    assert len(places) == len(shown.table)
    assert places.min() == 0
    assert places.max() == 65_535
    centres = pd.DataFrame(places).groupby(shown.table["rhythm"].to_numpy()).mean().to_numpy()
    nearest = np.linalg.norm(places[:, None] - centres[None], axis=2).argmin(axis=1)
    names = sorted(set(shown.table["rhythm"]))
    assert (np.array(names)[nearest] == shown.table["rhythm"]).mean() > 0.98
    assert viewed.ask("/api/map", kind="umap").status == 422


def column_of(viewed: Served, name: str) -> tuple[dict, np.ndarray]:
    body = viewed.ask("/api/column", name=name).body
    length = int.from_bytes(body[:4], "little")
    about = json.loads(body[4 : 4 + length])
    kind = np.uint8 if about["kind"] == "category" else np.float32
    return about, np.frombuffer(body[4 + length :], kind)


def test_columns_as_typed_numbers(viewed: Served, shown: Shown) -> None:
    about, codes = column_of(viewed, "rhythm")
    assert [about["categories"][code] for code in codes] == shown.table["rhythm"].tolist()
    assert about["counts"] == shown.table["rhythm"].value_counts().tolist()
    about, ages = column_of(viewed, "age")
    assert about["kind"] == "number"
    assert np.allclose(ages, shown.table["age"])
    about, flagged = column_of(viewed, "flag: clipped")
    assert dict(zip(about["categories"], about["counts"], strict=True)) == {"no": 240, "yes": 60}
    assert [about["categories"][code] for code in flagged[:6]] == ["yes", "no", "no", "no", "no", "yes"]
    _, probability = column_of(viewed, "probability: ATRIAL FIBRILLATION")
    assert np.allclose(probability, np.where(shown.table["rhythm"] == "af", 0.9, 0.1))  # the mean over two windows
    about, widths = column_of(viewed, "device: qrs_ms")
    assert about["n_missing"] == 150
    assert np.isnan(widths[1])
    assert widths[0] == 80
    assert viewed.ask("/api/column", name="record").status == 422
    assert viewed.ask("/api/column").json["error"] == "the parameter name is missing"


def test_filter(viewed: Served, shown: Shown) -> None:
    found = viewed.ask("/api/filter", "POST", b'age >= 60 and col("flag: clipped")').body
    mask = np.unpackbits(np.frombuffer(found, np.uint8), count=len(shown.table), bitorder="little").astype(bool)
    expected = (shown.table["age"] >= 60) & (np.arange(len(shown.table)) % 5 == 0)
    assert np.array_equal(mask, expected)
    found = viewed.ask("/api/filter", "POST", b'col("probability: ATRIAL FIBRILLATION") > 0.5').body
    assert np.unpackbits(np.frombuffer(found, np.uint8)).sum() == (shown.table["rhythm"] == "af").sum()
    for wrong in (b"age >", b"__import__('os')", b"nothing == 1", b"rhythm > 3", b"(" * 3000, b"\xff\xfe", b""):
        answer = viewed.ask("/api/filter", "POST", wrong)
        assert answer.status == 422
        assert answer.json["error"]


def test_a_selection_beside_the_rest(viewed: Served, shown: Shown) -> None:
    is_af = (shown.table["rhythm"] == "af").to_numpy()
    told = viewed.ask("/api/selection", "POST", mask_of(is_af, len(is_af))).json
    assert told["n"] == is_af.sum()
    first = told["columns"][0]
    assert first["name"] == "rhythm"
    shares = {each["value"]: (each["selected"], each["rest"]) for each in first["shares"]}
    assert shares["af"] == (is_af.sum(), 0)
    assert shares["sinus"] == (0, (shown.table["rhythm"] == "sinus").sum())
    ages = next(each for each in told["columns"] if each["name"] == "age")["spread"]
    assert np.isclose(ages["selected"][1], shown.table["age"][is_af].median(), atol=1e-3)
    assert np.isclose(ages["rest"][1], shown.table["age"][~is_af].median(), atol=1e-3)
    names = [each["name"] for each in told["columns"]]
    assert "subject" not in names  # a column of identifiers
    predicted = viewed.ask("/api/composition", selection=told["selection"]).json["columns"]
    assert {each["name"] for each in predicted} == {"probability: ATRIAL FIBRILLATION", "probability: SINUS RHYTHM"}
    assert predicted[0]["distance"] == 1
    page = viewed.ask("/api/rows", selection=told["selection"], first=2).json
    rows = np.flatnonzero(is_af)
    assert [each["row"] for each in page["rows"]] == rows[2:102].tolist()
    assert page["rows"][0]["record"] == shown.table["ecg"][rows[2]]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_selection_is_saved(viewed: Served, shown: Shown, form: str) -> None:
    n = len(shown.table)
    rows = [*range(0, 140, 7), N_FILES, N_FILES + 1, 8]
    number = viewed.ask("/api/selection", "POST", mask_of(np.array(rows), n)).json["selection"]
    answer = viewed.ask("/api/save", selection=number, format=form)
    assert answer.status == 200
    assert answer.headers["Content-Disposition"] == f'attachment; filename="selection.{form}"'
    read = pd.read_csv if form == "csv" else pd.read_parquet
    table = read(io.BytesIO(answer.body))
    assert len(table) == len(set(rows))
    assert table["age"].tolist() == shown.table["age"][sorted(set(rows))].tolist()
    assert {"pca_x", "pca_y"} <= set(table.columns)
    hostile = table["record"][table["record"].str.contains("HYPERLINK")].item()
    assert hostile == (f"'{FORMULA}" if form == "csv" else FORMULA)
    assert viewed.ask("/api/save", selection=number, format="exe").status == 422
    assert viewed.ask("/api/save", selection="x", format="csv").status == 422


def test_a_map_that_is_made_meanwhile_does_not_change_a_file(
    atlas: Atlas, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "_ROWS_AT_ONCE", 100)
    mask = np.ones(len(atlas), bool)
    for form, read in (("csv", pd.read_csv), ("parquet", pd.read_parquet)):
        pieces = saving.saved(atlas, mask, form)
        found = [next(pieces)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(atlas.places, "umap", Progress("ready"))
            patch.setitem(atlas.places._coordinates, "umap", np.zeros((len(atlas), 2), np.uint16))
            found.extend(pieces)
        table = read(io.BytesIO(b"".join(found)))
        assert len(table) == len(atlas)
        assert "umap_x" not in table


def test_a_file_that_is_cut_is_seen_as_cut(viewed: Served, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(error: Exception, *first: bytes) -> Iterator[bytes]:
        yield from first
        raise error

    opening = viewed.server.viewer.opening
    for error in (ValueError("a secret"), SettingsError("a secret"), KeyError("a secret")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(opening, "save", lambda *_, error=error: broken(error, b"a,b\n", b"1,2\n"))
            with pytest.raises(IncompleteRead) as cut:
                viewed.ask("/api/save", selection=1, format="csv")
            assert cut.value.partial == b"a,b\n1,2\n"
            assert type(error).__name__ in capsys.readouterr().err
    with pytest.MonkeyPatch.context() as patch:  # what cannot be made at all is an answer of its own
        patch.setattr(opening, "save", lambda *_: broken(SettingsError("told")))
        answer = viewed.ask("/api/save", selection=1, format="csv")
        assert (answer.status, answer.json) == (422, {"error": "told"})


def test_a_file_is_not_sent_to_what_does_not_know_chunks(viewed: Served) -> None:
    number = viewed.ask("/api/selection", "POST", mask_of(np.array([1]), 300)).json["selection"]
    mine = f"selection={number}&opening={viewed.server.viewer.opening.name}"
    with socket.create_connection(("127.0.0.1", viewed.server.server_port), timeout=20) as raw:
        head = f"Host: localhost\r\nCookie: {viewed.cookie}\r\n\r\n"
        raw.sendall(f"GET /api/save?format=csv&{mine} HTTP/1.0\r\n{head}".encode())
        assert raw.recv(12) == b"HTTP/1.1 505"


def test_search(viewed: Served, shown: Shown) -> None:
    found = viewed.ask("/api/search", text="P001").json
    assert [(each["row"], each["record"]) for each in found["found"]] == [(1, "p001/r.hea")]
    by_study = viewed.ask("/api/search", text="5017").json["found"]
    assert [(each["row"], each["by"], each["text"]) for each in by_study] == [(17, "study_id", "5017")]
    by_patient = viewed.ask("/api/search", text="S0004").json["found"]
    assert [each["row"] for each in by_patient] == [8, 9]
    many = viewed.ask("/api/search", text="xml").json
    assert len(many["found"]) == 50
    assert many["total"] == len(shown.table) - N_FILES
    hostile = viewed.ask("/api/search", text="<img").json["found"]
    assert [each["record"] for each in hostile] == [HOSTILE]
    assert viewed.ask("/api/search", text="nothing like it").json == {"found": [], "total": 0}
    assert viewed.ask("/api/search", text="").status == 422
    assert viewed.ask("/api/search", text="x" * 3000).status == 422


def test_a_recording(viewed: Served) -> None:
    told = viewed.ask("/api/recording", row=10).json
    assert told["record"] == "sub/00010.xml"
    assert told["subject"] == "S0005"
    assert [each["row"] for each in told["others"]] == [11]
    assert told["flags"][0]["name"] == "clipped"
    assert told["flags"][0]["detail"] == "V1"
    assert told["flags"][0]["meaning"]
    assert told["statements"] == ["Sinus rhythm", "<b>Otherwise normal</b>"]
    assert [name for name, _ in told["probabilities"]]
    assert [name for name, _ in told["facts"] if name == "rhythm"] == ["rhythm"]
    for row in ("300", "-1", "x", "1e3", "9" * 5000, ""):
        assert viewed.ask("/api/recording", row=row).status == 422


def test_neighbours_are_the_nearest(viewed: Served, shown: Shown) -> None:
    told = viewed.ask("/api/neighbours", row=10).json
    rows = [each["row"] for each in told["neighbours"]]
    assert len(rows) == 10
    assert 10 not in rows
    assert told["exact"]
    rhythm = shown.table["rhythm"]
    assert (rhythm[rows] == rhythm[10]).all()
    similarity = [each["similarity"] for each in told["neighbours"]]
    assert similarity == sorted(similarity, reverse=True)
    assert [each["same_patient"] for each in told["neighbours"]] == [each == 11 for each in rows]


def test_an_ecg_on_paper(viewed: Served) -> None:
    told = viewed.ask("/api/ecg", row=1).json
    labels = [[trace["label"] for trace in row["traces"]] for row in told["rows"]]
    assert labels == [["I", "aVR", "V1", "V4"], ["II", "aVL", "V2", "V5"], ["III", "aVF", "V3", "V6"], ["II"]]
    strip = told["rows"][3]["traces"][0]["microvolts"]
    assert len(strip) == 2500
    assert max(strip) > 200
    assert "heart rate" in told["heading"]


def test_an_ecg_that_is_not_there_has_a_reason(viewed: Served) -> None:
    assert viewed.ask("/api/ecg", row=20).json == {"reason": "a file is not there"}


def test_an_ecg_that_has_changed_is_not_drawn(shown: Shown, tmp_path_factory: pytest.TempPathFactory) -> None:
    moved = tmp_path_factory.mktemp("moved") / "data"
    shutil.copytree(shown.data_dir, moved)
    shutil.rmtree(moved / "p001")
    shutil.copytree(moved / "p003", moved / "p001")
    atlas = open_atlas(open_run(shown.folder), data_dir=str(moved))
    atlas.places.wait(60)
    assert ecg_of(atlas, 1) == {"reason": "a file has changed since the run"}
    assert "rows" in ecg_of(atlas, 2)


def test_failures_and_their_reasons(viewed: Served) -> None:
    told = viewed.ask("/api/failures").json
    assert told["rows"] == [{"record": "b/5.xml", "error": "ReadError", "reason": "no such file"}]
    assert told["reasons"] == [{"error": "ReadError", "reason": "no such file", "n": 1}]
    assert viewed.ask("/api/failures", text="SUCH").json["total"] == 1
    assert viewed.ask("/api/failures", text="other").json["total"] == 0
    assert viewed.ask("/api/failures", first="-5").json["total"] == 1


def test_an_error_in_the_program_is_one_line_without_values(viewed: Served, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(text: str) -> None:
        raise KeyError(text)

    opening = viewed.server.viewer.opening
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opening, "search", broken)
        with pytest.raises(ConnectionError):
            viewed.ask("/api/search", text="Smith")
    said = capsys.readouterr().err
    assert said == "ecgfounder: a request of the page was not answered: KeyError\n"


def test_bands_of_evidence_below_an_ecg(atlas: Atlas, viewed: Served) -> None:
    assert viewed.ask("/api/about").json["has_evidence"] is False
    assert viewed.ask("/api/evidence", row="1").status == 422
    with served(lambda: atlas, bands_of=bands_of) as running:
        running.enter()
        assert running.ask("/api/about").json["has_evidence"] is True
        told = running.ask("/api/evidence", row="1").json
        assert told["bands"] == [{"name": "evidence", "caption": ["<b>told</b>"]}]
        (bars,) = told["bars"].values()
        assert bars == [[[0.0, 1.0, 1.0], [1.0, 2.0, -0.5]]]
        assert running.ask("/api/evidence", row=str(len(atlas))).status == 422
        assert "reason" in running.ask("/api/evidence", row=str(len(atlas) - 1)).json  # its file is not there
    with served(lambda: atlas, bands_of=refusing) as running:
        running.enter()
        assert running.ask("/api/evidence", row="1").json == {"reason": "too short"}


def refusing(_recording: Recording) -> tuple[Band, ...]:
    raise PrepareError("too short")


def test_a_page_from_before_the_run_was_read_again_is_refused(tmp_path: Path) -> None:
    """Rows are other recordings then: two were done, then a third, before them in the order of the cohort."""
    made = Made(tmp_path / "run", outcome="interrupted", done_order=["a/2.xml", "b/3.xml"])
    folder = made.make()
    with served(lambda: open_atlas(open_run(folder, allow_incomplete=True))) as running:
        running.enter()
        stale = running.ask("/api/about").json["opening"]
        selection = running.ask("/api/selection", "POST", b"\x01").json["selection"]
        assert running.ask("/api/name", row=0).json["record"] == "a/2.xml"
        shutil.rmtree(folder)
        Made(tmp_path / "run", outcome="interrupted", done_order=["a/1.xml", "a/2.xml", "b/3.xml"]).make()
        assert running.ask("/api/reopen", "POST", b"").json["n"] == 3
        assert running.ask("/api/name", row=0).json["record"] == "a/1.xml"
        for path in ("/api/name?row=0", "/api/recording?row=0", f"/api/save?selection={selection}&format=csv"):
            answer = running.ask(path, opening=stale)
            assert (answer.status, b"reload" in answer.body) == (409, True)
            assert running.request(path, headers={"Cookie": running.cookie}).status == 409  # of no opening at all
        assert running.ask("/api/selection", "POST", b"\x01", opening=stale).status == 409
        assert running.ask("/api/reopen", "POST", b"", opening=stale).status == 409


def test_an_answer_of_an_opening_does_not_change_while_the_run_is_read_again(shown: Shown) -> None:
    viewer = Viewer(lambda: open_atlas(open_run(shown.folder)))
    before = viewer.opening
    number = before.select(np.ones(len(shown.table), bool))["selection"]
    viewer.reopen()
    assert before.rows(number, 0)["total"] == len(shown.table)
    with pytest.raises(SettingsError, match="select again"):
        viewer.opening.rows(number, 0)
    viewer.close()


def test_the_run_is_read_again_by_one_at_a_time(atlas: Atlas) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow() -> Atlas:
        begun.set()
        assert go_on.wait(30)
        return atlas

    viewer = Viewer(lambda: atlas)
    viewer._opened = slow
    first = threading.Thread(target=viewer.reopen)
    first.start()
    assert begun.wait(30)
    with pytest.raises(SettingsError, match="already"):
        viewer.reopen()
    go_on.set()
    first.join()


def test_an_answer_may_take_longer_than_its_request(
    atlas: Atlas, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "READ_SECONDS", 0.3)

    def slow(*_: object) -> Any:
        time.sleep(0.8)
        return {"slow": True}

    with served(lambda: atlas) as running:
        running.enter()
        monkeypatch.setattr(running.server.viewer.opening, "search", slow)
        monkeypatch.setattr(running.server.viewer.opening, "select", slow)
        monkeypatch.setattr(running.server.viewer, "reopen", slow)
        assert running.ask("/api/search", text="x").json == {"slow": True}
        assert running.ask("/api/selection", "POST", mask_of(np.array([1]), len(shown.table))).json == {"slow": True}
        assert running.ask("/api/reopen", "POST", b"").json == {"slow": True}


def test_progress_is_told_while_an_ecg_is_read(atlas: Atlas) -> None:
    viewer = Viewer(lambda: atlas)
    with viewer.opening._reading:
        telling = threading.Thread(target=viewer.status, daemon=True)
        telling.start()
        telling.join(30)
        assert not telling.is_alive()


def test_each_column_is_encoded_once(atlas: Atlas, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    encoded = atlas.columns.encoded
    monkeypatch.setattr(atlas.columns, "encoded", lambda name: names.append(name) or encoded(name))
    found = composition(atlas.columns, np.arange(len(atlas)) < 9, predicted=True)
    assert sorted(names) == sorted(each.name for each in found)
