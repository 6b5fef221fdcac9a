"""Tables of numbers without an ECG format around them: CSV, NPY, NPZ, MATLAB, HDF5."""

from __future__ import annotations

import gzip
import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.errors import MissingDependencyError, ReadError, UnsupportedFormatError
from ecgfounder.readers import arrays, read_ecg, text_layout
from ecgfounder.readers.source import Hints, Source
from ecgfounder.storage import locate
from tests.builders.arrays import WATCH, mat, mat_7_3, npy, npz, table, text_of
from tests.harness.effort import measured
from tests.harness.mutations import is_read_or_refused

ALL = Hints(sampling_rate=500, unit="uV", leads=STANDARD_LEADS)


def write(folder: Path, name: str, data: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


# CSV and TSV


@settings(max_examples=40, deadline=None)
@given(
    leads=st.integers(1, 12),
    n=st.integers(3, 40),
    delimiter=st.sampled_from([",", ";", "\t"]),
    unit=st.sampled_from(["mV", "uV", "µV", "V"]),
    style=st.sampled_from(["{} ({})", "{} [{}]", "{}_{}", "{}/{}"]),
    timed=st.booleans(),
    comma=st.booleans(),
    seed=st.integers(0, 1 << 30),
)
def test_csv_round_trips(
    leads: int,
    n: int,
    delimiter: str,
    unit: str,
    style: str,
    timed: bool,
    comma: bool,
    seed: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    values = table(leads, n, seed) * (1e-3 if unit == "V" else 1)
    columns, names = values.T, [style.format(lead, unit) for lead in STANDARD_LEADS[:leads]]
    if timed:
        columns, names = np.column_stack([np.arange(n) / 250, columns]), ["time (s)", *names]
    text = text_of(columns, delimiter.join(names), delimiter)
    if comma and delimiter != "," and len(names) > 1:  # a single column shows no delimiter to tell a decimal comma from
        text = text.replace(".", ",")
    hints = Hints() if timed else Hints(sampling_rate=250)
    recording = read_ecg(write(tmp_path_factory.mktemp("c"), "x.csv", text), hints=hints)
    scale = {"mV": 1, "uV": 1e-3, "µV": 1e-3, "V": 1e3}[unit]
    np.testing.assert_allclose(recording.samples, values * scale, rtol=1e-6, atol=1e-9)
    assert (recording.leads, recording.sampling_rate) == (STANDARD_LEADS[:leads], 250)


@pytest.mark.parametrize("by_row", [True, False])
def test_a_table_without_names_takes_them_from_the_user(by_row: bool, tmp_path: Path) -> None:
    values = table()
    path = write(tmp_path, "x.csv", text_of(values if by_row else values.T))
    recording = read_ecg(path, hints=ALL)
    np.testing.assert_allclose(recording.samples, values / 1000, rtol=1e-6)
    assert recording.source_format == "csv"


def test_rows_that_begin_with_a_lead_are_leads(tmp_path: Path) -> None:
    values = table(3)
    lines = [f"{lead}," + line for lead, line in zip(STANDARD_LEADS, text_of(values).splitlines(), strict=False)]
    recording = read_ecg(write(tmp_path, "x.csv", "\n".join(lines)), hints=Hints(sampling_rate=500, unit="uV"))
    assert recording.leads == ("I", "II", "III")
    np.testing.assert_allclose(recording.samples, values / 1000, rtol=1e-6)


@pytest.mark.parametrize("n_bytes", [500, 1000, 2040, 2050, 2600, 3500, 4080, 4090, 4100, 9000])
@pytest.mark.parametrize("named", [True, False])
def test_rows_that_are_leads_may_have_any_length(n_bytes: int, named: bool, tmp_path: Path) -> None:
    """The first bytes, by which the format is known, may hold one row and a part of the next one."""
    values = table(3, n_bytes // 7).round(1)
    rows = [",".join(map("{:7.1f}".format, row)) for row in values]
    lines = [f"{lead},{row}" if named else row for lead, row in zip(STANDARD_LEADS, rows, strict=False)]
    hints = Hints(sampling_rate=500, unit="uV", leads=None if named else ("I", "II", "III"))
    recording = read_ecg(write(tmp_path, "x.csv", "\n".join(lines) + "\n"), hints=hints)
    np.testing.assert_allclose(recording.samples, values / 1000, rtol=1e-6)


def test_physionets_own_export_is_read(tmp_path: Path) -> None:
    """Two header lines in quotes, the second with units, times as text."""
    text = "'Elapsed time','MLII','V5'\n'hh:mm:ss.mmm','mV','mV'\n'0:00.000',-0.145,-0.065\n'0:00.003',-0.140,-0.060\n"
    recording = read_ecg(write(tmp_path, "x.csv", text), hints=Hints(sampling_rate=360))
    assert recording.leads == ("MLII", "V5")
    np.testing.assert_allclose(recording.samples[0], [-0.145, -0.14], rtol=1e-6)


def test_remarks_may_give_rate_and_unit(tmp_path: Path) -> None:
    text = "# sampling rate: 257Hz, unit = uV\n" + text_of(table(2).T, "I,II")
    recording = read_ecg(write(tmp_path, "x.csv", text))
    assert recording.sampling_rate == 257
    np.testing.assert_allclose(recording.samples, table(2) / 1000, rtol=1e-6)


@pytest.mark.parametrize(
    ("times", "name", "rate"),
    [
        ([0, 4, 8], "ms", 250),
        ([0, 4, 8], "time (ms)", 250),
        ([0, 0.002, 0.004], "Time", 500),
        ([0, 0.01, 0.02], "t/s", 100),
    ],
)
def test_the_rate_comes_from_a_column_of_times(times: list[float], name: str, rate: float, tmp_path: Path) -> None:
    if name == "ms":
        name = "milliseconds"
    text = text_of(np.column_stack([times, [1, 2, 3]]), f"{name},II (uV)")
    assert read_ecg(write(tmp_path, "x.csv", text)).sampling_rate == rate


def test_times_whose_unit_is_not_said_give_no_rate(tmp_path: Path) -> None:
    text = text_of(np.array([[0, 1], [4, 2], [8, 3]]), "time,II (uV)")
    with pytest.raises(ReadError, match="sampling_rate"):
        read_ecg(write(tmp_path, "x.csv", text))


def test_blank_fields_are_nan_and_other_columns_are_left_out(tmp_path: Path) -> None:
    text = "sample,I,label,II\n0,1,9,2\n1,,9,3\n2,4,9,5\n"
    recording = read_ecg(write(tmp_path, "x.csv", text), hints=Hints(sampling_rate=500, unit="mV"))
    assert recording.leads == ("I", "II")
    np.testing.assert_array_equal(recording.samples, [[1, np.nan, 4], [2, 3, 5]])


def test_leads_in_another_order_stay_under_their_names(tmp_path: Path) -> None:
    """MIMIC's aVF stands before aVL."""
    values = table(3)
    recording = read_ecg(
        write(tmp_path, "x.csv", text_of(values.T, "aVR,aVF,aVL")), hints=Hints(sampling_rate=500, unit="1000")
    )
    assert recording.leads == ("aVR", "aVF", "aVL")
    np.testing.assert_allclose(recording.samples, values / 1000, rtol=1e-6)


@pytest.mark.parametrize(
    ("hints", "flag"),
    [
        (Hints(unit="uV", leads=STANDARD_LEADS), "sampling_rate"),
        (Hints(sampling_rate=500, leads=STANDARD_LEADS), "the 'unit' parameter"),
        (Hints(sampling_rate=500, unit="uV"), "the 'leads' parameter"),
        (Hints(sampling_rate=500, unit="cm", leads=STANDARD_LEADS), "the 'unit' parameter"),
        (Hints(sampling_rate=500, unit="0", leads=STANDARD_LEADS), "the 'unit' parameter"),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "npy", "npz", "mat"])
def test_what_the_file_leaves_open_is_asked_for_by_the_flag_that_says_it(
    kind: str, hints: Hints, flag: str, tmp_path: Path
) -> None:
    data = {"csv": text_of(table().T).encode(), "npy": npy(table()), "npz": npz(ecg=table()), "mat": mat(val=table())}
    with pytest.raises(ReadError, match=flag):
        read_ecg(write(tmp_path, f"x.{kind}", data[kind]), hints=hints)


@pytest.mark.parametrize(
    "text",
    [
        "Dear colleague,\nthank you, for 3 leads\n",
        "a\nb\nc\n",
        "12 leads\n",
        "",
        "{'a': 1,\n'b': 2}",
        "I,II\n",
        "\0\0\0",
        "# only\n",
    ],
)
def test_text_that_is_no_table_is_no_known_format(text: str, tmp_path: Path) -> None:
    path = write(tmp_path, "x.csv", text)
    assert not arrays.matches(Source(locate(path)))
    with pytest.raises(ReadError):
        read_ecg(path, hints=ALL)


@pytest.mark.parametrize(
    ("rate", "lead", "unit", "mark"),
    [
        ("Sample Rate,512.844 hertz", "Lead,Lead I", "Unit,µV", "."),
        ("Abtastrate,512,844 Hertz", "Ableitung,Ableitung I", "Einheit,µV", ","),
    ],
)
def test_what_a_watch_exports_is_read_in_any_language(
    rate: str, lead: str, unit: str, mark: str, tmp_path: Path
) -> None:
    text = WATCH.format(rate=rate, lead=lead, unit=unit, mark=mark)
    recording = read_ecg(write(tmp_path, "x.csv", text))
    assert (recording.leads, recording.sampling_rate) == (("I",), 512.844)
    np.testing.assert_allclose(recording.samples[0], [-0.048673, -0.059681, 0.012, 0.0005], rtol=1e-6)
    assert recording.meta == {}


def test_a_large_table_is_not_read_row_by_row(tmp_path: Path) -> None:
    rows = np.round(np.random.default_rng(0).normal(0, 1, (60_000, 12)), 3)
    path = write(tmp_path, "x.csv", text_of(rows, ",".join(STANDARD_LEADS)))
    read_ecg(path, hints=ALL)
    with measured() as effort:
        assert read_ecg(path, hints=ALL).n_samples == 60_000
    assert effort.lines < 20_000


def test_tables_that_are_not_plain_are_read_row_by_row_up_to_a_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = "\n".join(f"'+{i}.5' , {i}" for i in range(20))
    path = write(tmp_path, "x.csv", f"I,II\n{rows}\n")
    np.testing.assert_allclose(read_ecg(path, hints=ALL).samples[0], (np.arange(20) + 0.5) / 1000, rtol=1e-6)
    monkeypatch.setattr(text_layout, "MAX_IRREGULAR_BYTES", 100)
    with pytest.raises(ReadError, match="at most 100 bytes of such a table are read"):
        read_ecg(path, hints=ALL)


def test_a_table_with_ragged_rows_or_words_is_refused(tmp_path: Path) -> None:
    for damage in ("1,2,3\n", "1,x\n", "Smith,2\n"):
        path = write(tmp_path, "x.csv", text_of(table(2).T, "I,II") + damage)
        with pytest.raises(ReadError) as caught:
            read_ecg(path, hints=ALL)
        assert "Smith" not in str(caught.value)


# NPY and NPZ


@settings(max_examples=30, deadline=None)
@given(
    dtype=st.sampled_from(["<f4", "<f8", ">f4", "<i2", "<i4", "<f2", ">i2", "<u2"]),
    by_row=st.booleans(),
    fortran=st.booleans(),
    seed=st.integers(0, 1 << 30),
)
def test_npy_round_trips(
    dtype: str, by_row: bool, fortran: bool, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    values = np.abs(table(seed=seed)).astype(dtype)
    stored = values if by_row else values.T
    stored = np.asfortranarray(stored) if fortran else np.ascontiguousarray(stored)
    recording = read_ecg(write(tmp_path_factory.mktemp("n"), "x.npy", npy(stored)), hints=ALL)
    np.testing.assert_allclose(recording.samples, values.astype(np.float64) / 1000, rtol=1e-6)
    assert recording.source_format == "npy"


def test_npz_says_everything_itself(tmp_path: Path) -> None:
    names = np.array(["I", "II"])
    for key in ("ecg", "samples", "signal"):
        data = npz(
            **{key: table(2).T, "fs": np.float64(400), "leads": names, "unit": np.array("uV"), "age": np.array(7)}
        )
        recording = read_ecg(write(tmp_path, "x.npz", data))
        assert (recording.sampling_rate, recording.leads, recording.source_format) == (400, ("I", "II"), "npz")
        np.testing.assert_allclose(recording.samples, table(2) / 1000, rtol=1e-6)


def test_npz_of_arrays_named_after_leads_is_read(tmp_path: Path) -> None:
    data = npz(II=table(1)[0], V1=table(1, seed=8)[0])
    recording = read_ecg(write(tmp_path, "x.npz", data), hints=Hints(sampling_rate=500, unit="uV"))
    assert set(recording.leads) == {"II", "V1"}


def test_a_member_of_an_npz_is_addressed_by_name(tmp_path: Path) -> None:
    path = write(tmp_path, "x.npz", npz(first=table(), second=table(seed=8)))
    with pytest.raises(ReadError, match="FILE::ARRAY"):
        read_ecg(path, hints=ALL)
    np.testing.assert_allclose(read_ecg(f"{path}::second", hints=ALL).samples, table(seed=8) / 1000, rtol=1e-6)
    with pytest.raises(ReadError, match="none of the file's 2 arrays"):
        read_ecg(f"{path}::third", hints=ALL)


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "touched",))  # type: ignore[return-value]

    data = npy(np.array([Evil()], dtype=object))
    for path in (write(tmp_path, "x.npy", data), write(tmp_path, "x.npz", npz(ecg=np.array([Evil()], dtype=object)))):
        with pytest.raises(ReadError):
            read_ecg(path, hints=ALL)
    assert not (tmp_path / "touched").exists()


def test_arrays_that_fit_no_axis_both_or_several_recordings_are_refused(tmp_path: Path) -> None:
    for array, message in ((table(11), "neither"), (table(12, 12), "both axes"), (np.zeros((3, 12, 50)), "several")):
        with pytest.raises(ReadError, match=message):
            read_ecg(write(tmp_path, "x.npy", npy(array)), hints=ALL)
    for array in (table().astype(complex), table() > 0, np.array(["a", "b"]), np.empty((12, 0))):
        with pytest.raises(ReadError):
            read_ecg(write(tmp_path, "x.npy", npy(array)), hints=ALL)


def test_headers_that_claim_more_than_there_is_are_refused(tmp_path: Path) -> None:
    data = npy(table())
    for claim in (b"(12, 51)", b"(12,999999999999)", b"(-1, 50)", b"(12, 1e9)"):
        assert not is_read_or_refused(write(tmp_path, "x.npy", data.replace(b"(12, 50)", claim)), ALL)


def test_zip_bombs_are_stopped(tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("ecg.npy", "more.npy"):
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(npy(np.zeros(1))[:128])
                for _ in range(160):
                    member.write(bytes(1 << 20))
    with pytest.raises(ReadError):
        read_ecg(write(tmp_path, "x.npz", file.getvalue()), hints=ALL)


# MATLAB


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("dtype", ["f8", "f4", "i2", "u1", "i4"])
def test_matlab_files_of_level_5_are_read(compressed: bool, dtype: str, tmp_path: Path) -> None:
    values = np.abs(table() / 10).astype(dtype)
    scipy.io.savemat(tmp_path / "x.mat", {"val": values, "age": 60}, do_compression=compressed)
    recording = read_ecg(tmp_path / "x.mat", hints=ALL)
    np.testing.assert_allclose(recording.samples, values.astype(np.float64) / 1000, rtol=1e-6)
    assert recording.source_format == "mat"


def test_matlab_structures_and_texts_are_read(tmp_path: Path) -> None:
    """CPSC 2018 keeps its signal in the field `data` of a structure ECG."""
    names = np.array(["I", "II"], dtype=object)
    structure = {"sex": "Male", "age": 40, "data": table(2), "fs": 500.0, "unit": "uV", "leads": names}
    recording = read_ecg(write(tmp_path, "x.mat", mat(ECG=structure)))
    assert (recording.leads, recording.sampling_rate) == (("I", "II"), 500)
    np.testing.assert_allclose(recording.samples, table(2) / 1000, rtol=1e-6)


def test_matlab_files_of_level_4_are_read(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "x.mat", {"val": table().astype("i2"), "fs": 257.0}, format="4")
    recording = read_ecg(tmp_path / "x.mat", hints=ALL)
    assert recording.sampling_rate == 257
    np.testing.assert_allclose(recording.samples, table().astype("i2") / 1000, rtol=1e-6)


def test_matlab_bombs_are_stopped(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "x.mat", {"val": np.zeros((12, 3 << 20))}, do_compression=True)
    with pytest.raises(ReadError, match="unpacks"):
        read_ecg(tmp_path / "x.mat", hints=ALL)


@pytest.mark.parametrize("kind", ["npz", "mat", "7.3", "h5"])
@pytest.mark.parametrize("row", [True, False])
def test_the_only_array_that_can_be_an_ecg_needs_no_name(row: bool, kind: str, tmp_path: Path) -> None:
    if kind in ("7.3", "h5"):
        pytest.importorskip("h5py")
    values = table(1 if row else 12, 600)
    others = {"beats": np.arange(9.0), "time": np.arange(600) / 500, "who": np.array(7.0)}
    named = {"my_array": values[0] if row else values, **others}
    data = {
        "npz": lambda: npz(**named),
        "mat": lambda: mat(**named, note="of any length" * 40),
        "7.3": lambda: mat_7_3(**named, note="of any length" * 40),
        "h5": lambda: in_groups(named),
    }[kind]()
    path = write(tmp_path, "x", data)
    hints = Hints(sampling_rate=500, unit="uV", leads=("II",) if row else STANDARD_LEADS)
    np.testing.assert_allclose(read_ecg(path, hints=hints).samples, values / 1000, rtol=1e-6)
    with pytest.raises(ReadError, match="sampling_rate"):
        read_ecg(path, hints=Hints(unit="uV", leads=hints.leads))


def in_groups(named: dict[str, npt.NDArray[np.float64]]) -> bytes:
    h5py = pytest.importorskip("h5py")
    file = io.BytesIO()
    with h5py.File(file, "w") as root:
        for i, (name, values) in enumerate(named.items()):
            root[f"device/part{i}/{name}"] = values
        root["device/part0/itself"] = root["device"]  # a cycle
    return file.getvalue()


@pytest.mark.parametrize("kind", ["npz", "mat", "7.3", "h5"])
def test_of_several_arrays_one_must_be_named(kind: str, tmp_path: Path) -> None:
    named = {"first": table(1, 600)[0], "second": table(1, 600)[0] * 2, "few": np.arange(9.0)}
    if kind in ("7.3", "h5"):
        h5py = pytest.importorskip("h5py")
    if kind == "h5":
        with h5py.File(tmp_path / "x", "w") as root:
            for name, values in named.items():
                root[f"device/{name}"] = values
    else:
        write(tmp_path, "x", {"npz": npz, "mat": mat, "7.3": mat_7_3}[kind](**named))
    hints = Hints(sampling_rate=500, unit="uV", leads=("II",))
    with pytest.raises(ReadError, match=r"2 of the 3 arrays of the .* file can be the ECG.*FILE::"):
        read_ecg(tmp_path / "x", hints=hints)
    member = "device/second" if kind == "h5" else "second"
    np.testing.assert_allclose(read_ecg(f"{tmp_path}/x::{member}", hints=hints).samples, table(1, 600) / 500, rtol=1e-6)


def test_texts_of_matlab_7_3_are_read(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    for names in (["I ", "V1"], ("I", "V1")):
        structure = {"data": table(2, 300), "fs": 250.0, "unit": "uV", "leads": names}
        recording = read_ecg(f"{write(tmp_path, 'x', mat_7_3(ECG=structure))}::ECG")
        assert (recording.leads, recording.sampling_rate) == (("I", "V1"), 250)
        np.testing.assert_allclose(recording.samples, table(2, 300) / 1000, rtol=1e-6)


def test_a_file_without_an_array_for_an_ecg_says_so(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="none of the 2 arrays"):
        read_ecg(write(tmp_path, "x", npz(a=np.arange(9), b=np.arange(7))), hints=ALL)


# HDF5


@pytest.fixture
def exams(tmp_path: Path) -> Path:
    """A file laid out as CODE-15 %'s."""
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "exams_part0.hdf5"
    with h5py.File(path, "w") as file:
        file["exam_id"] = np.array([1169160, 2873686, 3, 0, 0])
        values = np.random.default_rng(0).normal(0, 1, (5, 4096, 12)).astype("f4")
        file.create_dataset("tracings", data=values, chunks=(1, 4096, 12), compression="gzip", compression_opts=1)
    return path


def rows_of(path: Path) -> npt.NDArray[np.float32]:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path) as file:
        return np.asarray(file["tracings"])


def test_one_exam_of_code_15_is_addressed_by_its_identifier(exams: Path) -> None:
    recording = read_ecg(f"{exams}::tracings/2873686")
    assert np.array_equal(recording.samples, rows_of(exams)[1].T)
    assert (recording.leads, recording.sampling_rate, recording.source_format) == (STANDARD_LEADS, 400, "hdf5")


def test_an_identifier_is_never_taken_for_a_row(exams: Path) -> None:
    assert np.array_equal(read_ecg(f"{exams}::tracings/3").samples, rows_of(exams)[2].T)
    assert np.array_equal(read_ecg(f"{exams}::tracings[3]").samples, rows_of(exams)[3].T)
    for key in ("1", "4", "x", "-1", "99999999999999999999", "1/2", "\u0663"):
        with pytest.raises(ReadError, match="identifier"):
            read_ecg(f"{exams}::tracings/{key}")
    with pytest.raises(ReadError, match="2 of the 5"):
        read_ecg(f"{exams}::tracings/0")


def test_what_the_user_says_comes_before_what_is_known_of_code_15(exams: Path) -> None:
    order = ("II", "I", *STANDARD_LEADS[2:])
    recording = read_ecg(f"{exams}::tracings/3", hints=Hints(sampling_rate=200, unit="10", leads=order))
    assert (recording.leads, recording.sampling_rate) == (order, 200)
    np.testing.assert_allclose(recording.samples, rows_of(exams)[2].T / 10, rtol=1e-6)


def test_many_recordings_without_a_key_are_refused_with_the_way_to_address_one(exams: Path) -> None:
    with pytest.raises(ReadError, match="FILE::tracings/KEY"):
        read_ecg(exams)
    with pytest.raises(ReadError, match="several"):
        read_ecg(f"{exams}::tracings", hints=ALL)


def test_without_identifiers_the_key_is_the_row(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    values = np.random.default_rng(0).normal(0, 1, (3, 12, 50)).astype("f4")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a/tracings"] = values
    assert np.array_equal(read_ecg(f"{tmp_path}/x.h5::a/tracings/2", hints=ALL).samples, to_mv(values[2]))
    for key in ("3", "x", "-1"):
        with pytest.raises(ReadError, match="3 recordings"):
            read_ecg(f"{tmp_path}/x.h5::a/tracings/{key}", hints=ALL)


def to_mv(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return (values.astype(np.float64) * 1e-3).astype(np.float32)


def test_names_as_identifiers_and_attributes_are_read(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    values = np.random.default_rng(0).normal(0, 1, (2, 50, 2))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["record_id"] = ["a1", "b2"]
        dataset = file.create_dataset("ecg", data=values)
        dataset.attrs["fs"], dataset.attrs["units"], dataset.attrs["lead_names"] = 125, "mV", ["II", "V5"]
    recording = read_ecg(f"{tmp_path}/x.h5::ecg/b2")
    assert (recording.leads, recording.sampling_rate) == (("II", "V5"), 125)
    np.testing.assert_allclose(recording.samples, values[1].T, rtol=1e-6)


def test_one_recording_in_a_file_or_a_group_is_read(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["ecg"] = table().astype("f2")
        file["rec/II"], file["rec/V1"], file["rec/fs"] = table(1)[0], table(1)[0] * 2, 333
    assert read_ecg(tmp_path / "x.h5", hints=ALL).n_samples == 50
    recording = read_ecg(f"{tmp_path}/x.h5::rec", hints=Hints(unit="uV"))
    assert (recording.leads, recording.sampling_rate) == (("II", "V1"), 333)
    (tmp_path / "x.h5.gz").write_bytes(gzip.compress((tmp_path / "x.h5").read_bytes()))
    assert read_ecg(tmp_path / "x.h5.gz", hints=ALL).n_samples == 50


def test_nothing_outside_the_file_is_followed(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["ecg"] = table()
    (tmp_path / "raw.bin").write_bytes(table().tobytes())
    layout = h5py.VirtualLayout((12, 50), "f8")
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "ecg", (12, 50))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["link"] = h5py.ExternalLink("other.h5", "/ecg")
        file["soft"] = h5py.SoftLink("/link")
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("raw", (12, 50), "f8", external=[(str(tmp_path / "raw.bin"), 0, 4800)])
    for name in ("link", "soft", "virtual", "raw"):
        with pytest.raises(ReadError, match="refused"):
            read_ecg(f"{tmp_path}/x.h5::{name}", hints=ALL)


def test_datasets_that_are_claims_or_bombs_are_refused(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("huge", (12, 1 << 40), "f8")
        file.create_dataset("never", (12, 50), "f8")
        file.create_dataset("chunk", (9, 12, 1 << 23), "f4", chunks=(9, 1, 1 << 23), compression="gzip")
    for name in ("huge", "never", "chunk[0]"):
        assert not is_read_or_refused(f"{tmp_path}/x.h5::{name}", ALL)


def test_a_heap_of_texts_that_the_library_would_follow_forever_is_refused(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("ecg", data=table()).attrs["unit"] = "uV"
    assert read_ecg(tmp_path / "x.h5", hints=ALL).n_samples == 50
    data = bytearray((tmp_path / "x.h5").read_bytes())
    free = data.index(b"GCOL") + 16 + 16 + 8  # behind the head of the heap and its only text
    assert data[free : free + 2] == b"\0\0"
    data[free + 8 : free + 16] = bytes(8)
    with pytest.raises(ReadError, match="a global heap whose free space has no size"):
        read_ecg(write(tmp_path, "x.h5", bytes(data)), hints=ALL)


def test_addresses_that_no_file_reaches_are_refused(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    file = io.BytesIO()
    with h5py.File(file, "w") as root:
        root["ecg"] = table()
    data = bytearray(file.getvalue())
    data[48:52] = b"\xff\xff\xff\x7f"  # the address of what describes the driver
    assert not is_read_or_refused(write(tmp_path, "x.h5", bytes(data)), ALL)


def test_hdf5_without_its_extra_says_what_to_install(exams: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingDependencyError, match=r"ecgfounder\[hdf5\]"):
        read_ecg(f"{exams}::tracings/3")


def test_an_unknown_format_is_said_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFormatError, match="not a known ECG format"):
        read_ecg(write(tmp_path, "x", b"PK\x03\x04 a zip of something else"))
