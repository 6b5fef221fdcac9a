"""The Triton engine: the network on an NVIDIA GPU in a few custom kernels, the fastest engine on these GPUs.

In: float32 [B, C, L]. Out: float32 [B, T, 1024]. Feature maps are stored time by channel, so that a 1x1 convolution is a matrix
product; bias, swish and gate are fused. In float32 a product is computed by three products of the tensor cores (TF32 of the
operands' upper and lower halves), with the accuracy of float32. The bytes of a feature map do not depend on its batch.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ecgfounder.engines.device import DTYPES, DeviceEngine, usable_device
from ecgfounder.engines.engine import Array
from ecgfounder.errors import SettingsError
from ecgfounder.network.bundles import ARCHITECTURE, spec_of
from ecgfounder.network.checkpoint import build_network, load_backbone

if TYPE_CHECKING:
    from ecgfounder.net1d import Net1D

NEEDS = (
    "an NVIDIA GPU of compute capability 8.0 or higher, and the package triton, which PyTorch's builds for CUDA bring"
)
"""The requirements that `triton_usable` checks, for messages."""

_OLDEST = (8, 0)
"""The lowest compute capability whose tensor cores support TF32 and bfloat16."""

_ALLOWED = {"float32": 1e-4, "float16": 0.1, "bfloat16": 0.5}
"""Relative error against PyTorch on the CPU above which the kernels count as incorrect, not only imprecise."""

_CHECKED_SAMPLES = 515  # three tokens; odd where lengths are halved


def triton_usable(device: str | None = None) -> bool:
    """Whether Triton is installed (it comes with PyTorch's builds for CUDA) and the device is a supported NVIDIA GPU.

    Parameters
    ----------
    device : str, optional
        "cuda", "cuda:1" ...; None is the first GPU.
    """
    name, _, index = (device or "cuda").partition(":")
    if name != "cuda" or importlib.util.find_spec("triton") is None or torch.version.cuda is None:
        return False
    if not torch.cuda.is_available() or int(index or 0) >= torch.cuda.device_count():
        return False
    return torch.cuda.get_device_capability(int(index) if index else None) >= _OLDEST


class TritonEngine(DeviceEngine):
    """The network in Triton kernels on an NVIDIA GPU. Parameters and errors: `ecgfounder.engines.create_engine`."""

    name = "triton"

    def __init__(
        self, mode: str, checkpoint: Path, *, precision: str, device: str, threads: int, batch_size: int | None
    ) -> None:
        place = usable_device(device)
        if not triton_usable(device):
            raise SettingsError(f"the engine 'triton' needs {NEEDS}")
        weights, head = load_backbone(checkpoint, mode)
        super().__init__(
            place,
            precision=precision,
            threads=threads,
            batch_size=batch_size,
            in_channels=spec_of(mode).in_channels,
            head=head,
        )
        net = build_network(weights, mode, n_classes=1).eval().requires_grad_(False)
        self._net = FusedNet(net, place, precision)
        torch.cuda.synchronize(place)  # passes run on other streams, which do not wait for this one
        self._check(net)

    def _check(self, net: Net1D) -> None:
        """Compile the kernels, and refuse to compute if their feature map differs from the network's.

        There are many compilers and GPUs, and an incorrect feature map would not be noticed.
        """
        signal = np.random.default_rng(0).standard_normal((1, self.in_channels, _CHECKED_SAMPLES), dtype=np.float32)
        try:
            expected = _on_one_core(lambda: net.feature_map(torch.from_numpy(signal)).numpy())
            found = self.embed(signal)
        except Exception as failure:  # compilers, drivers and their packages fail in many ways
            reason = " ".join(str(failure).split())[:300]
            raise SettingsError(f"the engine 'triton' cannot be used here ({reason})") from failure
        error = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
        if not error <= _ALLOWED[self.precision]:
            raise SettingsError(f"the engine 'triton' computes wrongly on this GPU (relative error {error:.1e})")

    def _maps(self, signals: Tensor) -> Tensor:
        return self._net.feature_map(signals).float()

    def _means(self, batch: Array) -> Array:
        """The means of `FusedNet.mean`, which are a thousandth of what the maps would be to copy."""

        def compute(rows: Array) -> Array:
            return self._pass(rows, lambda signals: self._net.mean(self._net.feature_map(signals)))

        return self._guarded(batch, lambda rows: self._in_passes_that_fit(rows, compute))

    def describe(self) -> str:
        import triton

        return self._described(f"Triton {triton.__version__}")

    def close(self) -> None:
        del self._net
        torch.cuda.empty_cache()


def _on_one_core(work: Callable[[], Array]) -> Array:
    """Compute with PyTorch on the CPU in one thread; with more, several processes would slow each other down."""
    results: list[Array] = []

    def alone() -> None:
        torch.set_num_threads(1)  # for the calling thread only
        with torch.inference_mode():
            results.append(work())

    thread = threading.Thread(target=alone)
    thread.start()
    thread.join()
    return results[0]


@dataclass(frozen=True)
class _Weights:
    """Weights of a convolution or linear layer: `weight` [groups, taps * in, out] or [in, out], `bias` in float32."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class _BlockWeights:
    in_channels: int
    out_channels: int
    stride: int
    conv1: _Weights
    conv2: _Weights
    conv3: _Weights
    fc1: _Weights
    fc2: _Weights


@dataclass(frozen=True)
class _Tile:
    """The tile of a matrix product: rows, columns and terms of a sum per program, and launch parameters."""

    m: int
    n: int
    k: int
    warps: int
    stages: int


# Tuned on an H200 (docs/performance.md). The order of a sum depends on the tile, so a layer's tile must not depend on the rows.
_TILES: Mapping[bool, Mapping[str, _Tile]] = {
    False: {
        "convolve": _Tile(128, 0, 32, warps=4, stages=4),
        "narrow": _Tile(128, 64, 32, warps=4, stages=3),
        "wide": _Tile(128, 64, 32, warps=4, stages=3),
        "gate": _Tile(32, 32, 32, warps=4, stages=3),
    },
    True: {  # of 16 bits
        "convolve": _Tile(128, 0, 32, warps=4, stages=4),
        "narrow": _Tile(128, 64, 32, warps=4, stages=3),
        "wide": _Tile(128, 128, 64, warps=8, stages=3),
        "gate": _Tile(32, 32, 64, warps=4, stages=3),
    },
}

_WIDE = 400
"""Minimum number of output channels for the wide tile of a matrix product."""

_PART = 2048
"""Time steps that one program adds up; for longer feature maps, the partial sums are added up in turn."""


class FusedNet:
    """Net1D's feature map, computed by `ecgfounder.engines.kernels`.

    Parameters
    ----------
    net : Net1D
        The network, without batch-norm and dropout, as for the published checkpoints.
    device : torch.device
        The GPU.
    precision : str
        Precision of weights and feature maps; sums are always float32.
    product : str, default: "tf32x3"
        Multiplication of float32 operands: "tf32x3" (accuracy of float32, on tensor cores), "ieee" or "tf32".
    """

    def __init__(self, net: Net1D, device: torch.device, precision: str, product: str = "tf32x3") -> None:
        from ecgfounder.engines import kernels
        from ecgfounder.net1d import Block

        self._kernels = kernels
        self._device, self._dtype = device, DTYPES[precision]
        self._product = product if precision == "float32" else "ieee"  # products of 16-bit operands are exact
        self._tiles = _TILES[precision != "float32"]
        self._first = self._grouped(net.first_conv.conv.weight, net.first_conv.conv.bias, groups=1)
        self._blocks = [
            _BlockWeights(
                block.in_channels,
                block.out_channels,
                block.stride,
                conv1=self._linear(block.conv1.conv.weight, block.conv1.conv.bias),
                conv2=self._grouped(block.conv2.conv.weight, block.conv2.conv.bias, groups=block.conv2.conv.groups),
                conv3=self._linear(block.conv3.conv.weight, block.conv3.conv.bias),
                fc1=self._linear(block.se_fc1.weight, block.se_fc1.bias),
                fc2=self._linear(block.se_fc2.weight, block.se_fc2.bias),
            )
            for block in net.modules()
            if isinstance(block, Block)
        ]

    def _weights(self, weight: Tensor, bias: Tensor | None) -> _Weights:
        assert bias is not None
        return _Weights(
            weight.detach().contiguous().to(self._device, self._dtype), bias.detach().float().to(self._device)
        )

    def _linear(self, weight: Tensor, bias: Tensor | None) -> _Weights:
        return self._weights(weight.flatten(1).T, bias)

    def _grouped(self, weight: Tensor, bias: Tensor | None, *, groups: int) -> _Weights:
        """[out, in, taps] to [groups, taps * in, out]; missing input channels are zeros."""
        filled = F.pad(weight, (0, 0, 0, ARCHITECTURE.groups_width - weight.shape[1]))
        parts = filled.reshape(groups, -1, *filled.shape[1:]).permute(0, 3, 2, 1)
        return self._weights(parts.flatten(1, 2), bias)

    def feature_map(self, signals: Tensor) -> Tensor:
        """Feature maps [B, T, 1024] in the precision of the weights, of float32 signals [B, C, L] on the device."""
        n, channels, length = signals.shape
        x = self._empty(n, length, ARCHITECTURE.groups_width)
        x[..., :channels] = signals.mT
        x[..., channels:] = 0
        x = activated = self._convolve(x, self._first, n, length, ARCHITECTURE.stride)
        length = -(-length // ARCHITECTURE.stride)
        for block in self._blocks:
            out_length = -(-length // block.stride)
            inner = self._multiply(activated, block.conv1, swish=True)
            inner = self._convolve(inner, block.conv2, n, length, block.stride)
            residual = self._multiply(inner, block.conv3, swish=False)
            squeezed = self._average(residual, n, out_length)
            scale = self._multiply(squeezed, block.fc1, swish=True, gate=True)
            scale = self._multiply(scale, block.fc2, swish=False, gate=True)
            x, activated = self._gate(x, residual, scale, block, length, out_length)
            length = out_length
        return x.view(n, length, -1)

    def mean(self, maps: Tensor) -> Tensor:
        """The mean over T of feature maps [B, T, 1024]: float32 [B, 1024], the bytes of `ecgfounder.network.head.pooled`."""
        n, length, channels = maps.shape
        out = self._empty(n, channels, dtype=torch.float32)
        columns = 64
        self._kernels.mean[(n, -(-channels // columns))](maps, out, length, channels, BLOCK_C=columns, num_warps=2)
        return out

    def _empty(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        return torch.empty(shape, dtype=dtype or self._dtype, device=self._device)

    def _convolve(self, x: Tensor, layer: _Weights, n: int, length: int, stride: int) -> Tensor:
        groups, terms, width = layer.weight.shape
        out_length = -(-length // stride)
        out, tile = self._empty(n * out_length, groups * width), self._tiles["convolve"]
        taps, rows = ARCHITECTURE.kernel_size, len(out)
        self._kernels.convolve[(-(-rows // tile.m), groups)](
            x,
            layer.weight,
            layer.bias,
            out,
            rows,
            length,
            out_length,
            groups * terms // taps,
            groups * width,
            IN=terms // taps,
            OUT=width,
            TAPS=taps,
            STRIDE=stride,
            LEFT=(taps - 1) // 2,  # for either stride and any length: an odd zero is on the right
            PRODUCT=self._product,
            BLOCK_M=tile.m,
            BLOCK_K=tile.k,
            num_warps=tile.warps,
            num_stages=tile.stages,
        )
        return out

    def _multiply(self, x: Tensor, layer: _Weights, *, swish: bool, gate: bool = False) -> Tensor:
        rows, (channels, width) = len(x), layer.weight.shape
        tile = self._tiles["gate" if gate else "wide" if width >= _WIDE else "narrow"]
        out = self._empty(rows, width)
        self._kernels.linear[(-(-rows // tile.m) * -(-width // tile.n),)](
            x,
            layer.weight,
            layer.bias,
            out,
            rows,
            channels,
            width,
            SWISH=swish,
            WHOLE=channels % tile.k == 0,
            PRODUCT=self._product,
            BLOCK_M=tile.m,
            BLOCK_N=tile.n,
            BLOCK_K=tile.k,
            num_warps=tile.warps,
            num_stages=tile.stages,
        )
        return out

    def _average(self, x: Tensor, n: int, length: int) -> Tensor:
        """[B * length, channels] to [B, channels]."""
        channels, moments = x.shape[1], length
        while True:
            parts = -(-length // _PART)
            whole = parts == 1
            out = self._empty(n * parts, channels, dtype=None if whole else torch.float32)
            width = 32 if channels % 64 else 64
            self._kernels.average[(n * parts, -(-channels // width))](
                x,
                out,
                length,
                parts,
                float(moments) if whole else 1.0,
                channels,
                PART=_PART,
                BLOCK_T=32,
                BLOCK_C=width,
            )
            if whole:
                return out
            x, length = out, parts

    def _gate(
        self, x: Tensor, residual: Tensor, scale: Tensor, block: _BlockWeights, length: int, out_length: int
    ) -> tuple[Tensor, Tensor]:
        out, activated = torch.empty_like(residual), torch.empty_like(residual)
        rows, width = residual.shape
        columns = 32 if width % 64 else 64
        self._kernels.gate[(-(-rows // 32), -(-width // columns))](
            x,
            residual,
            scale,
            out,
            activated,
            rows,
            length,
            out_length,
            block.in_channels,
            block.out_channels,
            STRIDE=block.stride,
            BLOCK_M=32,
            BLOCK_C=columns,
        )
        return out, activated
