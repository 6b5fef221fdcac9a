"""An engine of lower precision, compared with a float32 engine on the first recordings.

In: batches. Out: the feature maps of the engine in use, and their relative error, measured on the run's first recordings.
"""

from __future__ import annotations

import threading
from contextlib import suppress

import numpy as np

from ecgfounder.engines.engine import Array, Engine
from ecgfounder.errors import EmbeddingError

RECORDINGS_MEASURED = 16


class MeteredEngine(Engine):
    """Computes with `engine`; the first `RECORDINGS_MEASURED` signals also with `reference`, which is then closed."""

    def __init__(self, engine: Engine, reference: Engine) -> None:
        super().__init__(
            precision=engine.precision,
            device=engine.device,
            threads=engine.threads,
            batch_size=engine.batch_size,
            in_channels=engine.in_channels,
            head=engine.head,
        )
        self.name = engine.name
        self._engine = engine
        self._reference: Engine | None = reference
        self._lock = threading.Lock()
        self._squares = np.zeros(2)  # sums of squares of the differences and of the reference
        self.measured = 0

    @property
    def relative_error(self) -> float | None:
        """Norm of the difference from float32, divided by the norm of the float32 feature maps; None before any measurement."""
        return float(np.sqrt(self._squares[0] / self._squares[1])) if self._squares[1] else None

    def _embed(self, batch: Array) -> Array:
        maps = self._engine.embed(batch)
        self.samples_per_pass = self._engine.samples_per_pass
        with self._lock:
            if self._reference is not None:
                self._measure(batch, maps, self._reference)
        return maps

    def _means(self, batch: Array) -> Array:
        if self._reference is not None:
            return super()._means(batch)
        means = self._engine.means(batch)
        self.samples_per_pass = self._engine.samples_per_pass
        return means

    def empty(self, shape: tuple[int, ...]) -> Array:
        return self._engine.empty(shape)

    def _measure(self, batch: Array, maps: Array, reference: Engine) -> None:
        """Measure on what both can compute: no record fails for it, and one that fails by itself spoils nothing."""
        rows = min(len(batch), RECORDINGS_MEASURED - self.measured)
        self.measured += rows
        with suppress(EmbeddingError):
            exact = reference.embed(batch[:rows]).astype(np.float64)
            known = np.isfinite(maps[:rows]).all(axis=(1, 2)) & np.isfinite(exact).all(axis=(1, 2))
            self._squares += [np.square(maps[:rows][known] - exact[known]).sum(), np.square(exact[known]).sum()]
        if self.measured >= RECORDINGS_MEASURED:
            reference.close()
            self._reference = None

    def describe(self) -> str:
        return self._engine.describe()

    def close(self) -> None:
        self._engine.close()
        if self._reference is not None:
            self._reference.close()
            self._reference = None
