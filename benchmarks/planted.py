"""Planted duplicates: `python -m benchmarks.planted` embeds a cohort with known copies, looks for them, and prints what is found.

In: sizes, a checkpoint (default: random weights), perhaps a folder of ECG files. Out: for each kind of copy, how many are found,
as a table. Without files, recordings are synthetic: each patient has waves of another form, and each recording another rhythm.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import inputs

Signal = npt.NDArray[np.float32]

RATE = 500
LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
LOST = "V3"
_OTHERS = [lead for lead in LEADS if lead != LOST]
_COUNTS_PER_MV = 200


@dataclass(frozen=True)
class Copy:
    """A kind of copy: its name, and how a signal in mV at 500 Hz is changed; then how it is written."""

    name: str
    change: Callable[[Signal], Signal] = lambda signal: signal
    rate: int = RATE
    leads: Sequence[str] = LEADS
    wfdb: bool = False


def _to_100_hz(signal: Signal) -> Signal:
    from ecgfounder.preprocess.resampling import resample

    return resample(signal, RATE, 100, method="polyphase")


COPIES = (
    Copy("other format", wfdb=True),
    Copy("100 Hz", _to_100_hz, rate=100, wfdb=True),
    Copy("shifted by 0.5 s", lambda signal: signal[:, RATE // 2 :]),
    Copy("gain 2", lambda signal: 2 * signal),
    Copy(
        f"{LOST} lost",
        lambda signal: np.delete(signal, LEADS.index(LOST), 0),
        leads=[x for x in LEADS if x != LOST],
        wfdb=True,
    ),
    Copy("cut to 5 s", lambda signal: signal[:, 2 * RATE : 7 * RATE]),
)


def synthetic(patient: int, number: int) -> Signal:
    """10 s in mV, float32 [12, 5000]: the patient decides the form of the waves, the recording rate, rhythm and noise."""
    heart, rng = np.random.default_rng([5, patient]), np.random.default_rng([6, patient, number])
    times = np.arange(10 * RATE) / RATE
    forms = [
        (
            at * heart.uniform(0.8, 1.25),
            width * heart.uniform(0.75, 1.4),
            np.array(heights) * heart.uniform(0.3, 1.7, 3),
        )
        for at, width, heights in inputs._WAVES
    ]
    mixture = inputs._MIXTURE + heart.normal(0, 0.15, inputs._MIXTURE.shape)
    sources = np.zeros((3, len(times)))
    at, interval = rng.uniform(-0.5, 0.5), 60 / rng.uniform(50, 110)
    while at < 11:
        for offset, width, heights in forms:
            sources += heights[:, None] * np.exp(-0.5 * ((times - at - offset) / width) ** 2)
        at += interval * (1 + 0.03 * rng.standard_normal())
    eight = mixture @ sources + rng.normal(0, 0.01, (8, len(times)))
    eight += rng.uniform(0.02, 0.08, (8, 1)) * np.sin(2 * np.pi * rng.uniform(0.15, 0.35, (8, 1)) * times)
    i, ii = eight[:2]
    limb = [i, ii, ii - i, -(i + ii) / 2, i - ii / 2, ii - i / 2]
    return np.concatenate([limb, eight[2:]]).astype(np.float32)


def _of_files(folder: Path, most: int) -> Iterator[tuple[str, Signal]]:
    """The first 10 s of the recordings with 12 leads that can be read, with their path as the patient."""
    from ecgfounder.cohort.sources import ecg_files
    from ecgfounder.errors import ECGFounderError
    from ecgfounder.preprocess.resampling import resample
    from ecgfounder.readers import read_ecg

    found = 0
    for path in ecg_files(str(folder)):
        try:
            recording = read_ecg(path)
        except ECGFounderError:
            continue
        if not set(LEADS) <= set(recording.leads) or recording.samples.shape[1] < 8 * recording.sampling_rate:
            continue
        rows = recording.samples[[recording.leads.index(lead) for lead in LEADS]]
        yield path, resample(np.nan_to_num(rows), recording.sampling_rate, RATE, stop=10 * RATE)
        found += 1
        if found == most:
            return


def plant(
    folder: Path, recordings: int, copies: int, ecgs: Path | None = None
) -> tuple[Path, dict[str, tuple[str, str]]]:
    """Write a cohort of so many recordings, and so many copies of each kind, of different ones.

    Returns
    -------
    table : Path
        A table with `ecg_paths` and `patient`; a copy has a patient of its own.
    truth : dict of str to tuple of (str, str)
        For each copy, what it is a copy of, and its kind.
    """
    (folder / "ecg").mkdir(parents=True)
    rows: list[tuple[str, str]] = []
    truth: dict[str, tuple[str, str]] = {}
    signals = (
        ((f"p{number // 2}", synthetic(number // 2, number % 2)) for number in range(recordings))
        if ecgs is None
        else _of_files(ecgs, recordings)
    )
    for number, (patient, signal) in enumerate(signals):
        name = f"{number:06d}.xml"
        _write(folder / "ecg", name, signal, Copy("original"))
        rows.append((name, patient))
        kind = number // copies
        if kind < len(COPIES):
            copy = COPIES[kind]
            name_of_copy = f"copy_{number:06d}" + (".hea" if copy.wfdb else ".xml")
            _write(folder / "ecg", name_of_copy, copy.change(signal), copy)
            rows.append((name_of_copy, f"copy {number}"))
            truth[name_of_copy] = name, copy.name
    if len(truth) < copies * len(COPIES):
        raise SystemExit(
            f"{copies} copies of {len(COPIES)} kinds need {copies * len(COPIES)} recordings, there are {number + 1}"
        )
    table = folder / "cohort.csv"
    with open(table, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("ecg_paths", "patient"), *rows])
    return table, truth


def _write(folder: Path, name: str, signal: Signal, copy: Copy) -> None:
    from ecgfounder.demo.philips_encoder import encode_sierra

    counts = np.rint(signal * _COUNTS_PER_MV).astype(np.int64)
    if not copy.wfdb:
        (folder / name).write_bytes(encode_sierra(counts, sampling_rate=copy.rate))
        return
    stem, values = Path(name).stem, counts.T.astype("<i2")
    lines = [f"{stem} {len(copy.leads)} {copy.rate} {len(values)}"]
    for lead, column in zip(copy.leads, values.T, strict=True):
        checksum = int(column.sum(dtype=np.int64)) & 0xFFFF
        lines.append(f"{stem}.dat 16 {_COUNTS_PER_MV}(0)/mV 16 0 {column[0]} {checksum} 0 {lead}")
    (folder / f"{stem}.hea").write_text("\n".join(lines) + "\n", encoding="ascii")
    (folder / f"{stem}.dat").write_bytes(values.tobytes())


def score(found: Any, truth: dict[str, tuple[str, str]]) -> dict[str, dict[str, int]]:
    """For each kind of copy: how many there are, and how many are confirmed, or named as candidates; and wrong pairs."""
    clusters = dict(zip(*(found.recordings[name].to_pylist() for name in ("record", "cluster")), strict=True))
    named = {frozenset((row["record_a"], row["record_b"])): row["class"] for row in found.pairs.to_pylist()}
    scores: dict[str, dict[str, int]] = {}
    for copy, (original, kind) in truth.items():
        scored = scores.setdefault(kind, {"copies": 0, "confirmed": 0, "named": 0})
        scored["copies"] += 1
        together = clusters[copy] is not None and clusters[copy] == clusters[original]
        scored["confirmed"] += together
        scored["named"] += together or frozenset((copy, original)) in named
    right = {frozenset((copy, original)) for copy, (original, _) in truth.items()}
    wrong = Counter(kind for pair, kind in named.items() if pair not in right)
    return {**scores, "(wrong)": dict(wrong)}


def measure(
    folder: Path, checkpoint: Path, recordings: int, copies: int, *, ecgs: Path | None = None, group: bool = True
) -> dict[str, Any]:
    """Plant, embed, and search with and without the signals."""
    from ecgfounder import embed_cohort, open_run
    from ecgfounder.analysis import duplicates

    shutil.rmtree(folder / "planted", ignore_errors=True)
    table, truth = plant(folder / "planted", recordings, copies, ecgs)
    output = folder / "planted" / "run"
    embed_cohort(
        str(table),
        output,
        data_dir=str(folder / "planted" / "ecg"),
        checkpoint=str(checkpoint),
        keep_columns=("patient",),
        missing_leads="zero",
        format="parquet",
        pooling="mean",
        num_workers=0,
    )
    run = open_run(output)
    facts: dict[str, Any] = {"recordings": run.records.num_rows, "copies": copies, "searches": {}}
    for name, signals in (("signals", True), ("embeddings alone", False)):
        found = duplicates(run, group="patient" if group else None, signals=signals)
        facts["searches"][name] = {
            "threshold": found.threshold,
            "dimensions": None if found.strangers is None else found.strangers.dimensions,
            "compared": found.counts["pairs whose signals were compared"],
            "seconds": found.seconds,
            "scores": score(found, truth),
        }
    return facts


def rendered(facts: dict[str, Any]) -> str:
    """The scores as a table."""
    signals, alone = (facts["searches"][name] for name in ("signals", "embeddings alone"))
    lines = [
        f"{facts['recordings']:,} recordings with {facts['copies']} copies of each kind; threshold {alone['threshold']:.4f}, "
        f"{signals['compared']:,} pairs whose signals were compared.",
        "",
        "| copy | confirmed by the signals | above the threshold, without the files |",
        "|---|---|---|",
    ]
    for kind, scored in signals["scores"].items():
        if kind != "(wrong)":
            there = alone["scores"][kind]
            lines.append(
                f"| {kind} | {scored['confirmed']} of {scored['copies']} | {there['named']} of {there['copies']} |"
            )
    wrong = [search["scores"]["(wrong)"] for search in (signals, alone)]
    lines.append(f"| no copies, but paired | {wrong[0].get('same_signal', 0)} | {sum(wrong[1].values())} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planted", description=__doc__)
    parser.add_argument(
        "--recordings", type=int, default=600, help="recordings without the copies (default: %(default)s)"
    )
    parser.add_argument("--copies", type=int, default=50, help="copies of each kind (default: %(default)s)")
    parser.add_argument("--checkpoint", type=Path, help="the published checkpoint (default: random weights)")
    parser.add_argument("--ecgs", type=Path, help="folder of 12-lead ECG files (default: synthetic ECGs)")
    parser.add_argument("--no_group", action="store_true", help="search without the column of patients")
    parser.add_argument("--folder", type=Path, default=Path("build/benchmarks"), help="inputs and outputs")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    chosen = parser.parse_args(arguments)
    folder = chosen.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("ECGFOUNDER_CACHE", str(folder / "cache"))
    checkpoint = chosen.checkpoint or inputs.write_checkpoint(folder)
    facts = measure(folder, checkpoint, chosen.recordings, chosen.copies, ecgs=chosen.ecgs, group=not chosen.no_group)
    if chosen.json:
        chosen.json.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    print(rendered(facts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
