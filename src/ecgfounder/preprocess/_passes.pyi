import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]

def block_extremes(samples: Samples, size: int, low: Samples, high: Samples, /) -> None: ...
def plateau_starts(
    samples: Samples,
    rows: npt.NDArray[np.int64],
    lag: int,
    shortest: int,
    lowest: float,
    highest: float,
    ripple: float,
    /,
) -> list[int]: ...
def runs_at(samples: Samples, values: Samples, least: int, out: npt.NDArray[np.bool_], /) -> None: ...
def zscore(samples: Samples, mean: float, epsilon: float, out: Samples, /) -> None: ...
