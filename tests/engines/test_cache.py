"""What engines keep is found again, built again where it is damaged or another user's, done without where it cannot be kept."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

import ecgfounder.engines.onnx as onnx_engine
from ecgfounder.engines import create_engine
from ecgfounder.engines.cache import from_cache, why_untrusted
from ecgfounder.errors import CheckpointError
from ecgfounder.machine import cache_folder
from ecgfounder.network.bundles import FEATURES
from ecgfounder.network.checkpoint import sha256_of
from tests.builders.engines import MADE, made, needs_native, signals
from tests.builders.weights import overlapping_state

pytest.importorskip("onnxruntime", reason="the extra [cpu] is not installed")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("ECGFOUNDER_CACHE", str(folder))
    return folder


@pytest.fixture(scope="module")
def written_cache(checkpoint_1lead: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with what the engines keep of the 1-lead checkpoint; not to be changed."""
    folder = tmp_path_factory.mktemp("written") / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ECGFOUNDER_CACHE", str(folder))
        for name in MADE[1:]:
            made(checkpoint_1lead, name).close()
    return folder


@pytest.fixture
def filled_cache(written_cache: Path, own_cache: Path) -> Path:
    """A cache of the test's own in which the graph is already."""
    shutil.copytree(written_cache, own_cache)
    return own_cache


@pytest.mark.parametrize("name", ["onnx", pytest.param("native", marks=needs_native)])
def test_with_a_filled_cache_neither_torch_nor_the_checkpoint_is_loaded(
    checkpoint_1lead: Path, filled_cache: Path, name: str
) -> None:
    expected = made(checkpoint_1lead, name).embed(signals(2, 600, channels=1))
    code = (
        "import sys, numpy as np; from pathlib import Path; from ecgfounder.engines import create_engine\n"
        f"engine = create_engine({name!r}, mode='1lead', checkpoint=Path({str(checkpoint_1lead)!r}))\n"
        "assert 'torch' not in sys.modules and 'onnx' not in sys.modules and engine.head.n_classes == 150\n"
        "x = np.random.default_rng([0, 600]).standard_normal((2, 1, 600)).astype(np.float32)\n"
        f"np.save({str(filled_cache / 'found.npy')!r}, engine.embed(x))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"ECGFOUNDER_CACHE": str(filled_cache)})
    assert np.array_equal(np.load(filled_cache / "found.npy"), expected)


def entry_of(cache: Path, name: str) -> Path:
    """The entry of an engine."""
    (entry,) = cache.glob("*-packed-v*.entry" if name == "native" else "*-1lead-v*.entry")
    return entry


def resealed(data: bytes) -> bytes:
    """An entry's bytes after a change, with the digest that they have now."""
    return hashlib.sha256(data[64:]).hexdigest().encode() + data[64:]


def of_another_key(data: bytes) -> bytes:
    return resealed(data.replace(b'{"key": "', b'{"key": "0', 1).replace(b"} ", b"}", 1))


def one_weight_less(data: bytes) -> bytes:
    """A native entry whose digest is right and whose weights are too few."""
    header = json.loads(data[64:4096])
    header["parts"]["backbone"] -= 4
    return resealed(data[:64] + json.dumps(header).encode().ljust(4032) + data[4096:])


def another_graph(data: bytes) -> bytes:
    header = json.loads(data[64:4096])
    header["parts"] = {"graph": 64}
    return resealed(data[:64] + json.dumps(header).encode().ljust(4032) + bytes(64))


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda data: data[: len(data) // 2],
    "cut in the header": lambda data: data[:100],
    "empty": lambda _data: b"",
    "a weight flipped": lambda data: data[:-1000] + bytes([data[-1000] ^ 64]) + data[-999:],
    "the header flipped": lambda data: data[:80] + bytes([data[80] ^ 1]) + data[81:],
    "of another checkpoint": of_another_key,
    "no header": lambda data: resealed(data[:64] + b"[" + data[65:]),
    "no parts": lambda data: resealed(data[:64] + b"{}".ljust(4032) + data[4096:]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_built_again(own_cache: Path, damage: str) -> None:
    assert kept_number(own_cache, 1) == 1
    (entry,) = own_cache.iterdir()
    whole = entry.read_bytes()
    entry.write_bytes(DAMAGES[damage](whole))
    assert kept_number(own_cache, 2) == 2
    assert [each.name for each in own_cache.iterdir()] == [entry.name]
    assert kept_number(own_cache, 3) == 2


def kept_number(_cache: Path, number: int) -> int:
    """The number in the entry "key"; if it has to be built, it holds the number that is given."""
    parts = {"number": np.full(1000, number, np.int64), "else": np.zeros(3, np.uint8)}
    return from_cache("key", build=lambda: parts, load=lambda parts: int(parts["number"].view(np.int64)[999]))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        pytest.param("native", one_weight_less, marks=needs_native),
        pytest.param("native", another_graph, marks=[needs_native, pytest.mark.slow]),
        ("onnx", another_graph),
    ],
)
def test_weights_of_a_wrong_size_are_noticed_at_the_start(
    checkpoint_1lead: Path, filled_cache: Path, name: str, change: Callable[[bytes], bytes]
) -> None:
    batch = signals(2, 300, channels=1)
    expected = made(checkpoint_1lead, name).embed(batch)
    entry = entry_of(filled_cache, name)
    data = entry.read_bytes()
    entry.write_bytes(change(data))
    assert np.array_equal(made(checkpoint_1lead, name).embed(batch), expected)
    assert entry.read_bytes() == data


@needs_native
def test_an_entry_that_is_truncated_while_it_is_used_harms_no_process(
    checkpoint_1lead: Path, filled_cache: Path
) -> None:
    engine = made(checkpoint_1lead, "native")
    batch = signals(1, 300, channels=1)
    expected = engine.embed(batch)
    os.truncate(entry_of(filled_cache, "native"), 0)
    assert np.array_equal(engine.embed(batch), expected)


def put_fifo(entry: Path) -> None:
    os.mkfifo(entry, 0o600)


def put_link(entry: Path) -> None:
    entry.symlink_to(entry.with_name("elsewhere"))


def put_device_link(entry: Path) -> None:
    entry.symlink_to("/dev/zero")


def put_sparse_file(entry: Path) -> None:
    with entry.open("wb") as file:
        os.truncate(file.fileno(), 1 << 40)


@pytest.mark.parametrize("put", [put_fifo, put_link, put_device_link, put_sparse_file])
def test_what_is_no_entry_is_replaced(own_cache: Path, put: Callable[[Path], None]) -> None:
    kept_number(own_cache, 1)
    (entry,) = own_cache.iterdir()
    whole = entry.rename(own_cache / "elsewhere").read_bytes()
    put(entry)
    assert kept_number(own_cache, 2) == 2
    assert not entry.is_symlink()
    assert kept_number(own_cache, 3) == 2
    assert (own_cache / "elsewhere").read_bytes() == whole


def test_a_folder_in_an_entrys_place_is_kept_and_done_without(
    own_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept_number(own_cache, 1)
    (entry,) = own_cache.iterdir()
    entry.unlink()
    (entry / "inside").mkdir(parents=True)
    assert kept_number(own_cache, 2) == 2
    assert "built again at every start" in caplog.text
    assert [each.name for each in own_cache.iterdir()] == [entry.name]


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o077])
def test_only_this_user_can_write_to_the_cache_that_is_made(own_cache: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        kept_number(own_cache, 1)
    finally:
        os.umask(before)
    (entry,) = own_cache.iterdir()
    assert own_cache.stat().st_mode & 0o077 == 0
    assert entry.stat().st_mode & 0o133 == 0
    assert kept_number(own_cache, 2) == 1


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_an_entry_that_others_may_write_to_is_built_again(
    own_cache: Path, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    kept_number(own_cache, 1)
    (entry,) = own_cache.iterdir()
    entry.chmod(mode)
    assert kept_number(own_cache, 2) == 2
    assert f"others may write to it (mode {mode:o})" in caplog.text
    assert kept_number(own_cache, 3) == 2


def test_a_folder_that_others_may_write_to_is_done_without(own_cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept_number(own_cache, 1)
    own_cache.chmod(0o777)
    assert kept_number(own_cache, 2) == 2
    assert "others may write to it (mode 777)" in caplog.text
    own_cache.chmod(0o755)
    assert kept_number(own_cache, 3) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("whose", ["entry", "folder"])
def test_what_belongs_to_another_user_is_not_trusted(
    own_cache: Path, whose: str, caplog: pytest.LogCaptureFixture
) -> None:
    kept_number(own_cache, 1)
    (entry,) = own_cache.iterdir()
    os.chown({"entry": entry, "folder": own_cache}[whose], 12345, -1)
    assert kept_number(own_cache, 2) == 2
    assert "it belongs to user 12345" in caplog.text
    if whose == "entry":
        assert entry.stat().st_uid == os.geteuid()
    else:
        assert kept_number(own_cache, 3) == 3


def test_who_may_have_written_is_this_user_or_root(monkeypatch: pytest.MonkeyPatch) -> None:
    def status(uid: int, mode: int = 0o100644) -> os.stat_result:
        return os.stat_result((mode, 1, 1, 1, uid, 0, 10, 0, 0, 0))

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert why_untrusted(status(1000)) is None
    assert why_untrusted(status(0)) is None
    assert why_untrusted(status(1001)) == "it belongs to user 1001"
    assert why_untrusted(status(1000, 0o100664)) == "others may write to it (mode 664): chmod go-w"


def test_an_entry_that_is_swapped_after_its_check_is_not_read(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept_number(own_cache, 1)
    (entry,) = own_cache.iterdir()
    real = os.fstat

    def swapping(opened: int) -> os.stat_result:
        status = real(opened)
        if stat.S_ISREG(status.st_mode):
            entry.unlink(missing_ok=True)
            put_fifo(entry)
        return status

    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", swapping)
        assert kept_number(own_cache, 2) == 1


def test_a_cache_that_cannot_be_written_is_done_without(
    checkpoint_1lead: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("ECGFOUNDER_CACHE", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        engine = made(checkpoint_1lead)
    assert engine.embed(signals(1, 300, channels=1)).shape == (1, 2, FEATURES)
    assert "built again at every start" in caplog.text


def test_where_nothing_can_be_written_memory_is_enough(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fchmod", full)
    assert kept_number(own_cache, 1) == 1
    assert "No space left on device" in caplog.text
    assert list(own_cache.iterdir()) == []


def test_two_that_build_the_same_graph_at_once_do_not_disturb_each_other(
    checkpoint_1lead: Path, own_cache: Path
) -> None:
    with ThreadPoolExecutor(max_workers=2) as pool:
        first, second = pool.map(made, [checkpoint_1lead] * 2)
    batch = signals(1, 300, channels=1)
    assert np.array_equal(first.embed(batch), second.embed(batch))
    assert len(list(own_cache.iterdir())) == 1


def test_another_checkpoint_has_another_graph(checkpoint_1lead: Path, tmp_path: Path, filled_cache: Path) -> None:
    torch.save(overlapping_state("1lead"), tmp_path / "other.pth")
    batch = signals(1, 300, channels=1)
    assert not np.array_equal(made(checkpoint_1lead).embed(batch), made(tmp_path / "other.pth").embed(batch))
    assert len(list(filled_cache.glob("*-1lead-v*.entry"))) == 2


def test_a_wrong_checkpoint_leaves_nothing_in_the_cache(checkpoint_12lead: Path, own_cache: Path) -> None:
    with pytest.raises(CheckpointError, match="for 12 leads"):
        made(checkpoint_12lead)
    assert list(own_cache.iterdir()) == []


def test_a_known_digest_is_not_computed_again(
    checkpoint_1lead: Path, filled_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = sha256_of(checkpoint_1lead)
    hashed: list[Path] = []
    monkeypatch.setattr(onnx_engine, "sha256_of", lambda path: hashed.append(Path(path)) or sha256_of(path))
    create_engine("onnx", mode="1lead", checkpoint=checkpoint_1lead, checkpoint_sha256=digest)
    assert checkpoint_1lead not in hashed


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ECGFOUNDER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "ecgfounder"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_folder() == Path("/home/someone/.cache/ecgfounder")
