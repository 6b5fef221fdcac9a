"""Tables of numbers as text, NumPy and MATLAB files."""

from __future__ import annotations

import io

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
