"""Files of plain arrays: NPY and NPZ, MATLAB up to version 7.2.

In: the whole file and the user's hints. Out: a `Recording`. The hints must give what the file does not state (sampling rate,
unit, leads).
"""

from __future__ import annotations

import io
import tokenize
import warnings
import zipfile
import zlib
from dataclasses import replace

import numpy as np

from ecgfounder.ecg.recording import Recording
from ecgfounder.errors import ReadError
from ecgfounder.readers import ecg_kit, matlab
from ecgfounder.readers.source import MAX_UNPACKED_BYTES, Source
from ecgfounder.readers.tables import (
    Array,
    Description,
    choice_of_signal,
    describe,
    find_signal,
    lead_arrays,
    recording_of,
)

FORMAT = "array"

MAX_ZIP_MEMBERS = 4096
_NPY_MAGIC = b"\x93NUMPY"
_ZIP_MAGIC = b"PK\x03\x04"


def matches(source: Source) -> bool:
    """Whether the content is NPY, a ZIP archive of NPY, or a MATLAB file."""
    head = source.head
    if head.startswith((_NPY_MAGIC, matlab.LEVEL_5_TEXT)):
        return True
    if head.startswith(_ZIP_MAGIC):
        return b".npy" in head
    return matlab.looks_like_level_4(head)


def read(source: Source) -> Recording:
    """Read an array file. For NPZ and MAT files, `source.member` names the array, if it is not clear which one is the ECG.

    Raises
    ------
    ReadError
        If the data is damaged, if neither file nor hints give sampling rate, unit and leads, or for arrays of Python objects,
        which are never unpickled.
    """
    head = source.head
    if head.startswith(_NPY_MAGIC):
        source.refuse_member("NPY")
        return recording_of(_npy(source.content), Description(), source.hints, "npy")
    if head.startswith(_ZIP_MAGIC):
        return _from_named(_npz(source.content), source, "npz")
    return _from_named(matlab.variables(source.content), source, "mat")


def _from_named(arrays: dict[str, Array], source: Source, source_format: str) -> Recording:
    described = ecg_kit.find(arrays) if source.member is None or source.member.casefold() in ecg_kit.SIGNALS else None
    if described is not None:
        return recording_of(*described, source.hints, source_format, leads_on=0)
    description = describe(arrays)
    signal = find_signal(arrays, source.member)
    rows = lead_arrays(arrays) if source.member is None else {}
    leads_on = None
    if rows and (signal is None or signal.ndim < 2 or min(signal.shape) == 1):
        names = tuple(name.rpartition(".")[2] for name in rows)
        signal, description, leads_on = np.stack(list(rows.values())), replace(description, leads=names), 0
    if signal is None:
        raise choice_of_signal(arrays, source_format, "ARRAY")
    return recording_of(signal, description, source.hints, source_format, leads_on=leads_on)


def _npy(data: bytes) -> Array:
    """The array of an NPY file, checked: the file has all data that its header announces, and no Python objects."""
    file = io.BytesIO(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy warns of headers written by Python 2
            version = np.lib.format.read_magic(file)
            if version == (1, 0):
                shape, by_column, dtype = np.lib.format.read_array_header_1_0(file)
            elif version == (2, 0):
                shape, by_column, dtype = np.lib.format.read_array_header_2_0(file)
            else:
                raise ReadError(f"expected an NPY file of version 1.0 or 2.0, found {version[0]}.{version[1]}")
    except (ValueError, TypeError, SyntaxError, KeyError, RecursionError, MemoryError, tokenize.TokenError) as error:
        raise ReadError(f"damaged header of an NPY file ({type(error).__name__})") from error
    if dtype.hasobject or dtype.kind not in "iufUSb":
        raise ReadError(f"expected an NPY file of numbers, found {dtype.name}; Python objects are never read")
    count = 1
    for size in shape:
        count *= size
    available = len(data) - file.tell()
    if any(size < 0 for size in shape) or len(shape) > 32 or count * dtype.itemsize > available:
        raise ReadError(f"the NPY file has {available:,} bytes of data for {count:,} values of {dtype.name}")
    if count == 0 or dtype.itemsize == 0:
        return np.empty(0, dtype=np.float32)
    flat = np.frombuffer(data, dtype, count, file.tell())
    return flat.reshape(shape[::-1]).T if by_column else flat.reshape(shape)


def _npz(content: bytes) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    budget = MAX_UNPACKED_BYTES
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
            if len(members) > MAX_ZIP_MEMBERS:
                raise ReadError(f"NPZ file of {len(members):,} arrays; at most {MAX_ZIP_MEMBERS:,} are read")
            if sum(info.file_size for info in members) > budget:
                raise ReadError(f"NPZ file that unpacks to more than {MAX_UNPACKED_BYTES:,} bytes")
            for info in members:
                with archive.open(info) as file:
                    data = file.read(budget + 1)
                budget -= len(data)
                if budget < 0:
                    raise ReadError(f"NPZ file that unpacks to more than {MAX_UNPACKED_BYTES:,} bytes")
                if data.startswith(_NPY_MAGIC):
                    arrays[info.filename.removesuffix(".npy")] = _npy(data)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError) as error:
        raise ReadError(f"damaged NPZ file ({type(error).__name__})") from error
    return arrays
