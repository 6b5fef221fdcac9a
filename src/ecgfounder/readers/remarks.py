"""Remarks above a table: lines such as '# fs = 500, unit: uV', '# Sampling Rate (Hz):= 1000.00', '# Labels:= ECG', or JSON.

In: the lines without their mark. Out: a `Description`; the JSON object among them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from ecgfounder.errors import ReadError
from ecgfounder.readers.quantities import millivolts_per
from ecgfounder.readers.tables import LEAD_NAMES, MAX_LEADS, RATE_NAMES, UNIT_NAMES, Description, plain_name

MAX_REMARKS = 64

_FACT = re.compile(r"([A-Za-z][A-Za-z _-]{0,30}?)\s*(?:[(\[]\s*([^)\]\s]{1,8})\s*[)\]])?\s*:?[:=]\s*([^\s,;:=]{1,20})")
_NAMES = re.compile(r"\s*([A-Za-z][A-Za-z _-]{0,30}?)\s*:?[:=]\s*(\S.{0,4000})")
_LABELS = frozenset((*LEAD_NAMES, "label"))
_PER_SECOND = {"": 1.0, "hz": 1.0, "hertz": 1.0, "sps": 1.0, "samples/s": 1.0, "1/s": 1.0, "khz": 1e3}


def json_of(remarks: Sequence[str]) -> dict[str, Any] | None:
    """The first JSON object among remarks; None if there is none."""
    for remark in remarks[:MAX_REMARKS]:
        if remark.lstrip().startswith("{"):
            try:
                content = json.loads(remark)
            except (ValueError, RecursionError):
                continue
            if isinstance(content, dict):
                return content
    return None


def described_by(remarks: Sequence[str]) -> Description:
    """Sampling rate, unit and names of the columns from remarks.

    Raises
    ------
    ReadError
        If remarks state several sampling rates or units.
    """
    rates: set[float] = set()
    scales: set[float] = set()
    leads: tuple[str, ...] | None = None
    content = json_of(remarks)
    if content is not None:
        rates |= set(_rates_in(content))
    for remark in remarks[:MAX_REMARKS]:
        if remark.lstrip().startswith("{"):
            continue
        for name, unit, value in _FACT.findall(remark):
            if plain_name(name) in RATE_NAMES and unit.lower() in _PER_SECOND:
                rates |= _rate_stated(value, _PER_SECOND[unit.lower()])
            elif plain_name(name) in UNIT_NAMES:
                scale = millivolts_per(value)
                scales |= {scale} if scale else set()
        leads = leads or _names_stated(remark)
    if len(rates) > 1:
        raise ReadError(f"remarks above the table state {len(rates)} different sampling rates")
    if len(scales) > 1:
        raise ReadError(f"remarks above the table state {len(scales)} different units of voltage")
    return Description(rate=rates.pop() if rates else None, scale=scales.pop() if scales else None, leads=leads)


def _names_stated(remark: str) -> tuple[str, ...] | None:
    """The names of the columns in a remark such as 'Labels:= ECG', with tabs, commas, semicolons or blanks between them."""
    found = _NAMES.fullmatch(remark.rstrip())
    if found is None or plain_name(found[1]) not in _LABELS:
        return None
    mark = next((mark for mark in "\t;," if mark in found[2]), None)
    names = tuple(name.strip(" '\"[]()") for name in found[2].split(mark))
    return names if len(names) <= MAX_LEADS and all(names) else None


def _rate_stated(value: str, per_second: float) -> set[float]:
    """The sampling rate in Hz in a remark's value, '500', '500Hz' or '0.5kHz'; empty if it is not a rate."""
    found = re.fullmatch(r"(\d+(?:[.,]\d+)?)\s*(k?hz)?", value, re.IGNORECASE)
    if found is None:
        return set()
    rate = float(found[1].replace(",", ".")) * (_PER_SECOND[found[2].lower()] if found[2] else per_second)
    return {rate} if rate > 0 else set()


def _rates_in(content: Any, depth: int = 0) -> Iterator[float]:
    """The sampling rates in a JSON object, at any depth up to 8."""
    if isinstance(content, dict) and depth < 8:
        for name, value in content.items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if is_number and plain_name(name) in RATE_NAMES and 0 < value < 1e6:
                yield float(value)
            else:
                yield from _rates_in(value, depth + 1)
    elif isinstance(content, list) and depth < 8:
        for value in content[:MAX_LEADS]:
            yield from _rates_in(value, depth + 1)
