"""The disk space that a run needs, compared with the space that is free.

In: the number of recordings to do, the settings, the output folder. Out: a `Budget`; a run that does not fit is refused.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.errors import RunError
from ecgfounder.ledger.groups.writer import USUAL as GROUP_BOUNDS
from ecgfounder.ledger.ledger import DONE, LedgerState
from ecgfounder.network.bundles import FEATURES, SAMPLES_PER_TOKEN, SAMPLING_RATE
from ecgfounder.preprocess.preparation import ALL_LEADS
from ecgfounder.run.settings import Settings
from ecgfounder.storage import Location

MANY_FILES = 50_000
TYPICAL_SECONDS = 10.0
LEDGER_BYTES = 900
"""Bytes of one ledger line with its manifest row."""

# Measured on feature maps of real recordings: text takes 10.6 bytes per number, split and compressed float32 3.4.
_BYTES_PER_VALUE = {("json", "float32"): 10.6, ("parquet", "float32"): 3.4, ("parquet", "float16"): 2.0}
_TOKENS_PER_SECOND = SAMPLING_RATE / SAMPLES_PER_TOKEN
_SAMPLED = 1000
_LISTED_AT_ONCE = 1000
_REQUESTS_PER_ATTEMPT = 50
"""Requests for the lease, the epoch, run.json and the tables of a short attempt, about."""


@dataclass(frozen=True)
class Budget:
    """The space that the records to do need.

    Attributes
    ----------
    bytes, files : int
        Estimated for the outputs that are still to be written.
    free_bytes, free_files : int or None
        Free space of the file system; None for what the file system does not report, or for an object store.
    requests : int or None
        Estimated requests to the object store of the outputs; None for a folder on this machine.
    """

    bytes: int
    files: int
    free_bytes: int | None
    free_files: int | None
    requests: int | None = None

    @property
    def fits(self) -> bool:
        return (self.free_bytes is None or self.bytes <= self.free_bytes) and (
            self.free_files is None or self.files <= self.free_files
        )

    def check(self, output_dir: Location) -> None:
        """Refuse a run that does not fit.

        Raises
        ------
        RunError
            If the space is not enough; the message gives the needed and the free space.
        """
        if not self.fits and self.free_bytes is not None:
            free = f"{megabytes(self.free_bytes)}" + (
                "" if self.free_files is None else f" and {self.free_files:,} files"
            )
            raise RunError(
                f"The embeddings need about {megabytes(self.bytes)} in {self.files:,} files, and {output_dir} has room for "
                f"{free}. format='parquet' takes a third, pooling='mean' a twentieth; or choose another output_dir."
            )


def make_budget(n_todo: int, settings: Settings, state: LedgerState, output_dir: Location) -> Budget:
    """Estimate from the shapes of finished records; if there are none yet, from a recording of ten seconds."""
    values = _values_per_record(settings, state)
    size = int(n_todo * (values * _BYTES_PER_VALUE[settings.format, settings.dtype] + LEDGER_BYTES))
    files = n_todo if settings.format == "json" else math.ceil(n_todo / settings.shard_size)
    if not output_dir.is_local:
        return Budget(size, files, None, None, _requests(n_todo, files, len(state), settings))
    at = output_dir.path
    while not at.exists():
        at = at.parent
    room = os.statvfs(at)
    return Budget(size, files, room.f_bavail * room.f_frsize, room.f_favail if room.f_files else None)


def _requests(n_todo: int, files: int, n_known: int, settings: Settings) -> int:
    """Requests for writing the outputs, with the lease and the listings; without those for reading the cohort."""
    parts = files if settings.format == "parquet" else math.ceil(n_todo / GROUP_BOUNDS.records)
    listed = math.ceil((n_todo + n_known if settings.format == "json" else files) / _LISTED_AT_ONCE)
    return files + 2 * parts + 2 * listed + _REQUESTS_PER_ATTEMPT


def _values_per_record(settings: Settings, state: LedgerState) -> float:
    done = (state.status == DONE).nonzero()[0][:_SAMPLED]
    sizes = [math.prod(entry.shape or ()) for entry in state.entries(done.tolist())]
    if sizes:
        return sum(sizes) / len(sizes)
    tokens = 1 if settings.pooling == "mean" else math.ceil(TYPICAL_SECONDS * _TOKENS_PER_SECOND)
    leads = len(STANDARD_LEADS) if settings.preparation.lead == ALL_LEADS and settings.mode == "1lead" else 1
    return tokens * FEATURES * leads


def megabytes(count: int) -> str:
    """A human-readable number of bytes."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
