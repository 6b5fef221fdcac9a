"""Recordings in every way that readers take bytes, and copies of folders in another store."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.storage import Location


def copied(folder: Path, place: Location) -> Location:
    """Every file of a folder in another store."""
    for path in folder.rglob("*"):
        if path.is_file():
            (place / str(path.relative_to(folder))).put(path.read_bytes())
    return place


def write_recordings(folder: Path) -> list[str]:
    """A recording in forms that are read whole, with companions, by pieces and unpacked; their names."""
    h5py = pytest.importorskip("h5py", reason="the extra [hdf5] is not installed")
    samples = (np.random.default_rng(3).standard_normal((12, 600)) * 300).astype(np.int16)
    (folder / "wfdb").mkdir()
    (folder / "wfdb" / "r.dat").write_bytes(samples.T.astype("<i2").tobytes())
    signals = "".join(
        f"r.dat 16 200 16 0 {row[0]} 0 0 {lead}\n" for lead, row in zip(STANDARD_LEADS, samples, strict=True)
    )
    (folder / "wfdb" / "r.hea").write_text(f"r 12 500 600\n{signals}")
    np.save(folder / "a.npy", samples / np.float32(200))
    (folder / "b.npy.gz").write_bytes(gzip.compress((folder / "a.npy").read_bytes()))
    with h5py.File(folder / "exams.hdf5", "w") as file:
        file["tracings"] = np.stack([samples.T, samples.T]) / np.float32(200)
    return ["wfdb/r.hea", "wfdb/r", "wfdb/r.dat", "a.npy", "b.npy.gz", "exams.hdf5::tracings/1"]
