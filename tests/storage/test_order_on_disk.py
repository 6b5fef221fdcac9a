"""What a power cut leaves: a name only with its whole content, and a ledger line only after the output that it names.

`Disk` keeps the file systems' bargain: of a file survives what it held when it was synced last, of a folder the names that it had
when it was synced last.
"""

from __future__ import annotations

import builtins
import io
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ecgfounder.ledger.card import CARD
from ecgfounder.ledger.entry import Commitment, Entry, parse_line
from ecgfounder.results.export import export_run
from ecgfounder.run import run as run_module
from ecgfounder.sinks.json import JsonSink
from ecgfounder.sinks.npy import NpySink
from ecgfounder.sinks.parquet import ParquetSink
from ecgfounder.sinks.sink import Output, Sink, Written
from ecgfounder.storage.replace import replace_file
from tests.builders.cohorts import settings_for, write_cohort
from tests.harness.stand_ins import NullEngine, Silent

PREFIX = "00000000000000000001-shard1of1-rank0of1"


class Disk:
    """The file operations below a folder, and what of it would be left if the power went now.

    Attributes
    ----------
    steps : ("sync", file), ("sync folder", folder), ("name", file), ("unlink", file), in order.
    after_sync : called after each sync of a file, with its path.
    """

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.steps: list[tuple[str, str]] = []
        self.after_sync: Callable[[Path], None] = lambda _path: None
        self.before_unlink: Callable[[Path], None] = lambda _path: None
        self._lock = threading.RLock()
        self._paths: dict[int, Path] = {}  # of files that were opened for writing, by inode
        self._synced: dict[int, bytes] = {}  # what of a file is on disk, by inode
        self._names: dict[Path, dict[str, int]] = {}  # what of a folder is on disk
        self._real = {name: getattr(os, name) for name in ("fsync", "replace", "rename", "link", "open", "unlink")}
        self._open = builtins.open
        patch.setattr(os, "fsync", self._sync)
        patch.setattr(os, "open", self._os_open)
        patch.setattr(os, "unlink", self._unlink)
        for name in ("replace", "rename", "link"):
            patch.setattr(os, name, lambda *args, name=name, **more: self._name(name, *args, **more))
        patch.setattr(builtins, "open", self._opened)
        patch.setattr(io, "open", self._opened)

    def survivors(self) -> dict[str, bytes]:
        """Every file that a power cut would leave, by its path below the root."""
        with self._lock:
            return {str(path.relative_to(self.root)): content for path, content in self._below(self.root)}

    def _below(self, folder: Path) -> Iterator[tuple[Path, bytes]]:
        for name, inode in self._names.get(folder, {}).items():
            if folder / name in self._names or (folder / name).is_dir():
                yield from self._below(folder / name)
            else:
                yield folder / name, self._synced.get(inode, b"")

    def _is_ours(self, path: Any) -> bool:
        return isinstance(path, str | os.PathLike) and Path(os.fsdecode(path)).is_relative_to(self.root)

    def _opened(self, file: Any, mode: str = "r", *args: Any, **more: Any) -> Any:
        opened = self._open(file, mode, *args, **more)
        if self._is_ours(file) and set(mode) & set("wax+"):
            self._begun(Path(os.fsdecode(file)), os.fstat(opened.fileno()).st_ino, new=bool(set(mode) & set("wx")))
        return opened

    def _os_open(self, path: Any, flags: int, *args: Any, **more: Any) -> int:
        descriptor: int = self._real["open"](path, flags, *args, **more)
        if self._is_ours(path) and flags & (os.O_WRONLY | os.O_RDWR):
            new = bool(flags & (os.O_EXCL | os.O_TRUNC))
            self._begun(Path(os.fsdecode(path)), os.fstat(descriptor).st_ino, new=new)
        return descriptor

    def _begun(self, path: Path, inode: int, *, new: bool) -> None:
        with self._lock:
            self._paths[inode] = path
            if new:
                self._synced.pop(inode, None)

    def _sync(self, descriptor: int) -> None:
        self._real["fsync"](descriptor)
        status = os.fstat(descriptor)
        with self._lock:
            if stat.S_ISDIR(status.st_mode):
                folder = next((path for path in self._folders() if path.stat().st_ino == status.st_ino), None)
                if folder is not None:
                    self._names[folder] = {entry.name: entry.inode() for entry in os.scandir(folder)}
                    self._step("sync folder", folder)
                return
            path = self._paths.get(status.st_ino)
            if path is None:  # somewhere else
                return
            with self._open(path, "rb") as file:
                self._synced[status.st_ino] = file.read()
            self._step("sync", path)
            self.after_sync(path)

    def _folders(self) -> Iterator[Path]:
        return (Path(folder) for folder, _, _ in os.walk(self.root))

    def _name(self, how: str, source: Any, target: Any, **more: Any) -> None:
        with self._lock:
            if self._is_ours(target):
                with self._open(source, "rb") as file:
                    inode, content = os.fstat(file.fileno()).st_ino, file.read()
                assert self._synced.get(inode) == content, f"{target} gets its name before its content is on disk"
                self._paths[inode] = Path(os.fsdecode(target))
                self._step("name", target)
            self._real[how](source, target, **more)

    def _unlink(self, path: Any, **more: Any) -> None:
        if self._is_ours(path):
            self.before_unlink(Path(os.fsdecode(path)))
            self._step("unlink", path)
        self._real["unlink"](path, **more)

    def _step(self, kind: str, path: Any) -> None:
        self.steps.append((kind, str(Path(os.fsdecode(path)).relative_to(self.root))))


class Books:
    """Looks at each sync of a part of a ledger whether all that it tells of would survive, and with which run.json."""

    def __init__(self, disk: Disk, out: Path) -> None:
        self.disk, self.out = disk, out
        self.told: set[str] = set()  # outputs and shards that lines counted
        self.records: list[dict[str, Any]] = []  # run.json, as it was when a line was written
        disk.after_sync = self._look

    def _look(self, path: Path) -> None:
        if path.parent != self.out / "_run" / "ledger":
            return
        lines = [parse_line(raw) for raw in path.read_bytes().splitlines()]
        whole = [line for line in lines if isinstance(line, Commitment) or (line is not None and line.shard is None)]
        if not whole:
            return
        left = self.disk.survivors()
        names = [line.shard if isinstance(line, Commitment) else line.output for line in whole]
        for name in filter(None, names):
            told = str((self.out / name).relative_to(self.disk.root))
            assert told in left, f"a line tells of {name}, which is not on disk"
            assert left[told] == (self.out / name).read_bytes()
            self.told.add(name)
        told = str((self.out / "_run" / "run.json").relative_to(self.disk.root))
        self.records.append(orjson.loads(left[told]))


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    root = tmp_path / "disk"
    root.mkdir()
    with monkeypatch.context() as patch:
        yield Disk(root, patch)


def outputs_in(out: Path) -> set[str]:
    files = (path for path in out.rglob("*") if path.is_file() and path.relative_to(out).parts[0] != "_run")
    return {str(path.relative_to(out)) for path in files} - {CARD}


def start(tmp_path: Path, out: Path, **settings: Any) -> Any:
    """A run with an engine that costs nothing."""
    checkpoint = tmp_path / "weights.pth"
    checkpoint.write_bytes(b"weights")
    if not (tmp_path / "cohort").exists():
        write_cohort(tmp_path / "cohort", 9)
        (tmp_path / "cohort" / "below" / "deep").mkdir(parents=True)
        np.save(
            tmp_path / "cohort" / "below" / "deep" / "x.npy", np.random.default_rng(1).random((12, 600), np.float32)
        )
    told = settings_for(tmp_path / "cohort", out, checkpoint, **settings)
    with mock.patch.object(run_module, "create_engine", return_value=NullEngine()):
        return run_module.Run(told, Silent()).execute()


# --- runs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"layout": "tree"}, {"format": "parquet"}], ids=["json", "tree", "parquet"])
def test_each_output_of_a_run_is_on_disk_under_its_name_before_a_line_tells_of_it(
    tmp_path: Path, disk: Disk, settings: dict[str, Any]
) -> None:
    out = disk.root / "out"
    books = Books(disk, out)
    summary = start(tmp_path, out, **settings)
    assert summary.outcome == "complete"
    assert books.told == outputs_in(out)
    assert len(books.told) == (2 if settings.get("format") == "parquet" else 8)


@pytest.mark.parametrize("form", ["json", "parquet"])
def test_the_runs_record_is_on_disk_before_its_first_result_and_is_never_half_there(
    tmp_path: Path, disk: Disk, form: str
) -> None:
    out = disk.root / "out"
    books = Books(disk, out)
    name, seen = "out/_run/run.json", set()
    look = disk.after_sync

    def after_sync(path: Path) -> None:
        look(path)
        content = disk.survivors().get(name)
        if content is not None:
            seen.add(orjson.loads(content)["outcome"])

    disk.after_sync = after_sync
    start(tmp_path, out, format=form)
    assert {record["outcome"] for record in books.records} == {"running"}
    assert seen == {"running"}
    assert orjson.loads(disk.survivors()[name])["outcome"] == "complete"


def test_what_a_run_leaves_survives_as_it_is(tmp_path: Path, disk: Disk) -> None:
    out = disk.root / "out"
    start(tmp_path, out)
    left = disk.survivors()
    files = [path for path in out.rglob("*") if path.is_file() and "locks" not in path.parts]
    assert len(files) > 10
    for path in files:
        assert left.get(str(path.relative_to(disk.root))) == path.read_bytes(), path


def test_an_output_is_removed_only_after_the_line_of_the_failure_that_made_it_obsolete(
    tmp_path: Path, disk: Disk
) -> None:
    out = disk.root / "out"
    start(tmp_path, out)
    (tmp_path / "cohort" / "ecg_00.npy").write_bytes(b"damaged by now")
    removed: list[str] = []

    def before_unlink(path: Path) -> None:
        if path.parent != out:
            return
        parts = [content for name, content in disk.survivors().items() if "_run/ledger/" in name]
        lines = [parse_line(raw) for part in parts for raw in part.splitlines()]
        assert path.name in [line.removes for line in lines if isinstance(line, Entry)]
        removed.append(path.name)

    disk.before_unlink = before_unlink
    assert start(tmp_path, out).failed_now == 1
    assert removed == ["ecg_00.json"]


# --- exports ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", ["json", "npy", "parquet"])
@pytest.mark.parametrize("source", ["json", "parquet"])
def test_each_output_of_an_export_is_on_disk_before_a_line_tells_of_it_and_the_end_comes_last(
    tmp_path: Path, disk: Disk, source: str, to: str
) -> None:
    start(tmp_path, tmp_path / "source", format=source)
    out = disk.root / "out"
    books = Books(disk, out)
    n_records = export_run(tmp_path / "source", out, to, layout="tree", shard_size=4)
    assert n_records == 8
    assert books.told == outputs_in(out)
    assert {record["outcome"] for record in books.records} == {"exporting"}
    left = disk.survivors()
    assert orjson.loads(left["out/_run/run.json"])["outcome"] == "complete"
    tables = {name for name in left if name.startswith("out/_run/") and name.endswith((".pq", ".csv"))}
    assert tables == {"out/_run/manifest.pq", "out/_run/failures.csv"}
    for name in tables:
        assert left[name] == (disk.root / name).read_bytes()
    ends = [place for place, (_, name) in enumerate(disk.steps) if name == "out/_run/run.json"]
    others = [
        place for place, (kind, name) in enumerate(disk.steps) if kind == "name" and not name.endswith("run.json")
    ]
    assert max(others) < max(ends)


# --- sinks by themselves ----------------------------------------------------------------------------------------------


def output(number: int, name: str = "") -> Output:
    return Output(f"{number:016x}", f"{number}.npy", f"{number}.npy", name, (np.full((3, 4), number, np.float32),))


@pytest.mark.parametrize("kind", [JsonSink, NpySink])
def test_files_are_safe_when_a_sink_says_so(disk: Disk, kind: type[JsonSink] | type[NpySink]) -> None:
    out, scratch = disk.root / "out", disk.root / "scratch"
    out.mkdir()
    scratch.mkdir()
    replace_file(disk.root / "probe", b"")  # from here on the folders themselves are there
    sink = kind(out, scratch)
    names = ["a", "below/b", "below/deep/c", "d"]
    written = sink.write([output(number, name) for number, name in enumerate(names)])
    left = disk.survivors()
    assert [each.reference for each in written if isinstance(each, Written)] == names
    for number, name in enumerate(names):
        assert left[f"out/{name}"] == kind.encode(output(number))
    assert not [name for name in left if name.startswith("scratch/")]


def test_a_shard_is_safe_when_a_sink_says_so(disk: Disk) -> None:
    out, scratch = disk.root / "out", disk.root / "scratch"
    out.mkdir()
    scratch.mkdir()
    replace_file(disk.root / "probe", b"")
    sink: Sink = ParquetSink(out, scratch, prefix=PREFIX, shard_size=2)
    assert sink.write([output(0)]) == []
    assert set(disk.survivors()) == {"probe"}
    for number, write in enumerate((lambda: sink.write([output(1), output(2)]), sink.close)):
        (*_, last) = write()
        left = disk.survivors()[f"out/embeddings-{PREFIX}-{number:06d}.parquet"]
        assert pq.read_table(pa.BufferReader(left)).num_rows == last.rows == 2 - number
