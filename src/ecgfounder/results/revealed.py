"""What sharing a run's folder would reveal: its parts that lead back to files and patients, and how many recordings they concern.

In: an opened run. Out: findings, with counts and names of columns, without a value of any.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ecgfounder.escaping import counted
from ecgfounder.ledger.folder import RunFolder
from ecgfounder.ledger.manifest import HEART_RATE, SCHEMA
from ecgfounder.results.run import EmbeddingRun
from ecgfounder.results.small_cells import FEWEST

_DATE = re.compile(r"(?<!\d)(?:19|20)\d\d([-_./]?)(?:0[1-9]|1[0-2])\1(?:0[1-9]|[12]\d|3[01])(?!\d)")
_NUMBER = re.compile(r"\d{5,}")
_DEVICE = ("device_manufacturer", "device_model", "software_version", "format_version")


@dataclass(frozen=True)
class Revealed:
    """One finding: the part of the folder, and what is in it."""

    part: str
    what: str

    def __str__(self) -> str:
        return f"{self.part}: {self.what}"


def what_it_reveals(run: EmbeddingRun) -> list[Revealed]:
    """What sharing the folder of a run would reveal.

    Parameters
    ----------
    run : EmbeddingRun
        An opened run.

    Returns
    -------
    list of Revealed
        In the order of the folder's parts. The embeddings themselves come last: they are patient data, whatever else is removed.
    """
    told = run.record.settings
    named = "paths" if told.id_column is None else "identifiers"
    found = [*_outputs(run, named), *_manifest(run, named), *_tables(run)]
    found.append(Revealed("_run/run.json", "paths on the machine (dataset, data_dir), times of the attempts, versions"))
    more = "" if told.id_column is None else ", and the paths of recordings that failed"
    found.append(Revealed("_run/ledger/", f"{named} of all recordings{more}, names of machines, times"))
    if run.folder.is_local:
        found.append(Revealed("all files", "times of modification: when the recordings were embedded"))
    found.append(
        Revealed(
            "the embeddings",
            "patient data: they can be linked to another ECG of the person, and tell age, sex and disease",
        )
    )
    return found


def _outputs(run: EmbeddingRun, named: str) -> list[Revealed]:
    hashed = f"a hash of the {named[:-1]} without a secret: whoever can guess a {named[:-1]} can confirm it"
    guessed = "" if named == "paths" else " (an 8-digit number is found in minutes)"
    if run.format == "parquet":
        column = "identifier" if named == "identifiers" else "ecg_path"
        return [
            Revealed("names of shards", "when the run began, to the nanosecond"),
            Revealed(f"shards, column {column}", f"{named} of all recordings"),
            Revealed("shards, column key", hashed + guessed),
        ]
    what = "the recordings' file names" if named == "paths" else named
    return [Revealed(f"names of the {run.format.upper()} files", what)]


def _manifest(run: EmbeddingRun, named: str) -> list[Revealed]:
    part = "_run/manifest.pq"
    records = run.manifest["record"]
    found = [Revealed(f"{part}, column record", f"{named} of all {counted(len(records), 'row')}{_hints(records)}")]
    if run.failures.num_rows:
        found.append(
            Revealed(
                f"{part} and failures.csv, column reason",
                f"why {counted(run.failures.num_rows, 'recording')} failed, which may name a file",
            )
        )
    found.append(
        Revealed(
            f"{part}, columns input_sha256, input_bytes, input_mtime",
            "whoever has a recording's file can find its row; times at which files were written, which may be those of the ECGs",
        )
    )
    kept = [name for name in run.manifest.column_names if name not in (*SCHEMA.names, HEART_RATE.name)]
    if kept:
        found.append(Revealed(f"{part}, kept columns {', '.join(kept)}", "their values, unchanged"))
        distinct = identifying(run, kept)
        if distinct:
            found.append(
                Revealed(
                    f"{part}, kept columns {', '.join(distinct)}",
                    "another value in every recording, as identifiers have",
                )
            )
    rare = sum(n_rare(run.records[name]) for name in _DEVICE if name in run.records.column_names)
    if rare:
        found.append(
            Revealed(
                f"{part}, columns of devices",
                f"{rare:,} values of fewer than {FEWEST} recordings each, which may tell the place",
            )
        )
    return found


def _hints(records: pa.ChunkedArray) -> str:
    """How many names look as if they held dates or numbers of patients."""
    texts = records.to_pylist()
    n_dates = sum(_DATE.search(text) is not None for text in texts)
    n_numbers = sum(_NUMBER.search(text) is not None for text in texts)
    hints = [
        *([f"{n_dates:,} with what looks like a date"] if n_dates else []),
        *([f"{n_numbers:,} with a number of five or more digits"] if n_numbers else []),
    ]
    return f" ({', '.join(hints)})" if hints else ""


def n_rare(column: pa.ChunkedArray) -> int:
    """How many texts in a column fewer than `FEWEST` rows have; 0 for columns of other kinds."""
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return 0
    counts = pc.value_counts(pc.drop_null(column).combine_chunks()).field("counts")
    return int(np.count_nonzero(counts.to_numpy() < FEWEST))


def _tables(run: EmbeddingRun) -> list[Revealed]:
    what = {
        "statements": "the devices' diagnostic statements",
        "predictions": "the network's predictions of diseases",
    }
    place = RunFolder(run.folder)
    return [Revealed(f"_run/{table.basename}", what[table.stem]) for table in place.tables() if table.stem in what]


def identifying(run: EmbeddingRun, columns: list[str]) -> list[str]:
    """The columns among some whose texts or whole numbers differ in every recording, as identifiers do."""
    found: list[str] = []
    for name in columns:
        kind = run.records[name].type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind):
            values = pc.drop_null(run.records[name])
            if len(values) > 1 and len(pc.unique(values)) == len(values):
                found.append(name)
    return found
