"""Single leads exported by an Apple Watch: lines of 'name,value', then one number per line.

In: the beginning of a text. Out: its description, and where the numbers begin. The names of the lines are in the user's language,
so the lines are recognised by their structure and by their values. Lines about the patient are not used.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ecgfounder.ecg.leads import STANDARD_LEADS, canonical_lead
from ecgfounder.readers.plain_text import with_ascii_numbers
from ecgfounder.readers.quantities import millivolts_per
from ecgfounder.readers.tables import Description
from ecgfounder.readers.text_layout import is_number

_MAX_LINES = 40
_QUANTITY = re.compile(r"(\d+(?:[.,]\d+)?)\s*([^\s\d][^\d]{0,30})")
_HERTZ = re.compile(
    r"(?:hz|h?ertz\w*|her[ct][sz]?\w*|hercio\w*|hertsi\w*|гц|гер[цч]\w*|херц\w*|χερτζ|赫兹|赫茲|赫|ヘルツ|헤르츠|هرتز|הרץ|เฮิรตซ์|हर्ट्ज़?)[.]?",
    re.IGNORECASE,
)
_USUAL_HERTZ = (250.0, 1100.0)
"""Rates of watches; no heart rate, the other quantity in such a file, is as large."""

_UNITS = {
    **dict.fromkeys(("мкв", "微伏", "微伏特", "マイクロボルト", "마이크로볼트", "ميكروفولت", "מיקרוולט"), 1e-3),
    **dict.fromkeys(("мв", "毫伏", "毫伏特", "ミリボルト", "밀리볼트", "ملي فولت", "ملليفولت", "מיליוולט"), 1.0),
}
_VOLT = re.compile(r"(micro|mikro|milli|mili)vol[tț]\w*")
_LEAD = re.compile(r"(?:^|[^A-Za-z0-9])(I{1,3}|aV[RLF]|V[1-6])(?:$|[^A-Za-z0-9])")


@dataclass(frozen=True)
class Export:
    """What the lines above the numbers state; `begin` is the position of the numbers in the text."""

    description: Description
    begin: int


def export_in(text: str) -> Export | None:
    """The lines above the numbers of an export; None if the text does not begin with such lines.

    Parameters
    ----------
    text : str
        The beginning of a file.
    """
    values: list[str] = []
    position = 0
    for _ in range(_MAX_LINES):
        end = text.find("\n", position)
        if end < 0:
            return None
        line = text[position:end].strip()
        plain = with_ascii_numbers(line)
        number = plain.strip('" ')
        if number not in ("", "-") and is_number(number):
            description = _described_by(values)
            return None if description is None else Export(description, position)
        if line:
            mark = next((mark for mark in ",;\t" if mark in plain), None)
            if mark is None and (values or len(line) > 100):  # the patient's name may be empty, without a comma
                return None
            name, _, value = plain.partition(mark or ",")
            if not name.strip(' "'):
                return None
            values.append(value.strip(' "'))
        position = end + 1
    return None


def numbers_in(body: str) -> str:
    """The numbers below the lines, one in each line, with a decimal point."""
    return with_ascii_numbers(body).replace('"', "").replace(",", ".")


def _described_by(values: list[str]) -> Description | None:
    """Rate, unit and lead from the lines' values; None if there is no rate, or neither unit nor lead."""
    scales = [_scale_of(value) for value in values]
    at_unit = next((line for line, scale in enumerate(scales) if scale is not None), None)
    leads: list[str] = []
    for line in range(len(values)) if at_unit is None else (at_unit - 1, at_unit + 1):
        if 0 <= line < len(values):
            leads += _leads_in(values[line], anywhere=at_unit is not None)
    rate = _rate_in(values)
    if rate is None or (at_unit is None and not leads):
        return None
    scale = None if at_unit is None else scales[at_unit]
    return Description(rate, scale, (leads[-1],) if leads else None)


def _leads_in(value: str, *, anywhere: bool) -> list[str]:
    """The standard lead that a value names, as its last word or `anywhere` in it."""
    lead = canonical_lead(value.rpartition(" ")[2])
    if lead in STANDARD_LEADS:
        return [lead]
    found = set(_LEAD.findall(value)) if anywhere else set()
    return [canonical_lead(found.pop())] if len(found) == 1 else []


def _scale_of(value: str) -> float | None:
    """Millivolts per unit of voltage, whose name may be in another language; None if it is not one."""
    if not value or len(value) > 16:
        return None
    plain = value.casefold()
    spelled = _VOLT.fullmatch(plain)
    if spelled is not None:
        return 1e-3 if spelled[1] in ("micro", "mikro") else 1.0
    return _UNITS.get(plain) or millivolts_per(value)


def _rate_in(values: list[str]) -> float | None:
    """The sampling rate: the value whose unit is a name of hertz, or else the only quantity as large as a watch's rate."""
    quantities = [
        (float(found[1].replace(",", ".")), found[2].strip())
        for value in values
        if (found := _QUANTITY.fullmatch(value))
    ]
    stated = {number for number, unit in quantities if _HERTZ.fullmatch(unit)}
    low, high = _USUAL_HERTZ
    usual = {number for number, unit in quantities if low <= number <= high and "/" not in unit}
    chosen = stated or usual
    return chosen.pop() if len(chosen) == 1 else None
