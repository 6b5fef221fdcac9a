"""An engine of lower precision beside float32: its own maps come out, and the error is that of the first recordings."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ecgfounder.engines import metered
from ecgfounder.engines.engine import Array, Engine
from ecgfounder.engines.metered import RECORDINGS_MEASURED, MeteredEngine
from ecgfounder.errors import EmbeddingError
from ecgfounder.network.bundles import FEATURES
from ecgfounder.network.head import Head


class Scaled(Engine):
    """Maps are each row's first sample times a factor."""

    def __init__(self, factor: float, **more: object) -> None:
        settings = {
            "precision": "float32",
            "device": "cpu",
            "threads": 1,
            "batch_size": 8,
            "in_channels": 1,
            "head": None,
        }
        super().__init__(**(settings | more))  # type: ignore[arg-type]
        self.name = f"scaled by {factor:g}"
        self.factor = factor
        self.rows: list[int] = []
        self.closed = 0

    def _embed(self, batch: Array) -> Array:
        self.rows.append(len(batch))
        assert not self.closed
        return np.repeat(batch[:, :1, :1] * np.float32(self.factor), FEATURES, axis=2)

    def describe(self) -> str:
        return self.name

    def close(self) -> None:
        self.closed += 1


def rows(count: int, value: float = 1.0) -> Array:
    return np.full((count, 1, 256), value, dtype=np.float32)


@pytest.fixture
def pair() -> tuple[Scaled, Scaled]:
    return Scaled(0.9, precision="bfloat16"), Scaled(1.0)


def test_the_maps_are_those_of_the_engine_in_use(pair: tuple[Scaled, Scaled]) -> None:
    engine = MeteredEngine(*pair)
    for _ in range(4):
        assert np.all(engine.embed(rows(7, 2.0)) == np.float32(1.8))
    assert sum(pair[0].rows) == 28


def test_the_error_is_the_difference_s_norm_over_the_reference_s(pair: tuple[Scaled, Scaled]) -> None:
    engine = MeteredEngine(*pair)
    assert engine.relative_error is None
    engine.embed(rows(1, 3.0))
    assert engine.relative_error == pytest.approx(0.1, rel=1e-5)
    pair[0].factor = 1.0  # from now on without an error; weighed by what is measured
    engine.embed(rows(2, 3.0))
    assert engine.relative_error == pytest.approx(0.1 / np.sqrt(3), rel=1e-5)
    assert engine.measured == 3


def test_no_more_than_the_first_recordings_are_measured_and_the_reference_is_closed_then(
    pair: tuple[Scaled, Scaled],
) -> None:
    engine = MeteredEngine(*pair)
    engine.embed(rows(RECORDINGS_MEASURED - 1))
    assert pair[1].closed == 0
    engine.embed(rows(5))
    assert pair[1].rows == [RECORDINGS_MEASURED - 1, 1]
    assert (engine.measured, pair[1].closed) == (RECORDINGS_MEASURED, 1)
    before = engine.relative_error
    pair[0].factor = 5.0
    engine.embed(rows(5))
    assert engine.relative_error == before
    engine.close()
    assert (pair[0].closed, pair[1].closed) == (1, 1)


def test_means_are_measured_as_maps_are_and_computed_by_the_engine_in_use_after_that(
    pair: tuple[Scaled, Scaled],
) -> None:
    engine = MeteredEngine(*pair)
    np.testing.assert_allclose(engine.means(rows(RECORDINGS_MEASURED, 3.0)), 2.7, rtol=1e-6)
    assert engine.relative_error == pytest.approx(0.1, rel=1e-5)
    pair[0].samples_per_pass = 256
    assert engine.means(rows(2, 3.0)).shape == (2, FEATURES)
    assert engine.samples_per_pass == 256
    assert pair[1].rows == [RECORDINGS_MEASURED]


def test_a_batch_that_fills_the_measure_exactly_ends_it(pair: tuple[Scaled, Scaled]) -> None:
    engine = MeteredEngine(*pair)
    engine.embed(rows(RECORDINGS_MEASURED))
    assert (pair[1].rows, pair[1].closed) == ([RECORDINGS_MEASURED], 1)


def test_both_are_closed_where_fewer_recordings_came(pair: tuple[Scaled, Scaled]) -> None:
    engine = MeteredEngine(*pair)
    engine.embed(rows(2))
    engine.close()
    assert (pair[0].closed, pair[1].closed) == (1, 1)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("broken", [0, 1])
def test_a_recording_whose_map_is_not_finite_does_not_spoil_the_measure_of_others(
    pair: tuple[Scaled, Scaled], broken: int, value: float
) -> None:
    class Overflowing(Scaled):
        def _embed(self, batch: Array) -> Array:
            maps = super()._embed(batch)
            maps[batch[:, 0, 0] > 100, 0, 5] = value
            return maps

    engines = [Scaled(0.9), Scaled(1.0)]
    engines[broken] = Overflowing(engines[broken].factor)
    engine = MeteredEngine(*engines)
    engine.embed(rows(1, 500.0))
    assert engine.relative_error is None
    engine.embed(np.concatenate([rows(1), rows(1, 500.0), rows(2)]))
    assert engine.relative_error == pytest.approx(0.1, rel=1e-5)
    assert engine.measured == 5


def test_a_recording_that_the_reference_cannot_compute_is_embedded_all_the_same(pair: tuple[Scaled, Scaled]) -> None:
    class Small(Scaled):
        def _embed(self, batch: Array) -> Array:
            if batch.shape[2] > 256:
                raise EmbeddingError("not enough memory")
            return super()._embed(batch)

    reference = Small(1.0)
    engine = MeteredEngine(pair[0], reference)
    long = np.ones((RECORDINGS_MEASURED - 1, 1, 512), dtype=np.float32)
    assert np.all(engine.embed(long) == np.float32(0.9))
    assert engine.relative_error is None
    engine.embed(rows(1))
    assert engine.relative_error == pytest.approx(0.1, rel=1e-5)
    assert reference.closed == 1


def test_differences_are_summed_in_double_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metered, "RECORDINGS_MEASURED", 10_000)
    engine = MeteredEngine(Scaled(1.0), Scaled(2.0))
    engine.embed(rows(1, 2e19))  # its square is beyond float32
    assert engine.relative_error == pytest.approx(0.5)


def test_it_speaks_for_the_engine_in_use(pair: tuple[Scaled, Scaled]) -> None:
    head = Head(np.zeros((2, FEATURES), np.float32), np.zeros(2, np.float32))
    used = Scaled(0.5, precision="float16", device="cuda:1", threads=2, batch_size=128, head=head)
    engine = MeteredEngine(used, pair[1])
    told = (engine.precision, engine.device, engine.threads, engine.batch_size, engine.in_channels, engine.head)
    assert told == ("float16", "cuda:1", 2, 128, 1, head)
    assert (engine.name, engine.describe(), engine.samples_per_pass) == (used.name, used.name, None)
    used.samples_per_pass = 5000
    engine.embed(rows(1))
    assert engine.samples_per_pass == 5000
    with pytest.raises(EmbeddingError):
        engine.embed(np.zeros((1, 2, 256), np.float32))


def test_threads_measure_one_after_the_other_and_no_recording_twice(pair: tuple[Scaled, Scaled]) -> None:
    inside = threading.Lock()

    class Alone(Scaled):
        def _embed(self, batch: Array) -> Array:
            assert inside.acquire(blocking=False), "two threads at once"
            try:
                time.sleep(0.01)
                return super()._embed(batch)
            finally:
                inside.release()

    reference = Alone(1.0)
    engine = MeteredEngine(pair[0], reference)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: engine.embed(rows(3)), range(40)))
    assert (sum(reference.rows), engine.measured, reference.closed) == (RECORDINGS_MEASURED, RECORDINGS_MEASURED, 1)
