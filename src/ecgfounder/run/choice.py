"""The run of a driver.

In: `Settings`. Out: a `Run`, whose module is imported only if it is wanted.
"""

from __future__ import annotations

from ecgfounder.drivers.interruption import Interruption
from ecgfounder.run.run import Run
from ecgfounder.run.settings import CALLED, Settings
from ecgfounder.run.summary import Console


def make_run(settings: Settings, console: Console, interruption: Interruption | None = None) -> Run:
    """The run that `Settings.driver` names."""
    if settings.driver == "ray":
        from ecgfounder.run.on_ray import RayRun

        return RayRun(settings, console, interruption)
    if settings.driver == CALLED:
        from ecgfounder.run.grouped import CalledRun

        return CalledRun(settings, console, interruption)
    return Run(settings, console, interruption)
