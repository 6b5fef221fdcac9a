"""The native engine: the network in C with the processor's vector instructions, the fastest one where there is no GPU.

In: float32 [B, C, L]. Out: float32 [B, T, 1024]. `_net1d.c` computes; here its weights are packed, once for each checkpoint,
and kept in a cache folder. A finite map's bytes depend on nothing but the recording and the weights: not on its batch, on
threads, nor on which vector instructions the processor has.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ecgfounder.engines.cache import from_cache, read_head, write_head
from ecgfounder.engines.engine import Array, CpuEngine
from ecgfounder.errors import EmbeddingError, SettingsError
from ecgfounder.machine import keep_freed_memory
from ecgfounder.network.bundles import ARCHITECTURE
from ecgfounder.network.checkpoint import load_backbone, sha256_of

try:
    import ecgfounder.engines._net1d as _net1d
except ImportError:  # there was no C compiler
    _net1d = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

PACKING_VERSION = 1
"""Part of the cache's key: raise it whenever `pack` lays the same weights out otherwise."""

_WEIGHTS = "backbone.f32"
_KEPT_BYTES = 256 << 20
_CHECKED_SAMPLES = 515  # three tokens; odd where lengths are halved


def instructions() -> list[str]:
    """The vector instructions that this processor has and the engine can use, widest first; none: it cannot be used here."""
    return [] if _net1d is None else _net1d.instructions()


class NativeEngine(CpuEngine):
    """The network in C on a CPU, float32. Parameters and errors: `ecgfounder.engines.create_engine`.

    All threads share the weights; each keeps its own memory for maps between layers from call to call.
    """

    name = "native"

    def __init__(self, mode: str, checkpoint: Path, *, threads: int, checkpoint_sha256: str | None = None) -> None:
        usable = instructions()
        if not usable:
            raise SettingsError(
                "the engine 'native' needs a C compiler where ecgfounder is installed, and a processor with AVX2 and FMA "
                "or of the ARM64 family: use engine='onnx' or engine='torch'"
            )
        # Mapped, not read: the pages are there since the file was checked, and processes on one machine share them.
        self._weights: npt.NDArray[np.float32]
        self._weights, head = from_cache(
            f"{checkpoint_sha256 or sha256_of(checkpoint)}-{mode}-packed-v{PACKING_VERSION}",
            files=(_WEIGHTS,),
            build=lambda folder: _build_entry(folder, checkpoint, mode),
            load=lambda folder: (np.memmap(folder / _WEIGHTS, np.float32, mode="r"), read_head(folder)),
        )
        super().__init__(mode, threads=threads, head=head)
        self._layout = _layout(self.in_channels)
        self._local = threading.local()
        keep_freed_memory()
        self.instructions = self._checked(usable)

    def _checked(self, usable: list[str]) -> str:
        """The widest instructions whose result is, bit for bit, that of the narrowest.

        Which ones a processor has is known only where it runs; all must give the same, and a moment's work shows it.
        """
        if len(usable) == 1:
            return usable[0]
        rng = np.random.default_rng(0)
        signals = rng.standard_normal((1, self.in_channels, _CHECKED_SAMPLES), dtype=np.float32)
        expected = self._embed_with(usable[-1], signals)
        for name in usable[:-1]:
            if self._embed_with(name, signals).tobytes() == expected.tobytes():  # of maps that are not finite, too
                return name
            log.warning(
                "%s instructions do not give the same result as %s on this machine and are not used", name, usable[-1]
            )
        return usable[-1]

    def _embed_with(self, instructions: str, batch: Array) -> Array:
        self.instructions = instructions
        return self._embed(batch)

    def _fill(self, maps: Array, rows: Array) -> None:
        weights = self._weights  # of this call to its end, even where another thread closes the engine
        if weights.size == 0:
            raise EmbeddingError("the engine was closed")
        n, _, length = rows.shape
        try:
            space = self._space(_net1d.workspace(self._layout, n, length))
            _net1d.embed(self.instructions, self._layout, weights, rows, maps, space, n, length)
        except ValueError as error:
            raise EmbeddingError(f"a batch of {list(rows.shape)} cannot be computed: {error}") from error

    def _space(self, n_bytes: int) -> npt.NDArray[np.uint8]:
        """Memory for one call; a thread's last one where it is large enough, since fresh pages are costly."""
        space: npt.NDArray[np.uint8] | None = getattr(self._local, "space", None)
        if space is None or len(space) < n_bytes:
            space = _aligned(n_bytes)
            if n_bytes <= _KEPT_BYTES:
                self._local.space = space
        return space

    def describe(self) -> str:
        return f"native ({self.instructions}), CPU, float32, {self.threads} threads"

    def close(self) -> None:
        self._weights = np.zeros(0, np.float32)
        self._local = threading.local()


# --------------------------------------------------------------------------------------------------------- the weights


def pack(weights: Mapping[str, npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    """The backbone's weights in the order and layout in which `_net1d.c` reads them.

    Each layer is [panel][tap][input channel][PANEL output channels], then its biases; output channels are filled up with
    zeros to whole panels. A grouped convolution's panels are its groups. The first convolution's taps and channels are one axis.

    Parameters
    ----------
    weights : mapping of str to numpy.ndarray
        Name to array, as `ecgfounder.network.checkpoint.backbone_state` names them.

    Returns
    -------
    numpy.ndarray
        float32 [n], one after the other.
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


def _layout(in_channels: int) -> npt.NDArray[np.int32]:
    """What `_net1d.c` must know of the network; its kernel, its stride of 2 and the width of its groups are written there."""
    numbers = [in_channels, ARCHITECTURE.base_filters, *ARCHITECTURE.filter_list, *ARCHITECTURE.m_blocks_list]
    return np.array(numbers, np.int32)


def _build_entry(folder: Path, checkpoint: Path, mode: str) -> None:
    tensors, head = load_backbone(checkpoint, mode)
    pack({name: tensor.numpy() for name, tensor in tensors.items()}).tofile(folder / _WEIGHTS)
    write_head(folder, head)


def _aligned(n_bytes: int) -> npt.NDArray[np.uint8]:
    """Uninitialised memory, uint8 [n_bytes], that begins at a cache line."""
    memory = np.empty(n_bytes + _net1d.ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _net1d.ALIGNMENT
    return memory[start : start + n_bytes]
