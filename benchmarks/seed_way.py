"""The baseline: a straightforward script for the same job with public libraries.

In: a request as JSON. Out: one indented JSON per ECG, and a line of JSON with seconds. `sierraecg` reads, a `DataLoader` with
workers makes batches, the network runs in eager PyTorch on all cores, `json.dump(indent=2)` writes.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sierraecg import read_file
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset


class EcgFiles(Dataset[tuple[str, torch.Tensor]]):
    """Paths to z-scored tensors [n_leads, n_samples]."""

    def __init__(self, paths: list[str]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[str, torch.Tensor]:
        return self.paths[index], torch.from_numpy(read(self.paths[index]))


def read(path: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    """One file, z-scored over all leads and samples: float32 [n_leads, n_samples]."""
    samples = np.stack([lead.samples for lead in read_file(path).leads]).astype(np.float64)
    return ((samples - samples.mean()) / (samples.std() + 1e-8)).astype(np.float32)


def collate(batch: list[tuple[str, torch.Tensor]]) -> tuple[list[str], torch.Tensor]:
    """Pad to the longest of the batch."""
    padded = pad_sequence([signal.T for _, signal in batch], batch_first=True).transpose(1, 2)
    return [path for path, _ in batch], padded


def write(output_dir: Path, path: str, embedding: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    document = {
        "embedding": embedding.tolist(),
        "shape": list(embedding.shape),
        "description": f"ECG embedding extracted from {Path(path).name} using ECGFounder",
        "modality": "ecg",
    }
    with open(output_dir / f"{Path(path).stem}.json", "w") as file:
        json.dump(document, file, indent=2)


def load(checkpoint: str) -> Any:
    """The network in eager mode, with the same arithmetic as the published one."""
    from ecgfounder.network.checkpoint import build_network, load_backbone

    return build_network(load_backbone(Path(checkpoint), "12lead")[0], "12lead", 1).eval()


def main(request: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(request["threads"])
    warnings.filterwarnings("ignore", message="This DataLoader will create 4 worker processes")
    output_dir = Path(request["output_dir"])
    output_dir.mkdir(parents=True, exist_ok=True)
    net = load(request["checkpoint"])
    loader = DataLoader(EcgFiles(request["paths"]), batch_size=8, num_workers=4, collate_fn=collate)
    began = time.perf_counter()
    with torch.no_grad():
        for paths, signals in loader:
            for path, each in zip(paths, net.feature_map(signals).numpy(), strict=True):
                write(output_dir, path, each)
    return {"records": len(request["paths"]), "seconds": time.perf_counter() - began}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
