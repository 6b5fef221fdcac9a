"""Removal of a run's files: unfinished files, tables of an earlier attempt, obsolete outputs.

In: a locked run folder. Out: the folder without them. Only files that the ledger or the program's naming identifies are removed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from ecgfounder.ledger.card import CARD
from ecgfounder.ledger.entry import Commitment
from ecgfounder.ledger.folder import OLD_TABLE_SUFFIX, TABLE_SUFFIX, TABLES, TEXTS, RunFolder
from ecgfounder.ledger.ledger import DONE, FAILED, LedgerState, ledger_parts, lines_of
from ecgfounder.storage import Location
from ecgfounder.storage.replace import link_between, sync_folder


def clean_scratch(folder: RunFolder) -> None:
    """Remove unfinished files of an interrupted process, which exist on this machine alone."""
    if folder.is_remote:
        return
    for path in folder.scratch.iterdir():
        if path.is_file() or path.is_symlink():
            path.unlink(missing_ok=True)


def remove_outputs(folder: RunFolder) -> None:
    """Remove every output that the ledger names, then the files in `_run/`; nothing else is removed."""
    output_dir = folder.output_dir.path
    folders: set[Path] = set()
    for name in named_outputs(ledger_parts(folder.ledger)):
        if _remove_output(output_dir, name):
            folders.add((output_dir / name).parent)
    _remove_empty(output_dir, folders)
    shutil.rmtree(folder.ledger.path)
    folder.run_json.path.unlink(missing_ok=True)
    if folder.has_card():
        folder.output_dir.delete([CARD])
    remove_tables(folder)
    folder.ledger.path.mkdir()
    sync_folder(folder.path)


def named_outputs(parts: Iterable[Location]) -> Iterator[str]:
    """Every output that some parts of the ledger name, also obsolete ones."""
    for part in parts:
        for _offset, line in lines_of(part):
            names = [line.shard] if isinstance(line, Commitment) else [line.shard or line.output, line.removes]
            yield from filter(None, names)


def remove_tables(folder: RunFolder) -> None:
    """Remove the tables of an earlier attempt, so that they are not taken for those of the present one."""
    names = [f"{table}{suffix}" for table in TABLES for suffix in (TABLE_SUFFIX, OLD_TABLE_SUFFIX)]
    if folder.is_remote:
        folder.run.delete([*names, *TEXTS])
        return
    for name in (*names, *TEXTS):
        (folder.path / name).unlink(missing_ok=True)


def remove_obsolete(folder: RunFolder, outputs: Iterable[str]) -> None:
    """Remove outputs of records that failed later; their entries are already in the ledger."""
    if folder.is_remote:
        folder.output_dir.delete(outputs)
        return
    for name in outputs:
        _remove_output(folder.output_dir.path, name)


def remove_left_behind(folder: RunFolder, state: LedgerState) -> None:
    """`remove_obsolete` for an earlier attempt that was killed between the entry and the removal."""
    taken = state.names[state.status == DONE]  # in a changed cohort, another record may have this output now
    rows = np.flatnonzero((state.status == FAILED) & (state.names != 0) & ~np.isin(state.names, taken))
    remove_obsolete(folder, [entry.removes for entry in state.entries(rows.tolist()) if entry.removes])


def _remove_output(output_dir: Path, name: str) -> bool:
    """Remove an output, unless it is a folder, which this program did not make; returns False if it is behind a symbolic link."""
    path = output_dir / name
    if link_between(output_dir, path.parent) is not None:
        return False
    if path.is_file() or path.is_symlink():
        path.unlink()
    return True


def _remove_empty(output_dir: Path, folders: set[Path]) -> None:
    for folder in sorted(folders, key=lambda each: len(each.parts), reverse=True):
        at = folder
        while at not in (output_dir, at.parent) and at.is_dir() and not any(at.iterdir()):
            at.rmdir()
            at = at.parent
