"""The end of a run: reconcile shards with the ledger and write the tables.

In: a run's folder that no process writes to, its cohort, its run record. Out: `manifest.pq`, `failures.csv` and the other
tables, the outcome in run.json, and the counts of the summary.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace

from ecgfounder.cohort.cohort import Cohort
from ecgfounder.cohort.sources import open_cohort
from ecgfounder.errors import RunError
from ecgfounder.ledger.admission import hold_folder
from ecgfounder.ledger.compaction import tidy_shards
from ecgfounder.ledger.folder import OLD_TABLE_SUFFIX, TABLES, RunFolder, leads_out
from ecgfounder.ledger.groups.epochs import has_epochs, seal_epoch, take_epoch
from ecgfounder.ledger.groups.hold import StoreHold
from ecgfounder.ledger.groups.names import WHOLE
from ecgfounder.ledger.ledger import LedgerState
from ecgfounder.ledger.manifest import Account, Tally, check_kept_columns, write_manifest
from ecgfounder.ledger.record import FORMAT_VERSION, RunRecord, new_run_id, now
from ecgfounder.ledger.removal import clean_scratch, remove_left_behind
from ecgfounder.ledger.tables import PredictionsTable, StatementsTable
from ecgfounder.network.bundles import published_labels
from ecgfounder.storage import NO_OPTIONS, StorageOptions


def conclude(folder: RunFolder, cohort: Cohort, record: RunRecord, state: LedgerState | None = None) -> Tally:
    """Reconcile shards with the ledger and write the tables; no process may be writing.

    `state` is the ledger's, if it is known.
    """
    state = tidy_shards(folder, compacting=True, state=state)
    remove_left_behind(folder, state)
    form, settings = record.form, record.settings
    accounts: list[Account] = []
    with ExitStack() as opened:
        predictions = None
        if form.predictions:
            table = PredictionsTable(folder.table("predictions"), record.checkpoint.labels or published_labels())
            predictions = opened.enter_context(table)
            accounts.append(predictions)
        if form.statements:
            accounts.append(opened.enter_context(StatementsTable(folder.table("statements"))))
        tally = write_manifest(
            cohort,
            state,
            settings.data_dir,
            settings.keep_columns,
            folder.table("manifest"),
            folder.failures,
            accounts,
            shards=settings.shards,
            heart_rate=form.heart_rate,
        )
    if predictions is not None:
        tally.likely = predictions.likely
    return tally


def close_record(folder: RunFolder, outcome: str, tally: Tally | None, *, precision_error: float | None = None) -> None:
    """Write the run's outcome; `precision_error` is the measured relative error of a lower precision."""
    record = folder.read()
    if record is None:
        raise RunError(f"{folder.run_json} disappeared during the run")
    engine = record.engine
    if precision_error is not None:
        engine = replace(engine, relative_error_to_float32=precision_error)
    records = tally.as_dict() if tally else None
    folder.write(replace(record, outcome=outcome, ended=now(), records=records, engine=engine))


def merge(output_dir: str | os.PathLike[str], options: StorageOptions = NO_OPTIONS) -> Tally:
    """Write the tables of a run that was done in shards; may be called repeatedly, when no shard is running.

    `options` are those of object stores, if the dataset or the output folder is in one.

    Raises
    ------
    RunError
        If the folder holds no run, or a shard is still running.
    CohortError
        If the run's dataset no longer exists, or no longer has a column that the run uses.
    """
    folder = RunFolder(output_dir, options)
    _required_record(folder)
    with hold_folder(folder) as hold:
        record = bring_up_to_date(folder, _required_record(folder))
        told = record.settings
        cohort = open_cohort(
            told.dataset,
            split=told.split,
            path_column=told.path_column,
            id_column=told.id_column,
            options=options,
        )
        check_kept_columns(cohort, told.keep_columns, heart_rate=record.form.heart_rate)
        clean_scratch(folder)
        epoch = take_epoch(folder.run, WHOLE) if has_epochs(folder.run) and not isinstance(hold, StoreHold) else None
        if isinstance(hold, StoreHold):
            hold.begin()
        tally = conclude(folder, cohort, record)
        if isinstance(hold, StoreHold):
            hold.seal()
        if epoch is not None:
            folder.ledger.delete(seal_epoch(folder.run, epoch))
        close_record(folder, "complete" if tally.pending == 0 else "incomplete", tally)
    return tally


def upgrade(output_dir: str | os.PathLike[str], options: StorageOptions = NO_OPTIONS) -> bool:
    """Convert a folder of version 0.1.0 to the current layout; returns whether anything changed.

    The tables are renamed to end in .pq, the card is written, and the run gets an identifier.

    Raises
    ------
    RunError
        If the folder holds no run, or another process uses it.
    """
    folder = RunFolder(output_dir, options)
    _required_record(folder)
    with hold_folder(folder):
        record = _required_record(folder)
        return bring_up_to_date(folder, record) != record


def bring_up_to_date(folder: RunFolder, record: RunRecord) -> RunRecord:
    """`upgrade` of a folder that is locked; returns the new run record."""
    for name in TABLES:
        old, new = folder.run / f"{name}{OLD_TABLE_SUFFIX}", folder.table(name)
        if old.exists():
            if not new.exists() and not leads_out(folder.run, old.basename):
                new.put(old.read())
            folder.run.delete([old.basename])
    folder.write_card(record)
    if record.format_version == FORMAT_VERSION and record.run_id is not None:
        return record
    today = replace(record, format_version=FORMAT_VERSION, run_id=record.run_id or new_run_id())
    folder.write(today)
    return today


def _required_record(folder: RunFolder) -> RunRecord:
    record = folder.read()
    if record is None:
        raise RunError(f"{folder.output_dir} holds no run: expected {folder.run_json}")
    return record
