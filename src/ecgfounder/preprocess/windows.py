"""Windows: their bounds, and the network's inputs, each made when it is accessed.

In: finite samples at the recording's sampling rate, a preparation. Out: spans, and a sequence of float32 inputs [C, L].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from ecgfounder.errors import PrepareError
from ecgfounder.preprocess import quality
from ecgfounder.preprocess.preparation import Preparation
from ecgfounder.preprocess.recipes import Empty, Samples, Samples64, anywhere
from ecgfounder.preprocess.resampling import resample

# Recordings longer than this, in seconds, are filtered in blocks, by recipes that filter before they cut windows. A block has
# `FILTER_MARGIN` more on both sides; beyond that, the response of every filter here is below float32's rounding.
FILTER_BLOCK = 300.0
FILTER_MARGIN = 30.0

Span = tuple[int, int]
"""First sample, and end."""


def cut_windows(length: int, preparation: Preparation) -> tuple[list[Span], list[str]]:
    """Bounds of the windows, in samples of the network's input, for a recording of `length` such samples.

    The last window may end beyond `length` (remainder "pad") or be shorter than the others ("keep").

    Returns
    -------
    list of tuple of (int, int)
        First sample and end of each window.
    list of str
        Flags for the part after the last whole window.

    Raises
    ------
    PrepareError
        If the recording is too short for the recipe's filters or for one window.
    """
    rate = preparation.recipe.sampling_rate
    least = preparation.recipe.minimum_samples()
    if length < least:
        raise PrepareError(
            f"{length / rate:g} s are too short: recipe {preparation.recipe.name!r} needs {least / rate:g} s"
        )
    window, stride = preparation.window_samples, preparation.stride_samples
    if window is None:
        return [(0, length)], []
    if stride is None:
        spans = [(0, window)] if length >= window else []
    else:
        spans = [(start, start + window) for start in range(0, length - window + 1, stride)]
    next_start = 0 if not spans else (spans[-1][0] + stride if stride is not None else length)
    covered = spans[-1][1] if spans else 0
    if length <= covered or next_start >= length:
        return spans, []
    notes = _add_remainder(spans, (next_start, length), preparation)
    if not spans:
        raise PrepareError(
            f"{length / rate:g} s are shorter than one window of {preparation.window:g} s "
            f"(remainder='pad' or keep allows that)"
        )
    return spans, notes


def _add_remainder(spans: list[Span], rest: Span, preparation: Preparation) -> list[str]:
    """Append a last window for the rest, as `remainder` says; returns flags."""
    start, length = rest
    rate, window = preparation.recipe.sampling_rate, preparation.window_samples
    if preparation.remainder == "drop" or window is None:
        return []
    if preparation.recipe.filter_scope == "window" and length - start < preparation.recipe.minimum_samples():
        return [quality.flag("remainder_dropped", (f"{(length - start) / rate:g}",))]
    if preparation.remainder == "keep":
        spans.append(rest)
        return []
    spans.append((start, start + window))
    return [quality.flag("zero_padded", (f"{(start + window - length) / rate:g}",))]


@dataclass(eq=False)
class WindowInputs(Sequence[Samples]):
    """The network's inputs, each made when it is accessed.

    Attributes
    ----------
    samples : numpy.ndarray
        Finite float32 [n_leads, n_samples], in mV, at the recording's sampling rate.
    sampling_rate : float
        In Hz.
    length : int
        Samples of the network's input in the whole recording.
    spans : tuple of tuple of (int, int)
        First sample and end of each window.
    preparation : Preparation
        The settings.
    present : tuple of int
        The rows that hold a signal; the others are zeros in the inputs.
    empty : callable
        Makes the inputs' memory.
    """

    samples: Samples
    sampling_rate: float
    length: int
    spans: tuple[Span, ...]
    preparation: Preparation
    present: tuple[int, ...]
    empty: Empty = anywhere
    _block: tuple[int, Samples64] | None = field(default=None, init=False, repr=False)

    @property
    def per_window(self) -> int:
        return len(self.samples) if self.preparation.mode == "1lead" else 1

    def __len__(self) -> int:
        return len(self.spans) * self.per_window

    @overload
    def __getitem__(self, index: int) -> Samples: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Samples, ...]: ...
    def __getitem__(self, index: int | slice) -> Samples | tuple[Samples, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        number, lead = divmod(range(len(self))[index], self.per_window)
        rows = slice(None) if self.preparation.mode == "12lead" else slice(lead, lead + 1)
        return self._input(rows, self.spans[number])

    def _input(self, rows: slice, span: Span) -> Samples:
        start, stop = span
        recipe = self.preparation.recipe
        end = min(stop, self.length)
        if not recipe.filters:
            cut: npt.NDArray[Any] = self._resampled(rows, start, end)
        elif recipe.filter_scope == "window":
            cut = recipe.filtered(self._resampled(rows, start, end))
        else:
            cut = self._filtered_before(rows, start, end)
        if stop > end:
            cut = np.pad(cut, ((0, 0), (0, stop - end)))
        if self.preparation.mode == "1lead" or len(self.present) == len(self.samples):
            return recipe.normalized(cut, self.empty)
        whole = np.zeros(cut.shape, dtype=np.float32)
        present = list(self.present)
        whole[present] = recipe.normalized(cut[present])
        return whole

    def _filtered_before(self, rows: slice, start: int, end: int) -> Samples64:
        """[start, end) of the filtered recording, from a block that is kept for the next windows."""
        recipe = self.preparation.recipe
        first, last = 0, self.length
        window = self.preparation.window_samples
        if window is not None and self.length > FILTER_BLOCK * recipe.sampling_rate:
            block, margin = (round(seconds * recipe.sampling_rate) for seconds in (FILTER_BLOCK, FILTER_MARGIN))
            number = start // block  # by the window's start only, so that the order of access does not matter
            first = max(0, number * block - margin)
            last = min(self.length, (number + 1) * block + window + margin)
        if self._block is None or self._block[0] != first:
            self._block = first, recipe.filtered(self._resampled(slice(None), first, last))
        return self._block[1][rows, start - first : end - first]

    def constant_windows(self) -> list[str]:
        """The flag for windows in which no lead moves, if there are any; their input is all zeros."""
        ratio = self.sampling_rate / self.preparation.recipe.sampling_rate
        count = 0
        for start, stop in self.spans:
            part = self.samples[:, round(start * ratio) : max(round(stop * ratio), round(start * ratio) + 1)]
            count += not any(np.any(lead != lead[0]) for lead in part)
        return [quality.flag("constant_windows", (str(count),))] if count else []

    def _resampled(self, rows: slice, start: int, stop: int) -> Samples:
        return resample(
            self.samples[rows],
            self.sampling_rate,
            self.preparation.recipe.sampling_rate,
            method=self.preparation.resampling,
            start=start,
            stop=stop,
        )
