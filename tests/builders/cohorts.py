"""A small cohort, and the settings of a run over it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.readers.source import Hints
from ecgfounder.run.settings import Settings

HINTS = Hints(sampling_rate=500.0, unit="mV", leads=STANDARD_LEADS)
"""What a user says about these recordings."""


def write_cohort(folder: Path, count: int = 21) -> None:
    """Small recordings of three lengths, one of them unreadable and one constant."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(5)
    for number in range(count):
        samples = rng.standard_normal((12, 600 + 300 * (number % 3))).astype(np.float32)
        if number == 3:
            samples[:] = 1.0
        np.save(folder / f"ecg_{number:02d}.npy", samples)
    (folder / "ecg_07.npy").write_bytes(b"\x93NUMPY and no more")


def settings_for(cohort: Path, out: Path, checkpoint: Path, **more: Any) -> Settings:
    small: dict[str, Any] = {"data_dir": str(cohort), "num_workers": 0, "batch_size": 2, "shard_size": 4}
    return Settings(
        dataset=str(cohort),
        output_dir=out,
        checkpoint=str(checkpoint),
        hints=HINTS,
        **(small | more),
    )


def write_good_and_bad(folder: Path) -> list[str]:
    """Two readable files around one that is not there, an empty one and a folder."""
    rng = np.random.default_rng(3)
    for name in ("a", "b"):
        np.save(folder / f"{name}.npy", rng.standard_normal((12, 5000)).astype(np.float32))
    (folder / "empty.xml").touch()
    return [str(folder / name) for name in ("a.npy", "gone.xml", "empty.xml", "", "b.npy")]
