"""The PyTorch engine: for GPUs, and the reference on a CPU.

In: float32 [B, C, L]. Out: float32 [B, T, 1024]. On a CPU every pass has the same number of rows and one thread, so that a row's
bytes never depend on its batch. On a GPU a pass is halved when memory runs out. With `compiled`, the network is compiled for each
length, and every pass has the same number of rows on a GPU too.
"""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ecgfounder.engines.device import DeviceEngine, out_of_memory, usable_device
from ecgfounder.engines.engine import CPU_ROWS, Array
from ecgfounder.errors import SettingsError
from ecgfounder.machine import keep_freed_memory
from ecgfounder.net1d import Block, Net1D, SamePadConv1d
from ecgfounder.network.bundles import FEATURES, SAMPLES_PER_TOKEN, spec_of
from ecgfounder.network.checkpoint import build_network, load_backbone

log = logging.getLogger(__name__)

_MOST_LENGTHS = 256
"""Maximum number of lengths for which the network is compiled; further lengths are computed without compilation."""


class TorchEngine(DeviceEngine):
    """The network in PyTorch. Parameters and errors: `ecgfounder.engines.create_engine`."""

    name = "torch"

    def __init__(
        self,
        mode: str,
        checkpoint: Path,
        *,
        precision: str,
        device: str,
        threads: int,
        batch_size: int | None,
        compiled: bool,
    ) -> None:
        place = usable_device(device)
        on_cpu = place.type == "cpu"
        if on_cpu and precision == "float16":
            raise SettingsError("float16 needs a GPU: use bfloat16 or float32 on the CPU")
        if on_cpu and precision == "bfloat16" and not _has_fast_bfloat16():
            log.warning("this processor has no instructions for bfloat16, which is many times slower here than float32")
        if compiled:
            _check_compiler(place)
        weights, head = load_backbone(checkpoint, mode)
        super().__init__(
            place,
            precision=precision,
            threads=threads,
            batch_size=batch_size,
            in_channels=spec_of(mode).in_channels,
            head=head,
        )
        net = build_network(weights, mode, n_classes=1)
        # All weights in the requested precision: the same results as autocast, without casting the weights on every pass.
        self._net = net.eval().requires_grad_(False)
        first_conv = copy.deepcopy(net.first_conv) if on_cpu and precision == "bfloat16" else None
        self._net.to(self._device, self._dtype)
        if first_conv is not None:
            self._net.add_module("first_conv", _InFloat32(first_conv))
        self._compiled = _compiled(self._net) if compiled else None
        self._compiled_for: set[tuple[int, ...]] = set()
        self._compiling = threading.Lock()
        if on_cpu:
            if not compiled:  # the compiler chooses its own kernels, and cannot trace these
                _prefer_onednn(self._net)
            keep_freed_memory()
        if self._device.type == "cuda":
            # No TensorFloat-32, which rounds to 10 bits.
            torch.backends.cuda.matmul.allow_tf32 = False
            torch.backends.cudnn.allow_tf32 = False
            torch.cuda.synchronize(self._device)  # passes run on other streams, which do not wait for this one

    def _in_passes(self, batch: Array) -> Array:
        if self._device.type == "cpu":
            return self._in_fixed_passes(batch)
        return self._in_passes_that_fit(batch, self._on_device)

    def _in_fixed_passes(self, batch: Array) -> Array:
        """Compute in passes of `CPU_ROWS` rows, the last one padded with zeros.

        The kernels that oneDNN chooses, and with them the order of a sum, depend on the number of rows and of threads.
        """
        if not getattr(self._local, "single_threaded", False):
            torch.set_num_threads(1)  # with OpenMP, for the calling thread only
            self._local.single_threaded = True
        n, channels, length = batch.shape
        maps = np.empty((n, -(-length // SAMPLES_PER_TOKEN), FEATURES), np.float32)
        signals = torch.zeros((CPU_ROWS, channels, length), dtype=torch.float32)
        for start in range(0, n, CPU_ROWS):
            rows = min(CPU_ROWS, n - start)
            signals[:rows] = torch.from_numpy(batch[start : start + rows])
            signals[rows:] = 0
            # The only copy: transposed from the network's layout into the caller's array.
            maps[start : start + rows] = self._features(signals.to(self._dtype)).float()[:rows].mT.numpy()
        return maps

    def _maps(self, signals: Tensor) -> Tensor:
        return self._features(signals.to(self._dtype)).mT.float().contiguous()

    def _features(self, signals: Tensor) -> Tensor:
        """The network on one pass; with `compiled`, it is compiled first for a new shape."""
        if self._compiled is None:
            return self._net.features(signals)
        shape = tuple(signals.shape)
        if shape in self._compiled_for:
            return self._compiled(signals)
        from torch._dynamo.exc import TorchDynamoException

        with self._compiling:  # otherwise other threads would compile the same
            # The setting is per thread.
            torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _MOST_LENGTHS)
            try:
                features = self._compiled(signals)
            except TorchDynamoException as error:
                if isinstance(error.__cause__, RuntimeError) and out_of_memory(error.__cause__):
                    raise error.__cause__ from None
                raise _cannot_compile(self._device, error) from error
            self._compiled_for.add(shape)
            return features

    def _on_device(self, batch: Array) -> Array:
        """One pass on a GPU. With `compiled`, it is padded with zeros, because each number of rows would be compiled."""
        n, missing = len(batch), self._rows_that_fit(batch.shape[2]) - len(batch)
        if self._compiled is not None and missing > 0:
            batch = np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), np.float32)])
        return self._pass(batch)[:n]

    def describe(self) -> str:
        return self._described(f"PyTorch {torch.__version__}", *([] if self._compiled is None else ["compiled"]))

    def close(self) -> None:
        self._compiled = None
        self._net = self._net.to("meta")
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def _compiled(net: Net1D) -> Callable[[Tensor], Tensor]:
    """The network's `features`, compiled by `torch.compile` for each length.

    A single version for all lengths took over four minutes to compile, and is slower.
    """
    features: Callable[[Tensor], Tensor] = torch.compile(net.features, dynamic=False)
    return features


def _check_compiler(device: torch.device) -> None:
    """Refuse `compiled` if not even a small function can be compiled."""
    try:
        torch.compile(nn.functional.silu, dynamic=False)(torch.ones(64, device=device))
    except Exception as error:  # compilers, drivers and their packages fail in many ways
        raise _cannot_compile(device, error) from error


def _cannot_compile(device: torch.device, error: Exception) -> SettingsError:
    needs = "a C++ compiler" if device.type == "cpu" else "Triton, and a C compiler"
    reason = " ".join(str(error).split())[:300]
    return SettingsError(
        f"PyTorch cannot compile the network here: it needs {needs}; or leave compiled=True out ({reason})"
    )


class _InFloat32(nn.Module):
    """The first convolution of a bfloat16 network, in float32.

    On processors with AMX, oneDNN 3.x computes convolutions of 12 channels in bfloat16 incorrectly (errors of 80 %, PyTorch
    2.13); those of 16 and more channels are correct. This convolution is a fortieth of the network's arithmetic.
    """

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x.float())
        return out.to(x.dtype)


class _OneDNNPointwise(nn.Module):
    """A 1x1 convolution that always uses oneDNN.

    With one thread and fewer than 16 rows PyTorch uses its own unblocked kernel instead, which makes the whole network 1.3 times
    slower. Weights and results are the same; for inference only.
    """

    def __init__(self, conv: nn.Conv1d) -> None:
        super().__init__()
        self.weight = conv.weight.unsqueeze(-1)
        self.bias = conv.bias

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = torch.mkldnn_convolution(
            x.unsqueeze(2), self.weight, self.bias, padding=[0, 0], stride=[1, 1], dilation=[1, 1], groups=1
        )
        return out.squeeze(2)


def _prefer_onednn(net: nn.Module) -> None:
    """Replace a float32 network's 1x1 convolutions by `_OneDNNPointwise` if PyTorch was built with oneDNN."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return
    for block in [module for module in net.modules() if isinstance(module, Block)]:
        for name in ("conv1", "conv3"):
            conv = getattr(block, name)
            if isinstance(conv, SamePadConv1d) and conv.conv.weight.dtype == torch.float32:
                setattr(block, name, _OneDNNPointwise(conv.conv))


def _has_fast_bfloat16() -> bool:
    """Whether PyTorch has more than its slow fallback for bfloat16 on this processor; true if that is unknown."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return True
    supported: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()  # there is no public function
    return supported
