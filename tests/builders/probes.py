"""Runs whose embeddings know something: patients with several recordings, and a table of labels; and files of a small cohort.

In: how many patients. Out: a run's folder or files, and labels for the recordings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from ecgfounder.storage.paths import path_key
from tests.builders.runs import C, Made
from tests.builders.wfdb import write_record


@dataclass
class Known(Made):
    """A run of vectors that are made from a table: its columns `x0` to `x5`; several windows differ by noise."""

    vectors: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)

    def embeddings(self, path: str) -> list[npt.NDArray[np.float32]]:
        vector = self.vectors[path]
        if self.n_windows == 1:
            return [vector]
        noise = np.random.default_rng(path_key(path)).standard_normal((self.n_windows, C))
        return list((vector + noise).astype(np.float32))


def cohort(
    n_patients: int, seed: int = 0, *, strength: float = 1.5, per_patient: Sequence[int] = (1, 2, 4)
) -> pd.DataFrame:
    """Recordings of patients with features `x0` to `x5` and labels.

    `af` is known to the first two features; `rare` is positive in 4 patients; `age` is a number; half of a feature's variance is
    the patient's.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for patient in range(n_patients):
        risk = rng.standard_normal()
        of_patient = rng.standard_normal(C)
        for number in range(int(rng.choice(per_patient))):
            x = (of_patient + rng.standard_normal(C)) / np.sqrt(2)
            af = risk + rng.standard_normal() > 0.7
            x[:2] += strength * af
            rows.append(
                (f"p{patient}/{number}.xml", f"P{patient:04d}", 2000 + number, *x, af, patient < 4, 50 + 10 * x[2])
            )
    names = ["ecg", "patient", "year", *(f"x{each}" for each in range(C)), "af", "rare", "age"]
    table = pd.DataFrame(rows, columns=names)
    table["sinus"] = ~table["af"]
    table["study_id"] = np.arange(len(table))
    return table


def write_run(folder: Path, table: pd.DataFrame, *, keep: Sequence[str] = (), **options: object) -> Path:
    """A run of the table's recordings, with `study_id` as a kept column (or identifier), and further ones."""
    features = table[[f"x{each}" for each in range(C)]].to_numpy(np.float32)
    paths = table["ecg"].tolist()
    made = Known(
        folder,
        format="parquet",
        pooling="mean",
        shard_size=500,
        rows=list(zip(paths, table["study_id"].tolist(), strict=True)),
        done_order=paths,
        vectors=dict(zip(paths, features, strict=True)),
        kept={each["ecg"]: {name: each[name] for name in keep} for each in table.to_dict("records")} if keep else {},
        **options,  # type: ignore[arg-type]
    )
    return made.make()


def write_signals(folder: Path, n_patients: int, *, seconds: float = 2.4, rate: int = 250) -> pd.DataFrame:
    """A file per patient, and its labels: `fast` is true for heart rates over 100; `dataset.csv` has the paths.

    A beat is a narrow and a wide bump; leads differ in size.
    """
    rng = np.random.default_rng(0)
    rows = []
    times = np.arange(round(seconds * rate)) / rate
    for number in range(n_patients):
        fast = number % 2 == 0
        beats = np.arange(rng.uniform(0.1, 0.3), seconds, 60 / (rng.uniform(110, 150) if fast else rng.uniform(55, 90)))
        shape = sum(
            np.exp(-(((times - at) / 0.012) ** 2)) + 0.2 * np.exp(-(((times - at - 0.25) / 0.05) ** 2)) for at in beats
        )
        sizes = rng.uniform(400, 1200, 12) * np.where(np.arange(12) == 3, -1, 1)
        frames = np.round(np.outer(shape, sizes) + 5 * rng.standard_normal((len(times), 12))).astype(np.int64)
        name = f"p{number:03d}"
        (folder / name).mkdir(parents=True)
        write_record(folder / name, frames, rate=str(rate))
        rows.append((f"{name}/r.hea", f"P{number:03d}", number, int(fast)))
    table = pd.DataFrame(rows, columns=["ecg_paths", "patient", "study_id", "fast"])
    table.to_csv(folder / "dataset.csv", index=False)
    return table
