"""The embeddings of a sample: norms, outliers, the directions of most variance, and where recordings lie on a map.

In: a selection of recordings. Out: a `Sample` with numbers of each recording, for figures that show no single one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa

from ecgfounder.analysis.reporting.sides import Mask
from ecgfounder.analysis.rows.selection import Selection
from ecgfounder.analysis.statistics.solver import Doubles, Floats, Numbers
from ecgfounder.errors import MissingDependencyError

SAMPLE = 50_000
"""Recordings of the map by default, and the most that UMAP is fitted on."""

FAR = 5.0
"""Standard deviations from the median (robust, by the quartiles) beyond which a recording is an outlier."""

_BLOCK = 250
_DIRECTIONS = 50
_SD_OF_QUARTILES = 1.349


@dataclass(frozen=True, eq=False)
class Sample:
    """Recordings of which the embeddings were read.

    Attributes
    ----------
    rows : numpy.ndarray
        int64 [n]: the recordings' rows in the table of the selection, ascending.
    norms : numpy.ndarray
        float64 [n]: the Euclidean norm of each embedding, the mean over tokens, windows and leads.
    distances : numpy.ndarray
        float64 [n]: the distance from the mean of the sample, over the root mean square of all distances.
    components : numpy.ndarray
        float32 [n, k]: the coordinates along the directions of most variance, each with a fixed sign.
    shares : numpy.ndarray
        float64 [k]: the share of the variance along each.
    width : int
        Numbers of an embedding.
    map : numpy.ndarray or None
        float32 [n, 2]: the places on UMAP's map, if there is one.
    """

    rows: Numbers
    norms: Doubles
    distances: Doubles
    components: Floats
    shares: Doubles
    width: int
    map: Floats | None = None

    @cached_property
    def norm_outliers(self) -> Mask:
        """The recordings whose norm is far from the others'."""
        return _far(self.norms, both=True)

    @cached_property
    def distant(self) -> Mask:
        """The recordings that are farther from the mean than the others."""
        return _far(self.distances, both=False)


def _far(values: Doubles, *, both: bool) -> Mask:
    if not len(values):
        return np.zeros(0, dtype=bool)
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    apart = (values - middle) / max((high - low) / _SD_OF_QUARTILES, 1e-12 * max(abs(middle), 1.0))
    return np.asarray(np.abs(apart) > FAR if both else apart > FAR)


def spread_rows(n: int, size: int) -> Numbers:
    """At most `size` of `n` rows in blocks of neighbours, which are read fast, spread evenly; always the same ones."""
    if n <= size:
        return np.arange(n)
    block = min(_BLOCK, size)
    starts = np.linspace(0, n - block, max(1, size // block)).astype(np.int64)
    return np.unique((starts[:, None] + np.arange(block)).reshape(-1))


def sample_of(selection: Selection, size: int = SAMPLE) -> Sample | None:
    """Read the embeddings of a sample; None if there is none. Embeddings that are not finite are left out."""
    rows = spread_rows(selection.table.num_rows, size)
    if not len(rows):
        return None
    X = Selection(selection.run, selection.table.take(pa.array(rows)), {}).features("mean")
    X = X if X.flags.writeable else X.copy()
    norms = np.sqrt(np.einsum("ij,ij->i", X, X, dtype=np.float64))
    finite = np.isfinite(norms)
    if not finite.any():
        return None
    if not finite.all():
        X, rows, norms = X[finite], rows[finite], norms[finite]
    X -= X.mean(axis=0, dtype=np.float64).astype(np.float32)  # in place: the sample may take a fifth of the memory
    apart = np.sqrt(np.einsum("ij,ij->i", X, X, dtype=np.float64))
    spread = float(np.sqrt((apart**2).mean()))
    components, shares = _directions(X)
    return Sample(rows, norms, apart / (spread or 1.0), components, shares, X.shape[1])


def _directions(X: Floats) -> tuple[Floats, Doubles]:
    """Coordinates of centred rows along the directions of most variance."""
    variance, vectors = np.linalg.eigh((X.T @ X).astype(np.float64))
    order = np.argsort(-variance)[: min(_DIRECTIONS, X.shape[1])]
    chosen = vectors[:, order]
    chosen *= np.sign(chosen[np.abs(chosen).argmax(axis=0), np.arange(len(order))])
    total = float(np.maximum(variance, 0).sum())
    shares = np.maximum(variance[order], 0) / (total or 1.0)
    found = X @ chosen.astype(np.float32)
    if found.shape[1] < 2:
        found = np.pad(found, ((0, 0), (0, 2 - found.shape[1])))
        shares = np.pad(shares, (0, 2 - len(shares)))
    return found, shares


def has_umap() -> bool:
    """Whether umap-learn is installed."""
    from importlib.util import find_spec

    return find_spec("umap") is not None


def with_umap(sample: Sample, seed: int, say: Callable[[str], None]) -> Sample:
    """The same with the places on UMAP's map of the directions of most variance.

    Raises
    ------
    MissingDependencyError
        If umap-learn is not installed.
    """
    if not has_umap():
        raise MissingDependencyError("umap-learn", "a map by UMAP", "map")
    n = len(sample.rows)
    if n < 3 * _NEIGHBOURS:
        return sample
    say(f"UMAP of {n:,} recordings")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its dependencies
        from umap import UMAP

        fitted = UMAP(n_neighbors=_NEIGHBOURS, min_dist=0.1, metric="euclidean", random_state=seed, n_jobs=1)
        places = fitted.fit_transform(sample.components)
    return replace(sample, map=np.asarray(places, dtype=np.float32))


_NEIGHBOURS = 15
