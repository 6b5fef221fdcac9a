"""The native engine: the network in C with the processor's vector instructions, the fastest engine on CPUs.

In: float32 [B, C, L]. Out: float32 [B, T, 1024]. `_net1d.c` computes the network; this module packs its weights, once per
checkpoint, and caches them. The spectra of its convolutions' weights are computed at every start, which is faster than to read
them. The bytes of a finite feature map depend only on the recording and the weights, not on its batch, threads, or the
processor's vector instructions.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ecgfounder.engines.cache import Parts, floats, from_cache, head_of_parts, head_parts
from ecgfounder.engines.engine import Array, CpuEngine
from ecgfounder.errors import EmbeddingError, SettingsError
from ecgfounder.machine import keep_freed_memory, own_memory
from ecgfounder.network.bundles import ARCHITECTURE, spec_of
from ecgfounder.network.checkpoint import load_backbone, sha256_of

try:
    import ecgfounder.engines._net1d as _net1d
except ImportError:  # it was not built, without a C compiler
    _net1d = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

PACKING_VERSION = 2
"""Part of the cache's key: raise it if `pack` changes the layout, or `head_parts` the head's."""

_WEIGHTS = "backbone"
_KEPT_BYTES = 256 << 20
_TRIAL_NETWORK = (12, 32, *(48, 64, 64, 304), *(2, 2, 2, 1))
"""A small network for trials, as `_layout` gives the real one. Its layers go all ways through the kernels, and its samples
leave tiles of each size over: whoever changes a tile's size in `_net1d.c` looks for other numbers."""
_TRIAL_SAMPLES = 2435


def instructions() -> list[str]:
    """The processor's vector instructions that the engine can use, widest first; if empty, the engine is not usable."""
    return [] if _net1d is None else _net1d.instructions()


@functools.cache
def sound_instructions() -> str:
    """The widest of `instructions` whose result is bit-identical to that of the narrowest.

    The processor is known only at run time, so each process tries this once, with a small network of random weights.
    """
    usable = instructions()
    if len(usable) == 1:
        return usable[0]
    expected = _trial(usable[-1])
    for name in usable[:-1]:
        if _trial(name).tobytes() == expected.tobytes():  # NaN too
            return name
        log.warning(
            "%s instructions do not give the same result as %s on this machine and are not used", name, usable[-1]
        )
    return usable[-1]


def _trial(name: str) -> Array:
    """The feature map of a random signal by a small random network, with some instructions."""
    layout = np.array(_TRIAL_NETWORK, np.int32)
    rng = np.random.default_rng(0)
    signals = rng.random((1, int(layout[0]), _TRIAL_SAMPLES), np.float32) - np.float32(0.5)
    weights = (rng.random(_net1d.sizes(layout)[0], np.float32) - np.float32(0.5)) * np.float32(0.7)
    n_stages = len(layout) // 2 - 1
    maps = np.empty((1, -(-_TRIAL_SAMPLES // 2 ** (n_stages + 1)), int(layout[1 + n_stages])), np.float32)
    space = _aligned(_net1d.workspace(layout, 1, _TRIAL_SAMPLES))
    _net1d.embed(name, layout, weights, _spectra(name, layout, weights), signals, maps, space, 1, _TRIAL_SAMPLES)
    return maps


class NativeEngine(CpuEngine):
    """The network in C on a CPU, float32. Parameters and errors: `ecgfounder.engines.create_engine`.

    All threads share the weights; each thread keeps its memory for intermediate feature maps from call to call.
    """

    name = "native"

    def __init__(self, mode: str, checkpoint: Path, *, threads: int, checkpoint_sha256: str | None = None) -> None:
        if not instructions():
            raise SettingsError(
                "the engine 'native' needs a C compiler where ecgfounder is installed, and a processor with AVX2 and FMA "
                "or of the ARM64 family: use engine='onnx' or engine='torch'"
            )
        self.instructions = sound_instructions()
        self._layout = _layout(spec_of(mode).in_channels)
        self._weights, head = from_cache(
            f"{checkpoint_sha256 or sha256_of(checkpoint)}-{mode}-packed-v{PACKING_VERSION}",
            build=lambda: _build_parts(checkpoint, mode),
            load=lambda parts: (self._fitting(floats(parts[_WEIGHTS])), head_of_parts(parts)),
        )
        super().__init__(mode, threads=threads, head=head)
        self._spectra = _spectra(self.instructions, self._layout, self._weights)
        self._local = threading.local()
        keep_freed_memory()

    def _fitting(self, weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Weights as many as the network has; a `ValueError` otherwise."""
        if weights.size != _net1d.sizes(self._layout)[0]:
            raise ValueError(f"{weights.size} packed weights, which are not those of this network")
        return weights

    def _fill(self, maps: Array, rows: Array) -> None:
        # Kept during this call, even if another thread closes the engine.
        weights, spectra = self._weights, self._spectra
        if weights.size == 0 or spectra.size == 0:
            raise EmbeddingError("the engine was closed")
        n, _, length = rows.shape
        try:
            space = self._space(_net1d.workspace(self._layout, n, length))
            _net1d.embed(self.instructions, self._layout, weights, spectra, rows, maps, space, n, length)
        except ValueError as error:
            raise EmbeddingError(f"a batch of {list(rows.shape)} cannot be computed: {error}") from error

    def _space(self, n_bytes: int) -> npt.NDArray[np.uint8]:
        """Memory for one call; a thread's previous memory if it is large enough, because new pages are costly."""
        space: npt.NDArray[np.uint8] | None = getattr(self._local, "space", None)
        if space is None or len(space) < n_bytes:
            space = _aligned(n_bytes)
            if n_bytes <= _KEPT_BYTES:
                self._local.space = space
        return space

    def describe(self) -> str:
        return f"native ({self.instructions}), CPU, float32, {self.threads} threads"

    def close(self) -> None:
        self._weights = self._spectra = np.zeros(0, np.float32)
        self._local = threading.local()


# --------------------------------------------------------------------------------------------------------- the weights


def pack(weights: Mapping[str, npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    """The backbone's weights in the order and layout of `_net1d.c`.

    Each layer is [panel][tap][input channel][PANEL output channels], then its biases; output channels are padded with zeros to
    whole panels. The panels of a grouped convolution are its groups.

    Parameters
    ----------
    weights : mapping of str to numpy.ndarray
        Name to array, with the names of `ecgfounder.network.checkpoint.backbone_state`.

    Returns
    -------
    numpy.ndarray
        float32 [n], the layers one after the other.
    """
    names = ["first_conv.conv"]
    for stage, blocks in enumerate(ARCHITECTURE.m_blocks_list):
        for block in range(blocks):
            layers = ("conv1.conv", "conv2.conv", "conv3.conv", "se_fc1", "se_fc2")
            names += [f"stage_list.{stage}.block_list.{block}.{layer}" for layer in layers]
    parts = [part for name in names for part in _packed_layer(weights[f"{name}.weight"], weights[f"{name}.bias"])]
    return np.concatenate(parts)


def _packed_layer(
    weight: npt.NDArray[np.float32], bias: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """A layer's weights [out, in] or [out, in of a group, taps], and its biases [out], as flat arrays."""
    taps = weight.reshape(*weight.shape[:2], -1)
    missing = -len(taps) % _net1d.PANEL
    taps = np.pad(taps, ((0, missing), (0, 0), (0, 0)))
    panels = taps.reshape(-1, _net1d.PANEL, *taps.shape[1:])
    return panels.transpose(0, 3, 2, 1).ravel(), np.pad(bias, (0, missing))


def _spectra(
    instructions: str, layout: npt.NDArray[np.int32], weights: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """The spectra of the convolutions' weights, float32 [n], for `_net1d.embed`: from their packed weights."""
    spectra = np.frombuffer(own_memory(4 * _net1d.sizes(layout)[1]), np.float32)
    _net1d.spectra(instructions, layout, weights, spectra)
    return spectra


def _layout(in_channels: int) -> npt.NDArray[np.int32]:
    """The network's parameters for `_net1d.c`, where the kernel of 16 samples, stride of 2 and groups of 16 are constants."""
    numbers = [in_channels, ARCHITECTURE.base_filters, *ARCHITECTURE.filter_list, *ARCHITECTURE.m_blocks_list]
    return np.array(numbers, np.int32)


def _build_parts(checkpoint: Path, mode: str) -> Parts:
    tensors, head = load_backbone(checkpoint, mode)
    return {**head_parts(head), _WEIGHTS: pack({name: tensor.numpy() for name, tensor in tensors.items()})}


def _aligned(n_bytes: int) -> npt.NDArray[np.uint8]:
    """Uninitialised memory, uint8 [n_bytes], aligned to a cache line."""
    memory = np.empty(n_bytes + _net1d.ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _net1d.ALIGNMENT
    return memory[start : start + n_bytes]
