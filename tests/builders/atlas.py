"""Runs to look at: clusters of recordings, files of some of them, hostile names, predictions, statements, failures.

In: a folder, how many recordings. Out: the run's folder, and its table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ecgfounder.ecg.plot import Band
from ecgfounder.ecg.recording import Recording
from ecgfounder.readers import make_source, read_source
from ecgfounder.readers.identity import identity_of
from ecgfounder.readers.source import Hints
from tests.builders.probes import Known, write_signals
from tests.builders.runs import BROKEN, C

HOSTILE = '<img src=x onerror="document.title=1">.xml'
FORMULA = "=HYPERLINK(1).xml"
CLUSTERS = ("sinus", "af", "paced")
N_FILES = 6
STATEMENTS = ("ATRIAL FIBRILLATION", "SINUS RHYTHM")


@dataclass(frozen=True)
class Shown:
    """A run to look at, the folder of its files, and a row for each of its recordings that are done."""

    folder: Path
    data_dir: Path
    table: pd.DataFrame


def write_shown(place: Path, n: int = 300, **options: Any) -> Shown:
    """A run of n recordings in three clusters, two of which fail; every second recording is of the patient of the one before.

    The first `N_FILES` have files. Two have hostile names, and one a hostile device.
    """
    place.mkdir(parents=True, exist_ok=True)
    data_dir = place / "data"
    data_dir.mkdir()
    write_signals(data_dir, N_FILES, seconds=10, rate=250)
    rng = np.random.default_rng(7)
    cluster = rng.integers(len(CLUSTERS), size=n)
    paths = [f"p{at:03d}/r.hea" if at < N_FILES else f"sub/{at:05d}.xml" for at in range(n)]
    paths[N_FILES : N_FILES + 2] = [HOSTILE, FORMULA][: max(0, n - N_FILES)]
    table = pd.DataFrame(
        {
            "ecg": paths,
            "study_id": np.arange(n) + 5000,
            "subject": [f"S{at // 2:04d}" for at in range(n)],
            "rhythm": [CLUSTERS[each] for each in cluster],
            "age": np.round(40 + 15 * cluster + 5 * rng.standard_normal(n), 1),
        }
    )
    features = rng.standard_normal((n, C)) + 6 * np.eye(C)[cluster]
    facts: dict[str, Mapping[str, Any]] = {}
    for at, path in enumerate(paths):
        facts[path] = {"device": {"device_model": '"><script>document.title=2</script>' if at == 8 else "PageWriter"}}
        if at < N_FILES:
            source = make_source(str(data_dir / path), Hints())
            recording = read_source(source)
            facts[path] |= {"sha256": identity_of(source).sha256, "format": recording.source_format}
    failed = [(BROKEN[0], 9001)]
    made = Known(
        place / "run",
        **{"format": "parquet", "pooling": "mean", "shard_size": 500, **options},
        rows=[*zip(paths, table["study_id"].tolist(), strict=True), *failed],
        done_order=paths,
        vectors=dict(zip(paths, features.astype(np.float32), strict=True)),
        kept={
            path: {name: row[name] for name in ("subject", "rhythm", "age")}
            for path, row in zip(paths, table.to_dict("records"), strict=True)
        }
        | {path: {"subject": None, "rhythm": None, "age": None} for path, _ in failed},
        flags={path: ["clipped:V1"] for path in paths[::5]},
        facts=facts,
    )
    folder = made.make()
    _write_beside(folder / "_run", paths, cluster)
    return Shown(folder, data_dir, table)


def _write_beside(record: Path, paths: list[str], cluster: np.ndarray) -> None:
    """Predictions of two windows each, and statements of the device for every second recording."""
    of_af = np.where(cluster == 1, 0.9, 0.1)
    predictions = {"record": np.repeat(paths, 2), "window_start": np.tile([0.0, 5.0], len(paths))}
    predictions["lead"] = pa.array([None] * (2 * len(paths)), pa.string())
    for name, values in zip(STATEMENTS, (of_af, 1 - of_af), strict=True):
        predictions[name] = (np.repeat(values, 2) + np.tile([-0.1, 0.1], len(paths))).astype(np.float32)
    pq.write_table(pa.table(predictions), record / "predictions.pq")
    half = paths[::2]
    statements = {"record": half, "statements": [["Sinus rhythm", "<b>Otherwise normal</b>"]] * len(half)}
    pq.write_table(pa.table({**statements, "qrs_ms": np.linspace(80, 120, len(half))}), record / "statements.pq")


def bands_of(recording: Recording) -> tuple[Band, ...]:
    """Evidence of two seconds: for, then half as much against; its caption is hostile."""
    assert len(recording.leads) == 12
    return (Band("evidence", np.array([[0.0, 1.0], [1.0, 2.0]]), np.array([2.0, -1.0]), ("<b>told</b>",)),)
