"""Metadata of an ECG: facts from its file, and from reading and preparing it.

In: facts from reading and preparing. Out: `Facts` and `Identity`, for the ledger, the manifest and the columns of Parquet shards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ecgfounder.ecg.statements import Statements


@dataclass(frozen=True)
class Facts:
    """Metadata of one ECG; empty for a file that could not be read, partial for one that could not be prepared.

    Attributes
    ----------
    format : str or None
        Name of the reader that decoded it.
    sampling_rate, n_samples : float or None, int or None
        Of the recording: in Hz, and samples per lead.
    leads : tuple of str
        The leads of the network's input, in order.
    flags : tuple of str
        Quality flags, "name" or "name:detail".
    starts : tuple of float
        Each window's start, in s.
    device : mapping of str to str or float or None
        Device and filter settings; keys are of `ecgfounder.ecg.recording.META_KEYS`.
    statements : Statements or None
        The device's statements, if they are requested and the file has them.
    heart_rate : float or None
        Beats per minute in the samples, if it is requested and beats stand out.
    """

    format: str | None = None
    sampling_rate: float | None = None
    n_samples: int | None = None
    leads: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    starts: tuple[float, ...] = ()
    device: Mapping[str, str | float | None] = field(default_factory=dict)
    statements: Statements | None = None
    heart_rate: float | None = None


@dataclass(frozen=True)
class Identity:
    """The identity of a recording's files, to detect changes.

    Attributes
    ----------
    size : int
        Size of all files in bytes.
    mtime_ns : int
        Latest modification time of the files, in ns since 1970.
    sha256 : str or None
        Hash of the contents, in hexadecimal; None for a recording in a container, which may have many gigabytes, so that its
        time decides.
    tag : str or None
        The store's tag of the content (ETag); None for files on this machine.
    companions : tuple of str
        Companion files, relative to the recording's folder; '*' stands for the recording's name.
    """

    size: int
    mtime_ns: int
    sha256: str | None = None
    tag: str | None = None
    companions: tuple[str, ...] = ()
