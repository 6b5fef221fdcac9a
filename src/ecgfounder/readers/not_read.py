"""Formats that are known by their content and not read, so that an error can name them and what to do instead.

In: a file that no reader recognises. Out: the format and its remedy, or None.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from ecgfounder.readers.source import Source


class NotRead(NamedTuple):
    """A format that is not read: its name, what to give instead (empty if nothing is known), and how it is recognised."""

    name: str
    instead: str
    recognises: Callable[[bytes], bool]


_NIHON_KOHDEN = (b"EEG-1100", b"EEG-1200", b"EEG-2100", b"QI-403A", b"DAE-2100D")
_CONTROL_BLOCK = 0x81
_CONTEC = re.compile(rb"[\0-9A-Za-z]{8}\0\0\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\0.{13}", re.DOTALL)
_PEC_HEADER, _PEC_CHECKSUM = 14, 2
_PEC_POINTERS, _PEC_SYSTEM = b"\0\0", b"\0\1"
_PEC_MODEL = re.compile(rb"\d{6,9}K")
_FUKUDA_MODEL = re.compile(rb"(?<![!-~])FX-\d{4}[!-~]{0,8}(?![!-~])")


def _is_nihon_kohden_eeg(head: bytes) -> bool:
    """Whether the device's name is at the beginning and again at the control block."""
    return head.startswith(_NIHON_KOHDEN) and head[_CONTROL_BLOCK : _CONTROL_BLOCK + 16] == head[:16]


def _is_nihon_kohden_ecg(head: bytes) -> bool:
    """Whether a section of pointers is followed by that of the system, which begins with a model's number.

    A section has 10 bytes, its size, its type, data and a checksum.
    """
    if head[12:14] != _PEC_POINTERS:
        return False
    system = int.from_bytes(head[10:12], "big") + _PEC_CHECKSUM
    is_system = system > _PEC_HEADER and head[system + 12 : system + 14] == _PEC_SYSTEM
    return is_system and _PEC_MODEL.match(head, system + _PEC_HEADER) is not None


def _is_fukuda(head: bytes) -> bool:
    """Whether it is binary, and has the name of a cardiograph of the FX series as a text by itself."""
    return b"\0" in head and _FUKUDA_MODEL.search(head) is not None


_EXPORT = "export the ECG as HL7 aECG (FDA XML) or DICOM instead"
_FORMATS = (
    NotRead("Nihon Kohden EEG", "", _is_nihon_kohden_eeg),
    NotRead("Nihon Kohden ECG (PEC)", _EXPORT, _is_nihon_kohden_ecg),
    NotRead("Fukuda Denshi ECG", _EXPORT, _is_fukuda),
    NotRead(  # a number, date and time, and fields of fixed size; sampling rate, unit and leads are not in the file
        "Contec ECG90A", "", lambda head: _CONTEC.match(head) is not None
    ),
)


def found_in(source: Source) -> NotRead | None:
    """The format that the first bytes are of."""
    return next((each for each in _FORMATS if each.recognises(source.head)), None)
