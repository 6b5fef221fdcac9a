"""Pairs of recordings that are nearly alike, of a cohort of any size.

In: an `Index`. Out: `NearPairs`: pairs with a similarity above a floor.

Up to 32,768 recordings, all pairs are looked at. Of more, recordings are divided into parts that are alike, and each is compared
with those of its own part and of the nearest parts, at least 32,768: two recordings that are nearly the same are hardly ever in
parts far from each other. Of a recording, the `k` pairs with the highest bounds of their similarity are kept, so that a large
number of copies cannot make a large number of pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ecgfounder.analysis.similarity.search import Index, Rows, largest
from ecgfounder.analysis.similarity.space import Floats

if TYPE_CHECKING:
    import torch

REACH = 32_768
"""Recordings with which each is compared, at least."""
PART = 2048
"""Recordings of a part, at most."""

_SAMPLE, _ROUNDS = 50_000, 6
_QUERIES_AT_ONCE = 1024


@dataclass(frozen=True, eq=False)
class NearPairs:
    """Pairs of recordings, the most similar ones first.

    Attributes
    ----------
    rows : numpy.ndarray
        int64 [m, 2], the smaller row first; no pair twice.
    similarity : numpy.ndarray
        float32 [m].
    """

    rows: Rows
    similarity: Floats

    def __len__(self) -> int:
        return len(self.rows)


def near_pairs(index: Index, floor: float, k: int) -> NearPairs:
    """The pairs with a similarity of at least `floor`, at most `k` for each recording and those for which it is among the `k`."""
    import torch

    points = torch.from_numpy(index.directions())
    parts = _parts(points, seed=0)
    centres = torch.stack([points[part].mean(dim=0) for part in parts])
    near = (centres @ centres.T).fill_diagonal_(torch.inf)
    found: list[Rows] = []
    for number, part in enumerate(parts):
        others, reached = [], 0
        for at in torch.argsort(near[number], descending=True).tolist():
            others.append(parts[at])
            reached += len(parts[at])
            if reached >= REACH:
                break
        among = torch.cat(others)
        near_points = points[among]
        for start in range(0, len(part), _QUERIES_AT_ONCE):  # the part is the first of its nearest ones
            own = torch.arange(start, min(start + _QUERIES_AT_ONCE, len(part)))
            found.append(_nearest(near_points, own, among, floor, k))
    pairs = np.unique(np.concatenate(found), axis=0) if found else np.empty((0, 2), np.int64)
    similarity = index.similarity(pairs[:, 0], pairs[:, 1])
    kept = similarity >= floor
    pairs, similarity = pairs[kept], similarity[kept]
    order = np.lexsort((pairs[:, 1], pairs[:, 0], -similarity))
    return NearPairs(pairs[order], similarity[order])


def _nearest(points: torch.Tensor, own: torch.Tensor, rows: torch.Tensor, floor: float, k: int) -> Rows:
    """Pairs int64 [m, 2] of rows: some of the points, by their places, with their nearest ones of all, by the bound."""
    import torch

    bounds = points[own] @ points.T
    bounds[torch.arange(len(own)), own] = -torch.inf
    has = bounds.amax(dim=1) >= floor
    if not has.any():
        return np.empty((0, 2), np.int64)
    own, bounds = own[has], bounds[has]
    best, columns = largest(bounds, min(k, len(rows)))
    chosen = best >= floor
    left, right = rows[own][:, None].expand_as(columns)[chosen].numpy(), rows[columns[chosen]].numpy()
    return np.stack([np.minimum(left, right), np.maximum(left, right)], axis=1)


def _parts(points: torch.Tensor, seed: int) -> list[torch.Tensor]:
    """Rows in parts that are alike, of at most `PART` rows each: spherical k-means, and large clusters cut along their axis."""
    import torch

    n = len(points)
    if n <= REACH:
        return [torch.arange(n)]
    chosen = torch.from_numpy(np.sort(np.random.default_rng(seed).permutation(n)[:_SAMPLE]))
    sample = points[chosen]
    centres = sample[torch.linspace(0, len(sample) - 1, -(-n // PART)).long()].clone()
    for _ in range(_ROUNDS):
        nearest = _assigned(sample, centres)
        sums = torch.zeros_like(centres).index_add_(0, nearest, sample)
        lengths = sums.norm(dim=1, keepdim=True)
        centres = torch.where(lengths > 0, sums / lengths.clamp(min=1e-12), centres)
    nearest = _assigned(points, centres)
    order = torch.argsort(nearest, stable=True)
    sizes = torch.bincount(nearest, minlength=len(centres)).tolist()
    return [part for rows in torch.split(order, sizes) if len(rows) for part in _cut(points, rows)]


def _assigned(points: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.cat([(block @ centres.T).argmax(dim=1) for block in torch.split(points, REACH)])


def _cut(points: torch.Tensor, rows: torch.Tensor) -> list[torch.Tensor]:
    """The rows of a cluster; a large one in the order of its first principal axis, in pieces."""
    import torch

    if len(rows) <= PART:
        return [rows]
    own = points[rows[:: max(1, len(rows) // _SAMPLE)]]
    own = (own - own.mean(dim=0)).double()
    _, axes = torch.linalg.eigh(own.T @ own)
    order = torch.argsort(points[rows] @ axes[:, -1].float(), stable=True)
    return list(torch.split(rows[order], PART))
