"""Reading ECG files: the reader is found by content, never by the file's name.

A reader is a module with three names: `FORMAT` (the value of `Recording.source_format`), `matches(source)`, which only examines
`source.head`, and companion files if the format has any, and `read(source)`, which returns a `Recording` or raises `ReadError`.
Some readers also have `statements(source)`, which returns the device's analysis of the ECG. A reader is imported when it is
first needed.

The other modules are shared by readers: `source` (a file's bytes), `xml` (parsing of untrusted files), `quantities` (numbers,
units, counts to millivolts), `signals` (names of channels), `timeline` (leads recorded in several pieces), `tables` (named arrays
and their description), `matlab` and `ecg_kit` (variables of MATLAB files), `base64_data`, `dicom_elements` (DICOM
objects in XML and JSON), `not_read` (formats that errors name), `identity` (size, time and hash of the files that were read).
`text_tables` uses `plain_text` (encodings), `text_layout` (the parts of a table), `remarks` (facts above a table),
`table_columns` and `time_columns` (which columns are leads, and which tell the time), and `muse_text`, `watch` and `opensignals`
(exports).
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import BinaryIO, Protocol, cast

from ecgfounder.ecg.recording import Recording
from ecgfounder.ecg.statements import Statements
from ecgfounder.errors import ECGFounderError, ReadError, SettingsError, StorageError, UnsupportedFormatError
from ecgfounder.readers.not_read import found_in
from ecgfounder.readers.source import MAX_FILE_BYTES, Hints, Source, as_read_error
from ecgfounder.readers.xml import root_of
from ecgfounder.storage import NO_OPTIONS, Location, StorageOptions, given, locate
from ecgfounder.storage import storage_options as make_options
from ecgfounder.storage.ahead import Ahead
from ecgfounder.storage.archives import ArchiveStore, Excerpt
from ecgfounder.storage.paths import split_archive, split_member


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
    "schiller_sema",
    "hl7_aecg",
    "dicom",
    "dicom_xml",
    "dicom_json",
    "scp",
    "healforce",
    "edf",
    "ishne",
    "mortara_eli",
    "mfer",
    "kardia_atc",
    "kardia_json",
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

UNVERIFIED = {
    "mortara_eli": "Mortara ELI XML",
    "mfer": "MFER (ISO 22077)",
    "kardia_atc": "AliveCor Kardia (ATC)",
    "kardia_json": "AliveCor Kardia (JSON)",
}
"""Readers that no file of a device has verified: their formats are recognised, and read only where the user names them."""

READER_CHOICES: tuple[str, ...] = ("auto", "sierraecg", *UNVERIFIED)
"""`auto`: the reader of the file's format. `sierraecg`: the sierraecg package for every file, as a cross-check. Others:
`UNVERIFIED`."""


Given = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO
"""One ECG's file: its path, its content, or a file object opened in binary mode."""


def is_given(x: object) -> bool:
    """Whether an object is a path, a file's content or a file object."""
    return isinstance(x, str | os.PathLike | bytes | bytearray | memoryview) or callable(getattr(x, "read", None))


def read_ecg(
    path: Given,
    *,
    reader: str = "auto",
    hints: Hints | None = None,
    storage_options: Mapping[str, object] | None = None,
) -> Recording:
    """Read one ECG file of any supported format.

    Parameters
    ----------
    path : str, os.PathLike, bytes or binary file object
        The file, a path or a URL; 'container::member' addresses one recording inside a container. Or its content; or a file
        object, which is read from its position to its end. A WFDB header has to be given as a path, because its signal files are
        beside it.
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
    SettingsError
        If a file object was opened in text mode.
    StorageError
        If a file in an object store cannot be read because access is denied, or the store does not answer.
    MissingDependencyError
        If the format, or the store, needs an extra that is not installed.
    """
    with _named(path):
        return read_source(source_of(path, hints or Hints(), make_options(storage_options)), reader=reader)


def read_statements(path: Given) -> Statements | None:
    """The recording device's analysis of an ECG: its diagnostic statements, heart rate, intervals and axes.

    Parameters
    ----------
    path : str, os.PathLike, bytes or binary file object
        As for `read_ecg`.

    Returns
    -------
    Statements
        None for formats whose statements are not read; those of Philips, MUSE, CardioSoft, Schiller, aECG, DICOM and SCP-ECG
        are.

    Raises
    ------
    ReadError
        If the file cannot be read; the message begins with the path.
    """
    with _named(path):
        return source_statements(source_of(path, Hints()))


@contextmanager
def _named(path: Given) -> Iterator[None]:
    """Put the name of the file in front of an error of reading or of its store."""
    try:
        yield
    except (ReadError, StorageError) as error:
        raise type(error)(f"{label_of(path)}: {error}") from error


def label_of(path: Given) -> str:
    """What messages call a file: its path, a file object's name, or 'the given bytes'."""
    if isinstance(path, str | os.PathLike):
        return os.fspath(path)
    if isinstance(path, bytes | bytearray | memoryview):
        return "the given bytes"
    name = getattr(path, "name", None)
    return name if isinstance(name, str) else "the given file object"


def source_of(path: Given, hints: Hints, options: StorageOptions = NO_OPTIONS) -> Source:
    """The source for a path, a file's content or a file object.

    Raises
    ------
    ReadError
        If a file object cannot be read, or holds more than `MAX_FILE_BYTES`.
    SettingsError
        If it was opened in text mode.
    """
    if isinstance(path, str | os.PathLike):
        return make_source(os.fspath(path), hints, options)
    if isinstance(path, bytes | bytearray | memoryview):
        return Source(given(bytes(path)), None, hints)
    try:
        content = path.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ReadError(error.strerror or type(error).__name__) from error
    except ValueError as error:
        raise ReadError("the file object is closed") from error
    if not isinstance(content, bytes):
        raise SettingsError("A file object must be opened in binary mode: open(path, 'rb').")
    if len(content) > MAX_FILE_BYTES:
        raise ReadError(f"file of more than {MAX_FILE_BYTES:,} bytes; at most {MAX_FILE_BYTES:,} are read at once")
    return Source(given(content), None, hints)


def source_statements(source: Source) -> Statements | None:
    """`read_statements` for a source that may have been read already; errors have the reason alone."""
    with _one_kind_of_error(source):
        module = _module(_recognised(source))
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


def make_source(
    path: str,
    hints: Hints,
    options: StorageOptions = NO_OPTIONS,
    excerpt: Excerpt | None = None,
    *,
    ask: Callable[[int], None] | None = None,
    ahead: Ahead | None = None,
) -> Source:
    """The source for a path; 'container::member' is split, unless a file of exactly that name exists.

    In other stores no file of that name is looked for if the container has a known suffix, since each question is a request. Of
    a path in an archive, `excerpt` may tell what another process knows of it. `ask` and `ahead` are those of `Source`.
    """
    location, member = _place_of(path, options, excerpt)
    return Source(location, member, hints, ask=ask, ahead=ahead)


def _place_of(path: str, options: StorageOptions, excerpt: Excerpt | None) -> tuple[Location, str | None]:
    """The file of a path, and the member of it."""
    whole = locate(path, options)
    if isinstance(whole.store, ArchiveStore):
        whole = whole if excerpt is None else Location(whole.store.with_excerpt(excerpt), whole.name)
        container, separator, member = whole.name.rpartition("::")
        return (Location(whole.store, container), member) if separator and not _is_there(whole) else (whole, None)
    container, member = split_member(path)
    if member and not whole.is_local:
        return locate(container, options), member
    container, separator, member = path.rpartition("::")
    return (locate(container, options), member) if separator and not _is_there(whole) else (whole, None)


def likely_files(path: str, options: StorageOptions = NO_OPTIONS) -> list[Location]:
    """The files of the recording at a URL, without asking its store: the one that it names, and probable ones beside it.

    The list is empty if no file is read as a whole: for a member of a container, and in an archive.
    """
    location = locate(path, options)
    if split_member(path)[1] or isinstance(location.store, ArchiveStore):
        return []
    return [location, *_wfdb_files(location)]


def _wfdb_files(location: Location) -> list[Location]:
    """The files of a WFDB record beside its header, or beside its name without a suffix."""
    if location.suffix.lower() == ".hea":
        return [location.beside(f"{location.stem}.dat")]
    if location.suffix:
        return []
    return [location.beside(f"{location.basename}{suffix}") for suffix in (".hea", ".dat")]


def excerpt_of(path: str, options: StorageOptions = NO_OPTIONS) -> Excerpt | None:
    """What this process knows of a recording in an archive, for one that reads it; None for other paths.

    It is also None if the archive cannot be read: the process that reads the recording finds out why.
    """
    if split_archive(path)[1] is None:
        return None
    try:
        location = make_source(path, Hints(), options).location
        return location.store.excerpt_for(location.name) if isinstance(location.store, ArchiveStore) else None
    except ECGFounderError:
        return None


def _is_there(location: Location) -> bool:
    with as_read_error(location):
        return location.exists() or (location.is_local and os.path.lexists(location))


def _reader_for(source: Source, reader: str) -> Reader:
    if reader == "sierraecg":
        return _module("sierraecg_package")
    if reader not in READER_CHOICES:
        raise UnsupportedFormatError(
            f"Invalid value for the 'reader' parameter. Allowed values are {', '.join(READER_CHOICES)}, got {reader!r}."
        )
    found = _recognised(source)
    if reader in UNVERIFIED and found != reader:
        raise UnsupportedFormatError(f"expected {UNVERIFIED[reader]}, found another format")
    if found in UNVERIFIED and found != reader:
        raise UnsupportedFormatError(
            f"{UNVERIFIED[found]}: not verified with files of devices; it is read with reader='{found}' alone"
        )
    return _module(found)


def _recognised(source: Source) -> str:
    """The name of the reader that knows the file by its content."""
    for name in READERS:
        module = _module(name)
        if module.matches(source):
            if name not in CONTAINERS:
                source.refuse_member(module.FORMAT)
            return name
    if not source.head:
        raise ReadError("the file is empty")
    not_read = found_in(source)
    if not_read is not None:
        instead = f"; {not_read.instead}" if not_read.instead else ""
        raise UnsupportedFormatError(f"{not_read.name}: this format is not read{instead}")
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


@cache
def _module(name: str) -> Reader:
    return cast(Reader, importlib.import_module(f"ecgfounder.readers.{name}"))
