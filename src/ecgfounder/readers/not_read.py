"""Formats that are known by their content and not read, so that an error can name them.

In: a file that no reader recognises. Out: the format's name, or None.
"""

from __future__ import annotations

import re

from ecgfounder.readers.source import Source

_NIHON_KOHDEN = (b"EEG-1100", b"EEG-1200", b"EEG-2100", b"QI-403A", b"DAE-2100D")
_CONTROL_BLOCK = 0x81
_CONTEC = re.compile(rb"[\0-9A-Za-z]{8}\0\0\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\0.{13}", re.DOTALL)


def name_of(source: Source) -> str | None:
    """The name of the format that the first bytes are of.

    Nihon Kohden EEG: the device's name at the beginning and again at the control block. Contec ECG90A: a number, date and time,
    and fields of fixed size; sampling rate, unit and leads are not in the file.
    """
    head = source.head
    if head.startswith(_NIHON_KOHDEN) and head[_CONTROL_BLOCK : _CONTROL_BLOCK + 16] == head[:16]:
        return "Nihon Kohden EEG"
    if _CONTEC.match(head):
        return "Contec ECG90A"
    return None
