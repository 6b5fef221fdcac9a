"""Lead names for the channels of signal files (WFDB, EDF, ISHNE, SCP-ECG, tables).

In: the channels' names, from the file or the user. Out: one lead name for each channel; only standard leads may occur twice.
"""

from __future__ import annotations

from collections.abc import Sequence

from ecgfounder.ecg.leads import STANDARD_LEADS, leads_in_context


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
