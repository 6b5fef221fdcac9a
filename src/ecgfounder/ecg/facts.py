"""What is known of an ECG beside its samples: what its file says, and what was seen and done on the way to the network.

In: what reading and preparing find out. Out: `Facts` and `Identity`, for the ledger, the manifest and the columns of Parquet
shards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ecgfounder.ecg.statements import Statements


@dataclass(frozen=True)
class Facts:
    """What is known of one ECG; a file that could not be read has none, one that could not be prepared some.

    Attributes
    ----------
    format : str or None
        Name of the reader that decoded it.
    sampling_rate, n_samples : float or None, int or None
        As stored, in Hz and in samples of a lead.
    leads : tuple of str
        Those that went into the network, in order.
    flags : tuple of str
        Quality flags, "name" or "name:detail".
    starts : tuple of float
        Each window's start, in s.
    device : mapping of str to str or float or None
        Device and filter settings; keys are of `ecgfounder.ecg.recording.META_KEYS`.
    statements : Statements or None
        What the device stated, where that was asked for and the file says it.
    """

    format: str | None = None
    sampling_rate: float | None = None
    n_samples: int | None = None
    leads: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    starts: tuple[float, ...] = ()
    device: Mapping[str, str | float | None] = field(default_factory=dict)
    statements: Statements | None = None


@dataclass(frozen=True)
class Identity:
    """By what an input is known again.

    Attributes
    ----------
    size : int
        In bytes, of all its files.
    mtime_ns : int
        The latest time at which one of them was written, in ns since 1970.
    sha256 : str or None
        Of the contents, in hexadecimal; None for a recording inside a container, whose time decides: it can be many
        gigabytes.
    tag : str or None
        The store's own mark of the content (ETag); None for files of this machine.
    companions : tuple of str
        Its further files, as seen from its folder; '*' stands for the recording's own name.
    """

    size: int
    mtime_ns: int
    sha256: str | None = None
    tag: str | None = None
    companions: tuple[str, ...] = ()
