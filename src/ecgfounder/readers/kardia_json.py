"""AliveCor Kardia recordings as JSON: the answer of the Kardia API for one recording of a KardiaMobile (one lead or six).

In: a JSON object with `data.raw` and `data.enhanced`. Out: a `Recording` of the unfiltered samples, marked as of an unverified
format: the layout was taken from public descriptions of the API and programs that read it; no recording of a device was at hand.
Samples are counts of `amplitudeResolution` nanovolts. Recordings of the Kardia 12L have another layout.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from ecgfounder.ecg.recording import Recording
from ecgfounder.errors import ReadError, UnsupportedFormatError
from ecgfounder.readers.quantities import to_millivolts
from ecgfounder.readers.source import Source
from ecgfounder.readers.timeline import in_words

FORMAT = "kardia_json"

_BOM = b"\xef\xbb\xbf"
_LEADS = {"leadI": "I", "leadII": "II", "leadIII": "III", "AVR": "aVR", "AVL": "aVL", "AVF": "aVF"}
_SIGNALS = ("raw", "enhanced")
"""The samples as measured, and as filtered by AliveCor; the first that is there is read."""
_KNOWN = re.compile(
    rb'\s*\{(?:(?=.*"recordedAt")(?=.*"(?:algorithmDetermination|amplitudeResolution|data12L)")'
    rb'|(?=.*"mainsFrequency")(?=.*"leadI"))',
    re.DOTALL,
)
_LARGEST = 1e9


def matches(source: Source) -> bool:
    """Whether it is a JSON object with names of the Kardia API."""
    return _KNOWN.match(source.head.removeprefix(_BOM)) is not None


def read(source: Source) -> Recording:
    """Decode the unfiltered samples, or the filtered ones if there are no others.

    Returns
    -------
    Recording
        float32 [n_leads, n_samples] in mV, the leads in their usual order.

    Raises
    ------
    ReadError
        If the JSON is damaged, or sampling rate, resolution or samples are missing or not valid.
    UnsupportedFormatError
        If it is a recording of the Kardia 12L.
    """
    root = _object(_parsed(source.content.removeprefix(_BOM)), "the document")
    if "data12L" in root:
        raise UnsupportedFormatError("a recording of the Kardia 12L: its layout is not read; export it as PDF or DICOM")
    data = _object(root.get("data"), "data")
    signal = next((_object(data[name], f"data.{name}") for name in _SIGNALS if data.get(name) is not None), None)
    if signal is None:
        raise ReadError("expected the samples in data.raw, found none")
    stored = _object(signal.get("samples"), "samples")
    leads = {lead: stored[name] for name, lead in _LEADS.items() if stored.get(name) is not None}
    if not leads or leads.keys() != {_LEADS.get(name, name) for name, values in stored.items() if values is not None}:
        raise ReadError("expected samples of leadI, leadII, leadIII, AVR, AVL and AVF or some of them, found others")
    if signal.get("numLeads") not in (None, len(leads)):
        raise ReadError("there are not as many leads as numLeads says")
    counts = [_counts(values, in_words(lead)) for lead, values in leads.items()]
    if len({len(each) for each in counts}) != 1:
        raise ReadError("the leads have different lengths")
    nanovolts = _positive(signal.get("amplitudeResolution"), "amplitudeResolution")
    return Recording(
        samples=np.stack(
            [
                to_millivolts(each, nanovolts * 1e-6, 0.0, in_words(lead))
                for each, lead in zip(counts, leads, strict=True)
            ]
        ),
        sampling_rate=_positive(signal.get("frequency"), "frequency"),
        leads=tuple(leads),
        source_format=FORMAT,
        meta={"device_manufacturer": "AliveCor", "resolution_uv": nanovolts / 1000, **_device(root.get("deviceInfo"))},
        is_unverified=True,
    )


def _parsed(content: bytes) -> Any:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise ReadError(f"not well-formed JSON (line {error.lineno})") from error


def _object(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ReadError(f"expected {what} as a JSON object")
    return value


def _positive(value: Any, what: str) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not (0 < value < _LARGEST and math.isfinite(value)):
        raise ReadError(f"{what} is not a number above 0")
    return float(value)


def _counts(values: Any, called: str) -> npt.NDArray[Any]:
    if not isinstance(values, list) or not values:
        raise ReadError(f"{called}: expected a list of samples")
    if not {type(value) for value in values} <= {int, float}:
        raise ReadError(f"{called}: a sample is not a number")
    return np.array(values, dtype=np.float64)


def _device(info: Any) -> dict[str, str | float]:
    found: dict[str, str | float] = {}
    if isinstance(info, dict):
        for key, name in (("device_model", "hardwareType"), ("software_version", "firmwareRevision")):
            text = info.get(name)
            if isinstance(text, str) and text.strip() and text.isprintable():
                found[key] = text.strip()[:64]
    return found
