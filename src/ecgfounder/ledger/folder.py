"""The run's folder, `<output_dir>/_run/`: what it was told, whether it may be resumed, and what belongs to it.

In: an output folder and a fingerprint. Out: a `RunFolder` that was made, resumed or begun anew, or a `RunError` with the reason.
"""

from __future__ import annotations

import os
import re
import shutil
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from ecgfounder.cohort.naming import RUN_FOLDER
from ecgfounder.errors import RunError
from ecgfounder.ledger.ledger import entry_lines, part_status
from ecgfounder.ledger.liveness import is_fresh, is_this_process, process_is_alive
from ecgfounder.ledger.locks import RunLock
from ecgfounder.sinks.sink import sync_folder, write_durably

TABLES = (
    "manifest.parquet",
    "failures.csv",
    "predictions.parquet",
    "predictions.csv",
    "statements.parquet",
    "collisions.txt",
)

_PART_SHARD = re.compile(r"-shard(\d+)of(\d+)-rank")


class RunFolder:
    """Paths and small files of one run's bookkeeping.

    Attributes
    ----------
    output_dir : folder of the embeddings.
    path : `<output_dir>/_run`.
    ledger : folder of the ledger's parts.
    scratch : folder of files that are being written.
    """

    def __init__(self, output_dir: Path) -> None:
        self.output_dir = output_dir.absolute()
        self.path = self.output_dir / RUN_FOLDER
        self.ledger = self.path / "ledger"
        self.scratch = self.path / "scratch"
        self.locks = self.path / "locks"
        self.run_json = self.path / "run.json"
        self.manifest = self.path / "manifest.parquet"
        self.failures = self.path / "failures.csv"
        self.collisions = self.path / "collisions.txt"

    def create(self) -> None:
        """Make the folders, or refuse one that holds something else.

        Raises
        ------
        RunError
            If the output folder is not ours and not empty, or cannot be written to.
        """
        try:
            self.output_dir.mkdir(parents=True, exist_ok=True)
            if not self.path.exists() and any(self.output_dir.iterdir()):
                raise RunError(
                    f"{self.output_dir} is not empty and has no {RUN_FOLDER}/ folder of an earlier run: nothing is written "
                    "into folders that may hold something else. Choose an empty or new --output_dir."
                )
            for folder in (self.path, self.ledger, self.scratch, self.locks):
                folder.mkdir(exist_ok=True)
            probe = self.scratch / f"probe-{uuid.uuid4().hex}"
            write_durably(probe, b"writable")
            probe.unlink()
        except OSError as error:
            raise RunError(f"{self.output_dir} cannot be written to: {error.strerror or error}") from error

    def hold(self, shard: tuple[int, int] = (1, 1)) -> RunLock:
        """Lock the folder, for the whole cohort or for one shard of it.

        Raises
        ------
        RunError
            If another process has it: the main one of a start, or one that still works after its main one died.
        """
        lock = RunLock(self.locks, shard)
        try:
            for part in self.ledger.glob("*.jsonl"):
                if not _is_of_another_shard(part, shard):
                    self._refuse_beside(part)
        except BaseException:
            lock.release()
            raise
        return lock

    def _refuse_beside(self, part: Path) -> None:
        """Refuse if a part of the ledger is being written."""
        if not is_fresh(part.stat()):
            return
        header, end = part_status(part)
        # Our own process is one that broke here before, and was started again from Python.
        if header is None or end is not None or is_this_process(header) or not process_is_alive(header):
            return
        raise RunError(
            f"{self.output_dir} is in use by process {header['pid']} on {header['host']}, which an earlier start left at work, "
            "or which died just now: on another machine that shows after two minutes. Wait for it, or stop it."
        )

    def read(self) -> dict[str, Any] | None:
        """The contents of run.json; None where there is none yet."""
        try:
            found = orjson.loads(self.run_json.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, orjson.JSONDecodeError) as error:
            raise RunError(
                f"{self.run_json} cannot be read: {error}. Remove the output folder and start anew."
            ) from error
        if not isinstance(found, dict):
            raise RunError(f"{self.run_json} is not a run's record. Remove the output folder and start anew.")
        return found

    def write(self, facts: Mapping[str, Any]) -> None:
        """Replace run.json in one step."""
        aside = self.scratch / f"run-{uuid.uuid4().hex}.json"
        write_durably(aside, orjson.dumps(dict(facts), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
        os.replace(aside, self.run_json)
        sync_folder(self.path)

    def admit(self, fingerprint: Mapping[str, Any], *, overwrite: bool) -> bool:
        """Whether this is a resumed run; refuses another fingerprint, or with `overwrite` clears the folder first.

        Raises
        ------
        RunError
            If the folder holds a run with another fingerprint; the message lists the differences. If it holds results and no
            run.json, which is written before them.
        """
        if overwrite:
            self.remove_outputs()
            return False
        before = self.previous()
        if before is None:
            return False
        changed = differences(before.get("fingerprint", {}), dict(fingerprint))
        if changed:
            lines = "\n  ".join(changed)
            raise RunError(
                f"{self.output_dir} holds a run with other settings, whose results cannot be mixed with these:\n  {lines}\n"
                "Use the same settings to resume it, another --output_dir, or --overwrite to start anew."
            )
        return True

    def previous(self) -> dict[str, Any] | None:
        """What run.json says of the run that is there; None where there is none.

        Raises
        ------
        RunError
            If there are results without it.
        """
        # Looked at in this order: another shard that starts now writes run.json before its first result.
        holds_results = not self.run_json.exists() and self._holds_results()
        before = self.read()
        if before is None and holds_results:
            raise RunError(
                f"{self.output_dir} holds results, and {self.run_json} is gone: nothing tells what they were made with. "
                "Choose another --output_dir, or --overwrite to start anew."
            )
        return before

    def _holds_results(self) -> bool:
        return any("key" in entry for part in self.ledger.glob("*.jsonl") for _offset, entry in entry_lines(part))

    def clean_scratch(self) -> None:
        """Remove what an interrupted process left unfinished."""
        for path in self.scratch.iterdir():
            if path.is_file():
                path.unlink()

    def remove_outputs(self) -> None:
        """Remove every output that the ledger names, then the bookkeeping; nothing else is touched."""
        folders: set[Path] = set()
        for part in sorted(self.ledger.glob("*.jsonl")):
            for _offset, entry in entry_lines(part):
                name = entry.get("shard") or entry.get("output")
                if name:
                    target = self.output_dir / str(name)
                    if target.is_file() or target.is_symlink():  # what has become a folder meanwhile is not ours
                        target.unlink()
                    folders.add(target.parent)
        self._remove_empty(folders)
        shutil.rmtree(self.ledger)
        self.run_json.unlink(missing_ok=True)
        self.remove_tables()
        self.ledger.mkdir()
        sync_folder(self.path)

    def remove_tables(self) -> None:
        """Remove the tables of an earlier start: a reader must not take them for this one's."""
        for name in TABLES:
            (self.path / name).unlink(missing_ok=True)

    def _remove_empty(self, folders: set[Path]) -> None:
        for folder in sorted(folders, key=lambda each: len(each.parts), reverse=True):
            at = folder
            while at not in (self.output_dir, at.parent) and at.is_dir() and not any(at.iterdir()):
                at.rmdir()
                at = at.parent


def _is_of_another_shard(part: Path, shard: tuple[int, int]) -> bool:
    """Whether a part is of another shard of the same division, which may be at work beside this one."""
    found = _PART_SHARD.search(part.name)
    if found is None or shard[1] == 1:
        return False
    number, parts = map(int, found.groups())
    return parts == shard[1] and number != shard[0]


def new_stamp(ledger: Path) -> int:
    """The time in ns for the parts of a start: later than every part's there, also where a clock was set back."""
    latest = max((int(part.name.partition("-")[0]) for part in ledger.glob("[0-9]*-*.jsonl")), default=0)
    return max(time.time_ns(), latest + 1)


def part_name(stamp: int, shard: tuple[int, int], rank: int, world_size: int) -> str:
    """A ledger part's file name; `stamp` (ns since 1970, one for all processes of a start) makes names sort by start."""
    return f"{stamp:020d}-shard{shard[0]}of{shard[1]}-rank{rank}of{world_size}.jsonl"


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What two fingerprints say differently, one line each: 'recipe.name: zscore, now filtered'."""
    lines: list[str] = []
    for key in sorted(set(old) | set(new)):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            lines += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            lines.append(f"{prefix}{key}: {before}, now {after}")
    return lines
