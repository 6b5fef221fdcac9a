"""Common code of GPU engines: passes through pinned memory on a stream per thread, halved when memory runs out.

In: float32 [B, C, L] on the host. Out: float32 [B, T, 1024] on the host.
"""

from __future__ import annotations

import logging
import threading
from abc import abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ecgfounder.engines.engine import CPU_ROWS, Array, Engine
from ecgfounder.errors import EmbeddingError, OutOfMemoryError, SettingsError
from ecgfounder.network.head import Head

log = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

GPU_ROWS = 128
"""Default number of rows per pass on a GPU: with fewer, the GPU waits for kernel launches."""

_GPU_THREADS = 2  # one call computes while the other transfers samples and feature maps


class DeviceEngine(Engine):
    """An engine whose network is on a `torch.device`."""

    def __init__(
        self,
        device: torch.device,
        *,
        precision: str,
        threads: int,
        batch_size: int | None,
        in_channels: int,
        head: Head | None,
    ) -> None:
        super().__init__(
            precision=precision,
            device=str(device),
            threads=threads if device.type == "cpu" else min(threads, _GPU_THREADS),
            batch_size=CPU_ROWS if device.type == "cpu" else batch_size or GPU_ROWS,
            in_channels=in_channels,
            head=head,
        )
        self._device = device
        self._dtype = DTYPES[precision]
        self._local = threading.local()

    @abstractmethod
    def _maps(self, signals: Tensor) -> Tensor:
        """Feature maps [B, T, 1024], float32 and contiguous, of float32 signals [B, C, L], both on the device."""

    def _embed(self, batch: Array) -> Array:
        return self._guarded(batch, self._in_passes)

    def _guarded(self, batch: Array, compute: Callable[[Array], Array]) -> Array:
        """What `compute` makes of a batch; PyTorch's errors become an `EmbeddingError`."""
        try:
            with torch.inference_mode():
                return compute(batch)
        except (RuntimeError, MemoryError) as error:
            reason = " ".join(str(error).split())[:200]
            lacks_memory = isinstance(error, MemoryError) or out_of_memory(error)
            kind = OutOfMemoryError if lacks_memory else EmbeddingError
            raise kind(f"PyTorch could not compute a batch of {list(batch.shape)}: {reason}") from error

    def _in_passes(self, batch: Array) -> Array:
        return self._in_passes_that_fit(batch, self._pass)

    def empty(self, shape: tuple[int, ...]) -> Array:
        if self._device.type != "cuda":
            return super().empty(shape)
        try:
            return torch.empty(shape, dtype=torch.float32, pin_memory=True).numpy()
        except RuntimeError:  # no more memory can be pinned: a pass copies the batch
            return super().empty(shape)

    def _pass(self, batch: Array, compute: Callable[[Tensor], Tensor] | None = None) -> Array:
        """Compute a pass (feature maps by default) through pinned memory on this thread's stream.

        So another thread's pass can overlap. Memory of `empty` is pinned already.
        """
        compute = compute or self._maps
        if self._device.type != "cuda":
            return compute(torch.from_numpy(batch).to(self._device)).cpu().numpy()
        if not hasattr(self._local, "stream"):
            self._local.stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        with torch.cuda.device(self._device), torch.cuda.stream(self._local.stream):
            found = compute(torch.from_numpy(batch).pin_memory().to(self._device, non_blocking=True))
            here = torch.empty(found.shape, dtype=torch.float32, pin_memory=True)
            here.copy_(found, non_blocking=True)
            # The thread sleeps; `synchronize` of a stream would keep a core busy.
            done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            done.record(self._local.stream)
            done.synchronize()
        return here.numpy()

    def _in_passes_that_fit(self, batch: Array, compute: Callable[[Array], Array]) -> Array:
        """Apply `compute` to the batch, in smaller passes once a pass has not fitted the memory.

        The size that fits is kept as rows times samples, so that a long recording does not slow down short ones.
        """
        maps: list[Array] = []
        start = 0
        while start < len(batch):
            rows = min(self._rows_that_fit(batch.shape[2]), len(batch) - start)
            try:
                maps.append(compute(batch[start : start + rows]))
            except RuntimeError as error:
                if rows == 1 or not out_of_memory(error):
                    raise
                self._halve(rows, batch.shape[2])
                continue
            start += rows
        return maps[0] if len(maps) == 1 else np.concatenate(maps)

    def _rows_that_fit(self, length: int) -> int:
        return self.batch_size if self.samples_per_pass is None else max(1, self.samples_per_pass // length)

    def _halve(self, rows: int, length: int) -> None:
        fits = rows // 2 * length
        # Another thread may have found a smaller size meanwhile.
        self.samples_per_pass = fits if self.samples_per_pass is None else min(fits, self.samples_per_pass)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        log.warning(
            "GPU memory ran out on %d recordings of %d samples; continuing with %d at once (batch_size=%d avoids this)",
            rows,
            length,
            rows // 2,
            rows // 2,
        )

    def _described(self, library: str, *more: str) -> str:
        device = f"{self.device} ({torch.cuda.get_device_name(self._device)})" if self._device.type == "cuda" else "CPU"
        parallel = (f"{self.threads} threads",) if self._device.type == "cpu" else ()
        return ", ".join([library, device, self.precision, *more, *parallel])


def usable_device(name: str) -> torch.device:
    """The device of this name, if a tensor can be created on it.

    Raises
    ------
    SettingsError
        If the device cannot be used.
    """
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0][:200]
        raise SettingsError(
            f"the device {name!r} cannot be used by this PyTorch ({torch.__version__}): {reason}"
        ) from error
    return device


def out_of_memory(error: RuntimeError) -> bool:
    """Whether an error means that the pass was too large; cuDNN and cuBLAS have different messages for it."""
    from accelerate.utils.memory import should_reduce_batch_size

    return isinstance(error, torch.OutOfMemoryError) or bool(should_reduce_batch_size(error))
