"""A run as a hospital may have one: formats, devices, sites, flags, failures; and names of people and places everywhere.

In: a folder. Out: a run of pooled embeddings, whose manifest says all that.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ecgfounder.ledger.tables import STATEMENT_SCHEMA
from tests.builders.probes import Known
from tests.builders.runs import C

CANARIES = (
    "Miller",
    "8675309",
    "20210304",
    "MegaCart 9000",
    "Saint Nowhere",
    "0.0314159",
    "Dr. Strange",
    "made_up_place",
)
"""What a page must not have: parts of paths and identifiers, a date, a rare device and site, a flag's detail, a text."""

FAILED = 33


def write_hospital_run(folder: Path, n_patients: int = 120, *, per_patient: int = 2, **form: Any) -> Path:
    """A run of so many patients; further ones of a rare site and device, and 33 recordings that failed."""
    rng = np.random.default_rng(0)
    n = n_patients * per_patient
    paths = [f"Miller/MRN-8675309_20210304/{number:05d}.xml" for number in range(n)]
    failed = [f"Miller/failed-8675309/{number:03d}.xml" for number in range(FAILED)]
    sites = rng.choice(["North", "South"], n_patients).astype(object)
    sites[:3] = "Saint Nowhere"
    kept, facts, flags = {}, {}, {}
    for number, path in enumerate([*paths, *failed]):
        patient = number // per_patient
        rare = number < 3 * per_patient
        kept[path] = {
            "patient": f"MRN-8675309-{patient}",
            "site": str(sites[patient % n_patients]),
            "year": int(2000 + number % 4),
            "remark": f"seen by Dr. Strange, {number}",
            "af": bool(rng.random() < 0.4),
        }
        slow = bool(rng.random() < 0.3)
        facts[path] = {
            "device": {
                "device_model": "MegaCart 9000" if rare else str(rng.choice(["MAC 5500", "TC70"])),
                "lowpass_hz": 150.0,
            },
            "format": "hl7_aecg" if rare else "ge_muse",
            "sampling_rate": 250.0 if slow else 500.0,
            "n_samples": 2500 if slow else 5000,
        }
        flags[path] = (("resampled:250",) if slow else ()) + (("nan_share:0.0314159",) if number < 4 else ())
    vectors = rng.standard_normal((len(paths), C)).astype(np.float32)
    options = {"pooling": "mean", "format": "parquet", "shard_size": 500, **form}
    Known(
        folder,
        rows=[(path, number) for number, path in enumerate([*paths, *failed])],
        done_order=paths,
        vectors=dict(zip(paths, vectors, strict=True)),
        kept=kept,
        facts=facts,
        flags=flags,
        **options,
    ).make()
    _fail(folder, set(failed))
    texts = [
        ["NORMAL SINUS RHYTHM" if number % 3 else "ATRIAL FIBRILLATION", "reported by Dr. Strange"]
        for number in range(n)
    ]
    rows = [{"record": path, "statements": text} for path, text in zip(paths, texts, strict=True)]
    pq.write_table(pa.Table.from_pylist(rows, schema=STATEMENT_SCHEMA), folder / "_run" / "statements.pq")
    windows = [
        {
            "record": path,
            "window_start": 10.0 * window,
            "lead": None,
            "SINUS RHYTHM": 0.7,
            "ATRIAL FIBRILLATION": likely,
        }
        for number, path in enumerate(paths)
        for window, likely in enumerate((0.1, 0.9 if number % 4 == 0 else 0.2))
    ]
    pq.write_table(pa.Table.from_pylist(windows), folder / "_run" / "predictions.pq")
    return folder


def _fail(folder: Path, paths: set[str]) -> None:
    """Let records fail, with reasons that name files."""
    place = folder / "_run" / "manifest.pq"
    if not place.exists():
        return  # the run is not complete
    rows = pq.read_table(place).to_pylist()
    schema = pq.read_schema(place)
    for number, row in enumerate(row for row in rows if row["record"] in paths):
        lost = number % 3 > 0
        row["status"], row["error"] = "failed", "ReadError" if lost else "PrepareError"
        row["reason"] = (
            f"No such file or directory: /made_up_place/{row['record']}"
            if lost
            else f"missing leads V1: absent, or without a signal; the recording has Miller {number}"
        )
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), place)
