"""Formats that are known by their content and not read, so that an error can name them.

In: a file that no reader recognises. Out: the format's name, or None.
"""

from __future__ import annotations

from ecgfounder.readers.source import Source

_NIHON_KOHDEN = (b"EEG-1100", b"EEG-1200", b"EEG-2100", b"QI-403A", b"DAE-2100D")
_CONTROL_BLOCK = 0x81


def name_of(source: Source) -> str | None:
    """The name of the format that the first bytes are of.

    Nihon Kohden EEG: the device's name at the beginning and again at the control block.
    """
    head = source.head
    if head.startswith(_NIHON_KOHDEN) and head[_CONTROL_BLOCK : _CONTROL_BLOCK + 16] == head[:16]:
        return "Nihon Kohden EEG"
    return None
