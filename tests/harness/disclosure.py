"""An attacker who has a whole report, and knows which of its cells are contained in which: what few patients can be counted?

In: a seed. Out: a made-up cohort with devices within formats, sites with a device of their own, flags that follow from rates; and
how many groups of few patients are determined by all counts of its report together.

The unknown numbers are those of the recordings that are in the same cells of every table; each count is a sum of them. A number
is determined if it is a linear combination of counts, whatever the unknown numbers are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ecgfounder.analysis.reporting.report import Report, report
from ecgfounder.ledger.manifest import SCHEMA
from ecgfounder.results import EmbeddingRun

Doubles = npt.NDArray[np.float64]


class Cohort:
    """Stands in for an opened run."""

    is_complete = True

    def __init__(self, rng: np.random.Generator, n: int, *, per_patient: int) -> None:
        formats = rng.choice(["ge_muse", "philips_sierra", "wfdb"], n, p=[0.6, 0.36, 0.04])
        of_philips = rng.choice(["TC 1", "TC 2", "MAC 1"], n, p=[0.8, 0.17, 0.03])
        device = np.where(formats == "ge_muse", rng.choice(["MAC 1", "MAC 2"], n, p=[0.9, 0.1]), of_philips).astype(
            object
        )
        device[formats == "wfdb"] = None
        rate = np.where(formats == "wfdb", 360.0, np.where(rng.random(n) < 0.2, 250.0, 500.0))
        site = rng.choice(["N", "S", "E", "W"], n, p=[0.55, 0.3, 0.1, 0.05])
        site[device == "TC 2"] = "E"
        year = np.where(site == "W", 2005, 2000 + rng.integers(0, 6, n))
        chance = rng.random((n, 4))
        low = (rate == 360) | ((rate == 250) & (chance[:, 0] < 0.9))
        flags = {
            "resampled": rate != 500,
            "low_sampling_rate": low,
            "clipped": chance[:, 1] < 0.08,
            "flat_lead": (site == "W") & (chance[:, 2] < 0.7),
            "too_short": chance[:, 3] < 0.02,
        }
        columns: dict[str, Any] = {
            "row_index": np.arange(n),
            "record": [str(number) for number in range(n)],
            "output": [str(number) for number in range(n)],
            "status": ["done"] * n,
            "format": formats.tolist(),
            "device_model": device.tolist(),
            "sampling_rate": rate,
            "n_samples": (rate * rng.choice([5, 10, 11], n)).astype(np.int64),
            "leads": [["I"]] * n,
            "window_starts": [[0.0]] * n,
            "flags": [[name for name, has in flags.items() if has[row]] for row in range(n)],
            "lowpass_hz": rng.choice([40.0, 150.0], n),
        }
        arrays = [pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(n, f.type) for f in SCHEMA]
        table = pa.table(arrays, schema=SCHEMA)
        kept = {"patient": np.sort(rng.integers(0, max(20, n // per_patient), n)), "site": site, "year": year}
        for name, values in {**kept, "af": rng.random(n) < 0.2}.items():
            table = table.append_column(name, pa.array(values))
        self.manifest = self.records = table
        self.failures = table.slice(0, 0)
        self._X = rng.standard_normal((n, 4)).astype(np.float32)

    def arrays_of(self, table: pa.Table, pooling: str) -> tuple[npt.NDArray[np.float32], pa.Table]:
        return self._X[table["row_index"].to_numpy()], table

    def batches(self, name: str) -> Iterator[pa.Table]:
        return iter(())


@dataclass(frozen=True)
class Attack:
    """Counts in a report, groups of recordings that were tried, and how many of them are of few patients and determined."""

    n_counts: int
    n_tried: int
    n_few: int
    n_told: int


def attacked(seed: int, n: int, *, by_patient: bool, n_triples: int = 500) -> Attack:
    """A report on a made-up cohort, and what its counts tell: of what is in one cell of every table, in two cells, in three."""
    rng = np.random.default_rng(seed)
    run = cast(EmbeddingRun, Cohort(rng, n, per_patient=3 if by_patient else 1))
    found = report(run, group="patient" if by_patient else None, by=("site", "year"), label=("af",), map="pca")
    counts, place = _counts(found)
    _, strengths, directions = np.linalg.svd(counts, full_matrices=False)
    directions = directions[strengths > 1e-9]
    groups = np.concatenate([np.eye(counts.shape[1]), *_groups(counts, rng, n_triples)])
    told = np.abs(groups - (groups @ directions.T) @ directions).max(axis=1) < 1e-7
    few = np.array([found.cells.few(each[place] > 0) for each in groups])
    return Attack(len(counts), len(groups), int(few.sum()), int((few & told).sum()))


def _counts(found: Report) -> tuple[Doubles, npt.NDArray[np.int64]]:
    """Which unknown numbers each count is the sum of, float64 [counts, unknown]; and the unknown number of each recording."""
    shown = found.cells._shown
    different, place = np.unique(np.stack([codes for codes, _ in shown], axis=1), axis=0, return_inverse=True)
    cells = [np.eye(m)[different[:, number]].T for number, (_, m) in enumerate(shown)]
    return np.concatenate(cells), place.reshape(-1)


def _groups(counts: Doubles, rng: np.random.Generator, n_triples: int) -> Iterator[Doubles]:
    for number, cell in enumerate(counts):
        yield counts[number + 1 :] * cell
        yield (1 - counts[number + 1 :]) * cell
    for _ in range(n_triples):
        chosen = counts[rng.integers(0, len(counts), 3)]
        yield np.prod(np.where(rng.random((3, 1)) < 0.6, chosen, 1 - chosen), axis=0)[None]
