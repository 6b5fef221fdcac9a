"""The channels of plain signal files (WFDB, EDF, ISHNE, SCP-ECG, tables): from their names to distinct lead names.

In: the names that a file, or the user, gives its channels. Out: one lead name for each, none of them twice.
"""

from __future__ import annotations

from collections.abc import Sequence

from ecgfounder.ecg.leads import STANDARD_LEADS, leads_in_context


def distinct_leads(names: Sequence[str]) -> tuple[str, ...]:
    """`leads_in_context`, where channels of one name that is no standard lead are numbered: ECG, ECG 2, ECG 3.

    Ambulatory recorders call all their channels "ECG". Two signals that are both called V1 stay so, and the recording
    is refused: which of them is V1 cannot be known.
    """
    return numbered(leads_in_context(names))


def numbered(leads: Sequence[str]) -> tuple[str, ...]:
    """Lead names of which those that are no standard lead's are made distinct by numbers."""
    seen: dict[str, int] = {}
    distinct: list[str] = []
    for name in leads:
        seen[name] = seen.get(name, 0) + 1
        again = seen[name] > 1 and name not in STANDARD_LEADS
        distinct.append(f"{name} {seen[name]}" if again else name)
    return tuple(distinct)
