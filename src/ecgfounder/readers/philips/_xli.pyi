from typing import Any

import numpy as np
import numpy.typing as npt

def expand(payload: bytes, most_bytes: int, many_codes: int, /) -> bytes: ...
def integrate(text: bytes, first_difference: int, samples: npt.NDArray[np.signedinteger[Any]], /) -> None: ...
