"""Nearest recordings: exact, reading all embeddings; or by an index on disk, which proves that it is exact or says its recall.

In: vectors of recordings, a `Space`, queries. Out: rows and similarities of the k nearest.

The index has the embeddings as they are, and 128 principal directions of their unit vectors. The similarity in these directions,
plus the product of what both vectors have outside them, is an upper bound of the similarity. Recordings are looked at in the
order of the bound until no bound is above the k-th similarity.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from ecgfounder.analysis.similarity.space import Floats, Space
from ecgfounder.errors import RunError
from ecgfounder.storage.replace import place_folder, reserve

if TYPE_CHECKING:
    import torch

Rows = npt.NDArray[np.int64]

N_DIRECTIONS = 128
FIRST_LOOK = 2_000
"""Recordings whose similarity is computed exactly, by their bounds, before the rest is judged."""
MOST_LOOKED_AT = 50_000
"""Recordings of which an exact search by the index may compute the similarity, for one query."""
CANDIDATES = 4
"""For neighbours of all recordings, candidates for each neighbour."""
FEWEST_CANDIDATES = 40
SAMPLE_OF_DIRECTIONS = 20_000
"""Recordings of which the principal directions are taken."""
ASKED_FOR_HUBS, HUB_NEIGHBOURS = 2_000, 10
"""Recordings, spread over the run, whose nearest ones are looked for when an index is built, and how many."""
_BUILDING = ".building-"
_ABANDONED_SECONDS = 10.0  # after which a folder that is being built is locked
_FEW_QUERIES = 4
_SLACK = 1e-4  # of rounding in a bound
_QUERIES_AT_ONCE, _COLUMNS_AT_ONCE, _GATHERED_AT_ONCE = 1024, 16_384, 512
_ROWS_AT_ONCE, _PAIRS_AT_ONCE = 16_384, 2048
_GROUP = 16  # columns of which the maximum is looked at first

_VECTORS, _REDUCED, _REST, _LENGTHS = "vectors.npy", "reduced.npy", "rest.npy", "lengths.npy"
_HUBS, _SPACE, _ABOUT = "hubs.npy", "space.npz", "index.json"


class Vectors(Protocol):
    """Embeddings of recordings, [n, d]."""

    def __len__(self) -> int: ...

    def blocks(self, rows_at_once: int = ...) -> Iterator[tuple[Rows, Floats]]: ...

    def sample(self, size: int) -> tuple[Rows, Floats]: ...


@dataclass(frozen=True, eq=False)
class InMemory:
    """Embeddings that are in memory, as `Vectors`."""

    array: Floats

    def __len__(self) -> int:
        return len(self.array)

    def blocks(self, rows_at_once: int = _ROWS_AT_ONCE) -> Iterator[tuple[Rows, Floats]]:
        for first in range(0, len(self.array), rows_at_once):
            rows = np.arange(first, min(first + rows_at_once, len(self.array)))
            yield rows, self.array[rows]

    def sample(self, size: int) -> tuple[Rows, Floats]:
        rows = np.unique(np.linspace(0, len(self.array) - 1, min(size, len(self.array))).astype(np.int64))
        return rows, self.array[rows]


@dataclass(frozen=True, eq=False)
class Queries:
    """What neighbours are looked for.

    Attributes
    ----------
    units : numpy.ndarray
        float32 [q, r], unit vectors of the space.
    rows : numpy.ndarray
        int64 [q], the queries' own rows, which are no neighbours of theirs; -1 for others.
    groups : numpy.ndarray or None
        int64 [q], patients whose recordings are no neighbours; None if any may be.
    """

    units: Floats
    rows: Rows
    groups: Rows | None = None

    def __len__(self) -> int:
        return len(self.units)


@dataclass(frozen=True, eq=False)
class Found:
    """The nearest recordings.

    Attributes
    ----------
    rows : numpy.ndarray
        int64 [q, k], nearest first; -1 where there are fewer.
    similarity : numpy.ndarray
        float32 [q, k]; -inf where there are fewer.
    exact : numpy.ndarray
        bool [q], whether these are proved to be the nearest.
    """

    rows: Rows
    similarity: Floats
    exact: npt.NDArray[np.bool_]


class _Best:
    """The k best of each query so far."""

    def __init__(self, n_queries: int, k: int) -> None:
        self.rows = np.full((n_queries, k), -1, dtype=np.int64)
        self.similarity = np.full((n_queries, k), -np.inf, dtype=np.float32)

    def add(self, rows: Rows, similarity: Floats) -> None:
        """Rows [m], or [q, m], with similarities [q, m]."""
        k = self.rows.shape[1]
        values = np.concatenate([self.similarity, similarity], axis=1)
        names = np.concatenate([self.rows, np.broadcast_to(rows, similarity.shape)], axis=1)
        chosen = np.argpartition(-values, k - 1, axis=1)[:, :k]
        self.similarity = np.take_along_axis(values, chosen, axis=1)
        self.rows = np.take_along_axis(names, chosen, axis=1)

    def found(self, exact: bool | npt.NDArray[np.bool_]) -> Found:
        """In order of similarity; of equal ones, the first row first."""
        order = np.lexsort((self.rows, -self.similarity), axis=1)
        rows = np.take_along_axis(self.rows, order, axis=1)
        similarity = np.take_along_axis(self.similarity, order, axis=1)
        rows[similarity == -np.inf] = -1
        return Found(rows, similarity, np.broadcast_to(exact, len(rows)).copy())


def search_all(vectors: Vectors, space: Space, queries: Queries, k: int, groups: Rows | None = None) -> Found:
    """The nearest recordings, exactly, by reading all.

    Parameters
    ----------
    groups : numpy.ndarray, optional
        int64 [n], the patient of each recording; needed if the queries have groups.
    """
    blocks = ((rows, space.units(block)) for rows, block in vectors.blocks())
    return _best_of(blocks, queries, min(k, len(vectors)), groups)


def search_units(units: Floats, k: int, groups: Rows | None = None) -> Found:
    """The nearest recordings of each, exactly, by their unit vectors float32 [n, r] in memory."""
    k = min(k, len(units))
    best, everything = _Best(len(units), k), np.arange(len(units))
    for first in range(0, len(units), _QUERIES_AT_ONCE):
        own = slice(first, first + _QUERIES_AT_ONCE)
        queries = Queries(units[own], everything[own], None if groups is None else groups[own])
        found = _best_of(InMemory(units).blocks(), queries, k, groups)
        best.rows[own], best.similarity[own] = found.rows, found.similarity
    return best.found(exact=True)


def _best_of(blocks: Iterable[tuple[Rows, Floats]], queries: Queries, k: int, groups: Rows | None) -> Found:
    """The best of blocks of unit vectors."""
    best = _Best(len(queries), k)
    for rows, units in blocks:
        similarity = _products(queries.units, units)
        _leave_out(similarity, rows, queries, groups)
        best.add(rows, similarity)
    return best.found(exact=True)


def _products(queries: Floats, units: Floats) -> Floats:
    """All products of two sets of vectors; for few queries, without the threads of a matrix product, which would wait."""
    if len(queries) > _FEW_QUERIES:
        return np.asarray(queries @ units.T)
    return np.stack([np.einsum("nd,d->n", units, query) for query in queries])


def _leave_out(similarity: Floats, rows: Rows, queries: Queries, groups: Rows | None) -> None:
    similarity[queries.rows[:, None] == rows[None, :]] = -np.inf
    if queries.groups is not None and groups is not None:
        similarity[queries.groups[:, None] == groups[rows][None, :]] = -np.inf


class Index:
    """An index of a run's recordings in a folder; made by `open_index`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with np.load(folder / _SPACE, allow_pickle=False) as parts:
            axes = parts["axes"]
            self.space = Space(parts["centre"], axes if axes.size else None)
            self._directions = parts["directions"]
        self._vectors, self._reduced, self._rest, self._lengths = (
            np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in (_VECTORS, _REDUCED, _REST, _LENGTHS)
        )

    def __len__(self) -> int:
        return len(self._vectors)

    @cached_property
    def hubs(self) -> Rows:
        """int64 [n]: of how many of `ASKED_FOR_HUBS` recordings each is among the `HUB_NEIGHBOURS` nearest."""
        return np.asarray(np.load(self.folder / _HUBS, allow_pickle=False), dtype=np.int64)

    def vectors(self, rows: Rows) -> Floats:
        """Embeddings float32 [m, d]."""
        return np.asarray(self._vectors[rows], dtype=np.float32)

    def directions(self, rows: Rows | None = None) -> Floats:
        """float32 [m, r + 1]: principal directions and what is outside of them; the product of two bounds their similarity."""
        chosen = slice(None) if rows is None else rows
        return np.column_stack([self._reduced[chosen], self._rest[chosen]])

    def similarity(self, one: Rows, other: Rows) -> Floats:
        """Similarities float32 [m] of pairs of recordings."""
        found = np.empty(len(one), np.float32)
        for first in range(0, len(one), _PAIRS_AT_ONCE):
            part = slice(first, first + _PAIRS_AT_ONCE)
            left, right = (self.space.units(self.vectors(rows[part])) for rows in (one, other))
            found[part] = np.einsum("md,md->m", left, right)
        return found

    def search(self, queries: Queries, k: int, groups: Rows | None = None) -> Found:
        """The nearest recordings; exact where the bound proves it after at most `MOST_LOOKED_AT` similarities."""
        k = min(k, len(self))
        best = _Best(len(queries), k)
        exact = np.zeros(len(queries), dtype=bool)
        reduced = queries.units @ self._directions
        outside = np.sqrt(np.maximum(0, 1 - np.einsum("qd,qd->q", reduced, reduced)))
        everything = np.arange(len(self))
        for number in range(len(queries)):
            one = Queries(
                queries.units[number : number + 1],
                queries.rows[number : number + 1],
                None if queries.groups is None else queries.groups[number : number + 1],
            )
            bound = (self._reduced @ reduced[number] + self._rest * outside[number])[None]
            _leave_out(bound, everything, one, groups)
            found = _Best(1, k)
            seen = self._look_at(found, bound[0], one, everything, FIRST_LOOK)
            worst = found.similarity.min()
            left = np.flatnonzero(bound[0] >= worst - _SLACK)
            left = left[~np.isin(left, seen)]
            self._look_at(found, bound[0], one, left, MOST_LOOKED_AT)
            exact[number] = len(left) <= MOST_LOOKED_AT
            best.rows[number], best.similarity[number] = found.rows[0], found.similarity[0]
        return best.found(exact)

    def _look_at(self, found: _Best, bound: Floats, query: Queries, rows: Rows, most: int) -> Rows:
        """Compute the similarity of the rows with the highest bounds; returns them."""
        if len(rows) > most:
            rows = rows[np.argpartition(-bound[rows], most - 1)[:most]]
        rows = np.sort(rows[bound[rows] > -np.inf])
        if len(rows):
            found.add(rows, self._similarity(query.units, rows[None]))
        return rows

    def _similarity(self, units: Floats, rows: Rows) -> Floats:
        """Similarities float32 [q, m] of unit vectors and rows [q, m]."""
        products, constants = self.space.product_with(units)
        vectors = self.vectors(rows.reshape(-1)).reshape(*rows.shape, -1)
        sums = np.matmul(vectors, products[:, :, None])[:, :, 0] - constants[:, None]
        lengths = self._lengths[rows]
        return np.asarray(np.divide(sums, lengths, out=np.zeros_like(sums), where=lengths > 0), dtype=np.float32)

    def search_each(self, k: int, *, rows: Rows | None = None, groups: Rows | None = None) -> Found:
        """The nearest recordings of recordings in the index: of candidates by their principal directions, the most similar.

        Parameters
        ----------
        rows : numpy.ndarray, optional
            int64 [q], the recordings; None for all.
        groups : numpy.ndarray, optional
            int64 [n], patients; recordings of the same patient are no neighbours.
        """
        import torch

        wanted = np.arange(len(self)) if rows is None else rows
        k = min(k, len(self))
        n_candidates = min(max(FEWEST_CANDIDATES, CANDIDATES * k), len(self))
        reduced = torch.from_numpy(np.array(self._reduced))
        patients = None if groups is None else torch.from_numpy(np.ascontiguousarray(groups))
        best = _Best(len(wanted), k)
        memory = torch.empty(min(len(wanted), _QUERIES_AT_ONCE) * min(len(self), _COLUMNS_AT_ONCE))
        for first in range(0, len(wanted), _QUERIES_AT_ONCE):
            own = torch.from_numpy(wanted[first : first + _QUERIES_AT_ONCE])
            queries, values, places = reduced[own], [], []
            for begin in range(0, len(self), _COLUMNS_AT_ONCE):
                part = reduced[begin : begin + _COLUMNS_AT_ONCE]
                products = memory[: len(own) * len(part)].view(len(own), len(part))
                torch.mm(queries, part.T, out=products)
                inside = (own >= begin) & (own < begin + len(part))
                products[torch.nonzero(inside)[:, 0], own[inside] - begin] = -torch.inf
                if patients is not None:
                    products[patients[own][:, None] == patients[begin : begin + len(part)][None, :]] = -torch.inf
                highest, columns = largest(products, min(n_candidates, len(part)))
                values.append(highest)
                places.append(columns + begin)
            top = torch.topk(torch.cat(values, dim=1), n_candidates, dim=1, sorted=False)
            candidates = torch.gather(torch.cat(places, dim=1), 1, top.indices).numpy()
            excluded = torch.isneginf(top.values).numpy()
            for at in range(0, len(candidates), _GATHERED_AT_ONCE):
                here = candidates[at : at + _GATHERED_AT_ONCE]
                units = self.space.units(self.vectors(wanted[first + at : first + at + len(here)]))
                similarity = self._similarity(units, here)
                similarity[excluded[at : at + len(here)]] = -np.inf
                among = _Best(len(here), k)
                among.add(here, similarity)
                place = slice(first + at, first + at + len(here))
                best.rows[place], best.similarity[place] = among.rows, among.similarity
        return best.found(exact=False)


def largest(values: torch.Tensor, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The n largest of each row [q, m] and their columns, in any order: they are in the n groups with the largest maxima."""
    import torch

    n_rows, width = values.shape
    if width % _GROUP or width < 2 * n * _GROUP:
        top = torch.topk(values, n, dim=1, sorted=False)
        return top.values, top.indices
    groups = values.view(n_rows, width // _GROUP, _GROUP)
    chosen = torch.topk(groups.amax(dim=2), n, dim=1, sorted=False).indices
    among = torch.gather(groups, 1, chosen[:, :, None].expand(-1, -1, _GROUP)).view(n_rows, n * _GROUP)
    top = torch.topk(among, n, dim=1, sorted=False)
    group = torch.gather(chosen, 1, top.indices // _GROUP)
    return top.values, group * _GROUP + top.indices % _GROUP


def present_index(folder: Path, key: str, n: int) -> Index | None:
    """The index of a key for so many recordings, if it is in a cache folder and is to be trusted."""
    place = folder / key
    if _is_ours(place):
        with suppress(OSError, ValueError, KeyError, json.JSONDecodeError):
            if json.loads((place / _ABOUT).read_bytes()) == _about(key, n):
                return Index(place)
    return None


def open_index(folder: Path, key: str, vectors: Vectors, space: Space) -> Index:
    """The index of a key in a cache folder; it is built if it is not there, or is not to be trusted.

    Parameters
    ----------
    folder : Path
        The cache; only its owner may enter it.
    key : str
        Names the contents, as a file's name.

    Raises
    ------
    RunError
        If it cannot be written.
    """
    place = folder / key
    present = present_index(folder, key, len(vectors))
    if present is not None:
        return present
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if place.exists():
            present = present_index(folder, key, len(vectors))  # another process may have been faster
            if present is not None:
                return present
            shutil.rmtree(place)
        _remove_abandoned(folder)
        aside = Path(tempfile.mkdtemp(prefix=_BUILDING, dir=folder))
        try:
            with _held(aside):
                _build(aside, key, vectors, space)
                place_folder(aside, place)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return Index(place)
    except OSError as error:
        raise RunError(
            f"the index cannot be written to {folder} ({error.strerror or error}): set ECGFOUNDER_CACHE to a folder with enough "
            "space, or search without an index"
        ) from error


@contextmanager
def _held(place: Path) -> Iterator[None]:
    """Lock a folder until the block, or this process, ends."""
    descriptor = os.open(place, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _remove_abandoned(folder: Path) -> None:
    """Remove what processes that were ended while they built an index have left: it holds embeddings."""
    for each in folder.glob(f"{_BUILDING}*"):
        with suppress(OSError):  # it is being built; or its file system has no locks, so that it is not known
            if _is_ours(each) and time.time() - each.stat().st_mtime > _ABANDONED_SECONDS:
                with _held(each):
                    shutil.rmtree(each, ignore_errors=True)


def _is_ours(place: Path) -> bool:
    """Whether nobody else can have written a folder of the cache."""
    try:
        status = os.lstat(place)
    except OSError:
        return False
    return (
        stat.S_ISDIR(status.st_mode)
        and status.st_uid == os.geteuid()
        and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    )


def _about(key: str, n: int) -> dict[str, Any]:
    return {"key": key, "recordings": n, "version": 1}


def _build(place: Path, key: str, vectors: Vectors, space: Space) -> None:
    _, sample = vectors.sample(SAMPLE_OF_DIRECTIONS)
    units = space.units(sample)
    width = min(N_DIRECTIONS, space.width)
    _, directions = np.linalg.eigh((units.T @ units).astype(np.float64))
    directions = np.ascontiguousarray(directions[:, ::-1][:, :width], dtype=np.float32)
    lossless = np.array_equal(sample.astype(np.float16).astype(np.float32), sample)
    n, d = len(vectors), sample.shape[1]

    def array(name: str, shape: tuple[int, ...], kind: npt.DTypeLike) -> Any:
        made = np.lib.format.open_memmap(place / name, mode="w+", dtype=kind, shape=shape)
        reserve(place / name)
        return made

    stored = array(_VECTORS, (n, d), np.float16 if lossless else np.float32)
    reduced = array(_REDUCED, (n, width), np.float32)
    rest, lengths = array(_REST, (n,), np.float32), array(_LENGTHS, (n,), np.float32)
    for rows, block in vectors.blocks():
        units, lengths[rows] = space.units_and_lengths(block)
        inside = units @ directions
        stored[rows], reduced[rows] = block, inside
        rest[rows] = np.sqrt(np.maximum(0, np.einsum("nd,nd->n", units, units) - np.einsum("nd,nd->n", inside, inside)))
    for each in (stored, reduced, rest, lengths):
        each.flush()
    axes = np.empty((0, 0)) if space.axes is None else space.axes
    np.savez(place / _SPACE, centre=space.centre, axes=axes, directions=directions)
    index = Index(place)
    asked = np.unique(np.linspace(0, n - 1, min(n, ASKED_FOR_HUBS)).astype(np.int64))
    found = index.search_each(HUB_NEIGHBOURS, rows=asked).rows
    np.save(place / _HUBS, np.bincount(found[found >= 0], minlength=n).astype(np.int32))
    (place / _ABOUT).write_text(json.dumps(_about(key, n)))
