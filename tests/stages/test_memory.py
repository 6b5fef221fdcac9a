"""What a reading process asks for before it reads a large file covers what it takes."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.ecg.recording import Recording
from ecgfounder.preprocess.preparation import Preparation
from ecgfounder.preprocess.recipes import FILTERED
from ecgfounder.readers import source as source_module
from ecgfounder.readers.source import Hints
from ecgfounder.stages import read as read_module
from ecgfounder.stages.memory import to_prepare, to_read
from ecgfounder.stages.read import Failed, Job, ReadTask

N = 5000


def write_wfdb(folder: Path, n_samples: int, n_files: int = 1) -> Path:
    """A WFDB record of 12 leads in format 16, in one signal file or several."""
    counts = np.random.default_rng(0).integers(-2000, 2000, (n_samples, 12), dtype=np.int16)
    lines = [f"record 12 500 {n_samples}"]
    for number, part in enumerate(np.split(counts, n_files, axis=1)):
        (folder / f"record{number}.dat").write_bytes(np.ascontiguousarray(part).tobytes())
    for row, lead in enumerate(STANDARD_LEADS):
        lines.append(f"record{row * n_files // 12}.dat 16 200(0)/mV 16 0 0 0 0 {lead}")
    (folder / "record.hea").write_text("\n".join(lines) + "\n")
    return folder / "record.hea"


def write_npy(folder: Path, n_samples: int) -> Path:
    np.save(folder / "a.npy", np.random.default_rng(0).standard_normal((12, n_samples), dtype=np.float32))
    return folder / "a.npy"


def asked_for(path: Path, preparation: Preparation | None = None) -> list[int]:
    needs: list[int] = []
    task = ReadTask(preparation or Preparation(), hints=Hints(500.0, "mV", STANDARD_LEADS))
    for event in task.events(Job(0, str(path)), needs.append):
        assert not isinstance(event, Failed), event
    return needs


def test_small_files_ask_for_nothing(tmp_path: Path) -> None:
    assert asked_for(write_wfdb(tmp_path, N)) == asked_for(write_npy(tmp_path, N)) == []


@pytest.mark.parametrize("n_files", [1, 3])
def test_all_signal_files_of_a_large_record_are_asked_for_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_files: int
) -> None:
    monkeypatch.setattr(source_module, "SMALL_BYTES", 2000)
    size = 24 * N
    reading, preparing = asked_for(write_wfdb(tmp_path, N, n_files))
    assert to_read(size, b"", Preparation()) <= reading <= to_read(size + 2000, b"", Preparation())
    assert preparing < reading


def test_packed_files_ask_for_what_they_unpack_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "SMALL_BYTES", 2000)
    packed = tmp_path / "a.npy.gz"
    packed.write_bytes(gzip.compress(write_npy(tmp_path, N).read_bytes()))
    size = packed.stat().st_size
    needs = asked_for(packed)
    assert needs[:2] == [to_read(size, b"", Preparation()), to_read(size + 128 + 48 * N, b"", Preparation())]


def test_a_recording_that_is_larger_than_its_file_asks_before_it_is_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_module, "LARGE_BYTES", 1000)
    assert len(asked_for(write_npy(tmp_path, N))) == 1


def test_windows_take_less_and_filters_and_resampling_more() -> None:
    def need(preparation: Preparation, rate: float = 500.0) -> int:
        samples = np.zeros((12, 1_000_000), np.float32)
        recording = Recording(samples=samples, sampling_rate=rate, leads=STANDARD_LEADS, source_format="npy")
        return to_prepare(recording, 24_000_000, preparation)

    assert need(Preparation(window=10)) < need(Preparation()) < need(Preparation(recipe=FILTERED))
    assert need(Preparation(), 250.0) > 1.5 * need(Preparation())
    whole, filtered = Preparation(), Preparation(recipe=FILTERED)
    assert to_read(10, b"", Preparation(window=10)) < to_read(10, b"", whole) < to_read(10, b"", filtered)


def test_text_and_packed_files_take_more_per_byte() -> None:
    heads = (b"0       X X X X", b"\xef\xbb\xbf<?xml", b"\xff\xfe<\0?\0", b"PK\x03\x04\n", b"I,II\n1,2\n")
    edf, xml, utf16, packed, text = (to_read(10, head, Preparation(window=10)) for head in heads)
    assert edf < xml == utf16 < packed < text


PEAK = """
import re, sys
from pathlib import Path
from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.preprocess.preparation import chosen_preparation
from ecgfounder.readers.source import Hints
from ecgfounder.stages.read import Failed, Job, ReadTask

def peak():
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

small, large, needs = sys.argv[1], sys.argv[2], []
task = ReadTask(chosen_preparation("12lead", None, eval(sys.argv[3])), hints=Hints(500.0, "mV", STANDARD_LEADS))
for path in (small, large):
    before = peak()
    for event in task.events(Job(0, path), needs.append):
        assert not isinstance(event, Failed), event
        del event
print(peak() - before, max(needs))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read from /proc")
@pytest.mark.parametrize("choices", [{}, {"window": 10.0}, {"window": 10.0, "stride": 10.0}, {"recipe": "filtered"}])
@pytest.mark.parametrize("write", [write_wfdb, write_npy])
def test_the_peak_is_not_above_what_was_asked_for(tmp_path: Path, write: Any, choices: dict[str, Any]) -> None:
    (tmp_path / "small").mkdir()
    small, large = write(tmp_path / "small", N), write(tmp_path, 2_000_000)
    found = subprocess.run(
        [sys.executable, "-c", PEAK, str(small), str(large), repr(choices)],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ,
    )
    peak, asked = map(int, found.stdout.split())
    assert asked / 8 < peak < 1.1 * asked
