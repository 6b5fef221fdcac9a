"""A process lives as long as the file that it left shows signs of life, whatever its host is called and its clock says."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ecgfounder.ledger import liveness
from ecgfounder.ledger.liveness import STALE_SECONDS, Heartbeat, Watch, own_name, process_is_alive


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Our own clock, to be set."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def passes(clock: list[float], watch: Watch, share: float) -> bool:
    """A share of `STALE_SECONDS` passes while a file is watched; whether it is fresh then."""
    for _ in range(20):
        clock[0] += STALE_SECONDS * share / 20
        fresh = watch.is_fresh()
    return fresh


def test_only_a_process_that_is_known_to_be_gone_is_not_alive() -> None:
    assert process_is_alive(own_name())
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    name = own_name() | {"pid": gone.pid}
    assert not process_is_alive(name)
    assert not process_is_alive(name | {"host": "another name of this machine"})
    for elsewhere in ({"boot": "another kernel"}, {"pid_namespace": "pid:[1]"}):
        assert process_is_alive(name | elsewhere)  # nobody here can know
    assert process_is_alive({"host": socket.gethostname(), "pid": gone.pid})  # it does not say enough


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows it")
def test_a_process_that_ended_is_gone_although_its_parent_has_not_asked_for_it() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    deadline = time.monotonic() + 30
    while process_is_alive(own_name() | {"pid": ended.pid}):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert ended.wait() == 0


def test_a_system_that_hides_its_identity_is_known_by_its_host_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness, "_BOOT_ID", tmp_path / "none")
    monkeypatch.setattr(liveness, "_PID_NAMESPACE", str(tmp_path / "none"))
    assert own_name() == dict.fromkeys(("host", "boot", "pid_namespace"), socket.gethostname()) | {"pid": os.getpid()}


@pytest.mark.parametrize("skew", [-1e6, 0.0, 1e6])
def test_a_file_is_fresh_while_it_changes_whatever_clock_stamps_it(
    skew: float, tmp_path: Path, clock: list[float]
) -> None:
    path = tmp_path / "part"
    path.write_bytes(b"")
    os.utime(path, (time.time() + skew,) * 2)
    watch = Watch(path)
    for beat in range(5):
        assert passes(clock, watch, 0.9)
        os.utime(path, (time.time() + skew + beat + 1,) * 2)
        assert watch.is_fresh()
    assert passes(clock, watch, 0.9)
    assert not passes(clock, watch, 0.2)


def test_a_file_that_grows_is_fresh_where_its_time_stands_still(tmp_path: Path, clock: list[float]) -> None:
    path = tmp_path / "part"
    path.write_bytes(b"")
    os.utime(path, (0, 0))
    watch = Watch(path)
    clock[0] += STALE_SECONDS * 2
    path.write_bytes(b"line")
    os.utime(path, (0, 0))
    assert watch.is_fresh()


def test_a_file_that_never_comes_is_waited_for_as_long_as_one_that_stands_still(
    tmp_path: Path, clock: list[float]
) -> None:
    watch = Watch(tmp_path / "part")
    assert passes(clock, watch, 0.9)
    assert not passes(clock, watch, 0.2)
    (tmp_path / "part").write_bytes(b"")
    assert watch.is_fresh()


def test_a_heartbeat_goes_on_after_an_error_and_ends_when_it_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness, "HEARTBEAT_SECONDS", 0.01)
    real, errors = os.utime, []

    def utime(descriptor: int) -> None:
        if len(errors) < 3:
            errors.append(descriptor)
            raise OSError(116, "Stale file handle")
        real(descriptor)

    monkeypatch.setattr(os, "utime", utime)
    before = threading.active_count()
    with open(tmp_path / "part", "wb") as file:
        real(file.fileno(), (0, 0))
        heartbeat = Heartbeat(file.fileno())
        deadline = time.monotonic() + 10
        while os.fstat(file.fileno()).st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        heartbeat.stop()
        real(file.fileno(), (0, 0))
        time.sleep(0.1)
        assert os.fstat(file.fileno()).st_mtime == 0
    assert len(errors) == 3
    assert threading.active_count() == before
