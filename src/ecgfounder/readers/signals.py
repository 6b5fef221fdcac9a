"""What the readers of plain signal files share: names for their channels, counts to millivolts, hints, members.

In: names, counts and settings as a file or the user gives them. Out: distinct lead names, samples in mV, scales.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ecgfounder.errors import ReadError
from ecgfounder.readers.quantities import millivolts_per
from ecgfounder.readers.source import Hints, Source
from ecgfounder.recording import KNOWN_LEADS, STANDARD_LEADS, canonical_lead

_NUMBERED_CHANNEL = re.compile(r"(?:ECG|EKG)[ _.-]*0*(\d+)", re.IGNORECASE)
_ECG_PREFIX = re.compile(r"^(?:ECG|EKG)[ _:.-]+(?=\S)", re.IGNORECASE)
_CHUNK = 1 << 20


def lead_name(name: str) -> str:
    """Canonical lead name of a channel: 'EKG V1' is V1; 'ECG 1' and '1' are a recorder's first channel."""
    name = name.strip()
    numbered = _NUMBERED_CHANNEL.fullmatch(name)
    if name.isdigit():
        return name  # a channel's number
    if numbered:
        return f"ECG{numbered[1]}"
    bare = canonical_lead(_ECG_PREFIX.sub("", name))
    return bare if bare in KNOWN_LEADS else canonical_lead(name)


def distinct_leads(names: Sequence[str]) -> tuple[str, ...]:
    """`lead_name` of each, where channels of one name that is no standard lead are numbered: ECG, ECG 2, ECG 3.

    Ambulatory recorders call all their channels "ECG". Two signals that are both called V1 stay so, and the recording
    is refused: which of them is V1 cannot be known.
    """
    seen: dict[str, int] = {}
    distinct: list[str] = []
    for name in map(lead_name, names):
        seen[name] = seen.get(name, 0) + 1
        numbered = seen[name] > 1 and name not in STANDARD_LEADS
        distinct.append(f"{name} {seen[name]}" if numbered else name)
    return tuple(distinct)


def fill_millivolts(
    out: npt.NDArray[np.float32],
    counts: npt.NDArray[np.signedinteger],
    scale: float,
    offset: float = 0.0,
    no_sample: int | None = None,
) -> None:
    """Fill `out` with counts * scale + offset, computed in float64 piece by piece; NaN for the count `no_sample`.

    Parameters
    ----------
    out : float32 array [n_samples], in mV.
    counts : integer array [n_samples].
    scale, offset : mV per count, and mV at count 0.
    no_sample : the count that stands for "no sample", if the format has one.
    """
    for begin in range(0, len(counts), _CHUNK):
        piece = counts[begin : begin + _CHUNK]
        values = piece * np.float64(scale)
        values += offset
        if no_sample is not None:
            absent = piece == no_sample
            if absent.any():
                values[absent] = np.nan
        out[begin : begin + _CHUNK] = values


def hinted_scale(hints: Hints) -> float | None:
    """Millivolts per unit as the user gave it: a unit ("uV") or how many units make a millivolt ("200"); None if not.

    Raises
    ------
    ReadError
        If it is neither.
    """
    if hints.unit is None:
        return None
    scale = millivolts_per(hints.unit)
    if scale is not None:
        return scale
    try:
        per_millivolt = float(hints.unit)
    except ValueError:
        per_millivolt = math.nan
    if not (math.isfinite(per_millivolt) and per_millivolt > 0):
        raise ReadError(
            "Invalid value for --unit. Allowed values are V, mV, uV, nV or a number of units per mV, "
            f"got {hints.unit!r}."
        )
    return 1 / per_millivolt


def refuse_member(source: Source, format_name: str) -> None:
    """Raise `ReadError` if the path asks for a member ('file::member') of a format that holds a single recording."""
    if source.member is not None:
        raise ReadError(f"a {format_name} file holds one recording; give its path without '::' and what follows")
