"""The same signal is recognised in all its forms, and other signals are not, however regular."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.planted import synthetic
from ecgfounder.analysis.duplication.same_signal import DIFFERENT, FLAT, NO_LEAD, PERIODIC, SHORT, Trace, align
from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.ecg.recording import Recording
from ecgfounder.preprocess.resampling import resample

Signal = npt.NDArray[np.float32]


def recording(signal: npt.NDArray[np.floating], rate: float = 500, leads: Sequence[str] = STANDARD_LEADS) -> Recording:
    return Recording(np.asarray(signal, np.float32), rate, tuple(leads), "made")


@pytest.fixture(scope="module")
def signal() -> Signal:
    return synthetic(1, 0)


def with_zeros(signal: Signal) -> Signal:
    changed = signal.copy()
    changed[8] = 0
    return changed


def with_offset_and_gaps(signal: Signal) -> Signal:
    changed = signal + np.linspace(-3, 5, 12, dtype=np.float32)[:, None]
    changed[2, 100:120] = np.nan
    return changed


COPIES: dict[str, tuple[Callable[[Signal], Recording], float, float]] = {
    "coarse steps": (lambda x: recording(np.rint(x * 50) / 50), 0, 1),
    "100 Hz": (lambda x: recording(resample(x, 500, 100, method="polyphase"), 100), 0, 1),
    "every fifth sample": (lambda x: recording(x[:, ::5], 100), 0, 1),
    "250 Hz, linear": (lambda x: recording(resample(x, 500, 250), 250), 0, 1),
    "1000 Hz": (lambda x: recording(resample(x, 500, 1000), 1000), 0, 1),
    "shifted": (lambda x: recording(x[:, 250:]), 0.5, 1),
    "shifted by part of a sample": (
        lambda x: recording(resample(x[:, 61:], 500, 100, method="polyphase"), 100),
        0.122,
        1,
    ),
    "cut": (lambda x: recording(x[:, 1500:2750]), 3, 1),
    "gain": (lambda x: recording(2.5 * x), 0, 2.5),
    "a lead lost": (lambda x: recording(np.delete(x, 8, 0), leads=np.delete(STANDARD_LEADS, 8)), 0, 1),
    "a lead dead": (lambda x: recording(with_zeros(x)), 0, 1),
    "one lead": (lambda x: recording(x[1:2], leads=("II",)), 0, 1),
    "offsets and gaps": (lambda x: recording(with_offset_and_gaps(x)), 0, 1),
}


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_is_the_same_signal_with_its_shift_and_gain(signal: Signal, name: str) -> None:
    make, shift, gain = COPIES[name]
    found = align(Trace.of(recording(signal)), Trace.of(make(signal)))
    assert (found.is_same, found.reason) == (True, "")
    assert found.shift == pytest.approx(shift, abs=0.005)
    assert found.gain == pytest.approx(gain, rel=0.02)
    back = align(Trace.of(make(signal)), Trace.of(recording(signal)))
    assert back.shift == pytest.approx(-shift, abs=0.005)
    assert back.is_same


def test_a_lost_lead_is_named(signal: Signal) -> None:
    found = align(Trace.of(recording(signal)), Trace.of(COPIES["a lead lost"][0](signal)))
    assert (found.n_leads, found.lost) == (11, ("V3",))


def test_recordings_of_one_patient_and_of_several_differ() -> None:
    traces = [Trace.of(recording(synthetic(patient, number))) for patient in range(4) for number in range(3)]
    found = [align(traces[a], traces[b]) for a in range(12) for b in range(a)]
    assert {each.reason for each in found} == {DIFFERENT}


def test_half_of_another_recording_is_not_the_same(signal: Signal) -> None:
    mixed = np.concatenate([signal[:, 2500:], synthetic(2, 0)[:, :2500]], axis=1)
    assert align(Trace.of(recording(signal)), Trace.of(recording(mixed))).reason == DIFFERENT


def test_the_beats_of_a_regular_rhythm_fit_each_other_and_decide_nothing() -> None:
    beat = np.exp(-0.5 * ((np.arange(400) - 200) / 8) ** 2)
    noise = np.random.default_rng(0).normal(0, 1e-4, (2, 12, 5000))
    paced = [np.outer(np.arange(1, 13) / 12, np.roll(np.resize(beat, 5000), 37 * number)) for number in range(2)]
    one, other = (Trace.of(recording(signal + each)) for signal, each in zip(paced, noise, strict=True))
    found = align(one, other)
    assert found.correlation > 0.99
    assert found.reason == PERIODIC


def test_calibration_pulses_are_no_signal() -> None:
    rng = np.random.default_rng(0)
    pair = []
    for _ in range(2):
        signal = rng.normal(0, 0.002, (12, 5000))
        signal[:, 4800:] = 0
        signal[:, 4820:4920] = 1
        pair.append(Trace.of(recording(signal)))
    assert align(*pair).reason == DIFFERENT


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (np.zeros((12, 5000)), FLAT),
        (np.full((12, 5000), 3.0), FLAT),
        (np.full((12, 5000), np.nan), FLAT),
        (np.zeros((12, 3)), FLAT),
    ],
)
def test_flat_signals_are_named_and_equal_nothing(signal: Signal, other: npt.NDArray[np.float64], reason: str) -> None:
    flat = Trace.of(recording(other))
    assert align(Trace.of(recording(signal)), flat).reason == reason
    assert align(flat, flat).reason == reason


def test_short_signals_and_signals_without_a_common_lead_are_named(signal: Signal) -> None:
    whole = Trace.of(recording(signal))
    assert align(whole, Trace.of(recording(signal[:, :800]))).reason == SHORT
    assert (
        align(Trace.of(recording(signal[:1], leads=("I",))), Trace.of(recording(signal[7:8], leads=("V2",)))).reason
        == NO_LEAD
    )
