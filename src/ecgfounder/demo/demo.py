"""The built-in cohort and checkpoint: everything that a first run needs, made on the spot and belonging to nobody.

In: a folder. Out: synthetic 12-lead ECGs as Philips XML files, a dataset that names them, and a checkpoint of the
official layout with random weights. The same bytes of ECG and the same weights at every call.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ecgfounder.demo.weights import write_demo_checkpoint
from ecgfounder.network.bundles import SPECS

WEIGHTS_NOTE = f"""\
These embeddings mean nothing: the demo's checkpoint holds random weights, made only to show the program at work.
For embeddings that mean something, download the real weights (about 350 MB each) and pass them with --checkpoint:
  hf download {SPECS["12lead"].repo_id} {SPECS["12lead"].filename} --local-dir checkpoints
  hf download {SPECS["1lead"].repo_id} {SPECS["1lead"].filename} --local-dir checkpoints   (for --mode 1lead)"""

_RESOLUTION_UV = 5.0
_COUNTS_PER_MV = 1000 / _RESOLUTION_UV


@dataclass(frozen=True)
class DemoPaths:
    """Where `write_demo` put things.

    Attributes
    ----------
    dataset : Path
        Folder of a Hugging Face dataset, for --dataset.
    data_dir : Path
        Folder that its paths are relative to, for --data_dir.
    checkpoint : Path
        File with random weights, for --checkpoint.
    """

    dataset: Path
    data_dir: Path
    checkpoint: Path


def write_demo(folder: Path) -> DemoPaths:
    """Write the cohort and a 12-lead checkpoint into `folder`, which is created; files of an earlier demo are replaced.

    Raises
    ------
    OSError
        If the folder cannot be written to.
    """
    write_demo_cohort(folder)
    checkpoint = folder / "random_weights_12_lead.pth"
    write_demo_checkpoint(checkpoint)
    return DemoPaths(dataset=folder / "dataset", data_dir=folder / "ecg", checkpoint=checkpoint)


# -- The cohort --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Study:
    """One synthetic recording: who, what heart, and how the file is written.

    `rate` is the heart rate per minute; `pr` the time from P to R in s, None where there are no P waves; `jitter` the
    relative variation of beat intervals; `premature` makes every n-th beat early and wide; `calibration` makes it an
    11 s recording that ends as cardiographs' do.
    """

    patient: int
    number: int
    rate: float
    finding: str
    pr: float | None = 0.16
    jitter: float = 0.02
    premature: int = 0
    calibration: bool = False
    sampling_rate: int = 500
    version: str = "1.04"
    encoding: str = "UTF-8"
    compressed: bool = True

    @property
    def path(self) -> str:
        return f"patient_{self.patient:03d}/ecg_{self.number:04d}.xml"

    @property
    def rhythm(self) -> str:
        if self.pr is None:
            return "Atrial fibrillation"
        if self.rate < 60:
            return "Sinus bradycardia"
        return "Sinus tachycardia" if self.rate > 100 else "Sinus rhythm"


_STUDIES = (
    _Study(1, 1, 72, "Normal ECG", version="1.03"),
    _Study(2, 2, 42, "Otherwise normal ECG", version="1.03", encoding="UTF-16"),
    _Study(3, 3, 64, "Normal ECG", encoding="UTF-16"),
    _Study(3, 4, 118, "Otherwise normal ECG", encoding="UTF-16"),
    _Study(4, 5, 81, "Normal ECG", version="1.04.01"),
    _Study(5, 6, 67, "First degree AV block", pr=0.26, version="1.04.01", encoding="UTF-16"),
    _Study(6, 7, 76, "Normal ECG", calibration=True),
    _Study(7, 8, 96, "Irregular ventricular response", pr=None, jitter=0.18, version="1.04.02", encoding="UTF-16"),
    _Study(8, 9, 58, "Otherwise normal ECG", version="1.04.02", compressed=False),
    _Study(9, 10, 88, "Frequent ventricular premature complexes", premature=4),
    _Study(10, 11, 143, "Otherwise normal ECG", pr=0.12),
    _Study(11, 12, 61, "Normal ECG", sampling_rate=1000, version="1.04.01"),
)
_DAMAGED = "patient_012/ecg_0013.xml"
_QUESTIONS = ("What does this ECG show?", "Which rhythm is this?", "Is this ECG normal?")


def write_demo_cohort(folder: Path) -> None:
    """Write 12 synthetic ECGs and a damaged one below `folder`/ecg, and the dataset `folder`/dataset that names them.

    The dataset's columns are `study_id`, `ecg_paths` (lists of paths relative to `folder`/ecg, two in one row),
    `question`, `report_0` and `report_1`.

    Raises
    ------
    OSError
        If the folder cannot be written to.
    """
    from ecgfounder.demo.philips_encoder import encode_sierra

    for study in _STUDIES:
        document = encode_sierra(
            _counts(study),
            sampling_rate=study.sampling_rate,
            version=study.version,
            encoding=study.encoding,
            compressed=study.compressed,
            resolution_uv=_RESOLUTION_UV,
        )
        _write(folder / "ecg" / study.path, document)
    whole = (folder / "ecg" / _STUDIES[0].path).read_bytes()
    _write(folder / "ecg" / _DAMAGED, whole[: len(whole) // 2])
    _save_dataset(folder / "dataset")


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _save_dataset(folder: Path) -> None:
    import datasets

    studies: dict[int, list[_Study]] = {}
    for study in _STUDIES:
        studies.setdefault(study.patient, []).append(study)
    rows = [
        {
            "study_id": f"demo_{patient:03d}",
            "ecg_paths": [study.path for study in of_patient],
            "question": _QUESTIONS[patient % len(_QUESTIONS)],
            "report_0": "; then ".join(f"{study.rhythm}, rate {study.rate:g}" for study in of_patient),
            "report_1": of_patient[-1].finding,
        }
        for patient, of_patient in studies.items()
    ]
    rows.append(
        {
            "study_id": f"demo_{len(rows) + 1:03d}",
            "ecg_paths": [_DAMAGED],
            "question": _QUESTIONS[0],
            "report_0": "No report",
            "report_1": "The file is damaged on purpose",
        }
    )
    dataset = datasets.Dataset.from_list(rows)
    quiet = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        dataset.save_to_disk(str(folder))
    finally:
        if not quiet:
            datasets.enable_progress_bars()


# -- One ECG -----------------------------------------------------------------------------------------------------------
# The heart as one dipole whose direction changes: each wave is a bell curve in time along a vector (left, down, front)
# in mV, and a lead is the projection on its own direction.


@dataclass(frozen=True)
class _Wave:
    """A bell curve around `time` (s from the R peak), of standard deviation `width` (s), along `vector` (mV)."""

    time: float
    width: float
    vector: tuple[float, float, float]


_QRS = (
    _Wave(-0.024, 0.009, (-0.12, -0.02, 0.22)),
    _Wave(0.0, 0.011, (0.85, 0.75, -0.25)),
    _Wave(0.026, 0.011, (-0.14, -0.20, -0.55)),
)
_PREMATURE_QRS = (_Wave(0.0, 0.035, (-0.70, 0.90, 0.95)), _Wave(0.07, 0.030, (0.35, -0.40, -0.50)))
_P_VECTOR = (0.07, 0.10, 0.03)
_P_WIDTH = 0.022
_T_VECTOR = (0.26, 0.24, 0.22)
_T_WIDTH = 0.050
_T_TIME = 0.30  # after R at 60 beats a minute; it shortens with the square root of the interval, as Bazett has it


def _direction(degrees: float, down: float, gain: float) -> tuple[float, float, float]:
    """A chest electrode `degrees` in front of the left axis, in the horizontal plane."""
    return (
        gain * math.cos(math.radians(degrees)),
        gain * down,
        gain * math.sin(math.radians(degrees)),
    )


# Of leads I, II and V1 to V6; the other limb leads follow from the first two.
_DIRECTIONS = np.array(
    [
        (1.0, 0.0, 0.0),
        (0.5, math.sqrt(0.75), 0.0),
        _direction(120, 0.0, 1.1),
        _direction(96, 0.0, 1.5),
        _direction(74, 0.1, 1.5),
        _direction(52, 0.2, 1.4),
        _direction(25, 0.2, 1.2),
        _direction(0, 0.2, 1.0),
    ]
)


def _counts(study: _Study) -> npt.NDArray[np.int64]:
    """Samples of one study in counts, [12, n_samples], in the order of the standard leads."""
    rng = np.random.default_rng([study.patient, study.number])
    n_samples = round((_CALIBRATED_ECG if study.calibration else 10) * study.sampling_rate)
    times = np.arange(n_samples) / study.sampling_rate
    dipole = np.zeros((3, n_samples))
    for wave, at in _waves(study, rng):
        dipole += np.array(wave.vector)[:, None] * np.exp(-0.5 * ((times - at - wave.time) / wave.width) ** 2)
    signals = _DIRECTIONS @ dipole
    signals += rng.normal(0, 0.008, signals.shape)  # muscle and amplifier noise
    for signal in signals:  # breathing moves each electrode in its own way
        frequency, phase = rng.uniform(0.15, 0.35), rng.uniform(0, 2 * math.pi)
        signal += rng.uniform(0.02, 0.08) * np.sin(2 * math.pi * frequency * times + phase)
    if study.pr is None:  # fibrillation waves, best seen in lead II and V1
        fibrillation = 0.05 * np.sin(2 * math.pi * 6.1 * times + 2 * np.sin(2 * math.pi * 0.4 * times))
        signals[[1, 2]] += fibrillation
    stored = np.rint(signals * _COUNTS_PER_MV).astype(np.int64)
    i, ii = stored[0], stored[1]
    iii = ii - i
    limb_leads = np.stack([i, ii, iii, -((i + ii) >> 1), (i - iii) >> 1, (ii + iii) >> 1])
    counts = np.concatenate([limb_leads, stored[2:]])
    return _with_calibration(counts, study.sampling_rate) if study.calibration else counts


def _waves(study: _Study, rng: np.random.Generator) -> Iterable[tuple[_Wave, float]]:
    """All waves of 11 s, each with the time of the R peak of its beat."""
    mean_interval = 60 / study.rate
    at, beat = rng.uniform(0.1, 0.1 + mean_interval / 2), 1
    while at < 11.5:
        interval = mean_interval * max(0.5, 1 + study.jitter * rng.standard_normal())
        t_time = _T_TIME * math.sqrt(mean_interval)
        if study.premature and beat % study.premature == 0:
            early = at - 0.3 * mean_interval
            yield from ((wave, early) for wave in _PREMATURE_QRS)
            yield _Wave(t_time + 0.04, _T_WIDTH, (0.30, -0.35, -0.30)), early
        else:
            yield from ((wave, at) for wave in _QRS)
            yield _Wave(t_time, _T_WIDTH * min(1.2, math.sqrt(mean_interval)), _T_VECTOR), at
            if study.pr is not None:
                yield _Wave(-study.pr, _P_WIDTH, _P_VECTOR), at
        at += interval
        beat += 1


_CALIBRATED_ECG = 10.6  # s of ECG in a recording that ends with a calibration pulse


def _with_calibration(counts: npt.NDArray[np.int64], sampling_rate: int) -> npt.NDArray[np.int64]:
    """Fill up to 11 s: zeros, a pulse of 1 mV from 10.7 to 10.9 s, zeros."""
    recording = np.zeros((len(counts), 11 * sampling_rate), dtype=np.int64)
    recording[:, : counts.shape[1]] = counts
    recording[:, round(10.7 * sampling_rate) : round(10.9 * sampling_rate)] = round(_COUNTS_PER_MV)
    return recording
