"""The demo cohort and checkpoint, for a first run without real data.

In: a folder. Out: synthetic 12-lead ECGs as Philips XML files, a dataset of their paths, and a checkpoint of the official layout
with random weights. Every call writes the same ECGs and weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ecgfounder.demo.synthetic_ecg import COUNTS_PER_MV, RESOLUTION_UV, Rhythm, synthetic_ecg
from ecgfounder.demo.weights import write_demo_checkpoint
from ecgfounder.network.bundles import SPECS

WEIGHTS_NOTE = f"""\
These embeddings are meaningless: the demo's checkpoint holds random weights.
For meaningful embeddings, download the published weights (about 350 MB each) and pass them with --checkpoint:
  hf download {SPECS["12lead"].repo_id} {SPECS["12lead"].filename} --local-dir checkpoints
  hf download {SPECS["1lead"].repo_id} {SPECS["1lead"].filename} --local-dir checkpoints   (for --mode 1lead)"""


@dataclass(frozen=True)
class DemoPaths:
    """The paths of `write_demo`'s files.

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
    """One synthetic recording: patient, rhythm, and the form of the file.

    `rate` is the heart rate per minute; `pr` the time from P to R in s, None without P waves; `jitter` the relative variation of
    beat intervals; `premature` makes every n-th beat early and wide; `calibration` makes a recording of 11 s with a calibration
    pulse at its end, as from a cardiograph.
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
    """Write 12 synthetic ECGs and a damaged one below `folder`/ecg, and a dataset of their paths in `folder`/dataset.

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
            resolution_uv=RESOLUTION_UV,
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


def _counts(study: _Study) -> npt.NDArray[np.int64]:
    """Samples of one study in counts, [12, n_samples], in the order of the standard leads."""
    rng = np.random.default_rng([study.patient, study.number])
    seconds = _CALIBRATED_ECG if study.calibration else 10
    counts, _ = synthetic_ecg(_rhythm_of(study), rng, seconds, study.sampling_rate)
    return _with_calibration(counts, study.sampling_rate) if study.calibration else counts


_MOST_BEATS = 100


def _rhythm_of(study: _Study) -> Rhythm:
    early = frozenset(range(study.premature, _MOST_BEATS, study.premature)) if study.premature else frozenset[int]()
    return Rhythm(study.rate, study.pr, study.jitter, early)


_CALIBRATED_ECG = 10.6  # s of ECG in a recording that ends with a calibration pulse


def _with_calibration(counts: npt.NDArray[np.int64], sampling_rate: int) -> npt.NDArray[np.int64]:
    """Extend to 11 s: zeros, a pulse of 1 mV from 10.7 to 10.9 s, zeros."""
    recording = np.zeros((len(counts), 11 * sampling_rate), dtype=np.int64)
    recording[:, : counts.shape[1]] = counts
    recording[:, round(10.7 * sampling_rate) : round(10.9 * sampling_rate)] = round(COUNTS_PER_MV)
    return recording
