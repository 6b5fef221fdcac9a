"""From named arrays to a recording: which array is the ECG, and its sampling rate, unit and leads.

In: the arrays of an NPZ, MAT or HDF5 file, or a single array, and the user's hints. Out: a `Recording`, or an error that names
the parameter for a fact that is missing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ecgfounder.ecg.leads import KNOWN_LEADS, leads_in_context
from ecgfounder.ecg.recording import Recording, Samples
from ecgfounder.errors import ReadError
from ecgfounder.readers.quantities import hinted_scale, millivolts_per, to_millivolts
from ecgfounder.readers.signals import distinct_leads
from ecgfounder.readers.source import Hints

Array = npt.NDArray[Any]

SIGNAL_NAMES = (
    *("samples", "signal", "signals", "ecg", "ecgs", "val", "data", "p_signal", "tracings", "tracing", "waveform"),
    *("waveforms", "ecg_data", "ecgdata", "ecg_signal", "ecg_signals", "x", "arr_0"),
)
"""Names of the array that holds the ECG, in order of preference."""

RATE_NAMES = (
    *("sampling_rate", "sampling_frequency", "sample_rate", "sample_frequency", "samplingrate", "samplerate", "fs"),
    *("sfreq", "freq", "frequency", "sr", "rate", "hz"),
)
UNIT_NAMES = ("unit", "units", "signal_unit")
LEAD_NAMES = (
    *("leads", "lead_names", "lead_name", "lead_order", "channels", "channel_names", "ch_names", "sig_name"),
    *("sig_names", "signal_names", "labels", "columns"),
)

MAX_LEADS = 256
SHORTEST_ROW = 250

_TIME_NAMES = frozenset(("t", "tm", "time", "times", "timestamp", "timestamps", "seconds", "index"))


@dataclass(frozen=True)
class Description:
    """What a file states about its samples; None for what it does not state. `scale` is in millivolts per unit."""

    rate: float | None = None
    scale: float | None = None
    leads: tuple[str, ...] | None = None


def plain_name(name: str) -> str:
    """The last part of a name in lower case, '_' for blanks and hyphens: 'sampling_rate' for 'ECG.Sampling Rate'."""
    return re.sub(r"[\s-]+", "_", name.rpartition(".")[2].rpartition("/")[2].strip().lower())


def describe(named: Mapping[str, Any]) -> Description:
    """Sampling rate, unit and lead names from a file's small arrays or attributes, found by name."""
    by_name = {plain_name(name): value for name, value in reversed(list(named.items()))}

    def first(names: Sequence[str]) -> Array | None:
        return next((np.asarray(by_name[name]) for name in names if name in by_name), None)

    rate, unit, leads = first(RATE_NAMES), first(UNIT_NAMES), first(LEAD_NAMES)
    units = set() if unit is None else {text.strip() for text in texts(unit)}
    names = () if leads is None else texts(leads)
    if len(names) == 1:
        names = tuple(re.split(r"[,;|\s]+", names[0].strip()))
    return Description(
        rate=positive(rate),
        scale=millivolts_per(units.pop()) if len(units) == 1 else None,
        leads=names if 0 < len(names) <= MAX_LEADS else None,
    )


def texts(values: Array) -> tuple[str, ...]:
    """The texts of an array; empty if it contains anything else, or more than `MAX_LEADS` values."""
    if values.size > MAX_LEADS:
        return ()
    plain = [value.decode("utf-8", "replace") if isinstance(value, bytes) else value for value in values.reshape(-1)]
    return tuple(str(value) for value in plain) if all(isinstance(value, str) for value in plain) else ()


def positive(value: Array | None) -> float | None:
    """The only number of an array, if it is above 0; else None."""
    if value is None or value.size != 1 or value.dtype.kind not in "iuf":
        return None
    number = float(value.reshape(-1)[0])
    return number if math.isfinite(number) and number > 0 else None


def find_signal(named: Mapping[str, Array], wanted: str | None) -> Array | None:
    """The array that holds the ECG: the one named by the user, one of `SIGNAL_NAMES`, or the only one that can be an ECG.

    Raises
    ------
    ReadError
        If `wanted` is not among the names.
    """
    if wanted is not None:
        if wanted not in named:
            raise ReadError(f"none of the file's {len(named)} arrays has the name after '::'")
        return named[wanted]
    signals = {name: array for name, array in named.items() if array.dtype.kind in "iuf" and array.size > 1}
    by_name = {plain_name(name): array for name, array in reversed(list(signals.items()))}
    for name in SIGNAL_NAMES:
        if name in by_name:
            return by_name[name]
    tables = [array for array in signals.values() if array.ndim >= 2 and min(array.shape) > 0 and max(array.shape) > 1]
    possible = tables if len(tables) == 1 else list(possible_signals(signals).values())
    return possible[0] if len(possible) == 1 else None


def possible_signals(named: Mapping[str, Array]) -> dict[str, Array]:
    """Arrays that can be an ECG: tables of at most `MAX_LEADS` leads, rows of at least `SHORTEST_ROW` samples; no times."""
    return {
        name: array
        for name, array in named.items()
        if array.dtype.kind in "iuf" and _can_be_signal([size for size in array.shape if size != 1])
        if plain_name(name) not in _TIME_NAMES
    }


def _can_be_signal(sizes: Sequence[int]) -> bool:
    if len(sizes) == 1:
        return sizes[0] >= SHORTEST_ROW
    return len(sizes) > 1 and 0 < min(sizes) <= MAX_LEADS


def choice_of_signal(named: Mapping[str, Array], source_format: str, member: str) -> ReadError:
    """The error for a file in which several arrays, or none, can be the ECG; `member` is what to give after '::'."""
    found = len(possible_signals(named))
    if found:
        return ReadError(
            f"{found} of the {len(named)} arrays of the {source_format} file can be the ECG; "
            f"give the name of the one that is after the path: FILE::{member}"
        )
    return ReadError(
        f"none of the {len(named)} arrays of the {source_format} file is named {', '.join(SIGNAL_NAMES[:5])} ... "
        f"or has the shape of an ECG; if one of them is the ECG, give its name after the path: FILE::{member}"
    )


def lead_arrays(named: Mapping[str, Array]) -> dict[str, Array]:
    """Arrays with one axis and a lead's name ({'I': ..., 'II': ...}); empty unless all have the same length."""
    leads = leads_in_context([name.rpartition(".")[2].rpartition("/")[2] for name in named])
    rows = {
        name: array.reshape(-1)
        for (name, array), lead in zip(named.items(), leads, strict=True)
        if array.dtype.kind in "iuf" and array.size > 1 and array.size == max(array.shape)
        if lead in KNOWN_LEADS
    }
    return rows if len({len(row) for row in rows.values()}) == 1 else {}


def recording_of(
    array: Array, description: Description, hints: Hints, source_format: str, *, leads_on: int | None = None
) -> Recording:
    """Convert an array to a recording.

    Facts stated in the file take precedence over the user's hints. Names in the file of which none is a known lead's are replaced
    by the user's, if there are any.

    Parameters
    ----------
    array : numpy.ndarray
        Numbers, [n_leads, n_samples] or [n_samples, n_leads]: the axis whose length is the number of leads is that of the leads.
    description : Description
        Sampling rate, scale and leads stated in the file.
    hints : Hints
        The user's hints.
    source_format : str
        The format, for the recording and for error messages.
    leads_on : int, optional
        The axis of the leads, if the file shows it.

    Raises
    ------
    ReadError
        If the array is not a table of real numbers, if neither axis or both have the length of the list of leads, or if the
        sampling rate, unit or leads are not given.
    """
    table = _table(array)
    leads = _leads(description, hints, table)
    rows = _oriented(table, len(leads), leads_on)
    rate = description.rate or hints.sampling_rate
    if rate is None:
        raise ReadError(
            f"the {source_format} file does not state its sampling rate; give it by the 'sampling_rate' parameter"
        )
    scale = description.scale or hinted_scale(hints)
    if scale is None:
        raise ReadError(
            f"the {source_format} file does not state its unit; give it by the 'unit' parameter (V, mV, uV or units per mV)"
        )
    return Recording(
        samples=_samples(rows, scale),
        sampling_rate=float(rate),
        leads=distinct_leads(leads),
        source_format=source_format,
    )


def _table(array: Array) -> Array:
    if array.dtype.kind not in "iuf":
        raise ReadError(f"expected an array of real numbers, found one of {array.dtype.name}")
    if array.ndim > 2:
        array = array.reshape([size for size in array.shape if size != 1] or [1])
    if array.ndim not in (1, 2):
        raise ReadError(f"expected an array of one recording, found several in an array of shape {array.shape}")
    table = array.reshape(1, -1) if array.ndim == 1 else array
    if table.size == 0:
        raise ReadError("the file has no samples")
    return table


def _leads(description: Description, hints: Hints, table: Array) -> tuple[str, ...]:
    in_file = description.leads
    if in_file is not None and len(in_file) not in table.shape:
        in_file = None
    if in_file is not None and not KNOWN_LEADS.isdisjoint(leads_in_context(in_file)):
        return in_file
    leads = hints.leads or in_file
    if leads is None:
        raise ReadError(
            f"the file does not name the leads of its array of shape {table.shape}; give them in order by the 'leads' parameter"
        )
    return tuple(leads)


def _oriented(table: Array, n_leads: int, leads_on: int | None) -> Array:
    """The table as [n_leads, n_samples]."""
    on_rows = table.shape[0] == n_leads and leads_on != 1
    on_columns = table.shape[1] == n_leads and leads_on != 0
    if on_rows and on_columns:
        raise ReadError(f"both axes of an array of shape {table.shape} have the length of its {n_leads} leads")
    if not (on_rows or on_columns):
        raise ReadError(f"neither axis of an array of shape {table.shape} has the length of its {n_leads} leads")
    return table if on_rows else table.T


def _samples(rows: Array, scale: float) -> Samples:
    """Numbers [n_leads, n_samples] times `scale`, as float32; infinite values become NaN."""
    samples = np.empty(rows.shape, dtype=np.float32)
    for out, row in zip(samples, rows, strict=True):
        finite = np.where(np.isinf(row), np.nan, row) if row.dtype.kind == "f" else row
        to_millivolts(np.ascontiguousarray(finite), scale, out=out)
    return samples
