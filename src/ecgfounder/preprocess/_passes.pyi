import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]
Moments = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]

def all_finite(samples: Samples, /) -> bool: ...
def block_extremes(samples: Samples, size: int, low: Samples, high: Samples, /) -> None: ...
def block_moments(samples: Samples, every: int, size: int, mean: Moments, variance: Moments, /) -> None: ...
def combination_rms(one: Samples, of_one: float, other: Samples, of_other: float, lead: Samples, /) -> float: ...
def mean(samples: Samples | Moments, /) -> float: ...
def plateau_starts(
    samples: Samples,
    rows: Numbers,
    lag: int,
    shortest: int,
    lowest: float,
    highest: float,
    ripple: float,
    /,
) -> list[int]: ...
def row_moments(samples: Samples, every: int, mean: Moments, variance: Moments, /) -> None: ...
def runs_at(samples: Samples, values: Samples, least: int, out: npt.NDArray[np.bool_], /) -> None: ...
def screen(
    samples: Samples,
    present: Numbers,
    stored: Numbers,
    pulsed: Numbers,
    lengths: Numbers,
    limits: Moments,
    of_baseline: bool,
    per_lead: bool,
    /,
) -> int: ...
def slopes(lead: Samples, lag: int, size: int, /) -> tuple[float, float]: ...
def zscore(samples: Samples | Moments, mean: float, epsilon: float, out: Samples, /) -> None: ...
