"""How much memory a job may use: the machine's, or what its control groups allow; and memory for weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ecgfounder.machine import own_memory, usable_memory


def put(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("groups", "limits", "expected"),
    [
        ("0::/a/b", {"sys/fs/cgroup/a/b/memory.max": "4096"}, 4096),
        ("0::/a/b", {"sys/fs/cgroup/a/b/memory.max": "max", "sys/fs/cgroup/a/memory.max": "8192"}, 8192),
        ("0::/a/b", {"sys/fs/cgroup/a/b/memory.max": "9999", "sys/fs/cgroup/memory.max": "8192"}, 8192),
        ("0::/the/host/has/it", {"sys/fs/cgroup/memory.max": "8192"}, 8192),
        (
            "12:cpu,cpuacct:/a\n7:memory:/a\n0::/",
            {
                "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "4096",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9" * 18,
            },
            4096,
        ),
        ("0::/a", {"sys/fs/cgroup/a/memory.max": "nonsense"}, None),
        ("0::/a", {}, None),
    ],
)
def test_the_smallest_limit_holds(tmp_path: Path, groups: str, limits: dict[str, str], expected: int | None) -> None:
    put(tmp_path, "proc/self/cgroup", f"{groups}\n")
    for name, text in limits.items():
        put(tmp_path, name, f"{text}\n")
    assert usable_memory(tmp_path) == (usable_memory(tmp_path / "nothing") if expected is None else expected)


def test_without_limits_it_is_the_machines(tmp_path: Path) -> None:
    assert 1 << 28 < usable_memory() <= usable_memory(tmp_path)


@pytest.mark.parametrize("populate", [True, False])
def test_memory_for_weights_is_private_zero_and_writable(populate: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not populate:  # as on another system
        monkeypatch.delattr("mmap.MAP_POPULATE", raising=False)
    numbers = np.frombuffer(own_memory(4 * 5000), np.float32)
    assert numbers.size == 5000
    assert not numbers.any()
    numbers[:] = 7
    assert (numbers == 7).all()
