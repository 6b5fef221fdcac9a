"""Heart beats in a recording: a QRS detector over all leads, and the heart rate.

In: a `Recording`. Out: the times of its QRS complexes, and their rate per minute; none where no beats stand out.

The detector is in the manner of Pan and Tompkins (IEEE Trans Biomed Eng 1985;32:230): band-pass, slope, energy over the width of
a QRS complex, and a threshold that follows the heights of beats, with a second look into long gaps. Instead of one lead it takes
the median over leads, each relative to its own beats, so that a lead with noise or a loose electrode does not decide.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ecgfounder.ecg.leads import KNOWN_LEADS, has_signal
from ecgfounder.ecg.recording import Recording
from ecgfounder.preprocess.calibration import calibration_pulses, without_pulses

FloatArray = npt.NDArray[np.float64]

MOST_SECONDS = 600.0
"""Of a longer recording, the first ten minutes are looked at."""

SHORTEST_SECONDS = 2.0
LOWEST_RATE_HZ = 50.0
BAND_HZ = (5.0, 20.0)
QRS_SECONDS = 0.1
REFRACTORY_SECONDS = 0.2
T_WAVE_SECONDS = 0.36
"""A peak so soon after a beat is its T wave, unless it has at least `T_WAVE_SHARE` of the beat's height."""
T_WAVE_SHARE = 0.5
THRESHOLD = 0.3
"""Of the height of the beats around, for a beat; a third of that in a gap of more than `GAP` times the usual interval."""
GAP = 1.66
LEAST_CONTRAST = 4.0
"""The height of beats relative to what is between them; noise has 2 to 3, an ECG more than 10."""
LEAST_BEATS = 3


def heart_rate(recording: Recording) -> float | None:
    """The mean heart rate, in beats per minute: 60 divided by the mean interval between beats.

    Calibration pulses, and what is beyond them, do not count. None if fewer than three beats stand out, as in noise, a flat line
    or a recording of less than two seconds.
    """
    beats = beat_times(recording)
    if len(beats) < LEAST_BEATS:
        return None
    return round(60.0 * (len(beats) - 1) / float(beats[-1] - beats[0]), 1)


def beat_times(recording: Recording) -> FloatArray:
    """Times of the QRS complexes, in seconds from the start of the recording, to about 20 ms.

    Returns
    -------
    numpy.ndarray
        float64 [n_beats], ascending; empty if no beats stand out.
    """
    none = np.zeros(0)
    rate = recording.sampling_rate
    stop = min(recording.n_samples, round(MOST_SECONDS * rate))
    rows = [row for row, lead in enumerate(recording.leads) if lead in KNOWN_LEADS]
    rows = [row for row in rows or range(len(recording.leads)) if has_signal(recording.samples[row, :stop])]
    if not rows or rate < LOWEST_RATE_HZ:
        return none
    samples = np.nan_to_num(recording.samples[rows, :stop], nan=0.0, posinf=0.0, neginf=0.0)
    pulses = calibration_pulses(samples, [recording.leads[row] for row in rows], rate)
    start, stop = without_pulses(samples, pulses, 0, samples.shape[1])
    if (stop - start) / rate < SHORTEST_SECONDS:
        return none
    energy, step = _energy(samples[:, start:stop].astype(np.float64), rate)
    beats = _beats(energy, step)
    return start / rate + beats * step


def _energy(samples: FloatArray, rate: float) -> tuple[FloatArray, float]:
    """How steep the leads are at each moment, relative to their beats; and the seconds between two of its values.

    Returns
    -------
    numpy.ndarray
        float64 [n]: about 1 at beats and near 0 between them.
    float
        Seconds.
    """
    from scipy.ndimage import uniform_filter1d
    from scipy.signal import resample_poly, sosfiltfilt  # loading it takes as long as hundreds of recordings

    factor = max(1, int(rate // 240))  # 5 to 20 Hz needs no more than 240 Hz
    if factor > 1:
        samples = resample_poly(samples, 1, factor, axis=1, padtype="line")
        rate /= factor
    filtered = sosfiltfilt(_band_pass(rate), samples, axis=1)
    slope = np.gradient(filtered, axis=1)
    energy = np.sqrt(uniform_filter1d(slope**2, max(1, round(QRS_SECONDS * rate)), axis=1).clip(0))
    # A lead's scale is the height of its beats: the median of the highest value in each two seconds, in which there is one.
    size = round(2 * rate)
    n_blocks = energy.shape[1] // size
    highest = energy[:, : n_blocks * size].reshape(len(energy), n_blocks, size).max(axis=2)
    scale = np.median(highest, axis=1)
    moving = scale > 0
    if not moving.any():
        return np.zeros(energy.shape[1]), 1 / rate
    return np.median(energy[moving] / scale[moving, None], axis=0), 1 / rate


@lru_cache(maxsize=64)
def _band_pass(rate: float) -> FloatArray:
    from scipy.signal import butter

    sections: FloatArray = butter(2, BAND_HZ, "bandpass", fs=rate, output="sos")
    return sections


def _beats(energy: FloatArray, step: float) -> FloatArray:
    """Places of beats in the energy."""
    from scipy.ndimage import maximum_filter1d
    from scipy.signal import find_peaks

    peaks, _ = find_peaks(energy, distance=max(1, round(REFRACTORY_SECONDS / step)))
    if not len(peaks):
        return np.zeros(0)
    heights = energy[peaks]
    # The height of the beats around: at least a third of the usual one, so that noise in a pause does not count.
    around = maximum_filter1d(energy, max(1, round(3.0 / step)))[peaks]
    usual = float(np.median(around))
    level = np.clip(around, usual / 3, 2 * usual)
    beats = _without_t_waves(peaks[heights >= THRESHOLD * level], energy, step)
    if len(beats) < LEAST_BEATS or np.median(energy[beats]) < LEAST_CONTRAST * np.median(energy):
        return np.zeros(0)
    usual_interval = float(np.median(np.diff(beats)))
    low = peaks[heights >= THRESHOLD / 3 * level]
    found = [int(beats[0])]
    for beat in beats[1:].tolist():
        missing = low[(low > found[-1] + 0.6 * usual_interval) & (low < beat - 0.6 * usual_interval)]
        if beat - found[-1] > GAP * usual_interval and len(missing):
            found.append(int(missing[np.argmax(energy[missing])]))
        found.append(int(beat))
    return np.array(found, dtype=np.float64)


def _without_t_waves(peaks: npt.NDArray[np.intp], energy: FloatArray, step: float) -> npt.NDArray[np.intp]:
    """The peaks that are not the T wave of the one before."""
    kept: list[int] = []
    for peak in peaks.tolist():
        soon = bool(kept) and (peak - kept[-1]) * step < T_WAVE_SECONDS
        if not (soon and energy[peak] < T_WAVE_SHARE * energy[kept[-1]]):
            kept.append(peak)
    return np.array(kept, dtype=np.intp)
