"""The beats that are found are those that are there: of known rhythms, with noise, in annotated records, by devices' count."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from ecgfounder.demo import demo, synthetic_ecg
from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.ecg.recording import Recording
from ecgfounder.preprocess.beats import beat_times, heart_rate
from ecgfounder.readers import make_source, read_ecg, source_statements
from ecgfounder.readers.source import Hints
from tests.places import SHARED

STUDIES = {study.path: study for study in demo._STUDIES}
WITHIN_SECONDS = 0.15
"""As in ANSI/AAMI EC57: a beat so near to an annotated one is that beat."""


def known_beats(study: demo._Study) -> npt.NDArray[np.float64]:
    """The times of a study's QRS complexes that are whole in its ten seconds."""
    beats = (*synthetic_ecg._QRS, *synthetic_ecg._PREMATURE_QRS)
    times = {at for wave, at in synthetic_ecg._waves(demo._rhythm_of(study), rng_of(study), []) if wave in beats}
    end = demo._CALIBRATED_ECG if study.calibration else 10.0
    return np.array(sorted(time for time in times if 0.1 < time < end - 0.1))


def rng_of(study: demo._Study) -> np.random.Generator:
    return np.random.default_rng([study.patient, study.number])


def compared(found: npt.NDArray[np.float64], known: npt.NDArray[np.float64]) -> tuple[int, int, int]:
    """Beats that were found, that were missed, and false ones; each known beat counts once."""
    left = list(found)
    hits = 0
    for time in known:
        near = [each for each in left if abs(each - time) <= WITHIN_SECONDS]
        if near:
            left.remove(min(near, key=lambda each: abs(each - time)))
            hits += 1
    return hits, len(known) - hits, len(left)


def recorded(path: str, folder: Path) -> Recording:
    return read_ecg(folder / "ecg" / path)


@pytest.mark.parametrize("path", STUDIES)
def test_every_beat_of_a_known_rhythm_is_found_and_no_other(path: str, demo_cohort: Path) -> None:
    """Rates from 42 to 143, fibrillation, premature and wide beats, a calibration pulse, 1000 Hz."""
    recording, known = recorded(path, demo_cohort), known_beats(STUDIES[path])
    inner = [time for time in beat_times(recording) if known[0] - 0.2 < time < known[-1] + 0.2]
    assert compared(np.array(inner), known) == (len(known), 0, 0)
    measured = 60 * (len(known) - 1) / (known[-1] - known[0])
    assert heart_rate(recording) == pytest.approx(measured, rel=0.03)


@pytest.mark.parametrize("lead", STANDARD_LEADS)
def test_any_lead_alone_is_enough(lead: str, demo_cohort: Path) -> None:
    recording = recorded("patient_001/ecg_0001.xml", demo_cohort)
    row = recording.leads.index(lead)
    alone = Recording(recording.samples[row : row + 1], recording.sampling_rate, (lead,), "array")
    assert heart_rate(alone) == pytest.approx(72, abs=1.5)


@pytest.mark.parametrize("rate", [100.0, 128.0, 240.0, 360.0, 1000.0, 2000.0])
def test_the_sampling_rate_does_not_matter(rate: float, demo_cohort: Path) -> None:
    recording = recorded("patient_004/ecg_0005.xml", demo_cohort)
    times = np.arange(int(10 * rate)) / rate
    at = np.arange(recording.n_samples) / recording.sampling_rate
    samples = np.stack([np.interp(times, at, lead) for lead in recording.samples]).astype(np.float32)
    assert heart_rate(Recording(samples, rate, recording.leads, "array")) == pytest.approx(81, abs=1)


def test_noise_wander_and_loose_electrodes_do_not_change_it(demo_cohort: Path) -> None:
    recording = recorded("patient_001/ecg_0001.xml", demo_cohort)
    random = np.random.default_rng(0)
    times = np.arange(recording.n_samples) / 500
    noisy = recording.samples + random.normal(0, 0.05, recording.samples.shape).astype(np.float32)
    noisy += (2 * np.sin(2 * np.pi * 0.2 * times)).astype(np.float32)
    noisy += (0.1 * np.sin(2 * np.pi * 50 * times)).astype(np.float32)
    noisy[3] = random.normal(0, 3, recording.n_samples)
    noisy[7] = 0
    noisy[9, 1000:2000] = np.nan
    assert heart_rate(dataclasses.replace(recording, samples=noisy)) == pytest.approx(72, abs=1.5)
    assert heart_rate(dataclasses.replace(recording, samples=-recording.samples)) == heart_rate(recording)
    micro = dataclasses.replace(recording, samples=recording.samples * np.float32(1e-3))
    assert heart_rate(micro) == heart_rate(recording)


def test_a_tall_t_wave_is_no_beat_and_a_pause_is_not_filled() -> None:
    times = np.arange(0, 12, 1 / 500)
    beats = [0.5, 1.5, 2.5, 3.5, 7.0, 8.0, 9.0, 10.0, 11.0]
    lead = sum(
        np.exp(-0.5 * ((times - at) / 0.012) ** 2) + 0.9 * np.exp(-0.5 * ((times - at - 0.3) / 0.045) ** 2)
        for at in beats
    )
    lead += np.random.default_rng(0).normal(0, 0.01, len(times))
    recording = Recording(lead[None].astype(np.float32), 500.0, ("II",), "array")
    assert compared(beat_times(recording), np.array(beats)) == (9, 0, 0)


def test_a_small_beat_in_a_gap_is_found_at_a_second_look() -> None:
    times = np.arange(0, 10, 1 / 500)
    beats = np.arange(0.5, 10, 0.8)
    heights = np.where(np.arange(len(beats)) == 5, 0.2, 1.0)
    lead = sum(h * np.exp(-0.5 * ((times - at) / 0.012) ** 2) for at, h in zip(beats, heights, strict=True))
    lead += np.random.default_rng(0).normal(0, 0.005, len(times))
    recording = Recording(np.asarray(lead)[None].astype(np.float32), 500.0, ("II",), "array")
    assert compared(beat_times(recording), beats) == (len(beats), 0, 0)


@pytest.mark.parametrize("n_leads", [1, 12])
@pytest.mark.parametrize("kind", ["noise", "flat", "one step", "sine", "nan", "short", "two beats", "slow sampling"])
def test_what_has_no_beats_has_no_rate(kind: str, n_leads: int) -> None:
    random = np.random.default_rng(1)
    times = np.arange(5000) / 500
    made = {
        "noise": lambda: random.standard_normal((n_leads, 5000)),
        "flat": lambda: np.full((n_leads, 5000), 0.3),
        "one step": lambda: np.tile(times > 5, (n_leads, 1)),
        "sine": lambda: np.tile(np.sin(2 * np.pi * 8 * times), (n_leads, 1)),
        "nan": lambda: np.full((n_leads, 5000), np.nan),
        "short": lambda: random.standard_normal((n_leads, 900)),
        "two beats": lambda: np.tile(sum(np.exp(-0.5 * ((times - at) / 0.012) ** 2) for at in (3, 7)), (n_leads, 1)),
        "slow sampling": lambda: random.standard_normal((n_leads, 400)),
    }[kind]()
    rate = 40.0 if kind == "slow sampling" else 500.0
    assert heart_rate(Recording(made.astype(np.float32), rate, STANDARD_LEADS[:n_leads], "array")) is None


def test_of_a_long_recording_ten_minutes_are_looked_at(demo_cohort: Path) -> None:
    recording = recorded("patient_001/ecg_0001.xml", demo_cohort)
    long = dataclasses.replace(recording, samples=np.tile(recording.samples, (1, 66)))
    found = beat_times(long)
    assert 590 < found[-1] < 600
    assert heart_rate(long) == pytest.approx(72, abs=1.5)


def test_an_annotated_wfdb_record_is_found_beat_by_beat(tmp_path: Path, demo_cohort: Path) -> None:
    """The same comparison as for records of PhysioNet, on one that is made here, with noise at 12 dB."""
    wfdb = pytest.importorskip("wfdb")
    study = STUDIES["patient_009/ecg_0010.xml"]
    recording = recorded(study.path, demo_cohort)
    noise = np.random.default_rng(0).normal(0, recording.samples.std() / 4, recording.samples.shape)
    signals = (recording.samples + noise).T.astype(np.float64)
    names, units = list(recording.leads), ["mV"] * 12
    wfdb.wrsamp("made", fs=500, units=units, sig_name=names, p_signal=signals, fmt=["16"] * 12, write_dir=str(tmp_path))
    known = known_beats(study)
    places = np.rint(known * 500).astype(int)
    wfdb.wrann("made", "atr", places, symbol=["N"] * len(places), write_dir=str(tmp_path))
    assert score(tmp_path / "made.hea") == (len(known), 0, 0)


@pytest.mark.skipif(not list(SHARED.rglob("*.atr")), reason="there are no annotated records in ../shared")
def test_beats_of_annotated_records_are_found() -> None:
    scores = [score(path.with_suffix(".hea")) for path in SHARED.rglob("*.atr")]
    hits, missed, false = (sum(each) for each in zip(*scores, strict=True))
    assert hits / (hits + missed) > 0.98
    assert hits / (hits + false) > 0.98


def score(header: Path) -> tuple[int, int, int]:
    """The comparison with a record's reference annotations, of its first ten minutes."""
    import wfdb

    annotations = wfdb.rdann(str(header.with_suffix("")), "atr")
    are_beats = np.isin(annotations.symbol, list("NLRBAaJSVrFejnE/fQ?"))
    recording = read_ecg(header)
    known = annotations.sample[are_beats] / recording.sampling_rate
    found = beat_times(recording)
    inside = (known > 0.1) & (known < min(600.0, recording.duration) - 0.1)
    within = (found > known[inside][0] - 0.2) & (found < known[inside][-1] + 0.2)
    return compared(found[within], known[inside])


def test_it_agrees_with_what_devices_counted(shared: Path) -> None:
    rates = {}
    for path in sorted((shared / "ecg").glob("*/*.[xX][mM][lL]")):
        if "invalid" in path.name or "liryc" in path.name:  # not ECG files; a simulation with two beats
            continue
        stated = source_statements(make_source(str(path), Hints()))
        if stated is not None and stated.heart_rate is not None:
            rates[path.name] = (heart_rate(read_ecg(path)), stated.heart_rate)
    assert len(rates) >= 4
    for measured, stated_rate in rates.values():
        assert measured == pytest.approx(stated_rate, abs=3)
