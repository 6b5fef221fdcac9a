"""Where a Ray cluster is, and what each of its workers has: settings, without what drives it.

In: values of parameters. Out: `ActorSettings`, or an error.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from ecgfounder.errors import SettingsError

ADDRESS = re.compile(r"(\[[0-9a-fA-F:]+\]|[^\s/:\[\]]+):\d{1,5}")
"""HOST:PORT of a cluster's head."""


@dataclass(frozen=True)
class ActorSettings:
    """Where workers run, and what each has.

    Attributes
    ----------
    address : str or None
        "auto" (the cluster of this machine or of RAY_ADDRESS), "HOST:PORT", or "local" (an own one on this machine); None is
        "auto" where RAY_ADDRESS is set, else "local".
    gpus, cpus : float or None, int or None
        Of each worker; None for one GPU where the cluster has any, and for the cores that go with it.
    least, most : int, int or None
        Number of workers.
    """

    address: str | None = None
    gpus: float | None = None
    cpus: int | None = None
    least: int = 1
    most: int | None = None

    def __post_init__(self) -> None:
        if self.address is not None:
            _check_address(self.address)
        if self.gpus is not None and not (math.isfinite(self.gpus) and self.gpus >= 0):
            raise SettingsError(
                f"Invalid value for the 'gpus_per_actor' parameter. It must be at least 0, got {self.gpus}."
            )
        if self.cpus is not None and self.cpus < 1:
            raise SettingsError(
                f"Invalid value for the 'cpus_per_actor' parameter. It must be at least 1, got {self.cpus}."
            )
        if self.least < 1 or (self.most is not None and self.most < self.least):
            most = "" if self.most is None else self.most
            raise SettingsError(
                "Invalid value for the 'actors' parameter. It must be MIN:MAX with 1 <= MIN <= MAX, got "
                f"{self.least}:{most}."
            )


def _check_address(address: str) -> None:
    if address.startswith("ray://"):
        raise SettingsError(
            f"Invalid value for the 'ray_address' parameter. {address} is an address of the Ray Client, through which a run "
            "cannot be driven: start it on a machine of the cluster with ray_address='auto', or submit it (ray job submit)."
        )
    if address not in ("auto", "local") and ADDRESS.fullmatch(address) is None:
        raise SettingsError(
            f"Invalid value for the 'ray_address' parameter. It must be 'auto', 'local' or HOST:PORT, got {address!r}."
        )
