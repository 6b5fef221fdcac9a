"""Records of one 16-bit file, in C and in Python: the same samples to the bit, and the same errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecgfounder.errors import ReadError
from ecgfounder.readers import read_ecg
from ecgfounder.readers.wfdb import stored

needs_compiled = pytest.mark.skipif(stored._loops is None, reason="the module in C was not built")

GAINS = ("200(0)/mV", "200(12)/mV", "-200(-3)/uV", "1000.5(0)/mV", "0.0001(5)/mV", "1(0)/V", "0", "3(1)/nV")


@st.composite
def records(draw: st.DrawFn) -> tuple[str, bytes]:
    n_signals, n_frames = draw(st.sampled_from([1, 2, 3, 7, 8, 9, 12, 15, 16, 17])), draw(st.integers(1, 1100))
    seed = draw(st.integers(0, 1 << 30))
    counts = np.random.default_rng(seed).integers(-(1 << 15), 1 << 15, (n_frames, n_signals)).astype("<i2")
    if draw(st.booleans()):
        counts[:, draw(st.integers(0, n_signals - 1))] = -(1 << 15)
    offset = draw(st.sampled_from([0, 0, 1, 7]))
    stated = draw(st.sampled_from([f" {n_frames}", "", f" {n_frames - 1}", f" {n_frames + 1}"]))
    lines = [f"r {n_signals} 500{stated}"]
    for column in counts.T:
        checksum = int(column[: int(stated or 0) or None].sum(dtype=np.int64)) & 0xFFFF
        checksum = draw(st.sampled_from([checksum, checksum - (1 << 16), 0, (checksum + 1) & 0xFFFF]))
        gain = draw(st.sampled_from(GAINS))
        lines.append(f"r.dat 16{f'+{offset}' if offset else ''} {gain} 16 0 0 {checksum} 0 s{len(lines)}")
    return "\n".join(lines) + "\n", bytes(offset) + counts.tobytes()[: draw(st.sampled_from([None, None, -1]))]


def told(header: Path) -> object:
    try:
        found = read_ecg(header)
    except ReadError as error:
        return str(error)
    return found.leads, found.samples.tobytes()


@needs_compiled
@given(record=records())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_both_give_the_same(record: tuple[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "r.hea").write_text(record[0])
    (tmp_path / "r.dat").write_bytes(record[1])
    compiled = told(tmp_path / "r.hea")
    with monkeypatch.context() as patch:
        patch.setattr(stored, "_loops", None)
        assert told(tmp_path / "r.hea") == compiled


@needs_compiled
@pytest.mark.parametrize(
    "change",
    [
        {"offset": -1},
        {"offset": 9},
        {"n_frames": 3},
        {"n_frames": 0},
        {"scales": np.ones(3)},
        {"scales": np.ones(0)},
        {"offsets": np.ones(1)},
        {"out": np.empty((2, 1), np.float32)},
        {"facts": np.empty((1, 4), np.int64)},
    ],
)
def test_arrays_that_are_too_small_are_refused(change: dict[str, object]) -> None:
    whole = {"data": bytes(8), "offset": 0, "n_frames": 2, "scales": np.ones(2), "offsets": np.ones(2)}
    whole |= {"out": np.empty((2, 2), np.float32), "facts": np.empty((2, 4), np.int64)}
    assert stored._loops is not None
    stored._loops.interleaved(*whole.values())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="too small"):
        stored._loops.interleaved(*(whole | change).values())  # type: ignore[arg-type]
