"""Kardia's JSON: unfiltered samples in nanovolts a count; everything that is not as described is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from ecgfounder import read_ecg
from ecgfounder.ecg.recording import Recording
from ecgfounder.errors import ReadError, UnsupportedFormatError
from tests.builders.kardia_json import answer, counts_of, signal


def read(content: bytes) -> Recording:
    return read_ecg(content, reader="kardia_json")


@pytest.mark.parametrize("leads", [("I",), ("I", "II", "III", "aVR", "aVL", "aVF")])
def test_the_unfiltered_samples_are_read_in_millivolts(leads: tuple[str, ...]) -> None:
    counts = counts_of(leads=leads)
    recording = read(answer(counts))
    assert recording.leads == leads
    assert recording.sampling_rate == 300
    np.testing.assert_allclose(recording.samples, np.stack(list(counts.values())) * 5e-4, rtol=1e-6)
    assert recording.meta == {
        "device_manufacturer": "AliveCor",
        "device_model": "kardia_6l",
        "software_version": "1.3.4",
        "resolution_uv": 0.5,
    }


def test_without_unfiltered_samples_the_filtered_ones_are_read() -> None:
    counts = counts_of()
    data = {"enhanced": signal(counts, amplitudeResolution=250)}
    found = read(answer(counts, data=data, deviceInfo=None))
    np.testing.assert_allclose(found.samples, np.stack(list(counts.values())) * 2.5e-4, rtol=1e-6)
    assert "device_model" not in found.meta


def test_the_order_of_names_and_a_byte_order_mark_do_not_matter() -> None:
    counts = counts_of()
    whole = orjson.loads(answer(counts))
    turned = orjson.dumps(dict(reversed(list(whole.items()))))
    np.testing.assert_array_equal(read(b"\xef\xbb\xbf" + turned).samples, read(answer(counts)).samples)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frequency": 0}, "frequency is not a number above 0"),
        ({"frequency": "300"}, "frequency is not a number above 0"),
        ({"frequency": True}, "frequency is not a number above 0"),
        ({"amplitudeResolution": None}, "amplitudeResolution is not a number above 0"),
        ({"amplitudeResolution": -500}, "amplitudeResolution is not a number above 0"),
        ({"numLeads": 2}, "not as many leads as numLeads says"),
        ({"samples": {}}, "or some of them, found others"),
        ({"samples": {"leadI": [1], "leadX": [1]}}, "or some of them, found others"),
        ({"samples": {"leadI": [1, 2], "leadII": [1]}, "numLeads": 2}, "different lengths"),
        ({"samples": {"leadI": []}, "numLeads": 1}, "lead I: expected a list of samples"),
        ({"samples": {"leadI": "12"}, "numLeads": 1}, "lead I: expected a list of samples"),
        ({"samples": {"leadI": [1, None]}, "numLeads": 1}, "lead I: a sample is not a number"),
        ({"samples": {"leadI": [1, True]}, "numLeads": 1}, "lead I: a sample is not a number"),
        ({"samples": {"leadI": [1, "2"]}, "numLeads": 1}, "lead I: a sample is not a number"),
        ({"samples": {"leadI": [1, 1e300]}, "numLeads": 1}, "more than a kilovolt"),
        ({"samples": [1, 2]}, "expected samples as a JSON object"),
    ],
)
def test_what_is_not_as_described_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ReadError, match=message):
        read(answer(counts_of(), raw=signal(counts_of(), **changes)))


def test_other_recordings_and_damage_are_refused_by_name() -> None:
    whole = answer(counts_of())
    with pytest.raises(UnsupportedFormatError, match="Kardia 12L"):
        read(answer(counts_of(), data=None, data12L={"samples": {}}))
    with pytest.raises(ReadError, match="expected data as a JSON object"):
        read(answer(counts_of(), data=[1]))
    with pytest.raises(ReadError, match=r"found none"):
        read(answer(counts_of(), data={}))
    for end in (len(whole) - 1, len(whole) // 2):
        with pytest.raises(ReadError, match=r"not well-formed JSON \(line 1\)"):
            read(whole[:end])


def test_texts_of_the_device_that_cannot_be_shown_are_left_out() -> None:
    found = read(answer(counts_of(), deviceInfo={"hardwareType": "a\x1bb", "firmwareRevision": 5}))
    assert "device_model" not in found.meta
    assert "software_version" not in found.meta


def test_a_long_name_of_a_file_is_read_from_disk(tmp_path: Path) -> None:
    path = tmp_path / "recording.json"
    path.write_bytes(answer(counts_of()))
    assert read_ecg(path, reader="kardia_json").n_samples == 60
