"""The jobs of an attempt: the records to do, with all facts that the stages need.

In: a cohort, its index, a plan. Out: a `Job` for each record to do, or the reason why there is none. Before any work, records
that would share an output are refused.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from ecgfounder.cohort.cohort import Cohort, Record
from ecgfounder.cohort.index import Index, indexed_records, output_name, record_identity
from ecgfounder.cohort.naming import Naming
from ecgfounder.errors import PrepareError, RunError
from ecgfounder.escaping import one_line
from ecgfounder.readers import excerpt_of
from ecgfounder.run.plan import Plan
from ecgfounder.stages.read import Job
from ecgfounder.storage import NO_OPTIONS, Location, StorageOptions, held_at_commit
from ecgfounder.storage.paths import path_key, printable
from ecgfounder.storage.writing import write_whole

COLLISIONS_SHOWN = 20
MAX_PATH_BYTES = 4096


def jobs_of(
    cohort: Cohort,
    index: Index,
    plan: Plan,
    naming: Naming,
    *,
    named: bool,
    removable: bool,
    refuse: Callable[[Job, PrepareError], None],
    options: StorageOptions = NO_OPTIONS,
) -> Iterator[Job]:
    """The records to do, in the dataset's order; a record whose output cannot be named is passed to `refuse`.

    Parameters
    ----------
    named : bool
        Whether each record has a separate output file, which needs a name.
    removable : bool
        Whether a record's earlier output is a separate file, which can be removed if the record fails now.
    options : StorageOptions
        Options of object stores.
    """
    given = np.zeros(len(index), dtype=np.bool_)
    for place, record in indexed_records(cohort, index, naming.data_dir):
        if not plan.todo[place] or given[place]:
            continue
        given[place] = True
        key = int(index.keys[place])
        try:
            if len(os.fsencode(record.path)) > MAX_PATH_BYTES:
                raise PrepareError(f"the path is longer than {MAX_PATH_BYTES} bytes, the limit of operating systems")
            output = output_name(record, naming) if named else ""
        except PrepareError as error:
            refuse(_job_of(record, place, key, naming), error)
            continue
        replaces = output if removable and plan.had_output[place] else ""
        job = _job_of(record, place, key, naming, output, replaces)
        excerpt, path = excerpt_of(job.path, options), held_at_commit(job.path)
        yield job if excerpt is None and path == job.path else replace(job, path=path, excerpt=excerpt)


def _job_of(record: Record, place: int, key: int, naming: Naming, output: str = "", replaces: str = "") -> Job:
    identity = record_identity(record.path, naming.data_dir)
    path = naming.absolute(record.path)
    if record.identifier is None:
        return Job(place, path, key, printable(identity), os.path.basename(record.path), output, replaces)
    shown = printable(record.identifier)
    return Job(place, path, key, shown, record.identifier, output, replaces, path_key(identity))


def refuse_decimal_ids(index: Index, id_column: str | None) -> None:
    """Refuse identifiers that a library has turned from whole numbers into floating-point numbers.

    Raises
    ------
    RunError
        If all identifiers are such numbers; the message says how to make whole numbers of them again.
    """
    if index.decimal_ids:
        raise RunError(
            f"all identifiers in the column {id_column!r} are whole numbers with a decimal point, like 123.0 for 123: a table "
            "library makes them of a column that lacks a value somewhere. Outputs would have names like 123.0, which no other "
            f'table has. Write the dataset again with whole numbers (pandas: table["{id_column}"].astype("Int64")) or text.'
        )


def refuse_collisions(cohort: Cohort, index: Index, naming: Naming, listed: Location) -> None:
    """Refuse, before any work, different records with the same output name.

    Parameters
    ----------
    listed : Location
        The file to write the list of collisions to.

    Raises
    ------
    RunError
        If there are collisions; the message shows the first ones and how to avoid them.
    """
    colliding = set(index.colliding_names().tolist())
    if not colliding:
        return
    by_id = cohort.id_column is not None
    groups: dict[int, list[str]] = {}
    for record, first, name in zip(cohort.records(), index.first, index.names, strict=True):
        if (first or by_id) and int(name) in colliding:
            shown = f"row {record.row} ({record.identifier})" if by_id else printable(record.path)
            groups.setdefault(int(name), []).append(shown)
    names = [("" if by_id else f"{printable(naming.name(who[0]))}: ") + ", ".join(who) for who in groups.values()]
    lines = [one_line(name) for name in names]
    write_whole(listed, ("\n".join(lines) + "\n").encode())
    shown = "".join(f"\n  {line}" for line in lines[:COLLISIONS_SHOWN])
    word = "name" if len(groups) == 1 else "names"
    way_out = (
        "The values of id_column must be unique."
        if by_id
        else "layout='tree' mirrors the folders below data_dir; id_column names outputs by an identifier."
    )
    raise RunError(
        f"{len(groups):,} output {word} would be shared by different recordings (upper and lower case count as equal). "
        f"{way_out} All of them are in {listed}. The first ones:{shown}"
    )
