"""ecg-kit's variables in MATLAB files: raw samples, and a header with rate, names, gains, zeros and units."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from ecgfounder.errors import ReadError
from ecgfounder.readers import read_ecg
from ecgfounder.readers.source import Hints
from tests.builders.arrays import mat, mat_7_3

KINDS = ["5", "7.3"]


def raw(n: int = 400, leads: int = 3) -> npt.NDArray[np.int64]:
    return np.random.default_rng(5).integers(-2000, 2000, (n, leads))


def header(**changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {"freq": 360.0, "nsig": 3.0, "desc": ["MLII", "V1", "V5"], "units": ["mV", "uV", "mV"]}
    return (
        fields | {"gain": np.array([[200.0], [1.5], [100.0]]), "adczero": np.array([[1024.0], [0.0], [-5.0]])} | changes
    )


def write(folder: Path, kind: str, **named: Any) -> Path:
    if kind == "7.3" and not importlib.util.find_spec("h5py"):
        pytest.skip("needs h5py")
    path = folder / "x.mat"
    path.write_bytes(mat_7_3(**named) if kind == "7.3" else mat(**named))
    return path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("signal", "name"), [("signal", "header"), ("ECG", "heasig"), ("sig", "hea"), ("ecg", "header")]
)
def test_samples_are_in_units_by_gain_and_zero(kind: str, signal: str, name: str, tmp_path: Path) -> None:
    recording = read_ecg(write(tmp_path, kind, **{signal: raw().astype("i2"), name: header()}))
    expected = np.array([(raw()[:, 0] - 1024) / 200, raw()[:, 1] / 1.5 / 1000, (raw()[:, 2] + 5) / 100])
    np.testing.assert_allclose(recording.samples, expected, rtol=1e-6)
    assert (recording.leads, recording.sampling_rate) == (("MLII", "V1", "V5"), 360)


@pytest.mark.parametrize("kind", KINDS)
def test_signals_that_are_not_voltages_are_left_out(kind: str, tmp_path: Path) -> None:
    changed = header(units=["mV", "mmHg", "mV"], desc=["II", "ABP", "V5"])
    assert read_ecg(write(tmp_path, kind, signal=raw(), header=changed)).leads == ("II", "V5")


@pytest.mark.parametrize("kind", KINDS)
def test_a_signal_of_rows_is_read_where_only_that_fits(kind: str, tmp_path: Path) -> None:
    upright = read_ecg(write(tmp_path, kind, signal=raw(), header=header()))
    across = read_ecg(write(tmp_path, kind, signal=raw().T, header=header()))
    assert np.array_equal(upright.samples, across.samples)


def test_what_the_header_leaves_open_is_asked_for(tmp_path: Path) -> None:
    fields = {name: value for name, value in header().items() if name not in ("units", "desc")}
    path = write(tmp_path, "5", signal=raw(), header=fields)
    with pytest.raises(ReadError, match="'leads' parameter"):
        read_ecg(path, hints=Hints(unit="mV"))
    with pytest.raises(ReadError, match="'unit' parameter"):
        read_ecg(path, hints=Hints(leads=("I", "II", "V1")))
    recording = read_ecg(path, hints=Hints(unit="mV", leads=("I", "II", "V1")))
    np.testing.assert_allclose(recording.samples[0], (raw()[:, 0] - 1024) / 200, rtol=1e-6)


@pytest.mark.parametrize(
    "changes",
    [
        {"gain": np.array([[0.0], [1.0], [1.0]])},
        {"gain": np.array([[np.nan], [1.0], [1.0]])},
        {"gain": np.array([[1.0], [1.0]])},
        {"adczero": np.array([[np.inf], [1.0], [1.0]])},
        {"desc": ["I", "II"]},
    ],
)
def test_headers_that_do_not_fit_are_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="the MATLAB file has"):
        read_ecg(write(tmp_path, "5", signal=raw(), header=header(**changes)))
