import numpy as np
import numpy.typing as npt

def base64(text: str, /) -> bytes | None: ...
def millivolts(
    data: bytes,
    n_leads: int,
    largest: int,
    duration_samples: float,
    resolution_uv: float,
    rows: npt.NDArray[np.int64],
    out: npt.NDArray[np.float32],
    /,
) -> int: ...
