"""What is on disk after a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def json_outputs(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.glob("*.json"))}


def parquet_rows(out: Path) -> list[dict[str, Any]]:
    shards = sorted(out.glob("*.parquet"))
    return sorted(pa.concat_tables([pq.read_table(shard) for shard in shards]).to_pylist(), key=lambda row: row["key"])
