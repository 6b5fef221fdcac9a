"""Where recordings lie on the map, and their nearest recordings; what takes long is done in the background.

In: a selection of recordings. Out: coordinates uint16 [n, 2] by principal components, at once when all embeddings were read, and
by UMAP, when they are asked for; the nearest recordings of a recording.

Both maps are of the space in which recordings are compared (`ecgfounder.analysis.similarity.space`): embeddings minus their mean,
with length 1, in 128 principal directions, as the index of neighbours has them. The index and the coordinates of UMAP are kept in
the cache of neighbours, outside the run.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ecgfounder.analysis.rows.selection import Selection
from ecgfounder.analysis.similarity.neighbours import index_folder, index_key, vectors_of
from ecgfounder.analysis.similarity.search import Index, Queries, Vectors, open_index, present_index
from ecgfounder.analysis.similarity.space import SAMPLE, Space
from ecgfounder.errors import ECGFounderError, MissingDependencyError, RunError, SettingsError
from ecgfounder.storage.replace import replacing
from ecgfounder.storage.temporary import temporary_folder

Floats = npt.NDArray[np.float32]
Places16 = npt.NDArray[np.uint16]
Rows = npt.NDArray[np.int64]
State = Literal["absent", "working", "ready", "failed"]

LARGEST = 65_535
"""The largest coordinate."""

NEAREST = 10
FITTED = 50_000
"""Recordings that UMAP is fitted on, spread evenly; the others are placed by those of them that are nearest."""

FEWEST_FOR_UMAP = 20

_CLOSE_SECONDS = 10.0

_SAVED = "umap-1.npy"
"""In the folder of the index; another number for another way to make it."""


@dataclass
class Progress:
    """How far something is that is done in the background.

    Attributes
    ----------
    state : str
        "absent" (not asked for), "working", "ready" or "failed".
    phase : str
        What is being done, or why it failed.
    share : float
        Of the phase, from 0 to 1.
    """

    state: State = "absent"
    phase: str = ""
    share: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return {"state": self.state, "phase": self.phase, "share": round(self.share, 3)}


class _Counted:
    """Vectors that tell how many of them were read, until they are not wanted any more."""

    def __init__(self, vectors: Vectors, progress: Progress, is_closed: threading.Event) -> None:
        self._vectors, self._progress, self._is_closed = vectors, progress, is_closed

    def __len__(self) -> int:
        return len(self._vectors)

    def sample(self, size: int) -> tuple[Rows, Floats]:
        return self._vectors.sample(size)

    def blocks(self, rows_at_once: int = 16_384) -> Iterator[tuple[Rows, Floats]]:
        n_read = 0
        for rows, block in self._vectors.blocks(rows_at_once):
            if self._is_closed.is_set():
                raise RunError("the run is not looked at any more")
            yield rows, block
            n_read += len(rows)
            self._progress.share = n_read / len(self)


class Places:
    """Places of recordings; reading the embeddings begins at once, in a thread.

    Parameters
    ----------
    selection : Selection
        The recordings.

    Attributes
    ----------
    pca, umap : Progress
        How far each map is.
    """

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self._n = selection.table.num_rows
        self.pca, self.umap = Progress("working", "the embeddings are being read"), Progress()
        self._index: Index | None = None
        self._coordinates: dict[str, Places16] = {}
        self._explained: tuple[float, float] = (0.0, 0.0)
        self._child: subprocess.Popen[str] | None = None
        self._making: threading.Thread | None = None
        self._lock = threading.Lock()
        self._is_closed = threading.Event()
        self._reading = threading.Thread(target=self._read, name="ecgfounder-places", daemon=True)
        self._reading.start()

    def wait(self, seconds: float | None = None) -> None:
        """Wait until the embeddings were read, or could not be."""
        self._reading.join(seconds)

    def close(self) -> None:
        """End what is done in the background, and wait a while for it."""
        with self._lock:
            self._is_closed.set()
        if self._child is not None:
            self._child.kill()
        for each in (self._reading, self._making):
            if each is not None:
                each.join(_CLOSE_SECONDS)

    def coordinates(self, kind: str) -> Places16:
        """uint16 [n, 2] of a map that is ready, "pca" or "umap"; the same scale for both axes."""
        if kind not in self._coordinates:
            raise SettingsError(f"there is no map {kind!r} yet")
        return self._coordinates[kind]

    @property
    def explained(self) -> tuple[float, float]:
        """Shares of the variance that the two components of the map by principal components have."""
        return self._explained

    def nearest(self, row: int, k: int = NEAREST) -> tuple[Rows, Floats, bool]:
        """Rows and similarities of the nearest recordings, and whether they are proved to be the nearest.

        Raises
        ------
        RunError
            If they are not known: the embeddings are still being read, cannot be read, or do not differ.
        """
        if self._index is None:
            raise RunError(self.pca.phase or "there are no other recordings to compare with")
        index, own = self._index, np.array([row])
        found = index.search(Queries(index.space.units(index.vectors(own)), own), min(k, self._n - 1))
        is_there = found.rows[0] >= 0
        return found.rows[0][is_there], found.similarity[0][is_there], bool(found.exact[0])

    @property
    def has_index(self) -> bool:
        """Whether recordings can be compared: there are two that differ, and they have been read."""
        return self._index is not None

    def nearest_of_all(self, k: int) -> tuple[Rows, Floats]:
        """Rows int64 [n, k] and similarities of the nearest recordings of each; of candidates, as in the analysis of neighbours.

        Raises
        ------
        RunError
            If they are not known.
        """
        if self._index is None:
            raise RunError(self.pca.phase or "the recordings do not differ, so that none is nearer than another")
        found = self._index.search_each(min(k, self._n - 1))
        return found.rows, found.similarity

    # --- principal components --------------------------------------------------------------------------------------------

    def _read(self) -> None:
        try:
            self._coordinates["pca"] = self._principal()
        except ECGFounderError as error:
            self.pca = Progress("failed", str(error))
            return
        except Exception as error:  # noqa: BLE001 - else the page would wait for ever; a library may quote what it read
            self.pca = Progress("failed", f"the embeddings cannot be read ({type(error).__name__})")
            return
        self.pca = Progress("ready")
        self._take_saved()

    def _principal(self) -> Places16:
        if self._n == 0:
            return np.empty((0, 2), np.uint16)
        middle = np.full((self._n, 2), LARGEST // 2, np.uint16)
        if self._n == 1:
            return middle
        vectors = _Counted(vectors_of(self._selection), self.pca, self._is_closed)
        _, sample = vectors.sample(SAMPLE)
        if not np.ptp(sample, axis=0).any():
            return middle  # of the same embedding; there is no space to compare them in
        folder, key = index_folder(), index_key(self._selection, whitened=False)
        self._index = present_index(folder, key, self._n) or open_index(folder, key, vectors, Space.of(sample))
        directions = self._index.directions()[:, :-1]
        centred = directions - directions.mean(axis=0)
        variances, axes = np.linalg.eigh((centred.T @ centred).astype(np.float64))
        components = centred @ axes[:, ::-1][:, :2].astype(np.float32)
        if components.shape[1] == 1:
            components = np.column_stack([components, np.zeros(self._n, np.float32)])
        # of all variance: what is outside the directions counts too
        whole = variances.sum() + float((self._index.directions()[:, -1] ** 2).sum())
        shares = [max(0.0, float(each / whole)) if whole > 0 else 0.0 for each in variances[::-1][:2]]
        self._explained = (shares[0], shares[1] if len(shares) > 1 else 0.0)
        return as_places(components)

    # --- UMAP ------------------------------------------------------------------------------------------------------------

    def _take_saved(self) -> None:
        """Take the coordinates that an earlier call made of the same recordings."""
        if self._index is None:
            return
        with suppress(OSError, ValueError):
            saved = np.load(self._index.folder / _SAVED, allow_pickle=False)
            if saved.shape == (self._n, 2) and np.isfinite(saved).all():
                self._coordinates["umap"] = as_places(saved)
                self.umap = Progress("ready")

    def start_umap(self) -> None:
        """Begin to make the map by UMAP, unless it is there, or being made.

        Raises
        ------
        MissingDependencyError
            If umap-learn is not installed.
        RunError
            If there are too few recordings, or the embeddings have not been read.
        """
        with self._lock:
            if self.umap.state in ("working", "ready"):
                return
            if find_spec("umap") is None:
                raise MissingDependencyError("umap-learn", "a map by UMAP", "map")
            if self._index is None or self._n < FEWEST_FOR_UMAP:
                raise RunError(
                    self.pca.phase or f"UMAP needs at least {FEWEST_FOR_UMAP} recordings with different embeddings"
                )
            self.umap = Progress("working", "starting")
            self._making = threading.Thread(
                target=self._make_umap, args=(self._index,), name="ecgfounder-umap", daemon=True
            )
            self._making.start()

    def make_umap(self) -> None:
        """Make the map by UMAP and wait for it.

        Raises
        ------
        MissingDependencyError, RunError
            As `start_umap` does, and if it fails.
        """
        self.wait()
        self.start_umap()
        if self._making is not None:
            self._making.join()
        if self.umap.state != "ready":
            raise RunError(self.umap.phase)

    def _make_umap(self, index: Index) -> None:
        try:
            self.umap = self._run_umap(index)
        except OSError as error:
            self.umap = Progress("failed", f"UMAP cannot be started: {error.strerror or error}")
        except Exception as error:  # noqa: BLE001 - else the page would wait for ever
            self.umap = Progress("failed", f"UMAP failed ({type(error).__name__})")

    def _run_umap(self, index: Index) -> Progress:
        """Run UMAP in a process of its own, which computes for minutes, and compiles before."""
        with temporary_folder() as folder:
            place = folder / "umap.npy"
            words = [sys.executable, "-m", "ecgfounder.viewer.umap_process", str(index.folder), str(place), str(FITTED)]
            self._child = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            with self._child as child:
                if self._is_closed.is_set():
                    child.kill()
                for line in child.stdout or ():
                    with suppress(ValueError, TypeError):  # a library may print a line of its own
                        self.umap.phase, self.umap.share = json.loads(line)
            try:
                found = np.load(place, allow_pickle=False)
            except (OSError, ValueError):
                return Progress("failed", f"UMAP ended with status {child.returncode}")
            self._coordinates["umap"] = as_places(found)
            with suppress(OSError), replacing(index.folder / _SAVED) as file:
                np.save(file, found)
        return Progress("ready")


def as_places(components: Floats) -> Places16:
    """Coordinates from 0 to `LARGEST`, with the same scale for both axes, and the smaller extent in the middle."""
    low, high = components.min(axis=0), components.max(axis=0)
    extent = float((high - low).max())
    if not extent > 0:
        return np.full(components.shape, LARGEST // 2, np.uint16)
    moved = (components - (low + high) / 2) / extent + 0.5
    places: Places16 = np.clip(np.rint(moved * LARGEST), 0, LARGEST).astype(np.uint16)
    return places
