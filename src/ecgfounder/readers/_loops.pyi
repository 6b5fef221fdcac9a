import numpy as np
import numpy.typing as npt

ENDS_EARLY: int
NO_CODE: int

def huffman(
    data: bytes,
    entries: npt.NDArray[np.int64],
    lookup: npt.NDArray[np.uint16],
    longest: int,
    out: npt.NDArray[np.int64],
    /,
) -> int: ...
def whole_numbers(text: str, scale: float, offset: float, out: npt.NDArray[np.float32], /) -> tuple[int, int, int]: ...
def interleaved(
    data: bytes,
    offset: int,
    n_frames: int,
    scales: npt.NDArray[np.float64],
    offsets: npt.NDArray[np.float64],
    out: npt.NDArray[np.float32],
    facts: npt.NDArray[np.int64],
    /,
) -> None: ...
