"""Philips Sierra XML 1.03, 1.04, 1.04.01 and 1.04.02, as Philips cardiographs and TraceMaster export it.

In: a `Source` in UTF-8 or UTF-16, with waveforms compressed by XLI or not. Out: a `Recording` in millivolts with the leads named
in the file; limb leads are restored from XLI's residuals by their labels.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from lxml import etree

from ecgfounder.ecg.leads import STANDARD_LEADS, canonical_leads
from ecgfounder.ecg.recording import Recording
from ecgfounder.ecg.statements import Statements, statements_of
from ecgfounder.errors import ReadError, UnsupportedFormatError
from ecgfounder.readers import xml
from ecgfounder.readers.philips.xli import (
    MAX_SAMPLES_PER_LEAD,
    decode_xli,
    millivolts,
    refuse_jumps,
    restore_limb_leads,
)
from ecgfounder.readers.quantities import optional_number
from ecgfounder.readers.source import Source

try:
    import ecgfounder.readers.philips._xli as _xli
except ImportError:  # there was no C compiler when the package was installed
    _xli = None  # type: ignore[assignment]

FORMAT = "philips_sierra"


DOCUMENT_TYPES = ("SierraECG", "PhilipsECG")


DOCUMENT_VERSIONS = ("1.03", "1.04", "1.04.01", "1.04.02")


MAX_LEADS = 32


def matches(source: Source) -> bool:
    """Whether the root element is Philips' `restingecgdata`, for any type and version of the document."""
    root = xml.root_of(source)
    return root is not None and root.name == "restingecgdata" and (not root.namespace or "philips" in root.namespace)


def read(source: Source) -> Recording:
    """Decode one Philips Sierra document.

    Returns
    -------
    Recording
        Samples float32 [n_leads, n_samples] in millivolts, (counts - offset) x resolution; the sampling rate of the stored
        samples, which may differ from that of the acquisition; leads as labelled, in the file's order.

    Raises
    ------
    UnsupportedFormatError
        For another document type or version, another compression, or samples that are not of 16 bits.
    ReadError
        If the file is damaged or contradicts itself.
    """
    document = xml.parse_or_repair(source)
    version = _document_version(document.root)
    waveforms = _Waveforms.of(document.root)
    samples = waveforms.millivolts()
    # Lengths and counts of the data, in one element, were checked.
    document.refuse_unless(lambda: True, waveforms.leads)
    return Recording(
        samples=samples,
        sampling_rate=waveforms.sampling_rate,
        leads=waveforms.leads,
        source_format=FORMAT,
        meta={"format_version": version, "resolution_uv": waveforms.resolution_uv, **_device(document.root, waveforms)},
        is_repaired=document.damage is not None,
    )


def _document_version(root: etree._Element) -> str:
    """The document's version, if its type and version are among those supported."""
    kind = xml.text_of(root.find("{*}documentinfo/{*}documenttype"))
    version = xml.text_of(root.find("{*}documentinfo/{*}documentversion"))
    if kind not in DOCUMENT_TYPES:
        raise UnsupportedFormatError(
            f"expected a Philips document with documenttype {' or '.join(DOCUMENT_TYPES)}, found "
            f"{'another' if kind else 'none'}"
        )
    if version not in DOCUMENT_VERSIONS:
        raise UnsupportedFormatError(
            f"expected a Philips document with documentversion {', '.join(DOCUMENT_VERSIONS)}, found "
            f"{'another' if version else 'none'}"
        )
    return version


@dataclass(frozen=True)
class _Waveforms:
    """The document's description of its `parsedwaveforms`, checked.

    `signal` has the settings of the acquisition section; `duration_samples` is durationperchannel x rate and may be fractional;
    `offset` is subtracted from every count.
    """

    element: etree._Element
    signal: dict[str, str]
    leads: tuple[str, ...]
    duration_samples: float
    sampling_rate: float
    resolution_uv: float
    offset: int
    signed: bool
    encoding: str
    compressed: bool

    @classmethod
    def of(cls, root: etree._Element) -> _Waveforms:
        element = _required_waveforms(root)
        signal = _signal_characteristics(root)
        rate = xml.number(_setting(element, "samplespersecond", signal, "samplingrate"), "the sampling rate")
        duration = xml.number(element.get("durationperchannel"), "the duration per channel")
        resolution = xml.number(_setting(element, "resolution", signal, "signalresolution"), "the resolution")
        if not 0 < rate <= 100_000:
            raise ReadError(f"impossible sampling rate: {rate:g} Hz")
        if not 0 < resolution <= 10_000:
            raise ReadError(f"impossible resolution: {resolution:g} uV per bit")
        if not 0.5 < duration * rate / 1000 <= MAX_SAMPLES_PER_LEAD:
            raise ReadError(
                f"{duration:g} ms at {rate:g} Hz is not a resting ECG (1 to {MAX_SAMPLES_PER_LEAD} samples per lead)"
            )
        encoding = element.get("dataencoding", "").strip().casefold()
        if encoding != "plain" and encoding not in _DECODERS:
            raise UnsupportedFormatError("the waveforms' data encoding is not Base64, Hex or Plain")
        waveforms = cls(
            element=element,
            signal=signal,
            leads=_leads(element, signal),
            duration_samples=duration * rate / 1000,
            sampling_rate=rate,
            resolution_uv=resolution,
            offset=xml.integer(element.get("signaloffset") or "0", "the signal offset"),
            signed=element.get("signalsigned", "True").strip().casefold() != "false",
            encoding=encoding,
            compressed=encoding != "plain" and _is_compressed(element),
        )
        _refuse_unknown_words(element, waveforms)
        return waveforms

    def millivolts(self) -> npt.NDArray[np.float32]:
        """The samples, [n_leads, n_samples], with limb leads restored."""
        text = self.element.text or ""
        if not text or text.isspace():
            raise ReadError("the waveforms are empty")
        if self.encoding == "plain":
            return self._scaled(_split(_plain(text), len(self.leads), self.duration_samples))
        data = _DECODERS[self.encoding](text)
        if self.compressed:
            samples = millivolts(data, self.leads, self.duration_samples, self.resolution_uv)
            if samples is not None:
                return samples
            counts = restore_limb_leads(decode_xli(data, len(self.leads), self.duration_samples), self.leads)
            refuse_jumps(counts)
            return self._scaled(counts)
        if len(data) % 2:
            raise ReadError(
                f"uncompressed waveforms of {len(data)} bytes, which are not a whole number of 16-bit samples"
            )
        stored = np.frombuffer(data, dtype="<i2" if self.signed else "<u2").astype(np.int32)
        return self._scaled(_split(stored, len(self.leads), self.duration_samples))

    def _scaled(self, counts: npt.NDArray[np.signedinteger]) -> npt.NDArray[np.float32]:
        """Counts in millivolts."""
        samples = counts.astype(np.float32)
        if self.offset:
            samples -= self.offset
        # The product is exact for all resolutions in use (1.25 to 20 uV), so that the quotient is correctly rounded.
        samples *= np.float32(self.resolution_uv)
        samples /= 1000
        return samples


def _required_waveforms(root: etree._Element) -> etree._Element:
    element = root.find("{*}waveforms/{*}parsedwaveforms")
    if element is None:
        element = next(root.iter("{*}parsedwaveforms"), None)
    if element is not None:
        return element
    for other in ("unparsedwaveforms", "leadwaveforms"):
        if next(root.iter(f"{{*}}{other}"), None) is not None:
            raise UnsupportedFormatError(f"the waveforms are stored as {other}; only parsedwaveforms can be read")
    raise ReadError("the document has no waveforms (no parsedwaveforms element)")


def _signal_characteristics(root: etree._Element) -> dict[str, str]:
    """The settings of the acquisition section by name, without empty ones."""
    section = root.find("{*}dataacquisition/{*}signalcharacteristics")
    settings = (
        {} if section is None else {xml.local_name(child): xml.text_of(child) for child in section.iterchildren("*")}
    )
    return {name: text for name, text in settings.items() if text}


def _setting(element: etree._Element, attribute: str, signal: dict[str, str], *names: str) -> str | None:
    """An attribute of the waveforms or, if there is none (1.03), the setting of the acquisition section."""
    value = element.get(attribute)
    if value is not None:
        return value
    return next((signal[name] for name in (attribute, *names) if name in signal), None)


def _is_compressed(element: etree._Element) -> bool:
    """Whether the data is XLI; the attribute is `compressmethod` in version 1.03, `compression` in later ones."""
    method = (element.get("compressmethod") or element.get("compression") or "").strip().casefold()
    if method in ("", "uncompressed", "none") or element.get("compressflag", "").strip().casefold() == "false":
        return False
    if method != "xli":
        raise UnsupportedFormatError("the waveforms' compression is not XLI")
    return True


def _refuse_unknown_words(element: etree._Element, waveforms: _Waveforms) -> None:
    """Refuse samples that are not 16-bit words, and XLI of unsigned samples or with an offset, which is not documented."""
    bits = element.get("bitspersample") or element.get("nbitspersample")
    if bits is not None and waveforms.encoding != "plain" and (size := xml.number(bits, "bits per sample")) != 16:
        raise UnsupportedFormatError(f"expected samples of 16 bits, found {size:g}")
    if abs(waveforms.offset) >= 1 << 16:
        raise ReadError("impossible signal offset: more than 16 bits")
    if waveforms.compressed and (waveforms.offset or not waveforms.signed):
        raise UnsupportedFormatError("XLI data of unsigned samples, or with a signal offset, cannot be read")


def _leads(element: etree._Element, signal: dict[str, str]) -> tuple[str, ...]:
    """Lead names in stored order: the labels or, in version 1.03, those of the acquisition type."""
    labels = element.get("leadlabels", "").split()
    if labels:
        n_leads = xml.integer(element.get("numberofleads") or str(len(labels)), "the number of leads")
        labels = labels[: max(n_leads, 0)]
    else:
        n_leads = xml.integer(signal.get("numberchannelsallocated"), "the number of channels")
        if signal.get("acquisitiontype") not in ("STD-12", "10-WIRE"):
            raise UnsupportedFormatError(
                "the document has no lead labels, and its acquisition type does not give the order of leads"
            )
        extra = range(len(STANDARD_LEADS) + 1, min(n_leads, MAX_LEADS + 1) + 1)
        labels = [*STANDARD_LEADS[: max(n_leads, 0)], *(f"Channel {number}" for number in extra)]
    if not 1 <= len(labels) <= MAX_LEADS:
        raise ReadError(f"expected 1 to {MAX_LEADS} leads, found {len(labels)}")
    return canonical_leads(labels)


def _device(root: etree._Element, waveforms: _Waveforms) -> dict[str, str | float]:
    """Device and filters of the stored signal; the filters of the printed report are not applied to it."""
    machine = root.find("{*}dataacquisition/{*}machine")
    element, signal = waveforms.element, waveforms.signal
    notch = _setting(element, "notchfiltered", signal) or ""
    texts = (
        "" if machine is None else machine.get("detaildescription", ""),
        xml.text_of(machine),
        signal.get("signalbandwidth", ""),
        _setting(element, "hipass", signal) or "",
        _setting(element, "lowpass", signal) or "",
        (_setting(element, "notchfilterfreqs", signal) or "") if notch.strip().casefold() == "true" else "",
    )
    return dict((_described if sum(map(len, texts)) <= _MOST_REMEMBERED else _described.__wrapped__)(*texts))


_MOST_REMEMBERED = 1000  # characters of a device's description


@lru_cache(maxsize=64)  # the files of a cohort are of few devices
def _described(
    detail: str, model: str, bandwidth: str, highpass: str, lowpass: str, notch: str
) -> Mapping[str, str | float]:
    meta: dict[str, str | float] = {"device_manufacturer": "Philips"}
    # "manufacturer:model:software revision", by the schema's convention
    parts = [part.strip() for part in detail.split(":")]
    if len(parts) == 3:
        meta |= {"device_manufacturer": parts[0], "device_model": parts[1], "software_version": parts[2]}
    if model:
        meta["device_model"] = model
    band = bandwidth.partition("-")
    # Of the notch filter's frequencies the first is that of the mains, the others are harmonics.
    filters = {
        "highpass_hz": highpass or band[0],
        "lowpass_hz": lowpass or band[2],
        "notch_hz": "".join(notch.split()[:1]),
    }
    for key, text in filters.items():
        if re.fullmatch(r"\d{1,5}(\.\d{1,6})?", text.strip()):
            meta[key] = float(text)
    return {key: value for key, value in meta.items() if not isinstance(value, str) or _is_device_name(value)}


def _is_device_name(text: str) -> bool:
    """Whether a text is short and of plain characters, like names of devices and revisions."""
    return re.fullmatch(r"[A-Za-z0-9 ./_+-]{1,48}", text) is not None


_BLANKS = b" \t\r\n"


_LONGEST_NUMBER = 7  # characters: 24 bits with a sign


def _base64(text: str) -> bytes:
    plain = None if _xli is None else _xli.base64(text)
    if plain is not None:
        return plain
    try:
        return binascii.a2b_base64(text.encode("ascii").translate(None, _BLANKS), strict_mode=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise ReadError("the waveforms are damaged: not valid Base64") from error


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise ReadError("the waveforms are damaged: not valid hexadecimal") from error


def _plain(text: str) -> npt.NDArray[np.int32]:
    """Samples written as decimal numbers, separated by blanks."""
    words = text.split()
    if max(map(len, words)) > _LONGEST_NUMBER:  # NumPy would allocate the longest size for each word
        raise ReadError("the waveforms are damaged: not a list of whole numbers")
    try:
        return np.array(words).astype(np.int32)
    except (ValueError, OverflowError) as error:
        raise ReadError("the waveforms are damaged: not a list of whole numbers") from error


_DECODERS = {"base64": _base64, "hex": _hex}


def _split(stored: npt.NDArray[np.int32], n_leads: int, duration_samples: float) -> npt.NDArray[np.int32]:
    """Samples lead by lead to [n_leads, n_samples]; stored leads without a name are left out."""
    n_samples = round(duration_samples)
    n_stored, rest = divmod(stored.size, n_samples)
    if rest or n_stored < n_leads:
        raise ReadError(
            f"uncompressed waveforms of {stored.size} samples, but the document states {n_leads} leads of {n_samples} samples"
        )
    return stored.reshape(n_stored, n_samples)[:n_leads]


# Names in version 1.03, then in version 1.04.
_MEASUREMENTS = {
    "heart_rate": ("heartrate",),
    "pr_ms": ("meanprint", "print"),
    "qrs_ms": ("meanqrsdur", "qrsdur"),
    "qt_ms": ("meanqtint", "qtint"),
    "qtc_ms": ("meanqtc", "qtcb"),
    "p_axis": ("pfrontaxis",),
    "qrs_axis": ("qrsfrontaxis",),
    "t_axis": ("tfrontaxis",),
}


def statements(source: Source) -> Statements:
    """The analysis program's statements and measurements: the first interpretation, without edited elements."""
    interpretation = xml.parse_or_repair(source).root.find("{*}interpretations/{*}interpretation")
    if interpretation is None:
        return Statements()
    lines = [
        xml.text_of(statement.find("{*}leftstatement"))
        for statement in interpretation.iterfind("{*}statement")
        if not _is_edited(statement)
    ]
    sections = ("interpretationmeasurements", "globalmeasurements")
    found = [section for name in sections for section in interpretation.iterfind(f"{{*}}{name}")]
    measured: dict[str, float | None] = {}
    for key, names in _MEASUREMENTS.items():
        elements = [section.find(f"{{*}}{name}") for section in found for name in names]
        texts = [xml.text_of(element) for element in elements if element is not None and not _is_edited(element)]
        measured[key] = next((value for text in texts if (value := optional_number(text)) is not None), None)
    return statements_of(lines, **measured)


def _is_edited(element: etree._Element) -> bool:
    return (element.get("editedflag") or "").strip().casefold() == "true"
