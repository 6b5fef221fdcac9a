"""DICOM ECG waveforms in every encoding, through pydicom."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import dcmwrite, write_dataset
from pydicom.sequence import Sequence

from ecgfounder.ecg.leads import STANDARD_LEADS

TWELVE_LEAD = "1.2.840.10008.5.1.4.1.1.9.1.1"
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
DEFLATED, BIG_ENDIAN = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
NUMBER_OF_LEAD = {"I": 1, "II": 2, "III": 61, "aVR": 62, "aVL": 63, "aVF": 64} | {f"V{i}": i + 2 for i in range(1, 7)}


def counts_of(leads: tuple[str, ...], n_samples: int = 50, seed: int = 0, dtype: str = "i2") -> np.ndarray:
    info = np.iinfo(dtype)
    low, high = max(info.min + 1, -2000), min(info.max, 2000)
    return np.random.default_rng(seed).integers(low, high, (n_samples, len(leads))).astype(dtype)


def item(**elements: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in elements.items():
        if value is not None:
            setattr(dataset, keyword, value)
    return dataset


def coded(value: str | None, scheme: str, meaning: str) -> Sequence:
    return Sequence([item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)])


def source_of(lead: str, scheme: str) -> Sequence:
    number = NUMBER_OF_LEAD[lead]
    value = {
        "MDC": f"2:{number}",
        "MDC number": str((2 << 16) + number),
        "MDC id": f"MDC_ECG_LEAD_{lead.upper()}",
        "SCPECG": f"5.6.3-9-{number}",
        "text": "local",
    }[scheme]
    # A text that contradicts the code must lose; without a known code it is all that there is.
    return coded(value, scheme.split()[0], f"Lead {lead} (Einthoven)" if scheme == "text" else "Lead V9")


def channel(lead: str, scheme: str = "MDC", units: str | None = "uV", **changes: Any) -> Dataset:
    elements: dict[str, Any] = {
        "ChannelSourceSequence": source_of(lead, scheme),
        "ChannelSensitivity": "5",
        "ChannelSensitivityUnitsSequence": None if units is None else coded(units, "UCUM", "unit"),
        "ChannelSensitivityCorrectionFactor": "1",
        "ChannelBaseline": "0",
        "ChannelSampleSkew": "0",
        "WaveformBitsStored": 16,
        "FilterLowFrequency": "0.05",
    }
    return item(**(elements | changes))


def group(counts: np.ndarray, channels: list[Dataset], **changes: Any) -> Dataset:
    elements: dict[str, Any] = {
        "MultiplexGroupTimeOffset": "0",
        "WaveformOriginality": "ORIGINAL",
        "NumberOfWaveformChannels": counts.shape[1],
        "NumberOfWaveformSamples": counts.shape[0],
        "SamplingFrequency": "500",
        "MultiplexGroupLabel": "RHYTHM",
        "ChannelDefinitionSequence": Sequence(channels),
        "WaveformBitsAllocated": counts.dtype.itemsize * 8,
        "WaveformSampleInterpretation": {"i1": "SB", "u1": "UB", "i2": "SS", "u2": "US", "i4": "SL", "u4": "UL"}[
            counts.dtype.str[1:]
        ],
        "WaveformData": counts.tobytes() + b"\0" * (counts.nbytes % 2),
    }
    result = item(**(elements | changes))
    result["WaveformData"].VR = "OW"
    if "WaveformPaddingValue" in result:
        result["WaveformPaddingValue"].VR = "OW"
    return result


def rhythm(leads: tuple[str, ...] = STANDARD_LEADS, n_samples: int = 50, seed: int = 0, **changes: Any) -> Dataset:
    return group(counts_of(leads, n_samples, seed), [channel(lead) for lead in leads], **changes)


def ecg(*groups: Dataset, sop_class: str = TWELVE_LEAD) -> Dataset:
    annotations = [item(UnformattedTextValue="SINUS RHYTHM") for _ in range(3)]
    dataset = item(
        SOPClassUID=sop_class,
        Manufacturer="Maker",
        ManufacturerModelName="Model",
        PatientName="Doe^Jane",
        WaveformAnnotationSequence=Sequence(annotations),
    )
    dataset["WaveformAnnotationSequence"].is_undefined_length = True
    dataset.WaveformSequence = Sequence(list(groups))
    return dataset


def encoded(dataset: Dataset, syntax: str = EXPLICIT, undefined_length: bool = False) -> bytes:
    """A DICOM file with preamble."""
    if undefined_length and "WaveformSequence" in dataset:
        dataset["WaveformSequence"].is_undefined_length = True
        for each in dataset.WaveformSequence:
            each.is_undefined_length_sequence_item = True
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    meta.TransferSyntaxUID = syntax
    dataset.file_meta = meta
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def without_meta(dataset: Dataset, implicit: bool) -> bytes:
    """The data set alone, as files without preamble and file meta information have it."""
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = implicit, True
    write_dataset(buffer, dataset)
    return buffer.getvalue()
