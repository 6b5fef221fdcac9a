import numpy as np
import numpy.typing as npt

MOST_STATES: int

Samples64 = npt.NDArray[np.float64]

def forwards_and_backwards(
    b: Samples64, a: Samples64, initial: Samples64, edge: int, samples: Samples64, n_leads: int, out: Samples64, /
) -> None: ...
def running_median(samples: Samples64, n_rows: int, size: int, out: Samples64, /) -> bool: ...
