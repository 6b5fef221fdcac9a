"""Lengths: a resampled recording has the samples that its duration comes to, and long windows are filtered with all they need."""

from __future__ import annotations

import numpy as np
import pytest

from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.ecg.recording import Recording
from ecgfounder.errors import PrepareError
from ecgfounder.preprocess import windows
from ecgfounder.preprocess.preparation import Preparation
from ecgfounder.preprocess.recipes import PAPER, Butterworth, Recipe
from ecgfounder.preprocess.resampling import resample
from ecgfounder.preprocess.signals import prepare
from ecgfounder.preprocess.windows import cut_windows


def noise(n_samples: int, n_leads: int = 1) -> np.ndarray:
    return np.random.default_rng(3).standard_normal((n_leads, n_samples)).astype(np.float32)


@pytest.mark.parametrize("method", ["linear", "polyphase"])
@pytest.mark.parametrize(
    ("n_samples", "rate", "length"),
    [
        (1000, 360.0, 1389),  # 1388.9
        (1001, 360.0, 1390),  # 1390.3
        (1000, 1000.0, 500),
        (999, 1000.0, 500),  # 499.5, to the even one
        (1003, 1000.0, 502),  # 501.5
        (1000, 257.0, 1946),  # 1945.5
        (1001, 240.0, 2085),  # 2085.4
        (3, 1000.0, 2),  # 1.5
    ],
)
def test_a_resampled_recording_has_the_rounded_number_of_samples(
    n_samples: int, rate: float, length: int, method: str
) -> None:
    samples = noise(n_samples, 12)
    assert resample(samples, rate, method=method).shape == (12, length)
    if n_samples > 500:
        (only,) = prepare(Recording(samples, rate, STANDARD_LEADS, "test"), Preparation(resampling=method)).inputs
        assert only.shape == (12, length)


@pytest.mark.parametrize(("missing", "fits"), [(0, True), (1, True), (2, False)])
def test_a_recording_that_rounds_to_a_window_fills_it(missing: int, fits: bool) -> None:
    # At 1000 Hz one sample is half of one at 500 Hz; 4,999.5 are 5,000.
    ecg = Recording(noise(10_000 - missing, 12), 1000.0, STANDARD_LEADS, "test")
    preparation = Preparation(window=10, stride=10)
    if fits:
        assert [data.shape for data in prepare(ecg, preparation).inputs] == [(12, 5000)]
    else:
        with pytest.raises(PrepareError, match="shorter than one window"):
            prepare(ecg, preparation)


@pytest.mark.parametrize(("window", "stride"), [(40.0, 40.0), (65.0, 7.0), (100.0, 30.0)])
def test_windows_longer_than_a_block_s_margin_are_filtered_as_in_the_whole(
    monkeypatch: pytest.MonkeyPatch, window: float, stride: float
) -> None:
    ecg = Recording(noise(500 * 400), 500.0, ("I",), "test")
    preparation = Preparation(mode="1lead", recipe=PAPER, window=window, stride=stride, remainder="drop")
    monkeypatch.setattr(windows, "FILTER_BLOCK", 1e9)
    whole = list(prepare(ecg, preparation).inputs)
    monkeypatch.setattr(windows, "FILTER_BLOCK", 50.0)
    blocks = prepare(ecg, preparation).inputs
    assert len(blocks) == len(whole)
    for number, expected in enumerate(whole):
        assert blocks[number].shape == expected.shape
        np.testing.assert_allclose(blocks[number], expected, rtol=0, atol=1e-5)


def test_a_block_s_ends_are_filtered_with_what_lies_beyond_them(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Recipe("slow", "1", filters=(Butterworth("highpass", (0.2,), order=2),), filter_scope="recording")
    ecg = Recording(noise(500 * 200), 500.0, ("I",), "test")
    preparation = Preparation(mode="1lead", recipe=slow, window=10, stride=10)
    whole = list(prepare(ecg, preparation).inputs)
    monkeypatch.setattr(windows, "FILTER_BLOCK", 40.0)
    blocks = prepare(ecg, preparation).inputs
    for number, expected in enumerate(whole):  # each block's first and last window among them
        np.testing.assert_allclose(blocks[number], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("length", "stride", "remainder", "spans"),
    [
        (5000, 10, "drop", [(0, 5000)]),
        (9999, 10, "drop", [(0, 5000)]),
        (10_000, 10, "drop", [(0, 5000), (5000, 10_000)]),
        (10_000, 10, "pad", [(0, 5000), (5000, 10_000)]),
        (10_001, 10, "pad", [(0, 5000), (5000, 10_000), (10_000, 15_000)]),
        (10_001, 10, "keep", [(0, 5000), (5000, 10_000), (10_000, 10_001)]),
        (7500, 5, "keep", [(0, 5000), (2500, 7500)]),
        (7501, 5, "keep", [(0, 5000), (2500, 7500), (5000, 7501)]),
        (7000, 20, "pad", [(0, 5000)]),  # the next window would begin beyond the end
        (7000, None, "pad", [(0, 5000)]),
        (4999, None, "keep", [(0, 4999)]),
        (4999, None, "pad", [(0, 5000)]),
    ],
)
def test_windows_begin_a_stride_apart_and_the_last_one_is_what_was_asked_for(
    length: int, stride: float | None, remainder: str, spans: list[tuple[int, int]]
) -> None:
    found, _ = cut_windows(length, Preparation(window=10, stride=stride, remainder=remainder))
    assert found == spans


def test_a_remainder_is_filtered_where_it_is_just_long_enough() -> None:
    recipe = Recipe("highpass", "1", filters=(Butterworth("highpass", (0.5,), order=2),))
    least = recipe.minimum_samples()
    preparation = Preparation(recipe=recipe, window=10, stride=10, remainder="keep")
    spans, flags = cut_windows(5000 + least, preparation)
    assert (spans[-1], flags) == ((5000, 5000 + least), [])
    spans, flags = cut_windows(5000 + least - 1, preparation)
    assert (spans, flags) == ([(0, 5000)], [f"remainder_dropped:{(least - 1) / 500:g}"])
    assert cut_windows(least, Preparation(recipe=recipe)) == ([(0, least)], [])
    with pytest.raises(PrepareError, match="too short"):
        cut_windows(least - 1, Preparation(recipe=recipe))
