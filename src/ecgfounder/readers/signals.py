"""Channels of signal files (WFDB, EDF, ISHNE, SCP-ECG, tables): lead names, and one sampling rate for all.

In: the channels' names, from the file or the user. Out: one lead name for each channel; only standard leads may occur twice.
In: the samples of a channel with fewer of them than others. Out: as many as the others have, by interpolation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ecgfounder.ecg.leads import STANDARD_LEADS, leads_in_context
from ecgfounder.ecg.recording import Samples


def distinct_leads(names: Sequence[str]) -> tuple[str, ...]:
    """`leads_in_context`, with numbers for equal names that are not standard leads: ECG, ECG 2, ECG 3.

    Ambulatory recorders name all channels "ECG". Two channels named V1 keep this name, and the recording is refused later,
    because it is not known which of them is V1.
    """
    return numbered(leads_in_context(names))


def numbered(leads: Sequence[str]) -> tuple[str, ...]:
    """Lead names, with numbers for equal ones that are not standard leads."""
    seen: dict[str, int] = {}
    distinct: list[str] = []
    for name in leads:
        seen[name] = seen.get(name, 0) + 1
        again = seen[name] > 1 and name not in STANDARD_LEADS
        distinct.append(f"{name} {seen[name]}" if again else name)
    return tuple(distinct)


def raised(samples: Samples, n_samples: int) -> Samples:
    """Samples of a channel at a higher sampling rate, interpolated linearly; the last one is repeated.

    Parameters
    ----------
    samples : numpy.ndarray
        float32 [n], NaN for missing samples, which make the interpolated ones beside them NaN too.
    n_samples : int
        How many there are in the same time at the higher rate.

    Returns
    -------
    numpy.ndarray
        float32 [n_samples].
    """
    if len(samples) == n_samples:
        return samples
    position = np.arange(n_samples) * (len(samples) / n_samples)
    return np.asarray(np.interp(position, np.arange(len(samples)), samples), dtype=np.float32)
