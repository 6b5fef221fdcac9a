"""One NPY per ECG: the `embedding` of the JSON, as a float32 array."""

from __future__ import annotations

from io import BytesIO

import numpy as np

from ecgfounder.sinks.json import FileSink
from ecgfounder.sinks.sink import Output


class NpySink(FileSink):
    """One NPY per ECG: the `embedding` of the JSON, as a float32 array."""

    @staticmethod
    def encode(output: Output) -> bytes:
        buffer = BytesIO()
        np.lib.format.write_array(buffer, np.ascontiguousarray(output.embedding, dtype=np.float32), allow_pickle=False)
        return buffer.getvalue()
