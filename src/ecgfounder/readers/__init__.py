"""Reading ECG files: the reader is found by content, never by the file's name.

A reader is a module with three names: `FORMAT` (the value of `Recording.source_format`), `matches(source)`, which only examines
`source.head`, and companion files if the format has any, and `read(source)`, which returns a `Recording` or raises `ReadError`.
Some readers also have `statements(source)`, which returns the device's analysis of the ECG. A reader is imported when it is
first needed.

The other modules are shared by readers: `source` (a file's bytes), `xml` (parsing of untrusted files), `quantities` (numbers,
units, counts to millivolts), `signals` (names of channels), `timeline` (leads recorded in several pieces), `tables` (named arrays
and their description), `matlab` (variables of MATLAB files), `identity` (size, time and hash of the files that were read).
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol, cast

from ecgfounder.ecg.recording import Recording
from ecgfounder.ecg.statements import Statements
from ecgfounder.errors import ECGFounderError, ReadError, StorageError, UnsupportedFormatError
from ecgfounder.readers.source import Hints, Source, as_read_error
from ecgfounder.readers.xml import root_of
from ecgfounder.storage import NO_OPTIONS, Location, StorageOptions, locate
from ecgfounder.storage import storage_options as make_options
from ecgfounder.storage.paths import split_member


class Reader(Protocol):
    """The interface of a reader module."""

    FORMAT: str
    matches: Callable[[Source], bool]
    read: Callable[[Source], Recording]


READERS: tuple[str, ...] = (
    "wfdb",
    "philips",
    "muse",
    "cardiosoft",
    "hl7_aecg",
    "dicom",
    "scp",
    "edf",
    "ishne",
    "hdf5",
    "arrays",
    "text_tables",
)
"""Reader modules in the order in which they are tried.

WFDB is first because a record may be named without a suffix, so that no file of that name exists. Text tables are last because
nothing in their content identifies them.
"""

CONTAINERS = frozenset({"hdf5", "arrays"})
"""Readers of files that may hold several arrays or recordings; 'file::member' addresses one of them."""

READER_CHOICES: tuple[str, ...] = ("auto", "sierraecg")
"""`auto`: the reader of the file's format. `sierraecg`: the sierraecg package for every file, as a cross-check."""


def read_ecg(
    path: str | os.PathLike[str],
    *,
    reader: str = "auto",
    hints: Hints | None = None,
    storage_options: Mapping[str, object] | None = None,
) -> Recording:
    """Read one ECG file of any supported format.

    Parameters
    ----------
    path : str or os.PathLike
        The file, a path or a URL; 'container::member' addresses one recording inside a container.
    reader : str, default: "auto"
        One of `READER_CHOICES`.
    hints : Hints, optional
        Sampling rate, unit and leads, for files that do not state them.
    storage_options : mapping, optional
        Options of object stores, see `embed_cohort`.

    Returns
    -------
    Recording
        Samples float32 [n_leads, n_samples] in mV, the stored sampling rate in Hz, canonical lead names.

    Raises
    ------
    ReadError
        If the file cannot be read; the message begins with the path.
    StorageError
        If a file in an object store cannot be read because access is denied, or the store does not answer.
    MissingDependencyError
        If the format, or the store, needs an extra that is not installed.
    """
    options = make_options(storage_options)
    try:
        return read_source(make_source(os.fspath(path), hints or Hints(), options), reader=reader)
    except (ReadError, StorageError) as error:
        raise type(error)(f"{os.fspath(path)}: {error}") from error


def read_statements(path: str | os.PathLike[str]) -> Statements | None:
    """The recording device's analysis of an ECG: its diagnostic statements, heart rate, intervals and axes.

    Parameters
    ----------
    path : str or os.PathLike
        As for `read_ecg`.

    Returns
    -------
    Statements
        None for formats whose statements are not read; those of Philips, MUSE, CardioSoft, aECG, DICOM and SCP-ECG are.

    Raises
    ------
    ReadError
        If the file cannot be read; the message begins with the path.
    """
    source = make_source(os.fspath(path), Hints())
    try:
        return source_statements(source)
    except ReadError as error:
        raise type(error)(f"{os.fspath(path)}: {error}") from error


def source_statements(source: Source) -> Statements | None:
    """`read_statements` for a source that may have been read already; errors have the reason alone."""
    with _one_kind_of_error(source):
        module = _reader_for(source, "auto")
        find = cast("Callable[[Source], Statements] | None", getattr(module, "statements", None))
        return None if find is None else find(source)


def read_source(source: Source, *, reader: str = "auto") -> Recording:
    """`read_ecg` for a source; errors have the reason alone, without the path."""
    with _one_kind_of_error(source):
        return _reader_for(source, reader).read(source)


@contextmanager
def _one_kind_of_error(source: Source) -> Iterator[None]:
    try:
        with as_read_error(source.location):  # also of files beside the one that is read
            yield
    except ECGFounderError as error:
        raise error from None  # a traceback would show the message of its cause, which may quote the file
    except MemoryError:
        raise ReadError("needs more memory than is available") from None
    except Exception as error:
        # An unforeseen error of a reader or a library on a damaged file: the failure of one file, and the same kind of error.
        raise ReadError(f"damaged file ({type(error).__name__} {_place(error)})") from None


def _place(error: Exception) -> str:
    """The line of this package where an unforeseen error occurred; its message is left out, because it may quote the file."""
    trace = error.__traceback__
    place = "in a reader"
    while trace is not None:
        name = trace.tb_frame.f_globals.get("__name__", "")
        if name.startswith("ecgfounder.readers."):
            place = f"at {name.removeprefix('ecgfounder.readers.')}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


def make_source(path: str, hints: Hints, options: StorageOptions = NO_OPTIONS) -> Source:
    """The source for a path; 'container::member' is split, unless a file of exactly that name exists.

    In other stores no file of that name is looked for if the container has a known suffix, since each question is a request.
    """
    whole = locate(path, options)
    container, member = split_member(path)
    if member and not whole.is_local:
        return Source(locate(container, options), member, hints)
    container, separator, member = path.rpartition("::")
    if separator and not _is_there(whole):
        return Source(locate(container, options), member, hints)
    return Source(whole, None, hints)


def _is_there(location: Location) -> bool:
    with as_read_error(location):
        return location.exists() or (location.is_local and os.path.lexists(location))


def _reader_for(source: Source, reader: str) -> Reader:
    if reader == "sierraecg":
        return _module("sierraecg_package")
    if reader != "auto":
        raise UnsupportedFormatError(
            f"Invalid value for the 'reader' parameter. Allowed values are {', '.join(READER_CHOICES)}, got {reader!r}."
        )
    for name in READERS:
        module = _module(name)
        if module.matches(source):
            if name not in CONTAINERS:
                source.refuse_member(module.FORMAT)
            return module
    head = source.head
    if not head:
        raise ReadError("the file is empty")
    raise UnsupportedFormatError(f"not a known ECG format ({_kind_of(source)})")


def _kind_of(source: Source) -> str:
    """The kind of an unknown file; its content is not quoted."""
    if root_of(source) is not None:
        return "an XML document whose root element is that of no such format"
    found = next((kind for magic, kind in _OTHER_KINDS.items() if source.head.startswith(magic)), None)
    if found is not None:
        return found
    start = source.head[:64]
    return "text" if start.isascii() and not set(start) - _OF_TEXT else "binary data"


_OTHER_KINDS = {
    b"%PDF": "a PDF document",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"II*\0": "a TIFF image",
    b"MM\0*": "a TIFF image",
    b"PK\x03\x04": "a ZIP archive",
}
"""Kinds of files without an ECG that can be read, by their first bytes."""

_OF_TEXT = frozenset((*b"\t\r\n", *range(0x20, 0x7F)))


def _module(name: str) -> Reader:
    return cast(Reader, importlib.import_module(f"ecgfounder.readers.{name}"))
