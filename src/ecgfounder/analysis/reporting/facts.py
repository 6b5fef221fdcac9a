"""What the manifest says of recordings, as values with a name: formats, devices, filters, rates, durations, leads, flags.

In: a table with a row per recording. Out: `Values` of each recording, in the order of the table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ecgfounder.analysis.reporting.cells import Cells, Partition
from ecgfounder.analysis.rows.times import dates_in
from ecgfounder.analysis.statistics.solver import Doubles, Numbers
from ecgfounder.ecg.leads import KNOWN_LEADS, STANDARD_LEADS
from ecgfounder.ecg.plot import filter_settings
from ecgfounder.ecg.recorder import FORMAT_NAMES, device_name
from ecgfounder.escaping import one_line

UNKNOWN = "not stated"
LONGEST_NAME = 60

_SECONDS = (0, 2.5, 5, 8, 9.95, 10.05, 11.05, 15, 20, 30, 60, 120, 300, 600, 1800, 3600, 24 * 3600)
_RATES = (0, 40, 50, 60, 70, 80, 90, 100, 110, 120, 150, 200, 300)
_MOST_NUMBERS = 12
"""Different numbers that are listed by themselves; more are put into intervals."""

_YEARS = (1900, 2100)


@dataclass(frozen=True, eq=False)
class Values:
    """A fact of each recording.

    Attributes
    ----------
    title : str
        What it is, as the heading of a column.
    names : tuple of str
        The different values.
    codes : numpy.ndarray
        int64 [n]: which of them each recording has.
    in_order : bool
        Whether the values have an order, so that neighbours can be put together.
    """

    title: str
    names: tuple[str, ...]
    codes: Numbers
    in_order: bool = False

    def shown(self, cells: Cells) -> Partition:
        """The numbers that may be shown."""
        return (
            cells.by_order(self.names, self.codes, UNKNOWN) if self.in_order else cells.by_name(self.names, self.codes)
        )

    @property
    def is_known(self) -> bool:
        """Whether any recording has a value."""
        return any(name != UNKNOWN for name in self.names)


def cohort_facts(table: pa.Table) -> list[Values]:
    """The facts of the cohort's tables; those that no recording has are left out."""
    maker, model = (pc.fill_null(table[name].cast(pa.string()), "") for name in ("device_manufacturer", "device_model"))
    device = pc.binary_join_element_wise(maker, model, "\n")
    found = [
        of_texts("Format", table["format"], lambda name: FORMAT_NAMES.get(name, "another format")),
        of_texts("Device", device, _device_in_words),
        of_texts("Software of the device", table["software_version"]),
        _filters(table),
        _each_number("Sampling rate", table["sampling_rate"], "Hz"),
        _each_number("Resolution", table["resolution_uv"], "µV per unit"),
        _durations(table),
        _leads(table),
        of_texts("Number of leads", pc.list_value_length(table["leads"])),
        of_texts("Windows per recording", pc.list_value_length(table["window_starts"])),
    ]
    if "heart_rate" in table.column_names:
        found.append(intervals("Heart rate, per minute", doubles(table["heart_rate"]), _RATES))
    return [each for each in found if each.is_known]


def of_texts(title: str, column: pa.ChunkedArray | pa.Array, name_of: Callable[[str], str] | None = None) -> Values:
    """Values without an order; empty texts are unknown, and control characters are escaped."""
    plain = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    encoded = pc.dictionary_encode(plain.cast(pa.string()))
    texts = [short_name(text) if name_of is None else name_of(text) for text in encoded.dictionary.to_pylist()]
    codes = pc.fill_null(encoded.indices, len(texts)).to_numpy().astype(np.int64)
    return _merged(title, [*texts, UNKNOWN], codes)


def _merged(title: str, names: Sequence[str], codes: Numbers) -> Values:
    """Values of which those of the same name are one; names that no recording has are left out."""
    different, which = np.unique(np.array(names, dtype=object).astype(str), return_inverse=True)
    used, found = np.unique(which[codes], return_inverse=True)
    return Values(title, tuple(str(different[each]) for each in used), found.astype(np.int64))


def short_name(text: str) -> str:
    """
    >>> short_name("  MAC 5500\\t"), short_name("")
    ('MAC 5500', 'not stated')
    """
    line = one_line(text.strip())
    return UNKNOWN if not line else line if len(line) <= LONGEST_NAME else f"{line[: LONGEST_NAME - 1]}…"


def doubles(column: pa.ChunkedArray) -> Doubles:
    """A column as float64, NaN where it is missing."""
    return np.asarray(pc.fill_null(column.cast(pa.float64()), np.nan).to_numpy(), dtype=np.float64)


def _each_number(title: str, column: pa.ChunkedArray, unit: str) -> Values:
    """Numbers that are values by themselves."""
    values = doubles(column)
    different, codes = np.unique(values, return_inverse=True)  # NaN is one value
    names = [f"{value:g} {unit}" if np.isfinite(value) else UNKNOWN for value in different]
    return _merged(title, names, codes.astype(np.int64))


def _filters(table: pa.Table) -> Values:
    names = ("highpass_hz", "lowpass_hz", "notch_hz")
    rows = np.column_stack([doubles(table[name]) for name in names])
    different, codes = np.unique(np.nan_to_num(rows, nan=-1.0), axis=0, return_inverse=True)
    texts = [
        filter_settings({name: value for name, value in zip(names, row, strict=True) if value >= 0}) or UNKNOWN
        for row in different.tolist()
    ]
    return _merged("Filters of the device", texts, codes.reshape(-1).astype(np.int64))


def _durations(table: pa.Table) -> Values:
    with np.errstate(divide="ignore", invalid="ignore"):
        seconds = doubles(table["n_samples"]) / doubles(table["sampling_rate"])
    return intervals("Duration, s", seconds, _SECONDS)


def _device_in_words(text: str) -> str:
    """
    >>> _device_in_words("GE Healthcare\\n MAC  5500"), _device_in_words("\\n")
    ('GE Healthcare MAC 5500', 'not stated')
    """
    maker, _, model = text.partition("\n")
    return short_name(device_name(" ".join(maker.split()), " ".join(model.split())))


def _leads(table: pa.Table) -> Values:
    lists = table["leads"].combine_chunks()
    joined = pc.binary_join(lists.cast(pa.list_(pa.string())), " ")
    return of_texts("Leads that were used", joined, lambda text: _leads_in_words(text.split()))


def _leads_in_words(leads: Sequence[str]) -> str:
    """
    >>> _leads_in_words("I II III aVR aVL aVF V1 V2 V3 V4 V5 V6".split())
    'the 12 standard leads'
    >>> _leads_in_words(["II", "Miller"])
    'II (other channel)'
    """
    if len(leads) == len(STANDARD_LEADS) and set(leads) == set(STANDARD_LEADS):
        return "the 12 standard leads"
    return short_name(" ".join(dict.fromkeys(lead if lead in KNOWN_LEADS else "(other channel)" for lead in leads)))


def intervals(title: str, values: Doubles, edges: Sequence[float]) -> Values:
    """Numbers in intervals, which include their beginning; the first and the last have no other end. Missing ones come last."""
    known = np.isfinite(values)
    codes = np.full(len(values), len(edges), dtype=np.int64)
    codes[known] = np.clip(np.searchsorted(edges, values[known], side="right") - 1, 0, len(edges) - 1)
    inner = [f"{each:.12g}" for each in edges[1:]]
    names = [f"{start} to {end}" for start, end in zip(["…", *inner], [*inner, "…"], strict=True)]
    return Values(title, (*names, UNKNOWN), codes, in_order=True)


def of_column(name: str, column: pa.ChunkedArray) -> Values:
    """A column that the user named: years of times, numbers by themselves or in intervals, else texts."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if (dates := dates_in(column)) is not None:
        return _ordered_numbers(name, doubles(pc.year(dates)))
    if pa.types.is_boolean(kind):
        return of_texts(name, column)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _ordered_numbers(name, doubles(column))
    if pa.types.is_nested(kind):
        return of_texts(name, pc.binary_join(column.cast(pa.list_(pa.string())).combine_chunks(), " "))
    return of_texts(name, column)


def _ordered_numbers(title: str, values: Doubles) -> Values:
    known = values[np.isfinite(values)]
    different = np.unique(known)
    whole = bool((different == np.round(different)).all())
    are_years = whole and len(different) > 0 and _YEARS[0] <= different[0] and different[-1] <= _YEARS[1]
    if not are_years and (not whole or len(different) > _MOST_NUMBERS):
        return intervals(title, values, _round_edges(known))
    codes = np.full(len(values), len(different), dtype=np.int64)
    codes[np.isfinite(values)] = np.searchsorted(different, known)
    return Values(title, (*(f"{value:.0f}" for value in different), UNKNOWN), codes, in_order=True)


def _round_edges(values: Doubles) -> list[float]:
    """About ten edges of intervals of a round width, which cover most of the values; outside of them are the first and last."""
    low, high = (float(each) for each in np.quantile(values, [0.01, 0.99]))
    width = max((high - low) / 10, 1e-12 * max(abs(low), abs(high), 1.0))
    unit = 10.0 ** np.floor(np.log10(width))
    step = float(unit * next(each for each in (1, 2, 5, 10) if each * unit >= width * (1 - 1e-9)))
    first = np.floor(low / step)
    return [float(f"{(first + number) * step:.12g}") for number in range(int(np.ceil(high / step) - first) + 1)]


# --- flags -------------------------------------------------------------------------------------------------------------


def lists_of(column: pa.ChunkedArray, known: Sequence[str], of: Callable[[str], str]) -> npt.NDArray[np.bool_]:
    """Which of some known names each recording's list has, bool [n, len(known)]; `of` gives the name of a text."""
    lists = column.combine_chunks()
    found = np.zeros((len(lists), len(known)), dtype=bool)
    owner, texts = pc.list_parent_indices(lists).to_numpy(), pc.list_flatten(lists)
    encoded = pc.dictionary_encode(texts)
    place = {name: number for number, name in enumerate(known)}
    columns = np.array([*(place.get(of(str(text)), -1) for text in encoded.dictionary.to_pylist()), -1], dtype=np.int64)
    codes = columns[pc.fill_null(encoded.indices, len(columns) - 1).to_numpy()]
    found[owner[codes >= 0], codes[codes >= 0]] = True
    return found


def name_of_flag(flag: str) -> str:
    """
    >>> name_of_flag("clipped:V1")
    'clipped'
    """
    return flag.partition(":")[0]
