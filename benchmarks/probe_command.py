"""`ecgfounder probe` as a whole, with its default controls: `python -m benchmarks.probe_command --folder DIR`.

In: a folder, and numbers of recordings and labels. Out: a run of synthetic embeddings, the files of the recordings that the
controls read, the command's results, and a line of JSON: seconds of processor time of all its processes, wall time, memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import inputs
from benchmarks.alike import SHARD, store_run
from benchmarks.probe import DIRECTIONS, PER_PATIENT


def write_run(folder: Path, n: int, width: int, n_labels: int) -> Path:
    """A run of `n` recordings of 10 s, of which those in the sample of the controls have a file; made once and reused."""
    import pyarrow as pa

    from ecgfounder.embedding import embed_cohort
    from ecgfounder.readers import make_source, read_source
    from ecgfounder.readers.identity import identity_of
    from ecgfounder.readers.source import Hints

    run = folder / f"probed_{n}"
    if (run / "_run" / "manifest.pq").exists():
        return run
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(n), rng.choice(PER_PATIENT, n))[:n]
    sample = _sample(patients)
    files = inputs.write_wfdb_cohort(folder, len(sample))
    names = [f"absent/{number:06d}.hea" for number in range(n)]
    hashes: list[str | None] = [None] * n
    for number, row in enumerate(sample):
        names[row] = f"ecg_{number:06d}.hea"
        source = make_source(str(files / names[row]), Hints())
        read_source(source)
        hashes[row] = identity_of(source).sha256
    few = embed_cohort(
        [f"ecg_{number:06d}.hea" for number in range(8)],
        folder / "few",
        checkpoint="random:0",
        data_dir=files,
        format="parquet",
        pooling="mean",
        dtype="float16",
        progress=False,
    )
    known = rng.standard_normal((n, DIRECTIONS)).astype(np.float32)
    mixture = rng.standard_normal((DIRECTIONS, width)).astype(np.float32)
    risk = known @ rng.standard_normal((DIRECTIONS, n_labels)) / np.sqrt(DIRECTIONS)
    Y = 2 * risk + rng.logistic(size=risk.shape) > rng.uniform(1, 4, n_labels)

    def vectors() -> Iterator[npt.NDArray[np.float32]]:
        for first in range(0, n, SHARD):
            part = known[first : first + SHARD] @ mixture
            yield part + 0.3 * rng.standard_normal(part.shape, dtype=np.float32)

    told = few.run.records.slice(0, 1).to_pylist()[0]
    same = ("format", "sampling_rate", "n_samples", "leads", "shape", "window_starts", "flags")
    columns: dict[str, Any] = {name: [told[name]] * n for name in same}
    columns |= {"record": names, "input_sha256": hashes, "seconds_read": [told["seconds_read"]] * n}
    kept = {"patient": pa.array([f"P{number:07d}" for number in patients])}  # in the order of the numbers
    kept |= {f"label {number}": pa.array(Y[:, number]) for number in range(n_labels)}
    store_run(run, vectors(), columns, kept, few.run.record)
    shutil.rmtree(folder / "few")
    return run


def _sample(patients: npt.NDArray[np.int64]) -> list[int]:
    from ecgfounder.analysis.probing.controls import SAMPLE, sample_of_patients

    rows: list[int] = sample_of_patients(patients, SAMPLE, 0).tolist()
    return rows


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.probe_command", description=__doc__)
    parser.add_argument("--recordings", type=int, default=200_000, help="recordings (default: %(default)s)")
    parser.add_argument("--labels", type=int, default=10, help="labels (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("build/benchmarks"), help="inputs and outputs")
    parser.add_argument("flags", nargs="*", help="further flags of the command, after --")
    chosen = parser.parse_args(arguments)
    folder = chosen.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    run = write_run(folder, chosen.recordings, 1024, chosen.labels)
    results = folder / "probe_results"
    shutil.rmtree(results, ignore_errors=True)
    program = [sys.executable, "-c", "import sys; from ecgfounder.cli import main; sys.exit(main())"]
    words = [*program, "probe", str(run), "--group", "patient", "--output_dir", str(results)]
    words += [word for number in range(chosen.labels) for word in ("--label", f"label {number}")]
    before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([*words, *chosen.flags], check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    facts = {
        "status": done.returncode,
        "recordings": chosen.recordings,
        "labels": chosen.labels,
        "cpu_seconds": round(seconds, 1),
        "wall_seconds": round(time.perf_counter() - wall, 1),
        "memory_mib": round(after.ru_maxrss / 1024),
    }
    print(json.dumps(facts))
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
