"""The lines of a ledger: an `Entry` for each record that is done or failed, and a `Commitment` for each shard.

In: an untrusted line, written by this version, by 0.1.0 or by anything else. Out: a checked value, or None for a line that is
torn or has missing or wrong fields; its record counts as not done.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter
from typing import Any, Literal, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
import orjson

from ecgfounder.cohort.naming import RUN_FOLDER
from ecgfounder.ecg.facts import Facts, Identity

Status = Literal["done", "failed"]

_INT64 = 1 << 63
_INT32 = 1 << 31
_MOST_VALUES = 1 << 36  # per embedding: a year of windows
_KEY = re.compile("[0-9a-f]{16}")
_NOWHERE = frozenset(("", ".", ".."))
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """The outcome of one record.

    Attributes
    ----------
    key : str
        The record's key, 16 hexadecimal digits.
    record : str
        Its path below the data folder, or its identifier.
    status : Status
        "done" or "failed".
    output : str or None
        Reference to its output, relative to the output folder; None for a failure.
    shard : str or None
        The Parquet shard that holds it; None if the output is a separate file.
    path : str or None
        Hash of the file's path if the record has an identifier, 16 hexadecimal digits.
    shape : tuple of int or None
        Shape of the whole embedding, with leading dimensions for windows and leads.
    input : Identity or None
        Identity of the recording's file, to detect changes.
    facts : Facts
        Metadata of the ECG.
    seconds : mapping of str to float
        Time by stage.
    probabilities : tuple of str or None
        Probabilities of each window and lead, encoded by `packed`.
    error, reason : str or None
        Of a failure: the error's class name, and its message.
    absent : tuple of str
        Of a failure: the files that the recording lacks, by their names beside it; "" is the file itself.
    file : str or None
        Of a failure whose record has an identifier: the path that was read.
    removes : str or None
        An earlier output that this failure makes obsolete.
    epoch, attempt : int or None, str or None
        The epoch and the attempt of the entry, if groups are committed.
    tag : str or None
        The output's tag in its store.

    Raises
    ------
    ValueError
        If the fields contradict each other, or a value is out of range.
    """

    key: str
    record: str
    status: Status
    output: str | None = None
    shard: str | None = None
    path: str | None = None
    shape: tuple[int, ...] | None = None
    input: Identity | None = None
    facts: Facts = field(default_factory=Facts)
    seconds: Mapping[str, float] = field(default_factory=dict)
    probabilities: tuple[str, ...] | None = None
    error: str | None = None
    reason: str | None = None
    absent: tuple[str, ...] = ()
    file: str | None = None
    removes: str | None = None
    epoch: int | None = None
    attempt: str | None = None
    tag: str | None = None

    def __post_init__(self) -> None:
        if not (_KEY.fullmatch(self.key) and (self.path is None or _KEY.fullmatch(self.path))):
            raise ValueError("a key that is not 16 hexadecimal digits")
        if self.status == "done" and not (self.shape and self.output):
            raise ValueError("done without a shape or an output")
        if self.shape and (not 0 < min(self.shape) <= max(self.shape) < _INT32 or math.prod(self.shape) > _MOST_VALUES):
            raise ValueError("impossible shape")
        self._check_names()
        self._check_input()
        if self.shape and self.facts.starts and (len(self.shape) > 2 or len(self.facts.starts) > 1):
            self._check_rows(self.shape)
        if self.probabilities:
            self._check_probabilities(self.probabilities)

    def _check_names(self) -> None:
        if self.shard is not None:
            if not is_shard(self.shard):
                raise ValueError("not a shard's name")
            if self.output not in (None, f"{self.shard}::{self.key}"):
                raise ValueError("another record's rows of a shard")
        elif self.output and not is_inside(self.output):
            raise ValueError("an output outside of the run's folder")
        if self.removes and not is_inside(self.removes):
            raise ValueError("an output outside of the run's folder")

    def _check_rows(self, shape: tuple[int, ...]) -> None:
        """Check the numbers of windows and leads against the shape's leading dimensions, before [C] or [T, C]."""
        n_windows, n_leads = len(self.facts.starts), len(self.facts.leads)
        rows = {math.prod(shape[:-inner]) for inner in (1, 2) if len(shape) >= inner}
        if not rows & {n_windows, n_windows * n_leads}:
            raise ValueError("a shape of another number of windows")

    def _check_input(self) -> None:
        given = self.input
        if given is not None:
            if not (0 <= given.size < _INT64 and -_INT64 <= given.mtime_ns < _INT64):
                raise ValueError("impossible size or time")
            if given.sha256 is not None and not _SHA256.fullmatch(given.sha256):
                raise ValueError("not a SHA-256")
        if not 0 <= (self.facts.n_samples or 0) < _INT64:
            raise ValueError("impossible number of samples")

    def _check_probabilities(self, rows: tuple[str, ...]) -> None:
        if len(rows) % max(1, len(self.facts.starts)):
            raise ValueError("probabilities of another number of windows")
        try:
            sizes = {len(base64.b64decode(text, validate=True)) for text in rows}
        except binascii.Error as error:
            raise ValueError("probabilities that are not packed") from error
        if len(sizes) > 1 or any(n_bytes == 0 or n_bytes % 4 for n_bytes in sizes):
            raise ValueError("probabilities of another number of statements")

    @property
    def number(self) -> int:
        """The key as an integer."""
        return int(self.key, 16)


@dataclass(frozen=True, slots=True)
class Commitment:
    """A shard that is complete on disk: earlier entries that name it become valid."""

    shard: str
    rows: int
    records: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PartHeader:
    """A part's first line: the process that writes it (`ecgfounder.ledger.liveness.own_name`).

    `attempt` tells a published part from another attempt's at the same group. `renewed` is the number of entries at the beginning
    that renew those of records which were finished before.
    """

    host: str
    pid: int
    boot: str | None = None
    pid_namespace: str | None = None
    started: str | None = None
    exported: bool = False
    attempt: str | None = None
    renewed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.pid < _INT32:
            raise ValueError("no process has that number")

    @property
    def name(self) -> dict[str, Any]:
        """The process, in the form of `own_name`."""
        return {"host": self.host, "pid": self.pid, "boot": self.boot, "pid_namespace": self.pid_namespace}


@dataclass(frozen=True, slots=True, kw_only=True)
class PartEnd:
    """A part's last line: its process's counts."""

    outcome: str = ""
    done: int = 0
    failed: int = 0


Line = Entry | Commitment


def is_shard(name: str) -> bool:
    """Whether a name can be that of a shard: a Parquet file directly in the output folder."""
    return name.startswith("embeddings-") and name.endswith(".parquet") and "/" not in name and is_inside(name)


def is_inside(name: str) -> bool:
    """Whether a name, relative to the output folder, can be that of an output: inside it, and not in `_run/`."""
    parts = name.split("/")
    return "\0" not in name and _NOWHERE.isdisjoint(parts) and parts[0].casefold() != RUN_FOLDER


def line_of(value: Line) -> bytes:
    """A line of a ledger, without the newline."""
    if isinstance(value, Commitment):
        return orjson.dumps(value)
    told = _told(value, _ENTRY_FIELDS)
    if value.input is not None:
        told["input"] = _told(value.input, _IDENTITY_FIELDS)
    told["facts"] = _facts_of(value.facts)
    # A reader's numbers may be NumPy's, which must not cause an error here.
    return orjson.dumps(told, option=orjson.OPT_SERIALIZE_NUMPY)


class _Fields:
    """The fields of a class of values."""

    def __init__(self, kind: type) -> None:
        self.names = tuple(each.name for each in fields(kind))
        self.of = attrgetter(*self.names)


_ENTRY_FIELDS, _IDENTITY_FIELDS, _FACTS_FIELDS = map(_Fields, (Entry, Identity, Facts))


def _told(value: Entry | Facts | Identity, every: _Fields) -> dict[str, Any]:
    """The fields of a value that are neither None nor empty."""
    return {
        name: what
        for name, what in zip(every.names, every.of(value), strict=True)
        if what is not None and (what or not isinstance(what, tuple | dict))
    }


_texts: dict[int, tuple[Facts, orjson.Fragment]] = {}
_MOST_TEXTS = 256
_FEW_STARTS = 4


def _facts_of(facts: Facts) -> dict[str, Any] | orjson.Fragment:
    """An entry's facts; those of one object, which many records of a cohort have, are written once."""
    if len(facts.starts) > _FEW_STARTS:
        return _told(facts, _FACTS_FIELDS)
    known = _texts.get(id(facts))
    if known is not None and known[0] is facts:
        return known[1]
    text = orjson.Fragment(orjson.dumps(_told(facts, _FACTS_FIELDS), option=orjson.OPT_SERIALIZE_NUMPY))
    if len(_texts) >= _MOST_TEXTS:
        _texts.clear()
    _texts[id(facts)] = facts, text
    return text


T = TypeVar("T", PartHeader, PartEnd)


def parse_line(line: bytes) -> Line | None:
    """The entry or commitment of a complete line; None for anything else."""
    raw = _object_of(line)
    if raw is None:
        return None
    try:
        if "key" in raw:
            return msgspec.convert(_upgraded(raw), Entry)
        if "shard" in raw and "status" not in raw:  # not an entry that has lost its key
            return _checked(msgspec.convert(raw, Commitment))
    except (msgspec.ValidationError, OverflowError):
        return None
    return None


def parse_frame(line: bytes, name: Literal["part", "end"], kind: type[T]) -> T | None:
    """The first or last line of a part; None for anything else."""
    raw = _object_of(line)
    if raw is None or name not in raw:
        return None
    try:
        return msgspec.convert(raw[name], kind)
    except (msgspec.ValidationError, OverflowError):
        return None


def _object_of(line: bytes) -> dict[str, Any] | None:
    try:
        raw = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return raw if isinstance(raw, dict) else None


def _checked(commitment: Commitment) -> Commitment | None:
    sound = is_shard(commitment.shard) and 0 <= commitment.records < _INT64
    return commitment if sound else None


_OLD_FACTS = ("format", "sampling_rate", "n_samples", "leads", "flags", "starts", "device", "statements")
_OLD_INPUT = ("size", "mtime_ns", "sha256", "companions")


# Reasons of missing files in ledgers that do not name them in `absent`.
_NO_FILE = (
    "No such file or directory",
    "Not a directory",
    "the signal file that the WFDB header names: No such file or directory",
)


def _upgraded(raw: dict[str, Any]) -> dict[str, Any]:
    """A line in the current form.

    Version 0.1.0 wrote the fields of input and facts at the top level, and did not name the files that a recording lacked.
    """
    if raw.get("error") == "ReadError" and raw.get("reason") in _NO_FILE and "absent" not in raw:
        raw = raw | {"absent": [""]}
    if "facts" in raw or "input" in raw or not ("size" in raw or "format" in raw):
        return raw
    new = {name: value for name, value in raw.items() if name not in (*_OLD_FACTS, *_OLD_INPUT)}
    new["facts"] = {name: raw[name] for name in _OLD_FACTS if raw.get(name) is not None}
    if "size" in raw:
        new["input"] = {name: raw[name] for name in _OLD_INPUT if raw.get(name) is not None}
    return new


def renewed(entry: Entry, mtime_ns: int, tag: str | None, path: int | None) -> Entry:
    """The entry with a new modification time and tag of its file and, if the record has an identifier, a new path."""
    if entry.input is None:
        return entry
    moved = entry.path if path is None else key_text(path)
    return replace(entry, input=replace(entry.input, mtime_ns=mtime_ns, tag=tag), path=moved)


def key_text(key: int) -> str:
    """A 64-bit key in the ledger's form: 16 hexadecimal digits."""
    return f"{key:016x}"


def packed(values: npt.NDArray[np.float32]) -> str:
    """float32 values as text for a ledger line: base64 of their little-endian bytes."""
    return base64.b64encode(values.astype("<f4").tobytes()).decode("ascii")


def unpacked(text: str) -> npt.NDArray[np.float32]:
    """Decode the text of `packed`."""
    return np.frombuffer(base64.b64decode(text), dtype="<f4").astype(np.float32)
