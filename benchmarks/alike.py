"""Runs of any size without a network, and searches in them: neighbours and duplicates.

In: a folder and a number of recordings; or, as `python -m benchmarks.alike REQUEST`, a search as JSON. Out: a run of synthetic
embeddings, float16 [1024] in Parquet, of patients with four recordings, in which one recording in a hundred is nearly that of
another patient; or a line of JSON: seconds, memory, and what was found.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.child import _peak_mib
from benchmarks.measure import Facts, run_child, spread

LENGTH, LATENT, SHARD, PER_PATIENT = 1024, 96, 1000, 4
COPIES = 100  # one recording in so many is a copy of another patient's
_NOISE = 0.05
_LARGEST_BULK = 200_000


def write_run(folder: Path, n: int) -> Path:
    """A run of `n` recordings; it is made once and reused."""
    import pyarrow as pa

    from ecgfounder.ledger.record import CohortSettings, RunRecord

    run = folder / f"alike_{n}"
    if (run / "_run" / "manifest.pq").exists():
        return run
    rng = np.random.default_rng(0)
    mixture = rng.standard_normal((LATENT, LENGTH)).astype(np.float32) / np.sqrt(LATENT)
    latent = _latent(n, rng)

    def vectors() -> Iterator[npt.NDArray[np.float32]]:
        for first in range(0, n, SHARD):
            part = latent[first : first + SHARD]
            yield part @ mixture + _NOISE * rng.standard_normal((len(part), LENGTH), dtype=np.float32) + 3

    columns: dict[str, Any] = {
        "record": [f"p{number // PER_PATIENT:07d}/{number:08d}.xml" for number in range(n)],
        "format": ["philips_sierra"] * n,
        "shape": pa.array([[LENGTH]] * n, pa.list_(pa.int32())),
        "leads": pa.array([["I"]] * n, pa.list_(pa.string())),
        "window_starts": pa.array([[0.0]] * n, pa.list_(pa.float64())),
        "input_sha256": [f"{number:064x}" for number in range(n)],
    }
    kept = {
        "patient": pa.array(np.arange(n) // PER_PATIENT),
        "part": pa.array(np.arange(n) // PER_PATIENT % 5 == 0).cast(pa.string()),
    }
    fingerprint = {
        "preparation": {
            "mode": "12lead",
            "recipe": {"name": "zscore", "version": "1"},
            "stride": None,
            "remainder": None,
            "lead": None,
        },
        "pooling": "mean",
        "dtype": "float16",
        "format": "parquet",
        "layout": "flat",
        "id_column": None,
        "predictions": False,
        "statements": False,
        "checkpoint_sha256": "0" * 64,
    }
    told = CohortSettings(dataset="synthetic", data_dir="/synthetic")
    record = RunRecord(outcome="complete", fingerprint=fingerprint, settings=told, run_id="alike", format_version=2)
    store_run(run, vectors(), columns, kept, record)
    return run


def store_run(
    run: Path,
    vectors: Iterable[npt.NDArray[np.float32]],
    columns: dict[str, Any],
    kept: dict[str, Any],
    record: Any,
) -> None:
    """Write a run of vectors, a shard for each array; a folder without a manifest is what an earlier call left.

    `columns` are those of the manifest with a value for each vector, without row_index, status and output; `kept` are columns
    of the cohort's table; `record` is the `RunRecord`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from ecgfounder.ledger.folder import RunFolder
    from ecgfounder.ledger.manifest import SCHEMA
    from ecgfounder.sinks.parquet import write_table

    shutil.rmtree(run, ignore_errors=True)
    (run / "_run").mkdir(parents=True)
    outputs: list[str] = []
    for shard, part in enumerate(vectors):
        keys = [f"{number:016x}" for number in range(len(outputs), len(outputs) + len(part))]
        offsets = pa.array(np.arange(len(part) + 1, dtype=np.int32) * part.shape[1])
        stored = pa.ListArray.from_arrays(offsets, pa.array(part.astype(np.float16).reshape(-1)))
        name = f"embeddings-{1:020d}-shard1of1-rank0of1-{shard:06d}.parquet"
        with open(run / name, "wb") as file:
            write_table(pa.table({"key": keys, "embedding": stored}), file)
        outputs += [f"{name}::{key}" for key in keys]
    n = len(outputs)
    columns = {**columns, "row_index": np.arange(n), "status": ["done"] * n, "output": outputs}
    arrays = [
        pa.array(columns[field.name], field.type) if field.name in columns else pa.nulls(n, field.type)
        for field in SCHEMA
    ]
    table = pa.table(arrays, schema=SCHEMA)
    for name, values in kept.items():
        table = table.append_column(name, values)
    pq.write_table(table, run / "_run" / "manifest.pq.part")
    RunFolder(run).write(record)
    (run / "_run" / "manifest.pq.part").replace(run / "_run" / "manifest.pq")


def copy_of(number: int, n: int) -> int:
    """The recording, of another patient, of which a recording is nearly a copy."""
    return (number + n // 2) % n


def _latent(n: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Few directions with most of the spread; a patient's recordings have half of it in common."""
    scales = (1.5 / np.sqrt(np.arange(1, LATENT + 1))).astype(np.float32)
    patients = rng.standard_normal((-(-n // PER_PATIENT), LATENT), dtype=np.float32)
    latent = np.sqrt(0.5) * (
        np.repeat(patients, PER_PATIENT, axis=0)[:n] + rng.standard_normal((n, LATENT), dtype=np.float32)
    )
    latent *= scales * 4
    for number in range(0, n // 2, COPIES):
        latent[copy_of(number, n)] = latent[number]
    return latent


def alike(folder: Path, environment: dict[str, str], sizes: tuple[int, ...], rounds: int) -> Facts:
    """Searches in runs of several sizes, each in a process of its own."""
    rows = []
    for n in sizes:
        run = write_run(folder, n)
        shutil.rmtree(Path(environment["ECGFOUNDER_CACHE"]) / "neighbours", ignore_errors=True)
        for what in ("query", "build", "indexed", "bulk", "duplicates"):
            if what == "bulk" and n > _LARGEST_BULK:
                continue
            times = rounds if what in ("query", "indexed") else 1
            found = [
                run_child("benchmarks.alike", {"run": str(run), "what": what}, environment=environment)
                for _ in range(times)
            ]
            rows.append(
                {
                    "recordings": n,
                    "what": what,
                    "seconds": spread(child.report["seconds"] for child in found),
                    "core_seconds": spread(child.report["core_seconds"] for child in found),
                    "memory_mib": spread(child.report["memory_mib"] for child in found),
                    "found": found[-1].report["found"],
                }
            )
        shutil.rmtree(Path(environment["ECGFOUNDER_CACHE"]) / "neighbours", ignore_errors=True)
        if n > _LARGEST_BULK:
            shutil.rmtree(run)
    return {"rows": rows}


def search(request: Facts) -> Facts:
    """One search: "query", "build", "indexed", "bulk" or "duplicates"; the run is opened before the clock starts."""
    import torch  # noqa: F401 - not part of a search

    from ecgfounder import open_run
    from ecgfounder.analysis import duplicates, neighbours

    run = open_run(request["run"])
    names = run.records["record"].slice(run.records.num_rows // 3, 1).to_pylist()
    what = request["what"]
    began, cpu = time.perf_counter(), time.process_time()
    if what == "duplicates":
        result = duplicates(run, group="patient", split=("part",), signals=False)
        named = sum(result.n_of.values())
        found = f"threshold {result.threshold:.4f}, {named:,} pairs, {_recall(result):.4f} of the copies"
    else:
        index = {"query": False, "build": True, "indexed": True, "bulk": True}[what]
        near = neighbours(run, None if what == "bulk" else names, k=10, index=index)
        found = near.how
    return {
        "seconds": time.perf_counter() - began,
        "core_seconds": time.process_time() - cpu,
        "memory_mib": _peak_mib(os.getpid()),
        "found": found,
    }


def _recall(found: Any) -> float:
    """The share of the planted copies that are among the pairs."""
    n = found.counts["used"]
    names = [f"p{number // PER_PATIENT:07d}/{number:08d}.xml" for number in range(n)]
    pairs = {
        frozenset(pair)
        for pair in zip(*(found.pairs[name].to_pylist() for name in ("record_a", "record_b")), strict=True)
    }
    planted = [frozenset((names[number], names[copy_of(number, n)])) for number in range(0, n // 2, COPIES)]
    return float(np.mean([pair in pairs for pair in planted]))


if __name__ == "__main__":
    print(json.dumps(search(json.loads(sys.argv[1]))))
