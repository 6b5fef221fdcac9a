"""A trial of a loaded network on one fixed synthetic ECG, before any recording is read.

In: an engine. Out: nothing, or an error that names the checkpoint: a fault of the weights is not a fault of every recording.
"""

from __future__ import annotations

import numpy as np

from ecgfounder.engines.engine import Array, Engine
from ecgfounder.errors import CheckpointError
from ecgfounder.network.bundles import SAMPLING_RATE

_SECONDS = 10
_BEAT = 0.8  # seconds
# Seconds after the beginning of a beat, width in seconds, height.
_WAVES = ((0.20, 0.025, 0.15), (0.355, 0.01, -0.15), (0.38, 0.012, 1.0), (0.41, 0.012, -0.25), (0.62, 0.05, 0.3))


def synthetic_ecg(n_leads: int) -> Array:
    """Ten seconds of regular beats, float32 [n_leads, 5000] at 500 Hz, with mean 0 and standard deviation 1."""
    times = np.arange(_SECONDS * SAMPLING_RATE) / SAMPLING_RATE % _BEAT
    beats = sum(height * np.exp(-0.5 * ((times - at) / width) ** 2) for at, width, height in _WAVES)
    leads = np.cos(np.arange(n_leads))[:, None] * beats
    signal: Array = ((leads - leads.mean()) / leads.std()).astype(np.float32)
    return signal


def refuse_overflow(engine: Engine, checkpoint: str) -> None:
    """Refuse an engine whose feature map of a normal ECG is not finite.

    Raises
    ------
    CheckpointError
        If a value is not finite; the message names the checkpoint and the precision.
    """
    feature_map = engine.embed(synthetic_ecg(engine.in_channels)[None])
    if not np.isfinite(feature_map).all():
        raise CheckpointError(
            f"the checkpoint {checkpoint} gives values that are not finite for a normal ECG in {engine.precision}: "
            "its weights are damaged or not those of this network"
            + ("" if engine.precision == "float32" else "; or the precision is too low: use precision='float32'")
        )
