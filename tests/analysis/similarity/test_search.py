"""Nearest recordings: all ways of searching find the same, and what is proved to be exact is."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from ecgfounder.analysis.similarity import search
from ecgfounder.analysis.similarity.search import InMemory, Queries, open_index, search_all, search_units
from ecgfounder.analysis.similarity.space import Space
from ecgfounder.errors import RunError
from tests.builders.vectors import brute, made_up


@pytest.mark.parametrize("whiten", [False, True])
def test_neighbours_are_those_of_the_definition(whiten: bool, tmp_path: Path) -> None:
    X = made_up(300, 12, 8)
    vectors = InMemory(X)
    space = Space.of(X, whiten=whiten)
    similarity = brute(X, whiten)
    np.fill_diagonal(similarity, -np.inf)
    expected = np.argsort(-similarity, axis=1)[:, :7]
    queries = Queries(space.units(X), np.arange(300))
    index = open_index(tmp_path, "a", vectors, space)
    for found in (
        search_all(vectors, space, queries, 7),
        search_units(space.units(X), 7),
        index.search(queries, 7),
        index.search_each(7),
    ):
        np.testing.assert_array_equal(found.rows, expected)
        np.testing.assert_allclose(found.similarity, np.take_along_axis(similarity, expected, 1), atol=1e-5)


@pytest.mark.parametrize("half", [False, True])
def test_the_index_proves_what_is_exact_in_more_dimensions_than_it_has_directions(half: bool, tmp_path: Path) -> None:
    X = made_up(6000, 256, 60, noise=0.2)
    X = X.astype(np.float16).astype(np.float32) if half else X
    vectors = InMemory(X)
    space = Space.of(vectors.sample(3000)[1])
    rows = np.arange(0, 6000, 300)
    queries = Queries(space.units(X[rows]), rows)
    true = search_all(vectors, space, queries, 10)
    with mock.patch.multiple(search, N_DIRECTIONS=30, FIRST_LOOK=100):
        index = open_index(tmp_path, "a", vectors, space)
        assert index.vectors(rows).dtype == np.float32
        np.testing.assert_array_equal(index.vectors(rows), X[rows])
        assert (tmp_path / "a" / "vectors.npy").stat().st_size < 5 * X.size - 2 * half * X.size
        found = index.search(queries, 10)
        assert found.exact.all()
        np.testing.assert_array_equal(found.rows, true.rows)
        np.testing.assert_allclose(found.similarity, true.similarity, atol=1e-5)
        with mock.patch.object(search, "MOST_LOOKED_AT", 1):
            assert not index.search(queries, 10).exact.all()
    each = index.search_each(10, rows=rows)
    shared = [len(set(one) & set(other)) for one, other in zip(each.rows.tolist(), true.rows.tolist(), strict=True)]
    assert np.mean(shared) > 9.5


def test_what_cannot_be_proved_is_not_called_exact(tmp_path: Path) -> None:
    X = np.random.default_rng(1).standard_normal((4000, 200)).astype(np.float32)  # no directions that matter
    vectors, space = InMemory(X), Space.of(X)
    queries = Queries(space.units(X[:5]), np.arange(5))
    with mock.patch.multiple(search, N_DIRECTIONS=4, FIRST_LOOK=50, MOST_LOOKED_AT=200):
        found = open_index(tmp_path, "a", vectors, space).search(queries, 10)
    true = search_all(vectors, space, queries, 10)
    for number in range(5):
        assert not found.exact[number] or set(found.rows[number]) == set(true.rows[number])
    assert not found.exact.all()


def test_patients_and_the_query_itself_are_left_out(tmp_path: Path) -> None:
    X = made_up(200, 10, 10)
    groups = np.arange(200) // 4
    vectors, space = InMemory(X), Space.of(X)
    queries = Queries(space.units(X), np.arange(200), groups)
    index = open_index(tmp_path, "a", vectors, space)
    for found in (
        search_all(vectors, space, queries, 5, groups),
        search_units(space.units(X), 5, groups),
        index.search(queries, 5, groups),
        index.search_each(5, groups=groups),
    ):
        assert (groups[found.rows] != groups[:, None]).all()
    few = Queries(space.units(X[:1]), np.array([0]), np.zeros(1, np.int64))
    alone = search_all(vectors, space, few, 5, np.zeros(200, np.int64))
    assert alone.rows.tolist() == [[-1] * 5]
    same = index.search(few, 5, np.zeros(200, np.int64))
    assert same.rows.tolist() == [[-1] * 5]


def test_more_neighbours_than_recordings_are_all_recordings(tmp_path: Path) -> None:
    X = made_up(6, 4, 4)
    vectors, space = InMemory(X), Space.of(X)
    queries = Queries(space.units(X[:2]), np.array([0, -1]))
    for found in (
        search_all(vectors, space, queries, 50),
        open_index(tmp_path, "a", vectors, space).search(queries, 50),
    ):
        assert found.rows.shape == (2, 6)
        assert sorted(found.rows[0]) == [-1, 1, 2, 3, 4, 5]
        assert sorted(found.rows[1]) == [0, 1, 2, 3, 4, 5]
        assert found.rows[1, 0] == 1


def test_an_index_is_built_once_and_again_if_it_is_damaged_or_of_others(tmp_path: Path) -> None:
    X = made_up(100, 8, 8)
    vectors, space = InMemory(X), Space.of(X)
    with mock.patch.object(search, "_build", wraps=search._build) as build:
        open_index(tmp_path, "a", vectors, space)
        open_index(tmp_path, "a", vectors, space)
        assert build.call_count == 1
        (tmp_path / "a" / "reduced.npy").write_bytes(b"no array")
        open_index(tmp_path, "a", vectors, space)
        assert build.call_count == 2
        (tmp_path / "a" / "index.json").write_text("{")
        open_index(tmp_path, "a", vectors, space)
        assert build.call_count == 3
        os.chmod(tmp_path / "a", 0o777)
        open_index(tmp_path, "a", vectors, space)
        assert build.call_count == 4
        open_index(tmp_path, "b", vectors, space)
        assert build.call_count == 5
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a", "b"]
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700


def test_several_that_build_an_index_at_once_use_the_first_that_is_complete(tmp_path: Path) -> None:
    X = made_up(400, 16, 8)
    vectors, space = InMemory(X), Space.of(X)
    queries = Queries(space.units(X[:3]), np.arange(3))
    true = search_all(vectors, space, queries, 5)
    for attempt in range(5):
        with ThreadPoolExecutor(4) as threads:
            opened = list(threads.map(lambda _: open_index(tmp_path, str(attempt), vectors, space), range(4)))  # noqa: B023
        for index in opened:
            np.testing.assert_array_equal(index.search(queries, 5).rows, true.rows)
            assert len(index.hubs) == 400
    assert sorted(each.name for each in tmp_path.iterdir()) == list("01234")


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    X = made_up(20, 4, 4)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="set ECGFOUNDER_CACHE"):
        open_index(tmp_path / "file", "a", InMemory(X), Space.of(X))


def test_an_index_for_which_there_is_no_space_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    X = made_up(100, 8, 8)
    full = OSError(errno.ENOSPC, "No space left on device")
    with mock.patch.object(os, "posix_fallocate", side_effect=full), pytest.raises(RunError, match="No space left"):
        open_index(tmp_path, "a", InMemory(X), Space.of(X))
    assert list(tmp_path.iterdir()) == []


def test_recordings_that_are_all_alike_have_no_space() -> None:
    with pytest.raises(RunError, match="different embeddings"):
        Space.of(np.ones((5, 3), np.float32))
    with pytest.raises(RunError, match="at least two"):
        Space.of(np.ones((1, 3), np.float32))


def test_the_centre_itself_is_near_to_nothing() -> None:
    X = np.array([[1, 0], [-1, 0], [0, 1], [0, -1], [0, 0]], np.float32)
    space = Space.of(X)
    assert space.units(X)[4].tolist() == [0, 0]
    assert search_units(space.units(X), 1).rows.shape == (5, 1)


def test_what_an_ended_process_left_is_removed_and_a_living_ones_is_not(tmp_path: Path) -> None:
    X = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)
    old, held, new = (tmp_path / f".building-{name}" for name in ("old", "held", "new"))
    for each in (old, held, new):
        each.mkdir()
        (each / "vectors.npy").write_bytes(b"patients")
    for each in (old, held):
        os.utime(each, (time.time() - 60, time.time() - 60))
    words = (
        "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX); "
        "print(1, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", words, str(held)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"1\n"
        open_index(tmp_path, "a", InMemory(X), Space.of(X))
        assert sorted(each.name for each in tmp_path.iterdir()) == [".building-held", ".building-new", "a"]
        other.kill()
    open_index(tmp_path, "b", InMemory(X), Space.of(X))
    assert sorted(each.name for each in tmp_path.iterdir()) == [".building-new", "a", "b"]


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_vectors_without_a_length_are_refused(value: float, tmp_path: Path) -> None:
    X = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)
    space = Space.of(X)
    X[3, 2] = value
    with pytest.raises(RunError, match="not finite, or too large"):
        open_index(tmp_path, "a", InMemory(X), space)
    assert list(tmp_path.iterdir()) == []
    if not np.isfinite(value):
        with pytest.raises(RunError, match="not finite"):
            Space.of(X)
