"""The checkpoint's file on a worker's machine: found there, downloaded from where the user named it, or sent by the driver once.

In: a `NetworkChoice`, and pieces from the driver. Out: the path of a file with the driver's content, else a `CheckpointError`.
"""

from __future__ import annotations

import fcntl
import socket
from collections.abc import Iterable
from pathlib import Path

from ecgfounder.distributed.work import NetworkChoice
from ecgfounder.errors import CheckpointError, ECGFounderError
from ecgfounder.machine import cache_folder
from ecgfounder.network.checkpoint import find_checkpoint, sha256_of
from ecgfounder.storage import NO_OPTIONS, StorageOptions
from ecgfounder.storage.replace import replacing

PIECE_BYTES = 16 << 20
"""Bytes of one message, so that none fills an object store's memory."""


class CheckpointAbsent(ECGFounderError):
    """This machine has no copy of the checkpoint and cannot download one: the driver must send it."""


def pieces_of(path: Path) -> Iterable[bytes]:
    """A file's content in pieces."""
    with open(path, "rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield piece


def checkpoint_here(
    network: NetworkChoice, options: StorageOptions = NO_OPTIONS, pieces: Iterable[bytes] | None = None
) -> Path:
    """The checkpoint's file on this machine, with the content that the driver has.

    Of several workers on one machine, the first one takes the pieces, and the others use its copy in the cache.

    Raises
    ------
    CheckpointAbsent
        If it is not here, and `pieces` is None.
    CheckpointError
        If the file has another content; the message names the machine.
    """
    path = Path(network.path)
    if path.is_file():
        return _checked(path, network)
    if network.can_download:
        try:
            return _checked(find_checkpoint(network.checkpoint, network.mode, options), network)
        except ECGFounderError:
            if pieces is None:
                raise CheckpointAbsent(f"{network.path} is not on {socket.gethostname()}") from None
    return _copy(network, pieces)


def _copy(network: NetworkChoice, pieces: Iterable[bytes] | None) -> Path:
    folder = cache_folder() / "checkpoints" / network.sha256[:16]
    copy = folder / Path(network.path).name
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not copy.is_file():
            if pieces is None:
                raise CheckpointAbsent(f"{network.path} is not on {socket.gethostname()}")
            with replacing(copy) as file:
                for piece in pieces:
                    file.write(piece)
    return _checked(copy, network)


def _checked(path: Path, network: NetworkChoice) -> Path:
    found = sha256_of(path)
    if found != network.sha256:
        raise CheckpointError(
            f"{path} on {socket.gethostname()} is another checkpoint (sha256 {found[:12]}) than the driver's (sha256 "
            f"{network.sha256[:12]}): put the same file there, or remove it"
        )
    return path
