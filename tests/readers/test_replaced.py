"""A file that is replaced while it is read keeps the identity of what was read, or fails; it never gets the new one's."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecgfounder.ecg.facts import Identity
from ecgfounder.errors import ReadError
from ecgfounder.readers import edf as edf_reader
from ecgfounder.readers import hdf5 as hdf5_reader
from ecgfounder.readers import make_source, read_source
from ecgfounder.readers import source as source_module
from ecgfounder.readers.identity import identity_of
from ecgfounder.readers.source import Hints
from ecgfounder.readers.wfdb import reader as wfdb_reader
from ecgfounder.readers.wfdb import stored as wfdb_stored
from tests.builders.edf import Channel, counts, edf
from tests.builders.wfdb import random_frames, write_record

SAID = Hints(500, "mV", ("I",))


def identity(path: str | Path) -> Identity:
    source = make_source(str(path), SAID)
    read_source(source)
    return identity_of(source)


def replaced_after(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, path: Path) -> None:
    """Another file of the same size takes a path's place once a function of the reader is done."""
    done: Callable[..., Any] = getattr(owner, name)

    def then_replaced(*arguments: Any) -> Any:
        result = done(*arguments)
        other = path.with_name("other")
        other.write_bytes(path.read_bytes()[:-1] + b"\x01")
        os.utime(other, ns=(1, 1))
        other.replace(path)
        return result

    monkeypatch.setattr(owner, name, then_replaced)


def test_signal_files_of_wfdb_are_hashed_as_they_were_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = write_record(tmp_path, random_frames())
    before = identity(header)
    replaced_after(monkeypatch, wfdb_stored, "_verify_checksums", tmp_path / "r.dat")
    assert identity(header) == before


def test_a_header_that_is_replaced_after_it_was_read_is_hashed_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_record(tmp_path, random_frames())
    before = identity(tmp_path / "r.dat")
    replaced_after(monkeypatch, wfdb_reader, "parse_header", tmp_path / "r.hea")
    assert identity(tmp_path / "r.dat") == before


@pytest.mark.parametrize("small", [True, False])
def test_a_file_that_is_read_whole_is_hashed_as_it_was_read(
    small: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.edf"
    path.write_bytes(edf([Channel("I", counts())]))
    if not small:
        monkeypatch.setattr(source_module, "SMALL_BYTES", 10)
    before = identity(path)
    replaced_after(monkeypatch, edf_reader, "_parse_header", path)
    assert identity(path) == before


@pytest.mark.parametrize("member", ["", "::ecg/1"])
@pytest.mark.parametrize("small", [True, False])
def test_what_a_library_reads_is_the_same_file_before_and_after_or_refused(
    member: str, small: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["ecg"] = np.arange(40.0).reshape((2, 20) if member else (40,))
    if not small:
        monkeypatch.setattr(source_module, "SMALL_BYTES", 10)
    before = identity(f"{path}{member}")
    replaced_after(monkeypatch, hdf5_reader, "_find", path)
    if small:
        assert identity(f"{path}{member}") == before
    else:
        with pytest.raises(ReadError, match="changed while it was read"):
            identity(f"{path}{member}")
