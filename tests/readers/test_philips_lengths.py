"""Philips documents say how long they are: as many samples are read, and neither one more nor one less."""

from __future__ import annotations

import base64
import re
import struct
from pathlib import Path

import numpy as np
import pytest

from ecgfounder.demo.philips_encoder import encode_sierra
from ecgfounder.errors import ReadError
from ecgfounder.readers import read_ecg

ANNOUNCED = 700


def packed(n_bytes: int) -> bytes:
    """A chunk of XLI that unpacks to so many bytes of a flat line: high bytes, then low bytes, 64 for no second difference."""
    n_samples = -(-n_bytes // 2)
    text = [*[0] * n_samples, 0, 0, *[64] * (n_samples - 3), 0][:n_bytes]
    bits = "".join(f"{code:010b}" for code in (*text, 1023))
    bits += "0" * (-len(bits) % 8)
    payload = int(bits, 2).to_bytes(len(bits) // 8, "big")
    return struct.pack("<iHh", len(payload), 1, 0) + payload


def document(n_bytes: int, milliseconds: float, compressed: bool = True) -> str:
    """12 leads whose chunks unpack to so many bytes, or that are stored as they are, in a document of some length."""
    counts = np.zeros((12, ANNOUNCED), dtype=np.int16)
    text = encode_sierra(counts, compressed=compressed).decode()
    assert 'durationperchannel="1400"' in text
    data = packed(n_bytes) * 12 if compressed else bytes(12 * n_bytes)
    text = re.sub(r"(<parsedwaveforms[^>]*>)[^<]*", lambda found: found[1] + base64.b64encode(data).decode(), text)
    return text.replace('durationperchannel="1400"', f'durationperchannel="{milliseconds:g}"')


def n_samples(tmp_path: Path, *args: float, **more: bool) -> int:
    (tmp_path / "ecg.xml").write_text(document(*args, **more))  # type: ignore[arg-type]
    return read_ecg(tmp_path / "ecg.xml").n_samples


@pytest.mark.parametrize("n_bytes", [1399, 1400])  # the last byte is never used, and may be left away
def test_as_many_samples_as_were_announced_are_read(tmp_path: Path, n_bytes: int) -> None:
    assert n_samples(tmp_path, n_bytes, 1400) == ANNOUNCED


@pytest.mark.parametrize("n_bytes", [1397, 1398, 1401, 1402])
def test_one_sample_less_or_more_is_refused(tmp_path: Path, n_bytes: int) -> None:
    with pytest.raises(ReadError, match="but the document states"):
        n_samples(tmp_path, n_bytes, 1400)


@pytest.mark.parametrize(("n_bytes", "found"), [(1400, 700), (1402, 701), (1398, None), (1404, None)])
def test_a_length_between_samples_is_met_by_either_neighbour(tmp_path: Path, n_bytes: int, found: int | None) -> None:
    if found is not None:
        assert n_samples(tmp_path, n_bytes, 1401) == found
    else:
        with pytest.raises(ReadError, match="but the document states"):
            n_samples(tmp_path, n_bytes, 1401)


@pytest.mark.parametrize(("n_bytes", "fits"), [(1398, False), (1400, True), (1402, False)])
def test_samples_that_are_stored_as_they_are_must_be_as_many_too(tmp_path: Path, n_bytes: int, fits: bool) -> None:
    if fits:
        assert n_samples(tmp_path, n_bytes, 1400, compressed=False) == ANNOUNCED
    else:
        with pytest.raises(ReadError, match="but the document states"):
            n_samples(tmp_path, n_bytes, 1400, compressed=False)
