"""DICOM waveform objects (PS3.3 C.10.9): 12-lead, general, general 32-bit and ambulatory ECG.

In: a DICOM file with or without preamble, in any native or deflated transfer syntax. Out: a `Recording` of the original rhythm
group with the most standard leads.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydicom.config import IGNORE
from pydicom.uid import UID

from ecgfounder.ecg.leads import LEAD_OF_SCP_CODE, STANDARD_LEADS, canonical_lead
from ecgfounder.ecg.recording import Recording, Samples
from ecgfounder.ecg.statements import Statements, statements_of
from ecgfounder.errors import ReadError, UnsupportedFormatError
from ecgfounder.readers.dicom_elements import OF_RECORDING, OF_STATEMENTS
from ecgfounder.readers.dicom_stored import object_in
from ecgfounder.readers.quantities import millivolts_per, to_millivolts
from ecgfounder.readers.source import Source
from ecgfounder.readers.timeline import Piece, in_words, join, standard_leads_in

FORMAT = "dicom"

_ECG_CLASSES = "1.2.840.10008.5.1.4.1.1.9.1."  # 12-lead .1, general .2, ambulatory .3, general 32-bit .4
# Meanings of the concept codes of TID 3713 and similar templates, in lower case; the codes differ between vendors.
_MEASUREMENTS = {
    "ventricular heart rate": "heart_rate",
    "heart rate": "heart_rate",
    "pr interval": "pr_ms",
    "qrs duration": "qrs_ms",
    "qt interval": "qt_ms",
    "qtc interval": "qtc_ms",
    "p axis": "p_axis",
    "qrs axis": "qrs_axis",
    "t axis": "t_axis",
}
# Errors to which damaged values lead; their messages may quote the file and are not shown.
_DAMAGE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, struct.error)

_COMPANDED = ("MB", "AB")
"""Waveform Sample Interpretations for audio, 8-bit mu-law and A-law, which are refused."""
# Waveform Bits Allocated and Waveform Sample Interpretation (PS3.3 C.10.9.1.5).
_SAMPLE_TYPES = {
    (8, "SB"): "i1",
    (8, "UB"): "u1",
    (16, "SS"): "i2",
    (16, "US"): "u2",
    (32, "SL"): "i4",
    (32, "UL"): "u4",
}

# Lead numbers of SCP-ECG: MDC codes '2:N' (ISO/IEEE 11073-10101), SCPECG codes '5.6.3-9-N' (PS3.16 CID 3001).
_LEAD_CODE = re.compile(r"(?:2:|5\.6\.3-9-)0*(\d{1,3})")
_MDC_PARTITION = 2 << 16  # an MDC code may be written as one number: partition x 65536 + code


def matches(source: Source) -> bool:
    """Whether 'DICM' follows a preamble of 128 bytes, or the file begins with a usual first data element of DICOM."""
    head = source.head
    return head[128:132] == b"DICM" or _begins_with_element(head)


def _begins_with_element(head: bytes) -> bool:
    """Whether the first data element is one of group 0002 or 0008 with which files without preamble begin."""
    if len(head) < 8:
        return False
    group, element = struct.unpack("<HH", head[:4])
    if group == 0x0002:
        return element in (0x0000, 0x0001, 0x0002, 0x0010) and head[4:6] in (b"UL", b"OB", b"UI")
    if group != 0x0008 or element not in (0x0000, 0x0005, 0x0008, 0x0012, 0x0013, 0x0016, 0x0018):
        return False
    return head[4:6] in (b"UL", b"CS", b"DA", b"TM", b"UI") or struct.unpack("<L", head[4:8])[0] <= 128


def read(source: Source) -> Recording:
    """Decode the original rhythm group with the most standard leads.

    A sample is stored value x sensitivity x correction factor + baseline, in the unit of the sensitivity. Groups with different
    leads (a 3 x 4 page) are joined on one time axis, with NaN where a lead was not recorded (`timeline.join`).

    Returns
    -------
    Recording
        float32 [n_leads, n_samples] in millivolts. NaN for padding, if the padding value is the minimum or maximum of the
        samples' type (any other value may also occur as a sample).

    Raises
    ------
    ReadError
        If the file is damaged, or counts, sensitivities or units are not valid.
    UnsupportedFormatError
        If it is not an ECG waveform (for example an image), or its samples are companded.
    """
    with one_kind_of_error():
        dataset, little_endian = object_in(source.content, OF_RECORDING)
        return recording_of(dataset, FORMAT, little_endian=little_endian)


@contextmanager
def one_kind_of_error() -> Iterator[None]:
    """Turn the errors to which damaged values lead into a `ReadError`."""
    try:
        yield
    except _DAMAGE as error:
        raise ReadError(f"damaged DICOM file ({type(error).__name__})") from error


def recording_of(dataset: Any, source_format: str, *, little_endian: bool) -> Recording:
    """`read` of a data set that is there already.

    Parameters
    ----------
    dataset : dict
        Values by keyword; a sequence is a list of such dicts.
    source_format : str
        What the recording says of its format.
    little_endian : bool
        The byte order of WaveformData.
    """
    class_uid = _text(dataset, "SOPClassUID")
    groups = list(dataset.get("WaveformSequence") or [])
    if not groups:
        name = _name_of_class(class_uid)
        found = f"found {name}" if name and name != class_uid else "found none"
        raise UnsupportedFormatError(f"expected a DICOM ECG with a Waveform Sequence, {found}")
    rhythms = [group for group in groups if not _is_beat(group)]
    if not rhythms:
        raise UnsupportedFormatError("expected a multiplex group of rhythm waveforms, found only median beats")
    chosen = [_Group(group, little_endian) for group in _originals(rhythms)]
    whole = join([piece for group in chosen if (piece := group.piece()) is not None])
    if not class_uid.startswith(_ECG_CLASSES) and not standard_leads_in(whole.leads):
        raise UnsupportedFormatError("expected a DICOM ECG, found other waveforms without a standard lead")
    return Recording(
        samples=whole.samples,
        sampling_rate=whole.sampling_rate,
        leads=whole.leads,
        source_format=source_format,
        meta=_meta(dataset, class_uid, chosen[0]),
    )


# --- Multiplex groups ------------------------------------------------------------------------------------------------


def _is_beat(group: Any) -> bool:
    label = _text(group, "MultiplexGroupLabel").upper()
    return any(word in label for word in ("MEDIAN", "REPRESENTATIVE", "AVERAGE", "TEMPLATE", "BEAT"))


def _originals(groups: list[Any]) -> list[Any]:
    """The original groups; derived ones only if there are no others."""
    originals = [group for group in groups if _text(group, "WaveformOriginality").upper() != "DERIVED"]
    return originals or groups


class _Channel(NamedTuple):
    """One channel definition: column, lead name, scale and baseline (stored value x scale + baseline = mV), skew in samples."""

    column: int
    lead: str
    scale: float
    baseline: float
    skew: int
    bits_stored: int


class _Group:
    """One item of the Waveform Sequence."""

    def __init__(self, group: Any, little_endian: bool) -> None:
        self.group = group
        self.byte_order = "<" if little_endian else ">"
        self.n_channels = _whole(group, "NumberOfWaveformChannels")
        self.n_samples = _whole(group, "NumberOfWaveformSamples")
        self.definitions = list(group.get("ChannelDefinitionSequence") or [])
        if self.n_channels != len(self.definitions):
            raise ReadError(f"{self.n_channels} waveform channels, but {len(self.definitions)} channel definitions")
        self.channels = list(_channels(self.definitions))

    def piece(self) -> Piece | None:
        """The group's voltages; None if it has none (for example only pressures)."""
        if not self.channels:
            return None
        stored = np.ascontiguousarray(self._stored().T)  # one copy is faster than strided access
        padding = self._padding(stored.dtype)
        samples = np.empty((len(self.channels), self.n_samples), dtype=np.float32)
        for row, channel in zip(samples, self.channels, strict=True):
            counts = stored[channel.column]
            absent = padding if padding in _extremes(stored.dtype, channel.bits_stored) else None
            to_millivolts(counts, channel.scale, channel.baseline, in_words(channel.lead), no_sample=absent, out=row)
            _shift(row, channel.skew)
        offset = _number(self.group, "MultiplexGroupTimeOffset")
        return Piece(
            samples=samples,
            sampling_rate=_required(self.group, "SamplingFrequency", "the multiplex group"),
            leads=tuple(channel.lead for channel in self.channels),
            start=None if offset is None else offset / 1000,
        )

    def _stored(self) -> npt.NDArray[Any]:
        """Stored values [n_samples, n_channels]: the channels are interleaved."""
        bits = _whole(self.group, "WaveformBitsAllocated")
        interpretation = _text(self.group, "WaveformSampleInterpretation").upper()
        kind = _SAMPLE_TYPES.get((bits, interpretation))
        if kind is None:
            known = {*_COMPANDED, *(name for _, name in _SAMPLE_TYPES)}
            found = interpretation if interpretation in known else "of another interpretation"
            raise UnsupportedFormatError(
                f"expected linear samples (SB, UB, SS, US, SL, UL) of 8, 16 or 32 bits, found {bits} bits {found}"
            )
        data = self.group.get("WaveformData") or b""
        expected = self.n_samples * self.n_channels * bits // 8
        if not expected <= len(data) <= expected + expected % 2:
            raise ReadError(
                f"{self.n_samples} samples of {self.n_channels} channels need {expected} bytes, "
                f"but WaveformData has {len(data)}"
            )
        return np.frombuffer(data, dtype=self.byte_order + kind, count=self.n_samples * self.n_channels).reshape(
            self.n_samples, self.n_channels
        )

    def _padding(self, dtype: np.dtype[Any]) -> int | None:
        value = self.group.get("WaveformPaddingValue")
        if isinstance(value, int):
            return value
        if not isinstance(value, bytes) or len(value) < dtype.itemsize:
            return None
        return int(np.frombuffer(value[: dtype.itemsize], dtype=dtype)[0])


def _extremes(dtype: np.dtype[Any], bits_stored: int) -> tuple[int, ...]:
    """Minimum and maximum of the type, and of the number of bits stored."""
    info = np.iinfo(dtype)
    if info.min == 0:
        return (0, int(info.max), 2**bits_stored - 1)
    return (int(info.min), int(info.max), -(2 ** (bits_stored - 1)), 2 ** (bits_stored - 1) - 1)


def _shift(row: Samples, skew: int) -> None:
    """Move a channel that began `skew` samples after the group, in place."""
    if abs(skew) >= len(row) > 0:
        raise ReadError(f"a channel is skewed by {skew} samples, but has only {len(row)}")
    if skew > 0:
        row[skew:] = row[:-skew].copy()
        row[:skew] = np.nan
    elif skew < 0:
        row[:skew] = row[-skew:].copy()
        row[skew:] = np.nan


# --- Channel definitions ---------------------------------------------------------------------------------------------


def _channels(definitions: list[Any]) -> Iterator[_Channel]:
    for column, definition in enumerate(definitions):
        lead = _lead(definition, column)
        factor = _unit(definition)
        if factor is None:
            if lead in STANDARD_LEADS:
                raise ReadError(
                    f"{in_words(lead)}: expected a sensitivity in uV, mV, V or nV, found another unit or none"
                )
            continue
        called = in_words(lead)
        correction = _number(definition, "ChannelSensitivityCorrectionFactor")
        scale = _required(definition, "ChannelSensitivity", called) * (1.0 if correction is None else correction)
        if scale == 0:
            raise ReadError(f"{called}: the sensitivity is 0")
        yield _Channel(
            column=column,
            lead=lead,
            scale=scale * factor,
            baseline=(_number(definition, "ChannelBaseline") or 0.0) * factor,
            skew=round(_number(definition, "ChannelSampleSkew") or 0.0),
            bits_stored=min(max(int(_number(definition, "WaveformBitsStored") or 32), 2), 32),
        )


def _lead(definition: Any, column: int) -> str:
    """The channel's lead: by the code of its source, else by the code's meaning or the channel's label."""
    source = _first_item(definition, "ChannelSourceSequence")
    code = _text(source, "CodeValue")
    by_code = _lead_of_code(code)
    if by_code:
        return by_code
    texts = [re.split(r"[(,]", text)[0] for text in (_text(source, "CodeMeaning"), _text(definition, "ChannelLabel"))]
    names = [canonical_lead(text) for text in texts if text.strip()]
    standard = [name for name in names if name in STANDARD_LEADS]
    return (standard + names + [f"channel {column + 1}"])[0][:32]


def _lead_of_code(code: str) -> str | None:
    """Lead for an MDC code ('2:1', 131073), its reference id ('MDC_ECG_LEAD_I') or an SCPECG code ('5.6.3-9-1')."""
    if code.isdecimal() and len(code) <= 9:
        return LEAD_OF_SCP_CODE.get(int(code) - _MDC_PARTITION)
    match = _LEAD_CODE.fullmatch(code)
    if match:
        return LEAD_OF_SCP_CODE.get(int(match[1]))
    if code.upper().startswith("MDC_ECG_LEAD_"):
        name = canonical_lead(code)
        return None if name == code else name
    return None


def _unit(definition: Any) -> float | None:
    """Millivolts per unit of sensitivity; None if it is not a voltage."""
    unit = _first_item(definition, "ChannelSensitivityUnitsSequence")
    by_code = millivolts_per(_text(unit, "CodeValue"))
    return by_code if by_code is not None else millivolts_per(_text(unit, "CodeMeaning"))


# --- Values ----------------------------------------------------------------------------------------------------------


def _first_item(dataset: Any, keyword: str) -> Any:
    items = dataset.get(keyword)
    return items[0] if items else None


def _text(dataset: Any, keyword: str) -> str:
    value = None if dataset is None else dataset.get(keyword)
    return "" if value is None else str(value).strip(" \0")


def _number(dataset: Any, keyword: str) -> float | None:
    value = dataset.get(keyword)
    if value is None or value == "":
        return None
    result = float(value)
    if not np.isfinite(result):
        raise ReadError(f"{keyword} is not a finite number")
    return result


def _required(dataset: Any, keyword: str, what: str) -> float:
    value = _number(dataset, keyword)
    if value is None:
        raise ReadError(f"{what}: expected {keyword}, found none")
    return value


def _whole(dataset: Any, keyword: str) -> int:
    value = _required(dataset, keyword, "the multiplex group")
    if value != int(value) or value < 1:
        raise ReadError(f"{keyword} is {value:g}, expected a whole number above 0")
    return int(value)


def _name_of_class(class_uid: str) -> str:
    """The name of a SOP class; an unknown UID itself, and empty for none. pydicom's warnings would quote the file."""
    return str(UID(class_uid, validation_mode=IGNORE).name) if class_uid else ""


def _meta(dataset: Any, class_uid: str, group: _Group) -> dict[str, str | float]:
    name = _name_of_class(class_uid)
    texts = {
        "format_version": name if name != class_uid else "",
        "device_manufacturer": _text(dataset, "Manufacturer"),
        "device_model": _text(dataset, "ManufacturerModelName"),
        "software_version": _text(dataset, "SoftwareVersions"),
    }
    meta: dict[str, str | float] = {key: text[:64] for key, text in texts.items() if text}
    for key, keyword in (
        ("highpass_hz", "FilterLowFrequency"),
        ("lowpass_hz", "FilterHighFrequency"),
        ("notch_hz", "NotchFilterFrequency"),
    ):
        values = {_number(definition, keyword) for definition in group.definitions}
        value = values.pop() if len(values) == 1 else None
        if value:
            meta[key] = value
    scales = {channel.scale for channel in group.channels}
    if len(scales) == 1:
        meta["resolution_uv"] = round(scales.pop() * 1000, 9)
    return meta


def statements(source: Source) -> Statements:
    """Free-text annotations and global measurements (the first value of each) of the Waveform Annotation Sequence.

    Raises
    ------
    ReadError
        If the file is damaged.
    """
    with one_kind_of_error():
        return statements_in(object_in(source.content, OF_STATEMENTS)[0])


def statements_in(dataset: Any) -> Statements:
    """`statements` of a data set that is there already (`recording_of`)."""
    annotations = list(dataset.get("WaveformAnnotationSequence") or [])
    lines = [_text(annotation, "UnformattedTextValue") for annotation in annotations]
    measured: dict[str, float] = {}
    for annotation in annotations:
        concept = next(iter(annotation.get("ConceptNameCodeSequence") or []), None)
        name = _MEASUREMENTS.get(_text(concept, "CodeMeaning").casefold())
        value = _number(annotation, "NumericValue")
        if name is not None and value is not None:
            measured.setdefault(name, value)
    return statements_of(lines, **measured)
