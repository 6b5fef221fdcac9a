"""What tests of runs over cohorts elsewhere share: a cohort of all formats, its ledger's entries, a console that keeps its lines.

In: folders. Out: files in them, or what a run has written.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from tests.builders.originals import built

SUFFIXES = {"wfdb": "", "hdf5": ".h5", "dicom": ".dcm", "scp_ecg": ".scp", "ishne": ".ecg", "ge_muse": ".xml"}
SUFFIXES |= {"hl7_aecg": ".xml", "ge_cardiosoft": ".xml", "philips_sierra": ".xml", "edf": ".edf", "csv": ".csv"}
SUFFIXES |= {
    "npy": ".npy",
    "npz": ".npz",
    "mat": ".mat",
    "schiller_sema": ".xml",
    "dicom_xml": ".xml",
    "dicom_json": ".dcm",
    "healforce": ".scp",
}


class Lines:
    """A console that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    def progress(self, done: int, failed: int, total: int, detail: str = "") -> None: ...


def write_formats(folder: Path) -> int:
    """One folder for each original that is read without naming a reader, with its format's suffix; returns how many."""
    originals = [original for original in built() if original.reader == "auto"]
    for number, original in enumerate(originals):
        place = folder / f"{number:02d} {original.format}"
        place.mkdir(parents=True)
        for name, data in original.files.items():
            (place / f"{name}{SUFFIXES[original.format]}").write_bytes(data)
    return len(originals)


def npy_of(seed: int, n_samples: int = 600) -> bytes:
    content = io.BytesIO()
    np.save(content, np.random.default_rng(seed).standard_normal((12, n_samples)).astype(np.float32))
    return content.getvalue()


def entries(out: Path) -> list[dict[str, Any]]:
    parts = sorted((out / "_run" / "ledger").glob("*.jsonl"))
    lines = [orjson.loads(line) for part in parts for line in part.read_bytes().splitlines()]
    return [line for line in lines if "key" in line]
