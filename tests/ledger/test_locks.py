"""One run at a time on a folder; the refused one is told who has it, and the dead hold nothing."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from ecgfounder.errors import RunError
from ecgfounder.ledger import liveness
from ecgfounder.ledger.liveness import STALE_SECONDS, own_name
from ecgfounder.ledger.locks import RunLock

HOLD = """
import sys, time
from pathlib import Path
from ecgfounder.ledger.locks import RunLock
lock = RunLock(Path(sys.argv[1]), (int(sys.argv[2]), int(sys.argv[3])))
print("held", flush=True)
time.sleep(60)
"""


class Holder:
    """Another process that holds a lock."""

    def __init__(self, folder: Path, shard: tuple[int, int] = (1, 1)) -> None:
        command = [sys.executable, "-c", HOLD, str(folder), *map(str, shard)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "held\n"

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "out" / "_run" / "locks"


@pytest.fixture
def holder(folder: Path) -> Iterator[Holder]:
    other = Holder(folder)
    yield other
    other.kill()


@pytest.fixture
def without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system whose kernel locks do not work, as some cluster file systems are mounted."""

    def refuse(_descriptor: int, _kind: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)


def write_lock(path: Path, age: float = 0.0, shard: tuple[int, int] = (1, 1), **name: Any) -> None:
    """A lock file as process 4242 of another machine leaves it, or one with another name; touched `age` seconds ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    elsewhere = {"host": "node17", "pid": 4242, "boot": "another", "pid_namespace": "another", "mount": 1}
    more = {"started": "2026-01-02 03:04:05", "shard": list(shard)}
    path.write_bytes(orjson.dumps(elsewhere | more | name))
    os.utime(path, (time.time() - age,) * 2)


def here(folder: Path) -> dict[str, Any]:
    """The name of a process of this machine that sees the folder through the same mount."""
    folder.mkdir(parents=True)
    return own_name() | {"mount": folder.stat().st_dev}


def test_the_second_is_refused_and_told_host_process_and_folder(folder: Path, holder: Holder) -> None:
    with pytest.raises(RunError) as refused:
        RunLock(folder)
    message = str(refused.value)
    assert f"process {holder.process.pid} on {socket.gethostname()}" in message
    assert str(folder.parent.parent) in message
    assert "output_dir" in message


def test_the_second_within_one_process_is_refused_too(folder: Path) -> None:
    with RunLock(folder), pytest.raises(RunError, match=f"process {os.getpid()} "):
        RunLock(folder)


def test_the_refused_one_takes_nothing_from_the_holder(folder: Path, holder: Holder) -> None:
    for _ in range(3):
        with pytest.raises(RunError, match=f"process {holder.process.pid} "):
            RunLock(folder)


def test_the_lock_of_a_killed_process_is_taken_over(folder: Path, holder: Holder) -> None:
    holder.kill()
    assert b"pid" in (folder / "run.lock").read_bytes()  # its name still stands there
    with RunLock(folder):
        assert orjson.loads((folder / "run.lock").read_bytes())["pid"] == os.getpid()


def test_a_released_lock_lets_the_next_one_in(folder: Path) -> None:
    for shard in ((1, 1), (2, 3), (1, 1), (1, 2), (2, 3)):
        with RunLock(folder, shard):
            pass
    assert all(path.read_bytes() == b"" for path in folder.iterdir())


def test_shards_of_one_division_run_side_by_side(folder: Path) -> None:
    with RunLock(folder, (1, 3)), RunLock(folder, (2, 3)), RunLock(folder, (3, 3)):
        pass


def test_the_same_shard_twice_is_refused(folder: Path) -> None:
    with RunLock(folder, (1, 3)), RunLock(folder, (2, 3)), pytest.raises(RunError, match=f"process {os.getpid()} "):
        RunLock(folder, (2, 3))


@pytest.mark.parametrize("other", [(1, 2), (3, 4), (2, 30), (1, 1)])
def test_another_division_or_a_whole_run_is_refused_beside_a_shard(folder: Path, other: tuple[int, int]) -> None:
    first = Holder(folder, (2, 3))
    try:
        with pytest.raises(RunError, match=f"process {first.process.pid} on {socket.gethostname()}"):
            RunLock(folder, other)
    finally:
        first.kill()
    with RunLock(folder, other):
        pass


def test_a_shard_is_refused_beside_a_whole_run(folder: Path, holder: Holder) -> None:
    with pytest.raises(RunError, match=f"process {holder.process.pid} "):
        RunLock(folder, (1, 3))


def test_a_whole_run_is_refused_while_one_of_several_shards_is_left(folder: Path) -> None:
    with RunLock(folder, (1, 2)):
        with RunLock(folder, (2, 2)):
            pass
        with pytest.raises(RunError, match=f"process {os.getpid()} on {socket.gethostname()}"):
            RunLock(folder)


def test_shards_that_start_at_once_after_another_division_do_not_refuse_each_other(folder: Path) -> None:
    with RunLock(folder, (1, 2)):
        pass  # leaves its file, which all those that come later look at
    descriptor = os.open(folder / "shard-1-of-2.lock", os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)  # one that is just looking
        with RunLock(folder, (1, 3)):
            pass
    finally:
        os.close(descriptor)


def test_another_machine_with_a_fresh_heartbeat_is_refused(folder: Path) -> None:
    write_lock(folder / "run.lock", age=STALE_SECONDS / 2)
    for shard in ((1, 1), (1, 3)):
        with pytest.raises(RunError, match=r"process 4242 on node17, started 2026-01-02 03:04:05"):
            RunLock(folder, shard)


def test_another_machine_with_a_stale_heartbeat_is_taken_over(folder: Path) -> None:
    write_lock(folder / "run.lock", age=STALE_SECONDS * 2)
    with RunLock(folder):
        assert orjson.loads((folder / "run.lock").read_bytes())["host"] == socket.gethostname()


def test_another_machine_of_the_same_host_name_is_another_machine(folder: Path) -> None:
    write_lock(folder / "run.lock", host=socket.gethostname(), pid=os.getpid())
    with pytest.raises(RunError, match=f"process {os.getpid()} on {socket.gethostname()}"):
        RunLock(folder)


def test_a_container_of_this_machine_that_died_is_taken_over_at_once_whatever_its_name(folder: Path) -> None:
    write_lock(folder / "run.lock", **here(folder) | {"host": "f00d", "pid": 1, "pid_namespace": "pid:[1]"})
    with RunLock(folder):
        pass


def test_a_container_with_a_mount_of_its_own_decides_by_its_heartbeat(folder: Path) -> None:
    write_lock(folder / "run.lock", **here(folder) | {"mount": 1})
    with pytest.raises(RunError, match="in use"):
        RunLock(folder)


@pytest.mark.parametrize("ours", [(1, 1), (2, 3), (1, 4)])
def test_a_shard_on_another_machine_is_respected(folder: Path, ours: tuple[int, int]) -> None:
    write_lock(folder / "shard-2-of-3.lock", shard=(2, 3))
    with pytest.raises(RunError, match="process 4242 on node17"):
        RunLock(folder, ours)
    with RunLock(folder, (1, 3)):
        pass


@pytest.mark.usefixtures("without_locks")
class TestWithoutKernelLocks:
    def test_a_live_process_is_respected(self, folder: Path) -> None:
        with RunLock(folder), pytest.raises(RunError, match=f"process {os.getpid()} "):
            RunLock(folder)
        with RunLock(folder):
            pass

    def test_a_dead_process_is_taken_over(self, folder: Path) -> None:
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        write_lock(folder / "run.lock", **here(folder) | {"pid": gone.pid})
        with RunLock(folder):
            pass

    def test_a_container_s_process_ids_say_nothing(self, folder: Path) -> None:
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        write_lock(folder / "run.lock", **here(folder) | {"pid": gone.pid, "pid_namespace": "pid:[1]"})
        with pytest.raises(RunError, match="in use"):
            RunLock(folder)

    def test_another_machine_decides_by_its_heartbeat(self, folder: Path) -> None:
        write_lock(folder / "run.lock")
        with pytest.raises(RunError, match="node17"):
            RunLock(folder)
        write_lock(folder / "run.lock", age=STALE_SECONDS * 2)
        with RunLock(folder):
            pass

    def test_shards_run_side_by_side_and_not_twice(self, folder: Path) -> None:
        with RunLock(folder, (1, 2)), RunLock(folder, (2, 2)):
            for other in ((2, 2), (1, 3), (1, 1)):
                with pytest.raises(RunError, match="in use"):
                    RunLock(folder, other)
        with RunLock(folder, (1, 3)):
            pass


def test_the_heartbeat_keeps_the_lock_fresh_and_ends_with_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "HEARTBEAT_SECONDS", 0.05)
    with RunLock(folder):
        os.utime(folder / "run.lock", (0, 0))
        deadline = time.monotonic() + 10
        while (folder / "run.lock").stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    os.utime(folder / "run.lock", (0, 0))
    time.sleep(0.3)
    assert (folder / "run.lock").stat().st_mtime == 0


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"pid": 3}', b"\xff\x00", b"x" * 10_000])
def test_a_lock_file_with_anything_in_it_and_no_holder_is_free(folder: Path, content: bytes) -> None:
    folder.mkdir(parents=True)
    (folder / "run.lock").write_bytes(content)
    with RunLock(folder):
        pass


def test_a_lock_that_cannot_be_opened_is_a_refusal(folder: Path) -> None:
    (folder / "run.lock").mkdir(parents=True)
    with pytest.raises(RunError, match=r"run\.lock cannot be opened"):
        RunLock(folder)


def test_a_refused_start_leaves_no_thread_and_no_open_file(folder: Path, holder: Holder) -> None:
    import threading

    threads, files = threading.active_count(), len(os.listdir("/dev/fd"))
    for shard in ((1, 1), (1, 2)):
        with pytest.raises(RunError):
            RunLock(folder, shard)
    assert (threading.active_count(), len(os.listdir("/dev/fd"))) == (threads, files)
