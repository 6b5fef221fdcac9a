"""A recording is known by the bytes of all its files."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

from ecgfounder.readers.identity import companions_of, identity_of
from ecgfounder.readers.source import Source
from ecgfounder.storage import locate


def test_the_identity_changes_with_any_file_that_belongs_to_the_recording(tmp_path: Path) -> None:
    header, samples = tmp_path / "r.hea", tmp_path / "r.dat"
    header.write_bytes(b"header")
    samples.write_bytes(b"samples")
    both = Source(locate(header), companions=[locate(samples)])
    before = identity_of(both)
    assert before.size == 13
    assert before.companions == ("*.dat",)
    assert companions_of(Source(locate(header)), before.companions) == [locate(samples)]
    os.utime(samples, ns=(10**18, 2 * 10**18))
    assert identity_of(both) == replace(before, mtime_ns=2 * 10**18)
    samples.write_bytes(b"sampled")
    assert identity_of(both).sha256 != before.sha256
    assert identity_of(Source(locate(header), member="1")).sha256 is None


def test_companions_of_any_name_are_found_again(tmp_path: Path) -> None:
    names = ["r.dat", "r_2.dat", "other.dat", "*.dat", "../up.dat", "r"]
    source = Source(locate(tmp_path / "r.hea"), companions=[locate(tmp_path / name) for name in names])
    for companion in source.companions:
        companion.path.write_bytes(b"samples")
    named = identity_of(source).companions
    assert named == ("*.dat", "*_2.dat", "other.dat", "./*.dat", "../up.dat", "*")
    found = companions_of(source, named)
    assert [each.path.resolve() for each in found] == [each.path.resolve() for each in source.companions]


def test_the_identity_is_of_the_bytes_that_were_read(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(b"before")
    source = Source(locate(path))
    assert source.content == b"before"
    path.write_bytes(b"and after")
    found = identity_of(source)
    assert found.size == 6
    assert found.sha256 == hashlib.sha256(hashlib.sha256(b"before").digest()).hexdigest()
