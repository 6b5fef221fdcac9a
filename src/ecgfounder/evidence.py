"""What a logit is made of: contributions of tokens, and changes when parts of a network's input are replaced.

In: feature maps with their head; an input. Out: `Evidence` and `Occlusion`: arrays with their times.

The head is linear on the mean over tokens, so that a logit is exactly the mean of contributions of tokens plus the bias. That is
no account of when something happened: a token depends on 24,406 samples of the input, and on all of it through the network's
gates. `ecgfounder.localisation` measures how far evidence lies where the event is.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import numpy.typing as npt

from ecgfounder.errors import SettingsError
from ecgfounder.escaping import one_line
from ecgfounder.network.bundles import SAMPLES_PER_TOKEN
from ecgfounder.network.head import Head

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

FILLS = ("zero", "line")
"""What replaces a part of an input: zeros, which is the mean of every lead after a z-score, or a straight line between the
samples before and after it."""

ALL_LEADS = "all"
"""The name of the first row of an occlusion, in which all leads are replaced at once."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """The contributions of tokens to logits.

    Attributes
    ----------
    contributions : numpy.ndarray
        float32 [T, n_labels]; with windows in sequence, or all leads, with leading dimensions as in `Embedder.embed`. Their mean
        over T plus `bias` is the logit.
    token_times : numpy.ndarray
        float64 [T], or [W, T] with windows in sequence: seconds from the start of the recording to the middle of each token's
        256 samples. The token depends on far more than these.
    labels : tuple of str
        The statements, in the order of the last dimension.
    bias : numpy.ndarray
        float32 [n_labels].
    """

    contributions: Floats
    token_times: Doubles
    labels: tuple[str, ...]
    bias: Floats

    @property
    def logits(self) -> Floats:
        """float32 [n_labels], with leading dimensions for windows and leads."""
        means = self.contributions.mean(axis=-2, dtype=np.float64)
        return np.asarray(means + self.bias, dtype=np.float32)

    def of(self, label: str) -> Floats:
        """The contributions to one statement, float32 [T], with leading dimensions for windows and leads.

        Raises
        ------
        SettingsError
            If it is none of `labels`.
        """
        return np.asarray(self.contributions[..., columns_of([label], self.labels)[0]])

    def __repr__(self) -> str:
        shape = list(self.contributions.shape)
        return f"<Evidence: float32 {shape}, {self.token_times.flat[0]:.3f} to {self.token_times.flat[-1]:.3f} s>"


@dataclass(frozen=True, eq=False)
class Occlusion:
    """The changes of logits when parts of a network's input are replaced, after filters and normalisation.

    Attributes
    ----------
    drops : numpy.ndarray
        float32 [n_fills, n_rows, n_spans, n_labels]: the logit before minus the logit after, for each fill of `FILLS`, each row
        and each span of time.
    rows : tuple of str
        What is replaced: "all" leads, then each lead by itself, unless the input has only one.
    spans : numpy.ndarray
        float64 [n_spans, 2]: start and end of each part in seconds from the start of the recording.
    labels : tuple of str
        The statements, in the order of the last dimension.
    logits : numpy.ndarray
        float32 [n_labels], before anything is replaced.
    """

    drops: Floats
    rows: tuple[str, ...]
    spans: Doubles
    labels: tuple[str, ...]
    logits: Floats

    def agreement(self) -> Floats:
        """float32 [n_labels]: the correlation of the drops by both fills; NaN where nothing changes."""
        one, other = (fill.reshape(-1, len(self.labels)).astype(np.float64) for fill in self.drops)
        one, other = one - one.mean(axis=0), other - other.mean(axis=0)
        scale = np.sqrt((one**2).sum(axis=0) * (other**2).sum(axis=0))
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((one * other).sum(axis=0) / scale, dtype=np.float32)


def columns_of(wanted: Sequence[str] | None, labels: Sequence[str]) -> list[int]:
    """The columns of some statements; of all for None.

    Raises
    ------
    SettingsError
        If one is not among them; the message names similar ones.
    """
    if wanted is None:
        return list(range(len(labels)))
    for each in wanted:
        if each not in labels:
            similar = difflib.get_close_matches(str(each).upper(), labels, n=3) or list(labels[:3])
            raise SettingsError(
                f"Invalid value for the 'labels' parameter. {one_line(repr(each))} is none of the checkpoint's "
                f"{len(labels)} statements; similar ones are {', '.join(map(repr, similar))}."
            )
    return [labels.index(each) for each in wanted]


def contributions_of(feature_map: Floats, head: Head, columns: Sequence[int]) -> Floats:
    """The contributions float32 [T, n] of a feature map [T, 1024] to some of a head's logits."""
    weight = head.weight[list(columns)].astype(np.float64)
    return np.asarray(feature_map.astype(np.float64) @ weight.T, dtype=np.float32)


def times_of_tokens(n_tokens: int, start: float, sampling_rate: float) -> Doubles:
    """Seconds [T] to the middle of each token's samples, for an input that starts at `start`."""
    return np.asarray(start + (np.arange(n_tokens) + 0.5) * SAMPLES_PER_TOKEN / sampling_rate, dtype=np.float64)


class Occluded(Sequence[Floats]):
    """An input, then copies of it with a part replaced, made when they are accessed: each fill, row and span.

    Parameters
    ----------
    original : numpy.ndarray
        float32 [C, L].
    length : int
        Samples in a part; the last one is shorter.
    each_lead : bool, default: True
        Whether parts of single leads are replaced too.
    """

    def __init__(self, original: Floats, length: int, *, each_lead: bool = True) -> None:
        self._original = original
        self.bounds = [(first, min(first + length, original.shape[1])) for first in range(0, original.shape[1], length)]
        n_alone = len(original) if each_lead and len(original) > 1 else 0
        self._rows = [slice(None), *(slice(lead, lead + 1) for lead in range(n_alone))]

    @property
    def shape(self) -> tuple[int, int, int]:
        """The numbers of fills, rows and spans."""
        return len(FILLS), len(self._rows), len(self.bounds)

    def __len__(self) -> int:
        return 1 + int(np.prod(self.shape))

    @overload
    def __getitem__(self, number: int) -> Floats: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[Floats]: ...
    def __getitem__(self, number: int | slice) -> Floats | Sequence[Floats]:
        if isinstance(number, slice):
            return [self[each] for each in range(*number.indices(len(self)))]
        if not 0 <= number < len(self):
            raise IndexError(number)
        if number == 0:
            return self._original
        fill, row, span = (int(each) for each in np.unravel_index(number - 1, self.shape))
        changed = self._original.copy()
        replace_part(changed[self._rows[row]], *self.bounds[span], FILLS[fill])
        return changed


def replace_part(leads: Floats, first: int, stop: int, fill: str) -> None:
    """Replace the samples [first, stop) of leads [C, L] in place, by zeros or by a line from the sample before to that after."""
    if fill == "zero":
        leads[:, first:stop] = 0
        return
    before = leads[:, first - 1] if first > 0 else leads[:, min(stop, leads.shape[1] - 1)]
    after = leads[:, stop] if stop < leads.shape[1] else before
    share = (np.arange(first, stop) - first + 1) / (stop - first + 1)
    leads[:, first:stop] = before[:, None] + (after - before)[:, None] * share
