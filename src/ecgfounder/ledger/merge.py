"""`ecgfounder merge`: finish the books of a run whose shards were done by separate jobs.

In: an output folder. Out: `manifest.parquet`, `failures.csv` and the outcome in `run.json`.
"""

from __future__ import annotations

from pathlib import Path

from ecgfounder.cohort.sources import open_cohort
from ecgfounder.errors import RunError
from ecgfounder.ledger.conclusion import close_run_json, finish_books
from ecgfounder.ledger.folder import RunFolder
from ecgfounder.ledger.manifest import Tally


def merge(output_dir: Path) -> Tally:
    """Bring the ledger's parts together; may be called at any time when no shard is running, and again.

    Raises
    ------
    RunError
        If the folder holds no run, or a shard is still at work.
    CohortError
        If the dataset that the run was started with is no longer there.
    """
    folder = RunFolder(output_dir)
    facts = folder.read()
    if facts is None:
        raise RunError(f"{output_dir} holds no run: expected {folder.run_json}")
    told = facts["settings"]
    with folder.hold():
        cohort = open_cohort(
            told["dataset"], split=told["split"], path_column=told["path_column"], id_column=told["id_column"]
        )
        folder.clean_scratch()
        tally = finish_books(folder, cohort, told["data_dir"], told["keep_columns"], facts["fingerprint"])
        close_run_json(folder, "complete" if tally.pending == 0 else "incomplete", tally)
    return tally
