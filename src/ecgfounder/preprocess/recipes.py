"""Recipes: the processing of the samples between resampling and the network, by name and version.

In: samples [n_leads, n_samples] at the recipe's sampling rate. Out: filtered in float64, normalised to float32.
A `Recipe` has filters, a normalisation, a sampling rate and default windows. Users can define their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ecgfounder.checks import check_choice
from ecgfounder.errors import SettingsError
from ecgfounder.network.bundles import SAMPLING_RATE

try:
    import ecgfounder.preprocess._filters as _filters
except ImportError:  # not built
    _filters = None  # type: ignore[assignment]
try:
    import ecgfounder.preprocess._passes as _passes
except ImportError:  # not built
    _passes = None  # type: ignore[assignment]

Samples = npt.NDArray[np.float32]
Samples64 = npt.NDArray[np.float64]
Empty = Callable[[tuple[int, ...]], Samples]
"""Makes a float32 array of a shape, its values undefined."""


def anywhere(shape: tuple[int, ...]) -> Samples:
    """A new array."""
    return np.empty(shape, np.float32)


NETWORK_RATE = float(SAMPLING_RATE)
"""Sampling rate of the network's input, in Hz."""


LOWEST_SAMPLING_RATE = 25.0
"""In Hz. Below it, most of a 500 Hz signal would be invented, and a wrong rate in a header could require any amount of memory."""

REMAINDER_CHOICES = ("drop", "pad", "keep")
NORMALIZATION_CHOICES = ("zscore", "zscore_per_lead", "none")
FILTER_SCOPE_CHOICES = ("window", "recording")

ZSCORE_EPSILON = 1e-8

# A sine that stands for baseline wander, and the amplitude below which a filter has removed it.
_WANDER = 0.1
_WANDER_SECONDS = 60.0
_WANDER_LEFT = 0.5


def check_windows(window: object, stride: object, remainder: object, sampling_rate: float) -> None:
    """Check window lengths in seconds, and the sampling rate in Hz.

    Raises
    ------
    SettingsError
        If a value is not allowed.
    """
    if not (math.isfinite(sampling_rate) and sampling_rate >= LOWEST_SAMPLING_RATE):
        raise SettingsError(
            f"Invalid value for the 'sampling_rate' parameter. It must be at least {LOWEST_SAMPLING_RATE:g} Hz, but "
            f"got {sampling_rate!r} instead."
        )
    for name, value in (("window", window), ("stride", stride)):
        if value is None:
            continue
        seconds = value if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
        if not (math.isfinite(seconds) and round(seconds * sampling_rate) >= 1):
            raise SettingsError(
                f"Invalid value for the '{name}' parameter. It must be a number of seconds, at least one sample at "
                f"{sampling_rate:g} Hz, but got {value!r} instead."
            )
    if stride is not None and window is None:
        raise SettingsError("The 'stride' parameter needs the 'window' parameter: windows of how many seconds?")
    check_choice("remainder", remainder, REMAINDER_CHOICES)


@runtime_checkable
class Filter(Protocol):
    """One step of a recipe. Instances must be picklable (a module-level class), because worker processes need them."""

    def definition(self) -> dict[str, Any]:
        """Everything that affects the result, as JSON-serialisable values; it becomes part of a run's fingerprint."""

    def minimum_samples(self, sampling_rate: float) -> int:
        """The shortest signal that can be filtered."""

    def apply(self, samples: Samples64, sampling_rate: float) -> Samples64:
        """Filter float64 samples [n_leads, n_samples] along time; same shape. The input must not be changed."""


@dataclass(frozen=True)
class Notch:
    """Second-order notch, applied forwards and backwards (`scipy.signal.iirnotch`, `filtfilt` with its defaults)."""

    frequency: float
    quality: float = 30.0

    def definition(self) -> dict[str, Any]:
        return {"filter": "notch", **asdict(self)}

    def minimum_samples(self, sampling_rate: float) -> int:
        return _notch(self.frequency, self.quality, sampling_rate).padding + 1

    def apply(self, samples: Samples64, sampling_rate: float) -> Samples64:
        return _forwards_and_backwards(_notch(self.frequency, self.quality, sampling_rate), samples)


@dataclass(frozen=True)
class Butterworth:
    """Butterworth filter, applied forwards and backwards (`scipy.signal.butter`, `filtfilt` with its defaults).

    Attributes
    ----------
    kind : {"lowpass", "highpass", "bandpass"}
        "lowpass", "highpass" or "bandpass".
    cutoffs : tuple of float
        One frequency in Hz, or two for "bandpass".
    order : int
        Of the design. Forwards and backwards, the slope is twice as steep, and the gain at the cut-off is halved again.
    """

    kind: Literal["lowpass", "highpass", "bandpass"]
    cutoffs: tuple[float, ...]
    order: int

    def definition(self) -> dict[str, Any]:
        return {"filter": "butterworth", "kind": self.kind, "cutoffs": list(self.cutoffs), "order": self.order}

    def minimum_samples(self, sampling_rate: float) -> int:
        return _butterworth(self.kind, self.cutoffs, self.order, sampling_rate).padding + 1

    def apply(self, samples: Samples64, sampling_rate: float) -> Samples64:
        return _forwards_and_backwards(_butterworth(self.kind, self.cutoffs, self.order, sampling_rate), samples)


@dataclass(frozen=True)
class MedianBaseline:
    """Subtracts the running median over int(seconds * rate) + 1 samples, or one more if that is even; zeros beyond the ends.

    The results are those of `scipy.signal.medfilt`. They are computed by SciPy's one-dimensional rank filter, whose time depends
    little on the window's length.
    """

    seconds: float

    def definition(self) -> dict[str, Any]:
        return {"filter": "median_baseline", **asdict(self)}

    def minimum_samples(self, sampling_rate: float) -> int:
        return 1

    def apply(self, samples: Samples64, sampling_rate: float) -> Samples64:
        return samples - running_median(samples, int(self.seconds * sampling_rate) + 1)


def running_median(samples: Samples64, size: int) -> Samples64:
    """Median of the `size` samples (one more if that is even) around each, row by row, with zeros beyond the ends; same shape."""
    size += 1 - size % 2
    if _filters is not None and samples.size:
        medians = np.empty(samples.shape)
        if _filters.running_median(np.ascontiguousarray(samples), len(samples), size, medians):
            return medians
    from scipy.ndimage import median_filter

    # Row by row: SciPy has its fast algorithm for one-dimensional arrays only (40 times faster at 201 samples).
    return np.stack([median_filter(row, size=size, mode="constant", cval=0.0) for row in samples])


@dataclass(frozen=True, eq=False)
class _Recursive:
    """A recursive filter's coefficients, and its states in a signal that has always been 1."""

    b: Samples64
    a: Samples64
    states: Samples64

    @property
    def padding(self) -> int:
        """Samples that `filtfilt` reflects at each end by default; the signal must be longer."""
        return 3 * max(len(self.b), len(self.a))


def _recursive(coefficients: tuple[Any, Any]) -> _Recursive:
    from scipy.signal import lfilter_zi

    b, a = (np.asarray(each, dtype=np.float64) for each in coefficients)
    return _Recursive(b, a, np.asarray(lfilter_zi(b, a), dtype=np.float64))


@lru_cache(maxsize=64)
def _notch(frequency: float, quality_factor: float, sampling_rate: float) -> _Recursive:
    from scipy.signal import iirnotch

    return _recursive(iirnotch(frequency, quality_factor, sampling_rate))


@lru_cache(maxsize=64)
def _butterworth(
    kind: Literal["lowpass", "highpass", "bandpass"], cutoffs: tuple[float, ...], order: int, sampling_rate: float
) -> _Recursive:
    from scipy.signal import butter

    return _recursive(butter(order, cutoffs if len(cutoffs) > 1 else cutoffs[0], kind, fs=sampling_rate))


def _forwards_and_backwards(recursive: _Recursive, samples: Samples64) -> Samples64:
    b, a, states = recursive.b, recursive.a, recursive.states
    n_leads, n_samples = samples.shape
    if _filters is not None and n_leads and n_samples > recursive.padding and len(states) <= _filters.MOST_STATES:
        filtered = np.empty(samples.shape)
        whole = np.ascontiguousarray(samples, dtype=np.float64)
        _filters.forwards_and_backwards(b, a, states, recursive.padding, whole, n_leads, filtered)
        return filtered
    from scipy.signal import filtfilt

    return np.asarray(filtfilt(b, a, samples, axis=-1), dtype=np.float64)


@dataclass(frozen=True)
class Recipe:
    """The processing of the samples between resampling and the network; versioned, and part of a run's fingerprint.

    Attributes
    ----------
    name, version : str
        Shown in a run's first line.
    filters : tuple of Filter
        Steps in order; see `Filter`. Classes of the user can be steps.
    filter_scope : str
        "window" filters each window separately, with the same result as for a file that holds only this window; "recording"
        filters first and cuts windows afterwards.
    normalization : str
        "zscore": (x - mean) / (std + 1e-8) with one mean and standard deviation over all leads and samples of the
        input, in float64; "zscore_per_lead": one of each for every lead; "none".
    window, stride, remainder : float or None, float or None, str
        Default windows, for a `Preparation` without windows; see there.
    sampling_rate : float
        Of the network's input, in Hz.

    Examples
    --------
    >>> from ecgfounder.preprocess import Butterworth, Preparation, Recipe
    >>> recipe = Recipe("highpass", "1", filters=(Butterworth("highpass", (0.5,), order=2),))
    >>> Preparation(recipe=recipe).fingerprint()["recipe"]["filters"]
    [{'filter': 'butterworth', 'kind': 'highpass', 'cutoffs': [0.5], 'order': 2}]
    """

    name: str
    version: str
    filters: tuple[Filter, ...] = ()
    filter_scope: str = "window"
    normalization: str = "zscore"
    window: float | None = None
    stride: float | None = None
    remainder: str = "drop"
    sampling_rate: float = NETWORK_RATE

    def __post_init__(self) -> None:
        check_choice("filter_scope", self.filter_scope, FILTER_SCOPE_CHOICES)
        check_choice("normalization", self.normalization, NORMALIZATION_CHOICES)
        check_windows(self.window, self.stride, self.remainder, self.sampling_rate)
        for step in self.filters:
            if not isinstance(step, Filter):
                raise SettingsError(
                    f"Invalid value for the 'filters' parameter. Each step needs the methods definition, "
                    f"minimum_samples and apply (ecgfounder.preprocess.Filter), but got {step!r} instead."
                )

    def definition(self) -> dict[str, Any]:
        """Everything that affects the result, as JSON-serialisable values."""
        return {
            "name": self.name,
            "version": self.version,
            "filters": [step.definition() for step in self.filters],
            "filter_scope": self.filter_scope,
            "normalization": self.normalization,
            "sampling_rate": float(self.sampling_rate),
        }

    @cached_property
    def keeps_baseline(self) -> bool:
        """Whether the filters leave baseline wander in the signal, measured on a slow sine of 1 mV in 12 leads."""
        if not self.filters:
            return True
        at = np.arange(round(_WANDER_SECONDS * self.sampling_rate)) / self.sampling_rate
        left = self.filtered(np.tile(np.sin(2 * np.pi * _WANDER * at), (12, 1)))
        return bool(np.std(left) > _WANDER_LEFT * math.sqrt(0.5))

    def minimum_samples(self) -> int:
        """The shortest signal to which all filters can be applied, in samples."""
        return max((step.minimum_samples(self.sampling_rate) for step in self.filters), default=1)

    def filtered(self, samples: npt.NDArray[Any]) -> Samples64:
        """Samples [n_leads, n_samples] after all filters: float64, in the unit of the input."""
        out: Samples64 = np.asarray(samples, dtype=np.float64)
        for step in self.filters:
            out = step.apply(out, self.sampling_rate)
        return out

    def normalized(self, samples: npt.NDArray[Any], empty: Empty = anywhere) -> Samples:
        """Samples [n_leads, n_samples] as input of the network: float32, C-contiguous, in memory of `empty` if it can be."""
        if self.normalization == "none":
            return np.ascontiguousarray(samples, dtype=np.float32)
        axis = -1 if self.normalization == "zscore_per_lead" else None
        if _passes is not None and axis is None and samples.dtype in (np.float32, np.float64) and samples.size:
            whole = np.ascontiguousarray(samples)
            # In NumPy's order of the samples, which is another one for a part of longer rows.
            mean = _passes.mean(samples) if whole is samples else float(samples.mean(dtype=np.float64))
            normalized = empty(whole.shape)
            _passes.zscore(whole, mean, ZSCORE_EPSILON, normalized)
            return normalized
        centered = samples - samples.mean(axis=axis, dtype=np.float64, keepdims=True)
        spread = np.sqrt(np.square(centered).mean(axis=axis, keepdims=True))
        centered /= spread + ZSCORE_EPSILON
        return np.ascontiguousarray(centered, dtype=np.float32)


ZSCORE = Recipe("zscore", "1")
"""No filter; z-score over the whole input. The default, as in ECGFounder's PTB-XL evaluation."""

FILTERED = Recipe(
    "filtered",
    "1",
    filters=(Notch(50.0, 30.0), Butterworth("bandpass", (0.67, 40.0), order=4), MedianBaseline(0.4)),
)
"""The filters of ECGFounder's dataset.py, then the z-score."""

PAPER = Recipe(
    "paper",
    "1",
    filters=(
        Butterworth("highpass", (0.5,), order=2),
        Butterworth("lowpass", (50.0,), order=2),
        Notch(50.0, 30.0),
        Notch(60.0, 30.0),
    ),
    filter_scope="recording",
    window=10.0,
    stride=10.0,
    remainder="pad",
)
"""The steps of the ECGFounder manuscript, with consecutive windows of 10 s; docs/recipes.md lists what it does not specify."""

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (ZSCORE, FILTERED, PAPER)}
