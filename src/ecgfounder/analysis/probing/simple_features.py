"""Simple features of recordings, a control: heart rate, and the amplitude and deviation of each lead, from the cohort's files.

In: where the files are. Out: a table of features, and the recordings whose file cannot be read again, with the reason. What was
measured is kept in a file, so that a second call, or one after an interruption, reads no file again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ecgfounder.analysis.pages.tables import make_folder
from ecgfounder.analysis.rows.selection import Selection
from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.ecg.recording import Recording
from ecgfounder.errors import ECGFounderError, ReadError, StorageError
from ecgfounder.preprocess.beats import MOST_SECONDS, heart_rate
from ecgfounder.preprocess.calibration import calibration_pulses, without_pulses
from ecgfounder.readers import make_source, read_source
from ecgfounder.readers.identity import identity_of
from ecgfounder.readers.source import Hints
from ecgfounder.results.originals import original_paths
from ecgfounder.storage import NO_OPTIONS, Location, StorageOptions, Unavailable
from ecgfounder.storage.writing import writing

KEPT = "simple-features-v1.pq"
"""The name of the file with what was measured; the version changes with what is measured."""

NAMES = ("heart_rate", *(f"{what}_{lead}" for what in ("amplitude", "deviation") for lead in STANDARD_LEADS))

_INSIDE = (0.1, 99.9)
"""Percentiles of a lead's samples between which its amplitude is, so that a spike does not count."""

_LEAST_MV = 1e-3
_SECONDS_BETWEEN_WRITES = 30.0

SCHEMA = pa.schema([("key", pa.string()), *((name, pa.float32()) for name in NAMES)])


@dataclass(frozen=True)
class Original:
    """The file of a recording.

    Attributes
    ----------
    path : str
        Its path or URL.
    key : str
        What is the same for the same content: its hash, or for members of containers their place, size and time.
    sha256 : str or None
        The hash of its content when the run read it; None for members of containers.
    reader, hints : str, Hints
        How the run read it.
    """

    path: str
    key: str
    sha256: str | None = None
    reader: str = "auto"
    hints: Hints = field(default_factory=Hints)


def originals_of(selection: Selection, data_dir: str | None, options: StorageOptions) -> list[Original]:
    """The files of the recordings, in their order.

    Raises
    ------
    RunError
        If it is not known where they are (`ecgfounder.results.originals`).
    """
    found: list[Original | None] = [None] * selection.table.num_rows
    for run, rows in selection.by_run():
        told = run.record.fingerprint.get("hints") or {}
        leads = told.get("leads")
        hints = Hints(told.get("sampling_rate"), told.get("unit"), tuple(leads) if leads else None)
        reader = str(run.record.fingerprint.get("reader", "auto"))
        table = selection.table.take(pa.array(rows))
        paths = original_paths(run, table, data_dir, options)
        facts = table.select(["record", "input_sha256", "input_bytes", "input_mtime"])
        for row, path, (record, sha256, size, time_) in zip(
            rows.tolist(), paths, zip(*(column.to_pylist() for column in facts.columns), strict=True), strict=True
        ):
            found[row] = Original(path, sha256 or f"{record} {size} {time_}", sha256, reader, hints)
    return [each for each in found if each is not None]


@dataclass(frozen=True, eq=False)
class Simple:
    """The features of some recordings.

    Attributes
    ----------
    table : pyarrow.Table
        A row per recording with the columns `NAMES`: beats a minute; logarithms (to base 2) of millivolts. Null where a lead is
        missing, no beats stand out, or the file was not read.
    not_read : dict of int to str
        The recordings whose file could not be read again, with the reason.
    """

    table: pa.Table
    not_read: dict[int, str]


def simple_features(
    originals: Sequence[Original],
    folder: Location | None = None,
    options: StorageOptions = NO_OPTIONS,
    say: Callable[[str], None] = lambda line: None,
) -> Simple:
    """Measure recordings.

    Parameters
    ----------
    originals : sequence of Original
        The files.
    folder : Location, optional
        Where what was measured is kept; None keeps nothing.
    options : StorageOptions
        Options of object stores.
    say : callable
        Called with lines on the progress.
    """
    known = _kept(folder)
    todo = [each for each in {each.key: each for each in originals}.values() if each.key not in known]
    failed: dict[str, str] = {}
    began = written = time.monotonic()
    for number, original in enumerate(todo):
        try:
            found = _measured(original, options)
        except Unavailable as error:  # after its own retries: the other files would wait as long
            failed |= {each.key: str(error) for each in todo[number:]}
            break
        if isinstance(found, str):
            failed[original.key] = found
        else:
            known[original.key] = found
        if time.monotonic() - written > _SECONDS_BETWEEN_WRITES:
            _keep(known, folder)
            written = time.monotonic()
            left = (written - began) / (number + 1) * (len(todo) - number - 1)
            say(f"Simple features: {number + 1:,} of {len(todo):,} files read, about {left:.0f} s left")
    if len(todo) > len(failed):
        _keep(known, folder)
    nothing = dict.fromkeys(NAMES)
    rows = [known.get(each.key, nothing) for each in originals]
    not_read = {row: failed[each.key] for row, each in enumerate(originals) if each.key in failed}
    table = pa.Table.from_pylist([{name: row[name] for name in NAMES} for row in rows], schema=SCHEMA.remove(0))
    return Simple(table, not_read)


def _kept(folder: Location | None) -> dict[str, Mapping[str, float | None]]:
    """What was measured before, by key; a file that cannot be read, or is another's, is as none."""
    if folder is None:
        return {}
    try:
        table = pq.ParquetFile(pa.BufferReader((folder / KEPT).read())).read(use_threads=False)
    except (StorageError, OSError, pa.ArrowException):
        return {}
    if not table.schema.equals(SCHEMA):
        return {}
    return {row.pop("key"): row for row in table.to_pylist()}


def _keep(known: Mapping[str, Mapping[str, float | None]], folder: Location | None) -> None:
    if folder is None:
        return
    make_folder(folder)
    table = pa.Table.from_pylist([{"key": key, **row} for key, row in known.items()], schema=SCHEMA)
    with writing(folder / KEPT) as file:
        pq.write_table(table, file, compression="zstd")


def _measured(original: Original, options: StorageOptions) -> dict[str, float | None] | str:
    """The features of a file, or the reason why there are none."""
    try:
        source = make_source(original.path, original.hints, options)
        recording = read_source(source, reader=original.reader)
        if original.sha256 not in (None, identity_of(source).sha256):
            raise ReadError("the file has changed since the run read it")
        return features_of(recording)
    except Unavailable:
        raise
    except ECGFounderError as error:
        return str(error)
    except MemoryError:
        return "needs more memory than is available"
    except Exception as error:  # noqa: BLE001 - an unforeseen error concerns this file; its message may quote it
        return f"cannot be measured ({type(error).__name__})"


def features_of(recording: Recording) -> dict[str, float | None]:
    """The features of a recording: of its first ten minutes, without calibration pulses."""
    found: dict[str, Any] = dict.fromkeys(NAMES)
    found["heart_rate"] = heart_rate(recording)
    stop = min(recording.n_samples, round(MOST_SECONDS * recording.sampling_rate))
    samples = np.nan_to_num(recording.samples[:, :stop], nan=0.0, posinf=0.0, neginf=0.0)
    pulses = calibration_pulses(samples, recording.leads, recording.sampling_rate)
    start, stop = without_pulses(samples, pulses, 0, samples.shape[1])
    for lead, row in zip(recording.leads, samples[:, start:stop], strict=True):
        if lead in STANDARD_LEADS:
            low, high = np.percentile(row, _INSIDE)
            found[f"amplitude_{lead}"] = float(np.log2(high - low + _LEAST_MV))
            found[f"deviation_{lead}"] = float(np.log2(row.std(dtype=np.float64) + _LEAST_MV))
    return found
