"""HDF5 files, also those of MATLAB 7.3: one recording, or many in one dataset, addressed as 'FILE::DATASET/RECORDING'.

In: the file, the member's name after '::', and the user's hints. Out: a `Recording`. No other file is opened: external and soft
links, external storage and virtual datasets are refused.
"""

from __future__ import annotations

import importlib
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.ecg.recording import Recording
from ecgfounder.errors import MissingDependencyError, ReadError
from ecgfounder.readers import ecg_kit, opensignals
from ecgfounder.readers.matlab import text_lines
from ecgfounder.readers.quantities import hinted_scale
from ecgfounder.readers.source import MAX_UNPACKED_BYTES, Hints, Source, open_file
from ecgfounder.readers.tables import (
    LEAD_NAMES,
    MAX_LEADS,
    RATE_NAMES,
    SIGNAL_NAMES,
    UNIT_NAMES,
    Array,
    Description,
    choice_of_signal,
    describe,
    find_signal,
    lead_arrays,
    plain_name,
    possible_signals,
    recording_of,
)

FORMAT = "hdf5"

_MAGIC = b"\x89HDF\r\n\x1a\n"
_HEAP = b"GCOL\x01\0\0\0"
_USER_BLOCKS = (0, 512, 1024, 2048)
_ROW = re.compile(r"(?P<dataset>.*)\[(?P<row>\d{1,12})\]")
_MAX_CHILDREN = 1024
_MAX_SMALL = 4096
_MATLAB_REFERENCES = "#refs#"
_DESCRIPTIVE = frozenset((*RATE_NAMES, *UNIT_NAMES, *LEAD_NAMES))

ID_NAMES = (
    *("exam_id", "exam_ids", "record_id", "record_ids", "recording_id", "ecg_id", "ecg_ids", "study_id", "study_ids"),
    *("id", "ids", "record_name", "record_names", "filename", "filenames"),
)
"""Names of the dataset with the recordings' identifiers, in order of preference."""

# CODE-15 % (doi:10.5281/zenodo.4916206): `tracings` [N, 4096, 12] beside `exam_id` [N], without further facts in the file. 400 Hz
# and the order of leads are from its documentation. The documentation states the unit "1e-4 V"; according to the authors, and by
# the amplitudes, the unit is millivolts.
_CODE15_SHAPE = (4096, 12)
_CODE15 = Description(rate=400.0, scale=1.0, leads=STANDARD_LEADS)


def matches(source: Source) -> bool:
    """Whether the file begins with the signature of HDF5, or has it after a user block, as files of MATLAB 7.3 do."""
    return any(source.head.startswith(_MAGIC, at) for at in _USER_BLOCKS)


def read(source: Source) -> Recording:
    """Read a recording from an HDF5 file.

    `source.member` is the path of a dataset or group. In a dataset of many recordings [N, ...], it is followed by the recording:
    'tracings/123' is the one with identifier 123 in a dataset beside it (`ID_NAMES`), or, without such a dataset, the one in row
    123, counted from 0. 'tracings[123]' is always row 123. Without a member, the file's only recording is read.

    Raises
    ------
    ReadError
        If the file is damaged, refers to other files, unpacks to too much, or has no such recording; if neither file nor hints
        give sampling rate, unit and leads.
    MissingDependencyError
        If h5py is not installed.
    """
    try:
        h5py = importlib.import_module("h5py")
    except ImportError as error:
        raise MissingDependencyError("h5py", "reading HDF5 files", "hdf5") from error
    with _opened(h5py, source) as root:
        try:
            signal, description, fallback = _find(h5py, root, source.member, source.hints)
        except (OSError, KeyError, ValueError, RuntimeError, TypeError, AttributeError, OverflowError) as error:
            raise ReadError(f"damaged HDF5 file ({type(error).__name__})") from error
    hints = source.hints
    if fallback is not None:
        description = Description(
            rate=description.rate or hints.sampling_rate or fallback.rate,
            scale=description.scale or hinted_scale(hints) or fallback.scale,
            leads=description.leads or hints.leads or fallback.leads,
        )
    return recording_of(signal, description, hints, FORMAT)


@contextmanager
def _opened(h5py: Any, source: Source) -> Iterator[Any]:
    """The file's root group; from memory if the file was read already, or is gzip data."""
    location = source.location
    with ExitStack() as stack:
        # The library reads large files of this machine by their path, and others in ranges through a file object.
        if source.small is not None or source.is_gzip:
            file: object = io.BytesIO(source.content)
            _require_sound_heaps(source.content)
        else:
            file = location.path if location.is_local else stack.enter_context(open_file(location))
        opened, kind = None, ""
        try:
            opened = h5py.File(file, "r")
        except (OSError, ValueError, RuntimeError, KeyError, TypeError, OverflowError) as error:
            kind = type(error).__name__
        if opened is None:  # not raised above: the error's frames hold objects with which Python must not end
            raise ReadError(f"damaged HDF5 file ({kind})")
        with opened:
            yield opened


def _require_sound_heaps(content: bytes) -> None:
    """Refuse a global heap, which holds texts, whose free space has no size: HDF5's library would follow it forever."""
    at = content.find(_HEAP)
    while at >= 0:
        end = min(at + int.from_bytes(content[at + 8 : at + 16], "little"), len(content))
        place = at + 16
        while place + 16 <= end:
            is_free = content[place : place + 2] == b"\0\0"
            size = int.from_bytes(content[place + 8 : place + 16], "little")
            if is_free and size == 0:
                raise ReadError("damaged HDF5 file: a global heap whose free space has no size")
            place += size if is_free else 16 + (size + 7) // 8 * 8
        at = content.find(_HEAP, at + len(_HEAP))


def _find(h5py: Any, root: Any, member: str | None, hints: Hints) -> tuple[Array, Description, Description | None]:
    """The array, its description in the file, and a default description for known data sets."""
    node, key = _resolve(h5py, root, member or "")
    if isinstance(node, h5py.Group) and key is None:
        return _from_ecg_kit(h5py, node) or _from_group(h5py, node, hints)
    if isinstance(node, h5py.Group):
        raise ReadError("the HDF5 file has no dataset or group of the name after '::'")
    description = _description(h5py, node.parent, node)
    if key is None:
        channel = opensignals.channel_of(h5py, node)
        return _values(node, ()), description if channel is None else replace(description, leads=(channel,)), None
    row = _row(h5py, node, key)
    code15 = node.shape[1:] == _CODE15_SHAPE and plain_name(node.name) == "tracings" and "exam_id" in node.parent
    return _values(node, (row,)), description, _CODE15 if code15 else None


def _resolve(h5py: Any, root: Any, member: str) -> tuple[Any, str | None]:
    """Follow a path through hard links to a dataset or group; the rest of the path is a recording's key."""
    node = root
    parts = [part for part in member.split("/") if part]
    for depth, part in enumerate(parts):
        indexed = _ROW.fullmatch(part)
        if isinstance(node, h5py.Group) and part not in node and indexed and depth == len(parts) - 1:
            node = _child(h5py, node, indexed["dataset"])
            return node, f"[{indexed['row']}]"
        if isinstance(node, h5py.Dataset):
            return node, "/".join(parts[depth:])
        node = _child(h5py, node, part)
    return node, None


def _child(h5py: Any, group: Any, name: str) -> Any:
    """A member of a group, if it is in this file."""
    if name in (".", "..") or name not in group:
        raise ReadError("the HDF5 file has no dataset or group of the name after '::'")
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise ReadError("the name after '::' is an external or soft link of the HDF5 file, which is refused")
    child = group[name]
    if not isinstance(child, (h5py.Group, h5py.Dataset)):
        raise ReadError("the name after '::' is neither a dataset nor a group of the HDF5 file")
    return child


def _row(h5py: Any, dataset: Any, key: str) -> int:
    """The row of a recording in a dataset of many, by `[row]`, identifier, or number."""
    if dataset.ndim < 2:
        raise ReadError(f"the HDF5 dataset of shape {dataset.shape} does not have several recordings")
    n_rows = int(dataset.shape[0])
    indexed = _ROW.fullmatch(key)
    identifiers = None if indexed else _identifiers(h5py, dataset, n_rows)
    if identifiers is not None:
        rows = _rows_of(identifiers, key)
        if len(rows) != 1:
            raise ReadError(
                f"{len(rows)} of the {n_rows:,} recordings in the HDF5 dataset have this identifier; "
                "DATASET[ROW] names one by its row, counted from 0"
            )
        return int(rows[0])
    number = indexed["row"] if indexed else key
    if not number.isascii() or not number.isdigit() or int(number) >= n_rows:
        raise ReadError(
            f"expected one of {n_rows:,} recordings in the HDF5 dataset, rows 0 to {n_rows - 1:,}, found another"
        )
    return int(number)


def _rows_of(identifiers: Array, key: str) -> Array:
    """Rows with this identifier; integers are compared as numbers, others as text."""
    if identifiers.dtype.kind in "iu":
        # Numbers of more than 18 digits do not fit in int64.
        return np.flatnonzero(identifiers == int(key)) if re.fullmatch(r"-?\d{1,18}", key, re.ASCII) else np.empty(0)
    plain = (value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in identifiers)
    return np.flatnonzero([text == key for text in plain])


def _identifiers(h5py: Any, dataset: Any, n_rows: int) -> Array | None:
    """The identifiers beside a dataset; None if there are none."""
    group = dataset.parent
    for name in ID_NAMES:
        if name not in group or not isinstance(group.get(name, getlink=True), h5py.HardLink):
            continue
        ids = group[name]
        if isinstance(ids, h5py.Dataset) and ids.shape in ((n_rows,), (n_rows, 1)):
            return _values(ids, ()).reshape(-1)
    return None


def _from_ecg_kit(h5py: Any, group: Any) -> tuple[Array, Description, Description | None] | None:
    """The signal of ecg-kit in a file of MATLAB 7.3, which stores arrays transposed; None if there is none."""
    names = {name.casefold(): name for name in group} if len(group) <= _MAX_CHILDREN else {}
    header = next((names[name] for name in ecg_kit.HEADERS if name in names), None)
    signal = next((names[name] for name in ecg_kit.SIGNALS if name in names), None)
    if header is None or signal is None:
        return None
    fields, samples = (_member(h5py, group, name) for name in (header, signal))
    if not isinstance(fields, h5py.Group) or not isinstance(samples, h5py.Dataset) or samples.ndim != 2:
        return None
    found = {name: _member(h5py, fields, name) for name in ecg_kit.FIELDS}
    named = {
        f"{header}.{name}": _text_or_values(field)
        for name, field in found.items()
        if isinstance(field, h5py.Dataset) and field.size <= 16 * _MAX_SMALL
    }
    described = ecg_kit.find(named | {signal: _values(samples, ()).T})
    return None if described is None else (*described, None)


def _member(h5py: Any, group: Any, name: str) -> Any:
    """A member of a group that is in this file; None if there is none of the name, or a link."""
    return group[name] if isinstance(group.get(name, getlink=True), h5py.HardLink) else None


def _from_group(h5py: Any, group: Any, hints: Hints) -> tuple[Array, Description, Description | None]:
    """The only recording of a group: channels by OpenSignals, one dataset, several named after leads, or the only one below."""
    if len(group) > _MAX_CHILDREN:
        raise ReadError(f"the HDF5 group has {len(group):,} members; give the name of one after the path: FILE::NAME")
    datasets = {
        name: dataset
        for name in group
        if isinstance(dataset := _member(h5py, group, name), h5py.Dataset) and _may_be_numbers(dataset)
    }
    channels = opensignals.datasets_of(h5py, group) if not datasets or group.name.endswith("/raw") else None
    if channels is not None:
        return *_from_channels(h5py, channels, hints), None
    shapes = {name: np.broadcast_to(np.zeros((), dataset.dtype), dataset.shape) for name, dataset in datasets.items()}
    rows = lead_arrays(shapes)
    wanted = find_signal(shapes, None)
    chosen = next((name for name, shape in shapes.items() if shape is wanted), None)
    if chosen is None and not rows:
        dataset = _only_one_below(h5py, group)
        return _values(dataset, ()), _description(h5py, dataset.parent, dataset), None
    if chosen is None or (rows and datasets[chosen].ndim < 2):
        description = _description(h5py, group, datasets[next(iter(rows))])
        stacked = np.stack([_values(datasets[name], ()).reshape(-1) for name in rows])
        return stacked, replace(description, leads=tuple(rows)), None
    dataset = datasets[chosen]
    _refuse_many(dataset, chosen)
    return _values(dataset, ()), _description(h5py, group, dataset), None


def _from_channels(h5py: Any, channels: Sequence[tuple[Any, str]], hints: Hints) -> tuple[Array, Description]:
    """The ECG channels of a recording by OpenSignals, perhaps of several devices."""
    names_all = len(hints.leads or ()) == len(channels)
    places = opensignals.chosen_channels([name for _, name in channels], may_be_any=names_all)
    chosen = [channels[place][0] for place in places]
    described = [_description(h5py, dataset.parent, dataset) for dataset in chosen]
    if len({dataset.size for dataset in chosen}) > 1 or len({description.rate for description in described}) > 1:
        raise ReadError(
            f"the {len(chosen)} ECG channels of the HDF5 file differ in sampling rate or length; name the group of one device "
            "after the path: FILE::GROUP"
        )
    rows = np.stack([_values(dataset, ()).reshape(-1) for dataset in chosen])
    return rows, replace(described[0], leads=tuple(channels[place][1] for place in places))


def _only_one_below(h5py: Any, group: Any) -> Any:
    """The only dataset in a group and the groups in it that can be an ECG."""
    found = {group}  # two paths may lead to one member, or to a group around it
    waiting = [group]
    while waiting:
        owner = waiting.pop()
        if len(found) + len(owner) > _MAX_CHILDREN:
            raise ReadError("the HDF5 file has too many members; give the name of a dataset: FILE::GROUP/DATASET")
        members = [_member(h5py, owner, name) for name in owner if name != _MATLAB_REFERENCES]
        waiting += [member for member in members if isinstance(member, h5py.Group) and member not in found]
        found.update(member for member in members if member is not None)
    datasets = {member.name: member for member in found if isinstance(member, h5py.Dataset) and _may_be_numbers(member)}
    shapes = {name: np.broadcast_to(np.zeros((), dataset.dtype), dataset.shape) for name, dataset in datasets.items()}
    possible = list(possible_signals(shapes))
    if len(possible) != 1:
        raise choice_of_signal(shapes, "HDF5", "GROUP/DATASET")
    dataset = datasets[possible[0]]
    _refuse_many(dataset, plain_name(possible[0]))
    return dataset


def _refuse_many(dataset: Any, name: str) -> None:
    if dataset.ndim > 2 and dataset.shape[0] > 1:
        shown = name if name in SIGNAL_NAMES else "DATASET"  # any other name is text of the file
        raise ReadError(
            f"an HDF5 dataset of {dataset.shape[0]:,} recordings; name one of them after the path: FILE::{shown}/KEY"
        )


def _may_be_numbers(dataset: Any) -> bool:
    return dataset.shape is not None and dataset.attrs.get("MATLAB_class") not in (b"char", b"cell")


def _description(h5py: Any, group: Any, dataset: Any) -> Description:
    """Sampling rate, unit and leads from attributes of the dataset and its parent groups, or from small datasets in these groups.

    Those nearest to the dataset take precedence.
    """
    named: dict[str, Any] = {}
    around = [group]
    while around[-1].name not in ("/", None):
        around.append(around[-1].parent)
    for owner in reversed(around):
        named |= _attributes(owner)
        # In groups farther away, names such as 'labels' may have another meaning.
        names = _DESCRIPTIVE if owner == group else frozenset((*RATE_NAMES, *UNIT_NAMES))
        named |= _small_datasets(h5py, owner, names, but=dataset)
    return describe(named | _attributes(dataset))


def _attributes(owner: Any) -> dict[str, Any]:
    return {
        plain_name(name): owner.attrs[name]
        for name in owner.attrs
        if plain_name(name) in _DESCRIPTIVE and owner.attrs.get_id(name).get_storage_size() <= 16 * _MAX_SMALL
    }


def _small_datasets(h5py: Any, group: Any, names: frozenset[str], *, but: Any) -> dict[str, Any]:
    """Small datasets of a group with one of these names."""
    found: dict[str, Any] = {}
    for name in group if len(group) <= _MAX_CHILDREN else ():
        if plain_name(name) in names and isinstance(group.get(name, getlink=True), h5py.HardLink):
            member = group[name]
            if isinstance(member, h5py.Dataset) and member.name != but.name and member.size <= _MAX_SMALL:
                found[plain_name(name)] = _text_or_values(member)
    return found


def _text_or_values(dataset: Any) -> Array:
    """A small dataset; texts of MATLAB, alone, as rows of characters or in a cell array, as an array of texts."""
    kind = dataset.attrs.get("MATLAB_class")
    values = _values(dataset, ())
    if kind == b"cell" and values.size <= MAX_LEADS:
        cells = [dataset.file[cell] for cell in values.reshape(-1)]
        texts = [_text_or_values(cell).reshape(-1) for cell in cells if cell.attrs.get("MATLAB_class") == b"char"]
        return np.array([str(text[0]) for text in texts if len(text) == 1])
    return text_lines(values.T) if kind == b"char" and values.dtype.kind in "ui" else values


def _values(dataset: Any, row: tuple[int, ...]) -> Array:
    """A dataset, or one row of it, if it is stored in this file and unpacks to at most `MAX_UNPACKED_BYTES`."""
    if dataset.is_virtual or dataset.external:
        raise ReadError("the HDF5 dataset is stored in other files, which is refused")
    if dataset.dtype.kind not in "iufbSUO" or dataset.shape is None:
        raise ReadError(f"expected an HDF5 dataset of numbers, found one of {dataset.dtype.name}")
    item = max(1, dataset.dtype.itemsize)
    size = int(np.prod(dataset.shape[len(row) :], dtype=np.float64)) * item
    chunk = int(np.prod(dataset.chunks, dtype=np.float64)) * item if dataset.chunks else 0
    if max(size, chunk) > MAX_UNPACKED_BYTES:
        raise ReadError(
            f"HDF5 dataset that unpacks to {max(size, chunk):,} bytes; at most {MAX_UNPACKED_BYTES:,} are read"
        )
    if dataset.id.get_storage_size() == 0:
        raise ReadError("the HDF5 dataset has no stored data")
    return np.asarray(dataset[row])
