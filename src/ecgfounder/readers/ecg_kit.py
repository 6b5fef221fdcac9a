"""Recordings as ecg-kit stores them in MATLAB files: a variable of raw samples, and a structure that describes them.

In: the variables of a file by name. Out: the samples in the header's units, and their description. The names and the formula
(sample - adczero) / gain are those of ecg-kit (github.com/marianux/ecg-kit).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ecgfounder.errors import ReadError
from ecgfounder.readers.quantities import millivolts_per
from ecgfounder.readers.tables import MAX_LEADS, Array, Description, positive, texts

HEADERS = ("header", "heasig", "hea")
SIGNALS = ("sig", "signal", "ecg")
FIELDS = ("freq", "desc", "units", "gain", "adczero")


def find(named: Mapping[str, Array]) -> tuple[Array, Description] | None:
    """The signal and its description; None if the file has no header of ecg-kit, or no signal beside it.

    Parameters
    ----------
    named : mapping of str to numpy.ndarray
        Variables; fields of a structure as 'structure.field'. The signal is [n_samples, n_leads]; transposed if only
        that fits.

    Returns
    -------
    tuple of (numpy.ndarray, Description) or None
        float32 [n_leads, n_samples], without signals that are not voltages if some are; in millivolts if the units are stated.

    Raises
    ------
    ReadError
        If the header's fields do not fit to the signal, or a gain is 0.
    """
    by_name = {name.casefold(): array for name, array in named.items()}
    header = next((prefix for prefix in HEADERS if f"{prefix}.freq" in by_name), None)
    signal = next((by_name[name] for name in SIGNALS if name in by_name), None)
    if header is None or signal is None or signal.ndim != 2 or signal.dtype.kind not in "iuf":
        return None
    fields = {name: by_name[f"{header}.{name}"] for name in FIELDS if f"{header}.{name}" in by_name}
    names = texts(fields["desc"]) if "desc" in fields else ()
    if signal.shape[0] == len(names) or signal.shape[1] > MAX_LEADS >= signal.shape[0]:
        signal = signal if signal.shape[1] == len(names) else signal.T
    n_leads = signal.shape[1]
    if n_leads > MAX_LEADS or (names and len(names) != n_leads):
        raise ReadError(f"the MATLAB file has {n_leads:,} signals, but its header describes {len(names)}")
    gains, zeros = _numbers(fields.get("gain"), n_leads, 1.0), _numbers(fields.get("adczero"), n_leads, 0.0)
    if not np.all(np.isfinite(gains) & (gains != 0) & np.isfinite(zeros)):
        raise ReadError("the MATLAB file has a gain or a zero that is not a number, or a gain of 0")
    scales = _scales(fields.get("units"), n_leads)
    kept = [column for column in range(n_leads) if scales[column] is not None] or list(range(n_leads))
    rows = np.empty((len(kept), signal.shape[0]), dtype=np.float32)
    for row, column in zip(rows, kept, strict=True):
        with np.errstate(over="ignore", invalid="ignore"):
            row[:] = (signal[:, column] - zeros[column]) * ((scales[column] or 1.0) / gains[column])
    return rows, Description(
        rate=positive(fields["freq"]),
        scale=1.0 if any(scales) else None,
        leads=tuple(names[column] for column in kept) if names else None,
    )


def _numbers(values: Array | None, n_leads: int, default: float) -> npt.NDArray[np.float64]:
    """A number for each lead, from a field that has one for each or one for all."""
    if values is None:
        return np.full(n_leads, default)
    if values.dtype.kind not in "iuf" or values.size not in (1, n_leads):
        raise ReadError(f"the MATLAB file has {n_leads} signals, but {values.size:,} gains or zeros")
    return np.broadcast_to(values.reshape(-1).astype(np.float64), (n_leads,))


def _scales(units: Array | None, n_leads: int) -> list[float | None]:
    """Millivolts per unit of each lead; None where the unit is not stated, or not a voltage."""
    found = [millivolts_per(unit) for unit in texts(units)] if units is not None else []
    return found * n_leads if len(found) == 1 else found if len(found) == n_leads else [None] * n_leads
