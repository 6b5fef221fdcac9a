"""MUSE XML's numbers: 32 bits of a checksum with or without a sign, and places of first samples from any origin."""

from __future__ import annotations

import base64
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from ecgfounder.errors import ReadError
from ecgfounder.readers import muse, read_ecg

Counts = npt.NDArray[np.int16]


def lead(name: str, counts: Counts, first: int = 0, crc: object = None) -> str:
    data = counts.astype("<i2").tobytes()
    checksum = zlib.crc32(data) if crc is None else crc
    return (
        f"<LeadData><LeadID>{name}</LeadID><LeadOffsetFirstSample>{first}</LeadOffsetFirstSample>"
        f"<LeadAmplitudeUnitsPerBit>5</LeadAmplitudeUnitsPerBit><LeadDataCRC32>{checksum}</LeadDataCRC32>"
        f"<WaveFormData>{base64.b64encode(data).decode()}</WaveFormData></LeadData>"
    )


def read(tmp_path: Path, *leads: str) -> npt.NDArray[np.float32]:
    content = "<WaveformType>Rhythm</WaveformType><SampleBase>500</SampleBase>" + "".join(leads)
    (tmp_path / "ecg.xml").write_text(f"<RestingECG><Waveform>{content}</Waveform></RestingECG>")
    recording = read_ecg(tmp_path / "ecg.xml")
    assert recording.source_format == muse.FORMAT
    return recording.samples


def counts(value: int, n_samples: int = 20) -> Counts:
    return np.full(n_samples, value, dtype=np.int16)


def with_checksum(high: bool) -> Counts:
    """Samples whose checksum has its highest bit set, or not."""
    some = (counts(value) for value in range(1, 100))
    return next(each for each in some if (zlib.crc32(each.astype("<i2").tobytes()) >= 1 << 31) == high)


@pytest.mark.parametrize("high", [True, False])
@pytest.mark.parametrize("turns", [0, -1])
def test_a_checksum_is_its_32_bits_with_or_without_a_sign(tmp_path: Path, high: bool, turns: int) -> None:
    samples = with_checksum(high)
    crc = zlib.crc32(samples.astype("<i2").tobytes())
    stated = crc + turns * (1 << 32)
    np.testing.assert_allclose(read(tmp_path, lead("I", samples, crc=stated))[0], samples * 0.005, rtol=1e-6)
    for wrong in (stated + 1, stated - 1, -stated, stated ^ (1 << 31)):
        with pytest.raises(ReadError, match="checksum"):
            read(tmp_path, lead("I", samples, crc=wrong))


@pytest.mark.parametrize("origin", [0, 1, -1, 5000])
def test_first_samples_are_told_from_the_lead_that_begins_first_wherever_counting_starts(
    tmp_path: Path, origin: int
) -> None:
    together = read(tmp_path, lead("I", counts(1), origin), lead("II", counts(2), origin))
    assert together.shape == (2, 20)
    assert not np.isnan(together).any()
    apart = read(tmp_path, lead("I", counts(1), origin + 5), lead("II", counts(2), origin))
    assert apart.shape == (2, 25)
    assert np.flatnonzero(np.isnan(apart[0])).tolist() == list(range(5))
    assert np.flatnonzero(np.isnan(apart[1])).tolist() == list(range(20, 25))


@pytest.mark.parametrize(("apart", "read_whole"), [(40, True), (41, False)])
def test_leads_may_follow_each_other_and_begin_no_later(tmp_path: Path, apart: int, read_whole: bool) -> None:
    pair = (lead("I", counts(1)), lead("II", counts(2), apart))
    if read_whole:
        assert read(tmp_path, *pair).shape == (2, apart + 20)
    else:
        with pytest.raises(ReadError, match="far outside"):
            read(tmp_path, *pair)
