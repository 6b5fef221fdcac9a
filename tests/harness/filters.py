"""Steps of a recipe that are slow, or that kill the process that prepares a certain recording.

In: samples. Out: the same samples, if the process lives. They are in a module of their own, so that workers can import them.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float64]

DEADLY = 7.5
"""The first sample, in mV, of the recording that kills."""


@dataclass(frozen=True)
class Slow:
    """Takes some seconds for each recording."""

    seconds: float

    def definition(self) -> dict[str, Any]:
        return {"filter": "slow"}

    def minimum_samples(self, sampling_rate: float) -> int:
        return 1

    def apply(self, samples: Samples, sampling_rate: float) -> Samples:
        time.sleep(self.seconds)
        return samples.copy()


@dataclass(frozen=True)
class Deadly:
    """Kills the process at a recording that begins with `DEADLY`; with `flag`, at any while a file of this name exists.

    With `once`, only if a file of this name does not exist, which it then writes.
    """

    flag: str = ""
    once: str = ""

    def definition(self) -> dict[str, Any]:
        return {"filter": "deadly"}

    def minimum_samples(self, sampling_rate: float) -> int:
        return 1

    def apply(self, samples: Samples, sampling_rate: float) -> Samples:
        if self._is_due(samples):
            os.kill(os.getpid(), signal.SIGKILL)
        return samples.copy()

    def _is_due(self, samples: Samples) -> bool:
        if self.once:
            try:
                os.close(os.open(self.once, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return False
            return True
        return os.path.exists(self.flag) if self.flag else bool(samples[0, 0] == DEADLY)
