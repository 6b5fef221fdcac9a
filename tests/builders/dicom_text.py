"""DICOM objects as XML (PS3.19) and JSON (PS3.18), from pydicom data sets."""

from __future__ import annotations

import json
from typing import Any
from xml.sax.saxutils import escape

from pydicom.dataset import Dataset

NAMESPACE = ' xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM"'


def members(dataset: Dataset) -> dict[str, Any]:
    """The DICOM JSON Model of a data set, as pydicom writes it."""
    return json.loads(dataset.to_json())


def as_json(attributes: Any) -> bytes:
    return json.dumps(attributes).encode()


def as_xml(attributes: dict[str, Any], namespace: str = NAMESPACE, doctype: str = "") -> bytes:
    """The Native DICOM Model with the content of a DICOM JSON Model."""
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n{doctype}<NativeDicomModel{namespace} xml:space="preserve">'
    return f"{text}{_attributes(attributes)}</NativeDicomModel>".encode()


def _attributes(attributes: dict[str, Any]) -> str:
    return "".join(
        f'<DicomAttribute tag="{tag}" vr="{attribute["vr"]}">{_content(attribute)}</DicomAttribute>\n'
        for tag, attribute in attributes.items()
    )


def _content(attribute: dict[str, Any]) -> str:
    if "InlineBinary" in attribute:
        return f"<InlineBinary>{attribute['InlineBinary']}</InlineBinary>"
    if "BulkDataURI" in attribute:
        return f'<BulkData uri="{attribute["BulkDataURI"]}"/>'
    values = enumerate(attribute.get("Value", []), start=1)
    if attribute["vr"] == "SQ":
        return "".join(f'<Item number="{number}">{_attributes(item)}</Item>' for number, item in values)
    if attribute["vr"] == "PN":
        return "<PersonName/>"
    return "".join(f'<Value number="{number}">{escape(str(value))}</Value>' for number, value in values)
