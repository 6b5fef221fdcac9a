"""Layouts of text tables: encodings, separators, columns that are no leads, names that are repeated, tables that are too wide."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ecgfounder.ecg.recording import Recording
from ecgfounder.errors import ReadError
from ecgfounder.readers import read_ecg
from ecgfounder.readers.source import Hints
from tests.builders.text_exports import lines_of, millivolts
from tests.harness.effort import measured

SAMPLES = millivolts()
TIMES = [f"{number / 500:.3f}" for number in range(len(SAMPLES))]
NAMED = lines_of(TIMES, SAMPLES, ["time (s),I (mV),II (mV)"])


def read(folder: Path, text: str, hints: Hints | None = None, encoding: str = "utf-8") -> Recording:
    (folder / "x.csv").write_bytes(text.encode(encoding))
    return read_ecg(folder / "x.csv", hints=hints)


def require_samples(recording: Recording, leads: tuple[str, ...] = ("I", "II")) -> None:
    assert (recording.leads, recording.sampling_rate) == (leads, 500)
    np.testing.assert_allclose(recording.samples, SAMPLES.T[: len(leads)], atol=1e-6)


# Encodings, ends of lines, separators


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r", "\r\r\n"])
@pytest.mark.parametrize("end", ["", "\n\n", ",,\n\n,,\n", "\x1a"])
def test_tables_are_read_in_any_encoding_with_any_ends_of_lines(
    encoding: str, ending: str, end: str, tmp_path: Path
) -> None:
    text = lines_of(TIMES, SAMPLES * 1000, ["time (s),I (µV),II (µV)"]) + end
    require_samples(read(tmp_path, text.replace("\n", ending), encoding=encoding))


def test_a_big_endian_text_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"\xfe\xff" + NAMED.encode("utf-16-be"))
    require_samples(read_ecg(tmp_path / "x.csv"))


@pytest.mark.parametrize(
    "changed",
    [
        lambda text: text.replace(",", ";").replace(".", ","),
        lambda text: "sep=;\n" + text.replace(",", ";").replace(".", ","),
        lambda text: text.replace(",", "\t").replace(".", ","),
        lambda text: text.replace("time (s),I (mV),II (mV)", "t/s I_mV II_mV").replace(",", "  "),
        lambda text: text.replace("time (s),I (mV),II (mV)", "t/s I_mV II_mV").replace(",", " ").replace(".", ","),
        lambda text: "\n".join(
            ",".join(f'"{field}"'.replace(".", ",") for field in line.split(",")) for line in text.splitlines()
        ),
        lambda text: text.replace(",", " , "),
    ],
)
def test_separators_and_decimal_commas_are_told_apart(changed: Callable[[str], str], tmp_path: Path) -> None:
    require_samples(read(tmp_path, changed(NAMED)))


def test_a_large_table_that_blanks_separate_is_not_read_row_by_row(tmp_path: Path) -> None:
    samples = millivolts(100_000)
    text = lines_of((f"{number / 500:.3f}" for number in range(len(samples))), samples, ["t/s I_mV II_mV"], " " * 35)
    assert len(text) > 8 << 20
    with measured() as effort:
        assert read(tmp_path, text).n_samples == 100_000
    assert effort.lines < 250_000


# Columns that are no leads


def with_column(name: str, fields: list[str], at: int) -> str:
    lines = [line.split(",") for line in NAMED.splitlines()]
    for line, field in zip(lines, [name, *fields], strict=True):
        line.insert(at, field)
    return "\n".join(",".join(line) for line in lines) + "\n"


@pytest.mark.parametrize("at", [0, 1, 2, 3])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(("name", "kind"), [("DateTime", "date"), ("note", "word"), ("clock", "clock")])
def test_columns_without_numbers_are_no_leads(name: str, kind: str, at: int, known: bool, tmp_path: Path) -> None:
    fields = {
        "date": [f"2000-01-01 12:00:{second}" for second in (f"{float(time):06.3f}" for time in TIMES)],
        "word": ["rest"] * len(TIMES),
        "clock": [f"12:00:{float(time):06.3f}" for time in TIMES],
    }[kind]
    text = with_column(name, fields, at)
    if known:
        require_samples(read(tmp_path, text))
        return
    unnamed = text.replace("I (mV),", "a,").replace("II (mV)", "b").replace(",I (mV)", ",a")
    require_samples(read(tmp_path, unnamed, Hints(None, "mV", ("I", "II"))))
    with pytest.raises(ReadError, match="none of the 2 columns of the table"):
        read(tmp_path, unnamed, Hints(None, "mV"))


def test_a_table_without_names_may_have_dates_before_or_behind(tmp_path: Path) -> None:
    hints = Hints(None, "mV", ("I", "II"))
    dates = [f"2000-01-01 12:00:{float(time):06.3f}" for time in TIMES]
    require_samples(read(tmp_path, lines_of(dates, SAMPLES), hints))
    behind = "\n".join(
        f"{line},{date}" for line, date in zip(lines_of(TIMES, SAMPLES).splitlines(), dates, strict=True)
    )
    require_samples(read(tmp_path, behind, hints))


def test_the_rate_comes_from_dates_if_there_are_no_other_times(tmp_path: Path) -> None:
    for name in ("DateTime", "timestamp", "Time"):
        dates = [f"2000-01-01T12:00:{float(time):06.3f}Z" for time in TIMES]
        require_samples(read(tmp_path, lines_of(dates, SAMPLES, [f"{name},I (mV),II (mV)"])))


@pytest.mark.parametrize(
    "header", ["index,time (s),I (mV),II (mV)", ",time (s),I (mV),II (mV)", "time (s),index,I (mV),II (mV)"]
)
def test_times_beside_numbers_of_rows_give_the_rate(header: str, tmp_path: Path) -> None:
    first = not header.startswith("time")
    fields = [f"{number},{time}" if first else f"{time},{number}" for number, time in enumerate(TIMES)]
    require_samples(read(tmp_path, lines_of(fields, SAMPLES, [header])))


def test_times_may_be_behind_the_leads(tmp_path: Path) -> None:
    lines = ["I (mV),II (mV),time (ms)"]
    lines += [f"{one},{two},{float(time) * 1000:.0f}" for time, (one, two) in zip(TIMES, SAMPLES, strict=True)]
    require_samples(read(tmp_path, "\n".join(lines)))


def test_a_first_column_of_equal_steps_is_no_lead_if_there_is_one_name_less(tmp_path: Path) -> None:
    hints = Hints(500, "mV", ("I", "II"))
    require_samples(read(tmp_path, lines_of(TIMES, SAMPLES, ["x,a,b"]), hints))
    shuffled = [TIMES[-1], *TIMES[:-1]]
    with pytest.raises(ReadError, match="none of the 3 columns"):
        read(tmp_path, lines_of(shuffled, SAMPLES, ["x,a,b"]), hints)


@pytest.mark.parametrize(("header", "leads"), [("time,ECG", ("ECG",)), ("time,sample", ("sample",)), ("t,1", ("1",))])
def test_the_only_other_column_is_the_lead(header: str, leads: tuple[str, ...], tmp_path: Path) -> None:
    text = lines_of(TIMES, SAMPLES[:, :1], [header])
    require_samples(read(tmp_path, text, Hints(None, "mV")), leads)
    require_samples(read(tmp_path, text, Hints(None, "mV", ("II",))), ("II",))


def test_a_column_that_says_ecg_is_the_lead_among_others(tmp_path: Path) -> None:
    text = lines_of(TIMES, SAMPLES, ["time,ECG,RESP"])
    require_samples(read(tmp_path, text, Hints(None, "mV")), ("ECG",))


def test_a_lead_whose_fields_are_words_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="fields that are not numbers"):
        read(tmp_path, "I,II,III\n" + "1,rest,2\n" * 9, Hints(500, "mV"))


# Names that are repeated


def test_names_on_every_page_are_left_out_if_times_go_on(tmp_path: Path) -> None:
    lines = NAMED.splitlines()
    for line in (500, 200):
        lines.insert(line, lines[0])
    require_samples(read(tmp_path, "\n".join([lines[0], *lines])))


@pytest.mark.parametrize("header", ["time (s),I (mV),II (mV)", "a,I (mV),II (mV)"])
def test_several_recordings_below_each_other_are_refused(header: str, tmp_path: Path) -> None:
    once = lines_of(TIMES, SAMPLES, [header])
    with pytest.raises(ReadError, match="may be several recordings"):
        read(tmp_path, once + once, Hints(500))


# Sizes


def test_thousands_of_columns_are_refused_without_reading_them(tmp_path: Path) -> None:
    row = ",".join(["1.5"] * 3000)
    (tmp_path / "x.csv").write_text("\n".join([row] * 1200))
    with measured() as effort, pytest.raises(ReadError, match="3,000 columns and more rows than leads"):
        read_ecg(tmp_path / "x.csv", hints=Hints(500, "mV", ("I",)))
    assert effort.lines < 100_000
    header = ",".join(str(number) for number in range(300))
    with pytest.raises(ReadError, match="at most 256 columns are read"):
        read(tmp_path, f"x,{header}\n" + ("1," + header + "\n") * 3, Hints(500, "mV"))
