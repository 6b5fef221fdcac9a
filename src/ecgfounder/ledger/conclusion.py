"""A run's books: what it was told and with what, and in the end the tables that tell what came of it.

In: the run's folder and its ledger. Out: `run.json`, and with every shard tidy `manifest.parquet`, `failures.csv`, ...
"""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from ecgfounder.cohort.cohort import Cohort
from ecgfounder.ledger.folder import RunFolder
from ecgfounder.ledger.ledger import LedgerState, read_ledger
from ecgfounder.ledger.manifest import Account, Tally, write_manifest
from ecgfounder.ledger.tables import PredictionsTable, StatementsTable
from ecgfounder.network.bundles import spec_of


def close_run_json(
    folder: RunFolder, outcome: str, tally: Tally | None, *, precision_error: float | None = None
) -> None:
    """Write what came of the run; `precision_error` is the measured relative error of a lower precision."""
    facts = folder.read() or {}
    if precision_error is not None:
        facts["engine"]["relative_error_to_float32"] = precision_error
    folder.write({**facts, "outcome": outcome, "ended": now(), "records": tally.as_dict() if tally else None})


def finish_books(
    folder: RunFolder, cohort: Cohort, data_dir: str, keep_columns: Sequence[str], fingerprint: Mapping[str, Any]
) -> Tally:
    """Bring shards and ledger together and write the manifest and the failures; no process may be writing."""
    state = tidy_shards(folder, compacting=True)
    predictions = statements = None
    if fingerprint["predictions"]:
        labels = spec_of(fingerprint["preparation"]["mode"]).labels()
        predictions = PredictionsTable(folder.path / "predictions.parquet", labels)
    if fingerprint["statements"]:
        statements = StatementsTable(folder.path / "statements.parquet")
    tables: list[Account] = [table for table in (predictions, statements) if table is not None]
    tally = write_manifest(cohort, state, data_dir, keep_columns, folder.manifest, folder.failures, tables)
    if predictions is not None:
        predictions.close()
        tally.likely = predictions.likely
    if statements is not None:
        statements.close()
    return tally


def tidy_shards(folder: RunFolder, *, compacting: bool) -> LedgerState:
    """Remove shards that were never committed and, `compacting`, rows that later ones replaced; the ledger's state."""
    state = read_ledger(folder.ledger)
    if state.shards or any(folder.output_dir.glob("*.parquet")):
        from ecgfounder.sinks.parquet import compact, remove_orphans

        remove_orphans(folder.output_dir, state.committed)
        if compacting:
            compact(folder.output_dir, folder.scratch, state)
    return state


def now() -> str:
    """This moment in UTC, as it stands in the books."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    found = {"python": platform.python_version()}
    for package in ("numpy", "scipy", "lxml", "torch", "onnxruntime", "accelerate", "datasets", "orjson", "pyarrow"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
