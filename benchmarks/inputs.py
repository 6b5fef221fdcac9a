"""Files for the benchmarks: synthetic 12-lead recordings of 11 s as Philips XML, and a checkpoint of random weights.

In: a folder and numbers. Out: files in it, made once and reused. The content varies from file to file, and is about as
compressible as that of cardiographs (about 1,500 LZW codes per lead).
"""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt

SAMPLING_RATE = 500
SECONDS = 11
LENGTH = SAMPLING_RATE * SECONDS
WFDB_LENGTH = SAMPLING_RATE * 10
DISTINCT = 250
"""Number of different recordings; a larger cohort holds copies of them as separate files."""

_COUNTS_PER_MV = 200
_NOISE = 0.0036  # mV; determines how well a lead compresses

# Lead I, lead II and V1 to V6 as mixtures of three sources.
_MIXTURE = np.array(
    [
        (1.0, 0.0, 0.0),
        (0.5, 0.9, 0.0),
        (-0.5, 0.1, 1.0),
        (0.0, 0.2, 1.5),
        (0.4, 0.3, 1.4),
        (0.9, 0.4, 1.0),
        (1.1, 0.4, 0.5),
        (1.0, 0.3, 0.1),
    ]
)
_WAVES = (  # time from the R peak in s, width in s, and height in mV in each source
    (-0.16, 0.022, (0.07, 0.10, 0.03)),
    (-0.024, 0.009, (-0.12, -0.02, 0.22)),
    (0.0, 0.011, (0.85, 0.75, -0.25)),
    (0.026, 0.011, (-0.14, -0.20, -0.55)),
    (0.30, 0.050, (0.26, 0.24, 0.22)),
)


def counts(number: int) -> npt.NDArray[np.int64]:
    """One recording in counts of 5 uV, [12, 5500], different for each number; it ends with a calibration pulse."""
    rng = np.random.default_rng([11, number])
    times = np.arange(LENGTH) / SAMPLING_RATE
    sources = np.zeros((3, LENGTH))
    at, interval = rng.uniform(0.1, 0.6), 60 / rng.uniform(45, 120)
    while at < SECONDS:
        for offset, width, heights in _WAVES:
            place = at + offset
            part = slice(max(0, int((place - 6 * width) * SAMPLING_RATE)), int((place + 6 * width) * SAMPLING_RATE))
            bell = np.exp(-0.5 * ((times[part] - place) / width) ** 2)
            sources[:, part] += np.array(heights)[:, None] * bell
        at += interval * (1 + 0.04 * rng.standard_normal())
    signals = _MIXTURE @ sources + rng.normal(0, _NOISE, (len(_MIXTURE), LENGTH))
    wander = rng.uniform(0.02, 0.1, (len(_MIXTURE), 1)) * np.sin(2 * np.pi * rng.uniform(0.15, 0.35) * times)
    stored = np.rint((signals + wander) * _COUNTS_PER_MV).astype(np.int64)
    i, ii = stored[0], stored[1]
    iii = ii - i
    whole = np.concatenate([np.stack([i, ii, iii, -((i + ii) >> 1), (i - iii) >> 1, (ii + iii) >> 1]), stored[2:]])
    whole[:, 5300:] = 0
    whole[:, 5350:5450] = _COUNTS_PER_MV
    return whole


def write_cohort(folder: Path, n: int) -> Path:
    """A folder of `n` Philips files, half of them UTF-8 (1.03) and half UTF-16 (1.04); returns it."""
    cohort = folder / f"ecg_{n}"
    if (cohort / ".whole").exists():
        return cohort
    shutil.rmtree(cohort, ignore_errors=True)
    cohort.mkdir(parents=True)
    for number in range(n):
        shutil.copyfile(_recording(folder / "recordings", number % DISTINCT), cohort / f"ecg_{number:06d}.xml")
    (cohort / ".whole").touch()
    return cohort


def _recording(folder: Path, number: int) -> Path:
    """One recording's file, encoded on first use."""
    from ecgfounder.demo.philips_encoder import encode_sierra

    path = folder / f"{number}.xml"
    if not path.exists():
        folder.mkdir(exist_ok=True)
        version, encoding = ("1.04", "UTF-16") if number % 2 else ("1.03", "UTF-8")
        aside = path.with_suffix(".part")
        aside.write_bytes(encode_sierra(counts(number), version=version, encoding=encoding))
        os.replace(aside, path)
    return path


def write_wfdb_cohort(folder: Path, n: int) -> Path:
    """A folder of `n` WFDB records of 12 leads of 10 s in format 16, as in MIMIC-IV-ECG; returns it."""
    cohort = folder / f"wfdb_{n}"
    if (cohort / ".whole").exists():
        return cohort
    shutil.rmtree(cohort, ignore_errors=True)
    cohort.mkdir(parents=True)
    leads = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
    # Without the end of a Philips recording, which holds a calibration pulse between zeros.
    samples = [counts(number)[:, :WFDB_LENGTH].T.astype("<i2") for number in range(min(n, DISTINCT))]
    for number in range(n):
        name, values = f"ecg_{number:06d}", samples[number % DISTINCT]
        lines = [f"{name} {len(leads)} {SAMPLING_RATE} {len(values)}"]
        for lead, column in zip(leads, values.T, strict=True):
            checksum = int(column.sum(dtype=np.int64)) & 0xFFFF
            lines.append(f"{name}.dat 16 {_COUNTS_PER_MV}(0)/mV 16 0 {column[0]} {checksum} 0 {lead}")
        (cohort / f"{name}.hea").write_text("\n".join(lines) + "\n", encoding="ascii")
        (cohort / f"{name}.dat").write_bytes(values.tobytes())
    (cohort / ".whole").touch()
    return cohort


def write_repeated(folder: Path, cohort: Path, times: int) -> Path:
    """A table that names each WFDB record of a cohort `times` times, by paths through links beside it; returns it."""
    repeated = folder / f"{cohort.name}_x{times}"
    repeated.mkdir(exist_ok=True)
    names = [path.name for path in sorted(cohort.glob("*.hea"))]
    path = repeated / "paths.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["ecg_paths"])
        for number in range(times):
            link = repeated / f"part_{number:04d}"
            if not link.exists():
                link.symlink_to(cohort, target_is_directory=True)
            writer.writerows([f"{link.name}/{name}"] for name in names)
    return path


def cohort_files(cohort: Path, n: int | None = None) -> list[Path]:
    return sorted(cohort.glob("*.xml"))[:n]


def write_checkpoint(folder: Path) -> Path:
    """A 12-lead checkpoint with random weights; returns its path."""
    from ecgfounder.demo import write_demo_checkpoint

    path = folder / "random_weights_12_lead.pth"
    if not path.exists():
        aside = path.with_suffix(".part")
        write_demo_checkpoint(aside)
        os.replace(aside, path)
    return path


def write_table(folder: Path, n: int) -> Path:
    """A table of `n` paths of files that do not exist, for a reader that makes synthetic recordings."""
    path = folder / f"paths_{n}.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["ecg_paths"])
        writer.writerows([f"patient_{number // 10:07d}/ecg_{number:08d}.xml"] for number in range(n))
    return path
