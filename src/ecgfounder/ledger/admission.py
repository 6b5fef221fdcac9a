"""Decide whether an attempt may use an output folder: empty or of a run, not locked, with a run that it can resume.

In: a run's folder and a fingerprint. Out: the folder, created and locked, or a `RunError` with the reason.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ecgfounder.cohort.naming import RUN_FOLDER
from ecgfounder.errors import RunError
from ecgfounder.escaping import one_line
from ecgfounder.ledger.entry import Entry
from ecgfounder.ledger.folder import RunFolder
from ecgfounder.ledger.groups.epochs import EPOCHS
from ecgfounder.ledger.groups.hold import LEASES, StoreHold
from ecgfounder.ledger.ledger import ledger_parts, lines_of, part_status
from ecgfounder.ledger.liveness import is_fresh, is_this_process, process_is_alive
from ecgfounder.ledger.locks import RunLock
from ecgfounder.ledger.record import RunRecord, differences
from ecgfounder.ledger.removal import remove_outputs
from ecgfounder.storage import Location
from ecgfounder.storage.replace import make_folders, replace_file, sync_folder

_PART_SHARD = re.compile(r"-shard(\d+)of(\d+)-(?:rank|epoch)")


def take_folder(folder: RunFolder, shard: tuple[int, int] = (1, 1)) -> RunLock:
    """Make the folder if there is none, and lock it. Nothing in it is changed before it is locked.

    Raises
    ------
    RunError
        As in `create_folder` and `hold_folder`.
    """
    _make(folder, folder.locks)
    lock = _hold_local(folder, shard)
    try:
        create_folder(folder)
    except BaseException:
        lock.release()
        raise
    return lock


def create_folder(folder: RunFolder) -> None:
    """Make the folders, or refuse a folder with other files. Only for the process that has locked the folder or is alone in it.

    Raises
    ------
    RunError
        If the output folder is not empty and not of a run, or cannot be written to.
    """
    _make(folder, folder.ledger.path, folder.scratch, folder.locks)
    try:
        probe = folder.scratch / f"probe-{uuid.uuid4().hex}"
        replace_file(probe, b"writable")
        probe.unlink()
    except OSError as error:
        raise _unwritable(folder, error) from error


def _make(folder: RunFolder, *below: Path) -> None:
    output_dir, run = folder.output_dir.path, folder.path
    root = Path(output_dir.anchor)
    try:
        grown = make_folders(root, output_dir)
        # In this order, because a process that starts at the same time makes `run` before anything else.
        if any(output_dir.iterdir()) and not run.exists():
            raise RunError(
                f"{output_dir} is not empty and has no {RUN_FOLDER}/ folder of an earlier run, so it may hold other files: "
                "nothing was written. Choose an empty or new output_dir."
            )
        _refuse_links(folder)
        for each in (run, *below):
            grown |= make_folders(root, each)
        for each in grown:  # what is synced in a folder is lost with the folder's own name
            sync_folder(each)
    except OSError as error:
        raise _unwritable(folder, error) from error


def _refuse_links(folder: RunFolder) -> None:
    """Refuse links in the run record, so that only this run's files are changed: in an untrusted folder, links lead anywhere."""
    for each in (
        folder.path,
        folder.ledger.path,
        folder.scratch,
        folder.locks,
        folder.path / EPOCHS,
        folder.path / LEASES,
    ):
        if each.is_symlink():
            raise RunError(
                f"{each} is a symbolic link; expected a folder: nothing is written or removed through links. Copy the run with "
                "the files that its links lead to (cp -rL), or choose another output_dir."
            )


def _unwritable(folder: RunFolder, error: OSError) -> RunError:
    return RunError(f"{folder.output_dir} cannot be written to: {error.strerror or error}")


def hold_folder(folder: RunFolder, shard: tuple[int, int] = (1, 1)) -> RunLock | StoreHold:
    """Lock an existing folder, for the whole cohort or for one shard of it.

    Raises
    ------
    RunError
        If another process uses it: the main process of an attempt, or a process that still runs after its main process died.
        If a folder of the run record is a symbolic link.
    """
    return StoreHold(folder, shard) if folder.is_remote else _hold_local(folder, shard)


def _hold_local(folder: RunFolder, shard: tuple[int, int]) -> RunLock:
    _refuse_links(folder)
    lock = RunLock(folder.locks, shard)
    try:
        for part in ledger_parts(folder.ledger):
            if not _is_of_another_shard(part, shard):
                _refuse_beside(folder, part)
    except BaseException:
        lock.release()
        raise
    return lock


def admit(folder: RunFolder, fingerprint: Mapping[str, Any], *, overwrite: bool) -> RunRecord | None:
    """The run to resume, or None for a new one; with `overwrite` the folder is cleared first.

    Raises
    ------
    RunError
        If the folder holds a run with another fingerprint (the message lists the differences), if it holds results but no
        run.json, which is written before them, or if run.json is damaged or of a newer version.
    """
    if overwrite:
        if not folder.is_remote:
            remove_outputs(folder)
        return None
    before = previous(folder)
    if before is None:
        return None
    changed = changed_settings(folder, before, fingerprint)
    if changed:
        lines = "".join(f"\n  {one_line(each)}" for each in changed)
        raise RunError(
            f"{folder.output_dir} holds a run with other settings, whose results cannot be mixed with these. Use the same "
            f"settings to resume it, another output_dir, or overwrite=True to begin again. The settings that differ:{lines}"
        )
    return before


def changed_settings(folder: RunFolder, before: RunRecord, fingerprint: Mapping[str, Any]) -> list[str]:
    """The settings because of which a run cannot be resumed, one line each; as `ledger.record.differences`.

    A run that was begun when a file's lead -aVR was not used yet can be resumed, unless it has results that this may change:
    those in which aVR, and no other lead, was derived from I and II.
    """
    lines = differences(before.fingerprint, fingerprint)
    if len(lines) == 1 and lines[0].startswith(_MINUS_AVR) and not _has_flag(folder, "derived_leads:aVR"):
        return []
    return lines


_MINUS_AVR = "preparation.minus_aVR: None,"


def _has_flag(folder: RunFolder, flag: str) -> bool:
    """Whether a finished record has this flag."""
    lines = (line for part in ledger_parts(folder.ledger) for _offset, line in lines_of(part))
    return any(isinstance(line, Entry) and flag in line.facts.flags for line in lines)


def previous(folder: RunFolder) -> RunRecord | None:
    """The existing run's record from run.json; None if there is no run.

    Raises
    ------
    RunError
        If there are results without run.json.
    """
    # The order of these checks matters: another shard that starts now writes run.json before its first result.
    holds_results = not folder.run_json.exists() and _holds_results(folder)
    before = folder.read()
    if before is None and holds_results:
        raise RunError(
            f"{folder.output_dir} holds results, but {folder.run_json} is missing: their settings are unknown. "
            "Choose another output_dir, or overwrite=True to begin again."
        )
    return before


def _holds_results(folder: RunFolder) -> bool:
    return any(isinstance(line, Entry) for part in ledger_parts(folder.ledger) for _offset, line in lines_of(part))


def _refuse_beside(folder: RunFolder, part: Location) -> None:
    """Refuse if another process is writing a part of the ledger."""
    try:
        status = part.path.stat()
    except FileNotFoundError:  # a dangling symbolic link
        return
    if not is_fresh(status):
        return
    header, end = part_status(part)
    # This process itself may have left the part: an earlier attempt, started from Python, stopped with an error.
    if header is None or end is not None or is_this_process(header.name) or not process_is_alive(header.name):
        return
    raise RunError(
        f"{folder.output_dir} is in use by process {header.pid} on {header.host}, which belongs to an earlier attempt. If it "
        "died on another machine, this is noticed after two minutes. Wait for it, or stop it."
    )


def _is_of_another_shard(part: Location, shard: tuple[int, int]) -> bool:
    """Whether a part belongs to another shard of the same N, which may run at the same time."""
    found = _PART_SHARD.search(part.basename)
    if found is None or shard[1] == 1:
        return False
    number, parts = map(int, found.groups())
    return parts == shard[1] and number != shard[0]
