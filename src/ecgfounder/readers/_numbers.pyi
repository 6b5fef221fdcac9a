import numpy as np
import numpy.typing as npt

OTHER_NUMBERS: int
STRAY_SIGN: int

def whole_numbers(text: bytes, out: npt.NDArray[np.float64], /) -> int: ...
