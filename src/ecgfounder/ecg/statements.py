"""The recording device's analysis of an ECG: its diagnostic statements, heart rate, intervals and axes.

In: statements and measurements of a file. Out: `Statements`, without text that a person wrote, names, identifiers or dates. They
are optional: no stage depends on them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

MAX_STATEMENTS = 100
MAX_CHARACTERS = 200

# A line that mentions people or another ECG is dropped entirely, because a name or a date may follow such words.
_OF_PEOPLE = re.compile(
    r"\b(?:un)?(?:confirm|review|sign|verif|approv|validat)\w*|\b(?:over-?read|refer(?:red|ring)|interpreted|read(?:ing)?)\s+by\b"
    r"|\bcompar|\bphysician|\btechnician|\bdoctor\b|\bdr\b|\bm\.?d\b|\bpatient\b|\bname\b|\bbefund\w* von\b|\bECG of\b",
    re.IGNORECASE,
)
_OF_DATES = re.compile(
    r"\d{1,4}[-/. ](?:\d{1,2}|[^\W\d]{3,9})[-/. ]\d{2,4}|\d{1,2}:\d{2}|\b(?:19|20)\d{2}\b|\d{5,}|[^\s@]@[^\s@]"
)

# Minimum and maximum of valid measurements; devices write 0, 999 or 29999 for values that they could not measure.
_RANGES = {"heart_rate": (1.0, 500.0), "axis": (-360.0, 360.0), "ms": (1.0, 3000.0)}


@dataclass(frozen=True)
class Statements:
    """The device's analysis of one ECG; None for missing values.

    Attributes
    ----------
    statements : tuple of str
        Its diagnostic statements, in original order and wording.
    heart_rate : float or None
        Ventricular rate, in beats per minute.
    pr_ms, qrs_ms, qt_ms, qtc_ms : float or None
        Intervals, in ms; QTc by the device's formula (usually Bazett's).
    p_axis, qrs_axis, t_axis : float or None
        Frontal axes, in degrees.
    """

    statements: tuple[str, ...] = ()
    heart_rate: float | None = None
    pr_ms: float | None = None
    qrs_ms: float | None = None
    qt_ms: float | None = None
    qtc_ms: float | None = None
    p_axis: float | None = None
    qrs_axis: float | None = None
    t_axis: float | None = None


def statements_of(texts: Iterable[str], **measurements: float | None) -> Statements:
    """`Statements` from a file's content, without lines about people, dates and other ECGs, and without impossible values.

    Parameters
    ----------
    texts : iterable of str
        The statements as the device wrote them.
    **measurements : float or None
        Measurements, named as the attributes of `Statements`.
    """
    kept = [line for text in texts if (line := " ".join(text.split())) and _is_of_the_ecg(line)]
    return Statements(
        statements=tuple(line[:MAX_CHARACTERS] for line in dict.fromkeys(kept))[:MAX_STATEMENTS],
        **{name: value for name, value in measurements.items() if value is not None and _is_possible(name, value)},
    )


def _is_of_the_ecg(line: str) -> bool:
    return any(map(str.isalpha, line)) and not _OF_PEOPLE.search(line) and not _OF_DATES.search(line)


def _is_possible(name: str, value: float) -> bool:
    least, greatest = _RANGES.get(name) or _RANGES[name.rpartition("_")[2]]
    return math.isfinite(value) and least <= value <= greatest
