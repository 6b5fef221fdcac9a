"""What several test modules need: the folder of reference material, and checkpoints of the official layout."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    import torch

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real recordings and golden figures, which is not part of the repository."""
    if not SHARED.is_dir():
        pytest.skip(f"the reference material is not here ({SHARED})")
    return SHARED


def drawn_tensor(name: str, shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """The weight that the golden figures were computed with: a function of its name and a seed alone."""
    import torch  # not above: most test modules need none of it

    if name.endswith("num_batches_tracked"):
        return torch.tensor(1234)
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    if ".bn" in name or name.startswith("first_bn"):
        uniform = name.endswith((".weight", ".running_var"))
        values = rng.uniform(0.5, 2.0, shape) if uniform else rng.standard_normal(shape)
    elif name.endswith(".bias"):
        values = rng.standard_normal(shape) * 0.1
    else:
        values = rng.standard_normal(shape) * np.sqrt(2.0 / np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def drawn_state(mode: str) -> dict[str, torch.Tensor]:
    """Every entry of a published checkpoint, drawn."""
    from ecgfounder.model import checkpoint_layout

    return {name: drawn_tensor(name, shape) for name, shape in checkpoint_layout(mode).items()}


def _checkpoint(tmp_path_factory: pytest.TempPathFactory, mode: str, filename: str) -> Path:
    import torch

    path = tmp_path_factory.mktemp("checkpoint") / filename
    torch.save({"state_dict": drawn_state(mode)}, path)
    return path


@pytest.fixture(scope="session")
def checkpoint_12lead(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 12-lead checkpoint of the official layout with the golden figures' weights; not to be changed."""
    return _checkpoint(tmp_path_factory, "12lead", "12_lead_ECGFounder.pth")


@pytest.fixture(scope="session")
def checkpoint_1lead(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for one lead."""
    return _checkpoint(tmp_path_factory, "1lead", "1_lead_ECGFounder.pth")


@pytest.fixture(scope="session")
def graph_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that the whole test session shares, so that a graph is built once."""
    return tmp_path_factory.mktemp("graphs")


@pytest.fixture(autouse=True)
def _own_cache(graph_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's own cache."""
    monkeypatch.setenv("ECGFOUNDER_CACHE", str(graph_cache))
