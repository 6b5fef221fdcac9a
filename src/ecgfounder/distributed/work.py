"""The messages between the driver of a distributed run and its workers; all of them can be pickled.

In: nothing. Out: `Work`, sent to each worker once; `Group`s of records; the `Facts` of a worker, and the `Outcome` of a group.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ecgfounder._version import __version__
from ecgfounder.ledger.groups.epochs import Epoch
from ecgfounder.ledger.groups.lease import USUAL, Intervals
from ecgfounder.network.head import Head
from ecgfounder.stages.read import Job, ReadTask
from ecgfounder.storage import NO_OPTIONS, Location, StorageOptions

GROUP_SECONDS = 600.0
"""Time after which a group takes no more records; the rest goes into other groups."""


@dataclass(frozen=True, kw_only=True)
class NetworkChoice:
    """The network that workers compute, as for `ecgfounder.engines.create_engine`.

    Attributes
    ----------
    checkpoint : str or None
        As the user gave it.
    can_download : bool
        Whether it is a URL or a name on the Hugging Face Hub, which each machine can read by itself.
    path : str
        The checkpoint's file on the driver's machine.
    sha256 : str
        Its hash, which a worker's file must have.
    """

    mode: str
    checkpoint: str | None
    can_download: bool
    path: str
    sha256: str
    engine: str = "auto"
    precision: str = "float32"
    device: str | None = None
    compiled: bool = False
    batch_size: int | None = None


@dataclass(frozen=True, kw_only=True)
class Work:
    """All that a worker needs to know of an attempt.

    Attributes
    ----------
    output_dir : Location
        Folder of the embeddings and of `_run/`, which all workers must reach.
    data_dir : str
        Folder of the recordings.
    epoch : Epoch
        The attempt's epoch; its token tells the attempt from all others.
    task : ReadTask
        Settings for reading and preparing.
    network : NetworkChoice
        The network.
    pooling, predictions, format, dtype, shard_size, record_column : str, bool or Head, str, str, int, str
        The form of the outputs; a head is that of a probe's file.
    num_workers : int
        Maximum number of reading processes of a worker.
    read_timeout : float
        Seconds for one file.
    read_memory : float or None
        GiB for large files on one machine; None for a quarter of its memory.
    share : float
        The worker's share of its machine.
    cores : int or None
        Number of threads of the network; None for the machine's cores times `share`.
    seconds : float
        Time after which a group takes no more records.
    intervals : Intervals
        Of the driver's lease.
    version : str
        The driver's version of the program.
    """

    output_dir: Location
    data_dir: str
    epoch: Epoch
    task: ReadTask
    network: NetworkChoice
    pooling: str = "none"
    predictions: bool | Head = False
    format: str = "json"
    dtype: str = "float32"
    shard_size: int = 1000
    record_column: str = "ecg_path"
    num_workers: int = 4
    read_timeout: float = 120.0
    read_memory: float | None = None
    share: float = 1.0
    cores: int | None = None
    seconds: float = GROUP_SECONDS
    intervals: Intervals = USUAL
    options: StorageOptions = NO_OPTIONS
    version: str = __version__


@dataclass(frozen=True)
class Group:
    """Some records, whose entries are published together.

    Attributes
    ----------
    number : int
        Unique in the epoch; 0 for a trial, of which nothing is written.
    jobs : tuple of Job
        The records.
    losses : int
        How many workers died while they had these records.
    avoid : str
        The machine on which the last one died.
    """

    number: int
    jobs: tuple[Job, ...]
    losses: int = 0
    avoid: str = ""

    @property
    def is_trial(self) -> bool:
        return self.number == 0

    @property
    def is_alone(self) -> bool:
        """Whether its worker may have no other group beside it."""
        return self.is_trial or self.losses > 0


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a worker says of itself when it has opened its network."""

    host: str
    pid: int
    engine: str
    precision: str
    device: str
    description: str
    batch_size: int


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a group.

    Attributes
    ----------
    number : int
        The group's.
    published : bool
        Whether the group's part of the ledger is this attempt's.
    lost : bool
        Whether another attempt at the group had published its part before.
    undecided : bool
        Whether it is not known if the part is there.
    done, failed : int
        Records in the part.
    reasons : mapping of str to int
        The failed ones by the error's class.
    seconds : mapping of str to float
        Time by stage, of all records.
    slowest : str or None
        The bottleneck, as `ecgfounder.drivers.local.Pipeline.slowest`.
    left : tuple of int
        The places of records that are not in the part, to be done in other groups.
    too_large : tuple of int
        Those of them for which the memory of the worker's device did not suffice: to be tried once on another machine.
    trouble : str or None
        Why the worker has left records that it should have done.
    obsolete : tuple of str
        Earlier outputs of records that failed, which the driver removes.
    good : int or None
        The place of a record that was done.
    facts : Facts
        The worker.
    """

    number: int
    facts: Facts
    published: bool = False
    lost: bool = False
    undecided: bool = False
    done: int = 0
    failed: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    slowest: str | None = None
    left: tuple[int, ...] = ()
    too_large: tuple[int, ...] = ()
    trouble: str | None = None
    obsolete: tuple[str, ...] = ()
    good: int | None = None
    samples_per_pass: int | None = None
    relative_error: float | None = None
