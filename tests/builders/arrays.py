"""Tables of numbers as text, NumPy and MATLAB files."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.io

Table = npt.NDArray[np.float64]


def table(leads: int = 12, n: int = 50, seed: int = 4) -> Table:
    """Microvolts, [n_leads, n_samples]."""
    return np.round(np.random.default_rng(seed).normal(0, 300, (leads, n)), 2)


def text_of(rows: Table, header: str = "", delimiter: str = ",") -> str:
    lines = [delimiter.join(f"{value:.10g}" for value in row) for row in rows]
    return "\n".join([*([header] if header else []), *lines]) + "\n"


def npy(array: npt.NDArray[np.generic]) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def npz(**named: object) -> bytes:
    file = io.BytesIO()
    np.savez(file, **named)  # type: ignore[arg-type]
    return file.getvalue()


def mat(**named: object) -> bytes:
    file = io.BytesIO()
    scipy.io.savemat(file, dict(named), do_compression=True)
    return file.getvalue()


def mat_7_3(**named: object) -> bytes:
    """A file as MATLAB 7.3 writes it: a user block, arrays transposed, texts as numbers, cell arrays as references."""
    import h5py

    file = io.BytesIO()
    with h5py.File(file, "w", userblock_size=512) as root:
        _store(root, root, named)
    return b"MATLAB 7.3 MAT-file".ljust(512) + file.getvalue()[512:]


def _store(root: Any, group: Any, named: dict[str, Any]) -> None:
    import h5py

    for name, value in named.items():
        if isinstance(value, dict):
            inner = group.create_group(name)
            inner.attrs["MATLAB_class"] = np.bytes_("struct")
            _store(root, inner, value)
        elif isinstance(value, (str, list)):
            rows = [value] if isinstance(value, str) else value
            codes = np.array([[ord(letter) for letter in row.ljust(max(map(len, rows)))] for row in rows], "u2")
            group.create_dataset(name, data=codes.T).attrs["MATLAB_class"] = np.bytes_("char")
        elif isinstance(value, tuple):
            for i, text in enumerate(value):
                _store(root, root.require_group("#refs#"), {f"{name}{i}": text})
            cells = np.array([[root[f"#refs#/{name}{i}"].ref] for i in range(len(value))], h5py.ref_dtype)
            group.create_dataset(name, data=cells, dtype=h5py.ref_dtype).attrs["MATLAB_class"] = np.bytes_("cell")
        else:
            array = np.atleast_2d(np.asarray(value))
            group.create_dataset(name, data=array.T).attrs["MATLAB_class"] = np.bytes_("double")


WATCH = """Name,Jane Doe
Date of Birth,"Feb 5, 1952"
Recorded Date,2020-02-05 09:14:40 -0400
{rate}
Symptoms,
Device,"Watch5,4"

{lead}
{unit}

-48{mark}673
-59{mark}681
12
0{mark}5
"""
