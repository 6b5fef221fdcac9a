"""A process that has imported what reading needs, from which workers are forked in a tenth of the time of a start.

In: a worker's ends of its pipe and its ring. Out: the worker, with the methods of `multiprocessing.Process` that a pool needs.
Only where there are rings (Linux).
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import struct
import sys
import time
from contextlib import suppress
from itertools import count
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext

from ecgfounder.drivers.interruption import ENDING_SIGNALS
from ecgfounder.drivers.ring import Ring, ring_at
from ecgfounder.drivers.wire import die_with_parent, serve
from ecgfounder.stages.read import ReadTask

_REQUEST = struct.Struct("<qqd")  # its number; the process to wait for, `_NONE` to fork one; for how many seconds
_REPLY = struct.Struct("<qq")  # the request's number; the new process, or the exit status
_NONE = 0
_IS_ALIVE = 1 << 32

_GRACE = 10.0  # seconds after which an answer comes no more


class Forked:
    """A worker that is forked from a nursery.

    Attributes
    ----------
    exitcode : int or None
        The exit status, or the negative number of the signal that killed it; None if it was not seen to end.
    """

    def __init__(self, nursery: Nursery, pipe: Connection, ring: Ring) -> None:
        self.exitcode: int | None = None
        self.known_pid: int | None = None
        self._nursery, self._pipe, self._ring = nursery, pipe, ring

    def start(self) -> None:
        """Have it forked. If that fails, the worker has died."""
        self._nursery.fork(self, self._pipe, self._ring)

    @property
    def pid(self) -> int | None:
        """The process's number; None if it has not been forked yet."""
        self._nursery.await_birth(self, 0.0)
        return self.known_pid

    @property
    def origin(self) -> object:
        """What it died with, if it died at its start: the nursery, which others may have died with, or itself."""
        return self._nursery if self.known_pid is None else self

    def is_alive(self) -> bool:
        self.join(0.0)
        return self.exitcode is None

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended, for `timeout` seconds at most."""
        self._nursery.await_birth(self, timeout)
        if self.exitcode is None and self.known_pid is not None:
            self.exitcode = self._nursery.exit_status(self.known_pid, timeout)

    def kill(self) -> None:
        """Kill it; while the nursery starts, kill that."""
        self._nursery.await_birth(self, 0.0)
        if self._nursery.has_started:
            self._nursery.await_birth(self, _GRACE)
        if self.exitcode is not None:
            return
        if self.known_pid is None:
            self._nursery.kill()
        else:
            with suppress(ProcessLookupError):  # the nursery has died; while it lives, it keeps the number
                os.kill(self.known_pid, signal.SIGKILL)

    def close(self) -> None:
        """Nothing: it holds no resources."""


class Nursery:
    """The process that workers are forked from; it is started with the first of them.

    Parameters
    ----------
    context : SpawnContext
        How it is started itself.
    task : ReadTask
        The settings for reading and preparing a path.
    rows : int
        Inputs of short jobs that a worker may put together.

    Attributes
    ----------
    has_started : bool
        Whether it has answered.
    """

    def __init__(self, context: SpawnContext, task: ReadTask, rows: int) -> None:
        self._socket, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = context.Process(
            target=_nurse, args=(self._theirs, task, rows), name="ecgfounder-readers", daemon=True
        )
        self._numbers = count()
        self._unborn: dict[int, Forked] = {}  # workers, by the number of the request
        self.has_started = False
        self._is_closed = False

    @property
    def is_usable(self) -> bool:
        """Whether workers can be forked: it was not started yet, or is alive."""
        return self._process.pid is None or self._process.is_alive()

    def fork(self, worker: Forked, pipe: Connection, ring: Ring) -> None:
        """Have a worker forked, some time later."""
        if self._process.pid is None:
            self._process.start()
            self._theirs.close()
        number = next(self._numbers)
        self._unborn[number] = worker
        try:
            self._socket.settimeout(None)
            socket.send_fds(self._socket, [_REQUEST.pack(number, _NONE, 0.0)], [pipe.fileno(), ring.fileno()])
        except OSError:
            self._note_death()

    def await_birth(self, worker: Forked, timeout: float | None) -> None:
        """Wait until a worker has been forked, or has failed to, for `timeout` seconds at most."""
        while worker in self._unborn.values():
            try:
                self._receive(timeout)
            except TimeoutError:
                return

    def exit_status(self, pid: int, timeout: float | None) -> int | None:
        """How a worker ended; None if it did not within `timeout` seconds."""
        if self._is_closed:
            return -signal.SIGKILL
        number = next(self._numbers)
        patience = None if timeout is None else timeout + _GRACE
        try:
            self._socket.settimeout(patience)
            self._socket.send(_REQUEST.pack(number, pid, float("inf") if timeout is None else timeout))
            while True:
                reply = self._receive(patience)
                if reply is None:
                    return -signal.SIGKILL  # as this process's end is that of its workers
                if reply[0] == number:
                    return None if reply[1] == _IS_ALIVE else reply[1]
        except OSError:  # it has died, or does not answer
            self.kill()
            return -signal.SIGKILL

    def _receive(self, timeout: float | None) -> tuple[int, int] | None:
        """The next reply; None if the nursery has died.

        Raises
        ------
        TimeoutError
            If none has come.
        """
        try:
            self._socket.settimeout(timeout)
            reply = self._socket.recv(_REPLY.size)
        except (BlockingIOError, TimeoutError):
            raise TimeoutError from None
        except OSError:
            reply = b""
        if not reply:
            self._note_death()
            return None
        self.has_started = True
        number, value = _REPLY.unpack(reply)
        worker = self._unborn.pop(number, None)
        if worker is not None:
            worker.known_pid, worker.exitcode = (value, None) if value != _NONE else (None, 1)
        return number, value

    def _note_death(self) -> None:
        """Its workers die with it; those that were not forked yet share its exit status."""
        self._process.join(_GRACE)
        for worker in self._unborn.values():
            worker.exitcode = self._process.exitcode or 1
        self._unborn.clear()

    def kill(self) -> None:
        """Kill it; the kernel kills its workers."""
        if not self._is_closed and self._process.pid is not None:
            self._process.kill()
            self._note_death()

    def close(self, patience: float = 0.0) -> None:
        """End it after its workers; it is killed after `patience` seconds."""
        self._socket.close()
        self._theirs.close()
        if self._process.pid is not None:
            self._process.join(patience)
            self.kill()
        self._process.close()
        self._is_closed = True


def _nurse(requests: socket.socket, task: ReadTask, rows: int) -> None:
    """The nursery's main loop, until the other end of the socket is closed."""
    for number in ENDING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)
    die_with_parent()
    gc.collect()
    gc.freeze()  # a collection in a worker would copy the memory that it shares with the others
    while True:
        request, files, _flags, _address = socket.recv_fds(requests, _REQUEST.size, 2)
        if not request:
            return
        number, pid, seconds = _REQUEST.unpack(request)
        if pid == _NONE:
            value = _forked(requests, files, task, rows)
            for file in files:
                os.close(file)
        else:
            value = _exit_status(pid, seconds)
        requests.send(_REPLY.pack(number, value))


def _forked(requests: socket.socket, files: list[int], task: ReadTask, rows: int) -> int:
    """A new worker's process number, `_NONE` if the system allows no further process."""
    nursery = os.getpid()
    try:
        pid = os.fork()
    except OSError:
        return _NONE
    if pid:
        return pid
    status = 1
    try:
        requests.close()
        die_with_parent()
        if os.getppid() == nursery:  # else it has died meanwhile
            serve(Connection(files[0]), task, ring_at(files[1], rows), rows)
        status = 0
    except Exception:  # noqa: BLE001 - as in any process that ends by an error
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
    finally:
        os._exit(status)


def _exit_status(pid: int, seconds: float) -> int:
    """How a worker ended, `_IS_ALIVE` if it did not in time."""
    deadline, pause = time.monotonic() + seconds, 0.001
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        left = deadline - time.monotonic()
        if left <= 0:
            return _IS_ALIVE
        time.sleep(min(pause, left))
        pause = min(2 * pause, 0.05)
