"""The recorder of an ECG, in words, for headings.

In: a recording. Out: the device's manufacturer and model, and the file's format; never text about the patient.
"""

from __future__ import annotations

from ecgfounder.ecg.recording import Recording

FORMAT_NAMES = {
    "array": "array",
    "csv": "text table",
    "dicom": "DICOM",
    "dicom_json": "DICOM JSON",
    "dicom_xml": "DICOM XML",
    "edf": "EDF",
    "ge_cardiosoft": "GE CardioSoft XML",
    "ge_muse": "GE MUSE XML",
    "hdf5": "HDF5",
    "healforce": "Heal Force",
    "hl7_aecg": "HL7 aECG",
    "ishne": "ISHNE Holter",
    "kardia_atc": "AliveCor Kardia ATC",
    "kardia_json": "AliveCor Kardia JSON",
    "mfer": "MFER",
    "mortara_eli": "Mortara ELI",
    "philips_sierra": "Philips Sierra ECG XML",
    "schiller_sema": "Schiller SEMA XML",
    "scp_ecg": "SCP-ECG",
    "wfdb": "WFDB",
}
"""Readers' names of formats, in words."""


def recorder_of(recording: Recording) -> str:
    """The recorder in words: 'Philips TC50, from Philips Sierra ECG XML 1.04'; the format alone if the file names no device."""
    meta = {key: " ".join(str(value).split()) for key, value in recording.meta.items()}
    device = device_name(meta.get("device_manufacturer", ""), meta.get("device_model", ""))
    name = FORMAT_NAMES.get(recording.source_format, recording.source_format.replace("_", " "))
    version = meta.get("format_version", "")
    written = f"{name} {version}" if version and version not in name else name
    return f"{device}, from {written}" if device else written


def device_name(maker: str, model: str) -> str:
    """The manufacturer and the model, which may begin with the manufacturer.

    >>> device_name("Philips", "TC50"), device_name("GE", "GE MAC 5500"), device_name("", "")
    ('Philips TC50', 'GE MAC 5500', '')
    """
    return model if maker and model.lower().startswith(maker.lower()) else f"{maker} {model}".strip()
