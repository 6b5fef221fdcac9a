"""What the parts of a split have in common: the same recordings, the same patients, pairs that may be.

In: the part of each recording by each split, the clusters and patients of recordings, pairs. Out: a table of counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pyarrow as pa

from ecgfounder.analysis.similarity.search import Rows
from ecgfounder.errors import SettingsError

LEAKAGE = pa.schema(
    [
        *((name, pa.string()) for name in ("by", "a", "b", "class")),
        *((name, pa.int64()) for name in ("n", "n_recordings_a", "n_recordings_b")),
    ]
)
"""by: the column of the split; a, b: two of its values; class; n: clusters, patients or pairs that are in both; and how many
recordings of a and of b are in these."""

MOST_VALUES = 100
"""Values of a split."""

ALL_SHOWN = 10
"""Values of a split up to which two of them that have nothing in common are told, too."""

Pair = tuple[int, int]
Shared = dict[Pair, tuple[int, int, int]]


def leakage(
    splits: Mapping[str, Sequence[str | None]], units: Mapping[str, Rows], pairs: Mapping[str, Sequence[Pair]]
) -> pa.Table:
    """Count what each two parts have in common.

    Parameters
    ----------
    splits : dict of str to sequence of str or None
        For each column, the part of each recording; None for one that is in no part.
    units : dict of str to numpy.ndarray
        For each class, the number int64 [n] of each recording's cluster or patient; -1 for none.
    pairs : dict of str to sequence of tuple of (int, int)
        For each class, pairs of recordings.

    Returns
    -------
    pyarrow.Table
        `LEAKAGE`.

    Raises
    ------
    SettingsError
        If a column has more than `MOST_VALUES` values.
    """
    rows = []
    for by, texts in splits.items():
        values = sorted({text for text in texts if text is not None})
        if len(values) > MOST_VALUES:
            raise SettingsError(
                f"Invalid value for the 'split' parameter. The column {by!r} has {len(values):,} values; a split has at most "
                f"{MOST_VALUES}."
            )
        code = {value: number for number, value in enumerate(values)}
        sides = np.array([-1 if text is None else code[text] for text in texts], dtype=np.int64)
        found = {kind: _shared(sides, numbers) for kind, numbers in units.items()}
        found |= {kind: _across(sides, those) for kind, those in pairs.items()}
        for kind, shared in found.items():
            for one, other in combinations(range(len(values)), 2):
                numbers = shared.get((one, other), (0, 0, 0))
                if numbers[0] or len(values) <= ALL_SHOWN:
                    rows.append(dict(zip(LEAKAGE.names, (by, values[one], values[other], kind, *numbers), strict=True)))
    return pa.Table.from_pylist(rows, schema=LEAKAGE)


def _shared(sides: Rows, units: Rows) -> Shared:
    """For each two sides: how many units are on both, and how many recordings of each side are in these."""
    used = (sides >= 0) & (units >= 0)
    pairs, counts = np.unique(np.column_stack([units[used], sides[used]]), axis=0, return_counts=True)
    found: Shared = {}
    bounds = np.flatnonzero(np.r_[True, np.diff(pairs[:, 0]) != 0, True]) if len(pairs) else np.zeros(1, np.int64)
    for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        for one, other in combinations(range(start, stop), 2):
            key = int(pairs[one, 1]), int(pairs[other, 1])
            n, a, b = found.get(key, (0, 0, 0))
            found[key] = n + 1, a + int(counts[one]), b + int(counts[other])
    return found


def _across(sides: Rows, pairs: Sequence[Pair]) -> Shared:
    """For each two sides: how many pairs have a recording on each, and how many recordings of each side are in these."""
    those: dict[Pair, tuple[int, set[int], set[int]]] = {}
    for pair in pairs:
        low, high = sorted(pair, key=lambda row: int(sides[row]))
        key = int(sides[low]), int(sides[high])
        if key[0] >= 0 and key[0] != key[1]:
            n, a, b = those.setdefault(key, (0, set(), set()))
            a.add(low)
            b.add(high)
            those[key] = n + 1, a, b
    return {key: (n, len(a), len(b)) for key, (n, a, b) in those.items()}
