"""One ECG as recorded: samples in millivolts, sampling rate, lead names.

In: decoded content of a file. Out: a checked `Recording`, from which later stages take leads by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ecgfounder.errors import ReadError
from ecgfounder.escaping import counted

Samples = npt.NDArray[np.float32]


# The allowed keys of `Recording.meta`: the recording device and its filters, never facts about the patient.
META_KEYS = frozenset(
    {
        "format_version",
        "device_manufacturer",
        "device_model",
        "software_version",
        "highpass_hz",
        "lowpass_hz",
        "notch_hz",
        "resolution_uv",
    }
)


@dataclass(frozen=True, eq=False)
class Recording:
    """One ECG as recorded.

    Attributes
    ----------
    samples : numpy.ndarray
        float32 array [n_leads, n_samples], in millivolts; NaN for missing samples. An array whose rows are not contiguous in
        memory (a transposed one) is copied.
    sampling_rate : float
        Samples per second, in Hz.
    leads : tuple of str
        One canonical name for each row of `samples` (`canonical_lead`).
    source_format : str
        Name of the reader that decoded it, e.g. "philips_sierra".
    meta : mapping of str to str or float
        Device and filter settings; only keys of `META_KEYS`.
    left_out : tuple of str
        Leads of the file that were not read, because they have another sampling rate.
    upsampled : tuple of str
        Leads with a lower sampling rate in the file, which were interpolated.
    is_unverified : bool
        Whether no file of a device has verified the reader of this format.
    is_repaired : bool
        Whether characters in texts of the file were replaced, because it is not well-formed XML with them.

    Raises
    ------
    ReadError
        If the parts are not valid: contradicting shapes, an impossible sampling rate, a duplicate lead, no samples.
    """

    samples: Samples
    sampling_rate: float
    leads: tuple[str, ...]
    source_format: str
    meta: Mapping[str, str | float] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    upsampled: tuple[str, ...] = ()
    is_unverified: bool = False
    is_repaired: bool = False

    def __post_init__(self) -> None:
        if self.samples.ndim != 2 or self.samples.dtype != np.float32:
            raise ReadError(
                f"samples must be float32 [n_leads, n_samples], not {self.samples.dtype} {self.samples.shape}"
            )
        if self.samples.shape[0] != len(self.leads):
            raise ReadError(f"{self.samples.shape[0]} rows of samples but {len(self.leads)} lead names")
        if self.samples.size == 0:
            raise ReadError("the file has no samples")
        if not (math.isfinite(self.sampling_rate) and 0 < self.sampling_rate <= 1_000_000):
            raise ReadError(f"impossible sampling rate: {self.sampling_rate} Hz")
        for first, lead in enumerate(self.leads if len(set(self.leads)) < len(self.leads) else (), 1):
            if lead in self.leads[first:]:  # the name is not stated: it may be text of the file
                second = first + 1 + self.leads[first:].index(lead)
                raise ReadError(f"channels {first} and {second} have the same lead name")
        if self.samples.strides[1] != self.samples.itemsize:
            object.__setattr__(self, "samples", np.ascontiguousarray(self.samples))
        unknown = set(self.meta) - META_KEYS
        if unknown:
            raise ReadError(f"not allowed in meta: {', '.join(sorted(unknown))}")

    @property
    def n_samples(self) -> int:
        return int(self.samples.shape[1])

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.n_samples / self.sampling_rate

    def __repr__(self) -> str:
        return (
            f"Recording({self.source_format}, {counted(len(self.leads), 'lead')} {' '.join(self.leads)}, "
            f"{self.n_samples} samples at {self.sampling_rate:g} Hz, {self.duration:g} s)"
        )
