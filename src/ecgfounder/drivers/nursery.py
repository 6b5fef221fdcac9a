"""A process that has imported what reading needs, from which workers are forked in a tenth of the time of a start.

In: a worker's ends of its pipe and its ring. Out: the worker, with the methods of `multiprocessing.Process` that a pool needs.
Only where there are rings (Linux).
"""

from __future__ import annotations

import atexit
import errno
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
from ecgfounder.machine import AwakeClock
from ecgfounder.stages.read import ReadTask

_REQUEST = struct.Struct("<qqd")  # its number; the process to wait for, `_NONE` to fork one; for how many seconds
_REPLY = struct.Struct("<qq")  # the request's number; the new process or a negative error number, or the exit status
_NONE = 0
_IS_ALIVE = 1 << 32

_GRACE = 10.0  # seconds after which an answer comes no more
_LOOK_SECONDS = 0.25


class Forked:
    """A worker that is forked from a nursery.

    Attributes
    ----------
    exitcode : int or None
        The exit status, or the negative number of the signal that killed it; None if it was not seen to end.
    refusal : str
        The system's message, if it allows no further process.
    """

    def __init__(self, nursery: Nursery, pipe: Connection, ring: Ring) -> None:
        self.exitcode: int | None = None
        self.known_pid: int | None = None
        self.refusal = ""
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
        return self._nursery if self.known_pid is None and not self.refusal else self

    def is_alive(self) -> bool:
        self.join(0.0)
        return self.exitcode is None

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended, for `timeout` seconds at most."""
        self._nursery.await_birth(self, timeout)
        while self.exitcode is None and self.known_pid is not None:
            self.exitcode = self._nursery.exit_status(self.known_pid, 1.0 if timeout is None else timeout)
            if timeout is not None:
                return

    def kill(self) -> None:
        """Kill it; while the nursery starts, kill that."""
        self._nursery.await_birth(self, 0.0)
        if self._nursery.has_started:
            self._nursery.await_birth(self, _GRACE)
        self.join(0.0)  # once its end was asked for, the number may be another process's
        if self.exitcode is not None:
            return
        if self.known_pid is None:
            self._nursery.kill()
        else:
            with suppress(ProcessLookupError):  # the nursery died just now
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
            try:
                self._process.start()
            finally:
                self._theirs.close()
        number = next(self._numbers)
        self._unborn[number] = worker
        try:
            self._socket.settimeout(None)
            socket.send_fds(self._socket, [_REQUEST.pack(number, _NONE, 0.0)], [pipe.fileno(), ring.fileno()])
        except OSError:  # it has died, or takes no more
            self.kill()

    def await_birth(self, worker: Forked, timeout: float | None) -> None:
        """Wait until a worker has been forked, or has failed to, for `timeout` seconds at most."""
        while worker in self._unborn.values():
            try:
                self._receive(timeout)
            except TimeoutError:
                return

    def exit_status(self, pid: int, timeout: float) -> int | None:
        """How a worker ended; None if it did not within `timeout` seconds."""
        if self._is_closed:
            return -signal.SIGKILL
        number = next(self._numbers)
        clock = AwakeClock(longest=4 * _LOOK_SECONDS)  # after a suspension it may answer later than this process asks
        until = clock.now() + timeout + _GRACE
        try:
            self._socket.settimeout(_GRACE)
            self._socket.send(_REQUEST.pack(number, pid, timeout))
        except OSError:
            until = 0.0
        while clock.now() < until:
            with suppress(TimeoutError):
                reply = self._receive(_LOOK_SECONDS)
                if reply is None:
                    break
                if reply[0] == number:
                    return None if reply[1] == _IS_ALIVE else reply[1]
        self.kill()  # it has died, or does not answer
        return -signal.SIGKILL  # so do its workers

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
            if value > 0:
                worker.known_pid = value
            else:
                worker.exitcode, worker.refusal = 1, os.strerror(-value)
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
        self._is_closed = True
        if not self._process.is_alive():  # else it is in a system call that does not end
            self._process.close()


def _nurse(requests: socket.socket, task: ReadTask, rows: int) -> None:
    """The nursery's main loop, until the other end of the socket is closed."""
    for number in ENDING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # if it is ignored, exit statuses are lost
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)
    die_with_parent()
    gc.collect()
    gc.freeze()  # a collection in a worker would copy the memory that it shares with the others
    ended: dict[int, int] = {}  # exit statuses of workers: the answer to a question may be lost
    with suppress(ConnectionError):  # the main process has died
        while True:
            request, files, _flags, _address = socket.recv_fds(requests, _REQUEST.size, 2)
            if not request:
                return
            number, pid, seconds = _REQUEST.unpack(request)
            if pid == _NONE:
                value = _forked(requests, files, task, rows)
                ended.pop(value, None)
                for file in files:
                    os.close(file)
            else:
                value = ended.get(pid, _IS_ALIVE)
                if value == _IS_ALIVE:
                    value = _exit_status(pid, seconds)
                if value != _IS_ALIVE:
                    ended[pid] = value
            requests.send(_REPLY.pack(number, value))


def _forked(requests: socket.socket, files: list[int], task: ReadTask, rows: int) -> int:
    """A new worker's process number, a negative error number if the system allows no further process."""
    nursery = os.getpid()
    sys.stdout.flush()  # else each worker would say it again
    try:
        pid = os.fork()
    except OSError as error:
        return -(error.errno or errno.EAGAIN)
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
        atexit._run_exitfuncs()  # as at the end of any process, but without taking the interpreter apart
        with suppress(OSError, ValueError):
            sys.stdout.flush()
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
