"""Outputs for Parquet shards, the sink that writes them, and what is in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ecgfounder.ecg.facts import Facts
from ecgfounder.sinks.parquet import ParquetSink
from ecgfounder.sinks.sink import Output

C = 8


def output_of(number: int, views: list[npt.NDArray[np.float32]] | None = None, **more: Any) -> Output:
    facts: dict[str, Any] = {
        "format": "wfdb",
        "sampling_rate": 500.0,
        "n_samples": 5000,
        "leads": ("I", "II"),
        "flags": ("resampled:1000",) if number % 2 else (),
        "starts": (0.0,),
    }
    facts |= {name: tuple(more.pop(name)) for name in ("starts", "leads") if name in more}
    given: dict[str, Any] = {"record": f"a/{number}.xml", "order": number} | more
    return Output(
        key=f"{number:016x}",
        title=f"{number}.xml",
        name="",
        embeddings=tuple(views or [map_of(number)]),
        facts=Facts(**facts),
        **given,
    )


def map_of(number: int, tokens: int = 3) -> npt.NDArray[np.float32]:
    return np.random.default_rng(number).standard_normal((tokens, C)).astype(np.float32)


def sink_of(folder: Path, **options: Any) -> ParquetSink:
    return ParquetSink(folder, folder.parent / "scratch", **{"prefix": "p", **options})


def read(folder: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(shard) for shard in sorted(folder.glob("*.parquet"))])


def embeddings(table: pa.Table) -> list[npt.NDArray[np.float32]]:
    return [np.array(each, np.float32) for each in table["embedding"].to_pylist()]
