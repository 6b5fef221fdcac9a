"""Writing Philips Sierra XML: the inverse of the reader beside it, for the demo cohort and for tests.

In: samples in counts, lead names, a rate. Out: the bytes of a document laid out as cardiographs write it, which
`ecgfounder.readers.philips` and the `sierraecg` package both read. No patient is in it.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.errors import SettingsError
from ecgfounder.readers.philips.reader import DOCUMENT_VERSIONS
from ecgfounder.readers.philips.xli import MAX_JUMP

ENCODINGS = ("UTF-8", "UTF-16")

_CHUNKS = 16  # cardiographs store sixteen leads, of which twelve are named
_LINE = 76  # Base64 characters in a line


def encode_sierra(
    counts: npt.ArrayLike,
    leads: Sequence[str] = STANDARD_LEADS,
    sampling_rate: float = 500,
    *,
    version: str = "1.04",
    encoding: str = "UTF-8",
    compressed: bool = True,
    resolution_uv: float = 5,
    device: str = "Synthetic",
) -> bytes:
    """Encode one recording as a Philips Sierra document.

    Parameters
    ----------
    counts : array_like
        Whole numbers in the range of int16, [n_leads, n_samples].
    leads : sequence of str, optional
        One label for each row. Version 1.03 has no labels, and takes the standard leads in their order only.
    sampling_rate : float, default: 500
        In Hz.
    version : str, default: "1.04"
        One of `ecgfounder.readers.philips.DOCUMENT_VERSIONS`.
    encoding : str, default: "UTF-8"
        One of `ENCODINGS`; UTF-16 with a byte-order mark, as cardiographs write it.
    compressed : bool, default: True
        XLI, with limb leads as residuals and sixteen chunks; otherwise 16-bit samples as they are.
    resolution_uv : float, default: 5
        Of one count, in uV.
    device : str, default: "Synthetic"
        The cardiograph's name.

    Returns
    -------
    bytes
        The document. It decodes to the same counts exactly.

    Raises
    ------
    SettingsError
        If a value is not one that the format can hold.
    """
    samples = _checked_counts(counts, len(leads))
    _check_names(leads, version, encoding)
    stored = samples
    if compressed:
        stored = _with_residuals(samples, leads)
        data = b"".join(compress_lead(lead) for lead in stored)
        data += compress_lead(np.zeros(samples.shape[1], dtype=np.int16)) * (_CHUNKS - len(leads))
    else:
        data = samples.astype("<i2").tobytes()
    text = base64.b64encode(data).decode("ascii")
    lines = "\n".join(text[begin : begin + _LINE] for begin in range(0, len(text), _LINE))
    duration = 1000 * samples.shape[1] / sampling_rate
    attributes = (_attributes_1_03 if version == "1.03" else _attributes_1_04)(
        leads, f"{duration:.9g}", f"{sampling_rate:g}", f"{resolution_uv:g}", compressed=compressed
    )
    document = _DOCUMENT.format(
        encoding=encoding,
        kind="SierraECG" if version == "1.03" else "PhilipsECG",
        version=version,
        device=device,
        signal=(_SIGNAL_1_03 if version == "1.03" else _SIGNAL_1_04).format(
            rate=f"{sampling_rate:g}", resolution=f"{resolution_uv:g}", n_leads=len(leads)
        ),
        attributes=attributes,
        data=lines,
    )
    if encoding == "UTF-16":  # written on Windows, with its line ends
        return b"\xff\xfe" + document.replace("\n", "\r\n").encode("utf-16-le")
    return document.encode("utf-8")


def _checked_counts(counts: npt.ArrayLike, n_leads: int) -> npt.NDArray[np.int16]:
    samples = np.asarray(counts)
    if samples.ndim != 2 or samples.shape[0] != n_leads or samples.shape[1] < 1:
        raise SettingsError(f"counts must be [{n_leads} leads, n_samples], not {list(samples.shape)}")
    if samples.dtype.kind not in "iu" or samples.min() < -(1 << 15) or samples.max() >= 1 << 15:
        raise SettingsError("counts must be whole numbers in the range of int16")
    return samples.astype(np.int16)


def _check_names(leads: Sequence[str], version: str, encoding: str) -> None:
    if version not in DOCUMENT_VERSIONS:
        raise SettingsError(
            f"Invalid value for the 'version' parameter. Allowed values are {', '.join(DOCUMENT_VERSIONS)}, "
            f"but got {version!r} instead."
        )
    if encoding not in ENCODINGS:
        raise SettingsError(
            f"Invalid value for the 'encoding' parameter. Allowed values are {' and '.join(ENCODINGS)}, "
            f"but got {encoding!r} instead."
        )
    if not all(re.fullmatch(r"[A-Za-z0-9-]+", lead) for lead in leads):
        raise SettingsError("lead names must be of letters, digits and '-'")
    if version == "1.03" and tuple(leads) != STANDARD_LEADS[: len(leads)]:
        raise SettingsError("version 1.03 does not name its leads: they must be the standard ones, in their order")


# -- XLI ---------------------------------------------------------------------------------------------------------------


def _with_residuals(samples: npt.NDArray[np.int16], leads: Sequence[str]) -> npt.NDArray[np.int16]:
    """What XLI stores: residuals in place of III, aVR, aVL and aVF, modulo 2^16."""
    jumps = np.abs(np.diff(samples.astype(np.int32), axis=1))
    if jumps.size and jumps.max() > MAX_JUMP:
        raise SettingsError(f"XLI samples may change by {MAX_JUMP} counts from one to the next at most")
    if "-aVR" in leads:
        raise SettingsError("how XLI stores lead -aVR is not known")
    row = {lead: samples[index].astype(np.int32) for index, lead in enumerate(leads)}
    stored = samples.copy()
    for index, lead in enumerate(leads):
        absent = [name for name in _NEEDED.get(lead, ()) if name not in row]
        if absent:
            raise SettingsError(f"XLI cannot store lead {lead} without {', '.join(absent)}")
        if lead == "III":
            stored[index] = (row["II"] - row["I"] - row[lead]).astype(np.int16)
        elif lead == "aVR":
            stored[index] = (-((row["I"] + row["II"]) >> 1) - row[lead]).astype(np.int16)
        elif lead == "aVL":
            stored[index] = (((row["I"] - row["III"]) >> 1) - row[lead]).astype(np.int16)
        elif lead == "aVF":
            stored[index] = (((row["II"] + row["III"]) >> 1) - row[lead]).astype(np.int16)
    return stored


_NEEDED = {"III": ("I", "II"), "aVR": ("I", "II"), "aVL": ("I", "III"), "aVF": ("II", "III")}


def compress_lead(samples: npt.NDArray[np.int16], code_bits: int = 10) -> bytes:
    """One XLI chunk: header and LZW-compressed second differences of int16 [n_samples].

    `code_bits` is 10 in every file that is known; another value makes a chunk that must be refused.
    """
    x = samples.astype(np.int64)
    second_differences = np.diff(x, n=2)
    words = np.zeros_like(x)  # the last word is not used, and 0 in real files
    words[:2] = x[:2]
    words[2:-1] = 64 - second_differences[1:]
    first = int(-second_differences[0]) if second_differences.size else 0
    words &= 0xFFFF
    payload = _lzw((words >> 8).astype(np.uint8).tobytes() + (words & 0xFF).astype(np.uint8).tobytes(), code_bits)
    return struct.pack("<iHH", len(payload), 1, first & 0xFFFF) + payload


def _lzw(text: bytes, code_bits: int) -> bytes:
    """LZW with codes of one width, most significant bit first, closed by the highest code."""
    end_code = (1 << code_bits) - 1
    table = {bytes([byte]): byte for byte in range(256)}
    codes = []
    string = b""
    for byte in text[:-1]:
        longer = string + bytes([byte])
        if longer in table:
            string = longer
            continue
        codes.append(table[string])
        if len(table) < end_code:
            table[longer] = len(table)
        string = bytes([byte])
    # Real files give the last byte a code of its own.
    codes += [table[string]] * bool(string) + [text[-1], end_code]
    bits = (np.array(codes)[:, None] >> np.arange(code_bits)[::-1]) & 1
    return np.packbits(bits.astype(np.uint8)).tobytes()


# -- The document ------------------------------------------------------------------------------------------------------


def _attributes_1_03(leads: Sequence[str], duration: str, rate: str, resolution: str, *, compressed: bool) -> str:
    method = ' compressmethod="XLI"' if compressed else ""
    return (
        f'compressflag="{compressed}"{method} filterflag="True" dataencoding="Base64" '
        f'durationperchannel="{duration}" nbitspersample="16"'
    )


def _attributes_1_04(leads: Sequence[str], duration: str, rate: str, resolution: str, *, compressed: bool) -> str:
    method = ' compression="XLI"' if compressed else ""
    return (
        f'dataencoding="Base64"{method} numberofleads="{len(leads)}" leadlabels="{" ".join(leads)}" '
        f'durationperchannel="{duration}" samplespersecond="{rate}" resolution="{resolution}" signaloffset="0" '
        f'signalsigned="True" bitspersample="16" hipass="0.05" lowpass="150" notchfiltered="False" '
        f'notchfilterfreqs="0" donotfilter="False"'
    )


_SIGNAL_1_03 = """<samplingrate>{rate}</samplingrate>
      <signalresolution>{resolution}</signalresolution>
      <signalbandwidth>0.05-150</signalbandwidth>
      <acquisitiontype>STD-12</acquisitiontype>
      <bitspersample>16</bitspersample>
      <signaloffset>0</signaloffset>
      <signalsigned>True</signalsigned>
      <numberchannelsallocated>{n_leads}</numberchannelsallocated>
      <numberchannelsvalid>{n_leads}</numberchannelsvalid>
      <leadset>STD-12</leadset>"""

_SIGNAL_1_04 = """<samplingrate>{rate}</samplingrate>
      <resolution>{resolution}</resolution>
      <hipass>0.05</hipass>
      <lowpass>150</lowpass>
      <acsetting>50</acsetting>
      <notchfiltered>False</notchfiltered>
      <notchfilterfreqs />
      <acquisitiontype>10-WIRE</acquisitiontype>
      <bitspersample>16</bitspersample>
      <signaloffset>0</signaloffset>
      <signalsigned>True</signalsigned>
      <numberchannelsallocated>{n_leads}</numberchannelsallocated>
      <numberchannelsvalid>{n_leads}</numberchannelsvalid>
      <electrodeplacement>STD</electrodeplacement>"""

_DOCUMENT = """<?xml version="1.0" encoding="{encoding}"?>
<restingecgdata xmlns="http://www3.medical.philips.com" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" \
status="Not yet determined" lang="en">
  <documentinfo>
    <documentname>00000000-0000-0000-0000-000000000000.xml</documentname>
    <documenttype>{kind}</documenttype>
    <documentversion>{version}</documentversion>
  </documentinfo>
  <reportinfo date="2000-01-01" time="00:00:00">
    <reportdescription>Synthetic recording, of no patient</reportdescription>
    <reportbandwidth>
      <highpassfiltersetting>0.15</highpassfiltersetting>
      <lowpassfiltersetting>100</lowpassfiltersetting>
      <notchfiltersetting>50</notchfiltersetting>
    </reportbandwidth>
  </reportinfo>
  <dataacquisition date="2000-01-01" time="00:00:00" statflag="False">
    <machine machineid="0" detaildescription="Synthetic:{device}:1.0">{device}</machine>
    <signalcharacteristics>
      {signal}
    </signalcharacteristics>
  </dataacquisition>
  <patient>
    <generalpatientdata>
      <patientid>SYNTHETIC</patientid>
      <name>
        <lastname />
        <firstname />
      </name>
      <sex>Unknown</sex>
    </generalpatientdata>
  </patient>
  <waveforms>
    <parsedwaveforms {attributes}>{data}</parsedwaveforms>
  </waveforms>
</restingecgdata>
"""
