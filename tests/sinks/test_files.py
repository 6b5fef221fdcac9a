"""A file per ECG: the four keys that trainers read, the same float32 again, and trouble with one name that stays there."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ecgfounder.sinks.json import JsonSink, document
from ecgfounder.sinks.npy import NpySink
from ecgfounder.sinks.sink import Output, Written, unwritable


def output(name: str, value: float = 1.0, **more: Any) -> Output:
    embeddings = more.pop("embeddings", (np.full((3, 4), value, dtype=np.float32),))
    return Output("0" * 16, "a.npy", "a.npy", name, embeddings, **more)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    out, scratch = tmp_path / "out", tmp_path / "scratch"
    out.mkdir()
    scratch.mkdir()
    return out, scratch


def test_a_json_has_four_keys_in_their_order() -> None:
    embedding = np.array([[0.1, -2.0], [3e-8, 12345.5]], dtype=np.float32)
    assert document(embedding, "a b.xml") == (
        b'{"embedding":[[0.1,-2.0],[3e-8,12345.5]],"shape":[2,2],'
        b'"description":"ECG embedding extracted from a b.xml using ECGFounder","modality":"ecg"}'
    )


def test_a_name_that_is_not_utf8_is_written_out() -> None:
    title = os.fsdecode(b"caf\xe9.xml")
    assert "caf\\xe9.xml" in orjson.loads(document(np.zeros((1, 1), np.float32), title))["description"]


@given(hnp.arrays(np.float32, (2, 3), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_numbers_read_back_are_the_same_float32(embedding: np.ndarray) -> None:
    read = np.array(orjson.loads(document(embedding, "a"))["embedding"], dtype=np.float64).astype(np.float32)
    assert np.array_equal(read, embedding)
    turned = orjson.loads(document(embedding.T, "a"))  # not contiguous
    assert (turned["shape"], np.array_equal(np.float32(turned["embedding"]), embedding.T)) == ([3, 2], True)


def test_windows_and_leads_stand_in_front(folders: tuple[Path, Path]) -> None:
    views = tuple(np.full((3, 4), number, dtype=np.float32) for number in range(6))
    given_ = output("a", embeddings=views, outer_shape=(2, 3))
    expected = np.stack(views).reshape(2, 3, 3, 4)
    assert orjson.loads(JsonSink.encode(given_))["shape"] == [2, 3, 3, 4]
    assert given_.nbytes == expected.nbytes
    NpySink(*folders).write([given_])
    found = np.load(folders[0] / "a", allow_pickle=False)
    assert found.dtype == np.float32
    assert np.array_equal(found, expected)


def test_files_come_in_their_folders_and_nothing_is_left_aside(folders: tuple[Path, Path]) -> None:
    sink = JsonSink(*folders)
    names = ["a.json", "b/a.json", "b/c/a.json"]
    written = sink.write([output(name, number) for number, name in enumerate(names)])
    assert [(each.reference, each.error, each.shard) for each in written if isinstance(each, Written)] == [
        (name, None, None) for name in names
    ]
    for number, name in enumerate(names):
        assert (folders[0] / name).read_bytes() == JsonSink.encode(output(name, number))
    assert list(folders[1].iterdir()) == []
    assert sink.close() == []
    sink.write([output("a.json", 7.0)])  # takes the place of the one before
    assert (folders[0] / "a.json").read_bytes() == JsonSink.encode(output("a.json", 7.0))


def test_two_sinks_that_share_a_scratch_folder_do_not_share_its_files(folders: tuple[Path, Path]) -> None:
    one, other = JsonSink(*folders), JsonSink(*folders)
    asides = [sink._aside(Path("a")) for sink in (one, one, other, other)]
    assert len(set(asides)) == 4
    assert {aside.parent for aside in asides} == {folders[1]}


def test_a_name_that_this_file_system_cannot_hold_concerns_its_output_alone(folders: tuple[Path, Path]) -> None:
    (folders[0] / "folder.json").mkdir()
    (folders[0] / "file").write_text("mine")
    names = ["x" * 300, "folder.json", "file/below.json", "good.json"]
    written = JsonSink(*folders).write([output(name) for name in names])
    assert [isinstance(each, Written) and each.error for each in written] == [
        f"the output {'x' * 300} cannot be written: File name too long",
        "the output folder.json cannot be written: Is a directory",
        "the output file/below.json cannot be written: Not a directory",
        None,
    ]
    assert (folders[0] / "file").read_text() == "mine"
    assert list(folders[1].iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ENOENT, errno.EACCES])
def test_trouble_with_the_folder_ends_the_run(number: int) -> None:
    error = OSError(number, os.strerror(number))
    with pytest.raises(OSError) as raised:
        unwritable(output("a"), error)
    assert raised.value is error
