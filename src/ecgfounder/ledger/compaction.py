"""Reconcile shards with the ledger: remove shards that were never committed, and rows that later rows replaced.

In: a run's folder that no process writes to, and the ledger's state. Out: shards with one set of rows per finished record.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ecgfounder.errors import RunError
from ecgfounder.ledger.entry import key_text
from ecgfounder.ledger.folder import RunFolder, leads_out
from ecgfounder.ledger.ledger import DONE, LedgerState, read_ledger
from ecgfounder.sinks.parquet import SHARD_NAME, write_table
from ecgfounder.storage import Location
from ecgfounder.storage.replace import replacing


def tidy_shards(folder: RunFolder, *, compacting: bool, state: LedgerState | None = None) -> LedgerState:
    """Remove uncommitted shards and, with `compacting`, rows that later rows replaced; returns the ledger's state.

    `state` is the state, if it is known.
    """
    state = state or read_ledger(folder.ledger)
    remove_orphans(folder.output_dir, state.committed)
    if compacting:
        compact(folder, state)
    return state


def remove_orphans(output_dir: Location, committed: Collection[str]) -> int:
    """Remove shards that the ledger does not commit: a process was killed between the shard and its entries."""
    names = output_dir.names(skip=lambda _folder: True)  # shards are not in subfolders
    orphans = [name for name in names if SHARD_NAME.fullmatch(name) and name not in committed]
    output_dir.delete(orphans)
    return len(orphans)


def compact(folder: RunFolder, state: LedgerState) -> int:
    """Remove a record's rows if it was done again or failed later; returns the number of changed shards.

    Until then, a record that was done again also has its old rows; in a complete run it has only the new ones.
    """
    changed = 0
    for name, keys in _records_by_shard(state):
        shard = folder.output_dir / name
        if len(keys) >= state.committed.get(name, 0) or not shard.exists():
            continue
        if leads_out(folder.output_dir, name):
            raise RunError(
                f"{shard} is a link out of the run's folder. Remove it; the run's command does its recordings again."
            )
        valid = {key_text(key) for key in keys}
        try:
            found = _read(shard, ["key"]).column("key").to_pylist()
            if set(found) <= valid:
                continue  # its old rows were removed before
            changed += 1
            if not valid:
                folder.output_dir.delete([name])
                continue
            table = _read(shard)
        except (pa.ArrowException, KeyError) as error:
            raise RunError(f"{shard} cannot be read as a run's shard: {error}") from error
        _rewrite(folder, shard, table.filter(pa.array(np.array([key in valid for key in found]))))
    return changed


def _read(shard: Location, columns: list[str] | None = None) -> pa.Table:
    with shard.open() as file:
        return pq.ParquetFile(file).read(columns=columns, use_threads=False)  # see `results.run.open_run`


def _rewrite(folder: RunFolder, shard: Location, table: pa.Table) -> None:
    """Replace a shard by a table."""
    if shard.is_local:
        with replacing(shard.path, aside=folder.scratch / f"{shard.basename}.part") as out:
            write_table(table, out)
        return
    buffer = io.BytesIO()
    write_table(table, buffer)
    shard.write(buffer.getvalue())


def _records_by_shard(state: LedgerState) -> Iterator[tuple[str, list[int]]]:
    """Every shard, with the keys of the records whose latest entry names it."""
    if not state.shards:
        return
    rows = np.flatnonzero((state.status == DONE) & (state.shard >= 0))
    rows = rows[np.argsort(state.shard[rows], kind="stable")]
    ends = np.searchsorted(state.shard[rows], np.arange(len(state.shards)), side="right")
    for name, keys in zip(state.shards, np.split(state.keys[rows], ends[:-1]), strict=True):
        yield name, keys.tolist()
