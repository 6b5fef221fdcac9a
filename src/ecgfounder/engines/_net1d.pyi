from typing import Any

import numpy as np
import numpy.typing as npt

PANEL: int
"""Output channels whose weights lie together; also the width of a group."""
KERNEL: int
"""Samples under a first or middle convolution."""
LEFT: int
"""Zeros before what such a convolution sees."""
RIGHT: int
"""Zeros after it."""
ALIGNMENT: int
"""Bytes of a cache line, at which memory best begins."""

_Floats = npt.NDArray[np.float32]
_Layout = npt.NDArray[np.int32]

def embed(
    instructions: str,
    layout: _Layout,
    weights: _Floats,
    spectra: _Floats,
    signals: _Floats,
    maps: _Floats,
    space: npt.NDArray[Any],
    n: int,
    length: int,
    /,
) -> None: ...
def workspace(layout: _Layout, n: int, length: int, /) -> int: ...
def instructions() -> list[str]: ...
def sizes(layout: _Layout, /) -> tuple[int, int]: ...
def spectra(instructions: str, layout: _Layout, weights: _Floats, spectra: _Floats, /) -> None: ...
