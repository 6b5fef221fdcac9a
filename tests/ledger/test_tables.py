"""The tables beside the manifest: a row for each input with its place, and findings from a probability of one half on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from ecgfounder.ecg.statements import Statements
from ecgfounder.errors import RunError
from ecgfounder.ledger import tables
from ecgfounder.ledger.entry import Entry, packed
from ecgfounder.ledger.tables import PredictionsTable, StatementsTable
from ecgfounder.network.bundles import spec_of
from tests.builders.entries import entry_of

LABELS = spec_of("12lead").labels()


def probabilities(**values: float) -> npt.NDArray[np.float32]:
    """A row of probabilities: those given by the number of their label (`n0`, `n7`), the others 0.1."""
    row = np.full(len(LABELS), 0.1, dtype=np.float32)
    for name, value in values.items():
        row[int(name[1:])] = value
    return row


def predicted(key: int, *rows: npt.NDArray[np.float32], **facts: object) -> Entry:
    return entry_of(key, shape=(len(rows), 4), probabilities=[packed(row) for row in rows], **facts)


def below(value: float) -> float:
    return float(np.nextafter(np.float32(value), np.float32(0)))


def test_a_finding_is_a_statement_whose_probability_is_at_least_one_half(tmp_path: Path) -> None:
    with PredictionsTable(tmp_path / "p.pq", LABELS) as table:
        table.add("a", predicted(1, probabilities(n0=0.5, n1=below(0.5), n2=0.9)))
        table.add("b", predicted(2, probabilities(n0=below(0.5), n2=0.5)))
    assert table.likely == {LABELS[0]: 1, LABELS[2]: 2}


def test_a_recording_counts_once_however_many_of_its_windows_show_a_finding(tmp_path: Path) -> None:
    rows = [probabilities(n3=0.7), probabilities(n3=0.8), probabilities(n4=0.6)]
    with PredictionsTable(tmp_path / "p.pq", LABELS) as table:
        table.add("a", predicted(1, *rows, leads=["I"], starts=[0.0, 10.0, 20.0]))
    assert table.likely == {LABELS[3]: 1, LABELS[4]: 1}


def test_each_row_says_of_which_window_and_lead_it_is_in_both_files(tmp_path: Path) -> None:
    rows = [probabilities(n0=number / 10) for number in range(4)]
    with PredictionsTable(tmp_path / "p.pq", LABELS) as table:
        table.add("whole", predicted(1, rows[0], leads=["I", "II"], starts=[0.0]))
        table.add("windows", predicted(2, *rows[:2], leads=["I", "II", "III"], starts=[0.0, 2.5]))
        table.add("one lead", predicted(3, *rows[:2], leads=["II"], starts=[0.0, 2.5]))
        table.add("leads of windows", predicted(4, *rows, leads=["I", "V1"], starts=[0.0, 2.5]))
        table.add("failed", entry_of(5, "failed", reason="damaged"))
    found = pq.read_table(tmp_path / "p.pq")
    places = [(row["record"], row["window_start"], row["lead"]) for row in found.to_pylist()]
    assert places == [
        ("whole", 0.0, None),
        ("windows", 0.0, None),
        ("windows", 2.5, None),
        ("one lead", 0.0, "II"),
        ("one lead", 2.5, "II"),
        ("leads of windows", 0.0, "I"),
        ("leads of windows", 0.0, "V1"),
        ("leads of windows", 2.5, "I"),
        ("leads of windows", 2.5, "V1"),
    ]
    assert found[LABELS[0]].to_pylist()[-4:] == [float(row[0]) for row in rows]
    text = pyarrow.csv.read_csv(tmp_path / "p.csv")
    assert text.column_names == found.column_names
    assert text["record"].to_pylist() == found["record"].to_pylist()
    np.testing.assert_allclose(text[LABELS[0]].to_numpy(), found[LABELS[0]].to_numpy(), rtol=1e-6)


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 8, 9])
def test_no_row_is_lost_or_doubled_where_rows_are_written_in_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(tables, "ROWS_AT_ONCE", 4)
    with PredictionsTable(tmp_path / "p.pq", LABELS) as table:
        for number in range(count):
            table.add(str(number), predicted(number + 1, probabilities()))
    names = [str(number) for number in range(count)]
    assert pq.read_table(tmp_path / "p.pq")["record"].to_pylist() == names
    assert len((tmp_path / "p.csv").read_text().splitlines()) == count + 1


def break_off(path: Path) -> None:
    with PredictionsTable(path, LABELS) as table:
        table.add("a", predicted(1, probabilities()))
        raise ZeroDivisionError


def test_a_table_that_breaks_off_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "p.pq").write_bytes(b"before")
    (tmp_path / "p.csv").write_bytes(b"before, too")
    with pytest.raises(ZeroDivisionError):
        break_off(tmp_path / "p.pq")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "p.pq": b"before",
        "p.csv": b"before, too",
    }


def test_statements_stand_in_a_row_of_their_recording_and_others_have_none(tmp_path: Path) -> None:
    stated = Statements(statements=("Sinus rhythm",), heart_rate=60.0, qtc_ms=410.0)
    with StatementsTable(tmp_path / "s.pq") as table:
        table.add("a", entry_of(1, statements=stated))
        table.add("b", entry_of(2))
        table.add("c", entry_of(3, statements=Statements()))
    rows = pq.read_table(tmp_path / "s.pq").to_pylist()
    assert [row["record"] for row in rows] == ["a", "c"]
    assert rows[0]["statements"] == ["Sinus rhythm"]
    assert (rows[0]["heart_rate"], rows[0]["qtc_ms"], rows[0]["pr_ms"]) == (60.0, 410.0, None)
    assert not (tmp_path / "s.csv").exists()


def test_a_record_that_a_spreadsheet_would_run_is_text_in_the_csv_alone(tmp_path: Path) -> None:
    with PredictionsTable(tmp_path / "p.pq", LABELS) as table:
        table.add("=1+1.xml", predicted(1, probabilities(n0=0.5), leads=["I"], starts=[-0.5]))
    assert pq.read_table(tmp_path / "p.pq")["record"].to_pylist() == ["=1+1.xml"]
    read = pyarrow.csv.read_csv(tmp_path / "p.csv")
    assert read["record"].to_pylist() == ["'=1+1.xml"]
    assert read["window_start"].to_pylist() == [-0.5]


def test_predictions_of_another_number_of_statements_stop_the_table_in_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(RunError, match="predictions of 150 statements, and the run's checkpoint has 2: another program"),
        PredictionsTable(tmp_path / "p.pq", ["fast", "slow"]) as table,
    ):
        table.add("a", predicted(1, probabilities()))
    assert list(tmp_path.iterdir()) == []
