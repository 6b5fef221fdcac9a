"""`python -m ecgfounder.viewer.umap_process INDEX PLACE N`: a map by UMAP, in a process of its own.

In: the folder of an index of neighbours, a file to write, how many recordings to fit. Out: float32 [n, 2] in that file; lines of
progress on standard output, each a phase and the share of it that is done. The process ends when its standard input does, so
that it never outlives the one that started it.
"""

from __future__ import annotations

import io
import json
import os
import sys
import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ecgfounder.analysis.similarity.search import Index, largest

Floats = npt.NDArray[np.float32]

NEIGHBOURS = 15
"""Of each recording, when UMAP is fitted."""
PLACED_BY = 10
"""Fitted recordings by which another one is placed."""

_ROWS_AT_ONCE = 1024


def main(words: list[str]) -> None:
    """Make the map."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    directions = Index(Path(words[0])).directions()
    _tell("loading, which takes a minute the first time", 0.0)
    np.save(words[1], places_of(directions, int(words[2])))


def places_of(directions: Floats, n_fitted: int) -> Floats:
    """float32 [n, 2]: those that are fitted, spread evenly, and the others where their nearest fitted ones are."""
    rows = np.unique(np.linspace(0, len(directions) - 1, min(n_fitted, len(directions))).astype(np.int64))
    fitted = _fit(directions[rows])
    if len(rows) == len(directions):
        return fitted
    found = np.empty((len(directions), 2), np.float32)
    found[rows] = fitted
    others = np.setdiff1d(np.arange(len(directions)), rows)
    for first in range(0, len(others), _ROWS_AT_ONCE):
        part = others[first : first + _ROWS_AT_ONCE]
        found[part] = placed(directions[part], directions[rows], fitted)
        _tell("placing the other recordings", (first + len(part)) / len(others))
    return found


def placed(directions: Floats, of_fitted: Floats, places: Floats) -> Floats:
    """The mean place of the nearest fitted recordings, weighted by how near they are."""
    import torch

    # The distance of unit vectors in these directions: the nearest has the largest product, less half its own square.
    offsets = 0.5 * np.einsum("nd,nd->n", of_fitted, of_fitted)
    scores = torch.from_numpy(directions @ of_fitted.T - offsets)
    values, columns = largest(scores, min(PLACED_BY, len(of_fitted)))
    squares = np.einsum("nd,nd->n", directions, directions)[:, None] - 2 * values.numpy()
    distances = np.sqrt(np.maximum(squares, 0))
    nearest = distances.min(axis=1, keepdims=True)
    weights = np.exp(-(distances - nearest) / np.maximum(np.median(distances - nearest, axis=1, keepdims=True), 1e-6))
    weights /= weights.sum(axis=1, keepdims=True)
    return np.asarray(np.einsum("nk,nkd->nd", weights, places[columns.numpy()]), dtype=np.float32)


def _fit(directions: Floats) -> Floats:
    from umap import UMAP

    _tell("finding neighbours", 0.0)
    n_neighbors = min(NEIGHBOURS, len(directions) - 1)
    fitting = UMAP(
        n_neighbors=n_neighbors,
        random_state=0,
        n_jobs=1,
        verbose=True,
        tqdm_kwds={"file": _Bar(), "bar_format": "{n} {total}", "mininterval": 0.5},
    )
    sys.stdout, real = io.StringIO(), sys.stdout  # what it prints while it works is not for us
    try:
        return np.asarray(fitting.fit_transform(directions), dtype=np.float32)
    finally:
        sys.stdout = real


class _Bar(io.StringIO):
    """Takes the text of a progress bar, "12 200", and passes it on."""

    def write(self, text: str) -> int:
        words = text.split()
        if len(words) == 2 and all(word.isdigit() for word in words):
            _tell("laying out", int(words[0]) / max(1, int(words[1])))
        return len(text)


def _tell(phase: str, share: float) -> None:
    print(json.dumps([phase, share]), file=sys.__stdout__, flush=True)


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
