import numpy as np
import numpy.typing as npt

def json(array: npt.NDArray[np.float32], before: bytes, after: bytes, /) -> bytes: ...
