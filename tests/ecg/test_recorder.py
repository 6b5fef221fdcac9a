"""The recorder in words: whatever a file states of it, and the format's name in every case."""

from __future__ import annotations

import re

import pytest

from ecgfounder.ecg.recorder import FORMAT_NAMES, recorder_of
from tests.builders.philips import recording_of
from tests.places import ROOT


@pytest.mark.parametrize(
    ("source_format", "meta", "words"),
    [
        ("philips_sierra", {}, "Philips Sierra ECG XML"),
        ("philips_sierra", {"format_version": "1.04"}, "Philips Sierra ECG XML 1.04"),
        ("scp_ecg", {"device_manufacturer": "Philips", "device_model": "TC50"}, "Philips TC50, from SCP-ECG"),
        ("dicom", {"device_manufacturer": "GE", "device_model": "GE MAC 5500"}, "GE MAC 5500, from DICOM"),
        ("ge_muse", {"device_model": "MAC55", "software_version": "9.1"}, "MAC55, from GE MUSE XML"),
        ("dicom", {"device_manufacturer": "Mortara\n Inc"}, "Mortara Inc, from DICOM"),
        ("some_new_format", {}, "some new format"),
    ],
)
def test_the_device_and_the_format_are_named(source_format: str, meta: dict[str, str], words: str) -> None:
    made = recording_of()
    object.__setattr__(made, "meta", meta)
    object.__setattr__(made, "source_format", source_format)
    assert recorder_of(made) == words


def test_every_reader_has_its_format_in_words() -> None:
    sources = (ROOT / "src" / "ecgfounder" / "readers").rglob("*.py")
    formats = {found for path in sources for found in re.findall(r'^FORMAT = "(\w+)"', path.read_text(), re.MULTILINE)}
    assert len(formats) >= 15
    assert formats == set(FORMAT_NAMES)
